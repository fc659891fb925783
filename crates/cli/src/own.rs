//! The directories that belong to the vault and to caches: never part of a backup, and nothing is restored into them.

use std::fs;
use std::path::Path;

use drystone_backup::OwnDirs;
use drystone_format::VaultId;
use drystone_vault::Vault;

use crate::address;
use crate::context::App;
use crate::exit::{Failure, Result};
use crate::shown::shown_path;

/// The directories of the vault at all of its places, and of everything that is cached.
pub(crate) fn own_dirs(app: &App, vault: &Vault) -> OwnDirs {
    let places = vault.places().iter().map(|place| place.url.clone());
    let named = address::named(&app.settings.vault).into_iter();
    let places = places.chain(named).chain([vault.place().to_owned()]);
    let caches = fs::read_dir(&app.settings.cache_dir).into_iter().flatten().flatten();
    // Not the whole directory, which may be one that holds other things.
    let is_cache = |name: &str| VaultId::from_hex(name).is_some();
    let caches = caches.filter(|entry| entry.file_name().to_str().is_some_and(is_cache));
    let dedup = Some(app.settings.cache_dir.join("dedup")).filter(|dir| dir.join("state").exists());
    let local = places.filter_map(|url| drystone_store::local_dir(&url));
    OwnDirs::of(local.chain(caches.map(|entry| entry.path())).chain(dedup))
}

/// Refuses to write files where the vault or a cache lies.
pub(crate) fn refuse_own(app: &App, vault: &Vault, target: &Path) -> Result<()> {
    if !own_dirs(app, vault).hold(target) {
        return Ok(());
    }
    let message = format!(
        "{}: here lies the vault or its cache; nothing was restored",
        shown_path(target)
    );
    Err(Failure::usage(message).next("name another directory with --target (restore) or --into (drill)"))
}
