//! Packs: stored as shards, read back by range, looked for everywhere, removed.
//!
//! - A pack is stored once k + 1 shards are durable, or k if no more can be; what is missing is owed.
//! - A pack that is not where it should be is looked for at every place: as shards of any k, then whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::id::pack_id;
use drystone_format::limits::SHARD_BLOCK_BYTES;
use drystone_format::shard::{FOOTER_BYTES, Shape, seal_shard};
use parking_lot::Mutex;

use super::core::Core;
use super::gather::{Asked, most};
use super::list::{HeldCopy, PackHoldings};
use super::place::{Ease, Failure, KnownPlace};
use super::shards::shard_name;
use super::whereabouts::{Source, Whereabouts};
use crate::blocking::blocking;
use crate::erasure::Coder;
use crate::{Error, Kind, Name, Put, Range, Result, ShardId};

/// Bytes that a tag adds to each block, at most: what to read more for a range of the payload.
const TAGS_PER_BLOCK_BYTES: u64 = 16;

/// What became of one shard or copy.
pub(super) struct Stored {
    /// What its place said, unless none took it.
    pub(super) put: Option<Put>,
    /// Who refused.
    pub(super) failures: Vec<Failure>,
}

impl Core {
    /// The shape of a pack of known length.
    pub(super) fn shape(&self, pack: PackId, pack_bytes: u64, needed: u8) -> Result<Shape> {
        Shape::new(pack, pack_bytes, needed).map_err(|what| self.unsound_pack(pack, &what))
    }

    fn unsound_pack(&self, pack: PackId, what: &dyn ToString) -> Error {
        Error::Unsound {
            name: Name::pack(&pack).to_string(),
            place: self.label.clone(),
            what: what.to_string(),
        }
    }

    /// The length of a pack, if something knows it without a request.
    pub(super) fn size(&self, pack: &PackId) -> Option<u64> {
        if let Some(size) = self.sizes.get(pack) {
            return Some(size);
        }
        let hint = self.hint.read().clone();
        hint.and_then(|hint| hint(pack))
    }

    pub(super) async fn put_pack(self: &Arc<Self>, pack: PackId, bytes: Bytes) -> Result<Put> {
        let shape = self.shape(pack, bytes.len() as u64, self.needed)?;
        let payloads = self.cut(shape, bytes).await?;
        let spares = Arc::new(Mutex::new(VecDeque::from(self.placement.spares(&pack))));
        let homes = self.placement.homes(&pack);
        let asked: Vec<Arc<AtomicUsize>> = homes.iter().map(|home| Arc::new(AtomicUsize::new(*home))).collect();
        let puts = (0..=u8::MAX).zip(payloads).zip(homes.iter().zip(&asked));
        let puts = puts.map(|((number, payload), (home, asked))| {
            let (core, spares) = (Arc::clone(self), Arc::clone(&spares));
            let (home, asked) = (*home, Arc::clone(asked));
            async move {
                let sealed = core.seal(shape, number, payload).await?;
                let name = shard_name(&shape, number);
                Ok(core.put_shard(&name, sealed, home, (&spares, &asked)).await)
            }
        });
        let is_put = |stored: &&Option<Result<Stored>>| matches!(stored, Some(Ok(Stored { put: Some(_), .. })));
        let is_enough = |all: &[Option<Result<Stored>>]| all.iter().filter(is_put).count() >= self.needed.into();
        let stored = most(puts, is_enough, self.hedge_after).await;
        let stored = (0..=u8::MAX).zip(stored).zip(homes.iter().zip(&asked));
        let stored: Result<Vec<Stored>> = stored
            .map(|((number, stored), (home, asked))| {
                let late = || Ok(self.without_shard(&shard_name(&shape, number), *home, asked.load(Ordering::Relaxed)));
                stored.unwrap_or_else(late)
            })
            .collect();
        let put = self.verdict(&Name::pack(&pack), self.needed.into(), stored?)?;
        self.sizes.insert(pack, shape.pack_bytes());
        self.forget(&pack);
        Ok(put)
    }

    /// The payloads of all shards of a pack; those of the data shards are parts of `bytes`.
    pub(super) async fn cut(&self, shape: Shape, bytes: Bytes) -> Result<Vec<Bytes>> {
        let parity: Vec<u8> = (self.needed..self.total).collect();
        let whole = bytes.clone();
        let sums = blocking(&self.label, move || {
            let columns = shape.columns(&whole).unwrap_or_default();
            Coder::new(shape.needed()).parity(&columns, &parity).unwrap_or_default()
        });
        let sums = sums.await?;
        let mut rest = bytes;
        let data = (0..self.needed).map(|number| rest.split_to(shape.payload_bytes(number) as usize));
        let mut payloads: Vec<Bytes> = data.collect();
        payloads.extend(sums.into_iter().map(Bytes::from));
        Ok(payloads)
    }

    /// The object of a shard with this payload.
    pub(super) async fn seal(&self, shape: Shape, number: u8, payload: Bytes) -> Result<Bytes> {
        let keys = Arc::clone(&self.keys);
        let sealed = blocking(&self.label, move || seal_shard(&keys, &shape, number, &payload)).await?;
        sealed
            .map(Bytes::from)
            .map_err(|what| self.unsound_pack(shape.pack(), &what))
    }

    /// Stores a shard at its home, or at the first spare place that takes it.
    ///
    /// `asked` is the place that it waits for.
    async fn put_shard(
        &self,
        name: &Name,
        sealed: Bytes,
        home: usize,
        (spares, asked): (&Mutex<VecDeque<usize>>, &AtomicUsize),
    ) -> Stored {
        let mut failures = Vec::new();
        let mut position = Some(home);
        while let Some(place) = position.and_then(|position| self.place(position)) {
            asked.store(place.position, Ordering::Relaxed);
            match self.put_at(place, name, sealed.clone()).await {
                Ok(put) => {
                    let put = Some(put);
                    return Stored { put, failures };
                }
                Err(error) => failures.push(place.failure(error)),
            }
            position = spares.lock().pop_front();
        }
        if let Some(home) = self.place(home) {
            home.note(|troubles| troubles.owed.add(name));
        }
        Stored { put: None, failures }
    }

    /// A shard that the place that was `asked` did not store in time.
    fn without_shard(&self, name: &Name, home: usize, asked: usize) -> Stored {
        if let Some(home) = self.place(home) {
            home.note(|troubles| troubles.owed.add(name));
        }
        let failures = self.place(asked).map(|place| place.give_up(name)).into_iter().collect();
        Stored { put: None, failures }
    }

    /// A put; by a place that is left alone now it is refused at once.
    pub(super) async fn put_at(&self, place: &KnownPlace, name: &Name, bytes: Bytes) -> Result<Put> {
        match self.refusal(place, name) {
            Some(error) => Err(error),
            None => place.put(name, bytes).await,
        }
    }

    /// Whether enough of an object is stored: `least` parts or copies must be, and one more should.
    pub(super) fn verdict(&self, name: &Name, least: usize, stored: Vec<Stored>) -> Result<Put> {
        let enough = (least + 1).min(stored.len());
        let durable = stored.iter().filter(|stored| stored.put.is_some()).count();
        let existed = stored.iter().filter(|stored| stored.put == Some(Put::Existed)).count();
        if durable < least {
            let failures: Vec<Failure> = stored.into_iter().flat_map(|stored| stored.failures).collect();
            let is_full = |failure: &Failure| matches!(failure.error, Error::Full { .. });
            if !failures.is_empty() && failures.iter().all(is_full) {
                return Err(Error::Full {
                    name: name.to_string(),
                    place: self.label.clone(),
                });
            }
            return Err(taken(name, &failures).unwrap_or_else(|| self.too_few(name, &failures)));
        }
        if durable < enough {
            self.thin.lock().add(name);
        }
        Ok(if existed >= least { Put::Existed } else { Put::Created })
    }

    /// A range of a pack; a whole one is hashed, and if it is wrong, put together from shards that are proven.
    ///
    /// If none are found it is given as it was read: whoever asked for it knows what it should be.
    pub(super) async fn get_pack(self: &Arc<Self>, pack: PackId, range: Range) -> Result<Bytes> {
        if let Some(whole) = self.sworn(pack).await {
            return self.part_of(pack, &whole, range);
        }
        let read = self.read_pack(pack, range).await;
        let is_wrong = match &read {
            Ok(bytes) if range == Range::All => {
                let bytes = bytes.clone();
                blocking(&self.label, move || pack_id(&bytes) != pack).await?
            }
            // Footers may contradict each other: what is held is enough all the same, if some k of it give the pack.
            Err(error) => matches!(error, Error::Lost { .. } | Error::TooFew { .. } | Error::Unsound { .. }),
            Ok(_) => false,
        };
        if !is_wrong {
            return read;
        }
        match self.clear_up(pack).await {
            Some(whole) => self.part_of(pack, &whole, range),
            None => read,
        }
    }

    /// A range of a whole pack that is in memory.
    fn part_of(&self, pack: PackId, whole: &Bytes, range: Range) -> Result<Bytes> {
        let (offset, len) = range.resolve(&Name::pack(&pack), &self.label, whole.len() as u64)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole.slice(start..start.saturating_add(len).min(whole.len())))
    }

    async fn read_pack(self: &Arc<Self>, pack: PackId, range: Range) -> Result<Bytes> {
        let name = Name::pack(&pack);
        if let Some(found) = self.elsewhere.get(&pack) {
            match self.read_found(pack, range, &found).await {
                Ok(bytes) => return Ok(bytes),
                Err(failures) => self.reject_range(failures)?,
            };
            self.elsewhere.remove(&pack);
        }
        let mut failures = match self.read_expected(pack, range).await {
            Ok(bytes) => return Ok(bytes),
            Err(failures) => self.reject_range(failures)?,
        };
        // A length that was remembered or hinted may be what is wrong.
        self.sizes.remove(&pack);
        let (mut holdings, silent) = self.survey(pack).await;
        self.leave_forged(&mut holdings);
        failures.extend(silent);
        for found in self.ways(&holdings) {
            match self.read_found(pack, range, &found).await {
                Ok(bytes) => {
                    self.note_missing(&failures);
                    self.elsewhere.insert(pack, found);
                    return Ok(bytes);
                }
                Err(more) => failures.extend(self.reject_range(more)?),
            }
        }
        Err(self.unreadable(&name, holdings.amount(), &failures))
    }

    /// Failures that another source may make good; an error if the range itself was wrong.
    fn reject_range(&self, mut failures: Vec<Failure>) -> Result<Vec<Failure>> {
        let is_about_range = |failure: &Failure| match &failure.error {
            Error::Short { place, .. } | Error::TooLarge { place, .. } => *place == self.label,
            _ => false,
        };
        match failures.iter().position(is_about_range) {
            Some(at) => Err(failures.swap_remove(at).error),
            None => Ok(failures),
        }
    }

    /// From where the shards should lie.
    async fn read_expected(self: &Arc<Self>, pack: PackId, range: Range) -> Asked<Bytes> {
        let sources = self.expected(&pack);
        let at_home = |error| vec![Failure { position: 0, error }];
        if let Some(size) = self.size(&pack) {
            let shape = self.shape(pack, size, self.needed).map_err(at_home)?;
            return self.read(shape, range, sources).await;
        }
        let shape = match range {
            Range::Last(bytes) => match self.read_end(pack, bytes, &sources).await {
                Some((_, Some(bytes))) => return Ok(bytes),
                Some((shape, None)) => shape,
                None => self.footer(pack, self.needed, &sources).await?,
            },
            _ => self.footer(pack, self.needed, &sources).await?,
        };
        self.read(shape, range, sources).await
    }

    /// The end of a pack of unknown length, which the last data shard nearly always holds together with its footer.
    async fn read_end(&self, pack: PackId, bytes: u64, sources: &[Source]) -> Option<(Shape, Option<Bytes>)> {
        let (needed, number) = (self.needed, self.needed.checked_sub(1)?);
        let source = sources.iter().find(|source| source.number == number)?;
        let place = self.place(*source.places.first()?);
        let place = place.filter(|place| place.ease() <= Ease::Slow)?;
        let block = SHARD_BLOCK_BYTES as u64;
        let blocks = bytes.div_ceil(block).saturating_add(1);
        let sealed = blocks.saturating_mul(block + TAGS_PER_BLOCK_BYTES);
        let asked = sealed.saturating_add(FOOTER_BYTES as u64);
        let id = ShardId { pack, needed, number };
        let (shape, end) = self.end_of(place, &id, asked).await.ok()?;
        self.sizes.insert(pack, shape.pack_bytes());
        let bytes = bytes.min(shape.pack_bytes());
        let payload = shape.payload_bytes(number);
        if bytes == 0 || bytes > payload {
            return Some((shape, None));
        }
        let blocks = shape.blocks(number, payload - bytes, bytes);
        let before = shape.object_bytes(number).checked_sub(end.len() as u64);
        let start = before.and_then(|before| blocks.offset().checked_sub(before));
        let sealed = start.and_then(|start| {
            let start = usize::try_from(start).ok()?;
            end.get(start..start + usize::try_from(blocks.sealed_bytes()).ok()?)
        });
        let mut out = Vec::new();
        match blocks.open(&self.keys, sealed.unwrap_or_default(), &mut out) {
            Ok(()) => Some((shape, Some(out.into()))),
            // The read that follows finds out again, and says so.
            Err(_) => Some((shape, None)),
        }
    }

    /// From where a pack was found.
    async fn read_found(self: &Arc<Self>, pack: PackId, range: Range, found: &Whereabouts) -> Asked<Bytes> {
        match found {
            Whereabouts::Shards { needed, sources } => {
                let known = self
                    .sizes
                    .get(&pack)
                    .and_then(|size| Shape::new(pack, size, *needed).ok());
                let shape = match known {
                    Some(shape) => shape,
                    None => self.footer(pack, *needed, sources).await?,
                };
                self.read(shape, range, Arc::clone(sources)).await
            }
            Whereabouts::Whole { position } => {
                let place = self.place(*position).ok_or_else(Vec::new)?;
                let name = Name::pack(&pack);
                let bytes = place.get(&name, range).await;
                let bytes = bytes.map_err(|error| vec![place.failure(error)])?;
                if range == Range::All && pack_id(&bytes) != pack {
                    let error = place.note_unsound(&name, &"its bytes do not give its name");
                    return Err(vec![place.failure(error)]);
                }
                Ok(bytes)
            }
        }
    }

    /// All ways to read a pack from what is held of it, the best first.
    pub(super) fn ways(&self, holdings: &PackHoldings) -> Vec<Whereabouts> {
        let mut ways = Vec::new();
        for needed in holdings.cuts(self.needed) {
            let sources = Self::sources(holdings, needed);
            if sources.len() >= needed.into() {
                let sources = sources.into();
                ways.push(Whereabouts::Shards { needed, sources });
            }
        }
        let position = |copy: &HeldCopy| Whereabouts::Whole { position: copy.place };
        ways.extend(holdings.copies.iter().map(position));
        ways
    }

    pub(super) async fn stat_pack(self: &Arc<Self>, pack: PackId) -> Result<u64> {
        let sources = self.expected(&pack);
        let mut failures = match self.footer(pack, self.needed, &sources).await {
            Ok(shape) => return Ok(shape.pack_bytes()),
            Err(failures) => failures,
        };
        let (mut holdings, silent) = self.survey(pack).await;
        self.leave_forged(&mut holdings);
        failures.extend(silent);
        for found in self.ways(&holdings) {
            match found {
                Whereabouts::Shards { needed, sources } => match self.footer(pack, needed, &sources).await {
                    Ok(shape) => return Ok(shape.pack_bytes()),
                    Err(more) => failures.extend(more),
                },
                Whereabouts::Whole { position } => {
                    let held = holdings.copies.iter().find(|copy| copy.place == position);
                    if let Some(copy) = held {
                        return Ok(copy.bytes);
                    }
                }
            }
        }
        Err(self.unreadable(&Name::pack(&pack), holdings.amount(), &failures))
    }

    /// Removes all that is held of a pack, and, since listings may be late, what should be there.
    pub(super) async fn delete_pack(self: &Arc<Self>, pack: PackId) -> Result<()> {
        let (holdings, mut failures) = self.survey(pack).await;
        let mut names: Vec<(usize, Name)> = holdings.names();
        for source in &*self.expected(&pack) {
            for position in &source.places {
                let is_late = self.place(*position).is_some_and(|place| place.lists_late());
                let (needed, number) = (self.needed, source.number);
                let name = Name::shard(&ShardId { pack, needed, number });
                if is_late && !names.iter().any(|(_, listed)| *listed == name) {
                    names.push((*position, name));
                }
            }
        }
        let deletes = names.into_iter().filter_map(|(position, name)| {
            let place = Arc::clone(self.place(position)?);
            Some((position, async move { delete_at(&place, &name).await }))
        });
        let (positions, deletes): (Vec<usize>, Vec<_>) = deletes.unzip();
        let places: Vec<_> = positions
            .into_iter()
            .filter_map(|position| self.place(position))
            .collect();
        failures.extend(self.deletions(&Name::pack(&pack), &places, deletes).await);
        self.sizes.remove(&pack);
        self.forget(&pack);
        self.deleted(&Name::pack(&pack), failures)
    }

    /// Whether an object was deleted at as many places as must survive; where it was not is written down.
    ///
    /// What comes back with the others is deleted again by gc, which knows what it condemned.
    pub(super) fn deleted(&self, name: &Name, failures: Vec<Failure>) -> Result<()> {
        let mut places: Vec<usize> = failures.iter().map(|failure| failure.position).collect();
        places.sort_unstable();
        places.dedup();
        for place in places.iter().filter_map(|place| self.place(*place)) {
            place.note(|troubles| {
                let was_never_there = troubles.absent.is_some() && matches!(name.kind(), Kind::Writer(..));
                if !was_never_there {
                    troubles.undeleted.add(name);
                }
            });
        }
        if places.len() > self.placement.tolerance() {
            return Err(self.too_few(name, &failures));
        }
        Ok(())
    }
}

/// What to tell if all that is wrong is that other bytes lie there.
fn taken(name: &Name, failures: &[Failure]) -> Option<Error> {
    let place = |failure: &Failure| match &failure.error {
        Error::Unsound { place, .. } => Some(place.clone()),
        _ => None,
    };
    let places: Option<Vec<String>> = failures.iter().map(place).collect();
    let places = places.filter(|places| !places.is_empty())?;
    Some(Error::Taken {
        name: name.to_string(),
        place: places.join(", "),
    })
}

/// Deletes one object at a place, unless nothing is ever removed there.
pub(super) async fn delete_at(place: &KnownPlace, name: &Name) -> Option<Failure> {
    if place.is_append_only() {
        return None;
    }
    place.delete(name).await.err().map(|error| place.failure(error))
}
