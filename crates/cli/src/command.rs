//! The command line as a whole: the list of commands, and which file runs which.

use clap::{CommandFactory, Parser, Subcommand};

use crate::args::Global;
use crate::context::App;
use crate::exit::{CODES, Exit, Result};
use crate::manual::{CONFIGURATION, ENVIRONMENT};
use crate::output::Output;
use crate::verbs;

/// Greatest width of help texts, and their width where there is no terminal, columns: longer lines are hard to read.
const HELP_MAX_COLUMNS: usize = 100;

const EXAMPLES: &str = "\
Examples:
  drystone backup ~/Documents                 makes a vault, the first time
  drystone snapshots                          what was backed up
  drystone restore latest --target /tmp/back  bring it back
  drystone check                              is everything there?";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "drystone", version, about = "Backups into an encrypted, deduplicating vault", max_term_width = HELP_MAX_COLUMNS)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}\n\n{CONFIGURATION}\n\n{CODES}"), disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a vault
    Init(verbs::init::Init),
    /// Back up directories and files
    Backup(verbs::backup::Backup),
    /// List snapshots
    Snapshots(verbs::snapshots::Snapshots),
    /// List a directory of a snapshot
    Ls(verbs::ls::Ls),
    /// Find files in snapshots by name, size or age
    Find(verbs::find::Find),
    /// Compare two snapshots, or two directories in them
    Diff(verbs::diff::Diff),
    /// Write one file of a snapshot to standard output
    Cat(verbs::cat::Cat),
    /// Write a tree as tar to standard output
    Dump(verbs::dump::Dump),
    /// Bring files back
    Restore(verbs::restore::Restore),
    /// Copy snapshots into another vault
    Copy(verbs::copy::Copy),
    /// Restore a sample into a scratch directory for real, and compare it
    Drill(verbs::drill::Drill),
    /// Drop snapshots, by name or by rules of what to keep
    Forget(verbs::forget::Forget),
    /// Delete what no snapshot needs
    Gc(verbs::gc::Gc),
    /// Verify structure, and that every pack is there
    Check(verbs::check::Check),
    /// Read the stored bytes and verify every hash
    Scrub(verbs::scrub::Scrub),
    /// Restore redundancy, and rebuild what can be rebuilt
    Repair(verbs::repair::Repair),
    /// Say on one page what is wrong, and which command mends it
    Doctor(verbs::doctor::Doctor),
    /// Add, list, remove and replace the places where the vault lies
    Place(verbs::place::Place),
    /// Show and change what every program must know of the vault
    Vault(verbs::vault::Vault),
    /// Show sizes and counts
    Stats(verbs::stats::Stats),
    /// Add, list and remove what opens the vault
    Key(verbs::key::Key),
    /// Free the space of duplicates on Btrfs and XFS, in place
    Dedup(verbs::dedup::Dedup),
    /// Print completions for a shell
    Completions(verbs::completions::Completions),
    /// Print the manual, or write its pages into a directory
    Man(verbs::man::Man),
    /// Show what a command does, and its options
    Help(verbs::help::Help),
}

/// Runs a verb that needs neither configuration nor vault; gives the others back.
pub(crate) fn run_alone(cli: Cli, out: Output) -> Result<Result<Exit, Cli>> {
    match &cli.verb {
        Verb::Completions(verb) => verb.run(Cli::command(), out).map(Ok),
        Verb::Man(verb) => verb.run(Cli::command(), out).map(Ok),
        Verb::Help(verb) => verb.run(&Cli::command(), out).map(Ok),
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
        Verb::Completions(verb) => verb.run(Cli::command(), app.out),
        Verb::Man(verb) => verb.run(Cli::command(), app.out),
        Verb::Help(verb) => verb.run(&Cli::command(), app.out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
