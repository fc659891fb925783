//! What the engine takes from the world around it: time, randomness, threads, memory, a directory.

use std::path::PathBuf;
use std::sync::Arc;

use drystone_format::Random;
use drystone_format::tree::Time;
use drystone_index::ChunkMap;

/// The wall clock. Used for what people read (when a snapshot was taken), never for what may be deleted.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Time;

    /// Returns how many seconds local time is ahead of UTC at this time: by it, days begin and end for people.
    fn ahead_of_utc(&self, _seconds: i64) -> i64 {
        0
    }
}

/// Cryptographically secure randomness.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Everything the engine needs beside the place.
#[derive(Clone)]
pub struct Context {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Runs what waits for a place.
    pub runtime: tokio::runtime::Handle,
    /// Threads for work that needs a processor, at least 1.
    pub threads: usize,
    /// Bound for caches and the index in memory, bytes; packs and frames in flight come on top (about 160 MiB).
    pub memory_bytes: usize,
    /// Local directory for what is rebuildable; one directory per vault is made in it.
    pub cache_dir: PathBuf,
    /// Local directory for what this machine knows of places and vaults; must outlive the cache.
    pub known_dir: PathBuf,
    /// An index of chunks that other processes and hosts share; `None` for one in `cache_dir`.
    pub chunk_map: Option<Arc<dyn ChunkMap>>,
    /// What the user accepts although this machine knows it otherwise.
    pub accept: Accept,
}

/// Changes of what this machine knows that the user has accepted in so many words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    /// A place holds another vault than before, or none any more.
    pub new_vault: bool,
    /// A vault has older keys, an older configuration or a shorter history than before.
    pub older: bool,
}

/// [`Entropy`] as `format` takes it.
pub(crate) struct Source<'a>(pub(crate) &'a dyn Entropy);

impl Random for Source<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}
