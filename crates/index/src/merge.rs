//! Which runs are worth replacing by one, and replacing them.
//!
//! - One process merges at a time; the others go on reading the runs they have open.
//! - A damaged run is dropped, not merged; its packs are unknown then.

use std::sync::Arc;

use crate::{Error, Result, layers::Layers, packs::Packs, run::OpenRun, union::Union, write::RunWriter};

/// More runs than this are merged: each costs a look at its filter in every lookup.
const RUNS_MAX: usize = 8;
/// Runs are merged while the next larger is at most this many times all smaller ones together: of a thousand daily
/// runs each entry is then rewritten less than six times.
const GROWTH_WHEN_MANY: u64 = 1;
/// The same where a merge was asked for.
const GROWTH: u64 = 2;
/// A run is rewritten when one in this many of its entries belongs to a pack that is gone.
const DEAD_FRACTION: u64 = 4;
/// How hard to merge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Only when there are too many runs.
    WhenMany,
    /// Until runs grow geometrically.
    Geometric,
}

/// How many of the smallest runs should become one; fewer than two means none.
fn plan(ascending: &[u64], effort: Effort) -> usize {
    let many = ascending.len() > RUNS_MAX;
    if effort == Effort::WhenMany && !many {
        return 0;
    }
    let growth = if effort == Effort::WhenMany {
        GROWTH_WHEN_MANY
    } else {
        GROWTH
    };
    let (mut sum, mut count) = (0, if many { ascending.len() - RUNS_MAX / 2 } else { 0 });
    for (position, entries) in ascending.iter().enumerate() {
        if position > 0 && *entries <= growth * sum {
            count = count.max(position + 1);
        }
        sum += entries;
    }
    count
}

/// Whether so many entries of the run belong to packs that are gone that it should be rewritten.
fn is_mostly_dead(run: &OpenRun, packs: &Packs) -> bool {
    let live: u64 = run
        .packs
        .iter()
        .filter_map(|number| packs.get(*number))
        .map(|info| u64::from(info.chunk_count))
        .sum();
    (run.entries - live.min(run.entries)) * DEAD_FRACTION >= run.entries.max(1)
        || (run.entries == 0 && run.packs.iter().all(|number| packs.get(*number).is_none()))
}

impl Layers {
    /// Merges until the effort is satisfied, unless another thread or process does.
    pub(crate) fn merge_runs(&self, effort: Effort) -> Result<()> {
        if effort == Effort::WhenMany && self.chosen(effort).is_empty() {
            return Ok(());
        }
        let Some(_merging) = self.directory.try_lock_for_merging()? else {
            return Ok(());
        };
        self.refresh()?;
        loop {
            let chosen = self.chosen(effort);
            if chosen.is_empty() {
                return Ok(());
            }
            match self.merge_into_one(chosen) {
                // Too many runs are slow, no more; where it was not asked for, a full disk is no reason to fail.
                Err(Error::Full { .. }) if effort == Effort::WhenMany => return Ok(()),
                other => other?,
            }
        }
    }

    /// The runs that should become one.
    fn chosen(&self, effort: Effort) -> Vec<Arc<OpenRun>> {
        let shared = self.shared.read();
        let mut ascending: Vec<&Arc<OpenRun>> = shared.runs.iter().map(|held| &held.run).collect();
        ascending.sort_by_key(|run| run.entries);
        let sizes: Vec<u64> = ascending.iter().map(|run| run.entries).collect();
        let count = plan(&sizes, effort);
        let chosen = ascending.into_iter().enumerate();
        let chosen = chosen.filter(|(place, run)| *place < count || is_mostly_dead(run, &shared.packs));
        chosen.map(|(_, run)| run.clone()).collect()
    }

    fn merge_into_one(&self, runs: Vec<Arc<OpenRun>>) -> Result<()> {
        let (mut union, total) = {
            let shared = self.shared.read();
            let total = shared.runs.iter().map(|held| held.run.entries).sum();
            (Union::new(runs.clone(), &shared.packs), total)
        };
        if union.packs.is_empty() {
            return self.replace(None, &runs);
        }
        let filter_bytes = self.filter_bytes(union.entries, total);
        let mut writer = RunWriter::new(self.directory.draft()?, union.entries, filter_bytes);
        // A damaged run is dropped; the caller looks again at what is left.
        if let Err((run, fault)) = union.start() {
            return self.drop_run(&run, fault);
        }
        loop {
            match union.next() {
                Ok(Some(entry)) => writer.push(&entry)?,
                Ok(None) => break,
                Err((run, fault)) => return self.drop_run(&run, fault),
            }
        }
        let written = writer.finish(std::mem::take(&mut union.packs))?;
        self.replace(Some(written), &runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_runs_are_merged_and_large_ones_left() {
        assert_eq!(plan(&[], Effort::Geometric), 0);
        assert_eq!(plan(&[5], Effort::Geometric), 0);
        assert_eq!(plan(&[5; RUNS_MAX], Effort::WhenMany), 0);
        assert_eq!(plan(&[5, 5], Effort::Geometric), 2);
        assert_eq!(plan(&[5, 100], Effort::Geometric), 0);
        assert_eq!(plan(&[5, 5, 100], Effort::Geometric), 2);
        assert_eq!(plan(&[1; RUNS_MAX + 1], Effort::WhenMany), RUNS_MAX + 1);
        let geometric: Vec<u64> = (0..=RUNS_MAX as u32).map(|power| 10u64.pow(power)).collect();
        assert_eq!(plan(&geometric, Effort::WhenMany), RUNS_MAX / 2 + 1);
    }

    #[test]
    fn daily_runs_cost_few_rewrites() {
        let (mut runs, mut rewritten) = (Vec::new(), 0);
        for _ in 0..1000 {
            runs.push(1u64);
            runs.sort_unstable();
            let count = plan(&runs, Effort::WhenMany);
            let merged: u64 = runs.drain(..count).sum();
            if merged > 0 {
                rewritten += merged;
                runs.push(merged);
            }
            assert!(runs.len() <= RUNS_MAX);
        }
        assert!(rewritten < 6 * 1000, "{rewritten} entries rewritten");
    }
}
