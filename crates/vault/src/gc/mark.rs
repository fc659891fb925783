//! Marking: which chunks do the roots need, of whatever kind they are? Trees and recipes are read by several threads, each of them once.
//!
//! - What cannot be read stops it, with its name: nothing is deleted on incomplete knowledge.
//! - Data is not read, and need not be there: what is lost already keeps nothing else.
//! - Memory: eight bytes a live chunk, and eight more if it is metadata; the levels of a hostile tree are bounded, and so is the list of trees seen.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use drystone_format::kinds::Kept;
use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::recipe::{Part, Recipe, decode_node};
use drystone_format::seal::PackKind;
use drystone_format::tree::Kind;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::gc::live::Keys;
use crate::health::check::fingerprint;
use crate::parallel;
use crate::progress::{Cancel, Progress};
use crate::reading::content::TreeReader;
use crate::reading::reader::Reader;

/// Trees and parts of recipes remembered, 16 bytes each; more are read again when they are met again.
const ENTERED_MAX: usize = 4 << 20;
/// Trees that wait for a thread that has nothing to do.
const OFFERED_MAX: usize = 1024;

pub(crate) struct Marker<'a> {
    pub(crate) reader: Reader,
    pub(crate) threads: usize,
    /// What the levels of one tree may hold at once.
    pub(crate) memory_bytes: usize,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a Cancel,
    pub(crate) live: Keys<u64>,
    /// Those of them that are parts of trees or nodes of recipes.
    pub(crate) meta: Keys<u64>,
    pub(crate) entered: Keys<u128>,
    pub(crate) entered_count: AtomicUsize,
}

/// What a root or a directory keeps alive, and how a person would name it.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) kept: Kept,
    pub(crate) path: Vec<u8>,
}

/// A directory whose entries are being looked at.
struct Level {
    entries: TreeReader,
    path_bytes: usize,
    above_bytes: usize,
}

impl Marker<'_> {
    /// Marks everything that is kept alive.
    pub(crate) fn mark(&self, roots: Vec<Job>) -> Result<()> {
        let jobs = Jobs::new(roots);
        let failure = Mutex::new(None);
        parallel::workers(self.threads, || {
            while let Some(job) = jobs.take() {
                let walked = self.walk(job, &jobs);
                jobs.done();
                if let Err(error) = walked {
                    failure.lock().get_or_insert(error);
                    jobs.stop();
                }
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    fn walk(&self, job: Job, jobs: &Jobs) -> Result<()> {
        let (tree, mut path) = match job {
            Job {
                kept: Kept::Stream(recipe),
                path,
            } => return self.stream(&recipe, &path),
            Job {
                kept: Kept::Tree(tree),
                path,
            } => (tree, path),
        };
        let mut levels = Vec::new();
        self.enter(&tree, &path, &mut levels)?;
        while let Some(level) = levels.last_mut() {
            self.cancel.check()?;
            path.truncate(level.path_bytes);
            let Some(entry) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let entry = entry.map_err(|error| unmarked(&path, error))?;
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            Progress::add(&self.progress.files, 1);
            match &entry.kind {
                Kind::Dir(recipe) if jobs.offer(recipe, &path) => {}
                Kind::Dir(recipe) => self.enter(recipe, &path, &mut levels)?,
                Kind::File(recipe) => self.stream(recipe, &path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn stream(&self, recipe: &Recipe, path: &[u8]) -> Result<()> {
        self.recipe(recipe, PackKind::Data)
            .map_err(|error| unmarked(path, error))
    }

    fn enter(&self, recipe: &Recipe, path: &[u8], levels: &mut Vec<Level>) -> Result<()> {
        if !self.is_first(fingerprint(recipe)) {
            return Ok(());
        }
        let above_bytes = levels
            .last()
            .map_or(0, |level| level.above_bytes + level.entries.held_bytes());
        if levels.len() >= TREE_DEPTH_MAX || above_bytes > self.memory_bytes {
            return Err(Error::Unmarked {
                object: String::from_utf8_lossy(path).into_owned(),
                why: "nested too deeply".to_owned(),
                is_missing: false,
            });
        }
        self.recipe(recipe, PackKind::Meta)
            .map_err(|error| unmarked(path, error))?;
        levels.push(Level {
            entries: self.reader.tree(recipe),
            path_bytes: path.len(),
            above_bytes,
        });
        Ok(())
    }

    /// Forgets which trees were entered, so that all are walked again. What is marked stays marked.
    pub(crate) fn begin_again(&mut self) {
        self.entered = Keys::new();
        self.entered_count = AtomicUsize::new(0);
    }

    /// Whether this is the first time, as far as is remembered.
    fn is_first(&self, key: u128) -> bool {
        if self.entered_count.load(Ordering::Relaxed) >= ENTERED_MAX {
            return true;
        }
        let is_first = self.entered.insert_wide(key);
        if is_first {
            self.entered_count.fetch_add(1, Ordering::Relaxed);
        }
        is_first
    }

    /// Marks the chunks of a recipe of a stream of this kind, those of its nodes included.
    fn recipe(&self, recipe: &Recipe, stream: PackKind) -> Result<()> {
        let mut stack = vec![(recipe.depth, recipe.parts.clone().into_iter())];
        while let Some((depth, parts)) = stack.last_mut() {
            // Once the list of those entered is full, a hostile recipe may take as long as it states.
            self.cancel.check()?;
            let (depth, Some(part)) = (*depth, parts.next()) else {
                stack.pop();
                continue;
            };
            let Part::Chunk { id, bytes } = part else { continue };
            self.live.insert_chunk(&id);
            if depth > 0 || stream == PackKind::Meta {
                self.meta.insert_chunk(&id);
            }
            let wide = id.0.first_chunk().map_or(0, |first| u128::from_be_bytes(*first));
            // The depth is part of it: the same bytes may be data elsewhere.
            if depth > 0 && self.is_first(wide ^ u128::from(depth)) {
                let parts = decode_node(&self.reader.chunk(&id)?, depth, bytes)?;
                stack.push((depth - 1, parts.into_iter()));
            }
        }
        Ok(())
    }
}

/// What stops the mark at this path. Only damage is a matter of the snapshot: a place that does not answer, or the wish to stop, is none.
pub(super) fn unmarked(path: &[u8], error: Error) -> Error {
    if !error.is_damage() || error.is_absence() {
        return error;
    }
    Error::Unmarked {
        object: String::from_utf8_lossy(path).into_owned(),
        is_missing: matches!(error, Error::MissingChunk { .. }),
        why: error.to_string(),
    }
}

/// Trees for threads that have nothing to do.
struct Jobs {
    state: Mutex<State>,
    wake: Condvar,
    is_wanted: AtomicBool,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Trees that threads walk now.
    walked: usize,
    /// Threads that wait for a tree.
    idle: usize,
    is_over: bool,
}

impl Jobs {
    fn new(jobs: Vec<Job>) -> Self {
        let state = State {
            jobs,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// The next tree, or none once no thread walks one any more: only they offer others.
    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.walked += 1;
                self.is_wanted.store(state.idle > 0, Ordering::Relaxed);
                return Some(job);
            }
            if state.walked == 0 {
                state.is_over = true;
                self.wake.notify_all();
                return None;
            }
            state.idle += 1;
            self.is_wanted.store(true, Ordering::Relaxed);
            self.wake.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// Says that a tree which was taken is walked.
    fn done(&self) {
        let mut state = self.state.lock();
        state.walked -= 1;
        if state.walked == 0 {
            self.wake.notify_all();
        }
    }

    /// Hands a tree to another thread, if one has nothing to do.
    fn offer(&self, tree: &Recipe, path: &[u8]) -> bool {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state.lock();
        if state.idle == 0 || state.jobs.len() >= OFFERED_MAX {
            return false;
        }
        state.jobs.push(Job {
            kept: Kept::Tree(tree.clone()),
            path: path.to_vec(),
        });
        self.wake.notify_one();
        true
    }

    fn stop(&self) {
        self.state.lock().is_over = true;
        self.wake.notify_all();
    }
}
