//! Which files a drill restores: a random share of them, some small ones, and the largest.
//!
//! - A function of the seed and the path alone, so that no list of files is kept in memory.

use std::collections::{BTreeSet, HashSet};

use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{Cancel, Reader};

use crate::browse::allowance::Allowance;
use crate::browse::walk::{Step, TreeWalk};
use crate::error::Result;

/// Small files that are always restored.
const SMALL_FILES: usize = 8;
/// Size up to which a file counts as small, bytes.
const SMALL_BYTES: u64 = 64 << 10;
/// Bytes that a file takes beside its content: its last block and its inode.
const FILE_BYTES: u64 = 4096;
/// Files of several names that are counted once; of more each name counts, so that memory is bounded.
const LINKED_FILES: usize = 1 << 20;

/// Part of a snapshot by bytes, above 0 and up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(1.0);

    /// `None` unless it is above 0 and up to 1.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// As a number.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// What was chosen.
#[derive(Debug)]
pub(crate) struct Choice {
    seed: u64,
    share: Share,
    /// Chosen whatever the seed.
    always: BTreeSet<Vec<u8>>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Room that it takes.
    pub(crate) disk_bytes: u64,
}

/// A candidate for being chosen in any case.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Candidate {
    rank: u64,
    path: Vec<u8>,
    bytes: u64,
    disk_bytes: u64,
}

impl Choice {
    /// Looks at all of a tree; what is damaged in it is passed over.
    pub(crate) fn new(
        reader: &Reader,
        tree: &Recipe,
        (seed, share): (u64, Share),
        (allowance, cancel): (Option<Allowance>, &Cancel),
    ) -> Result<Self> {
        let mut choice = Self {
            seed,
            share,
            always: BTreeSet::new(),
            files: 0,
            bytes: 0,
            disk_bytes: 0,
        };
        let (mut small, mut largest) = (BTreeSet::new(), None::<Candidate>);
        let mut walk = TreeWalk::new(reader, tree).within(allowance);
        let mut linked = HashSet::new();
        loop {
            cancel.check()?;
            let entry = match walk.next() {
                Ok(None) => break,
                Ok(Some(Step::Entry(entry))) => entry,
                Ok(Some(_)) => continue,
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            let is_counted = entry.hard_link.is_some_and(|link| linked.contains(&link));
            let (bytes, disk_bytes) = sizes(&entry);
            let candidate = Candidate {
                rank: choice.rank(walk.path()),
                path: walk.path().to_vec(),
                bytes,
                disk_bytes: if is_counted { 0 } else { disk_bytes },
            };
            if choice.is_drawn(candidate.rank) {
                choice.count(&candidate);
                if let Some(link) = entry.hard_link.filter(|_| linked.len() < LINKED_FILES) {
                    linked.insert(link);
                }
                continue;
            }
            if bytes <= SMALL_BYTES {
                small.insert(candidate.clone());
                if small.len() > SMALL_FILES {
                    small.pop_last();
                }
            }
            if largest.as_ref().is_none_or(|largest| largest.bytes < bytes) {
                largest = Some(candidate);
            }
        }
        for candidate in small.into_iter().chain(largest) {
            if choice.always.insert(candidate.path.clone()) {
                choice.count(&candidate);
            }
        }
        Ok(choice)
    }

    fn count(&mut self, candidate: &Candidate) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(candidate.bytes);
        self.disk_bytes = self.disk_bytes.saturating_add(candidate.disk_bytes);
    }

    /// A random number that belongs to this path.
    fn rank(&self, path: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(path);
        let mut rank = [0; 8];
        hasher.finalize_xof().fill(&mut rank);
        u64::from_le_bytes(rank)
    }

    fn is_drawn(&self, rank: u64) -> bool {
        self.share == Share::ALL || rank as f64 / u64::MAX as f64 <= self.share.0
    }

    /// Whether to restore what is at this path.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        self.is_drawn(self.rank(path)) || self.always.contains(path)
    }
}

/// Bytes of the content of an entry, and of the room that it takes.
fn sizes(entry: &Entry) -> (u64, u64) {
    let Kind::File(recipe) = &entry.kind else {
        return (0, FILE_BYTES);
    };
    let data = |part: &Part| match part {
        Part::Hole(_) => 0,
        part => part.bytes(),
    };
    let sum = |parts: &[Part]| parts.iter().map(data).fold(0, u64::saturating_add);
    let disk_bytes = match recipe.depth {
        0 => sum(&recipe.parts),
        _ => recipe.size_bytes,
    };
    (recipe.size_bytes, disk_bytes.saturating_add(FILE_BYTES))
}
