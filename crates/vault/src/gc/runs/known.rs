//! What is known of the runs in force: the packs that each lists, as this machine remembers it, and which runs are merged next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use drystone_format::ledger::Numbered;
use drystone_format::{PackId, RegistrationId, RootId};
use drystone_index::PackInfo;

/// Most runs of metadata, and of file data: a chunk is looked for in each.
const RUNS_MAX: usize = 4;
/// A run takes in others that are at most so many times as large.
const GROWTH: usize = 2;
/// Share of the packs of a run, one in so many, that may be gone before it is written again.
const GONE_SHARE: usize = 4;

/// The runs in force, by registration and number.
pub(super) type InForce = BTreeMap<(RegistrationId, u64), Held>;

/// A run in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pieces: BTreeSet<RootId>,
    pub(super) packs: HashSet<PackId>,
    /// A piece of it cannot be read.
    pub(super) is_broken: bool,
}

impl Held {
    pub(super) fn pieces(&self, (registration, number): &(RegistrationId, u64)) -> Vec<Numbered> {
        let numbered = |hash: &RootId| Numbered {
            registration: *registration,
            number: *number,
            hash: *hash,
        };
        self.pieces.iter().map(numbered).collect()
    }

    pub(super) fn size(&self, there: &HashMap<PackId, PackInfo>) -> Size {
        let live = self.packs.iter().filter(|pack| there.contains_key(*pack)).count();
        Size {
            live,
            gone: self.packs.len() - live,
        }
    }
}

/// Registration, number, and the hashes of the pieces and ids of the packs, both with their count before them, of each run.
pub(super) fn encode(runs: &InForce) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ((registration, number), run) in runs.iter().filter(|(_, run)| !run.is_broken) {
        bytes.extend_from_slice(&registration.0);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&(run.pieces.len() as u32).to_be_bytes());
        run.pieces.iter().for_each(|piece| bytes.extend_from_slice(&piece.0));
        bytes.extend_from_slice(&(run.packs.len() as u32).to_be_bytes());
        run.packs.iter().for_each(|pack| bytes.extend_from_slice(&pack.0));
    }
    bytes
}

/// As much as can be read: the state is a cache.
pub(super) fn decode(mut bytes: &[u8]) -> InForce {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
    fn all<const N: usize>(bytes: &mut &[u8]) -> Option<Vec<[u8; N]>> {
        let count = u32::from_be_bytes(take(bytes)?) as usize;
        let (items, rest) = bytes.split_at_checked(count.checked_mul(N)?)?;
        *bytes = rest;
        Some(items.as_chunks().0.to_vec())
    }
    let mut next = || {
        let (registration, number) = (RegistrationId(take(&mut bytes)?), u64::from_be_bytes(take(&mut bytes)?));
        let pieces = all(&mut bytes)?.into_iter().map(RootId).collect();
        let packs = all(&mut bytes)?.into_iter().map(PackId).collect();
        let held = Held {
            pieces,
            packs,
            is_broken: false,
        };
        Some(((registration, number), held))
    };
    std::iter::from_fn(&mut next).collect()
}

/// How many packs a run lists that are there, and how many that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    live: usize,
    gone: usize,
}

/// Which of the runs of one class, by their places, are written into a new one with so many packs that are in none; `None` if nothing is to be
/// done. So many new packs are worth it.
pub(super) fn merged(runs: &[Size], new: usize, worth: usize) -> Option<Vec<usize>> {
    let is_worn = |run: &Size| run.gone * GONE_SHARE > run.live + run.gone;
    if new < worth.max(1) && !runs.iter().any(is_worn) && runs.len() <= RUNS_MAX {
        return None;
    }
    let mut by_size: Vec<usize> = (0..runs.len()).collect();
    by_size.sort_by_key(|at| runs.get(*at).map(|run| run.live));
    let (mut taken, mut packs) = (Vec::new(), new);
    for (before, at) in by_size.iter().enumerate() {
        let Some(run) = runs.get(*at) else { continue };
        let left = runs.len() - before;
        if is_worn(run) || run.live <= packs * GROWTH || left + 1 > RUNS_MAX {
            taken.push(*at);
            packs += run.live;
        }
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Registration, number, and how many pieces and packs.
    type AnyRun = ([u8; 16], u64, u8, u8);

    fn size(live: usize, gone: usize) -> Size {
        Size { live, gone }
    }

    #[test]
    fn few_new_packs_are_left_to_the_next_gc() {
        assert_eq!(merged(&[], 0, 1), None);
        assert_eq!(merged(&[], 63, 64), None);
        assert_eq!(merged(&[], 64, 64), Some(vec![]));
        assert_eq!(merged(&[size(1000, 10)], 1, 64), None);
        assert_eq!(merged(&[size(1000, 10)], 1, 1), Some(vec![]));
    }

    #[test]
    fn small_and_worn_runs_are_taken_in() {
        assert_eq!(merged(&[size(1000, 0), size(100, 0)], 64, 64), Some(vec![1]));
        assert_eq!(merged(&[size(150, 0), size(100, 0)], 64, 64), Some(vec![1, 0]));
        assert_eq!(merged(&[size(1000, 400)], 0, 64), Some(vec![0]));
        assert_eq!(merged(&[size(0, 10), size(5000, 0)], 64, 64), Some(vec![0]));
    }

    proptest! {
        #[test]
        fn there_are_never_too_many_runs_and_packs_are_written_few_times(new in prop::collection::vec(0..200_usize, 1..300)) {
            let (mut runs, mut written, mut unlisted, mut all) = (Vec::<usize>::new(), 0, 0, 0);
            for new in new {
                unlisted += new;
                all += new;
                let sizes: Vec<Size> = runs.iter().map(|live| size(*live, 0)).collect();
                let Some(taken) = merged(&sizes, unlisted, 64) else { continue };
                let sum = unlisted + taken.iter().map(|at| runs[*at]).sum::<usize>();
                let mut left: Vec<usize> = (0..runs.len()).filter(|at| !taken.contains(at)).map(|at| runs[at]).collect();
                left.push(sum);
                (runs, unlisted) = (left, 0);
                written += sum;
                prop_assert!(runs.len() <= RUNS_MAX);
            }
            prop_assert_eq!(runs.iter().sum::<usize>() + unlisted, all);
            prop_assert!(written <= all * 20, "{written} of {all}");
        }

        #[test]
        fn what_is_remembered_of_runs_round_trips(of in prop::collection::vec(any::<AnyRun>(), 0..4)) {
            let held = |(registration, number, pieces, packs): AnyRun| {
                let held = Held {
                    pieces: (0..pieces % 5).map(|piece| RootId([piece; 16])).collect(),
                    packs: (0..packs % 7).map(|pack| PackId([pack; 32])).collect(),
                    is_broken: false,
                };
                ((RegistrationId(registration), number), held)
            };
            let runs: InForce = of.into_iter().map(held).collect();
            let bytes = encode(&runs);
            prop_assert_eq!(&decode(&bytes), &runs);
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).iter().all(|(name, run)| runs[name] == *run));
            }
        }
    }
}
