//! `repair`: restores redundancy, and rebuilds what can be rebuilt: the local index and the vault's header.
//!
//! - Says first what it will read, write and remove, and does the cheapest.

use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::{Args, Subcommand};
use drystone_vault::{Redundancy, RepairOptions, Vault};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, object, problem_list, size};
use crate::progress::Shown;
use crate::shown::shown;

const ABOUT: &str = "\
Without a subcommand: brings every pack to the redundancy that the configuration demands. Shards that are \
missing, owed, known to be damaged, or at a place that leaves are made anew or moved. What is superseded is \
removed afterwards. It can be interrupted and run again at any time. Damage that nobody has seen yet is found by \
`drystone scrub`.

Examples:
  drystone repair --dry-run   what there is to do, and what it costs
  drystone repair
  drystone repair index       the local index anew, from the packs";

/// Restore redundancy, and rebuild what can be rebuilt.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Repair {
    /// Only say what there is to do, and what it costs
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Throw the local index away and build it anew from the packs
    Index,
    /// Write a damaged or lost vault header anew from the copy in a key slot (needs an owner key)
    Header,
}

impl Repair {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match self.what {
            Some(What::Index) => index(app),
            Some(What::Header) => header(app),
            None if self.dry_run => {
                let vault = open::open(app)?;
                let plan = vault.redundancy()?;
                let exit = verdict(&plan);
                app.answer("repair_plan", exit, plan_fields(&plan), plan_text(&plan))
            }
            None => places(app, open::open(app)?, Work::Mend),
        }
    }
}

/// How a look at the redundancy ends.
fn verdict(plan: &Redundancy) -> Exit {
    match (
        plan.lost_packs,
        plan.owed_packs + plan.unreached_packs + plan.leftover_packs + plan.owed_objects(),
    ) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Incomplete,
        _ => Exit::Damaged,
    }
}

/// Why packs are brought to where they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Something may be missing.
    Mend,
    /// The places have changed; nothing was damaged.
    Move,
}

/// Brings all packs to where they belong; `place` calls it after a change.
pub(crate) fn places(app: &App, vault: Vault, work: Work) -> Result<Exit> {
    let start = Instant::now();
    let plan = vault.redundancy()?;
    app.out.note(plan_text(&plan));
    let (progress, shown) = Shown::begin(app, "repair", "pack");
    let write_bytes = plan.work.iter().map(|work| work.write_bytes).sum();
    progress.total_files.store(plan.packs, Ordering::Relaxed);
    progress.total_bytes.store(write_bytes, Ordering::Relaxed);
    let repaired = vault.repair(&RepairOptions {
        progress,
        cancel: app.cancel.clone(),
    });
    drop(shown);
    let repaired = repaired?;
    let left = vault.drop_left_places()?.redundancy()?;
    let exit = match (verdict(&left), repaired.mended_packs + repaired.mended_objects) {
        (Exit::Done, 0) => Exit::Done,
        (Exit::Done, _) if work == Work::Mend => Exit::Repaired,
        (other, _) => other,
    };
    app.out.problems(&repaired.problems);
    let fields = json!({
        "what": "places",
        "packs": left.packs,
        "mended_packs": repaired.mended_packs,
        "mended_objects": repaired.mended_objects,
        "read_bytes": repaired.read_bytes,
        "written_bytes": repaired.written_bytes,
        "owed_packs": left.owed_packs,
        "lost_packs": left.lost_packs,
        "unreached_packs": left.unreached_packs,
        "leftover_packs": left.leftover_packs,
        "owed_objects": left.owed_objects(),
        "problems": problem_list(&repaired.problems),
        "problem_count": repaired.problems.count(),
        "seconds": start.elapsed().as_secs_f64(),
    });
    let rest = match (left.lost_packs, left.owed_packs) {
        (0, 0) if verdict(&left) == Exit::Done => "all is as it should be".to_owned(),
        (0, 0) if left.owed_objects() > 0 => format!("{} still owed", counted(left.owed_objects(), "object")),
        (0, 0) => "no more can be done here".to_owned(),
        (0, owed) => format!("{} still owed", counted(owed, "pack")),
        (lost, _) => format!("{} cannot be read now, see `drystone check`", counted(lost, "pack")),
    };
    let rest = rest + &unreadable(&left);
    let text = format!(
        "mended {}{}: {} read, {} written; {rest}; {}",
        counted(repaired.mended_packs, "pack"),
        match repaired.mended_objects {
            0 => String::new(),
            objects => format!(" and {}", counted(objects, "object")),
        },
        size(repaired.read_bytes),
        size(repaired.written_bytes),
        duration(start.elapsed())
    );
    app.end("repair", exit, fields, text)
}

fn plan_text(plan: &Redundancy) -> String {
    let mut text = match (plan.owed_packs, plan.lost_packs) {
        (0, 0) if plan.owed_objects() > 0 => format!("{} to copy", counted(plan.owed_objects(), "object")),
        (0, 0) if plan.packs == 0 => "no pack is spread over places, so there is nothing to move or to mend".to_owned(),
        (0, 0) if plan.packs == 1 => "the one pack is as it should be".to_owned(),
        (0, 0) => format!("all {} are as they should be", counted(plan.packs, "pack")),
        (owed, 0) => format!("{} of {} to mend", owed, counted(plan.packs, "pack")),
        (owed, lost) => format!(
            "{owed} of {} to mend, {lost} cannot be read now",
            counted(plan.packs, "pack")
        ),
    };
    text += &unreadable(plan);
    for lacking in &plan.lacking {
        let objects = counted(lacking.objects.count, "object");
        let named = lacking
            .objects
            .named
            .iter()
            .map(|name| format!("\n    {}", shown(name.as_bytes())));
        text += &format!("\n  {}  lacks {objects}:", shown(lacking.place.as_bytes()));
        text.extend(named);
        let more = lacking.objects.count.saturating_sub(lacking.objects.named.len() as u64);
        if more > 0 {
            text += &format!("\n    … and {more} more");
        }
    }
    for work in &plan.work {
        if work.read_bytes + work.write_bytes > 0 {
            text += &format!(
                "\n  {}  read {}, write {}",
                shown(work.place.as_bytes()),
                size(work.read_bytes),
                size(work.write_bytes)
            );
        }
    }
    text
}

/// What repair can do nothing about, though it is not lost.
fn unreadable(plan: &Redundancy) -> String {
    let mut text = String::new();
    if plan.unreached_packs > 0 {
        text += &format!(
            "; {} out of reach while a place is away",
            counted(plan.unreached_packs, "pack")
        );
    }
    if plan.leftover_packs > 0 {
        let count = counted(plan.leftover_packs, "pack");
        text += &format!("; {count} never stored whole by an interrupted run, `drystone gc` removes what is left");
    }
    text
}

fn plan_fields(plan: &Redundancy) -> Value {
    let work = plan.work.iter().map(|work| {
        let fields = json!({ "url": work.place, "read_bytes": work.read_bytes, "write_bytes": work.write_bytes });
        object("place_work", fields)
    });
    json!({
        "packs": plan.packs,
        "owed_packs": plan.owed_packs,
        "bare_packs": plan.bare_packs,
        "lost_packs": plan.lost_packs,
        "unreached_packs": plan.unreached_packs,
        "leftover_packs": plan.leftover_packs,
        "owed_objects": plan.owed_objects(),
        "lacking": lacking(plan),
        "work": work.collect::<Value>(),
    })
}

/// What each place lacks of small objects.
fn lacking(plan: &Redundancy) -> Value {
    let lacking = plan.lacking.iter().map(|lacking| {
        let fields = json!({ "url": lacking.place, "count": lacking.objects.count, "names": lacking.objects.named });
        object("lacking", fields)
    });
    lacking.collect()
}

fn index(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    let start = Instant::now();
    let report = vault.repair_index()?;
    let exit = Exit::of_damage(&report.problems);
    app.out.problems(&report.problems);
    let fields = json!({
        "what": "index",
        "packs": report.packs,
        "chunks": report.chunks,
        "problems": problem_list(&report.problems),
        "problem_count": report.problems.count(),
        "seconds": start.elapsed().as_secs_f64(),
    });
    let lost = match report.problems.count() {
        0 => String::new(),
        many => format!("; {} cannot be read, see `drystone check`", counted(many, "pack")),
    };
    let text = format!(
        "index rebuilt from {}: {}{lost}; {}",
        counted(report.packs, "pack"),
        counted(report.chunks, "chunk"),
        duration(start.elapsed())
    );
    app.end("repair", exit, fields, text)
}

fn header(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    vault.repair_header()?;
    let text = format!("{}: the vault header was written anew", vault.place());
    app.end("repair", Exit::Repaired, json!({ "what": "header" }), text)
}
