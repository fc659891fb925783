//! `man`: the manual, one page per command.
//!
//! - What is a table or a command line in the help is set as it stands, so that no column is torn.
//! - The page of a command has its own options; those of every command are in drystone(1).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;
use serde_json::json;

use crate::exit::{CODES, Exit, Failure, Result};
use crate::manual::{CONFIGURATION, ENVIRONMENT, FILES};
use crate::output::{Output, counted, put_bytes};
use crate::shown::shown_path;

/// Begins the paragraph of a help text that has examples.
const EXAMPLES_HEAD: &str = "Examples:";

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
    /// Runs the command; `command` is the whole command line.
    pub(crate) fn run(&self, mut command: Command, out: Output) -> Result<Exit> {
        command.build();
        match &self.dir {
            None => {
                let page = render(&command, &[])?;
                out.result("man", json!({ "page": page }), page.trim_end())?;
            }
            Some(dir) => {
                let mut pages = 0;
                write(&command, &[], dir, &mut pages)?;
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

/// The page of a command; `above` are the pages of those that it belongs to.
fn render(command: &Command, above: &[String]) -> Result<String> {
    let own = match above {
        [] => command.clone(),
        _ => command.clone().mut_args(|arg| {
            let is_everywhere = arg.is_global_set();
            arg.hide(is_everywhere)
        }),
    };
    let page = Page::new(own)
        .source(concat!("drystone ", env!("CARGO_PKG_VERSION")))
        .manual("Drystone");
    let mut text = Vec::new();
    let rendered = page
        .render_title(&mut text)
        .and_then(|()| page.render_name_section(&mut text))
        .and_then(|()| page.render_synopsis_section(&mut text));
    rendered.map_err(|error| Failure::output(&error))?;
    let mut page_text = String::from_utf8_lossy(&text).into_owned();
    page_text += &description(command);
    text.clear();
    let rendered = page.render_options_section(&mut text);
    let rendered = match command.has_subcommands() {
        true => rendered.and_then(|()| page.render_subcommands_section(&mut text)),
        false => rendered,
    };
    rendered.map_err(|error| Failure::output(&error))?;
    page_text += &String::from_utf8_lossy(&text);
    page_text += &closing(command, above);
    Ok(page_text)
}

/// What a command is for, and what its help says below the options.
fn description(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    let mut text = format!(
        ".SH DESCRIPTION\n{}.\n",
        escaped(&about.map(ToString::to_string).unwrap_or_default())
    );
    let after = after_help(command);
    for part in after.split("\n\n").filter(|part| !part.starts_with(EXAMPLES_HEAD)) {
        text += ".PP\n";
        match part.lines().all(|line| line.starts_with(' ')) {
            true => text += &as_it_stands(part),
            false => {
                text += &part
                    .lines()
                    .map(|line| format!("{}\n.br\n", escaped(line)))
                    .collect::<String>()
            }
        }
    }
    text
}

/// The examples of a command, and the sections that every page ends with.
fn closing(command: &Command, above: &[String]) -> String {
    let after = after_help(command);
    let examples = after.split("\n\n").find_map(|part| part.strip_prefix(EXAMPLES_HEAD));
    let mut text = String::new();
    let mut section = |name: &str, content: &str| {
        // Writing to a string cannot fail.
        let _ = write!(text, ".SH {name}\n{content}");
    };
    if let Some(examples) = examples {
        section("EXAMPLES", &as_it_stands(examples.trim_start_matches('\n')));
    }
    let without_head = |table: &str| as_it_stands(table.split_once('\n').map_or("", |(_, rows)| rows));
    section("EXIT STATUS", &without_head(CODES));
    if above.is_empty() {
        section("ENVIRONMENT", &without_head(ENVIRONMENT));
        section(
            "FILES",
            &format!("{}.PP\n{}", as_it_stands(FILES), as_it_stands(CONFIGURATION)),
        );
    } else {
        let elsewhere =
            "The options that every command takes, the environment and the files are in \\fBdrystone\\fR(1).\n";
        section("ENVIRONMENT AND FILES", elsewhere);
    }
    let name = page_name(command, above);
    let mut pages = above.to_vec();
    let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    pages.extend(inner.map(|inner| format!("{name}-{}", inner.get_name())));
    let pages: Vec<String> = pages
        .iter()
        .map(|page| format!("\\fB{}\\fR(1)", escaped(page)))
        .collect();
    let see = match pages.is_empty() {
        true => "\\fBdrystone\\fR(1)".to_owned(),
        false => pages.join(", "),
    };
    section("SEE ALSO", &format!("{see}\n"));
    text
}

/// The text below the options. The main page has examples alone there: the tables have sections of their own.
fn after_help(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// A text for the typesetter, of which nothing is taken for a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "\\(ga");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// A text whose lines stay as they are.
fn as_it_stands(text: &str) -> String {
    let lines = text.lines().map(|line| format!("{}\n", escaped(line)));
    format!(".nf\n{}.fi\n", lines.collect::<String>())
}

fn page_name(command: &Command, above: &[String]) -> String {
    match above.last() {
        Some(above) => format!("{above}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    }
}

/// Writes the page of a command and those of its own; the command line is no deeper than three.
fn write(command: &Command, above: &[String], dir: &Path, pages: &mut u64) -> Result<()> {
    let name = page_name(command, above);
    let file = dir.join(format!("{name}.1"));
    let page = render(command, above)?;
    fs::write(&file, page).map_err(|error| Failure::io("cannot write the page", &file, &error))?;
    *pages += 1;
    let above = [above, &[name]].concat();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write(inner, &above, dir, pages)?;
    }
    Ok(())
}
