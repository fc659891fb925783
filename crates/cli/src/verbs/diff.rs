//! `diff`: compares two snapshots, or two directories in them.

use std::ffi::OsString;

use clap::Args;
use drystone_backup::{Change, Diff as Changes, Difference};
use drystone_format::tree::{Entry, Kind};
use drystone_vault::Problems;
use serde_json::{Value, json};

use crate::context::App;
use crate::entries::{file_size, kind_word};
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{count, problem_list, put_bytes, with_exit};
use crate::shown::shown;

const EXAMPLES: &str = "\
  + added          M other content    m other owner, mode, time or xattrs
  - removed        T other type

Only what differs is read. A directory is listed if its own attributes differ.

Examples:
  drystone diff latest~1 latest
  drystone diff 1a2b3c4d:/etc latest:/etc";

/// Compare two snapshots, or two directories in them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The older one
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    first: OsString,
    /// The newer one
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    second: OsString,
}

/// The signs, words and counts of changes.
const KINDS: [(&str, &str); 5] = [
    ("+", "added"),
    ("-", "removed"),
    ("M", "content"),
    ("T", "kind"),
    ("m", "attributes"),
];

impl Diff {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let first = open::choose(app, &vault, &self.first)?;
        let second = open::choose(app, &vault, &self.second)?;
        let base = second.selection.path().to_vec();
        let mut lines = app.out.lines();
        let (mut counts, mut problems) = ([0_u64; KINDS.len()], Problems::default());
        let changes = Changes::new((&first.reader, &first.selection), (&second.reader, &second.selection));
        for next in changes.until(app.cancel.clone()) {
            app.cancel.check()?;
            let change = match next {
                Ok(change) => change,
                Err(error) if error.is_damage() => {
                    problems.push(base.clone(), error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let kind = kind(change.difference);
            if let Some(count) = counts.get_mut(kind) {
                *count += 1;
            }
            let (sign, word) = KINDS.get(kind).copied().unwrap_or_default();
            let path = absolute(&base, &change.path);
            if app.out.is_json() {
                lines.object("change", fields(&change, &path, word))?;
            } else {
                lines.line(format_args!("{sign} {}{}", shown(&path), slash(&change)))?;
            }
        }
        let exit = app.ending(Exit::of_damage(&problems));
        if app.out.is_json() {
            let mut summary = json!({ "problems": problem_list(&problems), "problem_count": problems.count() });
            if let Value::Object(fields) = &mut summary {
                fields.extend(
                    KINDS
                        .iter()
                        .zip(counts)
                        .map(|((_, word), count)| ((*word).to_owned(), count.into())),
                );
            }
            lines.object("summary", with_exit(summary, exit))?;
        }
        lines.finish()?;
        app.out.problems(&problems);
        let text: Vec<String> = KINDS
            .iter()
            .zip(counts)
            .map(|((_, word), many)| format!("{} {word}", count(many)))
            .collect();
        app.out.note(text.join(", "));
        Ok(exit)
    }
}

fn absolute(base: &[u8], path: &[u8]) -> Vec<u8> {
    match path {
        b"" => base.to_vec(),
        path => [base, b"/", path.strip_prefix(b"/").unwrap_or(path)].concat(),
    }
}

/// Which of [`KINDS`] a change is.
fn kind(difference: Difference) -> usize {
    match difference {
        Difference::Added => 0,
        Difference::Removed => 1,
        Difference::Content => 2,
        Difference::Kind => 3,
        Difference::Attributes => 4,
    }
}

fn newer(change: &Change) -> Option<&Entry> {
    change.after.as_ref().or(change.before.as_ref())
}

fn slash(change: &Change) -> &'static str {
    let is_dir = newer(change).is_some_and(|entry| matches!(entry.kind, Kind::Dir(_)));
    if is_dir { "/" } else { "" }
}

fn fields(change: &Change, path: &[u8], word: &str) -> Value {
    let mut fields = json!({});
    put_bytes(&mut fields, "path", path);
    let rest = json!({
        "change": word,
        "kind": newer(change).map(|entry| kind_word(&entry.kind)),
        "old_size": change.before.as_ref().and_then(file_size),
        "new_size": change.after.as_ref().and_then(file_size),
    });
    if let (Value::Object(fields), Value::Object(rest)) = (&mut fields, rest) {
        fields.extend(rest);
    }
    fields
}
