//! Subvolumes of Btrfs as seen from inside: their generation and flags, and read-only snapshots of one's own.
//!
//! - A [`Snapshot`] removes itself; what a killed process leaves is a subvolume that the caller named and can find.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Error, Result};
use crate::ioctl::{self, u64_at};

/// What a subvolume says about itself, without privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number.
    pub id: u64,
    /// Generation of its last change.
    pub generation: u64,
    /// Generation that it was made in, unless it is the top of its file system. Of a snapshot: everything that its source
    /// has and it has not is of a later one.
    pub made: u64,
    /// Cannot be written.
    pub read_only: bool,
    /// Its identity.
    pub uuid: [u8; 16],
    /// What it is a snapshot of; zeros if it is none.
    pub parent_uuid: [u8; 16],
}

/// The subvolume that a file or directory is in.
pub fn subvolume(fd: BorrowedFd<'_>, name: &str) -> Result<Subvolume> {
    let reply = ioctl::subvolume_info(fd).map_err(|source| Error::kernel("tell its subvolume", name, source))?;
    let uuid = |at: usize| reply.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
    Ok(Subvolume {
        id: u64_at(&reply, 0),
        generation: u64_at(&reply, 280),
        made: u64_at(&reply, 352),
        read_only: u64_at(&reply, 288) & 1 != 0,
        uuid: uuid(296).unwrap_or_default(),
        parent_uuid: uuid(312).unwrap_or_default(),
    })
}

/// Makes an empty subvolume `name` in `directory`.
pub fn create_subvolume(directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let object = || String::from_utf8_lossy(name).into_owned();
    ioctl::create_subvolume(directory, name).map_err(|source| Error::kernel("make the subvolume", object(), source))
}

/// A read-only snapshot that is removed when it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    directory: OwnedFd,
    name: Vec<u8>,
    root: OwnedFd,
}

impl Snapshot {
    /// Makes a read-only snapshot of the subvolume `source` (a descriptor of its root) as `name` in `directory`.
    pub fn create(source: BorrowedFd<'_>, directory: OwnedFd, name: &[u8]) -> Result<Self> {
        let object = || String::from_utf8_lossy(name).into_owned();
        let failed = |during| move |source| Error::kernel(during, object(), source);
        ioctl::snapshot(directory.as_fd(), name, source).map_err(failed("make the snapshot"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&directory, name, flags, Mode::empty()) {
            Ok(root) => Ok(Self {
                directory,
                name: name.to_vec(),
                root,
            }),
            Err(source) => {
                // The first error is the one to tell.
                let _ = ioctl::destroy(directory.as_fd(), name);
                Err(failed("open the snapshot")(source))
            }
        }
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Removes it; the kernel frees its space in the background.
    pub fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let object = || String::from_utf8_lossy(name).into_owned();
        ioctl::destroy(directory, name).map_err(|source| Error::kernel("remove the snapshot", object(), source))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Nobody is left to tell; the name says whose it was.
        let _ = Self::remove(self.directory.as_fd(), &self.name);
    }
}
