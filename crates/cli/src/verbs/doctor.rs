//! `doctor`: what is wrong, on one page, and which command mends it.

use clap::Args;
use drystone_vault::{Finding, Grade};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, object, shown, with_exit};

const ABOUT: &str = "\
Reads little and changes nothing: the right first command when something seems wrong. It looks at places,
redundancy, keys, known damage, and at how long ago the last backup, scrub and drill were.";

/// Findings of one kind that are printed in full.
const FINDINGS_SHOWN: usize = 20;

/// Say on one page what is wrong, and which command mends it.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Doctor {}

impl Doctor {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let findings = vault.doctor()?;
        let exit = match findings.first().map(|finding| finding.grade) {
            Some(Grade::Lost) => Exit::Damaged,
            Some(Grade::Owed) => Exit::Incomplete,
            Some(Grade::Risk) | None => Exit::Done,
        };
        let fields = json!({
            "vault": vault.place(),
            "findings": findings.iter().map(fields).collect::<Value>(),
        });
        app.out
            .result("doctor", with_exit(fields, exit), page(vault.place(), &findings))?;
        Ok(exit)
    }
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
