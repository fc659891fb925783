//! Where the snapshots that runs read lie: a subvolume of their own at the top of the file system, closed to everybody but root.
//!
//! - What a killed run left is removed by the next: a snapshot that is in use is locked by the process that reads it.
//! - The subvolume stays, so that neither making nor removing a snapshot changes any directory that could be backed up.
//!   It is itself never part of a backup.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use drystone_extents::items::tree;
use drystone_extents::{Btrfs, Snapshot, create_subvolume};
use rustix::fs::{Dir, FlockOperation, Mode, OFlags, XattrFlags, fchmod, fgetxattr, flock, fsetxattr, fstat, openat};
use rustix::io::Errno;

use crate::cache::Key;

/// Its name.
pub(crate) const NAME: &[u8] = b".drystone-backup";
/// Number of the directory that a subvolume begins with.
pub(crate) const FIRST_INODE: u64 = 256;

/// The open subvolume.
#[derive(Debug)]
pub(crate) struct Home(OwnedFd);

/// Why there is none, in words.
pub(crate) type Result<T> = std::result::Result<T, String>;

fn failed(what: &'static str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {}", std::io::Error::from(error))
}

fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

impl Home {
    /// Opens it, and makes it if need be.
    pub(crate) fn open(fs: &Btrfs) -> Result<Self> {
        let top = fs
            .open_file(tree::TOP, FIRST_INODE)
            .map_err(|error| error.to_string())?;
        let dir = match open_dir(top.as_fd(), NAME) {
            Err(Errno::NOENT) => {
                create_subvolume(top.as_fd(), NAME).map_err(|error| error.to_string())?;
                open_dir(top.as_fd(), NAME)
            }
            other => other,
        };
        let dir = dir.map_err(failed("the place for snapshots, .drystone-backup, cannot be opened"))?;
        let stat = fstat(&dir).map_err(failed("the place for snapshots cannot be looked at"))?;
        if stat.st_ino != FIRST_INODE || stat.st_uid != 0 {
            return Err(
                "at the top of the file system is a .drystone-backup that is no subvolume of root's".to_owned(),
            );
        }
        fchmod(&dir, Mode::RWXU).map_err(failed("the place for snapshots cannot be closed to others"))?;
        Ok(Self(dir))
    }

    /// A read-only snapshot of the subvolume that `source` is the root of.
    pub(crate) fn snapshot(&self, source: BorrowedFd<'_>, name: &str) -> Result<Snapshot> {
        flock(&self.0, FlockOperation::LockExclusive).map_err(failed("the place for snapshots cannot be locked"))?;
        self.remove_left_over();
        let made = self.0.try_clone().map_err(|error| error.to_string()).and_then(|dir| {
            let snapshot = Snapshot::create(source, dir, name.as_bytes()).map_err(|error| error.to_string())?;
            let locked = flock(snapshot.root(), FlockOperation::NonBlockingLockExclusive);
            locked.map_err(failed("the snapshot cannot be locked"))?;
            Ok(snapshot)
        });
        // Held no longer than the descriptor in any case.
        let _ = flock(&self.0, FlockOperation::Unlock);
        made
    }

    /// Removes the snapshots that nobody reads any more. What cannot be removed is tried again by the next run.
    fn remove_left_over(&self) {
        let Ok(names) = Dir::read_from(&self.0) else { return };
        for name in names.flatten() {
            let name = name.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let Ok(snapshot) = open_dir(self.0.as_fd(), name) else {
                continue;
            };
            if flock(&snapshot, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = Snapshot::remove(self.0.as_fd(), name);
            }
        }
    }

    /// What the last run wrote down here; `None` if it, or the file system, was another one.
    pub(crate) fn token(&self, of: &Key) -> Option<Key> {
        let mut token = Key::default();
        let length = fgetxattr(&self.0, &*xattr(of), &mut token).ok()?;
        (length == token.len()).then_some(token)
    }

    /// Writes it down.
    pub(crate) fn set_token(&self, of: &Key, token: &Key) -> rustix::io::Result<()> {
        fsetxattr(&self.0, &*xattr(of), token, XattrFlags::empty())
    }
}

fn xattr(of: &Key) -> String {
    format!("trusted.drystone.{:032x}", u128::from_be_bytes(*of))
}
