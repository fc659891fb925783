//! When the index is brought in step with the place: at the first need, or never for who reads a little from afar.
//!
//! - Before that nothing is found but what index runs tell ([`Far`]), and nothing is marked as damaged: what a run names may be gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use drystone_format::{ChunkId, PackId};
use drystone_index::Location;

use super::Catalog;
use crate::catalog::far::Far;
use crate::catalog::forged::recall_forged;
use crate::error::Result;

impl Catalog {
    /// Returns true if the index was brought in step with the place.
    pub(crate) fn is_synced(&self) -> bool {
        self.opening.is_done.load(Ordering::Acquire)
    }

    /// Brings the index in step with the place, unless that was done.
    pub(crate) fn ensure_synced(&self) -> Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        let _one_at_a_time = self.syncing.lock();
        if self.is_synced() { Ok(()) } else { self.sync_fully() }
    }

    /// Brings it in step, with what else is known about packs. The caller holds the lock.
    pub(super) fn sync_fully(&self) -> Result<()> {
        self.sync()?;
        self.load_verified()?;
        if !self.is_synced() {
            recall_forged(&self.place, &self.opening.state, &self.opening.noting, &*self.index)?;
            self.opening.is_done.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Goes by index runs until somebody needs the index to be in step.
    pub(crate) fn look_from_afar(&self, far: Arc<Far>) {
        let _ = self.opening.far.set(far);
    }

    /// Returns true if it goes by index runs.
    pub(crate) fn looks_from_afar(&self) -> bool {
        !self.is_synced() && self.opening.far.get().is_some()
    }

    /// Where index runs say that a chunk lies; `None` once the index is in step, and where they do not say.
    pub(super) fn seen_from_afar(&self, id: &ChunkId) -> Option<Location> {
        let far = self.opening.far.get().filter(|_| !self.is_synced())?;
        far.locate(id)
    }

    /// Notes that what was read of a pack is wrong; best effort. What an index run told of the pack may be as wrong.
    pub(crate) fn mark_damaged(&self, pack: &PackId) {
        if self.is_synced() {
            // What can be read is given out even if nothing can be written down.
            let _ = self.losses.mark_damaged(pack);
        }
    }
}
