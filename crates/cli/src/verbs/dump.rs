//! `dump`: writes a tree of a snapshot as tar to standard output.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Args, ValueEnum};
use drystone_backup::{Watch, dump_tar};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{Lines, problem_list, with_exit};
use crate::progress::Shown;

const EXAMPLES: &str = "\
Names in the tar begin at the directory that is dumped. To get ACLs and extended attributes back as well, unpack with
tar --acls --xattrs --xattrs-include='*' -xp. Ends with 3 if a tar cannot hold something (sockets), or if something is
marked in the snapshot as not whole.

Examples:
  drystone dump latest:/home/me | tar -tv
  drystone dump 1a2b3c4d:/etc > etc.tar";

/// Write a tree as tar to standard output.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dump {
    /// `latest` or an id, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    spot: OsString,
    /// The only format so far
    #[arg(long, default_value = "tar")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Tar,
}

impl Dump {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let Format::Tar = self.format;
        let vault = open::open(app)?;
        let chosen = open::choose(app, &vault, &self.spot)?;
        let (progress, shown) = Shown::begin(app, "dump", "file");
        chosen.expect(&progress);
        let mut out = Counted {
            lines: app.out.lines(),
            bytes: 0,
        };
        let watch = Watch {
            progress: &progress,
            cancel: &app.cancel,
        };
        let report = dump_tar(&chosen.reader, &chosen.selection, &mut out, watch);
        drop(shown);
        let report = report?;
        out.lines.finish()?;
        let exit = match Exit::of_damage(&report.problems) {
            Exit::Done => Exit::of_incomplete(&[&report.incomplete]),
            damaged => damaged,
        };
        let exit = app.ending(exit);
        app.out.problems(&report.problems);
        app.out.problems(&report.incomplete);
        if app.out.is_json() {
            let fields = json!({
                "bytes": out.bytes,
                "entries": report.entries,
                "file_bytes": report.bytes,
                "problems": problem_list(&report.problems),
                "problem_count": report.problems.count(),
                "incomplete": problem_list(&report.incomplete),
                "incomplete_count": report.incomplete.count(),
            });
            app.out.say_object("dump", with_exit(fields, exit));
        }
        Ok(exit)
    }
}

/// Standard output and how much went there.
struct Counted {
    lines: Lines,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.lines.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}
