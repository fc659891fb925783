//! Where the cache lies: in its directory, or, where that cannot be written, in one that goes with the run.
//!
//! - Everything in a cache can be rebuilt: no command fails for want of one. It takes longer then, and says why.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use drystone_format::VaultId;
use drystone_vault::Entropy;
use rustix::fs::{Access, access, statvfs};

use crate::config::process_environment;
use crate::exit::{Failure, Result};
use crate::output::Output;
use crate::shown::shown_path;

/// Free space below which a cache is not begun, bytes: the index of a small vault, and the file cache of a home.
const ROOM_BYTES: u64 = 16 << 20;
/// Bytes that are written to see whether that is possible.
const PROBE_BYTES: usize = 64 << 10;
/// Where a cache may lie for the time of a run, after the directory that `TMPDIR` names.
const TEMPORARY: &str = "/tmp";
const IN_MEMORY: &str = "/dev/shm";

/// The directories of caches that were asked for, each with the one in use.
#[derive(Default)]
pub(crate) struct CacheDirs(Mutex<Vec<Chosen>>);

struct Chosen {
    wanted: PathBuf,
    used: PathBuf,
}

impl Chosen {
    fn is_temporary(&self) -> bool {
        self.used != self.wanted
    }
}

impl CacheDirs {
    /// The directory to use where `wanted` was asked for. `vaults` says which vaults are to be opened, if that matters.
    pub(crate) fn choose(
        &self,
        wanted: &Path,
        vaults: &dyn Fn() -> Vec<VaultId>,
        (entropy, out): (&dyn Entropy, Output),
    ) -> Result<PathBuf> {
        let Ok(mut all) = self.0.lock() else {
            return Ok(wanted.to_owned());
        };
        if let Some(chosen) = all.iter().find(|chosen| chosen.wanted == wanted) {
            return Ok(chosen.used.clone());
        }
        let used = match probe(wanted).and_then(|()| probe_vaults(wanted, vaults)) {
            Ok(()) => wanted.to_owned(),
            Err(error) => {
                let used = temporary(entropy).map_err(|_| {
                    Failure::io("the cache cannot be written", wanted, &error)
                        .next("name another directory: --cache-dir DIR")
                })?;
                let (from, to) = (shown_path(wanted), shown_path(&used));
                out.warning(format_args!(
                    "{from}: the cache cannot be written: {error}; this run takes longer, with a cache of its own in {to}; \
                     name another directory with --cache-dir"
                ));
                used
            }
        };
        all.push(Chosen {
            wanted: wanted.to_owned(),
            used: used.clone(),
        });
        Ok(used)
    }

    /// Whether any cache goes with the run.
    pub(crate) fn any_temporary(&self) -> bool {
        self.0.lock().is_ok_and(|all| all.iter().any(Chosen::is_temporary))
    }
}

impl Drop for CacheDirs {
    fn drop(&mut self) {
        let Ok(all) = self.0.get_mut() else { return };
        for chosen in all.iter().filter(|chosen| chosen.is_temporary()) {
            // Best effort: nothing in it is of any use, and nobody else finds it.
            let _ = fs::remove_dir_all(&chosen.used);
        }
    }
}

/// Whether a cache can be written in this directory, which is made.
fn probe(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let free = statvfs(dir)?;
    if free.f_bavail.saturating_mul(free.f_frsize) < ROOM_BYTES {
        let why = format!("less than {} MiB are free", ROOM_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    let path = dir.join(format!("probe-{}", std::process::id()));
    let written = File::create(&path).and_then(|mut file| file.write_all(&[0; PROBE_BYTES]));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Whether what is cached of these vaults already can be written.
fn probe_vaults(dir: &Path, vaults: &dyn Fn() -> Vec<VaultId>) -> io::Result<()> {
    let mut closed = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let vault = entry.file_name().to_str().and_then(VaultId::from_hex);
        if let (Some(vault), Err(error)) = (vault, probe_files(&entry.path())) {
            closed.push((vault, error));
        }
    }
    if closed.is_empty() {
        return Ok(());
    }
    let vaults = vaults();
    let closed = closed.into_iter().find(|(vault, _)| vaults.contains(vault));
    closed.map_or(Ok(()), |(_, error)| Err(error))
}

/// Whether everything in this directory can be read and written, at any depth.
fn probe_files(dir: &Path) -> io::Result<()> {
    access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let probed = match entry.file_type()?.is_dir() {
            true => probe_files(&path),
            false => access(&path, Access::READ_OK | Access::WRITE_OK).map_err(io::Error::from),
        };
        // What is not there any more, another run has removed.
        probed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

/// A new directory that nobody else can enter.
fn temporary(entropy: &dyn Entropy) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    entropy.fill(&mut random);
    let name = format!("drystone-cache-{:016x}", u64::from_le_bytes(random));
    let mut failed = io::ErrorKind::NotFound.into();
    let asked = process_environment("TMPDIR")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    for base in asked.into_iter().chain([TEMPORARY, IN_MEMORY].map(PathBuf::from)) {
        let dir = base.join(&name);
        let made = DirBuilder::new().mode(0o700).create(&dir);
        match made.and_then(|()| probe(&dir)) {
            Ok(()) => return Ok(dir),
            Err(error) => failed = error,
        }
        let _ = fs::remove_dir(&dir);
    }
    Err(failed)
}
