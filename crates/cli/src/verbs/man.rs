//! `man`: the manual, one page per command.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;
use serde_json::json;

use crate::args::Cli;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Output, counted, put_bytes, shown_path};

const EXAMPLES: &str = "\
Examples:
  drystone man | man -l -
  drystone man ~/.local/share/man/man1";

/// Print the manual, or write its pages into a directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Existing directory for the pages, one per command; without it the main page is printed
    dir: Option<PathBuf>,
}

impl Man {
    /// Runs the command.
    pub(crate) fn run(&self, out: Output) -> Result<Exit> {
        let mut command = Cli::command();
        command.build();
        match &self.dir {
            None => {
                let page = render(&command)?;
                out.result("man", json!({ "page": page }), page.trim_end())?;
            }
            Some(dir) => {
                let mut pages = 0;
                write(&command, "drystone", dir, &mut pages)?;
                let mut fields = json!({ "pages": pages });
                put_bytes(&mut fields, "dir", dir.as_os_str().as_bytes());
                out.result(
                    "man",
                    fields,
                    format_args!("{} written to {}", counted(pages, "page"), shown_path(dir)),
                )?;
            }
        }
        Ok(Exit::Done)
    }
}

fn render(command: &Command) -> Result<String> {
    let mut page = Vec::new();
    Page::new(command.clone())
        .render(&mut page)
        .map_err(|error| Failure::output(&error))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes the page of a command and, one level down, those of its own; the command line is no deeper than three.
fn write(command: &Command, name: &str, dir: &Path, pages: &mut u64) -> Result<()> {
    let file = dir.join(format!("{name}.1"));
    let page = render(&command.clone().name(name.to_owned()))?;
    fs::write(&file, page).map_err(|error| Failure::io("cannot write the page", &file, &error))?;
    *pages += 1;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write(inner, &format!("{name}-{}", inner.get_name()), dir, pages)?;
    }
    Ok(())
}
