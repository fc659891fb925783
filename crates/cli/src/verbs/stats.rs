//! `stats`: sizes and counts of a vault.

use clap::Args;
use drystone_backup::last_drills;
use serde_json::json;

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, size};
use crate::verbs::drill;

/// Show sizes and counts.
#[derive(Debug, Args)]
pub(crate) struct Stats {}

impl Stats {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let stats = vault.stats()?;
        // A writer's key cannot read snapshots.
        let bytes = || -> Result<u64> {
            let (snapshots, _) = vault.snapshots()?;
            Ok(snapshots
                .iter()
                .map(|(_, snapshot)| snapshot.totals.bytes)
                .fold(0, u64::saturating_add))
        };
        let source_bytes = vault.role().may_read().then(bytes).transpose()?;
        let drills = last_drills(&vault)?;
        let stored = stats.data_bytes + stats.meta_bytes + stats.mixed_bytes;
        let fields = json!({
            "vault": vault.place(),
            "vault_id": vault.id().to_string(),
            "snapshots": stats.snapshots,
            "source_bytes": source_bytes,
            "chunks": stats.chunks,
            "chunk_bytes": stats.chunk_bytes,
            "stored_bytes": stored,
            "data_bytes": stats.data_bytes,
            "meta_bytes": stats.meta_bytes,
            "mixed_bytes": stats.mixed_bytes,
            "data_packs": stats.data_packs,
            "meta_packs": stats.meta_packs,
            "mixed_packs": stats.mixed_packs,
            "damaged_packs": stats.damaged_packs,
            "index_bytes": stats.index_bytes,
            "last_drill": drills.last.map(|drilled| drill::recorded(&drilled)),
            "last_sound_drill": drills.last_sound.map(|drilled| drill::recorded(&drilled)),
        });
        let mut text = format!("vault      {}  ({})\n", vault.place(), vault.id());
        let backed_up = source_bytes.map_or(String::new(), |bytes| format!(", {} of files", size(bytes)));
        text += &format!("snapshots  {}{backed_up}\n", counted(stats.snapshots, "snapshot"));
        text += &format!(
            "content    {} in {}\n",
            size(stats.chunk_bytes),
            counted(stats.chunks, "distinct chunk")
        );
        text += &format!(
            "stored     {} in {} ({} of them metadata)",
            size(stored),
            counted(stats.data_packs + stats.meta_packs + stats.mixed_packs, "pack"),
            size(stats.meta_bytes)
        );
        if let (Some(source), true) = (source_bytes, stored > 0) {
            text += &format!("\nratio      {:.1} to 1", source as f64 / stored as f64);
        }
        text += &format!("\nindex      {} on this machine", size(stats.index_bytes));
        if stats.damaged_packs > 0 {
            text += &format!(
                "\ndamaged    {}; see `drystone check`",
                counted(stats.damaged_packs, "pack")
            );
        }
        text += &format!("\ndrill      {}", drill::last(&drills, app.now()));
        app.answer("stats", Exit::Done, fields, text)
    }
}
