//! `snapshots`: lists what was backed up, oldest first.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Args;
use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_format::snapshot::Snapshot;
use drystone_vault::Vault;
use drystone_vault::order::{Candidate, contradiction};
use serde_json::{Value, json};

use crate::args::{many, word};
use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, local_time, path_object, problem_list, size, some_of, utc_time, with_exit};
use crate::shown::shown;

/// The names of the columns.
const HEAD: &str = "snapshot  began                host                   files      size        stored  paths  [tags]";
/// Paths, hosts or tags that are named before the rest is only counted.
const NAMES_SHOWN: usize = 5;

/// List snapshots.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  drystone snapshots\n  drystone snapshots --host laptop --latest 5")]
pub(crate) struct Snapshots {
    #[command(flatten)]
    filter: Filter,
    /// Only the latest N of these
    #[arg(long, value_name = "N", value_parser = many)]
    latest: Option<usize>,
}

/// Which snapshots are meant.
#[derive(Debug, Args)]
#[group(id = "filter", multiple = true)]
pub(crate) struct Filter {
    /// Only of this host
    #[arg(long, value_name = "NAME", value_parser = word)]
    host: Option<String>,
    /// Only with this tag (repeat: with all of them)
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = word)]
    tag: Vec<String>,
    /// Only snapshots of this path, or of a directory above or below it
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
}

impl Snapshots {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let (mut snapshots, problems) = vault.candidates()?;
        let mut met = Met::default();
        snapshots.retain(|candidate| self.filter.wants(&candidate.snapshot, &mut met));
        for miss in self.filter.misses(&met) {
            app.out.warning(miss);
        }
        let skip = self.latest.map_or(0, |latest| snapshots.len().saturating_sub(latest));
        snapshots.drain(..skip);
        let exit = app.ending(Exit::of_damage(&problems));
        let mut lines = app.out.lines();
        if app.out.is_json() {
            for candidate in &snapshots {
                lines.object("snapshot", signed_fields(&vault, candidate))?;
            }
            let summary = json!({ "snapshots": snapshots.len(), "problems": problem_list(&problems) });
            lines.object("summary", with_exit(summary, exit))?;
            lines.finish()?;
            return Ok(exit);
        }
        if !snapshots.is_empty() {
            app.out.head(&mut lines, HEAD)?;
        }
        for candidate in &snapshots {
            lines.line(row(&vault, candidate))?;
        }
        lines.finish()?;
        if snapshots.is_empty() {
            app.out.note("no snapshots");
        }
        app.out.problems(&problems);
        Ok(exit)
    }
}

/// What a filter has met, so that it can be said what of it matches nothing.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Snapshots, and those of them that were wanted.
    all: u64,
    wanted: u64,
    hosts: BTreeSet<String>,
    tags: BTreeSet<String>,
    /// Whether any is of the path.
    is_of_path: bool,
}

impl Met {
    /// What is said of a tag that no snapshot has.
    pub(crate) fn missing_tag(&self, tag: &str) -> Option<String> {
        let there = match self.tags.is_empty() {
            true => "none has a tag".to_owned(),
            false => format!("there are {}", some_of(&self.tags, NAMES_SHOWN)),
        };
        let missing = !self.tags.contains(tag);
        missing.then(|| format!("no snapshot has the tag `{}`; {there}", shown(tag.as_bytes())))
    }
}

impl Filter {
    /// Whether all that was asked for holds for this one, which `met` counts.
    pub(crate) fn wants(&self, snapshot: &Snapshot, met: &mut Met) -> bool {
        let is_of_path = self.path.as_ref().is_none_or(|path| {
            let path = absolute(path);
            let related = |known: &Vec<u8>| is_under(known, &path) || is_under(&path, known);
            snapshot.paths.iter().any(related)
        });
        met.all += 1;
        met.is_of_path |= is_of_path;
        met.hosts.insert(snapshot.host.clone());
        met.tags.extend(snapshot.tags.iter().cloned());
        let is_wanted = is_of_path
            && self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.tag.iter().all(|tag| snapshot.tags.contains(tag));
        met.wanted += u64::from(is_wanted);
        is_wanted
    }

    /// What of the filter matches none of the snapshots that it was shown; nothing if there were none, or if any matches it all.
    pub(crate) fn misses(&self, met: &Met) -> Vec<String> {
        if met.all == 0 || met.wanted > 0 {
            return Vec::new();
        }
        let mut misses = Vec::new();
        if let Some(host) = self.host.as_ref().filter(|host| !met.hosts.contains(*host)) {
            let (host, there) = (shown(host.as_bytes()), some_of(&met.hosts, NAMES_SHOWN));
            misses.push(format!("no snapshot is of host `{host}`; there are {there}"));
        }
        misses.extend(self.tag.iter().filter_map(|tag| met.missing_tag(tag)));
        if let Some(path) = self.path.as_ref().filter(|_| !met.is_of_path) {
            let path = shown(&absolute(path));
            misses.push(format!("no snapshot is of {path}, or of a directory above or below it"));
        }
        if misses.is_empty() {
            misses.push("no snapshot matches all of these filters together".to_owned());
        }
        misses
    }
}

/// The path from the root, as snapshots have theirs.
fn absolute(path: &OsStr) -> Vec<u8> {
    std::path::absolute(path).map_or_else(|_| path.as_bytes().to_vec(), |path| path.into_os_string().into_vec())
}

/// The paths of a snapshot on one line; of many the first.
pub(crate) fn shown_paths(paths: &[Vec<u8>]) -> String {
    let first: Vec<String> = paths.iter().take(NAMES_SHOWN).map(|path| shown(path)).collect();
    match paths.len().saturating_sub(NAMES_SHOWN) {
        0 => first.join(" "),
        more => format!(
            "{} … and {} (all with --json)",
            first.join(" "),
            counted(more as u64, "more path")
        ),
    }
}

/// Whether `path` is `above` or lies below it.
fn is_under(path: &[u8], above: &[u8]) -> bool {
    let trimmed = above.strip_suffix(b"/").unwrap_or(above);
    path.strip_prefix(trimmed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn row(vault: &Vault, candidate: &Candidate) -> String {
    let Candidate { id, snapshot, .. } = candidate;
    let totals = &snapshot.totals;
    let mut text = format!(
        "{}  {}  {:<10}  {:>16}  {:>8}  {:>8} new  {}",
        id.short(),
        local_time(snapshot.started),
        shown(snapshot.host.as_bytes()),
        counted(totals.files, "file"),
        size(totals.bytes),
        size(totals.stored_bytes),
        shown_paths(&snapshot.paths)
    );
    for tag in &snapshot.tags {
        text.push_str(&format!("  [{}]", shown(tag.as_bytes())));
    }
    if totals.problems > 0 {
        text.push_str(&format!("  ({})", counted(totals.problems, "problem")));
    }
    if candidate.role != Role::Owner {
        text.push_str(&format!(
            "  (by {} key {})",
            candidate.role.word(),
            shown(vault.signer(&candidate.writer).as_bytes())
        ));
    }
    if let Some(why) = contradiction(candidate) {
        text.push_str(&format!("  ({why})"));
    }
    text
}

/// A snapshot and who signed it as JSON.
fn signed_fields(vault: &Vault, candidate: &Candidate) -> Value {
    let mut found = fields(&candidate.id, &candidate.snapshot);
    if let Value::Object(fields) = &mut found {
        fields.insert("signer".to_owned(), json!(vault.signer_name(&candidate.writer)));
        fields.insert("signer_label".to_owned(), json!(vault.signer_label(&candidate.writer)));
        fields.insert("signer_role".to_owned(), json!(candidate.role.word()));
        fields.insert("doubt".to_owned(), json!(contradiction(candidate)));
    }
    found
}

/// A snapshot as JSON.
pub(crate) fn fields(id: &RootId, snapshot: &Snapshot) -> Value {
    let totals = &snapshot.totals;
    json!({
        "id": id.to_string(),
        "started": utc_time(snapshot.started),
        "finished": utc_time(snapshot.finished),
        "host": snapshot.host,
        "user": snapshot.user,
        "paths": snapshot.paths.iter().map(|path| path_object(path)).collect::<Vec<_>>(),
        "tags": snapshot.tags,
        "parent": snapshot.parent.map(|id| id.to_string()),
        "program": snapshot.program,
        "origin": snapshot.origin.map(|origin| json!({
            "vault_id": origin.vault.to_string(),
            "snapshot": origin.snapshot.to_string(),
            "lost": origin.lost,
        })),
        "files": totals.files,
        "dirs": totals.dirs,
        "bytes": totals.bytes,
        "new_bytes": totals.new_bytes,
        "stored_bytes": totals.stored_bytes,
        "problems": totals.problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_paths_the_first_are_shown() {
        let paths = |many: usize| (0..many).map(|at| format!("/{at}").into_bytes()).collect::<Vec<_>>();
        assert_eq!(shown_paths(&paths(5)), "/0 /1 /2 /3 /4");
        assert_eq!(
            shown_paths(&paths(6)),
            "/0 /1 /2 /3 /4 … and 1 more path (all with --json)"
        );
        assert!(shown_paths(&paths(20_000)).contains("19,995 more paths"));
    }

    #[test]
    fn paths_are_related_by_whole_names() {
        assert!(
            is_under(b"/a/b", b"/a") && is_under(b"/a", b"/a") && is_under(b"/a", b"/") && is_under(b"/a/b", b"/a/")
        );
        assert!(!is_under(b"/ab", b"/a") && !is_under(b"/a", b"/a/b"));
    }
}
