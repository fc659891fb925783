//! `dedup`: frees the space of duplicates on Btrfs and XFS by letting files share what is equal.

mod files;
mod known;
mod look;
mod run;
mod shown;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use drystone_reflink::{Found, IsRoot, Known, Reads, State, find_targets};

use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::shown;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  drystone dedup estimate /srv        what would it free?
  drystone dedup /srv --max-time 1h   stop after an hour; the next run goes on
  drystone dedup vol:/home /dev/sdb1  one subvolume, and a whole device, mounted
                                      or not
  drystone dedup --all-mounted        all mounted file systems that can share
  drystone dedup files a.img b.img    let b.img share a.img, if they are equal

Nothing but the kernel's own sharing, which compares first, touches files: contents, times and modes stay, \
read-only snapshots included. As root on Btrfs, duplicates are found in the checksums that the file system has; \
data without (chattr +C), and all of it elsewhere, is read once and remembered.

What files share shows: whoever may read one of them sees that somebody has the same data, and could confirm a \
guess about a small file. So files below 64 KiB that others cannot read share with files of their owner alone \
(--private-size-cutoff). Where users do not trust each other at all, give --same-owner.";

/// Free the space of duplicates on Btrfs and XFS, in place.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Dedup {
    #[command(subcommand)]
    verb: Option<Inner>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Share what is equal (what `dedup` alone does)
    Run(run::Run),
    /// Say what a run would free, and change nothing
    Estimate(run::Estimate),
    /// Look for what is new; remember it where it has to be read
    Scan(run::Scan),
    /// Run now and again until stopped
    Watch(run::Watch),
    /// Let files share a source, each if it is equal to it
    Files(files::Files),
    /// Show the file systems that runs know, also those that are not there now
    Show(known::Show),
    /// Forget how far runs got: the next one looks at everything
    Reset(known::Reset),
    /// Forget file systems
    ForgetFs(known::ForgetFs),
    /// List what changed in a subvolume since a generation
    FindNew(look::FindNew),
    /// Print the generation of a subvolume
    Generation(look::Generation),
    /// List files of exactly this size
    SizeLookup(look::SizeLookup),
}

/// What is looked at, and where that is noted.
#[derive(Debug, Clone, Args)]
struct Scope {
    /// Path (its subvolume and those in it), vol:PATH (that subvolume alone), device, UUID or LABEL=NAME
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Take all mounted file systems that can be written and share data
    #[arg(long, conflicts_with = "targets")]
    all_mounted: bool,
    /// Leave out files that are smaller
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = crate::args::size)]
    size_cutoff: u64,
    /// Leave this directory or file alone (may be given several times)
    #[arg(long, value_name = "PATH")]
    exclude: Vec<PathBuf>,
    /// Share files that others cannot read, and that are smaller than this, among files of their owner alone; 0: no such limit
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = crate::args::size)]
    private_size_cutoff: u64,
    #[command(flatten)]
    place: Place,
}

/// Where runs are noted.
#[derive(Debug, Clone, Args)]
struct Place {
    /// File that remembers how far runs got, instead of dedup/state in the cache directory
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl Place {
    fn path(&self, app: &App) -> PathBuf {
        let own = || app.settings.cache_dir.join("dedup").join("state");
        self.state.clone().unwrap_or_else(own)
    }

    fn open(&self, app: &App) -> Result<State> {
        Ok(State::open(&self.path(app))?)
    }
}

/// Says what could not be found or treated; returns how the command ends for it.
fn tell_failed(app: &App, failed: Vec<drystone_reflink::Error>) -> Exit {
    let exit = if failed.is_empty() { Exit::Done } else { Exit::Error };
    failed.into_iter().for_each(|error| app.out.failure(&error.into()));
    exit
}

impl Scope {
    fn find(&self) -> Result<Found> {
        let mut found = find_targets(&self.targets, is_root())?;
        if !found.targets.is_empty() {
            return Ok(found);
        }
        if let Some(error) = found.failed.pop().filter(|_| found.failed.is_empty()) {
            return Err(error.into());
        }
        if found.failed.is_empty() {
            let why = "no mounted file system that can be written and share data (Btrfs, XFS)";
            return Err(Failure::new(Exit::Error, why).next("name a path, a device or a UUID"));
        }
        Ok(found)
    }

    /// As [`Scope::find`], for a command that changes what it finds: where nothing is named, somebody has to agree.
    fn find_to_change(&self, app: &App) -> Result<Found> {
        let found = self.find()?;
        if !self.targets.is_empty() || self.all_mounted {
            return Ok(found);
        }
        let names: Vec<String> = found
            .targets
            .iter()
            .map(|target| shown(target.name.as_bytes()).to_string())
            .collect();
        let names = names.join(", ");
        let question = format!("Free the space of duplicates on all of these: {names}? [y/N] ");
        let next = "drystone dedup TARGET, or drystone dedup --all-mounted";
        let answer = if app.out.is_json() {
            Ok(None)
        } else {
            terminal::confirm(&question)
        };
        match answer {
            Ok(Some(true)) => Ok(found),
            Ok(Some(false)) => Err(Failure::new(Exit::Error, "nothing was done, as nobody agreed to it").next(next)),
            Ok(None) => {
                let why =
                    format!("no target is named, and there is no terminal to ask at; all that are mounted: {names}");
                Err(Failure::usage(why).next(next))
            }
            Err(error) => Err(Failure::new(Exit::Error, format!("cannot ask at the terminal: {error}")).next(next)),
        }
    }

    fn known<'a>(&'a self, directory: &'a std::path::Path, reads: Reads) -> Known<'a> {
        Known {
            min_file_bytes: self.size_cutoff,
            private_min_bytes: self.private_size_cutoff,
            exclude: &self.exclude,
            cache_dir: Some(directory),
            reads,
        }
    }
}

fn is_root() -> IsRoot {
    IsRoot(rustix::process::geteuid().is_root())
}

/// A time as people write it: `90`, `90s`, `15m`, `2h`.
fn span(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.char_indices().last().and_then(|(at, _)| text.split_at_checked(at)) {
        Some((number, "s")) => (number, 1.0),
        Some((number, "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * factor);
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.filter(|span| !span.is_zero())
        .ok_or_else(|| format!("`{text}` is no time; write for example 90s, 15m or 2h"))
}

impl Dedup {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match &self.verb {
            None => self.run.run(app),
            Some(Inner::Run(verb)) => verb.run(app),
            Some(Inner::Estimate(verb)) => verb.run(app),
            Some(Inner::Scan(verb)) => verb.run(app),
            Some(Inner::Watch(verb)) => verb.run(app),
            Some(Inner::Files(verb)) => verb.run(app),
            Some(Inner::Show(verb)) => verb.run(app),
            Some(Inner::Reset(verb)) => verb.run(app),
            Some(Inner::ForgetFs(verb)) => verb.run(app),
            Some(Inner::FindNew(verb)) => verb.run(app),
            Some(Inner::Generation(verb)) => verb.run(app),
            Some(Inner::SizeLookup(verb)) => verb.run(app),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0", "-1s", "1d", "é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
