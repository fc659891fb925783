//! Carrying out a plan: hands its jobs to workers and keeps count.
//!
//! - What went wrong with one file is a problem in the outcome; only what stops everything (a file system that turned read-only, a
//!   wish to stop) ends the run, and what was done until then stays and is counted.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::candidates::Candidates;
use crate::cover::Source;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::plan::{Job, Plan};
use crate::progress::{Cancel, Progress};
use crate::requests::{Work, work};
use crate::share::Sharer;
use crate::space::{Extent, Space};
use crate::threads::{join, start_some};

/// Length of a hole; no extent is longer than that.
const HOLE_BYTES: u64 = 1 << 30;
/// Workers wait for the disk as much as they compute.
const WORKERS_A_THREAD: usize = 2;
/// More workers than this wait for each other's metadata alone.
const WORKERS_MAX: usize = 4;
/// Jobs that a worker takes at once: neighbours have the same source.
const TAKE: usize = 8;
/// Jobs with so many bytes are enough, so that no worker is left with all that remains.
const TAKE_BYTES: u64 = 16 << 20;
/// Requests for which there may be no room before a run ends: each makes the file system look for some, which takes its time.
const NO_ROOM_MAX: u64 = 16;

/// How far a run may go.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Threads that read and share.
    pub threads: usize,
    /// Stop when so many bytes were compared.
    pub max_bytes: u64,
    /// Whether time is up; asked between extents.
    pub is_late: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

struct Run<'a> {
    space: &'a dyn Space,
    candidates: &'a Candidates,
    plan: &'a Plan,
    limits: &'a Limits<'a>,
    progress: &'a Progress,
    cancel: &'a Cancel,
    next: Mutex<usize>,
    hole: Option<OwnedFd>,
    outcome: Mutex<(Outcome, Vec<u32>)>,
    /// Subvolumes that were busy: nothing that they use becomes free as long as they are.
    busy: Mutex<HashSet<u64>>,
}

/// Carries out a plan about `candidates`.
pub fn execute(
    space: &dyn Space,
    (candidates, plan): (&Candidates, &Plan),
    limits: &Limits<'_>,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Outcome> {
    let wants_hole = plan.runs.iter().any(|run| run.source == Source::Hole);
    // Where there is no room for one, zeros stay.
    let hole = if wants_hole { hole(space).ok() } else { None };
    Progress::add(&progress.total_bytes, to_compare(space, plan));
    let run = Run {
        space,
        candidates,
        plan,
        limits,
        progress,
        cancel,
        next: Mutex::new(0),
        hole,
        outcome: Mutex::default(),
        busy: Mutex::default(),
    };
    let mut failed = None;
    for round in plan.jobs.chunk_by(|one, other| one.round == other.round) {
        *run.next.lock() = 0;
        let done: Result<()> = std::thread::scope(|scope| {
            let workers = (limits.threads * WORKERS_A_THREAD).clamp(1, WORKERS_MAX);
            let started = start_some(scope, workers, || run.work(round))?;
            let done = started.into_iter().map(join);
            done.collect()
        });
        if let Err(error) = done {
            failed = Some(error);
            break;
        }
    }
    let (mut outcome, mut gone) = run.outcome.into_inner();
    gone.sort_unstable();
    let extents: Vec<Extent> = gone
        .iter()
        .filter_map(|index| candidates.extents().get(*index as usize).copied())
        .collect();
    count_freed(space, &extents, &mut outcome)?;
    failed.map_or(Ok(outcome), Err)
}

/// Bytes that the plan gives the kernel to compare, about.
fn to_compare(space: &dyn Space, plan: &Plan) -> u64 {
    let of_job = |job: &Job| {
        let uses = plan
            .uses
            .get(job.index as usize)
            .map_or(0, |uses| uses.list.len() as u64);
        let runs = plan.runs.iter().skip(job.runs.0 as usize).take(job.runs.1 as usize);
        let blocks: u64 = runs.map(|run| u64::from(run.blocks)).sum();
        (blocks + u64::from(job.leftover_blocks)) * uses
    };
    plan.jobs.iter().map(of_job).sum::<u64>() * space.block_bytes()
}

fn hole(space: &dyn Space) -> Result<OwnedFd> {
    let hole = space.scratch()?;
    rustix::fs::ftruncate(&hole, HOLE_BYTES).map_err(|source| Error::io("a scratch file", "lengthen", source))?;
    Ok(hole)
}

/// Compares what was there with what still is.
fn count_freed(space: &dyn Space, extents: &[Extent], outcome: &mut Outcome) -> Result<()> {
    if extents.is_empty() {
        return Ok(());
    }
    space.commit()?;
    outcome.freed_bytes = space.freed(extents)?.saturating_sub(outcome.rewritten_bytes);
    Ok(())
}

impl Run<'_> {
    fn work(&self, round: &[Job]) -> Result<()> {
        let hole = self.hole.as_ref().and_then(|hole| hole.try_clone().ok());
        let mut sharer = Sharer::new(self.space, self.progress, hole);
        // What comes next is read while this is compared.
        let mut next = self.take(round);
        sharer.expect(&next);
        while !next.is_empty() {
            let these = std::mem::replace(&mut next, self.take(round));
            sharer.expect(&next);
            for work in &these {
                if self.should_stop() {
                    return Ok(());
                }
                self.treat(work, &mut sharer)?;
            }
        }
        Ok(())
    }

    /// The next jobs that no other worker has, taken apart.
    fn take(&self, round: &[Job]) -> Vec<Work> {
        let mut next = self.next.lock();
        let rest = round.get(*next..).unwrap_or_default();
        let mut bytes = 0;
        let is_enough = |job: &&Job| {
            let before = bytes;
            bytes += job.gain_bytes;
            before < TAKE_BYTES
        };
        let jobs: Vec<&Job> = rest.iter().take(TAKE).take_while(is_enough).collect();
        *next += jobs.len();
        drop(next);
        let works = jobs.into_iter().map(|job| {
            let from = job.runs.0 as usize;
            let runs = self.plan.runs.get(from..from + job.runs.1 as usize).unwrap_or_default();
            work(self.plan, job, runs, self.space.block_bytes())
        });
        works.collect()
    }

    fn should_stop(&self) -> bool {
        let stop = self.cancel.is_cancelled()
            || self.outcome.lock().0.no_room >= NO_ROOM_MAX
            || (self.limits.is_late)()
            || self.progress.shared_bytes.load(Ordering::Relaxed) >= self.limits.max_bytes;
        if stop {
            self.outcome.lock().0.is_cut = true;
        }
        stop
    }

    fn is_busy(&self, work: &Work) -> bool {
        let busy = self.busy.lock();
        !busy.is_empty() && work.requests.iter().any(|request| busy.contains(&request.to.subvolume))
    }

    fn treat(&self, work: &Work, sharer: &mut Sharer<'_>) -> Result<()> {
        if work.is_incomplete {
            return Ok(());
        }
        if self.is_busy(work) {
            self.outcome.lock().0.owe(work.job.gain_bytes);
            return Ok(());
        }
        let mut tally = Outcome {
            extents: 1,
            predicted_bytes: work.job.gain_bytes,
            ..Outcome::default()
        };
        let done = sharer.share_all(work, &mut tally);
        if done.is_err() || tally.differing > 0 || tally.problem_count > 0 {
            (tally.extents, tally.predicted_bytes) = (0, 0);
            tally.owe(work.job.gain_bytes);
        }
        let bad = std::mem::take(&mut tally.bad_indexes);
        let extents = bad
            .iter()
            .filter_map(|index| self.candidates.extents().get(*index as usize));
        tally.bad.extend(extents.map(|extent| extent.start));
        Progress::add(&self.progress.freed_bytes, tally.predicted_bytes);
        Progress::add(&self.progress.problems, tally.problem_count);
        self.busy.lock().extend(tally.busy);
        let (outcome, gone) = &mut *self.outcome.lock();
        outcome.add(tally);
        gone.push(work.job.index);
        done
    }
}
