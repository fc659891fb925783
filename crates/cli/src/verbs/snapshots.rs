//! `snapshots`: lists what was backed up, oldest first.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_format::snapshot::Snapshot;
use drystone_vault::Vault;
use drystone_vault::order::{Candidate, contradiction};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{count, counted, local_time, path_object, problem_list, shown, size, utc_time, with_exit};

/// List snapshots.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  drystone snapshots\n  drystone snapshots --host laptop --latest 5")]
pub(crate) struct Snapshots {
    #[command(flatten)]
    filter: Filter,
    /// Only the latest N of these
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
}

/// Which snapshots are meant.
#[derive(Debug, Args)]
#[group(id = "filter", multiple = true)]
pub(crate) struct Filter {
    /// Only of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only with this tag (repeat: with all of them)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only those that this path was given to, or lies above or below one that was
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
}

impl Snapshots {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let (mut snapshots, problems) = vault.candidates()?;
        snapshots.retain(|candidate| self.filter.wants(&candidate.snapshot));
        let skip = self.latest.map_or(0, |latest| snapshots.len().saturating_sub(latest));
        snapshots.drain(..skip);
        let exit = Exit::of_damage(&problems);
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

impl Filter {
    /// Whether all that was asked for holds for this one.
    pub(crate) fn wants(&self, snapshot: &Snapshot) -> bool {
        let related = |path: &[u8]| {
            snapshot
                .paths
                .iter()
                .any(|known| is_under(known, path) || is_under(path, known))
        };
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.tag.iter().all(|tag| snapshot.tags.contains(tag))
            && self.path.as_ref().is_none_or(|path| related(path.as_bytes()))
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
    let paths: Vec<String> = snapshot.paths.iter().map(|path| shown(path)).collect();
    let mut text = format!(
        "{}  {}  {:<10}  {:>10} files  {:>8}  {:>8} new  {}",
        id.short(),
        local_time(snapshot.started),
        shown(snapshot.host.as_bytes()),
        count(totals.files),
        size(totals.bytes),
        size(totals.stored_bytes),
        paths.join(" ")
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
    fn paths_are_related_by_whole_names() {
        assert!(
            is_under(b"/a/b", b"/a") && is_under(b"/a", b"/a") && is_under(b"/a", b"/") && is_under(b"/a/b", b"/a/")
        );
        assert!(!is_under(b"/ab", b"/a") && !is_under(b"/a", b"/a/b"));
    }
}
