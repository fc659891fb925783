//! Sets of keys that are hashes: as small as sorted arrays, filled by many threads.
//!
//! - Eight bytes of a chunk's id are enough to call it live: ids are keyed hashes, and two that begin alike only keep garbage.
//!   Ten million chunks take 80 MB, and while they are gathered at most an eighth more.
//! - What must not be mistaken (is this tree walked?) is kept by sixteen bytes.

use std::collections::HashSet;
use std::hash::Hash;

use drystone_format::ChunkId;
use parking_lot::Mutex;

/// Independent parts, each with a lock: threads rarely meet, and a part is merged quickly.
const SHARDS: usize = 256;
/// Fewest keys that a part gathers before it sorts them in.
const RECENT_MIN: usize = 256;

struct Shard<K> {
    sorted: Vec<K>,
    recent: HashSet<K>,
}

/// A set of hashes.
pub(crate) struct Keys<K>(Vec<Mutex<Shard<K>>>);

impl<K: Ord + Copy + Hash> Keys<K> {
    pub(crate) fn new() -> Self {
        let shard = || Shard {
            sorted: Vec::new(),
            recent: HashSet::new(),
        };
        Self((0..SHARDS).map(|_| Mutex::new(shard())).collect())
    }

    /// Whether it was not there before. `place` is any evenly spread byte of the key.
    fn insert(&self, place: u8, key: K) -> bool {
        let Some(shard) = self.0.get(usize::from(place)) else {
            return true;
        };
        let mut shard = shard.lock();
        if shard.sorted.binary_search(&key).is_ok() || !shard.recent.insert(key) {
            return false;
        }
        if shard.recent.len() > RECENT_MIN.max(shard.sorted.len() / 16) {
            shard.merge();
        }
        true
    }

    fn contains(&self, place: u8, key: &K) -> bool {
        self.0.get(usize::from(place)).is_some_and(|shard| {
            let shard = shard.lock();
            shard.sorted.binary_search(key).is_ok() || shard.recent.contains(key)
        })
    }

    pub(crate) fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard<K>>| {
            let shard = shard.lock();
            shard.sorted.len() + shard.recent.len()
        };
        self.0.iter().map(count).sum()
    }
}

impl<K: Ord + Copy> Shard<K> {
    fn merge(&mut self) {
        let mut recent: Vec<K> = std::mem::take(&mut self.recent).into_iter().collect();
        recent.sort_unstable();
        self.sorted.reserve_exact(recent.len());
        // The sort is one for runs that are sorted already: it merges them.
        self.sorted.append(&mut recent);
        self.sorted.sort();
    }
}

impl Keys<u64> {
    /// Whether the chunk was not there before.
    pub(crate) fn insert_chunk(&self, id: &ChunkId) -> bool {
        let (place, key) = short(id);
        self.insert(place, key)
    }

    pub(crate) fn contains_chunk(&self, id: &ChunkId) -> bool {
        let (place, key) = short(id);
        self.contains(place, &key)
    }
}

impl Keys<u128> {
    /// Whether the tree or part of a recipe was not there before.
    pub(crate) fn insert_wide(&self, key: u128) -> bool {
        self.insert(key as u8, key)
    }
}

fn short(id: &ChunkId) -> (u8, u64) {
    // Not the first bytes: recipes cut their nodes by those.
    let place = id.0.last().copied().unwrap_or(0);
    (place, id.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_before_and_after_they_are_sorted_in() {
        let keys = Keys::<u64>::new();
        let id = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            id[31] = (number % 3) as u8;
            ChunkId(id)
        };
        for number in 0..10_000 {
            assert!(keys.insert_chunk(&id(number)));
            assert!(!keys.insert_chunk(&id(number / 2)));
        }
        assert_eq!(keys.len(), 10_000);
        assert!((0..10_000).all(|number| keys.contains_chunk(&id(number))));
        assert!((10_000..20_000).all(|number| !keys.contains_chunk(&id(number))));
    }

    #[test]
    #[ignore = "ten million keys: cargo test -p drystone-vault --lib live -- --ignored"]
    fn ten_million_keys_take_a_hundred_megabytes() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        };
        let before = resident();
        let keys = Keys::<u64>::new();
        for number in 0..10_000_000_u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            id[31] = (number.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 56) as u8;
            keys.insert_chunk(&ChunkId(id));
        }
        assert_eq!(keys.len(), 10_000_000);
        let grown = (resident() - before) / 1024;
        assert!((76..120).contains(&grown), "{grown} MiB");
    }
}
