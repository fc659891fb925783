//! Makes jobs of entries: small files in runs, large ones for several threads. Far from the vault, jobs go through a plan.
//!
//! - A run holds neighbouring files, so that the thread that takes it opens few frames.
//! - Planning reports no error: the thread that does the job meets it again.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{FrameAt, Reader};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::content::SHARE_BYTES;
use super::dir::Ongoing;
use super::links::{Identity, identity};
use super::plan::{Job, Plan, Task};
use super::share::Share;
use super::write::Work;

/// Entries that one thread takes at once, at most.
const RUN_ENTRIES: usize = 64;
/// Bytes of files and attributes after which such a run is closed.
const RUN_BYTES: u64 = 1 << 20;
/// Size from which several threads work on one file, bytes.
const SHARED_BYTES: u64 = 4 * SHARE_BYTES;
/// Sealed bytes of a job that are planned at most; what one file needs beyond that is read frame by frame.
const PLANNED_BYTES: u64 = 16 << 20;
/// Memory of an entry beside its name, attributes and recipe, bytes.
const ENTRY_BYTES: usize = 400;

/// Gathers entries into jobs for the threads.
pub(super) struct Sending<'a> {
    pub(super) work: &'a Work<'a>,
    sender: Sender<Task>,
    run: Vec<(Arc<Ongoing>, Entry)>,
    run_bytes: u64,
    plan: Option<Plan<'a>>,
    /// The next job of the plan, which the threads had no time for yet.
    ready: Option<Task>,
    /// Files with several names that were planned: the other names read nothing.
    planned: HashSet<Identity>,
}

/// Estimates the memory that an entry takes.
fn entry_bytes(entry: &Entry) -> usize {
    let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    let parts = match &entry.kind {
        Kind::File(recipe) => recipe.parts.len(),
        _ => 0,
    };
    ENTRY_BYTES + entry.name.len() + attributes + parts * size_of::<Part>()
}

impl<'a> Sending<'a> {
    pub(super) fn new(work: &'a Work<'a>, sender: Sender<Task>) -> Self {
        let reader = work.filler.reader;
        Self {
            work,
            sender,
            run: Vec::new(),
            run_bytes: 0,
            plan: reader.is_far().then(|| Plan::new(reader)),
            ready: None,
            planned: HashSet::new(),
        }
    }

    /// Adds an entry that is no directory.
    pub(super) fn push(&mut self, ongoing: &Arc<Ongoing>, entry: Entry) {
        let size = match &entry.kind {
            Kind::File(Recipe { size_bytes, .. }) => *size_bytes,
            _ => 0,
        };
        if size >= SHARED_BYTES && identity(&entry).is_none() {
            self.flush();
            return match &self.plan {
                Some(_) => self.plan_pieces(ongoing, entry),
                None => self.send_shares(&Arc::new(Share::new(ongoing.clone(), entry))),
            };
        }
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.run_bytes = self.run_bytes.saturating_add(size).saturating_add(attributes as u64);
        self.run.push((ongoing.clone(), entry));
        if self.run.len() >= RUN_ENTRIES || self.run_bytes >= RUN_BYTES {
            self.flush();
        }
    }

    /// Hands over everything that waits.
    pub(super) fn finish(&mut self) {
        self.flush();
        while !self.work.is_stopped()
            && let Some(task) = self.ready.take().or_else(|| self.plan.as_mut()?.next_left())
        {
            self.send(task);
        }
    }

    fn flush(&mut self) {
        self.run_bytes = 0;
        if self.run.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.run);
        if self.plan.is_none() {
            return self.send_now(Job::Run(run));
        }
        let frames = run.iter().flat_map(|(ongoing, entry)| self.frames(ongoing, entry));
        let frames: Vec<FrameAt> = frames.collect();
        self.planned.extend(run.iter().filter_map(|(_, entry)| identity(entry)));
        let bytes = run.iter().map(|(_, entry)| entry_bytes(entry)).sum();
        self.plan_job(Job::Run(run), frames, bytes);
    }

    fn send_shares(&self, share: &Arc<Share>) {
        for _ in 0..self.work.options.threads {
            self.send_now(Job::Share(share.clone()));
        }
    }

    fn send_now(&self, job: Job) {
        let fetched = None;
        self.send(Task { job, fetched });
    }

    fn send(&self, task: Task) {
        // Fails only when all threads have ended, and then the error is known.
        let _ = self.sender.send(task);
    }

    /// Returns true if the content of this entry will be read from the vault. A file that exists is compared first, and may need nothing.
    fn is_missing(&self, ongoing: &Ongoing, entry: &Entry) -> bool {
        let is_done = identity(entry).is_some_and(|identity| self.planned.contains(&identity));
        let is_new = || {
            let at = self.work.open.fd(&ongoing.dir);
            let there = at.and_then(|at| statat(at.as_fd(), entry.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW));
            matches!(there, Err(Errno::NOENT))
        };
        !is_done && (ongoing.dir.is_new || is_new())
    }

    /// Returns the frames that a file is read from.
    fn frames(&self, ongoing: &Ongoing, entry: &Entry) -> Vec<FrameAt> {
        let Kind::File(recipe) = &entry.kind else {
            return Vec::new();
        };
        if recipe.parts.is_empty() || !self.is_missing(ongoing, entry) {
            return Vec::new();
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        for part in self.work.filler.reader.parts(recipe).map_while(Result::ok) {
            add_frame(self.work.filler.reader, &part, &mut frames);
            bytes += part.bytes();
            if bytes >= PLANNED_BYTES {
                break;
            }
        }
        frames
    }

    /// Plans a large file in pieces.
    fn plan_pieces(&mut self, ongoing: &Arc<Ongoing>, entry: Entry) {
        let is_missing = self.is_missing(ongoing, &entry);
        let reader = self.work.filler.reader;
        let Kind::File(recipe) = &entry.kind else { return };
        let mut parts = reader.parts(recipe);
        let share = Arc::new(Share::new(ongoing.clone(), entry));
        let (mut piece, mut frames) = (0, Vec::new());
        while !self.work.is_stopped() {
            let start = parts.offset() / SHARE_BYTES * SHARE_BYTES;
            let part = parts.next();
            if start > piece || part.is_none() {
                let done = std::mem::take(&mut frames);
                self.plan_job(Job::Piece(share.clone(), piece), done, 0);
                piece = start;
            }
            match part {
                Some(Ok(part)) if is_missing => add_frame(reader, &part, &mut frames),
                Some(_) => {}
                None => break,
            }
        }
    }

    /// Lets a job wait in the plan, and hands over what is due.
    fn plan_job(&mut self, job: Job, frames: Vec<FrameAt>, entry_bytes: usize) {
        if let Some(plan) = &mut self.plan {
            plan.push(job, frames, entry_bytes);
        }
        while let Some(plan) = self.plan.as_mut().filter(|_| !self.work.is_stopped()) {
            plan.fetch_ahead();
            let is_full = plan.is_full();
            let Some(task) = self.ready.take().or_else(|| plan.next_ripe()) else {
                return;
            };
            match self.sender.try_send(task) {
                Err(TrySendError::Full(task)) if is_full => self.send(task),
                Err(TrySendError::Full(task)) => {
                    self.ready = Some(task);
                    return;
                }
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

/// Adds the frame of this part, if it has one.
fn add_frame(reader: &Reader, part: &Part, frames: &mut Vec<FrameAt>) {
    if let Part::Chunk { id, .. } = part
        && let Ok(Some(frame)) = reader.frame_of(id)
        && frames.last() != Some(&frame)
    {
        frames.push(frame);
    }
}
