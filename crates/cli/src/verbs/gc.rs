//! `gc`: deletes what no snapshot needs; the only command that does.

use std::time::{Duration, Instant};

use clap::Args;
use drystone_vault::protocol::Gaps;
use drystone_vault::{GcOptions, GcReport};
use serde_json::json;

use crate::args;
use crate::args::{size as parse_size, span};
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, size};
use crate::progress::Shown;

const EXAMPLES: &str = "\
Backups may run meanwhile, here and elsewhere. What one of them may rely on is condemned now and deleted by a \
later gc; --wait waits for it. A backup that makes no progress from one gc to the next is given up at the third, \
see --silence. If it lives after all, it fails and has to be repeated. Nothing else is lost.
Small packs are copied together into fewer, larger ones.

Examples:
  drystone gc --dry-run
  drystone gc
  drystone gc --max-unused 0% --wait 2h";

/// Delete what no snapshot needs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gc {
    /// Garbage that a pack may hold before what is live in it is copied
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = share)]
    max_unused: f64,
    /// Copy at most so much in this run, beginning with the packs of most garbage
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_rewrite: Option<u64>,
    /// Wait so long for backups that may rely on what is condemned
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = span)]
    wait: Duration,
    /// A backup is given up after three checks without progress, at least this far apart
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = span)]
    silence: Duration,
    /// Go on though snapshots are missing that silent backups say they published; what only they need is lost
    #[arg(long)]
    without_missing: bool,
    /// Only say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
}

fn share(text: &str) -> Result<f64, String> {
    args::share(text, 0.0)
}

impl Gc {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let start = Instant::now();
        let (progress, shown) = Shown::begin(app, "gc", "entry");
        let report = vault.gc(&GcOptions {
            max_unused: self.max_unused,
            max_rewrite_bytes: self.max_rewrite.unwrap_or(u64::MAX),
            dry_run: self.dry_run,
            wait: self.wait,
            silence: self.silence,
            gaps: if self.without_missing { Gaps::Accept } else { Gaps::Keep },
            progress,
            cancel: app.cancel.clone(),
            ..GcOptions::default()
        });
        drop(shown);
        let report = report?;
        let exit = Exit::of_damage(&report.problems);
        app.out.problems(&report.problems);
        for id in &report.given_up {
            app.out.warning(format_args!(
                "backup {} gave no sign of life and was given up",
                id.short()
            ));
        }
        let fields = json!({
            "dry_run": self.dry_run,
            "snapshots": report.snapshots,
            "other_roots": report.other_roots,
            "packs": report.packs,
            "pack_bytes": report.pack_bytes,
            "live_chunks": report.live_chunks,
            "unused_bytes": report.unused_bytes,
            "condemned_packs": report.condemned_packs,
            "rewritten_packs": report.rewritten_packs,
            "copied_bytes": report.copied_bytes,
            "deleted_packs": report.deleted_packs,
            "deleted_bytes": report.deleted_bytes,
            "waiting_packs": report.waiting_packs,
            "waiting_for": report.waiting_for.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "given_up": report.given_up.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "spared_packs": report.spared_packs,
            "uncopied_packs": report.uncopied_packs,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "seconds": start.elapsed().as_secs_f64(),
        });
        let text = format!("{}; {}", self.text(&report), duration(start.elapsed()));
        let tell = if self.dry_run { App::answer } else { App::end };
        tell(app, "gc", exit, fields, text)
    }

    fn text(&self, report: &GcReport) -> String {
        let mut text = format!(
            "{} of garbage (before compression) in {}: ",
            size(report.unused_bytes),
            counted(report.packs, "pack")
        );
        if self.dry_run {
            text.push_str(&format!(
                "would delete {}, copying {}",
                counted(report.condemned_packs, "pack"),
                size(report.copied_bytes)
            ));
            return text;
        }
        text.push_str(&format!(
            "deleted {} ({} stored), copied {}",
            counted(report.deleted_packs, "pack"),
            size(report.deleted_bytes),
            size(report.copied_bytes)
        ));
        if report.waiting_packs > 0 {
            text.push_str(&format!(
                "; {} {} for {} that may rely on what is condemned, run `drystone gc` again later",
                counted(report.waiting_packs, "pack"),
                if report.waiting_packs == 1 { "waits" } else { "wait" },
                counted(report.waiting_for.len() as u64, "run")
            ));
        }
        if report.spared_packs > 0 {
            let packs = counted(report.spared_packs, "pack");
            text.push_str(&format!("; {packs} left alone that a running backup may have written"));
        }
        if report.uncopied_packs > 0 {
            let packs = counted(report.uncopied_packs, "pack");
            text.push_str(&format!(
                "; {packs} of which little is needed left alone, since a place is away or full: run `drystone gc` again when that has changed"
            ));
        }
        text
    }
}
