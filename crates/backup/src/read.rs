//! Reading files: one thread's work, a job at a time.
//!
//! - A file is good if it looks after reading as it looked when the directory was scanned. Otherwise it is read once
//!   more; if it has changed again, what was read is kept with a mark, and reported.
//! - For a small file four system calls: open, read, stat, extended attributes (and close).
//! - Never more than the file's size is read: of a file that grows, a state that it once had.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_index::StateReader;
use drystone_vault::{Cancel, Content, FillError, Lane, Progress};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek};
use rustix::io::{Errno, read, retry_on_intr};

use crate::attributes::{self, Found, XattrReader, entry};
use crate::cache::Print;
use crate::dir::{Dir, Stat};
use crate::error::{Error, Result, is_exhausted};
use crate::job::{Item, Job, Taken};
use crate::names::Names;
use crate::partial::{Again, with_ahead};
use crate::tracked::{FILE_MIN_BYTES, NewMap, Tracked};

/// Times a file is read.
const ATTEMPTS: u32 = 2;

const REPLACED: &str = "was replaced by something else while it was to be read; back up again";

/// Reads files.
pub(crate) struct Reader<'a> {
    pub(crate) lane: Lane,
    pub(crate) names: &'a Names,
    pub(crate) started: Time,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cancel: Cancel,
    pub(crate) xattrs: XattrReader,
    /// Whose files may be read without a trace.
    pub(crate) uid: u32,
    /// What large files were made of; none for a run that reads every file.
    pub(crate) state: Option<StateReader>,
}

/// Why a file was not taken.
enum Failure {
    /// It, or what its name was for, is gone.
    Vanished,
    File(String),
    Run(Error),
}

impl Failure {
    fn new(what: &str, error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::STALE => Self::Vanished,
            error => Self::File(format!("{what}: {}", io::Error::from(error))),
        }
    }
}

/// What one attempt gave.
struct Attempt {
    recipe: Recipe,
    xattrs: Found,
    after: Stat,
    map: Option<NewMap>,
    unread_bytes: u64,
}

impl Reader<'_> {
    /// Works until there are no more jobs.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) -> Result<()> {
        for Job { items, reply } in jobs {
            let mut results = Vec::with_capacity(items.len());
            for item in items {
                self.cancel.check()?;
                results.push(self.item(item)?);
            }
            // Nobody waits for it only if the run has failed, and then that is known elsewhere.
            let _ = reply.send(results);
        }
        Ok(self.lane.finish()?)
    }

    fn item(&mut self, item: Item) -> Result<Taken> {
        if !item.path.is_empty() {
            self.progress.set_current(&item.path);
        }
        let taken = if item.stat.is_file() {
            self.file(&item)
        } else {
            self.special(&item)
        };
        match taken {
            Ok(taken) => Ok(taken),
            Err(Failure::Vanished) => Ok(Taken::Vanished),
            Err(Failure::File(why)) => Ok(Taken::Left { name: item.name, why }),
            Err(Failure::Run(error)) => Err(error),
        }
    }

    /// A regular file.
    fn file(&mut self, item: &Item) -> Result<Taken, Failure> {
        let mut before = item.stat;
        for attempt in 1.. {
            let read = self.attempt(item, &before)?;
            let is_same = Print::new(&before) == Print::new(&read.after) && read.recipe.size_bytes == before.size;
            if !is_same && attempt < ATTEMPTS {
                before = read.after;
                if !before.is_file() {
                    return Err(Failure::File(REPLACED.to_owned()));
                }
                continue;
            }
            let Attempt {
                recipe, xattrs, after, ..
            } = read;
            let mut entry = entry(&item.name, &after, Kind::File(recipe), self.names);
            let problem = if is_same {
                None
            } else {
                entry.marks.0 |= Marks::CHANGED_WHILE_READ;
                Some("changed while it was read, twice; what was read is stored and marked".to_owned())
            };
            let map = read.map.filter(|_| is_same);
            return Ok(self.taken(entry, xattrs, &after, (problem, map, read.unread_bytes)));
        }
        Err(Failure::Vanished)
    }

    fn taken(
        &self,
        mut entry: Entry,
        xattrs: Found,
        stat: &Stat,
        (mut problem, map, unread_bytes): (Option<String>, Option<NewMap>, u64),
    ) -> Taken {
        attributes::put(&mut entry, xattrs.xattrs, self.names);
        if let Some(missing) = xattrs.missing {
            entry.marks.0 |= Marks::INCOMPLETE;
            problem.get_or_insert(format!("extended attributes are not stored: {missing}"));
        }
        let print = Some(Print::new(stat)).filter(|print| problem.is_none() && !print.is_racy(self.started));
        Taken::Entry {
            encoded: entry.encode(),
            content_bytes: entry.recipe().map(|recipe| recipe.size_bytes),
            name: entry.name,
            print,
            has_links: stat.hard_link().is_some(),
            map,
            unread_bytes,
            problem,
        }
    }

    fn attempt(&mut self, item: &Item, before: &Stat) -> Result<Attempt, Failure> {
        let file = self.open(&item.dir, &item.name, before)?;
        let tracked = item.dir.tracked.as_deref().filter(|_| before.size >= FILE_MIN_BYTES);
        let layout = tracked.and_then(|tracked| tracked.layout(before.ino));
        let map = tracked.and_then(|tracked| tracked.map(self.state.as_ref()?, before.ino));
        let mut content = self.lane.content();
        if layout.is_some() {
            content.keep_parts();
        }
        let source = Source {
            file: &file,
            size: before.size,
            progress: &self.progress,
            cancel: &self.cancel,
        };
        let is_sparse = before.disk_bytes < before.size;
        let mut unread_bytes = 0;
        let filled = match (tracked, &layout, map) {
            (Some(tracked), Some(layout), Some(map)) => with_ahead(&file, |ahead| {
                let changed = tracked.changed(&map, layout);
                let mut again = Again::new(&file, (map, changed), (&self.progress, &self.cancel), ahead);
                let filled = source.each_stretch(&mut content, is_sparse, &mut |content, stretch| {
                    again.stretch(content, stretch)
                });
                unread_bytes = again.unread_bytes;
                filled
            }),
            _ => source.each_stretch(&mut content, is_sparse, &mut |content, stretch| {
                source.fill(content, stretch)
            }),
        };
        match filled {
            Ok(()) => {}
            Err(FillError::Read(error)) => return Err(Failure::File(format!("cannot be read: {error}"))),
            Err(FillError::Vault(error)) => return Err(Failure::Run(error.into())),
        }
        let (recipe, parts) = content.finish_kept().map_err(|error| Failure::Run(error.into()))?;
        let new_map = |(tracked, layout): (&Tracked, _)| tracked.new_map(before.ino, layout, &parts);
        let map = tracked.zip(layout.as_ref()).and_then(new_map);
        let after = Stat::of(&file).map_err(|error| Failure::new("cannot be looked at", error))?;
        let after = item.dir.in_place(after);
        let xattrs = self.xattrs.of_open(&file);
        Ok(Attempt {
            recipe,
            xattrs,
            after,
            map,
            unread_bytes,
        })
    }

    fn open(&self, dir: &Dir, name: &[u8], stat: &Stat) -> Result<OwnedFd, Failure> {
        // What has become a pipe since must not keep the run waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let quiet = self.uid == 0 || self.uid == stat.uid;
        let first = if quiet { flags | OFlags::NOATIME } else { flags };
        let file = match openat(&dir.fd, name, first, Mode::empty()) {
            Err(Errno::PERM) if quiet => openat(&dir.fd, name, flags, Mode::empty()),
            other => other,
        };
        match file {
            Err(Errno::LOOP | Errno::NXIO) => Err(Failure::File(REPLACED.to_owned())),
            Err(error) if is_exhausted(error) => Err(Failure::Run(Error::Exhausted {
                path: name.to_vec(),
                source: error.into(),
            })),
            file => file.map_err(|error| Failure::new("cannot be opened", error)),
        }
    }

    /// Whatever has no content.
    fn special(&mut self, item: &Item) -> Result<Taken, Failure> {
        let Item { dir, name, stat, .. } = item;
        let (major, minor) = stat.special;
        let kind = match stat.kind {
            FileType::Symlink => {
                let target = readlinkat(&dir.fd, name.as_slice(), Vec::new());
                Kind::Symlink(
                    target
                        .map_err(|error| Failure::new("cannot be read", error))?
                        .into_bytes(),
                )
            }
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => return Err(Failure::File("is of a kind that is not known".to_owned())),
        };
        let xattrs = self.xattrs.of_name(dir, name);
        Ok(self.taken(entry(name, stat, kind, self.names), xattrs, stat, (None, None, 0)))
    }
}

/// Takes in a stretch of a file.
type Fill<'a> = &'a mut dyn FnMut(&mut Content<'_>, Range<u64>) -> Result<(), FillError>;

/// An open file on its way into the vault.
struct Source<'a> {
    file: &'a OwnedFd,
    size: u64,
    progress: &'a Progress,
    cancel: &'a Cancel,
}

impl Source<'_> {
    /// All of a stretch; the file must stand at its beginning.
    fn fill(&self, content: &mut Content<'_>, stretch: Range<u64>) -> Result<(), FillError> {
        while content.size_bytes() < stretch.end {
            let wanted = stretch.end - content.size_bytes();
            let count = content.fill(&mut |room| {
                let length = room.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
                let room = room.get_mut(..length).unwrap_or_default();
                Ok(retry_on_intr(|| read(self.file, &mut *room))?)
            })?;
            Progress::add(&self.progress.bytes, count as u64);
            if count == 0 {
                break;
            }
            if wanted > count as u64 {
                self.cancel.check()?;
            }
        }
        Ok(())
    }

    /// Holes as holes, where there are any, and `fill` for what lies between, the file standing at its beginning.
    fn each_stretch(&self, content: &mut Content<'_>, is_sparse: bool, fill: Fill<'_>) -> Result<(), FillError> {
        if !is_sparse {
            return fill(content, 0..self.size);
        }
        let seek = |to| seek(self.file, to);
        loop {
            let at = content.size_bytes();
            if at >= self.size {
                return Ok(());
            }
            let data = match seek(SeekFrom::Data(at)) {
                Ok(data) => data.min(self.size),
                Err(Errno::NXIO) => self.size,
                // A file system that knows of no holes.
                Err(Errno::INVAL | Errno::NOTSUP) => return fill(content, at..self.size),
                Err(error) => return Err(FillError::Read(error.into())),
            };
            if data > at {
                content.hole(data - at)?;
                Progress::add(&self.progress.bytes, data - at);
                continue;
            }
            let hole = seek(SeekFrom::Hole(at)).map_err(|error| FillError::Read(error.into()))?;
            seek(SeekFrom::Start(at)).map_err(|error| FillError::Read(error.into()))?;
            fill(content, at..hole.min(self.size))?;
            if content.size_bytes() < hole.min(self.size) {
                return Ok(());
            }
        }
    }
}
