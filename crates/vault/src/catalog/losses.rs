//! What is known to be lost or damaged, kept in the local state for all runs of this machine.
//!
//! - The loss epoch grows before anybody relies on what is left: what was known to be stored before is asked for again.
//! - Every change is made to what is stored, under a lock, so that runs at the same time do not undo each other's.
//! - What gc deleted is no loss, but just as good a reason to ask again.
//! - An index that forgot packs (deleted, torn, damaged) counts as a loss, for what it forgot cannot be missed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_format::{PackId, RootId};
use drystone_index::State;
use parking_lot::{Mutex, RwLock};

use crate::context::Clock;
use crate::error::{Error, Result};
use crate::gc::protocol::Standing;

/// State key of the packs of which a shard was found altered, 32 bytes each.
pub(crate) const UNSOUND: &str = "unsound_packs";
/// State key of the loss epoch, eight bytes big-endian.
const LOSS_EPOCH: &str = "loss_epoch";
/// State key of the packs that were found damaged, 32 bytes each.
const DAMAGED: &str = "damaged_packs";
/// State key of the packs that were indexed once and are no longer at the place, 32 bytes each.
const GONE: &str = "gone_packs";
/// State key of [`fold`] over the packs that the index held when it was last brought in step.
const INDEXED: &str = "indexed_packs";
/// State key of the epochs of gc that have been seen to condemn packs, 16 bytes each.
const EPOCHS: &str = "epochs_seen";
/// State key of the time when packs were last found to be lost or damaged that were sound before, seconds, eight bytes big-endian;
/// empty once a look found that nothing is missed.
const NOTED: &str = "loss_noted";
/// All of them, for whoever makes sure that the state can be read.
pub(crate) const KEYS: [&str; 6] = [LOSS_EPOCH, DAMAGED, GONE, INDEXED, EPOCHS, NOTED];

pub(crate) struct Losses {
    clock: Arc<dyn Clock>,
    state: Arc<State>,
    lock_path: PathBuf,
    epoch: AtomicU64,
    damaged: RwLock<HashSet<PackId>>,
    /// Packs that the index has forgotten in this process because they are gone, with the bytes that each had; on disk it may still hold
    /// them.
    forgotten: Mutex<HashMap<PackId, u64>>,
}

impl Losses {
    pub(crate) fn open(state: Arc<State>, dir: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let losses = Self {
            clock,
            lock_path: dir.join("losses.lock"),
            epoch: AtomicU64::new(stored_epoch(&state)?),
            damaged: RwLock::new(stored_packs(&state, DAMAGED)?),
            forgotten: Mutex::default(),
            state,
        };
        Ok(losses)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn is_damaged(&self, pack: &PackId) -> bool {
        self.damaged.read().contains(pack)
    }

    /// Whether the index had this pack, and the place no longer has it as it was.
    pub(crate) fn is_gone(&self, pack: &PackId) -> bool {
        self.forgotten.lock().contains_key(pack)
    }

    /// Forgets that packs were gone which are back: they are read anew. `is_back` is told how many bytes each had.
    pub(crate) fn take_back(&self, is_back: &dyn Fn(&PackId, u64) -> bool) {
        self.forgotten.lock().retain(|pack, bytes| !is_back(pack, *bytes));
    }

    pub(crate) fn damaged(&self) -> Vec<PackId> {
        self.damaged.read().iter().copied().collect()
    }

    /// Remembers that nothing may rely on `pack` any more; in memory even if the state cannot be written.
    pub(crate) fn mark_damaged(&self, pack: &PackId) -> Result<()> {
        if !self.damaged.write().insert(*pack) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.grow()?;
        self.note_loss()?;
        self.change_damaged(|damaged| damaged.insert(*pack))
    }

    /// When packs were last found to be lost or damaged, if no look has found since that nothing is missed; seconds.
    pub(crate) fn noted(&self) -> Result<Option<i64>> {
        let noted = self.state.get(NOTED)?.and_then(|bytes| bytes.try_into().ok());
        Ok(noted.map(i64::from_be_bytes))
    }

    /// Nothing is missed, as a look at all snapshots has found.
    pub(crate) fn clear_noted(&self) -> Result<()> {
        Ok(self.state.set(NOTED, &[])?)
    }

    fn note_loss(&self) -> Result<()> {
        Ok(self.state.set(NOTED, &self.clock.now().seconds.to_be_bytes())?)
    }

    /// Forgets that `pack` was damaged: it was read in full and is fine.
    pub(crate) fn mark_sound(&self, pack: &PackId) -> Result<()> {
        if !self.damaged.write().remove(pack) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.change_damaged(|damaged| damaged.remove(pack))
    }

    /// Compares the packs that the index came up with to those it had, and to those at the place: `gone` are not there.
    /// A damaged pack that is not even `listed` is damaged no more.
    pub(crate) fn reconcile(
        &self,
        indexed: &[PackId],
        gone: &HashMap<PackId, u64>,
        is_listed: &dyn Fn(&PackId) -> bool,
        is_condemned: &dyn Fn(&PackId) -> bool,
    ) -> Result<()> {
        let _lock = self.lock()?;
        let known_gone = stored_packs(&self.state, GONE)?;
        let found = fold(indexed.iter().filter(|pack| !known_gone.contains(pack)));
        let is_same = self.state.get(INDEXED)?.is_none_or(|expected| expected == found);
        let mut forgotten = self.forgotten.lock();
        for pack in indexed {
            forgotten.remove(pack);
        }
        forgotten.extend(gone);
        let is_lost = |pack: &PackId| !known_gone.contains(pack) && !is_condemned(pack);
        let is_any_lost = forgotten.keys().any(is_lost);
        if is_any_lost {
            self.note_loss()?;
        }
        if !is_same || is_any_lost {
            self.grow()?;
        }
        let now_gone: HashSet<PackId> = forgotten.keys().copied().collect();
        if now_gone != known_gone {
            self.state.set(GONE, &flat(&now_gone))?;
        }
        self.damaged.write().retain(is_listed);
        self.change_damaged(|damaged| damaged.retain(is_listed))
    }

    /// Takes note of what gc has condemned: what was known to be stored there must be asked for again.
    pub(crate) fn see(&self, standing: &Standing) -> Result<()> {
        let condemning = standing.epochs().filter(|(_, epoch)| !epoch.packs.is_empty());
        let now: Vec<[u8; RootId::LEN]> = condemning.map(|((_, id), _)| id.0).collect();
        let before = || Ok::<_, Error>(self.state.get(EPOCHS)?.unwrap_or_default());
        if before()? == now.concat() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let before = before()?;
        let (known, _) = before.as_chunks::<{ RootId::LEN }>();
        if now.iter().any(|id| !known.contains(id)) {
            self.grow()?;
        }
        Ok(self.state.set(EPOCHS, &now.concat())?)
    }

    /// Remembers which packs the index holds, all of them at the place.
    pub(crate) fn remember(&self, indexed: impl Iterator<Item = PackId>) -> Result<()> {
        let indexed: Vec<PackId> = indexed.collect();
        let found = fold(indexed.iter());
        if self.state.get(INDEXED)?.as_deref() == Some(&found) {
            return Ok(());
        }
        Ok(self.state.set(INDEXED, &found)?)
    }

    fn grow(&self) -> Result<()> {
        let epoch = stored_epoch(&self.state)?.max(self.epoch()) + 1;
        self.epoch.store(epoch, Ordering::Release);
        Ok(self.state.set(LOSS_EPOCH, &epoch.to_be_bytes())?)
    }

    /// Changes the stored set, and takes what other runs have added to it.
    fn change_damaged<T>(&self, change: impl FnOnce(&mut HashSet<PackId>) -> T) -> Result<()> {
        let stored = stored_packs(&self.state, DAMAGED)?;
        let mut changed = stored.clone();
        change(&mut changed);
        if changed != stored {
            self.state.set(DAMAGED, &flat(&changed))?;
        }
        self.damaged.write().extend(changed);
        Ok(())
    }

    /// Keeps other processes and threads away from the state's losses until it is dropped.
    fn lock(&self) -> Result<File> {
        let failed = |source| Error::CacheDir {
            path: self.lock_path.clone(),
            source,
        };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.lock_path)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }
}

fn stored_epoch(state: &State) -> Result<u64> {
    let stored = state.get(LOSS_EPOCH)?.and_then(|bytes| bytes.try_into().ok());
    Ok(stored.map_or(0, u64::from_be_bytes))
}

pub(crate) fn stored_packs(state: &State, key: &str) -> Result<HashSet<PackId>> {
    let bytes = state.get(key)?.unwrap_or_default();
    let (ids, _) = bytes.as_chunks::<{ PackId::LEN }>();
    Ok(ids.iter().map(|id| PackId(*id)).collect())
}

pub(crate) fn flat(packs: &HashSet<PackId>) -> Vec<u8> {
    packs.iter().flat_map(|pack| pack.0).collect()
}

/// A name for a set of packs, whatever their order: the exclusive or of their ids, which are hashes.
fn fold<'a>(packs: impl Iterator<Item = &'a PackId>) -> [u8; PackId::LEN] {
    packs.fold([0; PackId::LEN], |mut sum, pack| {
        sum.iter_mut().zip(pack.0).for_each(|(sum, byte)| *sum ^= byte);
        sum
    })
}
