//! `scrub`: reads the stored bytes and verifies every hash.

use std::time::Instant;

use clap::Args;
use drystone_vault::ScrubOptions;
use serde_json::json;

use crate::args;
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, size};
use crate::progress::Shown;

const EXAMPLES: &str = "\
Examples:
  drystone scrub                everything
  drystone scrub --share 10%    a tenth of it, going on where the last run ended
  drystone scrub --repair       and mend what is rotten from the other places";

/// Read the stored bytes and verify every hash.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Scrub {
    /// Share of the vault to read in this run
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share)]
    share: f64,
    /// Make altered or missing shards anew, where the vault has redundancy
    #[arg(long)]
    repair: bool,
}

/// A share as people write it: `10%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    args::share(text, 0.01)
}

impl Scrub {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let start = Instant::now();
        let (progress, shown) = Shown::begin(app, "scrub", "pack");
        let report = vault.scrub(&ScrubOptions {
            share: self.share,
            repair: self.repair,
            progress,
            cancel: app.cancel.clone(),
        });
        drop(shown);
        let report = report?;
        let exit = match (report.problems.is_empty(), report.rotten - report.mended) {
            (true, 0) if report.missing > 0 => Exit::Incomplete,
            (true, 0) if report.mended + report.copied > 0 => Exit::Repaired,
            (true, 0) => Exit::Done,
            _ => Exit::Damaged,
        };
        app.out.problems(&report.problems);
        if !vault.role().may_read() {
            app.out
                .warning("a writer key verifies packs as a whole, not the content of their chunks");
        }
        let fields = json!({
            "share": self.share,
            "packs": report.packs,
            "bytes": report.bytes,
            "chunks": report.chunks,
            "rotten_shards": report.rotten,
            "mended_shards": report.mended,
            "copied_objects": report.copied,
            "missing_objects": report.missing,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "seconds": start.elapsed().as_secs_f64(),
        });
        let missing = match (report.missing, report.copied) {
            (0, 0) => String::new(),
            (0, copied) => format!("; {} copied to places that lacked them", counted(copied, "object")),
            (missing, _) => format!(
                "; {} missing at places, run `drystone repair`",
                counted(missing, "object")
            ),
        };
        let verdict = match (report.problems.count(), report.rotten) {
            (0, 0) => "no damage".to_owned(),
            (0, rotten) if rotten == report.mended => format!("{} altered, and made anew", counted(rotten, "shard")),
            (0, rotten) => format!(
                "{} altered; nothing is lost, run `drystone repair`",
                counted(rotten - report.mended, "shard")
            ),
            (many, _) => format!(
                "{} damaged; the next backup stores what of it still exists",
                counted(many, "pack")
            ),
        };
        let text = format!(
            "read {} in {}, {}: {verdict}{missing}; {}",
            size(report.bytes),
            counted(report.packs, "pack"),
            counted(report.chunks, "chunk"),
            duration(start.elapsed())
        );
        app.end("scrub", exit, fields, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("100%"), Ok(1.0));
        for text in ["", "%", "10", "0%", "101%", "NaN%", "-1%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
