//! Is it a duplicate? The only place that answers, for the index and for what is in flight.
//!
//! - A chunk is new to exactly one lane; the others rely on that lane's frame landing in a durable pack.
//! - [`Admit::unstored`] counts promises not kept: a run that ends may publish only when there are none (I2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use drystone_format::ChunkId;
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::writing::flights::FrameId;

/// Independent locks, so that threads rarely wait for each other.
const SHARDS: usize = 64;

pub(crate) struct Admit {
    catalog: Arc<Catalog>,
    in_flight: Vec<Mutex<InFlight>>,
}

/// Chunks that are not in the index yet, and the frames that hold them.
type InFlight = HashMap<ChunkId, FrameId>;

/// The answer about one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The caller has promised to put the chunk into this frame.
    New(FrameId),
    /// A lane has promised to put it into this frame, which is not durable yet.
    UnderWay(FrameId),
    /// The chunk lies in a durable pack that may be relied on.
    Durable,
}

impl Admit {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            in_flight: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, id: &ChunkId) -> Option<&Mutex<InFlight>> {
        // Not the first bytes: recipes cut their nodes by those.
        self.in_flight
            .get(usize::from(id.0.last().copied().unwrap_or(0)) % SHARDS)
    }

    /// Says where the chunk is, or will be. If it is new, it is promised to the frame that `frame` names, which takes no lock of the index.
    pub(crate) fn claim(&self, id: &ChunkId, frame: impl FnOnce() -> FrameId) -> Result<Claim> {
        let Some(shard) = self.shard(id) else {
            return Ok(Claim::New(frame()));
        };
        // The lock is held over the look into the index: what lands is put there first and leaves the set second.
        let mut shard = shard.lock();
        match shard.entry(*id) {
            Entry::Occupied(found) => Ok(Claim::UnderWay(*found.get())),
            Entry::Vacant(_) if self.catalog.contains(id)? => Ok(Claim::Durable),
            Entry::Vacant(free) => Ok(Claim::New(*free.insert(frame()))),
        }
    }

    /// Says where a chunk is that a new root may rely on: in a durable pack, or on its way there. Promises nothing.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Claim>> {
        let Some(shard) = self.shard(id) else { return Ok(None) };
        let shard = shard.lock();
        match shard.get(id) {
            Some(frame) => Ok(Some(Claim::UnderWay(*frame))),
            None => Ok(self.catalog.contains(id)?.then_some(Claim::Durable)),
        }
    }

    /// Returns true if a new root may rely on the chunk.
    pub(crate) fn has(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    /// The chunk is in a durable pack and in the index.
    pub(crate) fn landed(&self, id: &ChunkId) {
        if let Some(shard) = self.shard(id) {
            shard.lock().remove(id);
        }
    }

    /// Chunks promised and not landed.
    pub(crate) fn unstored(&self) -> usize {
        self.in_flight.iter().map(|shard| shard.lock().len()).sum()
    }
}
