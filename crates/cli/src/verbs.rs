//! The commands, one file each, and which runs for which verb.

pub(crate) mod backup;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod dedup;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod drill;
pub(crate) mod dump;
pub(crate) mod find;
pub(crate) mod forget;
pub(crate) mod gc;
pub(crate) mod help;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod place;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod scrub;
pub(crate) mod snapshots;
pub(crate) mod stats;
pub(crate) mod vault;

use crate::args::{Cli, Verb};
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::output::Output;

/// Runs a verb that needs neither configuration nor vault; gives the others back.
pub(crate) fn run_alone(cli: Cli, out: Output) -> Result<Result<Exit, Cli>> {
    match &cli.verb {
        Verb::Completions(verb) => verb.run(out).map(Ok),
        Verb::Man(verb) => verb.run(out).map(Ok),
        Verb::Help(verb) => verb.run(out).map(Ok),
        _ => Ok(Err(cli)),
    }
}

/// Runs a verb.
pub(crate) fn run(verb: &Verb, app: &App) -> Result<Exit> {
    match verb {
        Verb::Init(verb) => verb.run(app),
        Verb::Backup(verb) => verb.run(app),
        Verb::Snapshots(verb) => verb.run(app),
        Verb::Ls(verb) => verb.run(app),
        Verb::Find(verb) => verb.run(app),
        Verb::Diff(verb) => verb.run(app),
        Verb::Cat(verb) => verb.run(app),
        Verb::Dump(verb) => verb.run(app),
        Verb::Restore(verb) => verb.run(app),
        Verb::Copy(verb) => verb.run(app),
        Verb::Drill(verb) => verb.run(app),
        Verb::Forget(verb) => verb.run(app),
        Verb::Gc(verb) => verb.run(app),
        Verb::Check(verb) => verb.run(app),
        Verb::Scrub(verb) => verb.run(app),
        Verb::Repair(verb) => verb.run(app),
        Verb::Doctor(verb) => verb.run(app),
        Verb::Place(verb) => verb.run(app),
        Verb::Vault(verb) => verb.run(app),
        Verb::Stats(verb) => verb.run(app),
        Verb::Dedup(verb) => verb.run(app),
        Verb::Key(verb) => verb.run(app),
        Verb::Completions(verb) => verb.run(app.out),
        Verb::Man(verb) => verb.run(app.out),
        Verb::Help(verb) => verb.run(app.out),
    }
}
