//! The order of fsync and rename on a local file system: the only place where it is decided.
//!
//! - An object is written to `tmp/`, synced, renamed without replacing, and its directory synced: it is whole or absent.
//! - A directory is used only after its entry in its parent was synced, whoever made it.
//! - `Existed` is answered after syncing what exists, since another process may still be about to do so.
//! - No link below the place is followed (`beneath.rs`).
//! - A temporary file is locked by its writer; what can be locked by another belongs to nobody and is removed at open.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath;
use crate::Put;

/// The directory of temporary files, below the vault's.
pub(crate) const TMP: &str = "tmp";
/// Objects and temporary files: for the owner of the vault alone.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: Mode = Mode::RWXU;
/// Tries of a put when its temporary file or directory is removed under it, by a cleaner or by hand.
const ATTEMPTS: u32 = 4;

/// Objects from this size on are written past the page cache: the copy into it costs more processor time than sealing.
const DIRECT_MIN_BYTES: usize = 1 << 20;
/// Bytes handed over in one direct write.
const DIRECT_BLOCK_BYTES: usize = 4 << 20;
/// Alignment of memory and length that every file system's direct writes accept, bytes.
const DIRECT_ALIGN_BYTES: usize = 4096;

/// What failed, for the error message: `during` the object's name follows.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) during: &'static str,
    pub(crate) source: io::Error,
}

impl Failure {
    fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Names the step that an error came from.
trait During<T> {
    fn during(self, during: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, during: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            during,
            source: source.into(),
        })
    }
}

/// What to do about an object that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it.
    Keep,
    /// Replace it if its size is not that of the new bytes.
    ReplaceIfSizeDiffers,
}

/// Writes `bytes` to the empty `file`, large objects past the page cache where the file system can.
fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    if bytes.len() >= DIRECT_MIN_BYTES {
        let flags = rustix::fs::fcntl_getfl(&*file)?;
        if rustix::fs::fcntl_setfl(&*file, flags | OFlags::DIRECT).is_ok() {
            rest = write_direct(file, bytes)?;
            rustix::fs::fcntl_setfl(&*file, flags)?;
        }
    }
    file.write_all(rest)
}

/// Writes whole aligned blocks and returns what is left: the end, or everything if the file system refuses after all.
fn write_direct<'a>(file: &mut File, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let mut memory = vec![0; DIRECT_BLOCK_BYTES + DIRECT_ALIGN_BYTES];
    let start = memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES);
    let mut rest = bytes;
    while rest.len() >= DIRECT_ALIGN_BYTES {
        let length = rest.len().min(DIRECT_BLOCK_BYTES) / DIRECT_ALIGN_BYTES * DIRECT_ALIGN_BYTES;
        let (now, later) = rest.split_at(length);
        let Some(block) = memory.get_mut(start..start + length) else {
            break;
        };
        block.copy_from_slice(now);
        match file.write(block) {
            Ok(written) if written == length => rest = later,
            // A short direct write leaves the position unaligned: the page cache takes the rest.
            Ok(written) => return Ok(rest.get(written..).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(rest),
            Err(error) => return Err(error),
        }
    }
    Ok(rest)
}

/// The directory of a vault, opened for changes.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    /// Directories whose entries in their parents are known to be durable.
    durable_directories: Mutex<HashSet<String>>,
}

impl Directory {
    /// Opens an existing directory and removes what dead writers left in its `tmp/`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let directory = Self {
            root,
            durable_directories: Mutex::default(),
        };
        // A place that may only be read is still worth opening, and leftovers do no harm.
        let _ = directory.remove_leftovers();
        Ok(directory)
    }

    /// The directory itself, for reading.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Stores `bytes` at `path`, parts separated by `/`; durable on return.
    pub(crate) fn put(&self, path: &str, bytes: &[u8], existing: Existing) -> Result<Put, Failure> {
        let mut attempt = 1;
        loop {
            match self.try_put(path, bytes, existing) {
                Err(failure) if failure.is_missing() && attempt < ATTEMPTS => {
                    self.durable_directories.lock().clear();
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn try_put(&self, path: &str, bytes: &[u8], existing: Existing) -> Result<Put, Failure> {
        let found = self.size_of(path).during("looking for")?;
        let replace = match found {
            Some(size) if size == bytes.len() as u64 || existing == Existing::Keep => return self.confirm(path),
            found => found.is_some(),
        };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.make_durable(TMP)
            .during("making the directory for temporary files for")?;
        self.make_durable(parent).during("making the directory of")?;
        let mut temporary = Temporary::create(self.root()).during("making a temporary file for")?;
        write(&mut temporary.file, bytes).during("writing")?;
        rustix::fs::fdatasync(&temporary.file).during("syncing")?;
        let published = if replace {
            temporary.replace(path)
        } else {
            temporary.publish(path)
        };
        if !published.during("renaming the temporary file to")? {
            return self.confirm(path);
        }
        self.sync_directory(parent).during("syncing the directory of")?;
        Ok(Put::Created)
    }

    /// Makes sure that an existing object outlives a power cut, then reports it as such.
    fn confirm(&self, path: &str) -> Result<Put, Failure> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = beneath::open(self.root(), path, flags, Mode::empty()).during("opening")?;
        rustix::fs::fdatasync(&file).during("syncing")?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.make_durable(parent).during("syncing the directories above")?;
        self.sync_directory(parent).during("syncing the directory of")?;
        Ok(Put::Existed)
    }

    /// Removes an object, durably; whether it was there.
    pub(crate) fn delete(&self, path: &str) -> Result<bool, Failure> {
        let (parent, name) = match beneath::parent(self.root(), path) {
            Err(Errno::NOENT) => return Ok(false),
            outcome => outcome.during("deleting")?,
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            outcome => outcome.during("deleting")?,
        }
        rustix::fs::fsync(&parent).during("syncing the directory of")?;
        Ok(true)
    }

    /// Size of the regular file at `path`, if there is anything.
    pub(crate) fn size_of(&self, path: &str) -> io::Result<Option<u64>> {
        let (parent, name) = match beneath::parent(self.root(), path) {
            Err(Errno::NOENT) => return Ok(None),
            outcome => outcome?,
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            // The caller says what it is instead.
            Ok(_) => Err(Errno::LOOP.into()),
        }
    }

    /// Makes a directory and those above it, if missing, with durable entries.
    fn make_durable(&self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.durable_directories.lock().contains(path) {
            return Ok(());
        }
        self.make_durable(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
        let (parent, name) = beneath::parent(self.root(), path)?;
        match rustix::fs::mkdirat(&parent, name, DIRECTORY_MODE) {
            // That it is a directory shows when it is opened.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        rustix::fs::fsync(&parent)?;
        self.durable_directories.lock().insert(path.to_string());
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Ok(rustix::fs::fsync(&self.root)?);
        }
        Ok(rustix::fs::fsync(beneath::directory(self.root(), path)?)?)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        let tmp = beneath::directory(self.root(), TMP)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for entry in rustix::fs::Dir::read_from(&tmp)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // Whoever holds the lock is alive and writing; a file system without locks keeps its leftovers.
            if let Ok(file) = rustix::fs::openat(&tmp, name, flags, Mode::empty())
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = rustix::fs::unlinkat(&tmp, name, AtFlags::empty());
            }
        }
        Ok(())
    }
}

/// A file in `tmp/`, locked while it lives and removed unless published.
struct Temporary<'a> {
    root: BorrowedFd<'a>,
    tmp: OwnedFd,
    name: String,
    file: File,
    published: bool,
}

impl<'a> Temporary<'a> {
    fn create(root: BorrowedFd<'a>) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            // Anew each time, since somebody may have removed it.
            let tmp = beneath::directory(root, TMP)?;
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let file = match rustix::fs::openat(&tmp, &name, flags, FILE_MODE) {
                // Another host or an earlier process with this process id.
                Err(Errno::EXIST) => continue,
                outcome => File::from(outcome?),
            };
            // A file system without locks gives another error: then nobody can take the file for a leftover either.
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK) {
                return Ok(Self {
                    root,
                    tmp,
                    name,
                    file,
                    published: false,
                });
            }
        }
    }

    /// Gives the file its final name; `false` if something has that name.
    fn publish(&mut self, path: &str) -> io::Result<bool> {
        let (parent, name) = beneath::parent(self.root, path)?;
        match rustix::fs::renameat_with(&self.tmp, &self.name, &parent, name, RenameFlags::NOREPLACE) {
            Ok(()) => self.published = true,
            Err(Errno::EXIST) => return Ok(false),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return self.publish_by_link(path),
            Err(errno) => return Err(errno.into()),
        }
        Ok(true)
    }

    /// For file systems that cannot rename without replacing (NFS, some FUSE): the temporary name goes when dropped.
    fn publish_by_link(&self, path: &str) -> io::Result<bool> {
        let (parent, name) = beneath::parent(self.root, path)?;
        match rustix::fs::linkat(&self.tmp, &self.name, &parent, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the file system has neither rename without replacing nor hard links",
            )),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts the file in the place of a damaged one.
    fn replace(&mut self, path: &str) -> io::Result<bool> {
        let (parent, name) = beneath::parent(self.root, path)?;
        rustix::fs::renameat(&self.tmp, &self.name, &parent, name)?;
        self.published = true;
        Ok(true)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = rustix::fs::unlinkat(&self.tmp, &self.name, AtFlags::empty());
        }
    }
}

/// Makes the directory of a new vault and the missing ones above it, with durable entries.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    match rustix::fs::mkdir(path, DIRECTORY_MODE) {
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) if above != Path::new(".") => {
            create_directories(above)?;
            match rustix::fs::mkdir(path, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        outcome => outcome?,
    }
    File::open(above)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_fallback_has_one_winner_and_leaves_no_temporary_name() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        directory.make_durable(TMP).unwrap();
        let mut wins = 0;
        for text in ["first", "second"] {
            let mut temporary = Temporary::create(directory.root()).unwrap();
            temporary.file.write_all(text.as_bytes()).unwrap();
            wins += u32::from(temporary.publish_by_link("drystone").unwrap());
        }
        assert_eq!(wins, 1);
        assert_eq!(std::fs::read(place.path().join("drystone")).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(place.path().join(TMP)).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_go_at_open_and_files_being_written_stay() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        directory.make_durable(TMP).unwrap();
        let alive = Temporary::create(directory.root()).unwrap();
        std::fs::write(place.path().join(TMP).join("999999-0"), b"left by a dead writer").unwrap();
        Directory::open(place.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(place.path().join(TMP))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [place.path().join(TMP).join(&alive.name)]);
    }

    #[test]
    fn a_put_survives_the_removal_of_its_directories() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        assert_eq!(directory.put("keys/a", b"1", Existing::Keep).unwrap(), Put::Created);
        std::fs::remove_dir_all(place.path().join("keys")).unwrap();
        std::fs::remove_dir_all(place.path().join(TMP)).unwrap();
        assert_eq!(directory.put("keys/a", b"2", Existing::Keep).unwrap(), Put::Created);
        assert_eq!(std::fs::read(place.path().join("keys/a")).unwrap(), b"2");
    }
}
