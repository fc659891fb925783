//! `check`: is everything there that the snapshots need?

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use drystone_vault::{CheckOptions, Progress};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, with_exit};
use crate::progress::{Counts, Shown};

const ABOUT: &str = "\
Reads metadata only: every snapshot and directory, and whether every chunk they name is in a pack that is
there. To read and verify the data as well: drystone scrub.";

/// Verify structure, and that every pack is there.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Check {}

impl Check {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let start = Instant::now();
        let progress = Arc::new(Progress::default());
        let shown = Shown::start(
            app,
            &progress,
            Counts {
                verb: "check",
                things: "file",
            },
        );
        let report = vault.check(&CheckOptions {
            progress,
            cancel: app.cancel.clone(),
        });
        drop(shown);
        let report = report?;
        let owed = report.redundancy.owed_packs;
        let exit = match Exit::of_damage(&report.problems) {
            Exit::Done if owed > 0 => Exit::Incomplete,
            exit => exit,
        };
        app.out.problems(&report.problems);
        let fields = json!({
            "snapshots": report.snapshots,
            "entries": report.entries,
            "packs": report.packs,
            "chunks": report.chunks,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "harmless": problem_list(&report.harmless),
            "owed_packs": owed,
            "seconds": start.elapsed().as_secs_f64(),
        });
        let verdict = match report.problems.count() {
            0 => "no problems".to_owned(),
            many => counted(many, "problem"),
        };
        let harmless = match report.harmless.count() {
            0 => String::new(),
            many => format!("; {} that nothing depends on", counted(many, "damaged pack")),
        };
        let debt = match owed {
            0 => String::new(),
            _ => format!(
                "; {} with less redundancy than they should have, run `drystone repair`",
                counted(owed, "pack")
            ),
        };
        let text = format!(
            "checked {}, {} in {}: {verdict}{harmless}{debt}; {}",
            counted(report.snapshots, "snapshot"),
            counted(report.entries, "entry"),
            counted(report.packs, "pack"),
            duration(start.elapsed())
        );
        app.out.result("check", with_exit(fields, exit), text)?;
        Ok(exit)
    }
}
