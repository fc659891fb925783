//! What to share with what: which extents stay and which go, and the order in which they are considered.
//!
//! - An extent either stays, and may be shared by others, or goes: all its uses are made to share what stays, and what nobody else
//!   has is written anew first. Blocks of an extent that stays are never taken away, so that no plan can go round in a circle.
//! - A plan reads metadata alone, and changes nothing. Most weighty extents first, so that large ones stay and gains come early.
//! - It does not matter what was there at an earlier run: one run after each change frees what a single run frees at the end.

mod copies;
mod judge;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use crate::candidates::Candidates;
use crate::cover::{Index, Run, Source};
use crate::error::Result;
use crate::progress::{Cancel, Progress};
use crate::space::{Extent, NO_PRINT, Print, Space, Use, Uses};

/// A fragment more costs as much as so many bytes, in reads to come.
const FRAGMENT_BYTES: u64 = 64 << 10;
/// Extents whose uses are asked for at once.
const BATCH: usize = 4096;
/// How much the number of files counts in the order.
const REFS_WEIGHT_MAX: u32 = 8;
/// Shares of the memory: the index, uses and jobs.
const INDEX_SHARE: u64 = 4;
const USES_SHARE: u64 = 5;
/// Later rounds than this are for another run.
const ROUNDS_MAX: u16 = 64;

/// What the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Share within a subvolume only.
    pub same_subvolume_only: bool,
    /// Write nothing: leave extents of which a part is nowhere else.
    pub never_rewrite: bool,
    /// Share only extents that are equal as a whole.
    pub whole_only: bool,
    /// Share only among files of one owner: what a file shares tells who can read it that somebody has the same.
    pub same_owner_only: bool,
}

impl fmt::Display for Policy {
    /// What it leaves, to be put after words that say what it is about; nothing if nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.same_subvolume_only, ", within each subvolume"),
            (self.never_rewrite, ", without copies"),
            (self.whole_only, ", whole extents only"),
            (self.same_owner_only, ", within each owner's files"),
        ];
        words
            .iter()
            .filter(|(is_set, _)| *is_set)
            .try_for_each(|(_, word)| f.write_str(word))
    }
}

/// One extent that goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Job {
    /// Its number among the candidates.
    pub index: u32,
    /// Jobs of a round need only what those of earlier rounds did.
    pub round: u16,
    /// Where its runs begin in [`Plan::runs`], and how many there are.
    pub runs: (u32, u32),
    /// Blocks that have to be written anew.
    pub leftover_blocks: u32,
    /// Bytes that are free afterwards, less those written anew.
    pub gain_bytes: u64,
}

/// What to do, and what for.
#[derive(Debug, Default)]
pub struct Plan {
    /// What the user wanted.
    pub policy: Policy,
    /// In the order of rounds.
    pub jobs: Vec<Job>,
    /// Runs of all jobs.
    pub runs: Vec<Run>,
    /// Uses of the candidates, by their numbers; none of those that were not reached.
    pub uses: Vec<Uses>,
    /// Bytes that it frees.
    pub gain_bytes: u64,
    /// Extents that stay because what they have in common belongs to several users, and is small and private.
    pub guarded: u64,
    /// Some candidates did not fit in memory: plan again when this is done.
    pub is_partial: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Stays,
    /// Stays for the sake of another that shares it.
    IsShared,
    /// Its blocks are where they belong after this round.
    Goes(u16),
}

/// What the judge says of an extent.
struct Verdict {
    runs: Vec<Run>,
    leftover_blocks: u32,
    gain_bytes: u64,
    /// What it costs, in bytes to be written and read.
    cost_bytes: u64,
}

struct Planner<'a> {
    space: &'a dyn Space,
    candidates: &'a mut Candidates,
    /// Extents whose data cannot be read, by where they begin.
    bad: &'a BTreeSet<u64>,
    policy: Policy,
    index: Index,
    fates: Vec<Fate>,
    /// What is judged just now found something that only its owner may share.
    is_guarded: Cell<bool>,
    plan: Plan,
}

/// Plans about `candidates` but for those that begin at a place in `bad`, in `memory_bytes` of which they already take their share.
pub fn plan(
    space: &dyn Space,
    candidates: &mut Candidates,
    (policy, memory_bytes, bad): (Policy, u64, &BTreeSet<u64>),
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Plan> {
    let count = candidates.extents().len();
    space.prepare(candidates.extents_mut(), memory_bytes / USES_SHARE)?;
    let order = order(candidates.extents(), space.block_bytes());
    Progress::add(&progress.total_extents, count as u64);
    let mut planner = Planner {
        space,
        bad,
        policy,
        index: Index::new(memory_bytes / INDEX_SHARE),
        fates: vec![Fate::Open; count],
        is_guarded: Cell::new(false),
        plan: Plan {
            policy,
            uses: vec![Uses::default(); count],
            ..Plan::default()
        },
        candidates,
    };
    let limit = memory_bytes / USES_SHARE;
    let mut taken = 0;
    for batch in order.chunks(BATCH) {
        cancel.check()?;
        if taken > limit {
            planner.plan.is_partial = true;
            break;
        }
        taken += planner.ask(batch)?;
        let jobs = planner.plan.jobs.len();
        for index in batch {
            planner.consider(*index);
            Progress::add(&progress.planned_extents, 1);
        }
        taken += (planner.plan.jobs.len() - jobs) as u64 * 3 * size_of::<Job>() as u64;
    }
    // What came early may be held by what came late, if nobody counts on it by now.
    for index in order.iter().rev().filter(|_| !cancel.is_cancelled()) {
        planner.reconsider(*index);
    }
    let mut plan = planner.plan;
    plan.jobs
        .sort_by_key(|job| (job.round, std::cmp::Reverse(job.gain_bytes.checked_ilog2()), job.index));
    Ok(plan)
}

/// Candidates in the order in which they are considered: by weight, the oldest first.
fn order(extents: &[Extent], block_bytes: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..extents.len() as u32).collect();
    order.sort_by_cached_key(|index| {
        let extent = extents.get(*index as usize);
        extent.map(|extent| {
            let weight = std::cmp::Reverse(weight(extent, block_bytes));
            (weight, extent.generation, extent.start)
        })
    });
    order
}

/// How much it is worth that an extent stays: its bytes for each file that uses it, less what it costs these that they use it in pieces.
fn weight(extent: &Extent, block_bytes: u64) -> u64 {
    let bytes = u64::from(extent.blocks) * block_bytes * u64::from(extent.refs.clamp(1, REFS_WEIGHT_MAX));
    let more_pieces = u64::from(extent.pieces.saturating_sub(extent.refs.max(1)));
    bytes.saturating_sub(more_pieces * FRAGMENT_BYTES)
}

impl Planner<'_> {
    /// Learns the uses of some candidates; returns the memory that they take.
    fn ask(&mut self, batch: &[u32]) -> Result<u64> {
        let mut batch = batch.to_vec();
        batch.sort_unstable();
        let extents: Vec<Extent> = batch
            .iter()
            .filter_map(|index| self.candidates.extents().get(*index as usize).copied())
            .collect();
        let mut taken = 0;
        self.space.uses(&extents, &mut |at, uses| {
            taken += (uses.list.len() * size_of::<Use>()) as u64;
            let index = batch.get(at).map(|index| *index as usize);
            if let Some(slot) = index.and_then(|index| self.plan.uses.get_mut(index)) {
                *slot = uses;
            }
            Ok(())
        })?;
        Ok(taken)
    }

    fn consider(&mut self, index: u32) {
        let at = index as usize;
        let (Some(extent), Some(uses)) = (self.candidates.extents().get(at).copied(), self.plan.uses.get(at)) else {
            return;
        };
        if uses.list.is_empty() || self.bad.contains(&extent.start) {
            return;
        }
        let live = live(uses);
        let tails_agree = mark(self.candidates.prints_mut(at), &live, uses);
        let may_go = uses.complete && tails_agree;
        self.is_guarded.set(false);
        let verdict = may_go.then(|| self.judge(index, extent, &live)).flatten();
        self.plan.guarded += u64::from(verdict.is_none() && self.is_guarded.get());
        match verdict {
            Some(verdict) => self.goes(index, &live, verdict),
            None => {
                set(&mut self.fates, at, if may_go { Fate::Stays } else { Fate::IsShared });
                let prints = self.candidates.prints(at);
                let live = if uses.encoded {
                    vec![(0, prints.len() as u32)]
                } else {
                    live
                };
                for (from, to) in live {
                    self.index
                        .insert(index, from, prints.get(from as usize..to as usize).unwrap_or_default());
                }
            }
        }
    }

    fn reconsider(&mut self, index: u32) {
        let at = index as usize;
        let found = self.candidates.extents().get(at).zip(self.plan.uses.get(at));
        if let (Some((extent, uses)), Some(Fate::Stays)) = (found, self.fates.get(at)) {
            let live = live(uses);
            if let Some(verdict) = self.judge(index, *extent, &live) {
                self.goes(index, &live, verdict);
            }
        }
    }

    fn goes(&mut self, index: u32, live: &[(u32, u32)], verdict: Verdict) {
        let mut round = 0;
        for run in &verdict.runs {
            let Source::Extent { index, .. } = run.source else {
                continue;
            };
            match self.fates.get(index as usize) {
                Some(Fate::Goes(of_source)) => round = round.max(of_source + 1),
                _ => set(&mut self.fates, index as usize, Fate::IsShared),
            }
        }
        set(&mut self.fates, index as usize, Fate::Goes(round));
        if round < ROUNDS_MAX {
            for (from, to) in leftover(live, &verdict.runs) {
                let prints = self.candidates.prints(index as usize);
                self.index
                    .insert(index, from, prints.get(from as usize..to as usize).unwrap_or_default());
            }
        }
        let plan = &mut self.plan;
        plan.gain_bytes += verdict.gain_bytes;
        plan.jobs.push(Job {
            index,
            round,
            runs: (plan.runs.len() as u32, verdict.runs.len() as u32),
            leftover_blocks: verdict.leftover_blocks,
            gain_bytes: verdict.gain_bytes,
        });
        plan.runs.extend(verdict.runs);
    }
}

fn set(fates: &mut [Fate], at: usize, fate: Fate) {
    if let Some(slot) = fates.get_mut(at) {
        *slot = fate;
    }
}

/// The blocks that are used, as intervals in order, neighbouring ones joined.
pub(crate) fn live(uses: &Uses) -> Vec<(u32, u32)> {
    let mut pieces: Vec<(u32, u32)> = uses
        .list
        .iter()
        .map(|one| (one.block, one.block.saturating_add(one.blocks)))
        .collect();
    pieces.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (from, to) in pieces {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// What `runs` leave of `live`.
pub(crate) fn leftover(live: &[(u32, u32)], runs: &[Run]) -> Vec<(u32, u32)> {
    let mut rest = Vec::new();
    for (from, to) in live {
        let mut at = *from;
        let first = runs.partition_point(|run| run.block < *from);
        for run in runs.iter().skip(first).take_while(|run| run.block < *to) {
            if run.block > at {
                rest.push((at, run.block));
            }
            at = run.end();
        }
        if *to > at {
            rest.push((at, *to));
        }
    }
    rest
}

/// Makes fingerprints say what can be shared: not what is unused, and the end of a file only with the same end of another.
///
/// Says whether all uses agree about ends; if not, the extent has to stay.
fn mark(prints: &mut [Print], live: &[(u32, u32)], uses: &Uses) -> bool {
    let tails = uses.list.iter().filter(|one| one.tail_bytes > 0);
    let mut tails: Vec<(u32, u32)> = tails.map(|one| (one.block + one.blocks - 1, one.tail_bytes)).collect();
    tails.sort_unstable();
    tails.dedup();
    if uses.encoded {
        // Blocks of its own on disk mean nothing alone, and the same bytes used differently are not the same.
        let shape = live
            .iter()
            .chain(&tails)
            .fold(0x5bd1_e995u32, |sum, (one, other)| mix(mix(sum, *one), *other));
        prints.iter_mut().for_each(|print| *print = mix(*print, shape));
        return tails.len() <= 1;
    }
    let mut at = 0;
    for (from, to) in live.iter().copied().chain([(prints.len() as u32, prints.len() as u32)]) {
        prints.get_mut(at..from as usize).unwrap_or_default().fill(NO_PRINT);
        at = to as usize;
    }
    let mut agree = true;
    for (block, bytes) in &tails {
        let covering = uses
            .list
            .iter()
            .filter(|one| (one.block..one.block + one.blocks).contains(block));
        let mut ends = covering.map(|one| {
            if one.block + one.blocks - 1 == *block {
                one.tail_bytes
            } else {
                0
            }
        });
        let same = ends.all(|end| end == *bytes);
        agree &= same;
        if let Some(print) = prints.get_mut(*block as usize) {
            *print = if same && *print != NO_PRINT {
                mix(*print, *bytes)
            } else {
                NO_PRINT
            };
        }
    }
    // A scratch file has one end.
    agree && tails.len() <= 1
}

fn mix(print: Print, with: u32) -> Print {
    (print.rotate_left(13) ^ with.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35)
}
