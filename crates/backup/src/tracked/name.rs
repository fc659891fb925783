//! Names of runs, and of what they were told: a run takes over only what one of the same names has left.

use std::os::unix::ffi::OsStrExt;

use drystone_vault::Vault;

use crate::cache::{Key, key};
use crate::options::{BackupOptions, OneFileSystem};
use crate::scope::sources::Sources;

/// The name of a run over these sources, on this machine and in the file systems that it tracks.
pub(super) fn name(vault: &Vault, options: &BackupOptions, sources: &Sources) -> Key {
    let cache_dir = vault.context().cache_dir.as_os_str().as_bytes();
    let vault_id = vault.id().to_string();
    let parts: Vec<&[u8]> = [vault_id.as_bytes(), cache_dir, options.host.as_bytes()]
        .into_iter()
        .chain(sources.paths.iter().map(Vec::as_slice))
        .collect();
    key(&parts)
}

pub(super) fn state_key(name: &Key) -> String {
    format!("tracked/{:032x}", u128::from_be_bytes(*name))
}

/// What a run was told, as far as it decides what comes of a directory.
pub(super) fn digest(options: &BackupOptions) -> Key {
    let one_file_system = [u8::from(options.one_file_system == OneFileSystem::Stay)];
    key(&[
        options.filters.digest(),
        &options.names.digest(),
        &options.own.digest(),
        &one_file_system,
        options.program.as_bytes(),
    ])
}
