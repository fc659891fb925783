//! `doctor`: what is wrong, on one page, and which command mends it.

use clap::Args;
use drystone_backup::{LastDrills, last_drills};
use drystone_format::tree::Time;
use drystone_vault::{CheckOptions, Finding, Grade};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, object};
use crate::progress::Shown;
use crate::shown::shown;
use crate::verbs::drill;

const ABOUT: &str = "\
Reads little: the right first command when something seems wrong. It looks at places and their space, redundancy, \
keys, known damage, and at how long ago the last backup, scrub and drill were. If packs are known to be lost or \
damaged, it reads the directories of all snapshots, to say which are hit. At every place it stores a few bytes and \
removes them again, to see whether it takes anything; nothing else is changed.";

/// Findings of one kind that are printed in full.
const FINDINGS_SHOWN: usize = 20;
/// Seconds after which something should have been restored once more: about half a year.
const OLD_DRILL_SECONDS: i64 = 180 * 86_400;

/// Say on one page what is wrong, and which command mends it.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Doctor {}

impl Doctor {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let (drills, now) = (last_drills(&vault)?, app.now());
        let (progress, shown) = Shown::begin(app, "doctor", "file");
        let findings = vault.diagnose(&CheckOptions {
            progress,
            cancel: app.cancel.clone(),
        });
        drop(shown);
        let mut findings = findings?;
        findings.extend(look_at_drills(&drills, now));
        findings.sort_by_key(|finding| finding.grade);
        let exit = match findings.first().map(|finding| finding.grade) {
            Some(Grade::Lost) => Exit::Damaged,
            Some(Grade::Owed) => Exit::Incomplete,
            Some(Grade::Risk) | None => Exit::Done,
        };
        let fields = json!({
            "vault": vault.place(),
            "findings": findings.iter().map(fields).collect::<Value>(),
            "last_drill": drills.last.map(|drilled| drill::recorded(&drilled)),
        });
        let mut text = page(vault.place(), &findings);
        if drills.last.is_some() {
            text += &format!("\nLast drill: {}", drill::last(&drills, now));
        }
        app.answer("doctor", exit, fields, text)
    }
}

/// What the last drill gives to think about.
fn look_at_drills(drills: &LastDrills, now: Time) -> Option<Finding> {
    let (what, next) = match drills.last {
        None => (
            "this machine has never restored anything to see whether it can".to_owned(),
            "drystone drill",
        ),
        Some(last) if last.problems > 0 => (
            format!("the last drill: {}", drill::last(drills, now)),
            "drystone check, then drystone drill",
        ),
        Some(last) if now.seconds.saturating_sub(last.at.seconds) > OLD_DRILL_SECONDS => (
            format!("the last drill: {}", drill::last(drills, now)),
            "drystone drill",
        ),
        Some(_) => return None,
    };
    let next = next.to_owned();
    let grade = Grade::Risk;
    Some(Finding { grade, what, next })
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Lost => "LOST",
        Grade::Owed => "OWED",
        Grade::Risk => "risk",
    }
}

fn fields(finding: &Finding) -> Value {
    let fields = json!({ "grade": word(finding.grade).to_lowercase(), "what": finding.what, "next": finding.next });
    object("finding", fields)
}

fn page(place: &str, findings: &[Finding]) -> String {
    let mut text = format!("{}\n", shown(place.as_bytes()));
    for finding in findings.iter().take(FINDINGS_SHOWN) {
        let what = shown(finding.what.as_bytes());
        text += &format!("\n{}  {what}\n      {}\n", word(finding.grade), finding.next);
    }
    let more = findings.len().saturating_sub(FINDINGS_SHOWN);
    if more > 0 {
        text += &format!("\n… and {more} more (all with --json)\n");
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count() as u64;
    text += &match (count(Grade::Lost), count(Grade::Owed), findings.len()) {
        (0, 0, 0) => "\nNothing is wrong.".to_owned(),
        (0, 0, risks) => format!("\nNothing is wrong; {} to think about.", counted(risks as u64, "thing")),
        (0, owed, _) => format!("\nEverything can be read; {} to mend.", counted(owed, "thing")),
        (lost, _, _) => format!("\n{} cannot be read now.", counted(lost, "thing")),
    };
    text
}
