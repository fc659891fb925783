//! The directory that a drill restores into, which is gone when it ends.
//!
//! - Made new, for nobody else to look into. It is locked as long as it is in use: one that is not was left by a drill that
//!   was killed, and is removed by the next. What else is beside it is not touched.
//! - Removed whatever its depth with two descriptors: what is a directory is moved up before it is emptied. No name that
//!   was restored is in the way, since those are below [`TREE`].

use std::ffi::OsStr;
use std::fs::{DirBuilder, create_dir_all, rename};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, chmodat, flock, fstatvfs, open, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::local::listing::Lister;
use crate::restore::DIR;

/// What files are restored into, in the directory.
const TREE: &str = "tree";

/// Begins the names of scratch directories.
const IN_USE: &str = "drystone-drill-";
/// Begins the names of those that are kept.
const KEPT: &str = "drystone-drilled-";

/// Makes, and in the end removes, a directory.
pub(crate) struct Scratch {
    into: PathBuf,
    number: u32,
    is_over: bool,
    _lock: OwnedFd,
}

impl Scratch {
    /// A new directory in `into`, which is made if it is missing; `number` tells it from others.
    pub(crate) fn make(into: &Path, number: u32) -> Result<Self> {
        let path = into.join(format!("{IN_USE}{number:08x}"));
        Self::make_at(into, number, &path).map_err(|source| failed(&path, source))
    }

    fn make_at(into: &Path, number: u32, path: &Path) -> io::Result<Self> {
        create_dir_all(into)?;
        // Until the new one is locked, so that nobody takes it for one that was left.
        let making = open(into, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?;
        flock(&making, FlockOperation::LockExclusive)?;
        remove_left(into, &making)?;
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        make(path)?;
        let lock = open(path, DIR, Mode::empty())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let scratch = Self {
            into: into.to_owned(),
            number,
            is_over: false,
            _lock: lock,
        };
        make(&scratch.tree())?;
        Ok(scratch)
    }

    fn path(&self) -> PathBuf {
        self.into.join(format!("{IN_USE}{:08x}", self.number))
    }

    /// The directory to restore into.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path().join(TREE)
    }

    /// The same, open.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        open(self.tree(), DIR, Mode::empty()).map_err(|errno| failed(&self.path(), errno.into()))
    }

    /// [`Error::NoRoom`] unless its file system has room for so many bytes.
    pub(crate) fn require(&self, needed_bytes: u64) -> Result<()> {
        let stat = fstatvfs(self.open()?).map_err(|errno| failed(&self.path(), errno.into()))?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed_bytes <= free_bytes {
            return Ok(());
        }
        Err(Error::NoRoom {
            path: self.path().as_os_str().as_bytes().to_vec(),
            needed_bytes,
            free_bytes,
        })
    }

    /// Leaves what was restored, under another name.
    pub(crate) fn keep(mut self) -> io::Result<PathBuf> {
        let kept = self.into.join(format!("{KEPT}{:08x}", self.number));
        rename(self.path(), &kept)?;
        self.is_over = true;
        Ok(kept.join(TREE))
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(mut self) -> io::Result<()> {
        self.is_over = true;
        Ok(remove(&self.path())?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_over {
            // Only where the drill has failed, which is what is reported.
            let _ = remove(&self.path());
        }
    }
}

/// Whether this is a name that only a drill gives.
fn is_ours(name: &[u8]) -> bool {
    let number = name.strip_prefix(IN_USE.as_bytes()).unwrap_or_default();
    number.len() == 8 && number.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Removes scratch directories that nobody uses.
fn remove_left(into: &Path, dir: &OwnedFd) -> io::Result<()> {
    let (found, listed) = Lister::new().list(dir);
    listed?;
    for (name, _) in (0..found.len()).filter_map(|number| found.get(number)) {
        let path = into.join(OsStr::from_bytes(name));
        if is_ours(name)
            && let Ok(left) = open(&path, DIR, Mode::empty())
            && flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            remove(&path)?;
        }
    }
    Ok(())
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
        let kept = Scratch::make(into.path(), 9).unwrap().keep().unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn what_a_killed_drill_left_is_removed_by_the_next_and_nothing_else_is() {
        let into = tempfile::tempdir().unwrap();
        let is_there = |name: &str| into.path().join(name).exists();
        fs::create_dir_all(into.path().join("drystone-drill-0123abcd/tree/a")).unwrap();
        fs::create_dir_all(into.path().join("drystone-drill-mine/a")).unwrap();
        let kept = Scratch::make(into.path(), 1).unwrap().keep().unwrap();
        assert!(!is_there("drystone-drill-0123abcd") && is_there("drystone-drill-mine/a"));
        let one = Scratch::make(into.path(), 2).unwrap();
        let other = Scratch::make(into.path(), 3).unwrap();
        assert!(one.tree().exists() && other.tree().exists() && kept.exists());
    }
}
