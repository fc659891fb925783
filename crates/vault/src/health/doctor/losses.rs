//! What is known to be lost or damaged: which snapshots are hit, and what to do about it.
//!
//! - What a snapshot lacks may still lie where it came from: a backup stores it again. Only when one has been made since the loss was found,
//!   and something still lacks, is giving up the snapshot what is left.
//! - A damaged pack that no snapshot needs is garbage.

use std::collections::BTreeSet;

use drystone_format::PackId;
use drystone_format::snapshot::Snapshot;
use drystone_store::Name;

use super::{Findings, Grade};
use crate::error::Result;
use crate::health::check::CheckOptions;
use crate::roots::kinds::root_path;
use crate::roots::order::Candidate;
use crate::vault::Vault;

impl Vault {
    /// Looks at all snapshots if anything is known to be damaged, or was found gone since the last look.
    /// `lost_packs` is how many cannot be put together. Returns true if snapshots are hit.
    pub(super) fn look_at_losses(
        &self,
        options: &CheckOptions,
        lost_packs: u64,
        findings: &mut Findings,
    ) -> Result<bool> {
        let catalog = self.catalog()?;
        let damaged: BTreeSet<PackId> = catalog.losses.damaged().into_iter().collect();
        let unreadable = catalog.unreadable();
        let noted = catalog.losses.noted()?;
        if damaged.is_empty() && unreadable.is_empty() && noted.is_none() && lost_packs == 0 {
            return Ok(false);
        }
        let damaged = damaged
            .iter()
            .map(|pack| format!("{}: known to be damaged", Name::pack(pack)));
        let known = damaged.chain(unreadable.iter().map(ToString::to_string));
        if !self.role().may_read() {
            for what in known {
                findings.push(Grade::Lost, what, "drystone check, with a key that can read");
            }
            return Ok(true);
        }
        let report = self.check(options)?;
        if report.out_of_reach.is_empty() && report.hit.is_empty() && report.other_hit.is_empty() {
            catalog.losses.clear_noted()?;
        }
        let candidates = self.candidates()?.0;
        for (id, count) in &report.hit {
            let hit = candidates.iter().find(|candidate| candidate.id == *id);
            let what = format!(
                "snapshot {}: {count} of its files and directories cannot be restored whole (drystone check names them)",
                id.short()
            );
            let is_tried = hit.is_some_and(|hit| is_backed_up_since(&hit.snapshot, noted, &candidates));
            let next = match hit {
                Some(hit) if !is_tried => format!("drystone backup {}", arguments(&hit.snapshot)),
                _ => format!("drystone forget {}", id.short()),
            };
            findings.push(Grade::Lost, what, &next);
        }
        for (root, count) in &report.other_hit {
            let what = format!(
                "{} {count} of the things that it keeps cannot be read whole (drystone check names them)",
                String::from_utf8_lossy(&root_path(root))
            );
            findings.push(Grade::Lost, what, "bring it back from a copy of the vault");
        }
        if !report.hit.is_empty() || !report.other_hit.is_empty() {
            // What is known is named by what it costs.
            return Ok(true);
        }
        for what in known {
            match report.out_of_reach.is_empty() {
                true => findings.push(Grade::Owed, format!("{what}; no snapshot needs it"), "drystone gc"),
                false => findings.push(
                    Grade::Owed,
                    what,
                    "bring back the places that are away, then drystone check",
                ),
            }
        }
        Ok(false)
    }
}

/// Returns true if a backup of the same directories of the same machine was made after the loss was found.
fn is_backed_up_since(hit: &Snapshot, noted: Option<i64>, candidates: &[Candidate]) -> bool {
    let is_same = |other: &Snapshot| other.host == hit.host && other.paths == hit.paths;
    let is_later = |other: &Snapshot| noted.is_some_and(|noted| other.started.seconds >= noted);
    candidates
        .iter()
        .any(|one| is_same(&one.snapshot) && is_later(&one.snapshot))
}

/// The directories of a snapshot, as a shell takes them.
fn arguments(snapshot: &Snapshot) -> String {
    let quoted = snapshot.paths.iter().map(|path| {
        let path = String::from_utf8_lossy(path);
        let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+,:@".contains(letter);
        match path.chars().all(is_plain) {
            true => path.into_owned(),
            false => format!("'{}'", path.replace('\'', "'\\''")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
