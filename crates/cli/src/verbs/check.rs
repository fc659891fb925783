//! `check`: is everything there that the snapshots need?

use std::time::{Duration, Instant};

use clap::Args;
use drystone_vault::{CheckOptions, CheckReport, PlaceTroubles, Vault};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list};
use crate::progress::Shown;

const ABOUT: &str = "\
Reads metadata only: every snapshot and directory, and whether every chunk they name is in a pack that is there. \
To read and verify the data as well: drystone scrub.";

/// Verify structure, and that every pack is there.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Check {}

impl Check {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let start = Instant::now();
        let (progress, shown) = Shown::begin(app, "check", "entry");
        let report = vault.check(&CheckOptions {
            progress,
            cancel: app.cancel.clone(),
        });
        drop(shown);
        let report = report?;
        let (owed, owed_objects) = (report.redundancy.owed_packs, report.redundancy.owed_objects());
        let exit = match Exit::of_damage(&report.problems) {
            Exit::Done if is_altered(&vault) || owed + owed_objects > 0 => Exit::Incomplete,
            Exit::Done if !report.unknown_kinds.is_empty() => Exit::Incomplete,
            Exit::Done => Exit::of_incomplete(&[&report.out_of_reach, &report.incomplete]),
            exit => exit,
        };
        app.out.problems(&report.problems);
        app.out.problems(&report.out_of_reach);
        app.out.problems(&report.incomplete);
        for kind in &report.unknown_kinds {
            app.out.warning(format!(
                "roots of the kind `{kind}` were not looked at: this program does not know them; install a newer drystone"
            ));
        }
        let fields = json!({
            "snapshots": report.snapshots,
            "other_roots": report.other_roots,
            "unknown_kinds": report.unknown_kinds,
            "entries": report.entries,
            "packs": report.packs,
            "chunks": report.chunks,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "out_of_reach": problem_list(&report.out_of_reach),
            "out_of_reach_count": report.out_of_reach.count(),
            "incomplete": problem_list(&report.incomplete),
            "incomplete_count": report.incomplete.count(),
            "harmless": problem_list(&report.harmless),
            "owed_packs": owed,
            "owed_objects": owed_objects,
            "seconds": start.elapsed().as_secs_f64(),
        });
        let text = text(&report, start.elapsed());
        app.end("check", exit, fields, text)
    }
}

/// Returns true if a place gave something that is not what was stored there: what that is, warnings say.
fn is_altered(vault: &Vault) -> bool {
    let is_altered = |place: &PlaceTroubles| place.unsound.count + place.forged.count > 0;
    vault.troubles().places.iter().any(is_altered)
}

/// The last line of a check that took so long.
fn text(report: &CheckReport, took: Duration) -> String {
    let verdict = match report.problems.count() {
        0 => "no problems".to_owned(),
        many => counted(many, "problem"),
    };
    let when = |count: u64, things: &str, what: &str| match count {
        0 => String::new(),
        many => format!("; {} {what}", counted(many, things)),
    };
    let away = when(
        report.out_of_reach.count(),
        "thing",
        "out of reach while a place is away",
    );
    let incomplete = when(report.incomplete.count(), "entry", "marked as not whole (listed above)");
    let harmless = when(report.harmless.count(), "damaged pack", "that nothing depends on");
    let debt = "with too little redundancy, run `drystone repair`";
    let debt = when(report.redundancy.owed_packs, "pack", debt);
    let lacking = "missing at some place, run `drystone repair`";
    let lacking = when(report.redundancy.owed_objects(), "object", lacking);
    let leftover = "never stored whole by an interrupted run, `drystone gc` removes what is left";
    let leftover = when(report.redundancy.leftover_packs, "pack", leftover);
    format!(
        "checked {}, {} in {}: {verdict}{away}{incomplete}{harmless}{debt}{lacking}{leftover}; {}",
        counted(report.snapshots, "snapshot"),
        counted(report.entries, "entry"),
        counted(report.packs, "pack"),
        duration(took)
    )
}
