//! Brings packs and small objects to where and how they should be: repair, re-sharding, paying what is owed.
//!
//! - What is new is durable before anything is removed, so that it can be stopped at any moment and started again.
//! - Everything read is verified; what turns out rotten or forged is not used, and replaced.
//! - Nobody signs a shard of a pack that he has not put together and hashed: what others forged never gets an honest signature.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Spread};
use super::gather::all;
use super::list::PackHoldings;
use super::pack::delete_at;
use super::place::KnownPlace;
use super::plan::{Doubts, Origin, RebalancePlan};
use super::trial::{AllLoaded, Truth};
use super::whereabouts::Whereabouts;
use crate::blocking::blocking;
use crate::{Error, Kind, Name, Result, ShardId};

/// What to read of a pack that is being rebalanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Only what is needed to make what is missing.
    Trust,
    /// All of its shards and copies.
    All,
}

/// What was done for one pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebalanced {
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
    /// Some of what is owed was not made because this credential may not: it is no owner's, and another's signed the pack.
    pub is_foreign: bool,
}

impl Spread {
    /// Brings one pack to the present k, n and placement, as `plan_rebalance` would plan it.
    ///
    /// Afterwards the new shards are durable and what is not needed any more is removed, except from places that are
    /// never deleted from. Can be repeated at any time; places that fail are told in `owed` and in `troubles`.
    pub async fn rebalance(&self, holdings: &PackHoldings, verify: Verify) -> Result<Rebalanced> {
        let mut rebalancing = self.rebalancing(holdings).await;
        if verify == Verify::All {
            rebalancing.try_all().await;
        }
        rebalancing.run().await
    }

    /// Reads all shards and copies of a pack and changes nothing; `rotten` tells which are not what was stored, or are not
    /// signed by anybody who may.
    pub async fn verify(&self, holdings: &PackHoldings) -> Rebalanced {
        let mut rebalancing = self.rebalancing(holdings).await;
        rebalancing.try_all().await;
        rebalancing.note_missing();
        rebalancing.finish()
    }

    async fn rebalancing<'a>(&self, holdings: &'a PackHoldings) -> Rebalancing<'a> {
        let pack_bytes = self.core.length_of(holdings).await;
        Rebalancing {
            core: Arc::clone(&self.core),
            holdings,
            doubts: self.core.wrong_lengths(holdings, pack_bytes),
            loaded: AllLoaded::new(),
            truth: None,
            is_tried: false,
            rebalanced: Rebalanced::default(),
        }
    }
}

/// A pack being rebalanced.
struct Rebalancing<'a> {
    core: Arc<Core>,
    holdings: &'a PackHoldings,
    doubts: Doubts,
    /// What was read, its tags checked.
    loaded: AllLoaded,
    /// The pack, once it was put together.
    truth: Option<Truth>,
    /// Everything was read and tried.
    is_tried: bool,
    rebalanced: Rebalanced,
}

/// An object to write.
struct Fresh {
    place: usize,
    name: Name,
    object: Bytes,
}

impl Core {
    /// The length of a pack, from whatever of it can be read.
    async fn length_of(self: &Arc<Self>, holdings: &PackHoldings) -> Option<u64> {
        if let Some(size) = self.size(&holdings.pack) {
            return Some(size);
        }
        for found in self.ways(holdings) {
            if let Whereabouts::Shards { needed, sources } = found
                && let Ok(shape) = self.footer(holdings.pack, needed, &sources).await
            {
                return Some(shape.pack_bytes());
            }
        }
        None
    }
}

impl Rebalancing<'_> {
    /// Reads every shard and copy, and tries them against the name of the pack.
    ///
    /// Those that belong where they are come first; others are read one by one, however many somebody has put there.
    async fn try_all(&mut self) {
        self.is_tried = true;
        self.loaded.clear();
        let lengths = std::mem::take(&mut self.doubts.rotten);
        let pack = self.holdings.pack;
        let [first, others] = self.core.in_order(self.holdings);
        let (near, far) = others
            .split_at_checked(self.core.total.into())
            .unwrap_or((&others, &[]));
        self.load(first).await;
        self.find_truth().await;
        if self.truth.is_none() {
            self.load(near.to_vec()).await;
            self.find_truth().await;
        }
        let Some(truth) = self.truth.clone() else {
            // What cannot be put together is not judged by it either.
            self.doubts.rotten.extend(lengths);
            return;
        };
        let forged = self.core.note_judged(pack, &truth, &self.loaded).await;
        self.doubts.rotten.extend(forged);
        let is_loaded: HashSet<(usize, Name)> = self.loaded.keys().cloned().collect();
        self.loaded.clear();
        for other in near.iter().chain(far).filter(|other| !is_loaded.contains(*other)) {
            if self.load([other.clone()]).await {
                let forged = self.core.note_judged(pack, &truth, &self.loaded).await;
                self.doubts.rotten.extend(forged);
            }
            self.loaded.clear();
        }
        let pack_bytes = truth.whole.len() as u64;
        self.core.sizes.insert(pack, pack_bytes);
        let lengths = self.core.wrong_lengths(self.holdings, Some(pack_bytes));
        self.doubts.rotten.extend(lengths.rotten);
    }

    /// Puts the pack together from what was loaded, if that gives its name.
    async fn find_truth(&mut self) {
        if self.truth.is_none() {
            self.truth = self.core.find_truth(self.holdings.pack, &self.loaded).await;
        }
    }

    /// Whether shards of this pack may be signed here.
    fn may_sign(&self) -> bool {
        let maker = self.core.keys.maker();
        self.truth.as_ref().is_some_and(|truth| truth.admits(&maker))
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

    async fn run(mut self) -> Result<Rebalanced> {
        let plan = loop {
            let plan = self.core.plan(self.holdings, &self.doubts);
            if plan.is_lost && !self.is_tried {
                // A forged footer may have made everything else look cut short.
                self.try_all().await;
                continue;
            }
            if plan.is_lost {
                self.rebalanced.is_lost = true;
                return Ok(self.finish());
            }
            if plan.writes.is_empty() || self.may_sign() {
                break plan;
            }
            // Each failure rules an object or a place out, so this ends.
            if plan.origin == Origin::Copies || self.truth.is_none() {
                let reads = plan.reads.iter().map(|read| (read.place, read.name.clone()));
                if !self.load(reads).await {
                    continue;
                }
            }
            if plan.origin == Origin::Copies || self.truth.is_some() {
                break plan;
            }
            self.find_truth().await;
            match self.truth.clone() {
                Some(truth) => {
                    let forged = self.core.note_judged(self.holdings.pack, &truth, &self.loaded).await;
                    self.doubts.rotten.extend(forged);
                }
                None if !self.is_tried => self.try_all().await,
                None => {
                    self.rebalanced.is_lost = true;
                    return Ok(self.finish());
                }
            }
        };
        for (position, name) in &plan.owed {
            self.owe(*position, name.clone());
        }
        if !plan.writes.is_empty() {
            let fresh = self.make(&plan).await?;
            self.write(fresh).await?;
        }
        if self.rebalanced.owed.is_empty() {
            self.remove(&plan.surplus).await;
        }
        self.core.forget(&self.holdings.pack);
        Ok(self.finish())
    }

    fn finish(mut self) -> Rebalanced {
        self.rebalanced.rotten = self.doubts.rotten.into_iter().collect();
        self.rebalanced.rotten.sort();
        self.rebalanced
    }

    fn owe(&mut self, position: usize, name: Name) {
        if let Some(place) = self.core.place(position) {
            place.note(|troubles| troubles.owed.add(&name));
        }
        self.rebalanced.owed.push((position, name));
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
        let answers = all(questions).await;
        let mut is_good = answers.is_some();
        for (position, name, outcome) in answers.unwrap_or_default() {
            match outcome {
                Ok(loaded) => {
                    self.rebalanced.reads += 1;
                    self.rebalanced.read_bytes += loaded.object.len() as u64;
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

    /// Makes what the plan writes: from the pack, or as it is elsewhere, signature included.
    async fn make(&mut self, plan: &RebalancePlan) -> Result<Vec<Fresh>> {
        let (pack, needed) = (self.holdings.pack, self.core.needed);
        let number = |name: &Name| match name.kind() {
            Kind::Shard(ShardId { number, .. }) => number,
            _ => u8::MAX,
        };
        let truth = self.truth.clone().filter(|_| self.may_sign());
        let mut fresh = Vec::new();
        let Some(truth) = truth else {
            for write in &plan.writes {
                let (place, name) = (write.place, write.name.clone());
                let held = self.loaded.iter().find(|((_, held), _)| *held == name);
                match held.map(|(_, loaded)| loaded.object.clone()) {
                    Some(object) => fresh.push(Fresh { place, name, object }),
                    None => {
                        self.rebalanced.is_foreign = true;
                        self.owe(place, name);
                    }
                }
            }
            return Ok(fresh);
        };
        let shape = self.core.shape(pack, truth.whole.len() as u64, needed)?;
        let numbers: Vec<u8> = plan.writes.iter().map(|write| number(&write.name)).collect();
        let made: HashMap<u8, Bytes> = blocking(&self.core.label, move || truth.payloads(shape, &numbers)).await?;
        for write in &plan.writes {
            let (place, name) = (write.place, write.name.clone());
            let payload = made.get(&number(&name)).cloned().unwrap_or_default();
            let object = self.core.seal(shape, number(&name), payload).await?;
            fresh.push(Fresh { place, name, object });
        }
        Ok(fresh)
    }

    /// Stores shards, in place of rotten ones where such are.
    async fn write(&mut self, fresh: Vec<Fresh>) -> Result<()> {
        let mut writes = Vec::new();
        for Fresh { place, name, object } in fresh {
            let is_rotten = self.doubts.rotten.contains(&(place, name.clone()));
            if let Some(found) = self.core.place(place).cloned() {
                writes.push(async move {
                    let bytes = object.len() as u64;
                    let is_written = replace(&found, &name, object, is_rotten).await.is_ok();
                    (place, name, is_written.then_some(bytes))
                });
            }
        }
        let written = all(writes).await.ok_or_else(|| self.core.ending())?;
        for (place, name, written) in written {
            match written {
                Some(bytes) => {
                    self.rebalanced.writes += 1;
                    self.rebalanced.written_bytes += bytes;
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
        self.rebalanced.removed += removed.into_iter().filter(|is_removed| *is_removed).count() as u64;
    }
}

/// Stores an object, in place of one that is to go.
pub(super) async fn replace(place: &KnownPlace, name: &Name, bytes: Bytes, is_rotten: bool) -> Result<()> {
    if is_rotten {
        place.delete(name).await?;
    }
    place.put(name, bytes).await?;
    Ok(())
}
