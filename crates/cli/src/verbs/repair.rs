//! `repair`: rebuilds what can be rebuilt, the local index and the vault's header.

use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, with_exit};

/// Rebuild what can be rebuilt.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(subcommand)]
    what: What,
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
            What::Index => index(app),
            What::Header => header(app),
        }
    }
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
    app.out.result("repair", with_exit(fields, exit), text)?;
    Ok(exit)
}

fn header(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    vault.repair_header()?;
    let fields = with_exit(json!({ "what": "header" }), Exit::Repaired);
    app.out.result(
        "repair",
        fields,
        format_args!("{}: the vault header was written anew", vault.place()),
    )?;
    Ok(Exit::Repaired)
}
