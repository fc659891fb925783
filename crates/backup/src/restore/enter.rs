//! Entering directories of the target and leaving them with their attributes.
//!
//! - A symbolic link where a directory should be is a problem, never followed and never removed.
//! - A directory's attributes are set when everything in it is done, so that its time stays and its mode is no obstacle.
//! - A directory that was there keeps what it has, if nothing is to be overwritten or if what was stored was made up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use drystone_format::tree::{Entry, Marks};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, chmod, fchmod, fgetxattr, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::before::Before;
use super::dir::{DIR, Dir, Ongoing};
use super::options::Overwrite;
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
        if !is_new {
            parent.dir.refuse_folded(at.as_fd(), name)?;
        }
        let mut opened = open(at.as_fd(), name);
        if !is_new && matches!(opened, Err(Errno::NOTDIR | Errno::LOOP)) {
            self.clear_way(at.as_fd(), name)?;
            make().map_err(|errno| Failure::io("make the directory", errno))?;
            is_new = true;
            opened = open(at.as_fd(), name);
        }
        let (fd, stat) = opened.map_err(|errno| Failure::io("open the directory", errno))?;
        let inherits = if is_new {
            parent.dir.inherits
        } else {
            inherits(fd.as_fd(), &stat)
        };
        let dir = self.open.add(&parent.dir, name, fd, (inherits, is_new));
        Ok(self.ongoing(dir, &stat, Some(entry), Some(parent.clone())))
    }

    /// Begins to fill a directory that is open, and had `stat` before.
    pub(super) fn ongoing(
        &self,
        dir: Arc<Dir>,
        stat: &Stat,
        entry: Option<Entry>,
        parent: Option<Arc<Ongoing>>,
    ) -> Arc<Ongoing> {
        if let Some(flaw) = entry.as_ref().and_then(Entry::flaw) {
            self.filler.tally.incomplete(dir.path(b""), flaw);
        }
        let is_made_up = entry.as_ref().is_some_and(|entry| entry.marks.has(Marks::MADE_UP));
        let is_kept = !dir.is_new && (is_made_up || self.options.overwrite == Overwrite::Never);
        let is_closed = !dir.is_new && self.apply.uid != 0 && stat.st_mode & 0o700 != 0o700;
        let before = match (is_kept, is_closed) {
            (true, _) => Some(Before::all(stat)),
            (false, true) => Some(Before::mode(stat)),
            (false, false) => None,
        };
        let before = before.map(|before| self.befores.note(&dir, before));
        if is_closed && let Ok(fd) = self.open.fd(&dir) {
            // If it is not ours this fails, and so will what is in it.
            let _ = fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777) | FILLING);
        }
        Arc::new(Ongoing {
            dir,
            entry: entry.filter(|_| !is_kept),
            before,
            parent,
        })
    }

    /// Removes what stands where a directory should be, if that may be done.
    fn clear_way(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        let stat = look(at, name)?;
        let what = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            "a symbolic link is where this directory should be, and is not followed; to restore into the directory that it \
             leads to, restore this directory alone: drystone restore SNAPSHOT:PATH --target DIR"
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
            ongoing.dir.forget_names();
            let before = ongoing.before.and_then(|number| self.befores.take(number));
            let entry = ongoing.entry.take().filter(|_| !self.is_stopped());
            let left = match (&entry, before) {
                (Some(entry), _) => self.leave(&ongoing, entry),
                (None, Some(before)) => self.give_back(&ongoing, before),
                (None, None) => Ok(()),
            };
            if let Err(failure) = left {
                self.fail(failure, || ongoing.dir.path(b""));
            }
            add(&self.filler.tally.dirs, entry.is_some().into());
            next = ongoing.parent.take();
        }
    }

    fn leave(&self, ongoing: &Ongoing, entry: &Entry) -> Result<(), Failure> {
        let fd = self.open_dir(&ongoing.dir)?;
        let stat = fstat(&fd).map_err(|errno| Failure::io("look at the directory", errno))?;
        let mut now = Now::of(&stat);
        now.xattrs = !ongoing.dir.is_new || ongoing.dir.inherits;
        let path = || ongoing.dir.path(b"");
        self.apply
            .set(Handle::Open(fd.as_fd()), now, entry, (self.filler.tally, &path))
            .map_err(|errno| Failure::io("set attributes", errno))
    }

    fn give_back(&self, ongoing: &Ongoing, before: Before) -> Result<(), Failure> {
        let fd = self.open_dir(&ongoing.dir)?;
        match before.give_back(fd.as_fd()) {
            // Not ours, so nothing of it was changed but its time.
            Err(Errno::PERM) => Ok(()),
            given => given.map_err(|errno| Failure::io("give the directory its mode and time back", errno)),
        }
    }
}

/// Opens a directory, also one of ours that we may not read; gives what it was like before.
fn open(at: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    match openat(at, name, DIR, Mode::empty()) {
        Ok(fd) => {
            let stat = fstat(&fd)?;
            Ok((fd, stat))
        }
        Err(Errno::ACCESS) => {
            let place = openat(at, name, DIR | OFlags::PATH, Mode::empty())?;
            let (stat, path) = (fstat(&place)?, format!("/proc/self/fd/{}", place.as_raw_fd()));
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            // Without /proc there is no way to it.
            chmod(&*path, mode | FILLING).map_err(|_| Errno::ACCESS)?;
            match openat(at, name, DIR, Mode::empty()) {
                Ok(fd) => Ok((fd, stat)),
                Err(errno) => {
                    // The error that is told is the first.
                    let _ = chmod(&*path, mode);
                    Err(errno)
                }
            }
        }
        Err(errno) => Err(errno),
    }
}

impl Dir {
    /// The target, which is made if it is not there, and what it was like before.
    pub(super) fn target(path: &Path) -> std::io::Result<(Arc<Self>, Stat)> {
        let is_new = !path.exists();
        std::fs::create_dir_all(path)?;
        // Its own path may contain links.
        let path = std::fs::canonicalize(path)?;
        let (fd, stat) = open(CWD, path.as_os_str().as_encoded_bytes())?;
        let inherits = inherits(fd.as_fd(), &stat);
        Ok((Self::root(fd, (inherits, is_new)), stat))
    }
}
