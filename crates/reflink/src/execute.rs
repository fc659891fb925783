//! Carrying out a plan: reads ahead what the kernel will compare, lets it share, and keeps count.
//!
//! - What went wrong with one file is a problem in the outcome; only what stops everything (a file system that turned read-only, a
//!   wish to stop) ends the run, and what was done until then stays and is counted.
//! - The kernel compares page by page without reading ahead, which takes ten to fifty times as long on cold data: so both ranges
//!   are read first.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use drystone_extents::{DESTINATIONS_MAX, Shared, dedupe, is_cold, set_idle_io};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::cache::{copy_range, forget, warm};
use crate::candidates::Candidates;
use crate::cover::Source;
use crate::error::{Error, Result};
use crate::plan::{Job, Plan};
use crate::progress::{Cancel, Progress};
use crate::requests::{Copy, From, Request, Work, work};
use crate::space::{Extent, FileId, Space};

/// Bytes that are read ahead and compared at once.
const PIECE_BYTES: u64 = 16 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Length of a hole; no extent is longer than that.
const HOLE_BYTES: u64 = 1 << 30;
/// Jobs that a worker takes at once: neighbours have the same source.
const TAKE: usize = 8;
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
    /// Lets everybody else read and write first.
    pub idle_io: bool,
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
    /// Extents that were treated.
    pub extents: u64,
    /// Bytes that the kernel compared and shared.
    pub shared_bytes: u64,
    /// Ranges that turned out to differ: changed since they were looked at.
    pub differing: u64,
    /// Bytes written anew.
    pub rewritten_bytes: u64,
    /// Files that could not be treated, the first ones.
    pub problems: Vec<Problem>,
    /// Those, all of them.
    pub problem_count: u64,
    /// Bytes freed, on the physical map.
    pub freed_bytes: u64,
    /// Bytes that the plan promised for the extents that were treated.
    pub predicted_bytes: u64,
    /// A limit, or the wish to stop, ended it before everything was done.
    pub is_cut: bool,
}

struct Run<'a> {
    space: &'a dyn Space,
    plan: &'a Plan,
    limits: &'a Limits<'a>,
    progress: &'a Progress,
    cancel: &'a Cancel,
    next: AtomicUsize,
    hole: Option<OwnedFd>,
    outcome: Mutex<(Outcome, Vec<u32>)>,
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
        plan,
        limits,
        progress,
        cancel,
        next: AtomicUsize::new(0),
        hole,
        outcome: Mutex::default(),
    };
    let mut failed = None;
    for round in plan.jobs.chunk_by(|one, other| one.round == other.round) {
        run.next.store(0, Ordering::Relaxed);
        let done = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..limits.threads.max(1))
                .map(|_| scope.spawn(|| run.work(round)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(Ok(())))
                .find(Result::is_err)
                .unwrap_or(Ok(()))
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
    space.settle()?;
    let before: u64 = extents
        .iter()
        .map(|extent| u64::from(extent.blocks) * space.block_bytes())
        .sum();
    let after = space.remaining(extents)? + outcome.rewritten_bytes;
    outcome.freed_bytes = before.saturating_sub(after);
    Ok(())
}

/// What a worker keeps between requests.
struct Hands {
    buffer: Vec<u8>,
    source: Option<(FileId, OwnedFd)>,
}

/// Part of a request that is compared at once.
struct Piece<'a> {
    source: &'a OwnedFd,
    request: &'a Request,
    /// Where it begins in the request, bytes.
    at: u64,
    len: u64,
}

impl Run<'_> {
    fn work(&self, jobs: &[Job]) -> Result<()> {
        if self.limits.idle_io {
            set_idle_io();
        }
        let mut hands = Hands {
            buffer: vec![0; READ_BYTES],
            source: None,
        };
        loop {
            let from = self.next.fetch_add(TAKE, Ordering::Relaxed);
            let Some(jobs) = jobs.get(from..).filter(|jobs| !jobs.is_empty()) else {
                return Ok(());
            };
            for job in jobs.iter().take(TAKE) {
                if self.should_stop() {
                    return Ok(());
                }
                self.treat(job, &mut hands)?;
            }
        }
    }

    fn should_stop(&self) -> bool {
        let stop = self.cancel.is_cancelled()
            || (self.limits.is_late)()
            || self.progress.shared_bytes.load(Ordering::Relaxed) >= self.limits.max_bytes;
        if stop {
            self.outcome.lock().0.is_cut = true;
        }
        stop
    }

    fn treat(&self, job: &Job, hands: &mut Hands) -> Result<()> {
        let from = job.runs.0 as usize;
        let runs = self.plan.runs.get(from..from + job.runs.1 as usize).unwrap_or_default();
        let work = work(self.plan, job.index, runs, self.space.block_bytes());
        if work.is_incomplete {
            return Ok(());
        }
        let mut tally = Outcome {
            extents: 1,
            predicted_bytes: job.gain_bytes,
            ..Outcome::default()
        };
        let done = self.share_all(&work, hands, &mut tally);
        Progress::add(
            &self.progress.freed_bytes,
            if tally.differing == 0 { job.gain_bytes } else { 0 },
        );
        Progress::add(&self.progress.problems, tally.problem_count);
        let (outcome, gone) = &mut *self.outcome.lock();
        outcome.add(tally);
        gone.push(job.index);
        done
    }

    fn share_all(&self, work: &Work, hands: &mut Hands, tally: &mut Outcome) -> Result<()> {
        let Some(scratch) = self.copy_leftover(&work.copies, hands, tally)? else {
            return Ok(());
        };
        let alike = |one: &Request, other: &Request| {
            (one.from, one.from_offset, one.len) == (other.from, other.from_offset, other.len)
        };
        for alike in work.requests.chunk_by(alike) {
            if self.space.frees_whole_extents() && (tally.differing > 0 || tally.problem_count > 0) {
                // The extent will not go, and every piece more would only break up the file.
                return Ok(());
            }
            for requests in alike.chunks(DESTINATIONS_MAX) {
                self.share(requests, scratch.as_ref(), hands, tally)?;
            }
        }
        Ok(())
    }

    /// Writes what nobody else has to a scratch file. `None` if that could not be done, `Some(None)` if there is nothing to write.
    fn copy_leftover(
        &self,
        copies: &[Copy],
        hands: &mut Hands,
        tally: &mut Outcome,
    ) -> Result<Option<Option<OwnedFd>>> {
        let Some(first) = copies.first() else {
            return Ok(Some(None));
        };
        let scratch = match self.space.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return tally.problem(first.from, error.to_string()).map(|()| None),
        };
        let mut end = 0;
        for copy in copies {
            let file = match self.space.open(copy.from) {
                Ok(file) => file,
                Err(error) => return tally.problem(copy.from, error.to_string()).map(|()| None),
            };
            if let Err(source) = copy_range(&file, copy, &scratch, end, &mut hands.buffer) {
                return tally.refused(copy.from, source).map(|()| None);
            }
            end += copy.len;
        }
        tally.rewritten_bytes += end.next_multiple_of(self.space.block_bytes());
        Ok(Some(Some(scratch)))
    }

    /// Shares one range of one source with all its destinations.
    fn share(
        &self,
        requests: &[Request],
        scratch: Option<&OwnedFd>,
        hands: &mut Hands,
        tally: &mut Outcome,
    ) -> Result<()> {
        let Some(first) = requests.first() else { return Ok(()) };
        let Hands { buffer, source: kept } = hands;
        let made = if first.from == From::Hole {
            self.hole.as_ref()
        } else {
            scratch
        };
        let source = match (first.from, made) {
            (From::Hole | From::Scratch, Some(made)) => made,
            (From::Hole | From::Scratch, None) => return Ok(()),
            (From::File(file), _) => match self.keep_open(file, kept) {
                Ok(source) => source,
                Err(error) => return tally.problem(file, error.to_string()),
            },
        };
        let mut targets = Vec::with_capacity(requests.len());
        for request in requests {
            match self.space.open(request.to) {
                Ok(file) => targets.push((file, request)),
                Err(error) => tally.problem(request.to, error.to_string())?,
            }
        }
        let mut at = 0;
        while at < first.len && !targets.is_empty() {
            let len = (first.len - at).min(PIECE_BYTES);
            self.share_piece(
                &Piece {
                    source,
                    request: first,
                    at,
                    len,
                },
                &mut targets,
                buffer,
                tally,
            )?;
            at += len;
        }
        Ok(())
    }

    /// Shares a piece that is read ahead at once; targets that are not like it leave the list.
    fn share_piece(
        &self,
        piece: &Piece<'_>,
        targets: &mut Vec<(OwnedFd, &Request)>,
        buffer: &mut [u8],
        tally: &mut Outcome,
    ) -> Result<()> {
        let Piece {
            source,
            request: first,
            at,
            len,
        } = *piece;
        if let From::File(_) = first.from {
            warm(source, first.from_offset + at, len, buffer);
        }
        // What nobody had in memory leaves it again, so that a run does not drive out what others need.
        let is_cold = |(file, request): &(OwnedFd, &Request)| is_cold(file.as_fd(), request.to_offset + at, len);
        let cold: Vec<bool> = targets.iter().map(is_cold).collect();
        targets
            .iter()
            .for_each(|(file, request)| warm(file, request.to_offset + at, len, buffer));
        let to: Vec<_> = targets
            .iter()
            .map(|(file, request)| (file.as_fd(), request.to_offset + at))
            .collect();
        let replies = dedupe(source.as_fd(), first.from_offset + at, len, &to);
        Progress::add(&self.progress.shared_bytes, len * to.len() as u64);
        for ((file, request), _) in targets.iter().zip(cold).filter(|(_, cold)| *cold) {
            forget(file, request.to_offset + at, len);
        }
        let mut replies = match replies {
            Ok(replies) => replies.into_iter(),
            Err(error) => {
                targets.clear();
                return tally.problem(first.to, error.to_string());
            }
        };
        let mut failed = Ok(());
        targets.retain(|(_, request)| match replies.next() {
            Some(Shared::Same) => {
                tally.shared_bytes += len;
                true
            }
            Some(Shared::Refused(source)) => {
                let error = Errno::from_io_error(&source).unwrap_or(Errno::IO);
                failed = tally.refused(request.to, error);
                false
            }
            Some(Shared::Differs) | None => {
                tally.differing += 1;
                false
            }
        });
        failed
    }

    fn keep_open<'h>(&self, file: FileId, kept: &'h mut Option<(FileId, OwnedFd)>) -> Result<&'h OwnedFd> {
        if kept.as_ref().is_none_or(|(known, _)| *known != file) {
            *kept = None;
        }
        let (_, fd) = match kept {
            Some(kept) => kept,
            none => none.insert((file, self.space.open(file)?)),
        };
        Ok(fd)
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

    fn problem(&mut self, file: FileId, why: String) -> Result<()> {
        self.problem_count += 1;
        self.problems.push(Problem { file, why });
        Ok(())
    }

    /// Notes what the kernel refused for one file; an error if it would refuse everything else as well.
    fn refused(&mut self, file: FileId, source: Errno) -> Result<()> {
        match source {
            Errno::ROFS | Errno::OPNOTSUPP => Err(Error::io("the file system", "share data on", source)),
            source => self.problem(file, source.to_string()),
        }
    }
}
