//! `restore`: brings a snapshot, or a part of it, back into a directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use drystone_backup::{
    Overwrite, Owner, Patterns, RestoreMode, RestoreOptions, RestoreReport, Sparse, Special, restore,
};
use drystone_vault::{Problems, Progress};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open::{self, Chosen};
use crate::output::{counted, duration, problem_list, put_bytes, size};
use crate::own::refuse_own;
use crate::progress::{Counts, Shown};
use crate::shown::{shown, shown_path};

const EXAMPLES: &str = "\
A directory's content comes into DIR, a file comes into DIR under its name. What is there already is compared \
and only what differs is written, so an interrupted restore is completed by running it again.
Patterns are written as in .gitignore; paths in them begin at DIR.
Ends with 3 if something was not restored, if a pattern matches nothing, or if something is marked in the snapshot as not
whole: such files are restored as they are stored, and listed.

Examples:
  drystone restore latest --target /tmp/back
  drystone restore latest:/home/me/Documents --target ~/Documents
  drystone restore 1a2b3c4d:/etc/fstab --target . --overwrite never
  drystone restore latest --target /tmp/back --include '*.odt' -x 'Trash/'";

/// Bring files back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restore {
    /// `latest` or an id, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    spot: OsString,
    /// Directory to restore into; made if it does not exist
    #[arg(long, short, value_name = "DIR")]
    target: PathBuf,
    /// Restore only what matches, and what lies in directories that match
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out what matches
    #[arg(long, short = 'x', value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What becomes of files that exist already: made what was stored, or left as they are
    #[arg(long, value_name = "WHEN", default_value = "always")]
    overwrite: When,
    /// Make holes of all zeros, not only of those that were holes
    #[arg(long)]
    sparse: bool,
    /// Set owners, and users and groups in ACLs: by name where this system knows the name, by number, or make you the
    /// owner of every file and leave the rights of others out
    #[arg(long, value_name = "HOW", default_value = "names")]
    owner: By,
    /// Leave out set-id bits, file capabilities and devices: for snapshots that others may have made up
    #[arg(long)]
    no_special: bool,
    /// Write nothing, only say what would be restored
    #[arg(long, short = 'n')]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Names,
    Numbers,
    Own,
}

impl Restore {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let progress = Arc::new(Progress::default());
        let options = self.options(app, &progress)?;
        let vault = open::open(app)?;
        refuse_own(app, &vault, &self.target)?;
        let start = Instant::now();
        let chosen = open::choose(app, &vault, &self.spot)?;
        if self.include.is_empty() && self.exclude.is_empty() {
            chosen.expect(&progress);
        }
        let line = Shown::start(
            app,
            &progress,
            Counts {
                verb: "restore",
                things: "file",
            },
        );
        let report = restore(&vault, &chosen.selection, &options);
        drop(line);
        let report = report?;
        let unmatched = self.unmatched(&report, &chosen)?;
        let exit = Exit::of_incomplete(&[&report.problems, &report.incomplete, &unmatched]);
        for problems in [&report.problems, &report.incomplete, &unmatched] {
            app.out.problems(problems);
        }
        for not_set in &report.not_set {
            app.out.note(format_args!("not set: {not_set}"));
        }
        let mut fields = json!({
            "snapshot": chosen.id.to_string(),
            "dry_run": self.dry_run,
            "files": report.files,
            "dirs": report.dirs,
            "bytes": report.bytes,
            "written_bytes": report.written_bytes,
            "unchanged_files": report.unchanged_files,
            "kept": report.kept,
            "left_out": report.left_out,
            "not_set": report.not_set.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "incomplete": problem_list(&report.incomplete),
            "incomplete_count": report.incomplete.count(),
            "unmatched": report.unmatched,
            "seconds": start.elapsed().as_secs_f64(),
        });
        put_bytes(&mut fields, "target", self.target.as_os_str().as_bytes());
        let text = format!("{}; {}", self.summary(&report), duration(start.elapsed()));
        let tell = if self.dry_run { App::answer } else { App::end };
        tell(app, "restore", exit, fields, text)
    }

    fn options(&self, app: &App, progress: &Arc<Progress>) -> Result<RestoreOptions> {
        Ok(RestoreOptions {
            target: self.target.clone(),
            include: Patterns::new(&self.include)?,
            exclude: Patterns::new(&self.exclude)?,
            mode: if self.dry_run {
                RestoreMode::DryRun
            } else {
                RestoreMode::Write
            },
            overwrite: if self.overwrite == When::Never {
                Overwrite::Never
            } else {
                Overwrite::Always
            },
            sparse: if self.sparse { Sparse::Always } else { Sparse::AsStored },
            owner: match self.owner {
                By::Names => Owner::Names,
                By::Numbers => Owner::Numbers,
                By::Own => Owner::Own,
            },
            special: self.special(),
            threads: app.settings.threads,
            progress: progress.clone(),
            cancel: app.cancel.clone(),
        })
    }

    /// The patterns that matched nothing; a failure if that is why nothing was restored.
    fn unmatched(&self, report: &RestoreReport, chosen: &Chosen) -> Result<Problems> {
        let base = shown(chosen.selection.path());
        let wanted = self.include.iter().filter(|pattern| !pattern.starts_with('!')).count();
        // Where patterns begin, if one begins above.
        let relative = |pattern: &str| {
            let below = pattern.strip_prefix(base.as_str()).filter(|_| !base.is_empty())?;
            let what = format!("matches nothing: patterns begin at {base}, so write `{below}`");
            below.starts_with('/').then_some(what)
        };
        let mut unmatched = Problems::default();
        for pattern in &report.unmatched {
            let what = relative(pattern).unwrap_or_else(|| "matches nothing".to_owned());
            unmatched.push(format!("--include {pattern}"), what);
        }
        let is_nothing = unmatched.count() == wanted as u64 && report.problems.is_empty();
        // To leave out what is not there is no mistake, unless the path is wrong.
        for pattern in &report.unmatched_excludes {
            if let Some(what) = relative(pattern) {
                unmatched.push(format!("--exclude {pattern}"), what);
            }
        }
        match unmatched.iter().next() {
            Some(first) if is_nothing && wanted > 0 => {
                let message = format!("{first}; nothing was restored");
                Err(Failure::new(Exit::Error, message).next("drystone find PATTERN --snapshot SNAPSHOT[:PATH]"))
            }
            _ => Ok(unmatched),
        }
    }

    fn special(&self) -> Special {
        if self.no_special {
            Special::LeaveOut
        } else {
            Special::AsStored
        }
    }

    fn summary(&self, report: &RestoreReport) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{would}restored to {}: {}, {}",
            shown_path(&self.target),
            counted(report.files, "file"),
            size(report.bytes)
        );
        if !self.dry_run {
            text += &format!("; {} written", size(report.written_bytes));
        }
        for (many, one, several) in [
            (report.unchanged_files, "was there already", "were there already"),
            (report.kept, "left as it was", "left as they were"),
            (report.left_out, "left out", "left out"),
        ] {
            if many > 0 {
                text += &format!(", {} {}", counted(many, "file"), if many == 1 { one } else { several });
            }
        }
        let lists = [(&report.problems, "problem"), (&report.incomplete, "incomplete file")];
        for (list, what) in lists.into_iter().filter(|(list, _)| !list.is_empty()) {
            text += &format!("; {} (listed above)", counted(list.count(), what));
        }
        text
    }
}
