//! The directory that a drill restores into, which is gone when it ends.
//!
//! - Made new, for nobody else to look into; what else is beside it is not touched.
//! - Removed whatever its depth with two descriptors: what is a directory is moved up before it is emptied. No name that
//!   was restored is in the way, since those are below [`TREE`].

use std::fs::{DirBuilder, create_dir_all};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, chmodat, fstatvfs, open, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::listing::Lister;
use crate::restore::DIR;

/// What files are restored into, in the directory.
const TREE: &str = "tree";

/// Makes, and in the end removes, a directory.
pub(crate) struct Scratch {
    path: PathBuf,
    is_kept: bool,
}

impl Scratch {
    /// A new directory in `into`, which is made if it is missing; `number` tells it from others.
    pub(crate) fn make(into: &Path, number: u32) -> Result<Self> {
        let path = into.join(format!("drystone-drill-{number:08x}"));
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        create_dir_all(into)
            .and_then(|()| make(&path))
            .map_err(|source| failed(&path, source))?;
        let scratch = Self { path, is_kept: false };
        make(&scratch.tree()).map_err(|source| failed(&scratch.path, source))?;
        Ok(scratch)
    }

    /// The directory to restore into.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// The same, open.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        open(self.tree(), DIR, Mode::empty()).map_err(|errno| failed(&self.path, errno.into()))
    }

    /// [`Error::NoRoom`] unless its file system has room for so many bytes.
    pub(crate) fn require(&self, needed_bytes: u64) -> Result<()> {
        let stat = fstatvfs(self.open()?).map_err(|errno| failed(&self.path, errno.into()))?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed_bytes <= free_bytes {
            return Ok(());
        }
        Err(Error::NoRoom {
            path: self.path.as_os_str().as_bytes().to_vec(),
            needed_bytes,
            free_bytes,
        })
    }

    /// Leaves what was restored where it is.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.tree()
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(mut self) -> io::Result<()> {
        self.is_kept = true;
        Ok(remove(&self.path)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept {
            // Only where the drill has failed, which is what is reported.
            let _ = remove(&self.path);
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Target {
        path: path.as_os_str().as_bytes().to_vec(),
        source,
    }
}

fn remove(path: &Path) -> Result<(), Errno> {
    let (root, mut lister, mut moved) = (open(path, DIR, Mode::empty())?, Lister::new(), 0u64);
    loop {
        // Opened anew, since a list begins where the last one ended.
        let (found, result) = lister.list(&open(path, DIR, Mode::empty())?);
        if found.len() == 0 {
            if let Err(error) = result {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            return unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
        for (name, _) in (0..found.len()).filter_map(|number| found.get(number)) {
            if !is_dir(&root, name)? {
                unlinkat(&root, name, AtFlags::empty())?;
                continue;
            }
            chmodat(&root, name, Mode::RWXU, AtFlags::empty())?;
            let dir = rustix::fs::openat(&root, name, DIR, Mode::empty())?;
            empty(&root, &dir, &mut lister, &mut moved)?;
            unlinkat(&root, name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Empties `dir`: what is a directory in it comes to `root`.
fn empty(root: &OwnedFd, dir: &OwnedFd, lister: &mut Lister, moved: &mut u64) -> Result<(), Errno> {
    let (found, _) = lister.list(dir);
    for (name, _) in (0..found.len()).filter_map(|number| found.get(number)) {
        if is_dir(dir, name)? {
            // To be moved it must be writable: its `..` changes.
            chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            *moved += 1;
            renameat(dir, name, root, format!("{moved}"))?;
        } else {
            unlinkat(dir, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn is_dir(dir: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn trees_of_any_depth_and_mode_are_removed() {
        let into = tempfile::tempdir().unwrap();
        fs::write(into.path().join("beside"), "x").unwrap();
        let scratch = Scratch::make(into.path(), 7).unwrap();
        scratch.require(1).unwrap();
        assert!(matches!(scratch.require(u64::MAX), Err(Error::NoRoom { .. })));
        let mut at = scratch.open().unwrap();
        for depth in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", DIR, Mode::empty()).unwrap();
            if depth % 1000 == 0 {
                rustix::fs::symlinkat("/", &at, "link").unwrap();
                rustix::fs::mkdirat(&at, "closed", Mode::empty()).unwrap();
            }
        }
        fs::write(scratch.tree().join("1"), "a name like one of ours").unwrap();
        fs::set_permissions(scratch.tree().join("d"), fs::Permissions::from_mode(0o500)).unwrap();
        scratch.remove().unwrap();
        let left: Vec<_> = fs::read_dir(into.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["beside"]);
        drop(Scratch::make(into.path(), 8).unwrap());
        assert!(!into.path().join("drystone-drill-00000008").exists());
        let kept = Scratch::make(into.path(), 9).unwrap().keep();
        assert!(kept.exists());
    }
}
