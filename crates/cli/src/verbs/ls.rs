//! `ls`: lists a directory of a snapshot.

use std::ffi::OsString;

use clap::Args;
use drystone_backup::{Depth, List, Listed};
use drystone_vault::Problems;
use serde_json::{Value, json};

use crate::context::App;
use crate::entries;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{Lines, problem_list, with_exit};

const EXAMPLES: &str = "\
Examples:
  drystone ls latest:/home/me
  drystone ls -lR 1a2b3c4d:/etc";

/// List a directory of a snapshot.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    /// `latest` or an id, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    spot: OsString,
    /// Show mode, owner, size and time
    #[arg(long, short)]
    long: bool,
    /// Show everything below, too
    #[arg(long, short = 'R')]
    recursive: bool,
}

impl Ls {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let chosen = open::choose(app, &vault, &self.spot)?;
        let depth = if self.recursive { Depth::All } else { Depth::One };
        let base = chosen.selection.path().to_vec();
        let mut lines = app.out.lines();
        let mut found = Found::default();
        let mut list = List::new(&chosen.reader, &chosen.selection, depth);
        while let Some(next) = list.next() {
            app.cancel.check()?;
            let Some(listed) = found.take(next, || list.path())? else {
                continue;
            };
            if app.out.is_json() {
                lines.object("entry", in_snapshot(&listed, &chosen.id.to_string()))?;
                continue;
            }
            let name = relative(&listed.path, &base);
            lines.line(if self.long {
                entries::long(name, &listed.entry)
            } else {
                entries::name(name, &listed.entry)
            })?;
        }
        found.finish(app, lines)
    }
}

/// The path below `base`, or the last name if it is `base` itself.
fn relative<'a>(path: &'a [u8], base: &[u8]) -> &'a [u8] {
    let below = path.strip_prefix(base).and_then(|rest| rest.strip_prefix(b"/"));
    below.unwrap_or_else(|| path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}

/// An entry as JSON, with the snapshot that it is in.
pub(crate) fn in_snapshot(listed: &Listed, snapshot: &str) -> Value {
    let mut fields = entries::fields(&listed.path, &listed.entry);
    if let Value::Object(fields) = &mut fields {
        fields.insert("snapshot".to_owned(), snapshot.into());
    }
    fields
}

/// How many entries a listing had, and what of it was damaged.
#[derive(Default)]
pub(crate) struct Found {
    entries: u64,
    problems: Problems,
}

impl Found {
    /// An entry, or nothing where the vault is damaged, which is remembered with the path it is at.
    pub(crate) fn take(
        &mut self,
        next: drystone_backup::Result<Listed>,
        path: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<Listed>> {
        match next {
            Ok(listed) => {
                self.entries += 1;
                Ok(Some(listed))
            }
            Err(error) if error.is_damage() => {
                self.problems.push(path(), error);
                Ok(None)
            }
            Err(error) => Err(Failure::from(error)),
        }
    }

    /// Returns true if there was no entry and no damage.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0 && self.problems.is_empty()
    }

    /// Ends the output: the summary for programs, the problems for people.
    pub(crate) fn finish(self, app: &App, mut lines: Lines) -> Result<Exit> {
        let exit = app.ending(Exit::of_damage(&self.problems));
        if app.out.is_json() {
            let summary = json!({
                "entries": self.entries,
                "problems": problem_list(&self.problems),
                "problem_count": self.problems.count(),
            });
            lines.object("summary", with_exit(summary, exit))?;
        }
        lines.finish()?;
        app.out.problems(&self.problems);
        Ok(exit)
    }
}
