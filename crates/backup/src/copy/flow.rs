//! The threads that copy trees: one walks the source, some read files and cut them anew, one puts the trees together.
//!
//! - What the memo knows is neither entered nor read.
//! - What the source has lost becomes a hole, its entry is marked as incomplete and the problem is named; such an entry,
//!   and what it is in, never enters the memo.
//! - Every queue is bounded; results are taken in the order of the walk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use drystone_format::RootId;
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Marks};
use drystone_vault::{Cancel, Ingest, Lane, PieceData, Problems, Progress, Reader};
use parking_lot::Mutex;

use super::memo::{Lookup, Memo, Of, bare};
use crate::browse::allowance::Allowance;
use crate::browse::walk::{Step, TreeWalk};
use crate::cache::Key;
use crate::causes::Causes;
use crate::error::{FirstError, Result, spawn, spawn_some, stopped};
use crate::tree::levels::{Levels, Target};

/// Entries that one thread takes at once, at most.
const BATCH_ENTRIES: usize = 64;
/// Bytes of files after which such a batch is closed.
const BATCH_BYTES: u64 = 1 << 20;
/// Steps that the walk may be ahead of the tree that is put together.
const STEPS_AHEAD: usize = 256;
/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What the threads share.
pub(crate) struct Flow<'a> {
    pub(crate) reader: Reader,
    pub(crate) ingest: &'a Ingest,
    pub(crate) memo: &'a Memo<'a>,
    pub(crate) threads: usize,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) problems: &'a Mutex<Problems>,
    /// The damage that was told.
    pub(crate) causes: &'a Mutex<Causes>,
    /// Bytes of files that were read.
    pub(crate) read_bytes: AtomicU64,
}

/// A tree that was copied.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) tree: Recipe,
    /// Entries that are not whole.
    pub(crate) lost: u64,
}

/// Entries to be copied by one thread, one after the other: neighbours share frames.
struct Batch {
    entries: Vec<Entry>,
    reply: Sender<Vec<Done>>,
}

/// An entry as the target has it.
struct Done {
    entry: Entry,
    problem: Option<Lost>,
}

/// The bytes of a file that could not be read.
struct Lost {
    bytes: u64,
    of_bytes: u64,
    why: drystone_vault::Error,
}

/// One step of the walk.
enum Event {
    /// What follows is in this directory.
    Enter { head: Box<Entry>, key: Key },
    /// A directory that the target has.
    Whole(Box<Entry>),
    /// The next entries come from here.
    Batch(Receiver<Vec<Done>>),
    /// The rest of the directory cannot be read, or what is at this path.
    Damaged { path: Vec<u8>, what: String },
    /// The directory is over.
    Leave,
}

impl Flow<'_> {
    /// Copies the tree of a snapshot; nothing is given with an error.
    pub(crate) fn run(&self, id: RootId, tree: &Recipe, allowance: Option<Allowance>) -> (Option<Copied>, Result<()>) {
        let failure = FirstError::default();
        let (job_sender, jobs) = bounded(self.threads);
        let (event_sender, events) = bounded(STEPS_AHEAD);
        let (tree_sender, trees) = bounded(1);
        let mut copied = None;
        std::thread::scope(|scope| {
            let failure = &failure;
            let started = spawn_some(scope, self.threads, move || {
                let worker = failure.note(Worker::new(self));
                worker.map(|worker| worker.run(&jobs).map(|result| failure.note(result)))
            });
            // Both ends go with it: the walk must not wait for a thread that has failed.
            let join = move || {
                let joined = Joiner::new(self).run(&events, &tree_sender);
                joined.map(|result| failure.note(result))
            };
            if failure.note(started.and_then(|()| spawn(scope, join))).is_none() {
                return;
            }
            let walker = Walker {
                flow: self,
                jobs: job_sender,
                events: event_sender,
                allowance,
                batch: Vec::new(),
                batch_bytes: 0,
            };
            copied = failure.note(walker.run(id, tree, &trees));
        });
        (copied, failure.into_error().map_or(Ok(()), Err))
    }

    fn problem(&self, path: Vec<u8>, what: &str) {
        self.problems.lock().push(path, what);
        Progress::add(&self.progress.problems, 1);
    }
}

/// Walks trees of the source.
struct Walker<'a> {
    flow: &'a Flow<'a>,
    jobs: Sender<Batch>,
    events: Sender<Event>,
    /// What the tree may hold.
    allowance: Option<Allowance>,
    batch: Vec<Entry>,
    batch_bytes: u64,
}

impl Walker<'_> {
    fn run(mut self, id: RootId, tree: &Recipe, trees: &Receiver<Copied>) -> Result<Copied> {
        let flow = self.flow;
        let lookup = flow.memo.lookup()?;
        let key = flow.memo.key(Of::Dir, tree);
        if let Some(tree) = lookup.get(Of::Dir, &key, tree.size_bytes)? {
            return Ok(Copied { tree, lost: 0 });
        }
        self.tree(&lookup, id, tree, key)?;
        trees.recv().map_err(|_| stopped())
    }

    fn tree(&mut self, lookup: &Lookup<'_>, id: RootId, tree: &Recipe, key: Key) -> Result<()> {
        let head = Entry {
            name: format!("{}:", id.short()).into_bytes(),
            ..bare(Kind::Dir(Recipe::default()))
        };
        self.send(Event::Enter {
            head: Box::new(head),
            key,
        })?;
        let mut walk = TreeWalk::new(&self.flow.reader, tree).within(self.allowance.take());
        loop {
            self.flow.cancel.check()?;
            match walk.next() {
                Ok(None) => break,
                Ok(Some(Step::Entry(entry))) => self.push(entry)?,
                Ok(Some(Step::Leave)) => self.send(Event::Leave)?,
                Ok(Some(Step::Enter(entry))) => {
                    self.flow.progress.set_current(walk.path());
                    if !self.enter(lookup, entry)? {
                        walk.skip();
                    }
                }
                Err(error) if error.is_damage() => self.send(Event::Damaged {
                    path: walk.path().to_vec(),
                    what: error.to_string(),
                })?,
                Err(error) => return Err(error),
            }
        }
        self.send(Event::Leave)
    }

    /// Whether what is in this directory must be copied.
    fn enter(&mut self, lookup: &Lookup<'_>, mut entry: Entry) -> Result<bool> {
        let recipe = entry.recipe().cloned().unwrap_or_default();
        let key = self.flow.memo.key(Of::Dir, &recipe);
        match lookup.get(Of::Dir, &key, recipe.size_bytes)? {
            Some(found) => {
                entry.kind = Kind::Dir(found);
                self.send(Event::Whole(Box::new(entry))).map(|()| false)
            }
            None => self
                .send(Event::Enter {
                    head: Box::new(entry),
                    key,
                })
                .map(|()| true),
        }
    }

    fn push(&mut self, entry: Entry) -> Result<()> {
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let content = entry.recipe().map_or(0, |recipe| recipe.size_bytes);
        self.batch_bytes = self
            .batch_bytes
            .saturating_add(content)
            .saturating_add(attributes as u64);
        self.batch.push(entry);
        if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let (reply, done) = bounded(1);
        let entries = std::mem::take(&mut self.batch);
        self.jobs.send(Batch { entries, reply }).map_err(|_| stopped())?;
        self.events.send(Event::Batch(done)).map_err(|_| stopped())
    }

    fn send(&mut self, event: Event) -> Result<()> {
        self.flush()?;
        self.events.send(event).map_err(|_| stopped())
    }
}

/// Copies files.
struct Worker<'a> {
    flow: &'a Flow<'a>,
    lookup: Lookup<'a>,
    lane: Lane,
}

impl<'a> Worker<'a> {
    fn new(flow: &'a Flow<'a>) -> Result<Self> {
        Ok(Self {
            flow,
            lookup: flow.memo.lookup()?,
            lane: flow.ingest.lane(),
        })
    }

    /// Works until there are no more jobs, and hands over what is in the lane also if that was not the end: it need not be
    /// read again by the next run.
    fn run(mut self, jobs: &Receiver<Batch>) -> [Result<()>; 2] {
        let copied = self.all(jobs);
        [copied, self.lane.finish().map_err(Into::into)]
    }

    fn all(&mut self, jobs: &Receiver<Batch>) -> Result<()> {
        for Batch { entries, reply } in jobs {
            let mut done = Vec::with_capacity(entries.len());
            for entry in entries {
                done.push(self.entry(entry)?);
            }
            // Nobody waits for it only if the run has failed, and then that is known elsewhere.
            let _ = reply.send(done);
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry) -> Result<Done> {
        self.flow.cancel.check()?;
        let mut problem = None;
        if let Kind::File(recipe) = &entry.kind
            && recipe.size_bytes > 0
        {
            let key = self.flow.memo.key(Of::File, recipe);
            let copied = match self.lookup.get(Of::File, &key, recipe.size_bytes)? {
                Some(found) => {
                    Progress::add(&self.flow.progress.bytes, recipe.size_bytes);
                    found
                }
                None => {
                    let copied;
                    (copied, problem) = self.content(recipe)?;
                    if problem.is_none() {
                        self.flow.memo.put_file(key, &copied);
                    }
                    copied
                }
            };
            entry.kind = Kind::File(copied);
        }
        if problem.is_some() {
            entry.marks.0 |= Marks::INCOMPLETE;
        }
        Ok(Done { entry, problem })
    }

    /// The file as the target has it, and what of it was lost.
    fn content(&mut self, recipe: &Recipe) -> Result<(Recipe, Option<Lost>)> {
        let flow = self.flow;
        let mut pieces = flow.reader.content(recipe);
        let mut content = self.lane.content();
        let (mut lost_bytes, mut why) = (0, None);
        loop {
            let piece = match pieces.next_piece() {
                Ok(piece) => piece,
                Err(error) if error.is_damage() => {
                    why.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let offset = piece.as_ref().map_or(recipe.size_bytes, |piece| piece.offset);
            let gap = offset.saturating_sub(content.size_bytes());
            if gap > 0 {
                lost_bytes += gap;
                content.hole(gap)?;
            }
            let bytes = match piece.map(|piece| piece.data) {
                None => break,
                Some(PieceData::Hole(bytes)) => content.hole(bytes).map(|()| bytes)?,
                Some(PieceData::Bytes(chunk)) => content.write(&chunk).map(|()| chunk.len() as u64)?,
                Some(PieceData::Zeros(bytes)) => {
                    let mut rest = bytes;
                    while rest > 0 {
                        flow.cancel.check()?;
                        let now = rest.min(ZEROS.len() as u64);
                        content.write(ZEROS.get(..now as usize).unwrap_or(&ZEROS))?;
                        rest -= now;
                    }
                    bytes
                }
            };
            Progress::add(&flow.progress.bytes, bytes);
            flow.read_bytes.fetch_add(bytes, Ordering::Relaxed);
            flow.cancel.check()?;
        }
        let problem = why.map(|why| Lost {
            bytes: lost_bytes,
            of_bytes: recipe.size_bytes,
            why,
        });
        Ok((content.finish()?, problem))
    }
}

/// What goes with a directory that is being put together.
struct Dir {
    key: Key,
    marks: u64,
    lost: u64,
}

/// Puts trees together.
struct Joiner<'a> {
    flow: &'a Flow<'a>,
    levels: Levels<'a, Dir>,
    /// What stands before paths of the tree: `SNAPSHOT:`.
    prefix: Vec<u8>,
}

impl<'a> Joiner<'a> {
    fn new(flow: &'a Flow<'a>) -> Self {
        let target = Target {
            ingest: flow.ingest,
            lane: flow.ingest.lane(),
        };
        Self {
            flow,
            levels: Levels::new(Some(target)),
            prefix: Vec::new(),
        }
    }

    /// As [`Worker::run`].
    fn run(mut self, events: &Receiver<Event>, trees: &Sender<Copied>) -> [Result<()>; 2] {
        let copied = self.all(events, trees);
        [copied, self.levels.finish()]
    }

    fn all(&mut self, events: &Receiver<Event>, trees: &Sender<Copied>) -> Result<()> {
        for event in events {
            match event {
                Event::Enter { head, key } => {
                    if self.levels.is_empty() {
                        self.prefix.clone_from(&head.name);
                    }
                    let dir = Dir { key, marks: 0, lost: 0 };
                    self.levels.enter(*head, dir);
                }
                Event::Whole(entry) => self.levels.push(&entry.encode())?,
                Event::Batch(done) => {
                    for done in done.recv().map_err(|_| stopped())? {
                        self.entry(&done)?;
                    }
                }
                Event::Damaged { path, what } => {
                    let what = format!("cannot be read on and is incomplete in the copy: {what}");
                    self.flow
                        .problem([&self.prefix, b"/".as_slice(), &path].concat(), &what);
                    if let Some(dir) = self.levels.last_mut() {
                        dir.lost += 1;
                        dir.marks |= Marks::INCOMPLETE;
                    }
                }
                Event::Leave => {
                    if let Some(copied) = self.leave()? {
                        trees.send(copied).map_err(|_| stopped())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, done: &Done) -> Result<()> {
        if let Some(Lost { bytes, of_bytes, why }) = &done.problem {
            let path = [&self.prefix, self.levels.path(), b"/", &done.entry.name].concat();
            let why = self.flow.causes.lock().tell(why);
            let what = format!("{bytes} of {of_bytes} bytes cannot be read and are a hole in the copy: {why}");
            self.flow.problem(path, &what);
            if let Some(dir) = self.levels.last_mut() {
                dir.lost += 1;
            }
        }
        Progress::add(&self.flow.progress.files, 1);
        self.levels.push(&done.entry.encode())
    }

    /// Completes a directory; a tree if it was the outermost.
    fn leave(&mut self) -> Result<Option<Copied>> {
        let marks = self.levels.last().map_or(0, |dir| dir.marks);
        let Some(left) = self.levels.leave(marks)? else {
            return Ok(None);
        };
        let (tree, lost) = (left.recipe.unwrap_or_default(), left.with.lost);
        if lost == 0 {
            self.flow.memo.put_dir(left.with.key, &tree);
        }
        match self.levels.last_mut() {
            Some(above) => {
                above.lost += lost;
                Ok(None)
            }
            None => Ok(Some(Copied { tree, lost })),
        }
    }
}
