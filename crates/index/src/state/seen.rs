//! Which directories a run has seen: a Bloom filter that threads fill together.
//!
//! - Never denies a directory that was marked; takes about one in a hundred others for marked, differently every time.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// Bits per directory.
const BITS: u64 = 10;
/// Bits set for each.
const PROBES: u32 = 6;
/// Directories that there is room for at least.
const DIRS_MIN: u64 = 1024;

/// Directories that a run over one source has seen.
#[derive(Debug)]
pub struct Seen {
    words: Vec<AtomicU64>,
    count: AtomicU64,
    hash: RandomState,
}

impl Seen {
    pub(super) fn new(dirs: u64) -> Self {
        let words = (dirs.max(DIRS_MIN) * BITS).div_ceil(64);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            hash: RandomState::new(),
        }
    }

    /// Marks a directory, changed or not; to be called once for each.
    pub fn mark(&self, dir: &[u8; 16]) {
        for (word, bit) in self.bits(dir) {
            if let Some(word) = self.words.get(word) {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn may_have(&self, dir: &[u8]) -> bool {
        let is_set = |(word, bit): (usize, u64)| {
            self.words
                .get(word)
                .is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
        };
        self.bits(dir).all(is_set)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Double hashing (Kirsch, Mitzenmacher 2006).
    fn bits(&self, dir: &[u8]) -> impl Iterator<Item = (usize, u64)> {
        let hash = self.hash.hash_one(dir);
        let (first, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
        let total = self.words.len() as u64 * 64;
        (0..u64::from(PROBES)).map(move |probe| {
            let bit = (first + probe * step) % total;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }
}
