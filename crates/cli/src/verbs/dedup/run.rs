//! `dedup run`, `estimate`, `scan` and `watch`: what looks at whole file systems.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use drystone_extents::{Kind, set_idle_io};
use drystone_reflink::{
    Candidates, Found, Limits, Look, Note, Options, Outcome, Policy, Rank, Reads, Report, Space, State, Target, run,
};
use serde_json::{Value, json};

use super::scope::{Scope, span, tell_failed};
use super::shown::Followed;
use crate::args;
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::output::{counted, duration, put_bytes, size, with_exit};
use crate::shown::{shown, shown_path};

/// Problems shown to a person.
const PROBLEMS_SHOWN: usize = 20;
/// Time between two looks at the wish to stop, while waiting.
const LOOK: Duration = Duration::from_millis(200);

/// What is worth doing, and what it may take.
#[derive(Debug, Clone, Args)]
pub(super) struct Terms {
    /// Share within a subvolume only
    #[arg(long)]
    no_crossvol: bool,
    /// Write no data: leave extents of which a part is nowhere else
    #[arg(long)]
    no_rewrite: bool,
    /// Share only among files of one owner, so that nobody learns that another user has the same data
    #[arg(long)]
    same_owner: bool,
    /// Share only extents that are equal as a whole
    #[arg(long)]
    whole_files: bool,
    /// Write out pending data first, so that it is seen
    #[arg(long)]
    flush: bool,
    /// Memory to take at most, about
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = args::size)]
    memory: u64,
    /// Look at everything, not only at what is new since the last run
    #[arg(long)]
    all: bool,
}

/// Share what is equal (what `dedup` alone does).
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    terms: Terms,
    /// Stop after this time; the next run goes on
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_time: Option<Duration>,
    /// Stop when so much was compared; the next run goes on
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    max_bytes: Option<u64>,
    /// Read and write only when nobody else does
    #[arg(long)]
    idle: bool,
    /// First join the extents of files to be shared that lie in small pieces, if they share none yet (Btrfs, as root)
    #[arg(long)]
    defrag: bool,
}

/// Say what a run would free, and change nothing.
#[derive(Debug, Args)]
pub(crate) struct Estimate {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    terms: Terms,
}

/// Look for what is new; remember it where it has to be read.
#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    scope: Scope,
    /// Memory to take at most, about
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = args::size)]
    memory: u64,
}

/// Run now and again until stopped.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    run: Run,
    /// Time between the end of a run and the next
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span)]
    every: Duration,
}

/// What differs between the verbs.
struct Way<'a> {
    scope: &'a Scope,
    terms: &'a Terms,
    limits: Limits<'a>,
    join: bool,
    estimate: bool,
}

impl Run {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        if self.idle {
            set_idle_io();
        }
        let start = Instant::now();
        let is_late = || self.max_time.is_some_and(|most| start.elapsed() >= most);
        let limits = Limits {
            threads: app.settings.threads,
            max_bytes: self.max_bytes.unwrap_or(u64::MAX),
            is_late: &is_late,
        };
        let (scope, terms) = (&self.scope, &self.terms);
        Way {
            scope,
            terms,
            limits,
            join: self.defrag,
            estimate: false,
        }
        .run(app)
    }
}

impl Estimate {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let limits = Limits {
            threads: 1,
            max_bytes: 0,
            is_late: &|| false,
        };
        let (scope, terms) = (&self.scope, &self.terms);
        Way {
            scope,
            terms,
            limits,
            join: false,
            estimate: true,
        }
        .run(app)
    }
}

impl Watch {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let mut run = self.run.clone();
        if run.scope.targets.is_empty() && !run.scope.all_mounted {
            // Asked once, and not before each run.
            run.scope.find_to_change(app)?;
            run.scope.all_mounted = true;
        }
        loop {
            match run.run(app) {
                Ok(Exit::Interrupted) => return Ok(Exit::Done),
                Err(failure) if failure.exit == Exit::Interrupted => return Ok(Exit::Done),
                Err(failure) => app.out.failure(&failure),
                Ok(_) => {}
            }
            let end = Instant::now() + self.every;
            while Instant::now() < end {
                if app.cancel.is_cancelled() {
                    return Ok(Exit::Done);
                }
                std::thread::park_timeout(LOOK);
            }
        }
    }
}

impl Scan {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let path = self.scope.place.path(app);
        let state = self.scope.place.open(app)?;
        let found = self.scope.find()?;
        for target in &found.targets {
            let start = Instant::now();
            let followed = Followed::start(app)?;
            let known = self.scope.known(path.parent().unwrap_or(Path::new(".")), Reads::Needed);
            let space = target.open(known, &followed.progress, &followed.cancel)?;
            state.see(target.id, kind(target), &target.name)?;
            let since = state.generation(target.id, &target.scope(known))?;
            let look = Look {
                since,
                from: Rank::default(),
                memory_bytes: self.memory,
            };
            let found = Candidates::find(&*space, look, &followed.progress, &followed.cancel)?;
            drop(followed);
            let extents = found.extents().len() as u64;
            let mut fields = json!({
                "scanned_bytes": found.scanned_bytes, "extents": extents, "seconds": start.elapsed().as_secs_f64(),
            });
            put_bytes(&mut fields, "target", target.name.as_bytes());
            let text = format!(
                "{}: {} that {} new; {} have blocks that others have; {}",
                shown(target.name.as_bytes()),
                size(found.scanned_bytes),
                if since > 0 { "is" } else { "may be" },
                counted(extents, "extent"),
                duration(start.elapsed()),
            );
            app.out.result("dedup_scan", fields, text)?;
        }
        Ok(tell_failed(app, found.failed))
    }
}

fn kind(target: &Target) -> &'static str {
    match target.kind {
        Kind::Btrfs => "btrfs",
        Kind::Xfs => "xfs",
        Kind::Other => "other",
    }
}

impl Way<'_> {
    fn run(&self, app: &App) -> Result<Exit> {
        let Found { targets, failed } = if self.estimate {
            self.scope.find()?
        } else {
            self.scope.find_to_change(app)?
        };
        let mut state = self.scope.place.open(app)?;
        let policy = Policy {
            same_subvolume_only: self.terms.no_crossvol,
            never_rewrite: self.terms.no_rewrite,
            whole_only: self.terms.whole_files,
            same_owner_only: self.terms.same_owner,
        };
        let options = Options {
            policy,
            limits: self.limits,
            memory_bytes: self.terms.memory,
            incremental: !self.terms.all && !self.estimate,
            flush: self.terms.flush,
            join: self.join,
            estimate: self.estimate,
        };
        let many = targets.len() + failed.len() > 1;
        let mut exit = tell_failed(app, failed);
        for target in targets {
            match self.one(app, (&target, exit), &options, &mut state) {
                Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
                Ok(so_far) => exit = so_far,
                // What one file system refuses is no reason to leave the others.
                Err(failure) if many && failure.exit != Exit::Interrupted => {
                    app.out.failure(&failure);
                    exit = Exit::Error;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(exit)
    }

    /// Treats one target; returns how the command ends so far, which `before` it was.
    fn one(
        &self,
        app: &App,
        (target, before): (&Target, Exit),
        options: &Options<'_>,
        state: &mut State,
    ) -> Result<Exit> {
        let start = Instant::now();
        let elapsed_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let followed = Followed::start(app)?;
        let path = self.scope.place.path(app);
        let reads = if self.estimate { Reads::Least } else { Reads::Needed };
        let known = self.scope.known(path.parent().unwrap_or(Path::new(".")), reads);
        let space = target.open(known, &followed.progress, &followed.cancel)?;
        state.see(target.id, kind(target), &target.name)?;
        let scope = format!("{}{}", target.scope(known), options.policy);
        let note = Note {
            state: Some(state),
            scope: &scope,
            started_s: u64::try_from(app.now().seconds).unwrap_or(0),
            elapsed_ms: &elapsed_ms,
        };
        let report = run(&*space, options, note, &followed.progress, &followed.cancel);
        let was_stopped = followed.cancel.is_cancelled();
        drop(followed);
        let report = report?;
        let outcome = &report.outcome;
        // A limit that the user set is no failure: what is left then is for the next run.
        let is_left = !report.complete && !outcome.is_cut && !self.estimate;
        let exit = if was_stopped {
            Exit::Interrupted
        } else if before != Exit::Done {
            before
        } else if outcome.problem_count > 0 || space.unreadable() > 0 || is_left {
            Exit::Incomplete
        } else {
            Exit::Done
        };
        tell(app, target, &*space, (&report, self.estimate), (exit, start.elapsed()))?;
        Ok(exit)
    }
}

/// Says what came of a run.
fn tell(
    app: &App,
    target: &Target,
    space: &dyn Space,
    (report, estimate): (&Report, bool),
    end: (Exit, Duration),
) -> Result<()> {
    let (outcome, (exit, elapsed)) = (&report.outcome, end);
    let name = shown(target.name.as_bytes());
    if !app.out.is_json() {
        let unread = space.unread();
        let unread = unread.iter().map(|one| (one.path.clone(), one.why.as_str()));
        let refused = outcome.problems.iter();
        let refused = refused.map(|problem| (space.path(problem.file).unwrap_or_default(), problem.why.as_str()));
        for (path, why) in refused.take(PROBLEMS_SHOWN).chain(unread.take(PROBLEMS_SHOWN)) {
            app.out
                .say(format_args!("{}: {why}", shown_path(&target.reachable(&path))));
        }
    }
    let mut fields = json!({
        "kind": kind(target),
        "estimate": estimate,
        "scanned_bytes": report.scanned_bytes,
        "extents": outcome.extents,
        "shared_bytes": outcome.shared_bytes,
        "rewritten_bytes": outcome.rewritten_bytes,
        "predicted_bytes": outcome.predicted_bytes,
        "freed_bytes": (!estimate).then_some(outcome.freed_bytes),
        "differing": outcome.differing,
        "unreadable": unreadable(report, space),
        "unlooked_bytes": space.unlooked_bytes(),
        "guarded": report.guarded,
        "complete": report.complete,
        "passes": report.passes,
        "problems": problems(target, space, outcome),
        "problem_count": outcome.problem_count,
        "seconds": elapsed.as_secs_f64(),
    });
    put_bytes(&mut fields, "target", target.name.as_bytes());
    let text = match (estimate, report.scanned_bytes) {
        (_, 0) => format!("{name}: nothing new; {}", duration(elapsed)),
        (true, looked) => format!(
            "{name}: looked at {}; a run would free {} in {}; {}",
            size(looked),
            size(outcome.predicted_bytes),
            counted(outcome.extents, "extent"),
            duration(elapsed)
        ),
        (false, looked) => format!(
            "{name}: looked at {}; freed {} (of {} expected) in {}; {}{}",
            size(looked),
            size(outcome.freed_bytes),
            size(outcome.predicted_bytes),
            counted(outcome.extents, "extent"),
            duration(elapsed),
            match (report.complete, outcome.differing) {
                (true, _) => String::new(),
                (false, 0) => "; not everything was done: run it again".to_owned(),
                (false, differing) => format!(
                    "; not everything was done, {} changed meanwhile: run it again",
                    counted(differing, "range")
                ),
            }
        ),
    };
    let text = format!("{text}{}", left(report, space));
    app.out.result("dedup", with_exit(fields, exit), text)
}

/// Files of which not everything could be read.
fn unreadable(report: &Report, space: &dyn Space) -> u64 {
    space.unreadable() + report.outcome.unreadable.len() as u64
}

/// What was not looked at, or not shared on purpose.
fn left(report: &Report, space: &dyn Space) -> String {
    let mut text = String::new();
    match unreadable(report, space) {
        0 => {}
        1 => text += "; 1 file could not be read, and stayed as it is",
        many => text += &format!("; {} could not be read, and stayed as they are", counted(many, "file")),
    }
    match space.unlooked_bytes() {
        0 => {}
        bytes => {
            text += &format!(
                "; {} without checksums were not looked at: a run reads them",
                size(bytes)
            )
        }
    }
    match report.guarded {
        0 => {}
        1 => text += "; 1 extent of small private files is not shared between users (--private-size-cutoff)",
        many => {
            text += &format!(
                "; {} of small private files are not shared between users (--private-size-cutoff)",
                counted(many, "extent")
            );
        }
    }
    text
}

fn problems(target: &Target, space: &dyn Space, outcome: &Outcome) -> Value {
    let refused = outcome.problems.iter();
    let refused = refused.map(|problem| (space.path(problem.file).unwrap_or_default(), problem.why.clone()));
    let unread = space.unread().into_iter().map(|one| (one.path, one.why));
    let list = refused.chain(unread).map(|(path, why)| {
        let mut fields = json!({ "what": why });
        put_bytes(&mut fields, "path", target.reachable(&path).as_os_str().as_bytes());
        fields
    });
    list.collect()
}
