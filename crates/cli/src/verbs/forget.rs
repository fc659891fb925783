//! `forget`: drops snapshots, named ones or those that the keep rules do not want.

use std::time::Duration;

use clap::Args;
use drystone_format::RootId;
use drystone_vault::Problems;
use drystone_vault::retention::{Group, Keep};
use serde_json::{Value, json};

use crate::args::span;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{counted, local_time, problem_list, shown, with_exit};
use crate::verbs::snapshots::{Filter, fields};

const EXAMPLES: &str = "\
Snapshots that --host, --tag and --path leave out stay. The rules count within groups of snapshots of one host and one set of paths, for each writer key apart. Days and the like are those of UTC.
Snapshots that a writer key signed are kept for a while whatever the rules say, and so are those whose times cannot be
true: whoever has stolen such a key could otherwise push good snapshots out of the rules with dummies.
Nothing is freed before the next `drystone gc`.

Examples:
  drystone forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  drystone forget --keep-within 30d --keep-tag before-upgrade --host laptop
  drystone forget 1a2b3c4d";

/// Drop snapshots.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Forget {
    /// Snapshots to drop, whatever they are
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["rules", "filter"])]
    snapshots: Vec<String>,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    filter: Filter,
    /// Keep a writer's snapshots until they were seen for so long
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = span)]
    grace: Duration,
    /// Drop also the last snapshot of a group
    #[arg(long)]
    allow_empty: bool,
    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,
}

/// What is kept.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
struct Rules {
    /// Keep the latest N
    #[arg(long, value_name = "N")]
    keep_last: Option<usize>,
    /// Keep one for each of the latest N hours that have any
    #[arg(long, value_name = "N")]
    keep_hourly: Option<usize>,
    /// The same for days
    #[arg(long, value_name = "N")]
    keep_daily: Option<usize>,
    /// The same for weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<usize>,
    /// The same for months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<usize>,
    /// The same for years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<usize>,
    /// Keep what began at most so long before the latest (12h, 30d, 8w)
    #[arg(long, value_name = "TIME", value_parser = span)]
    keep_within: Option<Duration>,
    /// Keep what has this tag
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Keep this one
    #[arg(long, value_name = "SNAPSHOT")]
    keep_id: Vec<String>,
}

impl Forget {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        if !self.snapshots.is_empty() {
            let ids: Vec<RootId> = self
                .snapshots
                .iter()
                .map(|text| match text.as_str() {
                    text if text.starts_with("latest") => Ok(open::resolve(app, &vault, text)?.id),
                    text => Ok(vault.resolve_id(text)?),
                })
                .collect::<Result<_>>()?;
            if !self.dry_run {
                vault.forget(&ids)?;
            }
            return self.report(app, 0, &ids, &Problems::default());
        }
        let kept = self.rules.keep_id.iter().map(|text| vault.resolve_id(text));
        let keep = self.rules.keep(kept.collect::<Result<_, _>>()?, self.grace);
        if keep.is_empty() {
            return Err(Failure::usage("say what to keep, or which snapshots to drop")
                .next("drystone forget --keep-daily 7 --keep-weekly 5 --dry-run"));
        }
        let (groups, problems) = vault.plan_forget(&keep, &|snapshot| self.filter.wants(snapshot))?;
        let ids: Vec<RootId> = groups.iter().flat_map(Group::forgotten).collect();
        let total = groups.iter().map(|group| group.snapshots.len()).sum::<usize>();
        list(app, &groups)?;
        if !self.allow_empty
            && let Some((candidate, _)) = groups
                .iter()
                .find(|group| group.is_lost())
                .and_then(|group| group.snapshots.last())
        {
            return Err(Failure::new(
                Exit::Error,
                format!(
                    "these rules keep no snapshot of {}; nothing was dropped",
                    shown(candidate.snapshot.host.as_bytes())
                ),
            )
            .next("add a rule that keeps some, such as --keep-last 1, or --allow-empty"));
        }
        if !self.dry_run {
            vault.forget(&ids)?;
        }
        self.report(app, total - ids.len(), &ids, &problems)
    }

    fn report(&self, app: &App, kept: usize, ids: &[RootId], problems: &Problems) -> Result<Exit> {
        let exit = Exit::of_damage(problems);
        app.out.problems(problems);
        let fields = json!({
            "dry_run": self.dry_run,
            "kept": kept,
            "forgotten": ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "problems": problem_list(problems),
            "problem_count": problems.count(),
        });
        let done = if self.dry_run { "would drop" } else { "dropped" };
        let mut text = format!("{done} {}", counted(ids.len() as u64, "snapshot"));
        if self.snapshots.is_empty() {
            text.push_str(&format!(", kept {}", counted(kept as u64, "snapshot")));
        }
        if !self.dry_run && !ids.is_empty() {
            text.push_str("; `drystone gc` frees what they alone needed");
        }
        app.out.result("forget", with_exit(fields, exit), text)?;
        Ok(exit)
    }
}

impl Rules {
    fn keep(&self, ids: Vec<RootId>, grace: Duration) -> Keep {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Keep {
            last: self.keep_last.unwrap_or(0),
            hourly: self.keep_hourly.unwrap_or(0),
            daily: self.keep_daily.unwrap_or(0),
            weekly: self.keep_weekly.unwrap_or(0),
            monthly: self.keep_monthly.unwrap_or(0),
            yearly: self.keep_yearly.unwrap_or(0),
            within_seconds: self.keep_within.map(seconds),
            tags: self.keep_tag.clone(),
            ids,
            grace_seconds: seconds(grace),
        }
    }
}

/// Every snapshot with what becomes of it.
fn list(app: &App, groups: &[Group]) -> Result<()> {
    let mut lines = app.out.lines();
    for (candidate, reasons) in groups.iter().flat_map(|group| &group.snapshots) {
        let snapshot = &candidate.snapshot;
        if app.out.is_json() {
            let mut found = fields(&candidate.id, snapshot);
            if let Value::Object(fields) = &mut found {
                fields.insert("keep".to_owned(), json!(reasons));
            }
            lines.object("judged", found)?;
            continue;
        }
        let paths: Vec<String> = snapshot.paths.iter().map(|path| shown(path)).collect();
        let (verdict, why) = match reasons.is_empty() {
            true => ("drop", String::new()),
            false => ("keep", format!("  ({})", reasons.join(", "))),
        };
        lines.line(format_args!(
            "{verdict}  {}  {}  {:<10}  {}{why}",
            candidate.id.short(),
            local_time(snapshot.started),
            shown(snapshot.host.as_bytes()),
            paths.join(" "),
        ))?;
    }
    lines.finish()
}
