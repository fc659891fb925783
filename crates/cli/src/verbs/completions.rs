//! `completions`: what a shell needs to complete command lines.

use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

use crate::exit::{Exit, Result};
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  d=~/.local/share/bash-completion/completions
  drystone completions bash > $d/drystone
  drystone completions zsh > \"${fpath[1]}/_drystone\"
  drystone completions fish > ~/.config/fish/completions/drystone.fish";

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs the command; `command` is the whole command line.
    pub(crate) fn run(&self, mut command: Command, out: Output) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "drystone", &mut script);
        let script = String::from_utf8_lossy(&script);
        let fields = json!({ "shell": self.shell.to_string(), "script": script });
        out.result("completions", fields, script.trim_end())?;
        Ok(Exit::Done)
    }
}
