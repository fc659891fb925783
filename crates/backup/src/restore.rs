//! Restoring: a stored tree, or a part of it, becomes files again, in parallel and in place where something is there.
//!
//! - Nothing outside the target is touched: every step goes from a directory's descriptor to a name in it, and
//!   symbolic links are never followed. The target's own path may contain links.
//! - Running it again completes what was interrupted: what is there is verified against the chunks' ids, and only what
//!   differs is read from the vault.
//! - A damaged chunk costs the files that it is in; all others are restored.
//! - Memory is bounded: directories are streamed, queues hold runs of files up to about 1 MiB.
//! - From a place far away, what is read is planned ahead of the threads ([`plan`]): neighbouring frames come in one request.

mod before;
mod content;
mod dir;
mod enter;
pub(crate) mod links;
mod options;
mod plan;
mod sending;
mod share;
pub(crate) mod tally;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, bounded};
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{Progress, Reader, Vault};
use rustix::fs::Stat;

use self::content::Filler;
pub(crate) use self::dir::DIR;
use self::dir::{Dir, Ongoing};
pub use self::options::{Overwrite, RestoreMode, RestoreOptions, Sparse};
use self::plan::{Job, Task};
use self::sending::Sending;
pub use self::tally::{NotSet, RestoreReport};
use self::tally::{Tally, add};
use self::write::Work;
pub use crate::apply::{Owner, Special};
use crate::browse::Selection;
use crate::browse::walk::{Step, TreeWalk};
use crate::error::{Error, Result, spawn_some};
use crate::scope::patterns::Unmatched;

/// Jobs that wait for each thread.
const JOBS_WAITING: usize = 3;

/// The word about a copy that has lost more than its entries say.
pub(crate) const LOST: &str = "more was lost when this snapshot was copied than the entries above: the copy's root directory could not be read to \
                    its end; copy again when the source is mended";

/// Restores what was selected: the content of a directory into the target, which gets the directory's attributes
/// (not for a whole snapshot), or one file into it.
///
/// What is restored is not synced to disk on return. An error ends the run ([`Error::Write`]: the target is full or
/// read-only); what concerns single entries is in the report.
pub fn restore(vault: &Vault, selection: &Selection, options: &RestoreOptions) -> Result<RestoreReport> {
    restore_sample(vault, selection, options, None)
}

/// Says of an entry that is no directory, and its path relative to the target, whether to restore it.
pub(crate) type Sample<'a> = &'a dyn Fn(&[u8], &Entry) -> bool;

/// Restores of what was selected what is in the sample, if there is one, and the directories that lead there.
pub(crate) fn restore_sample(
    vault: &Vault,
    selection: &Selection,
    options: &RestoreOptions,
    sample: Option<Sample<'_>>,
) -> Result<RestoreReport> {
    let reader = vault.reader()?;
    let tally = Tally::default();
    if options.mode == RestoreMode::DryRun {
        Walker::new(&reader, options, sample).count(selection, &tally)?;
        note_lost(selection, (options, sample), &tally);
        return Ok(tally.finish());
    }
    let (target, stat) = Dir::target(&options.target).map_err(|source| Error::Target {
        path: options.target.as_os_str().as_encoded_bytes().to_vec(),
        source,
    })?;
    let filler = Filler {
        reader: &reader,
        hasher: vault.hasher(),
        sparse: options.sparse,
        tally: &tally,
        progress: &options.progress,
        cancel: &options.cancel,
    };
    let work = Work::new(options, filler);
    let threads = options.threads.max(1);
    let (sender, receiver) = bounded(threads * JOBS_WAITING);
    std::thread::scope(|scope| {
        let work = &work;
        let started = spawn_some(scope, threads, move || serve(work, &receiver));
        let sender = Sending::new(work, sender);
        let walker = Walker::new(&reader, options, sample);
        let walked = started.and_then(|()| walker.walk(selection, (target, &stat), sender));
        if let Err(error) = walked {
            work.stop(error);
        }
    });
    work.befores.give_back_all(&work.open);
    note_lost(selection, (options, sample), &tally);
    match work.into_error() {
        Some(error) => Err(error),
        None => Ok(tally.finish()),
    }
}

/// Says of a whole snapshot what no entry of it says.
fn note_lost(selection: &Selection, (options, sample): (&RestoreOptions, Option<Sample<'_>>), tally: &Tally) {
    let is_all = options.include.is_empty() && options.exclude.is_empty() && sample.is_none();
    if is_all && selection.lost() > tally.marked.load(Ordering::Relaxed) {
        tally.incomplete(Vec::new(), LOST);
    }
}

/// One thread of a restore.
fn serve(work: &Work<'_>, receiver: &Receiver<Task>) {
    let mut buffer = Vec::new();
    // What was fetched for a task is let go of when it is done; after a stop at once, since the plan may wait for that.
    for Task { job, fetched: _held } in receiver {
        if work.is_stopped() {
            continue;
        }
        match job {
            Job::Run(run) => run
                .into_iter()
                .for_each(|(ongoing, entry)| work.item(ongoing, entry, &mut buffer)),
            Job::Share(share) => work.share(share, None, &mut buffer),
            Job::Piece(share, start) => work.share(share, Some(start), &mut buffer),
        }
    }
}

/// A directory on the way from the target to what is walked.
struct Level {
    /// Its entry until it is made.
    entry: Option<Entry>,
    ongoing: Option<Arc<Ongoing>>,
    /// It matches an include, or lies in what does.
    chosen: bool,
    failed: bool,
}

/// Walks the stored tree and says what is to be restored.
struct Walker<'a> {
    reader: &'a Reader,
    options: &'a RestoreOptions,
    sample: Option<Sample<'a>>,
    unmatched: Unmatched,
    unmatched_excludes: Unmatched,
}

impl<'a> Walker<'a> {
    fn new(reader: &'a Reader, options: &'a RestoreOptions, sample: Option<Sample<'a>>) -> Self {
        Self {
            reader,
            options,
            sample,
            unmatched: Unmatched::of(&options.include),
            unmatched_excludes: Unmatched::of(&options.exclude),
        }
    }

    /// Looks which patterns match at all.
    fn look(&mut self, path: &[u8], is_dir: bool) {
        self.unmatched.look(path, is_dir);
        self.unmatched_excludes.look(path, is_dir);
    }

    /// Whether this entry matches; `None` if it is left out with all that is in it.
    fn choose(&self, path: &[u8], is_dir: bool, parent_chosen: bool) -> Option<bool> {
        let chosen = parent_chosen || self.options.include.matches(path, is_dir);
        (!self.options.exclude.matches(path, is_dir)).then_some(chosen)
    }

    /// The target, which gets the attributes of `entry`.
    fn top(&self, work: &Work<'_>, entry: Option<&Entry>, (target, stat): (Arc<Dir>, &Stat)) -> Level {
        let ongoing = work.ongoing(target, stat, entry.cloned(), None);
        Level {
            entry: None,
            ongoing: Some(ongoing),
            chosen: self.options.include.is_empty() && self.sample.is_none(),
            failed: false,
        }
    }

    fn walk(mut self, selection: &Selection, target: (Arc<Dir>, &Stat), mut sending: Sending<'_>) -> Result<()> {
        let work = sending.work;
        let Some(tree) = selection.tree() else {
            let mut top = self.top(work, None, target);
            if let (Some(entry), Some(ongoing)) = (selection.entry(), top.ongoing.take()) {
                sending.push(&ongoing, entry.clone());
                sending.finish();
                work.release(ongoing);
            }
            return Ok(());
        };
        let mut levels = vec![self.top(work, selection.entry(), target)];
        let mut walk = TreeWalk::new(self.reader, tree);
        while !work.is_stopped() {
            self.options.cancel.check()?;
            let chosen = levels.last().is_some_and(|level| level.chosen);
            match walk.next() {
                Ok(None) => break,
                Ok(Some(Step::Leave)) => {
                    if let Some(ongoing) = levels.pop().and_then(|level| level.ongoing) {
                        work.release(ongoing);
                    }
                }
                Ok(Some(Step::Entry(entry))) => {
                    self.look(walk.path(), false);
                    let chosen = chosen || self.sample.is_some_and(|sample| sample(walk.path(), &entry));
                    if self.choose(walk.path(), false, chosen) == Some(true)
                        && let Some(ongoing) = ensure(work, &mut levels)
                    {
                        sending.push(&ongoing, entry);
                    }
                }
                Ok(Some(Step::Enter(entry))) => {
                    self.options.progress.set_current(walk.path());
                    self.look(walk.path(), true);
                    let chosen = self.choose(walk.path(), true, chosen);
                    levels.push(Level {
                        entry: Some(entry),
                        ongoing: None,
                        chosen: chosen == Some(true),
                        failed: false,
                    });
                    if chosen.is_none() || chosen == Some(true) && ensure(work, &mut levels).is_none() {
                        walk.skip();
                        levels.pop();
                    }
                }
                Err(error) => note_damage(error, &work.filler, walk.path())?,
            }
        }
        sending.finish();
        while let Some(level) = levels.pop() {
            level.ongoing.into_iter().for_each(|ongoing| work.release(ongoing));
        }
        self.finish(work.filler.tally);
        Ok(())
    }

    /// Says which patterns matched nothing.
    fn finish(self, tally: &Tally) {
        tally.unmatched(self.unmatched.names(), self.unmatched_excludes.names());
    }

    /// Counts what a walk would restore.
    fn count(mut self, selection: &Selection, tally: &Tally) -> Result<()> {
        let count_entry = |path: &[u8], entry: &Entry| {
            add(&tally.files, 1);
            if let Some(flaw) = entry.flaw() {
                tally.incomplete(path.to_vec(), flaw);
            }
            if let Kind::File(recipe) = &entry.kind {
                add(&tally.bytes, recipe.size_bytes);
            }
        };
        let Some(tree) = selection.tree() else {
            let entries = selection.entry().into_iter();
            entries.for_each(|entry| count_entry(&entry.name, entry));
            return Ok(());
        };
        let mut chosen = vec![self.options.include.is_empty()];
        let mut walk = TreeWalk::new(self.reader, tree);
        loop {
            self.options.cancel.check()?;
            let parent_chosen = chosen.last().is_some_and(|chosen| *chosen);
            match walk.next() {
                Ok(None) => {
                    self.finish(tally);
                    return Ok(());
                }
                Ok(Some(Step::Leave)) => drop(chosen.pop()),
                Ok(Some(Step::Entry(entry))) => {
                    self.look(walk.path(), false);
                    if self.choose(walk.path(), false, parent_chosen) == Some(true) {
                        count_entry(walk.path(), &entry);
                    }
                }
                Ok(Some(Step::Enter(entry))) => {
                    self.look(walk.path(), true);
                    match self.choose(walk.path(), true, parent_chosen) {
                        None => walk.skip(),
                        Some(is_chosen) => {
                            if let Some(flaw) = entry.flaw().filter(|_| is_chosen) {
                                tally.incomplete(walk.path().to_vec(), flaw);
                            }
                            add(&tally.dirs, is_chosen.into());
                            chosen.push(is_chosen);
                        }
                    }
                }
                Err(error) if error.is_damage() => tally.problem(walk.path().to_vec(), &error.to_string()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn note_damage(error: Error, filler: &Filler<'_>, path: &[u8]) -> Result<()> {
    if !error.is_damage() {
        return Err(error);
    }
    Progress::add(&filler.progress.problems, 1);
    let what = format!("the rest of this directory cannot be read: {error}");
    filler.tally.problem(path.to_vec(), &what);
    Ok(())
}

/// The innermost directory of `levels` (which keep it, so that letting go of the answer is never the last), made with those above it where that has not been done; `None` if that failed.
fn ensure(work: &Work<'_>, levels: &mut [Level]) -> Option<Arc<Ongoing>> {
    if let Some(Level {
        ongoing: Some(ongoing), ..
    }) = levels.last()
    {
        return Some(ongoing.clone());
    }
    let made = levels.iter().rposition(|level| level.ongoing.is_some())?;
    let (above, below) = levels.split_at_mut_checked(made + 1)?;
    let mut parent = above.last()?.ongoing.clone()?;
    for level in below {
        if level.failed {
            return None;
        }
        let entry = level.entry.take()?;
        let name = entry.name.clone();
        match work.enter(&parent, entry) {
            Ok(ongoing) => {
                level.ongoing = Some(ongoing.clone());
                parent = ongoing;
            }
            Err(failure) => {
                level.failed = true;
                work.fail(failure, || parent.dir.path(&name));
                return None;
            }
        }
    }
    Some(parent)
}
