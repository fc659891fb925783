//! Comparing what a drill has restored: with what was recorded, and with the source where that is still the same.
//!
//! - Every byte is read back from the scratch directory and hashed against its chunk's id.
//! - A source counts as the same if it has the recorded size and time: then every byte must be equal. What else it has
//!   must be equal if it was not touched since the backup began, which its ctime tells.
//! - Nothing is opened through a symbolic link.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, bounded};
use drystone_format::id::ChunkHasher;
use drystone_format::limits::CHUNK_MAX_BYTES;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{Entry, Kind, Time};
use drystone_vault::{Cancel, Problems, Progress, Reader};
use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::process::geteuid;

use crate::apply::MTIME;
use crate::browse::walk::{Step, TreeWalk};
use crate::error::{Error, FirstError, Result, spawn_some, stopped};
use crate::local::attributes::XattrReader;
use crate::local::dir::{Dir, Follow, Stat};
use crate::restore::tally::Failure;
use crate::restore::{NotSet, Sample};

/// Entries that one thread takes at once.
const BATCH_ENTRIES: usize = 64;
/// Bytes compared with zeros at a time.
const ZEROS_BYTES: u64 = 64 << 10;
/// A file whose ctime is less than this before the backup began may have been touched since, seconds.
const RACY_SECONDS: i64 = 2;

/// Which attributes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Owner and group. Without them the mode of files of other owners is not compared either: it may lose bits.
    owner: bool,
    time: bool,
    /// Mode and extended attributes.
    others: bool,
}

impl Attributes {
    const ALL: Self = Self {
        owner: true,
        time: true,
        others: true,
    };

    /// Those that a restore could set.
    pub(crate) fn restored(not_set: &[NotSet]) -> Self {
        let mut all = Self::ALL;
        for kind in not_set {
            match kind.what.as_str() {
                "owner" | "group" => all.owner = false,
                MTIME => all.time = false,
                _ => all.others = false,
            }
        }
        all
    }
}

/// What is compared, and what came of it.
pub(crate) struct Comparison<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) hasher: &'a ChunkHasher,
    /// What was restored.
    pub(crate) restored: OwnedFd,
    /// The root of what was backed up, if it is on this machine.
    pub(crate) source: Option<OwnedFd>,
    /// Which attributes could be restored.
    pub(crate) attributes: Attributes,
    /// When the backup began.
    pub(crate) since: Time,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a Cancel,
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) chunks: AtomicU64,
    pub(crate) same_files: AtomicU64,
    pub(crate) same_bytes: AtomicU64,
    pub(crate) changed_files: AtomicU64,
    pub(crate) problems: Mutex<Problems>,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Comparison<'_> {
    /// Compares what is in the sample but not in `failed`, with so many threads.
    pub(crate) fn run(
        &self,
        tree: &Recipe,
        sample: Sample<'_>,
        failed: &HashSet<Vec<u8>>,
        threads: usize,
    ) -> Result<()> {
        let failures = FirstError::default();
        let (sender, receiver) = bounded(threads);
        std::thread::scope(|scope| {
            let failures = &failures;
            let compare = move || failures.note(Comparer::new(self).run(&receiver));
            if failures.note(spawn_some(scope, threads, compare)).is_none() {
                return;
            }
            let mut batch = Vec::new();
            let mut walk = TreeWalk::new(self.reader, tree);
            let mut step = || -> Result<bool> {
                self.cancel.check()?;
                match walk.next() {
                    Ok(None) => return Ok(false),
                    Ok(Some(Step::Entry(entry))) if sample(walk.path(), &entry) && !failed.contains(walk.path()) => {
                        batch.push((walk.path().to_vec(), entry));
                    }
                    // The restore has reported it.
                    Err(error) if !error.is_damage() => return Err(error),
                    Ok(Some(_)) | Err(_) => {}
                }
                if batch.len() >= BATCH_ENTRIES {
                    sender.send(std::mem::take(&mut batch)).map_err(|_| stopped())?;
                }
                Ok(true)
            };
            let walked = loop {
                match step() {
                    Ok(true) => {}
                    Ok(false) => break sender.send(std::mem::take(&mut batch)).map_err(|_| stopped()),
                    Err(error) => break Err(error),
                }
            };
            failures.note(walked);
            drop(sender);
        });
        failures.into_error().map_or(Ok(()), Err)
    }
}

/// What is at a path.
struct Found {
    dir: Dir,
    name: Vec<u8>,
    stat: Stat,
}

impl Found {
    fn at(root: &OwnedFd, path: &[u8]) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let name = names.pop().unwrap_or_default().to_vec();
        let mut fd = openat(root, c".", flags, Mode::empty())?;
        for name in names {
            fd = openat(&fd, name, flags, Mode::empty())?;
        }
        let stat = Stat::at(&fd, &name, Follow::No)?;
        let of_dir = Stat::at(&fd, b"", Follow::No)?;
        let dir = Dir {
            fd,
            stat: of_dir,
            stand_in: None,
        };
        Ok(Self { dir, name, stat })
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.dir.fd, &self.name, flags | OFlags::NOATIME, Mode::empty()) {
            // Only its owner may read a file without a trace.
            Err(Errno::PERM) => openat(&self.dir.fd, &self.name, flags, Mode::empty()),
            other => other,
        }
    }

    /// Whether it is of this kind, with what only this kind has beside content.
    fn is(&self, kind: &Kind) -> Result<bool, Errno> {
        Ok(match kind {
            Kind::File(recipe) => self.stat.is_file() && self.stat.size == recipe.size_bytes,
            Kind::Dir(_) => self.stat.is_dir(),
            Kind::Symlink(target) => {
                self.stat.kind == FileType::Symlink
                    && readlinkat(&self.dir.fd, &self.name, Vec::new())?.as_bytes() == target
            }
            Kind::BlockDevice { major, minor } => {
                self.stat.kind == FileType::BlockDevice && self.stat.special == (*major, *minor)
            }
            Kind::CharDevice { major, minor } => {
                self.stat.kind == FileType::CharacterDevice && self.stat.special == (*major, *minor)
            }
            Kind::Fifo => self.stat.kind == FileType::Fifo,
            Kind::Socket => self.stat.kind == FileType::Socket,
        })
    }

    /// What of the attributes is not as recorded.
    fn difference(&self, entry: &Entry, which: Attributes, xattrs: Option<&mut XattrReader>) -> Option<&'static str> {
        let Stat {
            mode, uid, gid, mtime, ..
        } = self.stat;
        let is_of_owner = (uid, gid) == (entry.uid, entry.gid);
        if !is_of_owner && which.owner {
            return Some("owner");
        }
        if is_of_owner && which.others && mode != entry.mode {
            return Some("mode");
        }
        if which.time && mtime != entry.mtime {
            return Some("time");
        }
        let xattrs = xattrs.filter(|_| which.others)?;
        let found = xattrs.of_name(&self.dir, &self.name).xattrs;
        // There may be more: labels that the system gives to new files.
        let is_there = entry.xattrs.iter().all(|xattr| found.contains(xattr));
        (!is_there).then_some("extended attributes")
    }
}

/// One thread of a comparison.
struct Comparer<'a> {
    all: &'a Comparison<'a>,
    xattrs: XattrReader,
    buffer: Vec<u8>,
    other: Vec<u8>,
}

impl<'a> Comparer<'a> {
    fn new(all: &'a Comparison<'a>) -> Self {
        Self {
            all,
            xattrs: XattrReader::new(),
            buffer: Vec::new(),
            other: Vec::new(),
        }
    }

    fn run(mut self, batches: &Receiver<Vec<(Vec<u8>, Entry)>>) -> Result<()> {
        for (path, entry) in batches.iter().flatten() {
            match self.entry(&path, &entry) {
                Ok(()) => {
                    add(&self.all.files, 1);
                    add(&self.all.bytes, entry_bytes(&entry));
                }
                Err(Failure::Entry(what)) => {
                    Progress::add(&self.all.progress.problems, 1);
                    self.all.problems.lock().push(path, what);
                }
                Err(Failure::Damage(error)) => {
                    Progress::add(&self.all.progress.problems, 1);
                    self.all.problems.lock().push(path, error);
                }
                Err(Failure::Run(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<(), Failure> {
        let look = |errno| Failure::io("look at what was restored", errno);
        let restored = Found::at(&self.all.restored, path).map_err(look)?;
        if !restored.is(&entry.kind).map_err(look)? {
            return Err(differs("what was restored is of another kind or size than recorded"));
        }
        let source = self.source(path, entry);
        let mut is_same = source.is_some();
        if let Kind::File(recipe) = &entry.kind {
            let file = restored.open().map_err(look)?;
            let from = source.as_ref().and_then(|source| source.open().ok());
            is_same = from.is_some();
            if let Some(at) = self.content(recipe, &file, from.as_ref())?
                && let Some(source) = &source
            {
                // Unless it was written to meanwhile.
                let now = Found::at(&source.dir.fd, &source.name).map(|found| found.stat);
                is_same = false;
                if now == Ok(source.stat) {
                    return Err(differs(&format!(
                        "the source differs from byte {at} on, though size and time are as recorded: it has changed \
                         unnoticed or is damaged; `drystone backup --rescan` stores what is there now"
                    )));
                }
            }
        }
        let difference = restored.difference(entry, self.all.attributes, Some(&mut self.xattrs));
        if let Some(what) = difference {
            return Err(differs(&format!("restored with another {what} than recorded")));
        }
        if let Some(source) = source.filter(|source| is_same && self.is_untouched(&source.stat)) {
            let xattrs = geteuid().is_root().then_some(&mut self.xattrs);
            if let Some(what) = source.difference(entry, Attributes::ALL, xattrs) {
                return Err(differs(&format!(
                    "the source has another {what}, though it was not touched since"
                )));
            }
        }
        if is_same {
            add(&self.all.same_files, 1);
            add(&self.all.same_bytes, entry_bytes(entry));
        } else {
            add(&self.all.changed_files, 1);
        }
        Ok(())
    }

    /// The source of an entry, if it seems to be the same still.
    fn source(&self, path: &[u8], entry: &Entry) -> Option<Found> {
        let source = self.all.source.as_ref().filter(|_| entry.marks.0 == 0)?;
        let found = Found::at(source, path).ok()?;
        (found.stat.mtime == entry.mtime && found.is(&entry.kind) == Ok(true)).then_some(found)
    }

    fn is_untouched(&self, stat: &Stat) -> bool {
        stat.ctime.seconds + RACY_SECONDS < self.all.since.seconds
    }

    /// Compares what was restored with the recipe, and both with the source: gives where that begins to differ.
    fn content(
        &mut self,
        recipe: &Recipe,
        restored: &OwnedFd,
        source: Option<&OwnedFd>,
    ) -> Result<Option<u64>, Failure> {
        let wrong = |at: u64, bytes: u64| {
            differs(&format!(
                "restored with other bytes than recorded, in the {bytes} from byte {at} on"
            ))
        };
        let mut parts = self.all.reader.parts(recipe);
        let mut differs_at = None;
        while let Some(part) = parts.next().transpose()? {
            self.all.cancel.check()?;
            let (bytes, at) = (part.bytes(), parts.offset() - part.bytes());
            let source = source.filter(|_| differs_at.is_none());
            if let Part::Chunk { id, .. } = part {
                let length = usize::try_from(bytes.min(CHUNK_MAX_BYTES.into())).unwrap_or_default();
                read(restored, at, length, &mut self.buffer)
                    .map_err(|errno| Failure::io("read what was restored", errno))?;
                if self.buffer.len() as u64 != bytes || self.all.hasher.id(&self.buffer) != id {
                    return Err(wrong(at, bytes));
                }
                add(&self.all.chunks, 1);
                if let Some(source) = source {
                    read(source, at, length, &mut self.other).map_err(unreadable)?;
                    differs_at = first_difference(&self.buffer, &self.other).map(|offset| at + offset);
                }
            } else {
                let is_zero = self.is_zero(restored, at, at + bytes);
                if !is_zero.map_err(|errno| Failure::io("read what was restored", errno))? {
                    return Err(wrong(at, bytes));
                }
                if let Some(source) = source
                    && !self.is_zero(source, at, at + bytes).map_err(unreadable)?
                {
                    differs_at = Some(at);
                }
            }
            Progress::add(&self.all.progress.bytes, bytes);
        }
        self.all.cancel.check()?;
        Ok(differs_at)
    }

    /// Whether a stretch of a file is nothing but holes and zeros. When the run is cancelled, which who called this looks
    /// at next, it is not read to its end.
    fn is_zero(&mut self, file: &OwnedFd, start: u64, end: u64) -> Result<bool, Errno> {
        let mut at = start;
        while at < end && !self.all.cancel.is_cancelled() {
            let data = match seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => end,
                Err(_) => at,
                Ok(data) => data,
            };
            if data >= end {
                break;
            }
            let length = (end - data).min(ZEROS_BYTES);
            read(file, data, length as usize, &mut self.other)?;
            if self.other.len() as u64 != length || self.other.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at = data + length;
        }
        Ok(true)
    }
}

fn differs(what: &str) -> Failure {
    Failure::Entry(what.to_owned())
}

fn unreadable(errno: Errno) -> Failure {
    Failure::Entry(format!("the source cannot be read: {}", io::Error::from(errno)))
}

fn entry_bytes(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File(recipe) => recipe.size_bytes,
        _ => 0,
    }
}

/// Reads up to `length` bytes; less only at the end of the file.
fn read(file: &OwnedFd, at: u64, length: usize, into: &mut Vec<u8>) -> Result<(), Errno> {
    into.resize(length, 0);
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| pread(file, &mut *rest, at + filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    into.truncate(filled);
    Ok(())
}

/// Where two byte strings begin to differ.
fn first_difference(one: &[u8], other: &[u8]) -> Option<u64> {
    if one == other {
        return None;
    }
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    Some(same as u64)
}

/// The root of the file system that was backed up.
pub(crate) fn open_source(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Source {
        path: path.as_os_str().as_encoded_bytes().to_vec(),
        why: io::Error::from(errno).to_string(),
    })
}
