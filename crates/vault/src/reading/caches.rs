//! What readers keep in memory: frames, and for files that are read at random also single chunks and decoded nodes.
//!
//! - One budget for all of it (I7). Until a file is read at random, frames have all of it.
//! - Chunks of random reads stand apart from frames. A scan loads many frames once and displaces no chunk. A read that wants one chunk of
//!   a frame of 2 MiB keeps that chunk, when the frame is gone.
//! - Each shard has room for many of the largest items, so that these do not displace each other.

use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use drystone_format::limits::{CHUNK_MAX_BYTES, DATA_FRAME_BYTES, META_FRAME_BYTES};
use drystone_format::{ChunkId, PackId};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::node::{Node, NodeKey};
use crate::error::{Error, Result};

/// A pack and the number of a frame in it.
pub(crate) type FrameKey = (PackId, u16);
/// The plaintext of a frame.
pub(crate) type Frame = Arc<Vec<u8>>;

/// Bytes that a cache takes for each item beside the item.
const ITEM_BYTES: usize = 100;
/// Of the largest items, how many a shard has room for.
const LARGEST_OF_SHARD: usize = 16;
/// Shards that there are at most: more than this many threads seldom read at once.
const SHARDS_MAX: usize = 64;
/// Bytes of a typical chunk: data chunks have 16 to 48 KiB.
const CHUNK_BYTES: usize = 24 << 10;

/// What a cache holds.
pub(crate) trait Held {
    /// Memory that it takes, bytes.
    fn held_bytes(&self) -> usize;
}

impl Held for Frame {
    fn held_bytes(&self) -> usize {
        self.len()
    }
}

impl Held for Arc<Node> {
    fn held_bytes(&self) -> usize {
        Node::held_bytes(self)
    }
}

impl Held for Arc<[u8]> {
    fn held_bytes(&self) -> usize {
        self.len()
    }
}

#[derive(Clone)]
pub(crate) struct ByBytes;

impl<Key, Value: Held> Weighter<Key, Value> for ByBytes {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        (value.held_bytes() + ITEM_BYTES) as u64
    }
}

pub(crate) type Bounded<Key, Value> = Cache<Key, Value, ByBytes>;

/// How large the items of a cache are, bytes.
struct Items {
    typical_bytes: usize,
    largest_bytes: usize,
}

/// A cache of at most `memory_bytes`.
fn bounded<Key: Eq + Hash, Value: Held + Clone>(memory_bytes: usize, items: &Items) -> Result<Bounded<Key, Value>> {
    let shards = memory_bytes / (LARGEST_OF_SHARD * items.largest_bytes);
    let options = OptionsBuilder::new()
        .shards(shards.clamp(1, SHARDS_MAX))
        .estimated_items_capacity(2 * memory_bytes / items.typical_bytes)
        .weight_capacity(memory_bytes as u64)
        .hot_allocation(0.5)
        .build()
        .map_err(|_| Error::Stopped)?;
    let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Ok(Cache::with_options(options, ByBytes, hasher, lifecycle))
}

/// What random readers keep.
pub(crate) struct Random {
    pub(crate) chunks: Bounded<ChunkId, Arc<[u8]>>,
    pub(crate) nodes: Bounded<NodeKey, Arc<Node>>,
}

/// The caches of one vault.
pub(crate) struct Caches {
    pub(crate) frames: Bounded<FrameKey, Frame>,
    random: OnceLock<Random>,
    memory_bytes: usize,
}

impl Caches {
    pub(crate) fn new(memory_bytes: usize) -> Result<Self> {
        let items = Items {
            typical_bytes: META_FRAME_BYTES,
            largest_bytes: DATA_FRAME_BYTES,
        };
        Ok(Self {
            frames: bounded(memory_bytes, &items)?,
            random: OnceLock::new(),
            memory_bytes,
        })
    }

    /// Returns the caches of random readers. The first call takes half of the memory away from frames.
    pub(crate) fn random(&self) -> Result<&Random> {
        if let Some(random) = self.random.get() {
            return Ok(random);
        }
        let (frames_bytes, nodes_bytes) = (self.memory_bytes / 2, self.memory_bytes / 8);
        let chunks = Items {
            typical_bytes: CHUNK_BYTES,
            largest_bytes: 3 * CHUNK_BYTES,
        };
        let nodes = Items {
            typical_bytes: CHUNK_BYTES,
            largest_bytes: CHUNK_MAX_BYTES as usize / LARGEST_OF_SHARD,
        };
        let random = Random {
            chunks: bounded(self.memory_bytes - frames_bytes - nodes_bytes, &chunks)?,
            nodes: bounded(nodes_bytes, &nodes)?,
        };
        self.frames.set_capacity(frames_bytes as u64);
        // Whoever was faster has made the same.
        Ok(self.random.get_or_init(|| random))
    }

    /// Returns the memory that all caches take now, bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let random = self.random.get();
        self.frames.weight() + random.map_or(0, |random| random.chunks.weight() + random.nodes.weight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Arc::new(vec![7; bytes])
    }

    fn key(number: usize) -> FrameKey {
        (PackId([number as u8; 32]), number as u16)
    }

    #[test]
    fn the_largest_frames_do_not_displace_each_other_while_they_fit() {
        for memory_bytes in [32 << 20, 512 << 20] {
            let caches = Caches::new(memory_bytes).unwrap();
            // Fewer than would fill a shard if all of them fell into it.
            let fit = LARGEST_OF_SHARD - 2;
            for number in 0..fit {
                caches.frames.insert(key(number), frame(DATA_FRAME_BYTES));
            }
            let held = (0..fit).filter(|number| caches.frames.peek(&key(*number)).is_some());
            assert_eq!(held.count(), fit, "{memory_bytes}");
        }
    }

    #[test]
    fn small_caches_have_one_shard_and_large_ones_many() {
        let shards = |memory_bytes| Caches::new(memory_bytes).unwrap().frames.num_shards();
        assert_eq!([shards(0), shards(1 << 20), shards(32 << 20)], [1, 1, 1]);
        assert!(shards(1 << 30) >= 16);
        let caches = Caches::new(32 << 20).unwrap();
        assert!(caches.random().unwrap().chunks.num_shards() >= 8);
    }

    #[test]
    fn all_of_it_stays_in_its_budget() {
        let memory_bytes = 8 << 20;
        let caches = Caches::new(memory_bytes).unwrap();
        let fill = || {
            for number in 0..300 {
                caches.frames.insert(key(number), frame(64 << 10));
            }
        };
        fill();
        assert!(caches.held_bytes() > memory_bytes as u64 * 3 / 4);
        let random = caches.random().unwrap();
        for number in 0..1000u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            random.chunks.insert(ChunkId(id), vec![1; 20_000].into());
        }
        fill();
        assert!(caches.held_bytes() > memory_bytes as u64 / 2);
        assert!(caches.held_bytes() <= memory_bytes as u64, "{}", caches.held_bytes());
    }

    #[test]
    fn a_scan_displaces_no_chunk_of_random_readers() {
        let caches = Caches::new(16 << 20).unwrap();
        let random = caches.random().unwrap();
        let ids: Vec<ChunkId> = (0..50).map(|number| ChunkId([number; 32])).collect();
        ids.iter()
            .for_each(|id| random.chunks.insert(*id, vec![1; 20_000].into()));
        for number in 0..500 {
            caches.frames.insert(key(number), frame(DATA_FRAME_BYTES));
        }
        assert!(ids.iter().all(|id| random.chunks.peek(id).is_some()));
    }
}
