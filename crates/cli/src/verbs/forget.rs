//! `forget`: drops snapshots, named ones or those that the keep rules do not want.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use drystone_format::RootId;
use drystone_format::snapshot::Snapshot;
use drystone_vault::Problems;
use drystone_vault::retention::{Group, GroupBy, Keep};
use serde_json::{Value, json};

use crate::args::{age, many, word};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{counted, local_time, problem_list};
use crate::shown::shown;
use crate::verbs::snapshots::{Filter, Met, fields, shown_paths};

const EXAMPLES: &str = "\
Snapshots that --host, --tag and --path leave out stay. The rules count within groups of snapshots of one host \
and one set of paths (--group-by), for each writer key apart. Days and the like are those of this machine.
Snapshots that a writer key signed are kept for a while whatever the rules say, and so are those whose times \
cannot be true: whoever has stolen such a key could otherwise push good snapshots out of the rules with dummies.
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
    /// Keep snapshots made with a writer key until this machine has known them for this long
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = age)]
    grace: Duration,
    /// Which snapshots the rules count together: those equal in these of host, paths and tags, or `none` for all
    #[arg(long, value_name = "KEYS", default_value = "host,paths", value_parser = group_by)]
    group_by: GroupBy,
    /// Drop also the last snapshot of a group
    #[arg(long)]
    allow_empty: bool,
    /// Only say what would be dropped
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// What is kept.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
struct Rules {
    /// Keep the latest N
    #[arg(long, value_name = "N", value_parser = many)]
    keep_last: Option<usize>,
    /// Keep one for each of the latest N hours that have any
    #[arg(long, value_name = "N", value_parser = many)]
    keep_hourly: Option<usize>,
    /// The same for days
    #[arg(long, value_name = "N", value_parser = many)]
    keep_daily: Option<usize>,
    /// The same for weeks
    #[arg(long, value_name = "N", value_parser = many)]
    keep_weekly: Option<usize>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = many)]
    keep_monthly: Option<usize>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = many)]
    keep_yearly: Option<usize>,
    /// Keep what began at most so long before the latest (12h, 30d, 8w, 7mo, 1y)
    #[arg(long, value_name = "TIME", value_parser = age)]
    keep_within: Option<Duration>,
    /// Keep what has this tag
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = word)]
    keep_tag: Vec<String>,
    /// Keep this one
    #[arg(long, value_name = "SNAPSHOT")]
    keep_id: Vec<String>,
}

/// What snapshots must have in common to compete: `host,paths`, `tags`, `none`.
fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut found = GroupBy {
        host: false,
        paths: false,
        tags: false,
    };
    for word in text.split(',').map(str::trim) {
        match word {
            "host" => found.host = true,
            "paths" => found.paths = true,
            "tags" => found.tags = true,
            "none" if text == "none" => {}
            _ => return Err("write host, paths and tags with commas, or none".to_owned()),
        }
    }
    Ok(found)
}

impl Forget {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        if !self.snapshots.is_empty() {
            let ids: BTreeSet<RootId> = self
                .snapshots
                .iter()
                .map(|text| match text.as_str() {
                    text if text.starts_with("latest") => Ok(open::resolve(app, &vault, text)?.id),
                    text => Ok(vault.resolve_id(text)?),
                })
                .collect::<Result<_>>()?;
            let ids: Vec<RootId> = ids.into_iter().collect();
            if !self.dry_run {
                vault.forget(&ids)?;
            }
            return self.report(app, 0, &ids, &Problems::default());
        }
        let kept = self.rules.keep_id.iter().map(|text| vault.resolve_id(text));
        let mut keep = self.rules.keep(kept.collect::<Result<_, _>>()?, self.grace);
        keep.group_by = self.group_by;
        if keep.is_empty() {
            return Err(Failure::usage("say what to keep, or which snapshots to drop")
                .next("drystone forget --keep-daily 7 --keep-weekly 5 --dry-run"));
        }
        let met = RefCell::new(Met::default());
        let is_meant = |snapshot: &Snapshot| self.filter.wants(snapshot, &mut met.borrow_mut());
        let (groups, problems) = vault.plan_forget(&keep, &is_meant)?;
        self.tell_misses(app, &met.into_inner());
        let ids: Vec<RootId> = groups.iter().flat_map(Group::forgotten).collect();
        let total = groups.iter().map(|group| group.snapshots.len()).sum::<usize>();
        if self.dry_run || app.out.is_json() || !app.out.quiet {
            list(app, &groups)?;
        }
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

    /// Says which filters and rules match nothing: they are more likely mistyped than meant.
    fn tell_misses(&self, app: &App, met: &Met) {
        let rules = self.rules.keep_tag.iter().filter_map(|tag| met.missing_tag(tag));
        for miss in self.filter.misses(met).into_iter().chain(rules) {
            app.out.warning(miss);
        }
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
            let them = if ids.len() == 1 { "it" } else { "they" };
            text.push_str(&format!("; `drystone gc` frees what {them} alone needed"));
        }
        let tell = if self.dry_run { App::answer } else { App::end };
        tell(app, "forget", exit, fields, text)
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
            group_by: GroupBy::default(),
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
        let (verdict, why) = match reasons.is_empty() {
            true => ("drop", String::new()),
            false => ("keep", format!("  ({})", reasons.join(", "))),
        };
        lines.line(format_args!(
            "{verdict}  {}  {}  {:<10}  {}{why}",
            candidate.id.short(),
            local_time(snapshot.started),
            shown(snapshot.host.as_bytes()),
            shown_paths(&snapshot.paths),
        ))?;
    }
    lines.finish()
}
