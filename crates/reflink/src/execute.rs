//! Carrying out a plan: hands its jobs to workers and keeps count.
//!
//! - What went wrong with one file is a problem in the outcome; only what stops everything (a file system that turned read-only, a
//!   wish to stop) ends the run, and what was done until then stays and is counted.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::candidates::Candidates;
use crate::cover::Source;
use crate::error::{Error, Result};
use crate::plan::{Job, Plan};
use crate::progress::{Cancel, Progress};
use crate::requests::{Work, work};
use crate::share::Sharer;
use crate::space::{Extent, FileId, Space};
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
/// Problems that are told one by one.
const PROBLEMS_MAX: usize = 1000;

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

/// A file that could not be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: FileId,
    /// What the kernel said.
    pub why: String,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Extents that were shared as planned.
    pub extents: u64,
    /// Bytes that the kernel compared and shared.
    pub shared_bytes: u64,
    /// Ranges that turned out to differ, or gone: changed since they were looked at.
    pub differing: u64,
    /// Bytes written anew.
    pub rewritten_bytes: u64,
    /// Files that could not be treated, the first ones.
    pub problems: Vec<Problem>,
    /// Those, all of them.
    pub problem_count: u64,
    /// Bytes freed, on the physical map.
    pub freed_bytes: u64,
    /// Bytes that the plan promised, each extent counted once however often it was tried.
    pub predicted_bytes: u64,
    /// A limit, the wish to stop, or a lack of room ended it before everything was done.
    pub is_cut: bool,
    /// Something was busy, refused, changed meanwhile or found no room: a later run shall try again.
    pub is_owed: bool,
    /// Bytes that the plan promised for that.
    pub(crate) owed_bytes: u64,
    /// Files whose data the disk no longer gives.
    pub unreadable: BTreeSet<FileId>,
    /// The extents that have it, by where they begin: nothing is to be shared with them.
    pub(crate) bad: BTreeSet<u64>,
    /// As above, by their numbers among the candidates.
    pub(crate) bad_indexes: Vec<u32>,
    /// Requests for which there was no room.
    pub(crate) no_room: u64,
    /// The subvolume that was busy.
    pub(crate) busy: Option<u64>,
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

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.extents += other.extents;
        self.shared_bytes += other.shared_bytes;
        self.differing += other.differing;
        self.rewritten_bytes += other.rewritten_bytes;
        self.predicted_bytes += other.predicted_bytes;
        self.freed_bytes += other.freed_bytes;
        self.is_cut |= other.is_cut;
        self.is_owed |= other.is_owed;
        self.owed_bytes += other.owed_bytes;
        self.unreadable.extend(other.unreadable);
        self.bad.extend(other.bad);
        self.no_room += other.no_room;
        if other.problems.is_empty() {
            return;
        }
        // A file that refuses does so at each attempt, and is one problem.
        let mut known: HashSet<FileId> = self.problems.iter().map(|problem| problem.file).collect();
        for problem in other.problems {
            if known.insert(problem.file) {
                self.problem_count += 1;
                if self.problems.len() < PROBLEMS_MAX {
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Notes that an extent stays to be done.
    fn owe(&mut self, bytes: u64) {
        self.is_owed = true;
        self.owed_bytes += bytes;
    }

    /// Notes that the disk does not give the data of a file, which has it in this candidate.
    pub(crate) fn unreadable(&mut self, file: FileId, index: Option<u32>) {
        self.unreadable.insert(file);
        self.bad_indexes.extend(index);
        self.problem_count += 1;
        self.problems.push(Problem {
            file,
            why: "its data could not be read (Input/output error): the disk has damaged it".to_owned(),
        });
    }

    /// Notes that there was no room for something.
    pub(crate) fn no_room_for(&mut self, file: FileId, what: &str) -> Result<()> {
        self.problem(
            file,
            format!("no room on the file system for {what}: free some, and run this again"),
        )
    }

    pub(crate) fn problem(&mut self, file: FileId, why: String) -> Result<()> {
        self.problem_count += 1;
        self.problems.push(Problem { file, why });
        Ok(())
    }

    /// Notes that a file could not be opened, or read, or written for; one that is gone is no problem.
    pub(crate) fn failed(&mut self, file: FileId, error: &Error) -> Result<()> {
        match error.errno() {
            Some(Errno::NOENT | Errno::STALE) => {
                self.differing += 1;
                Ok(())
            }
            _ => self.problem(file, error.to_string()),
        }
    }

    /// Notes what the kernel refused for one file; an error if it would refuse everything else as well.
    pub(crate) fn refused(&mut self, file: FileId, source: Errno) -> Result<()> {
        match source {
            Errno::ROFS | Errno::OPNOTSUPP => Err(Error::io("the file system", "share data on", source)),
            // Btrfs, of snapshots that are being sent.
            Errno::AGAIN => {
                self.busy = Some(file.subvolume);
                self.problem(
                    file,
                    "busy (btrfs send?): run this again when that has ended".to_owned(),
                )
            }
            // What is shared with a snapshot takes metadata of its own.
            Errno::NOSPC => {
                self.no_room += 1;
                self.no_room_for(file, "metadata")
            }
            source => self.problem(file, source.to_string()),
        }
    }
}
