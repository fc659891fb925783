//! The walk over the sources, depth first in the order of names: the one thread that decides what comes when.
//!
//! - An explicit stack; only the innermost directories stay open, outer ones are opened again through `..` and compared.
//! - Small neighbouring files are read together; the walk goes on while they are read.

use std::sync::Arc;
use std::vec::IntoIter;

use crossbeam_channel::{Sender, TrySendError, bounded};
use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::tree::Marks;
use drystone_vault::Cancel;

use crate::error::{Error, Result, stopped};
use crate::local::descriptors::Allowed;
use crate::local::dir::{Dir, Stat};
use crate::options::Mode;
use crate::scan::Scanner;
use crate::scan::found::{Below, Found, Order, Rest, Scanned};
use crate::scan::job::{Event, Item, Job};
use crate::scan::prefetch::Prefetch;
use crate::scan::rules::Rules;
use crate::scope::Scope;

/// Bytes of files after which a job is closed: a frame's worth.
const JOB_BYTES: u64 = 1 << 20;
/// Files after which a job is closed.
const JOB_FILES: usize = 64;
/// Directories that the files of one job may be in.
const JOB_DIRS: usize = 8;
/// Steps that are sent together.
const EVENTS: usize = 128;

/// Where the walk sends what it finds.
pub(crate) struct Outlets {
    pub(crate) jobs: Sender<Job>,
    pub(crate) events: Sender<Vec<Event>>,
    pub(crate) cancel: Cancel,
    pub(crate) mode: Mode,
    /// How many threads read files.
    pub(crate) threads: usize,
    /// How many directories stay open.
    pub(crate) allowed: Allowed,
}

struct Frame {
    /// `None` while it is closed for deeper ones.
    dir: Option<Arc<Dir>>,
    stat: Option<Stat>,
    scope: Scope,
    path_bytes: usize,
    rest: Rest,
    batch: IntoIter<Found>,
    marks: u64,
}

/// A job that is being filled.
struct Open {
    job: Job,
    bytes: u64,
    dirs: usize,
}

pub(crate) struct Walk<'a> {
    rules: &'a Rules<'a>,
    prefetch: &'a Prefetch,
    scanner: Scanner<'a>,
    outlets: Outlets,
    job_dirs: usize,
    open: Option<Open>,
    events: Vec<Event>,
    stack: Vec<Frame>,
    path: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rules: &'a Rules<'a>, prefetch: &'a Prefetch, outlets: Outlets) -> Result<Self> {
        Ok(Self {
            rules,
            prefetch,
            scanner: Scanner::new(rules)?,
            // As many jobs are read as wait to be, and one is being filled.
            job_dirs: (outlets.allowed.jobs / (2 * outlets.threads + 1)).clamp(1, JOB_DIRS),
            outlets,
            open: None,
            events: Vec::new(),
            stack: Vec::new(),
            path: Vec::new(),
        })
    }

    /// Walks everything below the root of the file system that `scope` asks for.
    pub(crate) fn run(mut self, scope: Scope) -> Result<()> {
        let root = Dir::root().map_err(|error| Error::Source {
            path: b"/".to_vec(),
            why: error.to_string(),
        })?;
        let order = Order {
            parent: Arc::new(root),
            name: b".".to_vec(),
            path: Vec::new(),
            scope,
            depth: 0,
        };
        if let Some(mut scanned) = self.scanner.scan(&order)? {
            self.prefetch.announce(&order.path, order.depth, &mut scanned);
            self.enter(scanned, order.scope)?;
        }
        while let Some(frame) = self.stack.last_mut() {
            match frame.batch.next() {
                Some(found) => self.found(found)?,
                None if frame.rest.is_empty() => self.leave()?,
                None => self.more()?,
            }
        }
        self.close_job()?;
        self.flush()
    }

    fn found(&mut self, found: Found) -> Result<()> {
        match found {
            Found::Same {
                record,
                content_bytes,
                has_links,
            } => self.send(Event::Same {
                record,
                content_bytes,
                has_links,
            }),
            Found::Spared { row, source } => self.send(Event::Spared { row: *row, source }),
            Found::Gone => self.send(Event::Gone),
            Found::Fresh {
                name,
                stat,
                is_new,
                live,
            } => {
                let content_bytes = stat.content_bytes();
                let dir = live.or_else(|| self.stack.last().and_then(|frame| frame.dir.clone()));
                if let (Mode::Store, Some(dir)) = (self.outlets.mode, dir) {
                    self.read(dir, name, stat)?;
                }
                self.send(Event::Next { is_new, content_bytes })
            }
            Found::Below(below) => self.below(&below),
        }
    }

    /// The next names of a large directory.
    fn more(&mut self) -> Result<()> {
        let depth = self.stack.len() - 1;
        let Some(frame) = self.stack.last_mut() else {
            return Ok(());
        };
        let Some(dir) = &frame.dir else { return Ok(()) };
        let mut batch = self.scanner.batch(dir, &self.path, &frame.scope, &mut frame.rest)?;
        self.prefetch.announce_batch(dir, &self.path, depth, &mut batch);
        frame.batch = batch.into_iter();
        Ok(())
    }

    fn below(&mut self, below: &Below) -> Result<()> {
        let depth = self.stack.len() - 1;
        let Some(parent) = self.stack.last().and_then(|frame| frame.dir.as_ref()) else {
            return Ok(());
        };
        if depth + 2 >= TREE_DEPTH_MAX {
            let why = format!("directories nest deeper than {TREE_DEPTH_MAX}; what is in it is left out");
            self.rules.problem(below.order(parent, &self.path, depth).path, why);
            if let Some(frame) = self.stack.last_mut() {
                frame.marks |= Marks::INCOMPLETE;
            }
            return Ok(());
        }
        let scanned = match (&below.task, &below.stat) {
            (Some(task), _) => self.prefetch.take(task, &mut self.scanner)?,
            (None, Some(stat)) => {
                let order = below.order(parent, &self.path, depth);
                Some(self.scanner.mount_point(&order, stat))
            }
            (None, None) => self.scanner.scan(&below.order(parent, &self.path, depth))?,
        };
        // It may have vanished since.
        let Some(scanned) = scanned else { return Ok(()) };
        if let Some(row) = scanned.spared {
            let inode = scanned.dir.as_ref().map(|dir| dir.stat.ino);
            let source = below.scope.source().zip(inode);
            return self.send(Event::Spared { row: *row, source });
        }
        self.path.push(b'/');
        self.path.extend_from_slice(&below.name);
        self.enter(scanned, below.scope.clone())
    }

    fn enter(&mut self, scanned: Box<Scanned>, scope: Scope) -> Result<()> {
        self.outlets.cancel.check()?;
        let inode = scanned.dir.as_ref().map(|dir| dir.stat.ino);
        let is_whole = !scanned.head.marks.has(Marks::INCOMPLETE);
        self.send(Event::Enter {
            source: scope.source().zip(inode).filter(|_| is_whole),
            head: Box::new(scanned.head),
            cached: scanned.cached,
            tracked: scanned.dir.as_deref().and_then(tracked),
        })?;
        self.stack.push(Frame {
            stat: scanned.dir.as_ref().map(|dir| dir.stat),
            dir: scanned.dir,
            scope,
            path_bytes: self.path.len(),
            rest: scanned.rest,
            batch: scanned.batch.into_iter(),
            marks: 0,
        });
        let outer = self.stack.len().checked_sub(self.outlets.allowed.stack + 1);
        if let Some(at) = outer
            && self.leads_back(at)
            && let Some(frame) = self.stack.get_mut(at)
        {
            frame.dir = None;
        }
        Ok(())
    }

    /// Whether `..` of the next frame's directory is that of the frame at `at`: not between a snapshot and what is beside it,
    /// and not behind a link.
    fn leads_back(&self, at: usize) -> bool {
        let (Some(outer), Some(inner)) = (self.stack.get(at), self.stack.get(at + 1)) else {
            return false;
        };
        let tracked = |frame: &Frame| Some(frame.dir.as_deref().and_then(tracked)?.0);
        let (Some(stat), Some(dir)) = (&outer.stat, &inner.dir) else {
            return false;
        };
        tracked(outer) == tracked(inner) && dir.parent(stat).is_ok()
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        self.send(Event::Leave { marks: frame.marks })?;
        let Some(outer) = self.stack.last_mut() else {
            return Ok(());
        };
        self.path.truncate(outer.path_bytes);
        let (None, Some(stat)) = (&outer.dir, &outer.stat) else {
            return Ok(());
        };
        let opened = frame.dir.as_ref().map(|dir| dir.parent(stat));
        match opened {
            Some(Ok(dir)) => outer.dir = Some(Arc::new(dir)),
            failed => {
                outer.rest = Rest::NONE;
                outer.batch = Vec::new().into_iter();
                outer.marks |= Marks::INCOMPLETE;
                let why = failed
                    .and_then(Result::err)
                    .map_or_else(String::new, |error| format!(": {error}"));
                let why = format!("was moved while it was read{why}; the rest of it is left out");
                self.rules.problem(self.path.clone(), why);
            }
        }
        Ok(())
    }

    /// Puts a file into a job.
    fn read(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: Stat) -> Result<()> {
        let bytes = stat.content_bytes();
        let is_large = bytes >= JOB_BYTES;
        let is_elsewhere = |open: &Open| open.job.items.last().is_none_or(|item| !Arc::ptr_eq(&item.dir, &dir));
        let has_room = |open: &Open| {
            open.bytes + bytes <= JOB_BYTES
                && (open.dirs < self.job_dirs || !is_elsewhere(open))
                && open.job.items.len() < JOB_FILES
        };
        if self.open.as_ref().is_some_and(|open| !has_room(open)) {
            self.close_job()?;
        }
        let mut path = Vec::new();
        if is_large {
            path.extend_from_slice(&self.path);
            path.push(b'/');
            path.extend_from_slice(&name);
        }
        if self.open.is_none() {
            let (reply, results) = bounded(1);
            self.events.push(Event::Open(results));
            let job = Job {
                items: Vec::new(),
                reply,
            };
            self.open = Some(Open { job, bytes: 0, dirs: 0 });
        }
        if let Some(open) = &mut self.open {
            open.bytes += bytes;
            open.dirs += usize::from(is_elsewhere(open));
            open.job.items.push(Item { dir, name, stat, path });
        }
        if is_large { self.close_job() } else { Ok(()) }
    }

    fn close_job(&mut self) -> Result<()> {
        match self.open.take() {
            None => Ok(()),
            Some(open) => self.outlets.jobs.send(open.job).map_err(|_| stopped()),
        }
    }

    fn send(&mut self, event: Event) -> Result<()> {
        self.events.push(event);
        if self.events.len() < EVENTS {
            Ok(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.outlets.cancel.check()?;
        match self.outlets.events.try_send(std::mem::take(&mut self.events)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
            Err(TrySendError::Full(events)) => {
                // The other side may be waiting for the very job that is being filled here.
                self.close_job()?;
                self.outlets.events.send(events).map_err(|_| stopped())
            }
        }
    }
}

/// The tracked subvolume that a directory is in, and its inode.
fn tracked(dir: &Dir) -> Option<(usize, u64)> {
    Some((dir.stand_in?.number, dir.stat.ino))
}
