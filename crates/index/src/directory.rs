//! The directory is the manifest: which runs exist is what it lists; the only place that creates, renames and removes them.
//!
//! - A run appears whole, by rename; its draft is locked by its writer, so that leftovers of the dead can be told and removed.
//! - `swap.lock` is held alone while a merge replaces runs, and shared while a process lists and opens them: nobody sees
//!   half of a replacement. `merge.lock` is held by the one process that merges. Both are released by the kernel at exit.
//! - A crash between appearance and removal leaves packs in two runs; the next merge makes one of them.
//! - Nothing is synced: after a power cut a run may be missing or torn, which its checksums show.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// Suffix of runs, with the version of their layout; runs of later versions are left alone.
const RUN_SUFFIX: &str = ".run2";
/// Suffix of a run that is being written.
const DRAFT_SUFFIX: &str = ".run2-draft";
/// Suffixes of runs of earlier layouts, which nothing reads any more: they are removed, since only their space counts.
const EARLIER_RUN_SUFFIXES: [&str; 1] = [".run1"];
/// Suffixes of drafts of earlier layouts.
const EARLIER_DRAFT_SUFFIXES: [&str; 1] = [".run1-draft"];

/// A directory of runs.
pub(crate) struct Directory {
    path: PathBuf,
    next: AtomicU64,
}

/// A lock that is held until it is dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Tells files apart even if their names are used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A run in the making; removed when it is dropped unpublished.
pub(crate) struct Draft {
    file: Option<File>,
    draft: PathBuf,
    run: PathBuf,
}

impl Directory {
    /// Opens or creates the directory, for its owner only, and removes what dead processes and earlier layouts left behind.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::io(path, "create", source))?;
        let directory = Self {
            path: path.to_owned(),
            next: AtomicU64::new(0),
        };
        directory.remove_leftovers()?;
        Ok(directory)
    }

    /// Waits until no process replaces runs, and keeps them from it.
    pub(crate) fn lock_for_listing(&self) -> Result<Lock> {
        let file = self.lock_file("swap.lock")?;
        self.lock(file, FlockOperation::LockShared)
    }

    /// Waits until no process lists runs, and keeps them from it; held for a few system calls only.
    pub(crate) fn lock_for_replacing(&self) -> Result<Lock> {
        let file = self.lock_file("swap.lock")?;
        self.lock(file, FlockOperation::LockExclusive)
    }

    /// The right to merge, unless somebody has it.
    pub(crate) fn try_lock_for_merging(&self) -> Result<Option<Lock>> {
        let file = self.lock_file("merge.lock")?;
        match self.lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Paths of all runs; whole only under a lock.
    pub(crate) fn runs(&self) -> Result<Vec<PathBuf>> {
        self.files_with(RUN_SUFFIX)
    }

    /// Starts a run under a name that no other run has.
    pub(crate) fn draft(&self) -> Result<Draft> {
        let _lock = self.lock_for_listing()?;
        loop {
            let name = format!("{}-{}", process::id(), self.next.fetch_add(1, Ordering::Relaxed));
            let draft = self.path.join(format!("{name}{DRAFT_SUFFIX}"));
            let run = self.path.join(format!("{name}{RUN_SUFFIX}"));
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft);
            let file = match options {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io(draft, "create", error)),
            };
            let draft = Draft {
                file: Some(file),
                draft,
                run,
            };
            flock(draft.file()?, FlockOperation::NonBlockingLockExclusive)
                .map_err(|source| Error::io(&draft.draft, "lock", source))?;
            // An earlier process of this number may have left a run of this name; only who has the draft may take it.
            if !draft.run.exists() {
                return Ok(draft);
            }
        }
    }

    fn remove_leftovers(&self) -> Result<()> {
        let _lock = self.lock_for_replacing()?;
        for suffix in EARLIER_RUN_SUFFIXES {
            self.files_with(suffix)?.iter().try_for_each(|path| remove(path))?;
        }
        for suffix in [DRAFT_SUFFIX].into_iter().chain(EARLIER_DRAFT_SUFFIXES) {
            self.remove_dead_drafts(suffix)?;
        }
        Ok(())
    }

    /// Removes drafts whose writer lives no more, which is to say whose lock is free.
    fn remove_dead_drafts(&self, suffix: &str) -> Result<()> {
        for path in self.files_with(suffix)? {
            match File::open(&path) {
                Ok(file) if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() => remove(&path)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(path, "open", error)),
            }
        }
        Ok(())
    }

    fn files_with(&self, suffix: &str) -> Result<Vec<PathBuf>> {
        let failed = |source| Error::io(&self.path, "list", source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().ends_with(suffix.as_bytes()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        let options = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        options.map_err(|source| Error::io(path, "open", source))
    }

    fn lock(&self, file: File, operation: FlockOperation) -> Result<Lock> {
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(source) => return Err(Error::io(&self.path, "lock", source)),
            }
        }
    }
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "remove", error)),
        _ => Ok(()),
    }
}

impl Identity {
    /// What is at this path now.
    pub(crate) fn of(path: &Path, file: &File) -> Result<Self> {
        let metadata = file.metadata().map_err(|source| Error::io(path, "examine", source))?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether the file is still what its path names. While it is open, its inode cannot be used again.
    pub(crate) fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Draft {
    /// The file to write.
    pub(crate) fn file(&self) -> Result<&File> {
        let gone = || Error::io(&self.draft, "write", io::Error::from(io::ErrorKind::NotFound));
        self.file.as_ref().ok_or_else(gone)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.draft
    }

    /// Makes the run appear.
    pub(crate) fn publish(mut self) -> Result<(File, Identity)> {
        fs::rename(&self.draft, &self.run).map_err(|source| Error::io(&self.draft, "rename", source))?;
        let identity = Identity::of(&self.run, self.file()?)?;
        match self.file.take() {
            Some(file) => Ok((file, identity)),
            None => Err(Error::io(
                &self.draft,
                "write",
                io::Error::from(io::ErrorKind::NotFound),
            )),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Best effort: the next process to open the directory removes what stays.
            let _ = fs::remove_file(&self.draft);
        }
    }
}
