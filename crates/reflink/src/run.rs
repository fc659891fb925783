//! A whole run: look, plan, share, look again at what came of it, and note how far it got.
//!
//! - Passes are repeated until one finds nothing: what was shared, and what a run itself wrote, makes more of the rest worth while.
//! - How far it got is noted only if everything that was planned was done: what was busy, refused, or changed meanwhile is looked at
//!   by the next run again, together with everything else.

use std::collections::BTreeSet;

use crate::candidates::{Candidates, Look, Rank};
use crate::cover::{Run, Source};
use crate::error::Result;
use crate::execute::{Limits, execute};
use crate::outcome::Outcome;
use crate::plan::{Plan, Policy, plan};
use crate::progress::{Cancel, Progress};
use crate::space::{FileId, Space};
use crate::state::{PastRun, State};

/// Passes of one run: the first, those for what did not fit in memory, and those that find what the others made worth while.
const PASSES_MAX: usize = 64;
/// Rounds of passes over all sizes: where files are written all the time, each would find something.
const ROUNDS_MAX: u32 = 6;
/// Memory for what is looked at in one pass is not made less than this.
const MEMORY_LEAST_BYTES: u64 = 1 << 20;

/// What a run may do.
#[derive(Debug)]
pub struct Options<'a> {
    /// What is worth doing.
    pub policy: Policy,
    /// How far it may go.
    pub limits: Limits<'a>,
    /// Memory that it may take, about.
    pub memory_bytes: u64,
    /// Look only at what is new since the run that is noted in the state.
    pub incremental: bool,
    /// Write out pending data first, so that it is seen.
    pub flush: bool,
    /// First write files that lie in small pieces, and are to be shared, anew in larger ones.
    pub join: bool,
    /// Plan only: nothing is changed and nothing noted.
    pub estimate: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Bytes on disk that were looked at, in the pass that looked at most.
    pub scanned_bytes: u64,
    /// What was done, all passes together; of an estimate, only [`Outcome::extents`] and [`Outcome::predicted_bytes`].
    pub outcome: Outcome,
    /// Extents that have something in common with another.
    pub candidates: u64,
    /// Extents that stay because what they have in common belongs to several users, and is small and private.
    pub guarded: u64,
    /// Passes that were made.
    pub passes: u64,
    /// The generation up to which everything was looked at.
    pub generation: u64,
    /// Nothing was left undone.
    pub complete: bool,
}

/// Where a run is noted.
pub struct Note<'a> {
    /// The state; without one nothing is known and nothing noted.
    pub state: Option<&'a mut State>,
    /// Which files the run is about, in words that are the same for the same files.
    pub scope: &'a str,
    /// Seconds since 1970.
    pub started_s: u64,
    /// Milliseconds since the start.
    pub elapsed_ms: &'a dyn Fn() -> u64,
}

impl std::fmt::Debug for Note<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Note")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Makes what is equal on a file system be shared.
pub fn run(
    space: &dyn Space,
    options: &Options<'_>,
    note: Note<'_>,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Report> {
    let known = match &note.state {
        Some(state) if options.incremental => state.generation(space.id(), note.scope)?,
        _ => 0,
    };
    if options.flush {
        space.commit()?;
    }
    // What is noted of a time to come is of another file system, or of this one before it was set back; and once it was not mounted,
    // it may have been set back, and gone on since.
    let life = space.life();
    let life_noted = note.state.as_ref().map(|state| state.life(space.id(), note.scope));
    let is_same_life = life.is_some() && life_noted.transpose()?.flatten() == life;
    let known = if is_same_life && known <= space.generation()? {
        known
    } else {
        0
    };
    let mut report = Report::default();
    let state = note.state.filter(|_| !options.estimate);
    if let Some(state) = &state {
        // Until it is complete: what is left of a run that ends early may be old, and then nothing else would show it.
        state.note_life(space.id(), note.scope, None)?;
    }
    let worker = Worker {
        space,
        options,
        progress,
        cancel,
    };
    let done = worker.passes(known, &mut report);
    report.complete = matches!(done, Ok(true)) && !report.outcome.is_owed;
    report.outcome.predicted_bytes += report.outcome.owed_bytes;
    if let Some(state) = state {
        let run = PastRun {
            scope: note.scope.to_owned(),
            started_s: note.started_s,
            elapsed_ms: (note.elapsed_ms)(),
            scanned_bytes: report.scanned_bytes,
            freed_bytes: report.outcome.freed_bytes,
            predicted_bytes: report.outcome.predicted_bytes,
            complete: report.complete,
        };
        state.finish(space.id(), &run, report.complete.then_some(report.generation))?;
        if report.complete {
            state.note_life(space.id(), note.scope, life.as_deref())?;
        }
    }
    done.map(|_| report)
}

#[derive(Clone, Copy)]
struct Worker<'a> {
    space: &'a dyn Space,
    options: &'a Options<'a>,
    progress: &'a Progress,
    cancel: &'a Cancel,
}

/// Passes over all sizes that belong together.
#[derive(Default)]
struct Round {
    /// The generation that had ended when it began.
    generation: u64,
    /// Where the next pass begins.
    from: Rank,
    freed_bytes: u64,
    differing: u64,
    is_owed: bool,
    owed_bytes: u64,
    found_bad: bool,
}

impl Round {
    fn begin(space: &dyn Space) -> Result<Self> {
        Ok(Self {
            generation: space.generation()?,
            ..Self::default()
        })
    }

    fn add(&mut self, outcome: &Outcome) {
        self.freed_bytes += outcome.freed_bytes;
        self.differing += outcome.differing;
        self.is_owed |= outcome.is_owed;
        self.owed_bytes += outcome.owed_bytes;
    }

    /// Notes what is left after it.
    fn tell(&self, report: &mut Report) {
        report.outcome.is_owed = self.is_owed || !report.outcome.bad.is_empty();
        report.outcome.owed_bytes = self.owed_bytes;
    }
}

impl Worker<'_> {
    /// Repeats passes until one finds nothing; returns whether everything was looked at, and as much done as could be.
    fn passes(&self, since: u64, report: &mut Report) -> Result<bool> {
        let Self { space, options, .. } = *self;
        let mut may_join = options.join && !options.estimate;
        let (mut round, mut rounds) = (Round::begin(space)?, 0);
        let mut memory_bytes = options.memory_bytes;
        for _ in 0..PASSES_MAX {
            let look = Look {
                since,
                from: round.from,
                memory_bytes,
            };
            let (candidates, plan) = self.plan(look, &report.outcome.bad)?;
            report.passes += 1;
            if std::mem::take(&mut may_join) && self.join_sources(&plan)? > 0 {
                // They lie elsewhere now.
                space.commit()?;
                continue;
            }
            report.guarded = report.guarded.max(plan.guarded);
            report.candidates = report.candidates.max(candidates.extents().len() as u64);
            report.scanned_bytes = report.scanned_bytes.max(candidates.scanned_bytes);
            let outcome = self.carry_out(&candidates, &plan)?;
            let (is_cut, freed) = (outcome.is_cut, outcome.freed_bytes);
            round.add(&outcome);
            round.found_bad |= !outcome.bad.is_subset(&report.outcome.bad);
            report.outcome.add(outcome);
            if is_cut {
                return Ok(false);
            }
            if plan.is_partial && freed > 0 {
                continue;
            }
            if plan.is_partial && memory_bytes > MEMORY_LEAST_BYTES {
                // What they are used by takes more room than they do themselves: fewer at once.
                memory_bytes /= 2;
                continue;
            }
            if let Some(next) = candidates.next {
                round.from = next;
                continue;
            }
            report.generation = round.generation;
            rounds += 1;
            // What is left then is what refuses, which it will do again, or new. What changed meanwhile may be at rest by now.
            let is_moot = round.freed_bytes == 0 && (round.differing == 0 || rounds > 1);
            // What was to share with data that cannot be read may share with other data.
            let is_last = is_moot && !round.found_bad;
            round.tell(report);
            if is_last || rounds >= ROUNDS_MAX || options.estimate {
                return Ok(!plan.is_partial);
            }
            round = Round::begin(space)?;
        }
        // What is still found after so many passes is for the next run.
        report.outcome.is_owed |= round.is_owed;
        Ok(report.generation > 0)
    }

    fn plan(&self, look: Look, bad: &BTreeSet<u64>) -> Result<(Candidates, Plan)> {
        let Self {
            space,
            options,
            progress,
            cancel,
        } = *self;
        let mut candidates = Candidates::find(space, look, progress, cancel)?;
        let terms = (options.policy, options.memory_bytes, bad);
        let plan = plan(space, &mut candidates, terms, progress, cancel)?;
        Ok((candidates, plan))
    }

    /// Writes files that others shall share anew in larger pieces; returns how many.
    fn join_sources(&self, plan: &Plan) -> Result<u64> {
        let of_run = |run: &Run| match run.source {
            Source::Extent { index, .. } => plan.uses.get(index as usize)?.list.first().map(|one| one.file),
            Source::Hole => None,
        };
        let files: BTreeSet<FileId> = plan.runs.iter().filter_map(of_run).collect();
        let mut joined = 0;
        for file in files {
            self.cancel.check()?;
            if (self.options.limits.is_late)() {
                break;
            }
            // One that cannot be written, in a read-only snapshot for one, is shared as it lies.
            joined += u64::from(self.space.join(file).unwrap_or(false));
        }
        Ok(joined)
    }

    fn carry_out(&self, candidates: &Candidates, plan: &Plan) -> Result<Outcome> {
        let Self {
            space,
            options,
            progress,
            cancel,
        } = *self;
        if options.estimate || plan.jobs.is_empty() {
            let estimate = Outcome {
                extents: plan.jobs.len() as u64,
                predicted_bytes: plan.gain_bytes,
                ..Outcome::default()
            };
            return Ok(if options.estimate { estimate } else { Outcome::default() });
        }
        execute(space, (candidates, plan), &options.limits, progress, cancel)
    }
}
