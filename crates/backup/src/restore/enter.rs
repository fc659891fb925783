//! Entering directories of the target and leaving them with their attributes.
//!
//! - A symbolic link where a directory should be is a problem, never followed and never removed.
//! - A directory's attributes are set when everything in it is done, so that its time stays and its mode is no obstacle.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use drystone_format::tree::Entry;
use rustix::fs::{FileType, Mode, OFlags, Stat, chmod, fchmod, fgetxattr, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::Overwrite;
use super::dir::{DIR, Dir, Ongoing};
use super::tally::{Failure, add};
use super::write::{Work, look, remove};
use crate::apply::{Handle, Now};

/// Mode of a directory while it is being filled: nobody else looks in.
const FILLING: Mode = Mode::RWXU;

/// Whether new entries of this directory get a group or an ACL from it.
pub(super) fn inherits(fd: BorrowedFd<'_>, stat: &Stat) -> bool {
    let mut nothing: [u8; 0] = [];
    stat.st_mode & 0o2000 != 0 || fgetxattr(fd, "system.posix_acl_default", &mut nothing).is_ok_and(|bytes| bytes > 0)
}

impl Work<'_> {
    /// Makes or opens the directory of this entry.
    pub(super) fn enter(&self, parent: &Arc<Ongoing>, entry: Entry) -> Result<Arc<Ongoing>, Failure> {
        let at = self
            .open
            .fd(&parent.dir)
            .map_err(|errno| Failure::io("open its directory", errno))?;
        let name = entry.name.as_slice();
        let make = || mkdirat(&at, name, FILLING);
        let mut is_new = match make() {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(Failure::io("make the directory", errno)),
        };
        let mut opened = openat(&at, name, DIR, Mode::empty());
        if !is_new && matches!(opened, Err(Errno::NOTDIR | Errno::LOOP)) {
            self.clear_way(at.as_fd(), name)?;
            make().map_err(|errno| Failure::io("make the directory", errno))?;
            is_new = true;
            opened = openat(&at, name, DIR, Mode::empty());
        } else if !is_new && matches!(opened, Err(Errno::ACCESS)) {
            opened = open_closed(at.as_fd(), name);
        }
        let fd = opened.map_err(|errno| Failure::io("open the directory", errno))?;
        let mut inherits_here = parent.dir.inherits;
        if !is_new {
            let stat = fstat(&fd).map_err(|errno| Failure::io("look at the directory", errno))?;
            inherits_here = inherits(fd.as_fd(), &stat);
            if self.apply.uid != 0 && stat.st_mode & 0o700 != 0o700 {
                // If it is not ours this fails, and so will what is in it.
                let _ = fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777) | FILLING);
            }
        }
        let dir = self.open.add(&parent.dir, name, fd, inherits_here);
        let keep = !is_new && self.options.overwrite == Overwrite::Never;
        Ok(Arc::new(Ongoing {
            dir,
            entry: (!keep).then_some(entry),
            is_new,
            parent: Some(parent.clone()),
        }))
    }

    /// Removes what stands where a directory should be, if that may be done.
    fn clear_way(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        let stat = look(at, name)?;
        let what = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            "a symbolic link is where this directory should be, and is not followed; remove it and restore again"
        } else if self.options.overwrite == Overwrite::Never {
            "something else is where this directory should be, and is not to be overwritten"
        } else {
            return remove(at, name, &stat);
        };
        Err(Failure::Entry(what.to_owned()))
    }

    /// Lets go of a directory; the last to do so sets its attributes, and so on upwards.
    pub(super) fn release(&self, ongoing: Arc<Ongoing>) {
        let mut next = Some(ongoing);
        while let Some(mut ongoing) = next.and_then(Arc::into_inner) {
            if !self.is_stopped()
                && let Some(entry) = ongoing.entry.take()
            {
                if let Err(failure) = self.leave(&ongoing, &entry) {
                    self.fail(failure, || ongoing.dir.path(b""));
                }
                add(&self.filler.tally.dirs, 1);
            }
            next = ongoing.parent.take();
        }
    }

    fn leave(&self, ongoing: &Ongoing, entry: &Entry) -> Result<(), Failure> {
        let fd = self
            .open
            .fd(&ongoing.dir)
            .map_err(|errno| Failure::io("open the directory", errno))?;
        let stat = fstat(&fd).map_err(|errno| Failure::io("look at the directory", errno))?;
        let mut now = Now::of(&stat);
        now.xattrs = !ongoing.is_new || ongoing.dir.inherits;
        let path = || ongoing.dir.path(b"");
        self.apply
            .set(Handle::Open(fd.as_fd()), now, entry, (self.filler.tally, &path))
            .map_err(|errno| Failure::io("set attributes", errno))
    }
}

/// Opens a directory of ours that we may not read, by letting us.
fn open_closed(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let place = openat(at, name, DIR | OFlags::PATH, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), FILLING)?;
    openat(at, name, DIR, Mode::empty())
}

impl Dir {
    /// The target, which is made if it is not there.
    pub(super) fn target(path: &std::path::Path) -> std::io::Result<Arc<Self>> {
        std::fs::create_dir_all(path)?;
        let fd = rustix::fs::open(path, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let inherits = inherits(fd.as_fd(), &fstat(&fd)?);
        Ok(Self::root(fd, inherits))
    }
}
