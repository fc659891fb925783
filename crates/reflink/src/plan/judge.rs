//! Whether an extent should go, and what that would cost and bring: the cost model.
//!
//! - Pure over a plan: nothing is changed, and nothing asked but fingerprints and uses.
//! - What counts is what a reader will notice: bytes written anew, pieces more of a file, metadata. A copy of a file that was written
//!   piece by piece may come to lie in as many pieces as that does.

use super::{FRAGMENT_BYTES, Planner, Verdict, leftover};
use crate::cover::{Cover, Run, Source};
use crate::space::{Extent, Use, Uses};

/// Metadata of a piece of a file, bytes, with its share of the blocks that snapshots stop sharing.
const METADATA_BYTES: u64 = 256;
/// The gain has to be so many times the cost.
const GAIN_OVER_COST: u64 = 2;
/// A run shorter than this is not worth a fragment, unless it is all there is.
const RUN_MIN_BYTES: u64 = 32 << 10;

impl Planner<'_> {
    /// Whether an extent should go, and how.
    pub(super) fn judge(&self, index: u32, extent: Extent, live: &[(u32, u32)]) -> Option<Verdict> {
        let candidates = &*self.candidates;
        let own = candidates.prints(index as usize);
        let uses = self.plan.uses.get(index as usize)?;
        let cover = Cover {
            index: &self.index,
            prints: |index: u32| candidates.prints(index as usize),
            may: |source: u32| source != index && self.may_share(uses, source),
            zero: self.space.zero_print().filter(|_| !uses.encoded),
        };
        if uses.encoded {
            return self.judge_encoded(extent, live, &cover.runs(own, (0, extent.blocks)));
        }
        let block = self.space.block_bytes();
        let is_worth = |run: &Run, (from, to): (u32, u32)| {
            u64::from(run.blocks) * block >= RUN_MIN_BYTES || (run.block, run.end()) == (from, to)
        };
        let (mut runs, mut is_long) = (Vec::new(), Vec::new());
        for piece in live {
            let found = cover.runs(own, *piece);
            is_long.extend(found.iter().map(|run| is_worth(run, *piece)));
            runs.extend(found);
        }
        if runs.is_empty() {
            return None;
        }
        if !self.space.frees_whole_extents() {
            let joints = self.joints(uses, live, &runs);
            return self.judge_blocks(live, runs, (&is_long, &joints));
        }
        let of_all = runs.iter().zip(is_long);
        let long: Vec<Run> = of_all.filter(|(_, is_long)| *is_long).map(|(run, _)| *run).collect();
        // Short runs may cost more than to write anew what they hold, or less where a file is in pieces anyway.
        let with_short = self.judge_whole(extent, (live, uses), runs);
        let without = self.judge_whole(extent, (live, uses), long);
        [with_short, without]
            .into_iter()
            .flatten()
            .min_by_key(|verdict| verdict.cost_bytes)
    }

    fn may_share(&self, uses: &Uses, source: u32) -> bool {
        let Some(sources) = self.plan.uses.get(source as usize) else {
            return false;
        };
        let has = |subvolume| sources.list.iter().any(|source| source.file.subvolume == subvolume);
        if self.policy.same_subvolume_only && !uses.list.iter().all(|own| has(own.file.subvolume)) {
            return false;
        }
        let all = || uses.list.iter().chain(&sources.list);
        let mut owners = all().map(|one| one.owner);
        let first = owners.next();
        if owners.all(|owner| Some(owner) == first) {
            return true;
        }
        let is_private = all().any(|one| one.is_private);
        self.is_guarded.set(self.is_guarded.get() || is_private);
        !is_private && !self.policy.same_owner_only
    }

    /// Space is given back only if nothing of the extent is used any more.
    fn judge_whole(&self, extent: Extent, (live, uses): (&[(u32, u32)], &Uses), runs: Vec<Run>) -> Option<Verdict> {
        let block = self.space.block_bytes();
        let rest = leftover(live, &runs);
        let leftover_blocks: u32 = rest.iter().map(|(from, to)| to - from).sum();
        let (before, after) = (live.len(), runs.len() + rest.len());
        // A copy comes to lie as what it was copied from: pieces that are there are none more.
        let joints = self.joints(uses, live, &runs);
        let of_joint = |(pair, is_joint): (&[Run], &bool)| match pair {
            [one, other] if *is_joint => 1 + usize::from(other.block > one.end()),
            _ => 0,
        };
        let as_copied: usize = runs.windows(2).zip(joints.iter().skip(1)).map(of_joint).sum();
        let fragments = after.saturating_sub(before + as_copied) as u64;
        let forbidden = (self.policy.never_rewrite || uses.unsummed) && leftover_blocks > 0
            || self.policy.whole_only && (leftover_blocks > 0 || runs.len() > live.len());
        let leftover_bytes = u64::from(leftover_blocks) * block;
        let cost_bytes = leftover_bytes + fragments * FRAGMENT_BYTES + pieces(uses, &runs, &rest) * METADATA_BYTES;
        let bytes = u64::from(extent.blocks) * block;
        let worth = !forbidden && !runs.is_empty() && bytes >= cost_bytes.saturating_mul(GAIN_OVER_COST);
        worth.then(|| Verdict {
            runs,
            leftover_blocks,
            gain_bytes: bytes - leftover_bytes,
            cost_bytes,
        })
    }

    /// Each block is given back on its own: each run has to be worth it.
    fn judge_blocks(&self, live: &[(u32, u32)], runs: Vec<Run>, about: (&[bool], &[bool])) -> Option<Verdict> {
        let block = self.space.block_bytes();
        let (is_long, joints) = about;
        let is_joint = |at: usize| joints.get(at).copied().unwrap_or(false);
        let is_worth = |at: usize, run: &Run| {
            let cuts_before = !live.iter().any(|(from, _)| *from == run.block);
            let cuts_after = !live.iter().any(|(_, to)| *to == run.end());
            let fragments = u64::from(cuts_before && !is_joint(at)) + u64::from(cuts_after && !is_joint(at + 1));
            let cost = fragments * FRAGMENT_BYTES / 2 + METADATA_BYTES;
            let is_whole = !cuts_before && !cuts_after;
            let is_long = is_long.get(at).is_some_and(|is_long| *is_long) || is_joint(at) || is_joint(at + 1);
            is_long && (is_whole || !self.policy.whole_only) && u64::from(run.blocks) * block >= cost * GAIN_OVER_COST
        };
        let worth = runs.into_iter().enumerate().filter(|(at, run)| is_worth(*at, run));
        let runs: Vec<Run> = worth.map(|(_, run)| run).collect();
        let blocks: u64 = runs.iter().map(|run| u64::from(run.blocks)).sum();
        (blocks > 0).then(|| Verdict {
            runs,
            leftover_blocks: 0,
            gain_bytes: blocks * block,
            cost_bytes: 0,
        })
    }

    /// An encoded extent goes only if another is the same to the last byte.
    fn judge_encoded(&self, extent: Extent, live: &[(u32, u32)], runs: &[Run]) -> Option<Verdict> {
        let [
            Run {
                block: 0,
                blocks,
                source: Source::Extent { index, block: 0 },
            },
        ] = runs
        else {
            return None;
        };
        let other = self.candidates.extents().get(*index as usize)?;
        if *blocks != extent.blocks || other.blocks != extent.blocks {
            return None;
        }
        let source = |block| Source::Extent { index: *index, block };
        let runs = live.iter().map(|(from, to)| Run {
            block: *from,
            blocks: to - from,
            source: source(*from),
        });
        let gain_bytes = u64::from(extent.blocks) * self.space.block_bytes();
        Some(Verdict {
            runs: runs.collect(),
            leftover_blocks: 0,
            gain_bytes,
            cost_bytes: 0,
        })
    }
}

/// In how many pieces the files that use an extent will use what takes its place.
fn pieces(uses: &Uses, runs: &[Run], rest: &[(u32, u32)]) -> u64 {
    let mut all: Vec<(u32, u32)> = runs.iter().map(|run| (run.block, run.end())).collect();
    all.extend(rest);
    all.sort_unstable();
    let of_one = |one: &Use| {
        let begin_before = all.partition_point(|(from, _)| *from < one.block.saturating_add(one.blocks));
        let end_before = all.partition_point(|(_, to)| *to <= one.block);
        begin_before.saturating_sub(end_before) as u64
    };
    uses.list.iter().map(of_one).sum()
}
