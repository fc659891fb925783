//! `help`: what a command does, as `--help` says it.

use clap::{Args, Command};
use serde_json::json;

use crate::exit::{Exit, Result};
use crate::output::Output;
use crate::usage;

const EXAMPLES: &str = "\
Examples:
  drystone help
  drystone help backup
  drystone help place add";

/// Show what a command does, and its options.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Help {
    /// The command; without one, all commands are listed
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Help {
    /// Runs the command; `program` is the whole command line.
    pub(crate) fn run(&self, program: &Command, out: Output) -> Result<Exit> {
        let text = usage::help(&self.command, program)?;
        let fields = json!({ "command": self.command.join(" "), "text": text });
        out.result("help", fields, text.trim_end())?;
        Ok(Exit::Done)
    }
}
