//! `find`: finds files in snapshots by name, type, size or age.

use std::ffi::OsString;

use clap::Args;
use drystone_backup::{FileKind, FindOptions, Patterns, find};
use drystone_format::tree::Time;

use crate::args::{size, time};
use crate::context::App;
use crate::entries;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::verbs::ls::{Found, in_snapshot};

const EXAMPLES: &str = "\
Patterns are written as in .gitignore: without a slash they match names, with one whole paths.

Examples:
  drystone find '*.pdf' --newer 30d
  drystone find report.odt --snapshot all
  drystone find --type file --larger 1G --snapshot latest:/home";

/// Find files in snapshots by name, type, size or age.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Find {
    /// Names or paths; several: any of them
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Where to look (repeat for several), or `all`
    #[arg(long, value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    snapshot: Vec<OsString>,
    /// Only this type: file, dir, symlink, block, char, fifo, socket, or its letter f, d, l, b, c, p, s
    #[arg(long = "type", value_name = "TYPE", value_parser = file_kind)]
    kinds: Vec<FileKind>,
    /// Only what was changed at or after this time, or at most so long ago: 2026-11-21, 12h, 30d
    #[arg(long, value_name = "TIME")]
    newer: Option<String>,
    /// Only what was changed before
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    larger: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    smaller: Option<u64>,
    /// Show mode, owner, size and time
    #[arg(long, short)]
    long: bool,
}

fn file_kind(text: &str) -> Result<FileKind, String> {
    let letter = match text {
        "file" => 'f',
        "dir" => 'd',
        "symlink" => 'l',
        "block" => 'b',
        "char" => 'c',
        "fifo" => 'p',
        "socket" => 's',
        text => text.chars().next().filter(|_| text.len() == 1).unwrap_or(' '),
    };
    FileKind::from_letter(letter).ok_or_else(|| "no such type".to_owned())
}

impl Find {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let at = |text: &Option<String>| -> Result<Option<Time>> {
            text.as_ref()
                .map(|text| time(text, app.now()).map_err(Failure::usage))
                .transpose()
        };
        let options = FindOptions {
            patterns: Patterns::new(&self.patterns)?,
            kinds: self.kinds.clone(),
            min_bytes: self.larger,
            max_bytes: self.smaller,
            newer: at(&self.newer)?,
            older: at(&self.older)?,
        };
        let vault = open::open(app)?;
        let spots = match self.snapshot.as_slice() {
            [all] if all == "all" => {
                let (snapshots, problems) = vault.snapshots()?;
                app.out.problems(&problems);
                snapshots.iter().map(|(id, _)| id.to_string().into()).collect()
            }
            spots => spots.to_vec(),
        };
        let mut lines = app.out.lines();
        let mut found = Found::default();
        // Those that match nothing in any of the snapshots.
        let mut unmatched: Option<Vec<String>> = None;
        for spot in &spots {
            let chosen = open::choose(app, &vault, spot)?;
            let mut looking = find(&chosen.reader, &chosen.selection, options.clone(), app.cancel.clone());
            for next in looking.by_ref() {
                app.cancel.check()?;
                let Some(listed) = found.take(next, || chosen.id.short().into_bytes())? else {
                    continue;
                };
                if app.out.is_json() {
                    lines.object("entry", in_snapshot(&listed, &chosen.id.to_string()))?;
                    continue;
                }
                let (path, entry) = (&listed.path, &listed.entry);
                let row = if self.long {
                    entries::long(path, entry)
                } else {
                    entries::name(path, entry)
                };
                if spots.len() > 1 {
                    lines.line(format_args!("{}:{row}", chosen.id.short()))?;
                } else {
                    lines.line(row)?;
                }
            }
            let unmatched_here = looking.unmatched();
            match &mut unmatched {
                None => unmatched = Some(unmatched_here),
                Some(unmatched) => unmatched.retain(|pattern| unmatched_here.contains(pattern)),
            }
        }
        let is_empty = found.is_empty();
        let exit = found.finish(app, lines)?;
        // What other conditions leave of what a pattern matches may well be nothing; a pattern of its own is mistyped.
        if let (Exit::Done, Some(first)) = (exit, unmatched.unwrap_or_default().first()) {
            let message = format!("nothing matches `{first}`");
            return Err(Failure::new(Exit::Error, message).next("drystone ls -R SNAPSHOT[:PATH]"));
        }
        if is_empty {
            app.out.note("nothing was found");
        }
        Ok(exit)
    }
}
