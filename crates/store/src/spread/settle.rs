//! Brings packs and small objects to where and how they should be: repair, re-sharding, paying what is owed.
//!
//! - What is new is durable before anything is removed, so that it can be stopped at any moment and started again.
//! - Everything read is verified; what turns out rotten is not used, and replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::id::pack_id;
use drystone_format::shard::{Shape, open_shard};

use super::gather::all;
use super::list::PackHoldings;
use super::pack::delete_at;
use super::place::Place;
use super::plan::{Doubts, Origin, SettlePlan};
use super::shards::{Found, shard_name};
use super::{Core, Spread};
use crate::erasure::Coder;
use crate::local::blocking;
use crate::{Error, Kind, Name, Range, Result, ShardId};

/// What to read of a pack that is being settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Only what is needed to make what is missing.
    Trust,
    /// All of its shards and copies.
    All,
}

/// What was done for one pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Objects read, and their bytes.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Objects written.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Objects removed because they are not needed where they were.
    pub removed: u64,
    /// Objects that were not what was stored; those that should exist were replaced unless they are among `owed`.
    pub rotten: Vec<(usize, Name)>,
    /// Objects that should have been written to places that did not take them.
    pub owed: Vec<(usize, Name)>,
    /// Too little could be read to do anything.
    pub is_lost: bool,
}

impl Spread {
    /// Brings one pack to the present k, n and placement, as `plan_settle` would plan it.
    ///
    /// Afterwards the new shards are durable and what is not needed any more is removed, except from places that are
    /// never deleted from. Can be repeated at any time; places that fail are told in `owed` and in `troubles`.
    pub async fn settle(&self, holdings: &PackHoldings, verify: Verify) -> Result<Settled> {
        let mut settling = self.settling(holdings).await;
        if verify == Verify::All {
            settling.verify_all().await;
        }
        settling.run().await
    }

    /// Reads all shards and copies of a pack and changes nothing; `rotten` tells which are not what was stored.
    pub async fn verify(&self, holdings: &PackHoldings) -> Settled {
        let mut settling = self.settling(holdings).await;
        settling.verify_all().await;
        settling.note_missing();
        settling.finish()
    }

    async fn settling<'a>(&self, holdings: &'a PackHoldings) -> Settling<'a> {
        let pack_bytes = self.core.length_of(holdings).await;
        Settling {
            core: Arc::clone(&self.core),
            holdings,
            doubts: self.core.wrong_lengths(holdings, pack_bytes),
            loaded: BTreeMap::new(),
            settled: Settled::default(),
        }
    }
}

/// A pack being settled.
struct Settling<'a> {
    core: Arc<Core>,
    holdings: &'a PackHoldings,
    doubts: Doubts,
    /// What was read and verified, by position and name.
    loaded: BTreeMap<(usize, Name), Loaded>,
    settled: Settled,
}

/// The verified payload of a shard, or a verified pack.
struct Loaded {
    pack_bytes: u64,
    payload: Bytes,
}

/// A shard to write.
struct Fresh {
    place: usize,
    number: u8,
    payload: Bytes,
}

impl Core {
    /// The length of a pack, from whatever of it can be read.
    async fn length_of(self: &Arc<Self>, holdings: &PackHoldings) -> Option<u64> {
        if let Some(size) = self.size(&holdings.pack) {
            return Some(size);
        }
        for found in self.ways(holdings) {
            if let Found::Shards { needed, sources } = found
                && let Ok(shape) = self.footer(holdings.pack, needed, &sources).await
            {
                return Some(shape.pack_bytes());
            }
        }
        None
    }
}

impl Settling<'_> {
    /// Reads every shard and copy; keeps those of the present k, of which what is missing is made.
    async fn verify_all(&mut self) {
        let present = self.core.needed;
        let is_present = |name: &Name| matches!(name.kind(), Kind::Shard(shard) if shard.needed == present);
        let (first, others): (Vec<_>, Vec<_>) = self
            .holdings
            .names()
            .into_iter()
            .filter(|object| !self.doubts.rotten.contains(object))
            .partition(|(_, name)| is_present(name));
        self.load(first).await;
        for other in others {
            self.load([other]).await;
            self.loaded.retain(|(_, name), _| is_present(name));
        }
    }

    /// Writes down what places lack, though they never had anything altered under its name.
    fn note_missing(&self) {
        let plan = self.core.plan(self.holdings, &self.doubts);
        for write in plan.writes {
            let object = (write.place, write.name);
            if let Some(place) = self.core.place(object.0)
                && !self.doubts.rotten.contains(&object)
            {
                place.note(|troubles| troubles.missing.add(&object.1));
            }
        }
    }

    async fn run(mut self) -> Result<Settled> {
        let plan = loop {
            let plan = self.core.plan(self.holdings, &self.doubts);
            if plan.is_lost {
                self.settled.is_lost = true;
                return Ok(self.finish());
            }
            // Each failure rules an object or a place out, so this ends.
            if self
                .load(plan.reads.iter().map(|read| (read.place, read.name.clone())))
                .await
            {
                break plan;
            }
        };
        for (position, name) in &plan.owed {
            self.owe(*position, name.clone());
        }
        if !plan.writes.is_empty() {
            let (shape, fresh) = self.make(&plan).await?;
            self.write(shape, fresh).await?;
        }
        if self.settled.owed.is_empty() {
            self.remove(&plan.surplus).await;
        }
        self.core.elsewhere.remove(&self.holdings.pack);
        Ok(self.finish())
    }

    fn finish(mut self) -> Settled {
        self.settled.rotten = self.doubts.rotten.into_iter().collect();
        self.settled.rotten.sort();
        self.settled
    }

    fn owe(&mut self, position: usize, name: Name) {
        if let Some(place) = self.core.place(position) {
            place.note(|troubles| troubles.owed.add(&name));
        }
        self.settled.owed.push((position, name));
    }

    /// Reads and verifies objects that are not loaded yet; whether all are what they should be.
    async fn load(&mut self, objects: impl IntoIterator<Item = (usize, Name)>) -> bool {
        let mut questions = Vec::new();
        for (position, name) in objects {
            if let Some(place) = self.core.place(position)
                && !self.loaded.contains_key(&(position, name.clone()))
            {
                let (core, place) = (Arc::clone(&self.core), Arc::clone(place));
                questions.push(async move {
                    let outcome = core.read_whole(&place, &name).await;
                    (position, name, outcome)
                });
            }
        }
        let mut is_good = true;
        for (position, name, outcome) in all(questions).await.unwrap_or_default() {
            match outcome {
                Ok((bytes, loaded)) => {
                    self.settled.reads += 1;
                    self.settled.read_bytes += bytes;
                    self.loaded.insert((position, name), loaded);
                    continue;
                }
                // What a medium cannot give back is written anew, as what it gives back wrongly.
                Err(error) if error.is_unsound() || error.is_not_found() || matches!(error, Error::Io { .. }) => {
                    self.doubts.rotten.insert((position, name));
                }
                Err(_) => {
                    self.doubts.down.insert(position);
                }
            }
            is_good = false;
        }
        is_good
    }

    /// A loaded shard.
    fn shard(&self, needed: u8, number: u8) -> Option<&Loaded> {
        let pack = self.holdings.pack;
        let name = Name::shard(&ShardId { pack, needed, number });
        self.loaded
            .iter()
            .find(|((_, found), _)| *found == name)
            .map(|(_, loaded)| loaded)
    }

    /// Makes what the plan writes from what was loaded for it.
    async fn make(&self, plan: &SettlePlan) -> Result<(Shape, Vec<Fresh>)> {
        let (pack, needed) = (self.holdings.pack, self.core.needed);
        let of_reads = plan
            .reads
            .iter()
            .find_map(|read| self.loaded.get(&(read.place, read.name.clone())));
        let pack_bytes = of_reads.map_or(0, |loaded| loaded.pack_bytes);
        let shape = self.core.shape(pack, pack_bytes, needed)?;
        let missing = self.missing(plan, needed);
        let made = match plan.origin {
            Origin::Copies => BTreeMap::new(),
            Origin::Sums => self.sums(shape, missing).await?,
            Origin::OtherCut(cut) => {
                let whole = self.whole(self.core.shape(pack, pack_bytes, cut)?).await?;
                (0..=u8::MAX).zip(self.core.cut(shape, whole).await?).collect()
            }
            Origin::Whole => {
                let whole = of_reads.map_or_else(Bytes::new, |loaded| loaded.payload.clone());
                (0..=u8::MAX).zip(self.core.cut(shape, whole).await?).collect()
            }
        };
        let mut fresh = Vec::new();
        for write in &plan.writes {
            if let Kind::Shard(ShardId { number, .. }) = write.name.kind() {
                let loaded = self.shard(needed, number).map(|loaded| loaded.payload.clone());
                let payload = loaded.or_else(|| made.get(&number).cloned()).unwrap_or_default();
                let place = write.place;
                fresh.push(Fresh { place, number, payload });
            }
        }
        Ok((shape, fresh))
    }

    /// The numbers of the shards that the plan writes and that were not read.
    fn missing(&self, plan: &SettlePlan, needed: u8) -> Vec<u8> {
        let numbers = plan.writes.iter().filter_map(|write| match write.name.kind() {
            Kind::Shard(ShardId { number, .. }) => Some(number),
            _ => None,
        });
        numbers.filter(|number| self.shard(needed, *number).is_none()).collect()
    }

    /// Shards from k others that were read.
    async fn sums(&self, shape: Shape, wanted: Vec<u8>) -> Result<BTreeMap<u8, Bytes>> {
        let needed = shape.needed();
        let loaded = (0..=u8::MAX).filter_map(|number| Some((number, self.shard(needed, number)?.payload.clone())));
        let have: Vec<(u8, Bytes)> = loaded.take(needed.into()).collect();
        let rows = blocking(&self.core.label, move || {
            let have: Vec<(u8, &[u8])> = have.iter().map(|(number, payload)| (*number, &**payload)).collect();
            let rows = Coder::new(needed).rebuild(&have, &wanted).unwrap_or_default();
            wanted.into_iter().zip(rows).collect::<Vec<_>>()
        });
        let cut = |(number, mut row): (u8, Vec<u8>)| {
            row.truncate(shape.payload_bytes(number) as usize);
            (number, row.into())
        };
        Ok(rows.await?.into_iter().map(cut).collect())
    }

    /// The whole pack from shards of this shape that were read.
    async fn whole(&self, shape: Shape) -> Result<Bytes> {
        let is_missing = |number: &u8| self.shard(shape.needed(), *number).is_none();
        let missing = (0..shape.needed()).filter(is_missing).collect();
        let sums = self.sums(shape, missing).await?;
        let mut whole = Vec::with_capacity(shape.pack_bytes() as usize);
        for number in 0..shape.needed() {
            let loaded = self.shard(shape.needed(), number).map(|loaded| &loaded.payload);
            whole.extend_from_slice(loaded.or_else(|| sums.get(&number)).map_or(&[], |payload| payload));
        }
        Ok(whole.into())
    }

    /// Stores shards, in place of rotten ones where such are.
    async fn write(&mut self, shape: Shape, fresh: Vec<Fresh>) -> Result<()> {
        let mut writes = Vec::new();
        for Fresh { place, number, payload } in fresh {
            let name = shard_name(&shape, number);
            let sealed = self.core.seal(shape, number, payload).await?;
            let is_rotten = self.doubts.rotten.contains(&(place, name.clone()));
            if let Some(found) = self.core.place(place).cloned() {
                writes.push(async move {
                    let bytes = sealed.len() as u64;
                    let is_written = replace(&found, &name, sealed, is_rotten).await.is_ok();
                    (place, name, is_written.then_some(bytes))
                });
            }
        }
        for (place, name, written) in all(writes).await.unwrap_or_default() {
            match written {
                Some(bytes) => {
                    self.settled.writes += 1;
                    self.settled.written_bytes += bytes;
                }
                None => self.owe(place, name),
            }
        }
        Ok(())
    }

    async fn remove(&mut self, surplus: &[(usize, Name)]) {
        let removals = surplus.iter().filter_map(|(position, name)| {
            let (place, name) = (Arc::clone(self.core.place(*position)?), name.clone());
            Some(async move {
                let failure = delete_at(&place, &name).await;
                if failure.is_some() {
                    place.note(|troubles| troubles.undeleted.add(&name));
                }
                failure.is_none()
            })
        });
        let removed = all(removals).await.unwrap_or_default();
        self.settled.removed += removed.into_iter().filter(|is_removed| *is_removed).count() as u64;
    }
}

impl Core {
    /// A whole shard or pack, verified, and the length of the object.
    async fn read_whole(&self, place: &Place, name: &Name) -> Result<(u64, Loaded)> {
        let object = place.get(name, Range::All).await?;
        let bytes = object.len() as u64;
        let loaded = match name.kind() {
            Kind::Shard(ShardId { pack, needed, number }) => {
                let opened = open_shard(&self.key, pack, needed, number, &object);
                opened.map_err(|what| what.to_string()).map(|(shape, payload)| Loaded {
                    pack_bytes: shape.pack_bytes(),
                    payload: payload.into(),
                })
            }
            Kind::Pack(pack) if pack_id(&object) == pack => Ok(Loaded {
                pack_bytes: bytes,
                payload: object,
            }),
            _ => Err("its bytes do not give its name".to_string()),
        };
        let loaded = loaded.map_err(|what| place.note_unsound(name, &what))?;
        Ok((bytes, loaded))
    }
}

/// Stores an object, in place of one that is to go.
pub(super) async fn replace(place: &Place, name: &Name, bytes: Bytes, is_rotten: bool) -> Result<()> {
    if is_rotten {
        place.delete(name).await?;
    }
    place.put(name, bytes).await?;
    Ok(())
}
