//! Reading files: one thread's work, a job at a time.
//!
//! - A file is good if it looks after reading as it looked when the directory was scanned. Otherwise it is read once
//!   more; if it has changed again, what was read is kept with a mark, and reported.
//! - For a small file four system calls: open, read, stat, extended attributes (and close).
//! - Never more than the file's size is read: of a file that grows, a state that it once had.

mod partial;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_index::StateReader;
use drystone_vault::{Cancel, Content, EditOptions, FillError, Lane, Progress, Reliance};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, openat, readlinkat, seek};
use rustix::io::{Errno, read, retry_on_intr};

use crate::cache::Print;
use crate::error::{Error, Result, is_exhausted};
use crate::local::attributes::{self, Found, XattrReader, entry};
use crate::local::dir::{Dir, Stat};
use crate::local::names::Names;
use crate::read::partial::{Again, Behind, differences, with_ahead};
use crate::scan::job::{Item, Job, Taken};
use crate::tracked::{FILE_MIN_BYTES, Known, NewMap, PARTS_MAX, Tracked, Tracker};

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
    pub(crate) tracker: &'a Tracker,
    /// What large files were made of; none for a run that reads every file.
    pub(crate) state: Option<StateReader>,
    /// In which nothing that those files were made of was lost.
    pub(crate) loss_epoch: u64,
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
        let tracked = self.tracker.of(&item.dir).filter(|_| before.size >= FILE_MIN_BYTES);
        let tracked = tracked.as_deref();
        let layout = tracked.and_then(|tracked| tracked.layout(before.ino));
        let source = Source {
            file: &file,
            size: before.size,
            is_sparse: before.disk_bytes < before.size,
            progress: &self.progress,
            cancel: &self.cancel,
        };
        let known = tracked
            .zip(layout.as_ref())
            .and_then(|(tracked, layout)| tracked.known(self.state.as_ref()?, before.ino, layout));
        let filled = match known {
            Some(known) => source.edit(&mut self.lane, known, self.loss_epoch),
            None => source.read(&mut self.lane, layout.as_ref().map(|_| PARTS_MAX)),
        };
        let Filled {
            recipe,
            parts,
            unread_bytes,
        } = filled.map_err(|error| match error {
            FillError::Read(error) => Failure::File(format!("cannot be read: {error}")),
            FillError::Vault(error) => Failure::Run(error.into()),
        })?;
        let new_map = |(tracked, layout): (&Tracked, _)| tracked.new_map(before.ino, layout, parts.as_deref()?);
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

/// A file that was taken in.
struct Filled {
    recipe: Recipe,
    /// What it is made of, if that is to be kept.
    parts: Option<Vec<Part>>,
    unread_bytes: u64,
}

/// An open file on its way into the vault.
struct Source<'a> {
    file: &'a OwnedFd,
    size: u64,
    is_sparse: bool,
    progress: &'a Progress,
    cancel: &'a Cancel,
}

impl Source<'_> {
    /// Takes in all of it; keeps the parts if there is a limit to their number.
    fn read(&self, lane: &mut Lane, keep_parts: Option<usize>) -> Result<Filled, FillError> {
        let mut content = lane.content();
        if let Some(max) = keep_parts {
            content.keep_parts(max);
        }
        while content.size_bytes() < self.size {
            let at = content.size_bytes();
            let stretch = self.next_stretch(at)?;
            if stretch.start > at {
                content.hole(stretch.start - at)?;
                Progress::add(&self.progress.bytes, stretch.start - at);
            }
            self.fill(&mut content, stretch.end)?;
            if content.size_bytes() < stretch.end {
                break;
            }
        }
        let (recipe, parts) = content.finish_kept()?;
        Ok(Filled {
            recipe,
            parts,
            unread_bytes: 0,
        })
    }

    /// Takes in what changed of it.
    fn edit(&self, lane: &mut Lane, mut known: Known<'_>, loss_epoch: u64) -> Result<Filled, FillError> {
        let stretches = self.stretches()?;
        let changed = differences(&known.changed, &known.map.stretches, &stretches);
        let edited = with_ahead(self.file, |ahead| {
            let mut again = Again {
                file: self.file,
                size_bytes: self.size,
                stretches: &stretches,
                changed: &changed,
                lookahead: lane.lookahead_bytes(),
                ahead,
                progress: self.progress,
                behind: Behind::default(),
            };
            let options = EditOptions {
                reliance: Reliance::SinceLoss(loss_epoch),
                keep_parts: Some(PARTS_MAX),
            };
            lane.edit(&mut known.map, &mut again, options)
        })?;
        Ok(Filled {
            recipe: edited.recipe,
            parts: edited.parts,
            unread_bytes: edited.reused_bytes,
        })
    }

    /// Takes in bytes up to an offset; the file must stand where the content does.
    fn fill(&self, content: &mut Content<'_>, end: u64) -> Result<(), FillError> {
        while content.size_bytes() < end {
            let wanted = end - content.size_bytes();
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

    /// All stretches between holes, for a file whose extents are few enough to be known.
    fn stretches(&self) -> Result<Vec<Range<u64>>, FillError> {
        let (mut all, mut at) = (Vec::new(), 0);
        while at < self.size {
            let stretch = self.next_stretch(at)?;
            at = stretch.end;
            if !stretch.is_empty() {
                all.push(stretch);
            }
        }
        Ok(all)
    }

    /// The first stretch from `at` on that is no hole, the file standing at its beginning; empty at the end of the file if there is none.
    fn next_stretch(&self, at: u64) -> Result<Range<u64>, FillError> {
        if !self.is_sparse {
            return Ok(at..self.size);
        }
        let seek = |to| seek(self.file, to);
        let failed = |error: Errno| FillError::Read(error.into());
        let data = match seek(SeekFrom::Data(at)) {
            Ok(data) => data.min(self.size),
            Err(Errno::NXIO) => self.size,
            // A file system that knows of no holes.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(at..self.size),
            Err(error) => return Err(failed(error)),
        };
        if data == self.size {
            return Ok(data..data);
        }
        let hole = seek(SeekFrom::Hole(data)).map_err(failed)?;
        seek(SeekFrom::Start(data)).map_err(failed)?;
        Ok(data..hole.min(self.size))
    }
}
