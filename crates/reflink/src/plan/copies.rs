//! What is the copy of a file that lies in many pieces: to share it cuts no file into more pieces than there are already.
//!
//! - Only a hint for the cost model: a copy that is taken for none is shared less, and one that is taken for another is in more pieces.

use std::collections::HashMap;

use super::Planner;
use crate::cover::{Run, Source};
use crate::space::{FileId, Use, Uses};

/// So many parts of what is used of an extent have to be in one other file, in the same order, for it to be taken for a copy of that.
const COPY_PARTS: (u64, u64) = (3, 4);
/// Files of which an extent may be a copy, the first ones that use the other.
const USERS_MAX: usize = 16;

/// A file of which an extent may be a copy, and how far that is from the same place in it, bytes.
type Place = (FileId, u64);

/// Files that use an extent, each with the place in it where the extent's first block would be; the first ones.
fn users(uses: &Uses, block_bytes: u64) -> Vec<(FileId, u64)> {
    let base = |one: &Use| {
        one.file_offset
            .wrapping_sub(u64::from(one.block).wrapping_mul(block_bytes))
    };
    let mut users: Vec<(FileId, u64)> = uses.list.iter().map(|one| (one.file, base(one))).collect();
    users.sort_unstable();
    users.dedup();
    users.truncate(USERS_MAX);
    users
}

/// The blocks of an extent that one file uses, piece by piece.
fn pieces_of(uses: &Uses, file: FileId) -> Vec<(u32, u32)> {
    let of_file = uses.list.iter().filter(|one| one.file == file);
    let mut pieces: Vec<(u32, u32)> = of_file
        .map(|one| (one.block, one.block.saturating_add(one.blocks)))
        .collect();
    pieces.sort_unstable();
    pieces
}

impl Planner<'_> {
    /// Says of each run whether the file that it is a copy of is in pieces already between the run before and this one.
    pub(super) fn joints(&self, uses: &Uses, live: &[(u32, u32)], runs: &[Run]) -> Vec<bool> {
        let none = vec![false; runs.len()];
        if runs.len() < 2 {
            return none;
        }
        let places = self.places(uses, runs);
        let mut blocks: HashMap<Place, u64> = HashMap::new();
        for (run, place) in runs
            .iter()
            .zip(&places)
            .flat_map(|(run, of_run)| of_run.iter().map(move |one| (run, *one)))
        {
            *blocks.entry(place).or_default() += u64::from(run.blocks);
        }
        let used: u64 = live.iter().map(|(from, to)| u64::from(to - from)).sum();
        let mut likely: Vec<(u64, Place)> = blocks.into_iter().map(|(place, blocks)| (blocks, place)).collect();
        likely.retain(|(blocks, _)| blocks * COPY_PARTS.1 >= used * COPY_PARTS.0);
        likely.sort_unstable_by_key(|(blocks, place)| (std::cmp::Reverse(*blocks), *place));
        let of_place = |(_, place): &(u64, Place)| self.joints_of(*place, runs, &places);
        let found = likely.iter().take(USERS_MAX).map(of_place);
        found
            .max_by_key(|joints| joints.iter().filter(|is_joint| **is_joint).count())
            .unwrap_or(none)
    }

    /// The places of which each run may be a copy.
    fn places(&self, uses: &Uses, runs: &[Run]) -> Vec<Vec<Place>> {
        let block = self.space.block_bytes();
        let own = users(uses, block).first().map_or(0, |(_, base)| *base);
        let mut known: HashMap<u32, Vec<Place>> = HashMap::new();
        let mut of_run = |run: &Run| {
            let Source::Extent { index, block: at } = run.source else {
                return Vec::new();
            };
            let of_source = || self.plan.uses.get(index as usize).map(|uses| users(uses, block));
            let bases = known.entry(index).or_insert_with(|| of_source().unwrap_or_default());
            let shift = u64::from(at).wrapping_sub(u64::from(run.block)).wrapping_mul(block);
            let to_place = |(file, base): &Place| (*file, base.wrapping_add(shift).wrapping_sub(own));
            bases.iter().map(to_place).collect()
        };
        runs.iter().map(&mut of_run).collect()
    }

    fn joints_of(&self, place: Place, runs: &[Run], places: &[Vec<Place>]) -> Vec<bool> {
        let mut known: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
        let mut is_in_one = |one: &Run, other: &Run| match (one.source, other.source) {
            (Source::Extent { index, block }, Source::Extent { index: next, block: to }) if index == next => {
                let of_source = || self.plan.uses.get(index as usize).map(|uses| pieces_of(uses, place.0));
                let pieces = known.entry(index).or_insert_with(|| of_source().unwrap_or_default());
                let after = pieces.partition_point(|(from, _)| *from <= block);
                let piece = after.checked_sub(1).and_then(|at| pieces.get(at));
                piece.is_some_and(|(_, end)| *end > to)
            }
            _ => false,
        };
        let mut joints = vec![false];
        for ((pair, one), other) in runs.windows(2).zip(places).zip(places.iter().skip(1)) {
            let is_joint = match pair {
                [before, after] => one.contains(&place) && other.contains(&place) && !is_in_one(before, after),
                _ => false,
            };
            joints.push(is_joint);
        }
        joints
    }
}
