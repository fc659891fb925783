//! Is it a duplicate? The only place that answers, for the index and for what is in flight in this run.
//!
//! - A chunk is new to exactly one lane of a run; the others rely on that lane's frame landing in a durable pack.
//! - [`Admit::unstored`] counts promises not kept: a run may publish only when there are none (I2).

use std::collections::HashSet;
use std::sync::Arc;

use drystone_format::ChunkId;
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::error::Result;

/// Independent locks, so that threads rarely wait for each other.
const SHARDS: usize = 64;

pub(crate) struct Admit {
    catalog: Arc<Catalog>,
    in_flight: Vec<Mutex<HashSet<ChunkId>>>,
}

impl Admit {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            in_flight: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, id: &ChunkId) -> Option<&Mutex<HashSet<ChunkId>>> {
        // Not the first bytes: recipes cut their nodes by those.
        self.in_flight
            .get(usize::from(id.0.last().copied().unwrap_or(0)) % SHARDS)
    }

    /// Whether the caller must store this chunk; if so, the caller has promised to.
    pub(crate) fn is_new(&self, id: &ChunkId) -> Result<bool> {
        let Some(shard) = self.shard(id) else { return Ok(true) };
        // The lock is held over the look into the index: what lands is put there first and leaves the set second.
        let mut shard = shard.lock();
        if shard.contains(id) || self.catalog.contains(id)? {
            return Ok(false);
        }
        Ok(shard.insert(*id))
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
