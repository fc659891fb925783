//! `cat`: writes one file of a snapshot to standard output.

use std::ffi::OsString;

use clap::Args;
use drystone_backup::{Watch, cat};
use drystone_format::tree::Entry;
use drystone_vault::{Problems, Progress};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{problem_list, with_exit};

/// Write one file of a snapshot to standard output.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  drystone cat latest:/etc/fstab")]
pub(crate) struct Cat {
    /// `latest` or an id, and the path of a file in it
    #[arg(value_name = "SNAPSHOT:PATH")]
    spot: OsString,
}

impl Cat {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let chosen = open::choose(app, &vault, &self.spot)?;
        let bytes = chosen.selection.content()?.size_bytes;
        let progress = Progress::default();
        let mut out = app.out.lines();
        cat(
            &chosen.reader,
            &chosen.selection,
            &mut out,
            Watch {
                progress: &progress,
                cancel: &app.cancel,
            },
        )?;
        out.finish()?;
        let mut incomplete = Problems::default();
        if let Some(flaw) = chosen.selection.entry().and_then(Entry::flaw) {
            incomplete.push(chosen.selection.path(), flaw);
        }
        let exit = app.ending(Exit::of_incomplete(&[&incomplete]));
        app.out.problems(&incomplete);
        if app.out.is_json() {
            let fields = json!({
                "bytes": bytes,
                "incomplete": problem_list(&incomplete),
                "incomplete_count": incomplete.count(),
            });
            app.out.say_object("cat", with_exit(fields, exit));
        }
        Ok(exit)
    }
}
