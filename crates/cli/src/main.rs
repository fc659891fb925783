//! The `drystone` command: one file per verb in `verbs/`.
//!
//! - Only `config.rs` reads the environment, only `exit.rs` knows exit codes, only `output.rs` prints.

mod address;
mod args;
mod cache_dir;
mod command;
mod config;
mod context;
mod entries;
mod exit;
mod keyfile;
mod manual;
mod open;
mod output;
mod own;
mod progress;
mod runtime;
mod shown;
mod terminal;
mod usage;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::Cli;
use crate::config::{Settings, command_line, process_environment};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Form, Output};

/// Files that a command may have open at once: some hundred directories, and connections.
const OPEN_FILES: u64 = 8192;

fn main() -> ExitCode {
    // Keys and passphrases are in memory: no core file has them, and no other process of this user reads them.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    raise_open_files();
    let line = command_line();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return usage::refuse(&error, &line, &Cli::command()).into(),
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

/// Files that may be open at once are as many as the system allows this process, up to a number that is always enough.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        // Where this is refused, fewer directories stay open.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                ..limit
            },
        );
    }
}

fn run(cli: Cli, out: Output) -> Result<Exit, Failure> {
    // What needs neither vault nor configuration works where both are broken.
    let cli = match command::run_alone(cli, out)? {
        Ok(exit) => return Ok(exit),
        Err(cli) => cli,
    };
    let settings = Settings::load(&cli.global, &process_environment)?;
    let app = App::start(settings, out)?;
    let exit = command::run(&cli.verb, &app);
    // Also after a failure: a place that is away may be why.
    let finished = app.finish(*exit.as_ref().unwrap_or(&Exit::Error));
    exit.map(|_| finished).map_err(|failure| app.reason(failure))
}
