//! Covering an extent with runs of blocks that others hold: an index of blocks that stay, and matches grown from it.
//!
//! - A match is grown block by block over fingerprints in memory; every block is indexed, or, when the index is full, a sample of
//!   them by content, so that equal data is sampled equally, and always the first of a piece.
//! - The index never holds more than it was allowed; matches that it loses for that are the short ones.

use std::collections::HashMap;

use crate::candidates::{PrintHasher, scatter};
use crate::space::{NO_PRINT, Print};

/// Occurrences of a fingerprint that are tried.
const TRIES_MAX: usize = 12;
/// Occurrences that are passed over for being of no use, with those that are tried.
const STEPS_MAX: usize = 256;
/// Memory of an indexed block, bytes: its entry, and its share of the map.
const ENTRY_BYTES: u64 = 32;
/// Blocks of earlier matches over which a later one is grown backwards, in case that it is the better one.
const OVERLAP_MAX: u32 = 64;
const NONE: u32 = u32::MAX;

/// Where a run of equal blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Zeros: a hole.
    Hole,
    /// In a candidate, from a block on.
    Extent {
        /// Its number among the candidates.
        index: u32,
        /// The first block.
        block: u32,
    },
}

/// Blocks of an extent that are equal to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block.
    pub block: u32,
    /// How many.
    pub blocks: u32,
    /// What they are equal to.
    pub source: Source,
}

impl Run {
    /// The block after the last.
    pub fn end(&self) -> u32 {
        self.block.saturating_add(self.blocks)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    index: u32,
    block: u32,
    next: u32,
}

/// Which candidates have a block with a fingerprint.
#[derive(Debug)]
pub(crate) struct Index {
    heads: HashMap<Print, u32, PrintHasher>,
    entries: Vec<Entry>,
    limit: usize,
    /// One block in so many is indexed.
    rate: u64,
}

impl Index {
    pub(crate) fn new(memory_bytes: u64) -> Self {
        Self {
            heads: HashMap::with_hasher(PrintHasher::default()),
            entries: Vec::new(),
            limit: (memory_bytes / ENTRY_BYTES).max(1024) as usize,
            rate: 1,
        }
    }

    /// Adds the blocks from `block` on.
    pub(crate) fn insert(&mut self, index: u32, block: u32, prints: &[Print]) {
        for (at, print) in prints.iter().enumerate().filter(|(_, print)| **print != NO_PRINT) {
            if at > 0 && !scatter(*print).is_multiple_of(self.rate) {
                continue;
            }
            if self.entries.len() >= self.limit {
                self.thin();
            }
            let head = self.heads.entry(*print).or_insert(NONE);
            let entry = Entry {
                index,
                block: block + at as u32,
                next: *head,
            };
            *head = self.entries.len() as u32;
            self.entries.push(entry);
        }
    }

    /// Keeps half of the blocks, chosen by content.
    fn thin(&mut self) {
        self.rate = self.rate.saturating_mul(2);
        let (heads, entries) = (std::mem::take(&mut self.heads), std::mem::take(&mut self.entries));
        for (print, head) in heads {
            let sampled = scatter(print).is_multiple_of(self.rate);
            let (mut at, mut kept) = (head, NONE);
            while let Some(entry) = entries.get(at as usize) {
                at = entry.next;
                if sampled || entry.block == 0 {
                    self.entries.push(Entry { next: kept, ..*entry });
                    kept = self.entries.len() as u32 - 1;
                }
            }
            if kept != NONE {
                self.heads.insert(print, kept);
            }
        }
        // Nothing but first blocks is left: later ones take the place of none.
        if self.entries.len() >= self.limit {
            self.entries.clear();
            self.heads.clear();
        }
    }

    /// Occurrences of a fingerprint: candidate and block, latest first.
    fn find(&self, print: Print) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = self.heads.get(&print).copied().unwrap_or(NONE);
        let next = move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.next;
            Some((entry.index, entry.block))
        };
        std::iter::from_fn(next).take(STEPS_MAX)
    }
}

/// Adds a run that may reach back over earlier ones: those that it holds go, and what remains in its way shortens it.
fn push(runs: &mut Vec<Run>, mut run: Run) {
    while runs.last().is_some_and(|last| last.block >= run.block) {
        runs.pop();
    }
    let overlap = runs.last().map_or(0, |last| last.end().saturating_sub(run.block));
    run.block += overlap;
    run.blocks -= overlap;
    if let Source::Extent { block, .. } = &mut run.source {
        *block += overlap;
    }
    runs.push(run);
}

/// How many blocks are equal from the beginning.
fn equal_ahead(one: &[Print], other: &[Print]) -> usize {
    let pairs = one.iter().zip(other);
    pairs
        .take_while(|(one, other)| one == other && **one != NO_PRINT)
        .count()
}

/// How many blocks are equal from the end backwards.
fn equal_behind(one: &[Print], other: &[Print]) -> usize {
    let pairs = one.iter().rev().zip(other.iter().rev());
    pairs
        .take_while(|(one, other)| one == other && **one != NO_PRINT)
        .count()
}

/// What a cover is made from.
pub(crate) struct Cover<'a, P, A> {
    pub(crate) index: &'a Index,
    /// Fingerprints of a candidate.
    pub(crate) prints: P,
    /// Whether a candidate may be a source.
    pub(crate) may: A,
    pub(crate) zero: Option<Print>,
}

impl<'b, P: Fn(u32) -> &'b [Print], A: Fn(u32) -> bool> Cover<'_, P, A> {
    /// Runs of equal blocks within `from..to` of `own`, in order and without overlap.
    pub(crate) fn runs(&self, own: &[Print], (from, to): (u32, u32)) -> Vec<Run> {
        let own = own.get(..to as usize).unwrap_or_default();
        let mut runs: Vec<Run> = Vec::new();
        let mut at = from;
        while let Some((print, rest)) = own.get(at as usize..).and_then(<[Print]>::split_first) {
            let floor = runs
                .last()
                .map_or(from, |last| last.end().saturating_sub(OVERLAP_MAX).max(from));
            let run = if *print == NO_PRINT {
                None
            } else if Some(*print) == self.zero {
                let blocks = 1 + rest.iter().take_while(|next| *next == print).count() as u32;
                Some(Run {
                    block: at,
                    blocks,
                    source: Source::Hole,
                })
            } else {
                self.longest(own, at, floor)
            };
            match run {
                Some(run) => {
                    at = run.end();
                    push(&mut runs, run);
                }
                None => at += 1,
            }
        }
        runs
    }

    /// The longest match through block `at` that does not begin before `floor`.
    fn longest(&self, own: &[Print], at: u32, floor: u32) -> Option<Run> {
        let (behind, ahead) = own.split_at_checked(at as usize)?;
        let behind = behind.get(floor as usize..)?;
        let mut best: Option<Run> = None;
        let usable = self.index.find(*ahead.first()?).filter(|(index, _)| (self.may)(*index));
        for (index, block) in usable.take(TRIES_MAX) {
            let Some((before, after)) = (self.prints)(index).split_at_checked(block as usize) else {
                continue;
            };
            let (back, forth) = (equal_behind(behind, before) as u32, equal_ahead(ahead, after) as u32);
            let longer = best.is_none_or(|best| back + forth > best.blocks);
            if forth > 0 && longer {
                let source = Source::Extent {
                    index,
                    block: block - back,
                };
                best = Some(Run {
                    block: at - back,
                    blocks: back + forth,
                    source,
                });
                if forth as usize == ahead.len() {
                    break;
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cover(stored: &[Vec<Print>], own: &[Print], memory_bytes: u64) -> Vec<Run> {
        let mut index = Index::new(memory_bytes);
        for (at, prints) in stored.iter().enumerate() {
            index.insert(at as u32, 0, prints);
        }
        let cover = Cover {
            index: &index,
            prints: |index: u32| stored[index as usize].as_slice(),
            may: |_| true,
            zero: Some(0),
        };
        cover.runs(own, (0, own.len() as u32))
    }

    #[test]
    fn shifted_blocks_are_found_and_zeros_are_holes() {
        let stored = vec![(1..100).collect::<Vec<Print>>(), (200..210).collect()];
        let own: Vec<Print> = [7777]
            .into_iter()
            .chain(20..60)
            .chain([0, 0, 0])
            .chain(203..206)
            .chain([8888])
            .collect();
        let expected = [
            Run {
                block: 1,
                blocks: 40,
                source: Source::Extent { index: 0, block: 19 },
            },
            Run {
                block: 41,
                blocks: 3,
                source: Source::Hole,
            },
            Run {
                block: 44,
                blocks: 3,
                source: Source::Extent { index: 1, block: 3 },
            },
        ];
        assert_eq!(cover(&stored, &own, 1 << 20), expected);
    }

    #[test]
    fn a_full_index_still_finds_long_matches() {
        let stored = vec![
            (0..100_000u32)
                .map(|at| at.wrapping_mul(2_654_435_761) | 1)
                .collect::<Vec<Print>>(),
        ];
        let own: Vec<Print> = stored[0][5_000..95_000].to_vec();
        let found: u32 = cover(&stored, &own, 3000 * ENTRY_BYTES)
            .iter()
            .map(|run| run.blocks)
            .sum();
        assert_eq!(found, 90_000);
    }

    proptest! {
        #[test]
        fn runs_are_equal_ordered_and_disjoint(
            stored in prop::collection::vec(prop::collection::vec(0u32..6, 1..40), 1..6),
            own in prop::collection::vec(0u32..7, 0..60),
        ) {
            let mut end = 0;
            let runs = cover(&stored, &own, 1 << 20);
            for run in &runs {
                prop_assert!(run.block >= end && run.blocks > 0);
                end = run.end();
                for at in 0..run.blocks {
                    let print = own[(run.block + at) as usize];
                    match run.source {
                        Source::Hole => prop_assert_eq!(print, 0),
                        Source::Extent { index, block } => prop_assert_eq!(print, stored[index as usize][(block + at) as usize]),
                    }
                }
            }
            let covered: u32 = runs.iter().map(|run| run.blocks).sum();
            let known = own.iter().filter(|print| **print == 0 || stored.iter().flatten().any(|other| other == *print)).count();
            prop_assert_eq!(covered as usize, known);
        }
    }
}
