//! `copy`: copies snapshots into another vault.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use drystone_backup::{CopyMode, CopyOptions, CopyReport, copy};
use drystone_format::RootId;
use drystone_format::codec::Compression;
use drystone_vault::{Problems, Vault};
use serde_json::json;

use crate::config::{Target, process_environment};
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, size};
use crate::progress::Shown;

const EXAMPLES: &str = "\
What you or an owner copied before is not copied again, and what has not changed since is not read. Copies keep \
host, time, paths and tags, and remember where they come from. An interrupted copy goes on when it is run again. \
What cannot be read in the source becomes a hole in the copy, is marked and listed; run again when the source is \
mended. Of several copies of one snapshot the whole one counts, for `latest` and for the rules of `forget`.
The target's key: --to-key-file, --to-passphrase-file, DRYSTONE_TO_… in the environment, its profile, or the kept key.

Examples:
  drystone init --vault /mnt/second/vault
  drystone copy --to /mnt/second/vault    all snapshots
  drystone copy latest --to offsite       one, to the vault of profile `offsite`
  drystone copy --vault offsite --to /mnt/new
                                          out of another vault than the usual";

/// Copy snapshots into another vault.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Copy {
    /// `latest` or ids; all snapshots if none is given
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The vault to copy to: a place, or the name of a profile [env: DRYSTONE_TO_VAULT]
    #[arg(long, value_name = "URL|PROFILE")]
    to: Option<String>,
    /// Key file of the vault to copy to [env: DRYSTONE_TO_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
    /// File that holds the passphrase of the vault to copy to [env: DRYSTONE_TO_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE")]
    to_passphrase_file: Option<PathBuf>,
    /// zstd:LEVEL (default zstd:3), zlib:LEVEL, bzip2:LEVEL, lz4, lzo or none
    #[arg(long, value_name = "CODEC")]
    compression: Option<Compression>,
    /// Copy nothing, only say which snapshots would be copied
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl Copy {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let target = Target {
            vault: self.to.clone(),
            key_file: self.to_key_file.clone(),
            passphrase_file: self.to_passphrase_file.clone(),
        };
        let target = app.settings.of_target(target, &process_environment)?;
        let from = open::open(app)?;
        let to = open::open_with(app, &target)?;
        let start = Instant::now();
        let (chosen, unread) = self.chosen(app, &from)?;
        let (progress, line) = Shown::begin(app, "copy", "file");
        let options = CopyOptions {
            compression: self
                .compression
                .or(target.profile.compression)
                .unwrap_or(Compression::DEFAULT),
            mode: if self.dry_run {
                CopyMode::DryRun
            } else {
                CopyMode::Store
            },
            threads: app.settings.threads,
            progress,
            cancel: app.cancel.clone(),
        };
        let report = copy(&from, &to, &chosen, &options);
        drop(line);
        let mut report = report?;
        report.problems.append(unread);
        self.report(app, &report, &to, start)
    }

    /// The snapshots to copy, and what of all there should be cannot be read or is missing.
    fn chosen(&self, app: &App, from: &Vault) -> Result<(Vec<RootId>, Problems)> {
        if self.snapshots.is_empty() {
            let (candidates, problems) = from.candidates()?;
            return Ok((candidates.iter().map(|one| one.id).collect(), problems));
        }
        let resolved = self.snapshots.iter();
        let chosen: Result<Vec<RootId>> = resolved.map(|text| Ok(open::resolve(app, from, text)?.id)).collect();
        Ok((chosen?, Problems::default()))
    }

    fn report(&self, app: &App, report: &CopyReport, to: &Vault, start: Instant) -> Result<Exit> {
        let exit = if report.problems.is_empty() {
            Exit::Done
        } else {
            Exit::Incomplete
        };
        app.out.problems(&report.problems);
        if self.snapshots.is_empty() {
            for (kind, count) in &report.left_roots {
                let (roots, kind) = (counted(*count, "root"), kind.word());
                app.out.warning(format!(
                    "{roots} of the kind `{kind}` not copied: a copy takes snapshots alone"
                ));
            }
        }
        let left = report.left_roots.iter();
        let left: BTreeMap<&str, u64> = left.map(|(kind, count)| (kind.word(), *count)).collect();
        let copied = report.copied.iter().map(|(id, copy)| {
            json!({
                "snapshot": id.to_string(),
                "copy": copy.map(|copy| copy.to_string()),
            })
        });
        let fields = json!({
            "to": to.place(),
            "dry_run": self.dry_run,
            "copied": copied.collect::<Vec<_>>(),
            "skipped": report.skipped,
            "left_roots": left,
            "files": report.files,
            "bytes": report.bytes,
            "read_bytes": report.read_bytes,
            "new_bytes": report.stored.new_bytes,
            "stored_bytes": report.stored.stored_bytes,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "seconds": start.elapsed().as_secs_f64(),
        });
        let text = format!("{}; {}", self.summary(report, to), duration(start.elapsed()));
        let tell = if self.dry_run { App::answer } else { App::end };
        tell(app, "copy", exit, fields, text)
    }

    fn summary(&self, report: &CopyReport, to: &Vault) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{would}copied to {}: {} with {}, {}",
            to.place(),
            counted(report.copied.len() as u64, "snapshot"),
            counted(report.files, "file"),
            size(report.bytes)
        );
        if !self.dry_run {
            text += &format!(
                "; {} read, {} stored",
                size(report.read_bytes),
                size(report.stored.stored_bytes)
            );
        }
        if report.skipped > 0 {
            text += &format!("; {} there already", counted(report.skipped, "snapshot"));
        }
        if !report.problems.is_empty() {
            text += &format!("; {} (listed above)", counted(report.problems.count(), "problem"));
        }
        text
    }
}
