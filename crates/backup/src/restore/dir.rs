//! Directories of the target: opened from their parent, never through a symbolic link, and closed when there are many.
//!
//! - Every step goes from a directory's descriptor to a name in it, so nothing outside the target is reached.
//! - At most [`OPEN_DIRS`] descriptors are kept; a closed one is opened again along its parents.
//! - A directory gets its attributes when the last thing in it is done.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use drystone_format::tree::Entry;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, Result};

use super::tally::Failure;
use crate::local::descriptors::for_restore;

/// Descriptors kept for directories, where so many may be open.
const OPEN_DIRS: usize = 256;

/// The reason given where the file system folds names.
const FOLDED: &str = "the file system of the target takes this name for another one that is there already (as some take `Name` for \
                      `name`), so it was not restored; restore it alone into another directory";

/// How directories are opened.
pub(crate) const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Where a directory of the target is.
pub(crate) struct Dir {
    parent: Option<Arc<Self>>,
    name: Vec<u8>,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// New entries get a group or an ACL from it, so that they must be corrected.
    pub(crate) inherits: bool,
    /// It was made by this run: so was whatever is in it.
    pub(crate) is_new: bool,
    names: Mutex<Option<Names>>,
}

/// The names in a directory at one time, as hashes: 16 bytes each, whatever their length.
struct Names {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Names {
    /// Bytes of entries asked for at once.
    const BUFFER_BYTES: usize = 32 << 10;

    fn list(at: BorrowedFd<'_>) -> Result<Self> {
        // Opened anew: the position in the list is that of an open file.
        let dir = openat(at, c".", DIR, Mode::empty())?;
        let (hasher, mut hashes) = (RandomState::new(), HashSet::new());
        let mut buffer = [MaybeUninit::uninit(); Self::BUFFER_BYTES];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            hashes.insert(hasher.hash_one(entry?.file_name().to_bytes()));
        }
        Ok(Self { hasher, hashes })
    }
}

/// The directories whose descriptors are open, oldest first.
#[derive(Default)]
pub(crate) struct OpenDirs(Mutex<VecDeque<Weak<Dir>>>);

impl OpenDirs {
    fn keep(&self, dir: &Arc<Dir>, fd: Arc<OwnedFd>) {
        *dir.fd.lock() = Some(fd);
        let mut open = self.0.lock();
        open.push_back(Arc::downgrade(dir));
        let oldest = if open.len() > for_restore(OPEN_DIRS) {
            open.pop_front()
        } else {
            None
        };
        drop(open);
        if let Some(oldest) = oldest.and_then(|dir| dir.upgrade()) {
            oldest.fd.lock().take();
        }
    }

    /// The directory `name` in `parent`, which is open as `fd`.
    pub(crate) fn add(
        &self,
        parent: &Arc<Dir>,
        name: &[u8],
        fd: OwnedFd,
        (inherits, is_new): (bool, bool),
    ) -> Arc<Dir> {
        let dir = Arc::new(Dir {
            parent: Some(parent.clone()),
            name: name.to_vec(),
            fd: Mutex::new(None),
            inherits,
            is_new,
            names: Mutex::new(None),
        });
        self.keep(&dir, Arc::new(fd));
        dir
    }

    /// A descriptor of `dir`.
    pub(crate) fn fd(&self, dir: &Arc<Dir>) -> Result<Arc<OwnedFd>> {
        let (mut closed, mut at) = (Vec::new(), dir.clone());
        let mut fd = loop {
            if let Some(fd) = at.fd.lock().clone() {
                break fd;
            }
            let parent = at.parent.clone().ok_or(Errno::BADF)?;
            closed.push(std::mem::replace(&mut at, parent));
        };
        while let Some(dir) = closed.pop() {
            fd = Arc::new(openat(&fd, dir.name.as_slice(), DIR, Mode::empty())?);
            self.keep(&dir, fd.clone());
        }
        Ok(fd)
    }
}

impl Dir {
    /// The target itself, which stays open.
    pub(crate) fn root(fd: OwnedFd, (inherits, is_new): (bool, bool)) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Vec::new(),
            fd: Mutex::new(Some(Arc::new(fd))),
            inherits,
            is_new,
            names: Mutex::new(None),
        })
    }

    /// Refuses what is there under `name` if it has another name that the file system takes for the same, such as `Name` for
    /// `name`. `at` is the descriptor of this directory.
    ///
    /// In a directory that this run has made, whatever is there has another name: no name is restored twice.
    pub(crate) fn refuse_folded(&self, at: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<(), Failure> {
        match !self.is_new && self.has_exactly(at, name)? {
            true => Ok(()),
            false => Err(Failure::Entry(FOLDED.to_owned())),
        }
    }

    fn has_exactly(&self, at: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<bool, Failure> {
        let mut names = self.names.lock();
        if names.is_none() {
            let listed = Names::list(at).map_err(|errno| Failure::io("list its directory", errno))?;
            *names = Some(listed);
        }
        Ok(names
            .as_ref()
            .is_some_and(|names| names.hashes.contains(&names.hasher.hash_one(name))))
    }

    /// Lets go of what [`refuse_folded`](Self::refuse_folded) has listed: nothing more is put into it.
    pub(crate) fn forget_names(&self) {
        self.names.lock().take();
    }

    /// Path of `name` in it, relative to the target.
    pub(crate) fn path(&self, name: &[u8]) -> Vec<u8> {
        let (mut names, mut at) = (vec![name], Some(self));
        while let Some(dir) = at {
            names.push(&dir.name);
            at = dir.parent.as_deref();
        }
        names.retain(|name| !name.is_empty());
        names.reverse();
        names.join(&b'/')
    }
}

impl Drop for Dir {
    /// Lets go of the parents one by one, since a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut dir) = next.and_then(Arc::into_inner) {
            next = dir.parent.take();
        }
    }
}

/// A directory that is being filled.
pub(crate) struct Ongoing {
    pub(crate) dir: Arc<Dir>,
    /// Its attributes, which are set in the end; none for a target that is only a place to put things.
    pub(crate) entry: Option<Entry>,
    /// The number under which it is known what it was like before, if it stays so.
    pub(crate) before: Option<u64>,
    pub(crate) parent: Option<Arc<Self>>,
}

impl Drop for Ongoing {
    /// As for [`Dir`]; without setting attributes, which is [`super::write::Work::release`]'s.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut ongoing) = next.and_then(Arc::into_inner) {
            next = ongoing.parent.take();
        }
    }
}
