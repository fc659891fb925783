//! What the commands of `dedup` look at, and where they note how far they got.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use drystone_reflink::{Found, IsRoot, Known, Reads, State, find_targets};

use crate::args::size;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::shown::shown;
use crate::terminal;

/// What is looked at, and where that is noted.
#[derive(Debug, Clone, Args)]
pub(super) struct Scope {
    /// Path (its subvolume and those in it), vol:PATH (that subvolume alone), device, UUID or LABEL=NAME
    #[arg(value_name = "TARGET")]
    pub(super) targets: Vec<String>,
    /// Take all mounted file systems that can be written and share data
    #[arg(long, conflicts_with = "targets")]
    pub(super) all_mounted: bool,
    /// Leave out files that are smaller
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub(super) size_cutoff: u64,
    /// Leave this directory or file alone (may be given several times)
    #[arg(long, value_name = "PATH")]
    pub(super) exclude: Vec<PathBuf>,
    /// Share files that others cannot read, and that are smaller than this, among files of their owner alone; 0: no such limit
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub(super) private_size_cutoff: u64,
    #[command(flatten)]
    pub(super) place: Place,
}

/// Where runs are noted.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// File that remembers how far runs got, instead of dedup/state in the cache directory
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
}

impl Place {
    pub(super) fn path(&self, app: &App) -> PathBuf {
        let own = || app.settings.cache_dir.join("dedup").join("state");
        self.state.clone().unwrap_or_else(own)
    }

    pub(super) fn open(&self, app: &App) -> Result<State> {
        Ok(State::open(&self.path(app))?)
    }
}

/// Says what could not be found or treated; returns how the command ends for it.
pub(super) fn tell_failed(app: &App, failed: Vec<drystone_reflink::Error>) -> Exit {
    let exit = if failed.is_empty() { Exit::Done } else { Exit::Error };
    failed.into_iter().for_each(|error| app.out.failure(&error.into()));
    exit
}

impl Scope {
    pub(super) fn find(&self) -> Result<Found> {
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
    pub(super) fn find_to_change(&self, app: &App) -> Result<Found> {
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

    pub(super) fn known<'a>(&'a self, directory: &'a Path, reads: Reads) -> Known<'a> {
        Known {
            min_file_bytes: self.size_cutoff,
            private_min_bytes: self.private_size_cutoff,
            exclude: &self.exclude,
            cache_dir: Some(directory),
            reads,
        }
    }
}

pub(super) fn is_root() -> IsRoot {
    IsRoot(rustix::process::geteuid().is_root())
}

/// A time as people write it: `90`, `90s`, `15m`, `2h`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
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
