//! `drill`: restores a sample into a scratch directory for real, and compares it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use drystone_backup::{DrillOptions, DrillReport, Drilled, Error, Keep, LastDrills, Share, drill, record_drill};
use drystone_format::RootId;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::Time;
use drystone_vault::order::Candidate;
use drystone_vault::{Problems, Progress, Resolved, Vault};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{count, counted, duration, problem_list, put_bytes, size, utc_time};
use crate::own::refuse_own;
use crate::progress::Shown;
use crate::shown::{shown, shown_path};
use crate::verbs::scrub::share;

const EXAMPLES: &str = "\
Files are drawn at random, in proportion; the largest and some small ones always. What was restored is read back \
and compared with the recorded hashes, and byte for byte with the source where that is on this machine and has \
the recorded size and time. The scratch directory is removed. `drystone stats` shows the last result.

Examples:
  drystone drill        5 % of the latest of each host and set of paths
  drystone drill latest --all --into /mnt/spare";

/// Restore a sample into a scratch directory for real, and compare it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Drill {
    /// `latest` or ids; if none is given, the latest of every host and set of paths
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Share to restore, by bytes
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = share)]
    share: f64,
    /// Restore everything
    #[arg(long, conflicts_with = "share")]
    all: bool,
    /// Make the scratch directory in DIR, by default in the directory for what can be rebuilt
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Leave what was restored there
    #[arg(long)]
    keep: bool,
    /// Draw the same files as an earlier drill
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

impl Drill {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        if let Some(into) = &self.into {
            refuse_own(app, &vault, into)?;
        }
        let start = Instant::now();
        let chosen = self.chosen(app, &vault)?;
        let (progress, line) = Shown::begin(app, "drill", "file");
        let mut options = self.options(app, progress);
        let host = app.settings.profile.host.clone().unwrap_or_else(open::this_host);
        let (mut reports, mut undone) = (Vec::new(), Problems::default());
        for one in &chosen {
            options.source = (one.snapshot.host == host).then(|| "/".into());
            options.within = one.within;
            match drill(&vault, &one.snapshot, &options) {
                Ok(report) => reports.push((&one.id, &one.snapshot, report)),
                Err(error @ (Error::NoRoom { .. } | Error::MoreThanStated { .. })) if chosen.len() > 1 => {
                    undone.push(format!("{}:", one.id.short()), error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(line);
        app.out.problems(&undone);
        let sum = |of: fn(&DrillReport) -> u64| reports.iter().map(|(_, _, report)| of(report)).sum();
        let newest = reports.iter().max_by_key(|(_, snapshot, _)| snapshot.started);
        let drilled = Drilled {
            at: app.now(),
            snapshot: newest.map_or(RootId([0; RootId::LEN]), |(id, ..)| **id),
            snapshots: reports.len() as u64,
            files: sum(|report| report.files),
            bytes: sum(|report| report.bytes),
            problems: sum(|report| report.problems.count()),
            seconds: start.elapsed().as_secs(),
        };
        if !reports.is_empty() {
            record_drill(&vault, &drilled)?;
        }
        report(app, &options, (&reports, &undone), &drilled, start)
    }

    fn options(&self, app: &App, progress: Arc<Progress>) -> DrillOptions {
        let mut seed = [0; 8];
        app.context.entropy.fill(&mut seed);
        let share = Share::new(self.share).filter(|_| !self.all);
        DrillOptions {
            share: share.unwrap_or(Share::ALL),
            // So that it survives programs that read JSON numbers as floating point.
            seed: self.seed.unwrap_or(u64::from_le_bytes(seed) >> 11),
            into: self.into.clone().unwrap_or_else(|| app.settings.cache_dir.clone()),
            keep: if self.keep { Keep::Keep } else { Keep::Remove },
            source: None,
            within: None,
            threads: app.settings.threads,
            progress,
            cancel: app.cancel.clone(),
        }
    }

    fn chosen(&self, app: &App, vault: &Vault) -> Result<Vec<Chosen>> {
        if !self.snapshots.is_empty() {
            let resolved = self.snapshots.iter().map(|text| {
                let Resolved { id, snapshot, .. } = open::resolve(app, vault, text)?;
                Ok(Chosen {
                    id,
                    snapshot,
                    within: None,
                })
            });
            return resolved.collect();
        }
        let mut latest = BTreeMap::new();
        let (candidates, problems) = vault.candidates()?;
        app.out.problems(&problems);
        for candidate in candidates {
            let signers = candidate.signers();
            let is_foreign = signers.is_some() && !vault.is_own(&candidate.writer);
            let Candidate { id, snapshot, .. } = candidate;
            let key = (snapshot.host.clone(), snapshot.paths.clone(), signers);
            let within = is_foreign.then_some(snapshot.totals);
            // Later ones come later.
            latest.insert(key, Chosen { id, snapshot, within });
        }
        if latest.is_empty() {
            let message = format!("{}: there is no snapshot to restore", vault.place());
            return Err(Failure::new(Exit::Error, message).next("drystone backup"));
        }
        // Other writers may have made theirs up to keep a drill busy: they come last, those that state most at the end.
        let mut latest: Vec<Chosen> = latest.into_values().collect();
        latest.sort_by_key(|one| one.within.map(|stated| stated.bytes));
        Ok(latest)
    }
}

/// A snapshot to drill.
struct Chosen {
    id: RootId,
    snapshot: Snapshot,
    /// What it may hold, if it is another writer's.
    within: Option<Totals>,
}

fn report(
    app: &App,
    options: &DrillOptions,
    (reports, undone): (&[(&RootId, &Snapshot, DrillReport)], &Problems),
    drilled: &Drilled,
    start: Instant,
) -> Result<Exit> {
    let incomplete = |(_, _, report): &(_, _, DrillReport)| !report.incomplete.is_empty();
    let exit = match drilled.problems {
        0 if undone.is_empty() && !reports.iter().any(incomplete) => Exit::Done,
        0 => Exit::Incomplete,
        _ => Exit::Damaged,
    };
    let (mut text, mut list) = (String::new(), Vec::new());
    for (id, snapshot, report) in reports {
        app.out.problems(&report.problems);
        app.out.problems(&report.incomplete);
        for not_set in &report.not_set {
            app.out.note(format_args!("not set, so not compared: {not_set}"));
        }
        text += &line(id, snapshot, report);
        list.push(fields(id, snapshot, report));
    }
    let fields = json!({
        "share": options.share.value(),
        "seed": options.seed,
        "snapshots": list,
        "files": drilled.files,
        "bytes": drilled.bytes,
        "problem_count": drilled.problems,
        "undone": problem_list(undone),
        "seconds": start.elapsed().as_secs_f64(),
    });
    text += &format!(
        "drilled: {}, {} restored and as recorded, {}; {}",
        counted(drilled.files, "file"),
        size(drilled.bytes),
        verdict(drilled.problems),
        duration(start.elapsed())
    );
    app.end("drill", exit, fields, text)
}

fn verdict(problems: u64) -> String {
    match problems {
        0 => "no problems".to_owned(),
        many => counted(many, "problem"),
    }
}

fn line(id: &RootId, snapshot: &Snapshot, report: &DrillReport) -> String {
    let mut text = format!(
        "{} of {}: {}, {} in {} verified; {} equal to the source",
        id.short(),
        shown(snapshot.host.as_bytes()),
        counted(report.files, "file"),
        size(report.bytes),
        counted(report.chunks, "chunk"),
        count(report.same_files),
    );
    if report.changed_files > 0 {
        text += &format!(", {} have no such source (any more)", count(report.changed_files));
    }
    if !report.incomplete.is_empty() {
        let many = counted(report.incomplete.count(), "entry");
        text += &format!("; {many} marked as not whole (listed above)");
    }
    if let Some(kept) = &report.kept {
        text += &format!("; kept in {}", shown_path(kept));
    }
    text + "\n"
}

fn fields(id: &RootId, snapshot: &Snapshot, report: &DrillReport) -> Value {
    let mut fields = json!({
        "snapshot": id.to_string(),
        "host": snapshot.host,
        "files": report.files,
        "bytes": report.bytes,
        "chunks": report.chunks,
        "same_files": report.same_files,
        "same_bytes": report.same_bytes,
        "changed_files": report.changed_files,
        "not_set": report.not_set.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kept": null,
        "problems": problem_list(&report.problems),
        "problem_count": report.problems.count(),
        "incomplete": problem_list(&report.incomplete),
        "incomplete_count": report.incomplete.count(),
    });
    if let Some(kept) = &report.kept {
        put_bytes(&mut fields, "kept", kept.as_os_str().as_encoded_bytes());
    }
    fields
}

/// A remembered result as JSON.
pub(crate) fn recorded(drilled: &Drilled) -> Value {
    json!({
        "at": utc_time(drilled.at),
        "snapshot": drilled.snapshot.to_string(),
        "snapshots": drilled.snapshots,
        "files": drilled.files,
        "bytes": drilled.bytes,
        "problem_count": drilled.problems,
        "seconds": drilled.seconds,
    })
}

/// What is remembered, in a line.
pub(crate) fn last(drills: &LastDrills, now: Time) -> String {
    let Some(last) = drills.last else {
        return "never on this machine; run `drystone drill`".to_owned();
    };
    let mut text = format!(
        "{}: {}, {}, {}",
        ago(last.at, now),
        counted(last.files, "file"),
        size(last.bytes),
        verdict(last.problems)
    );
    if last.problems > 0 {
        text += &match drills.last_sound {
            Some(sound) => format!("; the last without was {}", ago(sound.at, now)),
            None => "; none was without".to_owned(),
        };
    }
    text
}

fn ago(at: Time, now: Time) -> String {
    match now.seconds.saturating_sub(at.seconds).max(0) as u64 {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} ago", counted(seconds / 60, "minute")),
        seconds @ 3600..86_400 => format!("{} ago", counted(seconds / 3600, "hour")),
        seconds => format!("{} ago", counted(seconds / 86_400, "day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_told_in_a_line() {
        let time = |seconds| Time { seconds, nanos: 0 };
        let sound = Drilled {
            at: time(1000),
            snapshot: RootId([0; 16]),
            snapshots: 1,
            files: 1204,
            bytes: 2_100_000_000,
            problems: 0,
            seconds: 9,
        };
        let mut drills = LastDrills {
            last: Some(sound),
            last_sound: Some(sound),
        };
        let day = 86_400;
        assert_eq!(
            last(&drills, time(1000 + 3 * day)),
            "3 days ago: 1,204 files, 2.10 GB, no problems"
        );
        drills.last = Some(Drilled {
            problems: 2,
            at: time(1000 + 2 * day),
            ..sound
        });
        assert_eq!(
            last(&drills, time(1000 + 3 * day)),
            "1 day ago: 1,204 files, 2.10 GB, 2 problems; the last without was 3 days ago"
        );
        assert!(last(&LastDrills::default(), time(0)).contains("drystone drill"));
        assert_eq!(ago(time(10), time(5)), "just now");
    }
}
