//! The index and what is known about packs: kept in step with the place, and asked before anything is relied on.
//!
//! - Opening compares the packs at the place with those in the index: new ones are read (their tails only, or the index parts that list
//!   them), vanished or truncated ones are forgotten. The same happens again when a part of the index turns out to be damaged.
//! - A pack found damaged stays readable as far as it goes, but nothing new relies on it.
//! - Opening waits for the first who needs it: who only reads a little, from afar, goes by index runs (`far.rs`) as long as that is enough.
//! - No object that somebody put at the place keeps the catalog from opening: what cannot be read is a problem.

pub(crate) mod far;
pub(crate) mod forged;
pub(crate) mod index_runs;
pub(crate) mod losses;
pub(crate) mod unreadable;

use crate::catalog::far::Opening;
use crate::catalog::tails::BY_OWNER;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drystone_format::config::Trust;
use drystone_format::keys::Secrets;
use drystone_format::pack::{SealedPack, Tail};
use drystone_format::seal::PackKind;
use drystone_format::{ChunkId, PackId};
use drystone_index::{ChunkMap, Location, PackEntries, PackInfo};
use drystone_store::{Kind, Name, Prefix};
use parking_lot::{Mutex, RwLock};

use crate::base::Base;
use crate::catalog::losses::Losses;
use crate::catalog::unreadable::{Unreadable, is_final, is_no_pack};
use crate::error::{Error, Result};
use crate::gc::epochs::Epochs;
use crate::gc::protocol::Standing;
use crate::parallel::each;
use crate::places::place::Place;
use crate::problem::Problems;

mod index;
mod opening;
mod parts;
mod tails;
mod trust;

use index::open_index;
use parts::Parts;
use tails::{entries, owner_bit};
pub(crate) use tails::{read_tail, spans};

pub(crate) struct Catalog {
    pub(crate) index: Arc<dyn ChunkMap>,
    pub(crate) losses: Losses,
    place: Place,
    parallel: usize,
    /// None for whoever wants every pack's own word.
    parts: Option<Parts>,
    secrets: Arc<Secrets>,
    trust: Trust,
    /// Keys of removed credentials.
    revoked: Vec<[u8; 32]>,
    verified: RwLock<HashSet<PackId>>,
    epochs: Arc<Epochs>,
    /// Packs that are condemned, or about to be: nothing new relies on them.
    condemned: RwLock<HashSet<PackId>>,
    /// The epochs that were read before the packs were listed the last time.
    synced_with: RwLock<Arc<Standing>>,
    /// Packs whose tails cannot be read.
    unreadable: Mutex<Problems>,
    /// Those of them that may be no packs, whoever reads them, with their sizes.
    doubtful: Mutex<BTreeMap<PackId, u64>>,
    /// Those of them that are not read again.
    known_bad: Unreadable,
    /// Whether they were read again in this process, since something was missing.
    reread: AtomicBool,
    /// Lists of verified packs that cannot be read, and why.
    bad_lists: Mutex<Vec<(Name, String)>>,
    /// Damaged packs that were turned to for lack of a sound one.
    missed: Mutex<BTreeSet<PackId>>,
    /// How many damaged runs the index had dropped when it was last brought in step.
    dropped: AtomicU64,
    syncing: Mutex<()>,
    /// When the packs were last listed for a chunk that was missed, and there was no new one.
    looked_in_vain: Mutex<Option<Instant>>,
    /// When the last list was begun that somebody waited for.
    list_begun: Mutex<Option<Instant>>,
    opening: Opening,
}

/// How long nobody lists the packs again for a chunk that is missed, after that was of no use.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Packs that are none which one gc looks at and condemns; more are left to the next.
const WORTHLESS_MAX: usize = 10_000;
/// Packs that a listing lacks and that are asked for by name; where more are missing, it is no lag.
const STATS_MAX: usize = 1000;

impl Catalog {
    /// Opens the index in `dir`, which is yet to be brought in step with the place.
    pub(crate) fn open(vault: &Base, dir: &Path) -> Result<Self> {
        Self::open_with(vault, dir, Some(Parts::new(vault)))
    }

    /// The same, and brings it in step from the ends of the packs alone.
    pub(crate) fn open_without_parts(vault: &Base, dir: &Path) -> Result<Self> {
        let catalog = Self::open_with(vault, dir, None)?;
        catalog.ensure_synced()?;
        Ok(catalog)
    }

    fn open_with(vault: &Base, dir: &Path, parts: Option<Parts>) -> Result<Self> {
        let index = open_index(&vault.context, dir)?;
        vault.place.hint_sizes(&index);
        vault.watch_for_forged();
        Ok(Self {
            index,
            losses: Losses::open(vault.state().clone(), dir, vault.context.clock.clone())?,
            place: vault.place.clone(),
            parallel: vault.place.small_reads(vault.context.threads),
            parts,
            secrets: vault.secrets.clone(),
            trust: vault.config().trust,
            revoked: vault.revoked().map(|key| key.0).collect(),
            verified: RwLock::default(),
            epochs: vault.epochs.clone(),
            condemned: RwLock::default(),
            synced_with: RwLock::default(),
            unreadable: Mutex::default(),
            doubtful: Mutex::default(),
            known_bad: Unreadable::open(vault.state().clone())?,
            reread: AtomicBool::new(false),
            bad_lists: Mutex::default(),
            missed: Mutex::default(),
            dropped: AtomicU64::new(0),
            syncing: Mutex::new(()),
            looked_in_vain: Mutex::new(None),
            list_begun: Mutex::new(None),
            opening: Opening::new(vault),
        })
    }

    /// Brings the index in step with the packs at the place.
    fn sync(&self) -> Result<()> {
        self.dropped.store(self.index.dropped_parts(), Ordering::Release);
        let standing = self.epochs.refresh()?;
        let condemned: HashSet<PackId> = standing.condemned().into_iter().collect();
        self.condemned.write().extend(&condemned);
        self.losses.see(&standing)?;
        // Before the list is taken: what a run stores meanwhile is then not taken for gone.
        let known = self.index.packs()?;
        let mut live: HashMap<PackId, u64> = HashMap::new();
        self.place.for_each(&Prefix::Packs, |listed| {
            if let Kind::Pack(id) = listed.name.kind() {
                live.insert(id, listed.size);
            }
            Ok(())
        })?;
        let indexed: Vec<PackId> = known.iter().map(|pack| pack.pack).collect();
        let (mut gone, mut unlisted) = (HashMap::new(), Vec::new());
        for pack in known {
            match live.get(&pack.pack) {
                Some(size) if *size == pack.pack_bytes => {}
                None if !condemned.contains(&pack.pack) => unlisted.push(pack),
                _ => drop(gone.insert(pack.pack, pack.pack_bytes)),
            }
        }
        gone.extend(self.confirm_gone(unlisted)?);
        let is_condemned = |pack: &PackId| condemned.contains(pack);
        let is_back = |pack: &PackId, bytes| live.get(pack) == Some(&bytes) && !is_condemned(pack);
        self.losses.take_back(&is_back);
        self.losses
            .reconcile(&indexed, &gone, &|pack| live.contains_key(pack), &is_condemned)?;
        if !gone.is_empty() {
            self.index.retain(&|pack| !gone.contains_key(pack))?;
        }
        self.known_bad.retain(&live);
        let (mut new, mut unreadable, mut doubtful) = (Vec::new(), Problems::default(), BTreeMap::new());
        for (id, size) in live {
            if self.losses.is_gone(&id) && is_condemned(&id) {
                // Deleted, and back with a place that was away: gc deletes it again.
            } else if self.losses.is_gone(&id) {
                // Cut short: read anew once it is what it was.
                let what =
                    format!("has {size} bytes, which is not what it had; bring it back from a copy of the vault");
                unreadable.push(Name::pack(&id).as_str(), what);
            } else if self.index.pack(&id)?.is_none() {
                match self.known_bad.reason(&id, size) {
                    Some(reason) => {
                        unreadable.push(Name::pack(&id).as_str(), reason);
                        doubtful.insert(id, size);
                    }
                    None => new.push((id, size)),
                }
            }
        }
        *self.unreadable.lock() = unreadable;
        *self.doubtful.lock() = doubtful;
        if !new.is_empty() {
            let new = match &self.parts {
                Some(parts) => parts.give(new, &|pack, size, tail| self.insert(pack, size, tail))?,
                None => new,
            };
            each(self.parallel, &new, &|(id, size)| self.learn(id, *size))?;
            self.index.flush()?;
        }
        self.known_bad.save()?;
        *self.condemned.write() = condemned;
        *self.synced_with.write() = standing;
        self.remember()
    }

    /// The epochs that were read before the packs were listed.
    pub(crate) fn synced_with(&self) -> Arc<Standing> {
        self.synced_with.read().clone()
    }

    /// Brings the index in step with the place if gc may have moved something since; says whether it is newer than `known`.
    pub(crate) fn follow(&self, known: &Arc<Standing>) -> Result<bool> {
        if !self.epochs.refresh()?.has_same_epochs(&self.synced_with()) {
            self.refresh()?;
        }
        Ok(!known.has_same_epochs(&self.synced_with()))
    }

    /// From now on nothing new relies on these packs.
    pub(crate) fn condemn(&self, packs: impl IntoIterator<Item = PackId>) {
        self.condemned.write().extend(packs);
    }

    pub(crate) fn is_condemned(&self, pack: &PackId) -> bool {
        self.condemned.read().contains(pack)
    }

    /// Epochs that cannot be read.
    pub(crate) fn bad_epochs(&self) -> Problems {
        self.epochs.problems()
    }

    /// Brings the index in step with the place as it is now.
    pub(crate) fn refresh(&self) -> Result<()> {
        let _one_at_a_time = self.syncing.lock();
        self.index.refresh()?;
        self.sync_fully()
    }

    /// Reads packs again that earlier runs could not read: somebody may have mended one.
    pub(crate) fn reread(&self) -> Result<()> {
        if self.known_bad.is_empty() {
            return Ok(());
        }
        self.known_bad.clear();
        self.refresh()
    }

    /// Lists the packs again for who misses a chunk, unless that has just been of no use; says whether there was a new pack.
    pub(crate) fn look_again(&self) -> Result<bool> {
        let mut useless = self.looked_in_vain.lock();
        if useless.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
            return Ok(false);
        }
        let before: HashSet<PackId> = self.index.packs()?.into_iter().map(|pack| pack.pack).collect();
        self.refresh()?;
        let is_new = self.index.packs()?.iter().any(|pack| !before.contains(&pack.pack));
        *useless = (!is_new).then(Instant::now);
        Ok(is_new)
    }

    /// Lists the packs, unless a list was begun since then. One thread lists for all that wait here.
    pub(crate) fn look_since(&self, then: Instant) -> Result<()> {
        let mut begun = self.list_begun.lock();
        if begun.is_none_or(|begun| begun < then) {
            let now = Instant::now();
            self.refresh()?;
            *begun = Some(now);
        }
        Ok(())
    }

    /// Of packs that a listing lacks, those that are really not there: a list may lag, or come from places that are behind.
    fn confirm_gone(&self, missing: Vec<PackInfo>) -> Result<HashMap<PackId, u64>> {
        if missing.len() > STATS_MAX {
            return Ok(missing.into_iter().map(|pack| (pack.pack, pack.pack_bytes)).collect());
        }
        let gone = Mutex::new(HashMap::new());
        each(self.parallel, &missing, &|pack| {
            let is_there = match self.place.as_spread() {
                // Also where a part of it answers, nothing may rely on what cannot be read.
                Some(spread) => self.place.block_on(spread.holdings_of(&pack.pack)).is_readable(),
                None => match self.place.stat(&Name::pack(&pack.pack)) {
                    Err(error) if !error.is_damage() => return Err(error),
                    found => matches!(found, Ok(size) if size == pack.pack_bytes),
                },
            };
            if !is_there {
                gone.lock().insert(pack.pack, pack.pack_bytes);
            }
            Ok(())
        })?;
        Ok(gone.into_inner())
    }

    /// Brings the index in step again if it dropped a damaged part of itself since the last time; says whether.
    fn mend(&self) -> Result<bool> {
        let is_whole = || self.index.dropped_parts() == self.dropped.load(Ordering::Acquire);
        if is_whole() {
            return Ok(false);
        }
        let _one_at_a_time = self.syncing.lock();
        if !is_whole() {
            self.sync()?;
        }
        Ok(true)
    }

    /// Writes the index down, and which packs it holds. What a run has stored is then known to the next one.
    pub(crate) fn flush(&self) -> Result<()> {
        self.index.flush()?;
        // What other processes have added belongs to it, or the next run would take their packs for a surprise.
        self.index.refresh()?;
        if self.mend()? { Ok(()) } else { self.remember() }
    }

    fn remember(&self) -> Result<()> {
        self.losses
            .remember(self.index.packs()?.into_iter().map(|pack| pack.pack))
    }

    fn insert(&self, pack: &PackId, size: u64, tail: &Tail) -> Result<()> {
        Ok(self.index.insert(entries(*pack, size, tail))?)
    }

    /// Reads the tail of one pack into the index; whatever is wrong with the pack is noted, not fatal.
    fn learn(&self, id: &PackId, size: u64) -> Result<()> {
        let learned =
            read_tail(&self.place, &self.secrets, id, size).and_then(|(tail, size)| self.insert(id, size, &tail));
        if let Err(error) = &learned {
            self.known_bad.add(id, size, error);
            if is_final(error) {
                self.doubtful.lock().insert(*id, size);
            }
        }
        match learned {
            Err(error) if error.is_damage() => {
                self.unreadable.lock().push(Name::pack(id).as_str(), error);
                Ok(())
            }
            // A writer can sign a pack whose frames are larger than the format allows.
            Err(Error::Index(error @ drystone_index::Error::TooLarge { .. })) => {
                self.unreadable.lock().push(Name::pack(id).as_str(), error);
                Ok(())
            }
            other => other,
        }
    }

    /// The first place of a chunk in a pack that is `wanted`, even if a part of the index is found damaged meanwhile.
    fn find(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> Result<Option<Location>> {
        self.ensure_synced()?;
        match self.index.locate(id, wanted)? {
            None if self.mend()? => Ok(self.index.locate(id, wanted)?),
            found => Ok(found),
        }
    }

    /// Whether a new snapshot may rely on the chunk being there.
    pub(crate) fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.find(id, &|pack| self.is_reliable(pack))?.is_some())
    }

    /// The same of many chunks, in their order.
    pub(crate) fn contains_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.ensure_synced()?;
        let look = || self.index.locate_many(ids, &|pack| self.is_reliable(pack));
        let mut found = look()?;
        if found.iter().any(Option::is_none) && self.mend()? {
            found = look()?;
        }
        Ok(found.iter().map(Option::is_some).collect())
    }

    /// Where the chunk lies in a pack that is not known to be damaged, whoever wrote it.
    pub(crate) fn locate_sound(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.find(id, &|pack| !self.losses.is_damaged(&pack.pack))
    }

    /// Where to read a chunk, best place first; anything will do, since what is read is verified.
    pub(crate) fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        if let Some(location) = self.seen_from_afar(id) {
            return Ok(Some(location));
        }
        match self.find(id, &|_| true)? {
            Some(location) if self.losses.is_damaged(&location.pack) => match self.locate_sound(id)? {
                None => {
                    self.miss(&location.pack);
                    Ok(Some(location))
                }
                sound => Ok(sound),
            },
            None if !self.known_bad.is_empty() && !self.reread.swap(true, Ordering::Relaxed) => {
                self.reread()?;
                self.find(id, &|_| true)
            }
            found => Ok(found),
        }
    }

    /// Notes that something is wanted that only this damaged pack has.
    pub(crate) fn miss(&self, pack: &PackId) {
        self.missed.lock().insert(*pack);
    }

    /// Damaged packs that hold the only copy of something that was looked for.
    pub(crate) fn missed(&self) -> BTreeSet<PackId> {
        self.missed.lock().clone()
    }

    pub(crate) fn forget_missed(&self) {
        self.missed.lock().clear();
    }

    /// Another place to read a chunk, when those in `tried` failed.
    pub(crate) fn locate_beside(&self, id: &ChunkId, tried: &[PackId]) -> Result<Option<Location>> {
        self.find(id, &|pack| !tried.contains(&pack.pack))
    }

    /// Packs that are there and may be none.
    pub(crate) fn doubtful(&self) -> BTreeSet<PackId> {
        self.doubtful.lock().keys().copied().collect()
    }

    /// Those of them that are none, as another look at their ends finds: cut short, altered, or not of this vault. What another version of this
    /// program may be able to read is not among them. Looks at no more than a number of them.
    pub(crate) fn worthless(&self) -> Result<Vec<PackId>> {
        let doubtful: Vec<(PackId, u64)> = self.doubtful.lock().iter().map(|(pack, size)| (*pack, *size)).collect();
        let worthless = Mutex::new(Vec::new());
        let some = doubtful.get(..doubtful.len().min(WORTHLESS_MAX)).unwrap_or_default();
        each(self.parallel, some, &|(pack, size)| {
            match read_tail(&self.place, &self.secrets, pack, *size) {
                Err(error) if is_no_pack(&error) => worthless.lock().push(*pack),
                Err(error) if !error.is_damage() => return Err(error),
                _ => {}
            }
            Ok(())
        })?;
        Ok(worthless.into_inner())
    }

    /// Packs whose tails could not be read when the index was brought in step.
    pub(crate) fn unreadable(&self) -> Problems {
        self.unreadable.lock().clone()
    }

    /// How many chunks there are in all packs, and their bytes.
    pub(crate) fn count(&self) -> Result<(u64, u64)> {
        let count = || {
            let (mut chunks, mut bytes) = (0, 0);
            self.index.scan(&mut |_, location| {
                chunks += 1;
                bytes += u64::from(location.chunk_bytes);
                ControlFlow::Continue(())
            })?;
            Ok((chunks, bytes))
        };
        match count() {
            Err(drystone_index::Error::Damaged { .. }) if self.mend()? => Ok(count()?),
            other => Ok(other?),
        }
    }

    /// What the index holds for a pack of this credential, once it is stored.
    pub(crate) fn own_entries(&self, pack: &SealedPack) -> PackEntries {
        let certificate = self.secrets.certificate;
        PackEntries {
            pack: pack.id,
            pack_bytes: pack.bytes.len() as u64,
            kind: pack.kind as u8 | owner_bit(certificate.role),
            writer: certificate.writer.0,
            registration: pack.registration,
            chunks: spans(&pack.frames),
        }
    }
}

/// What a pack of the index holds, if this program knows the kind.
pub(crate) fn pack_kind(pack: &PackInfo) -> Option<PackKind> {
    PackKind::from_code(pack.kind & !BY_OWNER)
}
