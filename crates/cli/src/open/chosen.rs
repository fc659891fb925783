//! What `SNAPSHOT[:PATH]` on the command line means.

use std::ffi::OsString;
use std::sync::atomic::Ordering;

use drystone_backup::Selection;
use drystone_format::RootId;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_vault::{Progress, Reader, Resolved, Vault};

use crate::args::Spot;
use crate::context::App;
use crate::exit::Result;
use crate::output::local_time;
use crate::shown::shown;

/// What `SNAPSHOT[:PATH]` means, ready to be read.
pub(crate) struct Chosen {
    /// Reads the vault.
    pub(crate) reader: Reader,
    /// The snapshot.
    pub(crate) id: RootId,
    /// The files and bytes that are chosen, where the snapshot or the entry says it.
    pub(crate) totals: Option<Totals>,
    /// What of it.
    pub(crate) selection: Selection,
}

/// Returns true if all that was backed up lies below a path, or at it.
fn is_above(path: &[u8], snapshot: &Snapshot) -> bool {
    let is_below = |source: &Vec<u8>| {
        let rest = source.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    path.is_empty() || !snapshot.paths.is_empty() && snapshot.paths.iter().all(is_below)
}

impl Chosen {
    /// Tells whoever shows progress how much is chosen.
    pub(crate) fn expect(&self, progress: &Progress) {
        if let Some(Totals { files, bytes, .. }) = self.totals {
            progress.total_files.store(files, Ordering::Relaxed);
            progress.total_bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

/// Finds a snapshot and a path in it.
pub(crate) fn choose(app: &App, vault: &Vault, spot: &OsString) -> Result<Chosen> {
    let spot = Spot::parse(spot)?;
    let Resolved { id, snapshot, .. } = resolve(app, vault, &spot.snapshot)?;
    let reader = vault.reader()?;
    let selection = Selection::find(&reader, &snapshot, &spot.path)?;
    let totals = match selection.content() {
        Ok(recipe) => Some(Totals {
            files: 1,
            bytes: recipe.size_bytes,
            ..Totals::default()
        }),
        // Everything that was backed up lies below it.
        Err(_) => is_above(selection.path(), &snapshot).then_some(snapshot.totals),
    };
    Ok(Chosen {
        reader,
        id,
        totals,
        selection,
    })
}

/// Finds the snapshot that `text` means, and says which one `latest` is.
pub(crate) fn resolve(app: &App, vault: &Vault, text: &str) -> Result<Resolved> {
    let resolved = vault.resolve(text)?;
    for note in &resolved.notes {
        app.out.warning(note);
    }
    if resolved.is_chosen {
        let Resolved {
            id, snapshot, signer, ..
        } = &resolved;
        app.out.note(format_args!(
            "{text} is {}, {}, of host {}, signed by key {}",
            id.short(),
            local_time(snapshot.started),
            shown(snapshot.host.as_bytes()),
            shown(vault.signer(signer).as_bytes()),
        ));
    }
    Ok(resolved)
}
