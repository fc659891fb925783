//! The `drystone` command: one file per verb in `verbs/`.
//!
//! - Only `config.rs` reads the environment, only `exit.rs` knows exit codes, only `output.rs` prints.

mod args;
mod config;
mod context;
mod entries;
mod exit;
mod keyfile;
mod manual;
mod open;
mod output;
mod progress;
mod reach;
mod terminal;
mod usage;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::config::{Settings, command_line, process_environment};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Form, Output};

fn main() -> ExitCode {
    // Keys and passphrases are in memory: no core file has them, and no other process of this user reads them.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let line = command_line();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return usage::refuse(&error, &line).into(),
    };
    let form = if cli.global.json { Form::Json } else { Form::Text };
    let out = Output {
        form,
        quiet: cli.global.quiet,
    };
    match run(cli, out) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, out: Output) -> Result<Exit, Failure> {
    // What needs neither vault nor configuration works where both are broken.
    let cli = match verbs::run_alone(cli, out)? {
        Ok(exit) => return Ok(exit),
        Err(cli) => cli,
    };
    let settings = Settings::load(&cli.global, &process_environment)?;
    let app = App::start(settings, out)?;
    let exit = verbs::run(&cli.verb, &app);
    // Also after a failure: a place that is away may be why.
    let finished = app.finish(*exit.as_ref().unwrap_or(&Exit::Error));
    exit.map(|_| finished).map_err(|failure| app.reason(failure))
}
