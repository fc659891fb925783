//! The index as the engine uses it: a trait, so that an index that several hosts share can stand in for the local one.

use std::ops::ControlFlow;

use drystone_format::{ChunkId, PackId};

use crate::entry::{Location, PackEntries, PackInfo};
use crate::error::Result;
use crate::index::{Index, Stats};

/// Chunk id -> location, for one vault. [`Index`] is the local one; one that lies in a database may serve several hosts at once.
///
/// - It is a cache (I4): what it says is a hint, and it may forget a pack at any moment, which costs time alone. What it must not do is say
///   that a pack is known before it finds every chunk of it.
/// - The caller has checked what it inserts, and decides by [`PackInfo`] which packs it relies on. A map that others write to must take
///   entries only from those that the vault's owner trusts with that.
/// - All methods may be called from many threads and block until they are done.
pub trait ChunkMap: Send + Sync {
    /// Returns true if a pack that one process inserts is found by all others from then on. If not, they find it after a
    /// [`refresh`](Self::refresh) that follows a [`flush`](Self::flush).
    fn is_shared(&self) -> bool;

    /// Takes in what other processes have flushed since.
    fn refresh(&self) -> Result<()>;

    /// Adds a pack. On return its chunks are found by this process. A pack that is known already is left as it is.
    fn insert(&self, entries: PackEntries) -> Result<()>;

    /// Returns where the chunk lies, in a known pack that is `wanted`. `wanted` must not call the map.
    fn locate(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> Result<Option<Location>>;

    /// Returns where the chunk lies, in any known pack.
    fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.locate(id, &|_| true)
    }

    /// Returns where each of many chunks lies, in their order, with as few round trips as the map can do with.
    fn locate_many(&self, ids: &[ChunkId], wanted: &dyn Fn(&PackInfo) -> bool) -> Result<Vec<Option<Location>>> {
        ids.iter().map(|id| self.locate(id, wanted)).collect()
    }

    /// Returns all known packs, in no order.
    fn packs(&self) -> Result<Vec<PackInfo>>;

    /// Returns what is known of this pack.
    fn pack(&self, pack: &PackId) -> Result<Option<PackInfo>>;

    /// Forgets the packs that are not `live` and returns how many they were.
    fn retain(&self, live: &dyn Fn(&PackId) -> bool) -> Result<usize>;

    /// Makes what was inserted known to other processes, and lasting as far as a cache is.
    fn flush(&self) -> Result<()>;

    /// Calls `each` for every location of every chunk in known packs, ordered by chunk id. Two scans give the same order if nothing was
    /// inserted or forgotten in between.
    fn scan(&self, each: &mut dyn FnMut(&ChunkId, &Location) -> ControlFlow<()>) -> Result<()>;

    /// Returns its current size.
    fn stats(&self) -> Result<Stats>;

    /// Returns how many parts of itself it has found damaged and dropped. Cheap enough to ask after every miss. Whoever sees it grow reads
    /// the packs anew that are no longer known.
    fn dropped_parts(&self) -> u64;
}

impl ChunkMap for Index {
    fn is_shared(&self) -> bool {
        false
    }

    fn refresh(&self) -> Result<()> {
        Index::refresh(self)
    }

    fn insert(&self, entries: PackEntries) -> Result<()> {
        Index::insert(self, entries)
    }

    fn locate(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> Result<Option<Location>> {
        self.get_where(id, wanted)
    }

    fn packs(&self) -> Result<Vec<PackInfo>> {
        Ok(Index::packs(self))
    }

    fn pack(&self, pack: &PackId) -> Result<Option<PackInfo>> {
        Ok(self.has_pack(pack))
    }

    fn retain(&self, live: &dyn Fn(&PackId) -> bool) -> Result<usize> {
        Index::retain(self, live)
    }

    fn flush(&self) -> Result<()> {
        Index::flush(self)
    }

    fn scan(&self, each: &mut dyn FnMut(&ChunkId, &Location) -> ControlFlow<()>) -> Result<()> {
        Index::scan(self, each)
    }

    fn stats(&self) -> Result<Stats> {
        Ok(Index::stats(self))
    }

    fn dropped_parts(&self) -> u64 {
        self.dropped_runs()
    }
}
