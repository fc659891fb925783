//! Plans what a restore reads from a place far away: neighbouring frames of a pack come in one request.
//!
//! - Jobs wait in a window until it is known what follows them. Then most of what the restore wants of a pack is known before the
//!   first frame of it is needed, and one request or two bring it.
//! - The plan makes requests in the order of jobs, as many as there is room for. Only the thread that needs a frame waits for it.
//! - It fetches only what is wanted, and small gaps: one small file out of many costs a frame.
//! - Memory is bounded: the window by the bytes of its entries, what is fetched by the vault. Where there is no room, threads read
//!   frame by frame. The plan waits for room only while jobs are at work that will free some, so it never waits for itself.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use drystone_format::PackId;
use drystone_format::tree::Entry;
use drystone_vault::{Fetched, FrameAt, FrameRange, Reader};
use parking_lot::{Condvar, Mutex};

use super::dir::Ongoing;
use super::share::Share;

/// Sealed bytes that must be known to follow a job before anything is fetched for it: about three packs.
const LOOKAHEAD_BYTES: u64 = 48 << 20;
/// Memory that the entries of waiting jobs take at most, bytes.
const WINDOW_BYTES: usize = 8 << 20;
/// Memory of a job beside its entries, bytes.
const JOB_BYTES: usize = 200;
/// Memory of a frame that is wanted, bytes.
const FRAME_BYTES: usize = 200;

/// Work for one thread.
pub(super) enum Job {
    /// Entries one after the other.
    Run(Vec<(Arc<Ongoing>, Entry)>),
    /// A large file, together with others.
    Share(Arc<Share>),
    /// The piece of a large file that begins at this byte.
    Piece(Arc<Share>, u64),
}

/// A job, and what was fetched for it.
pub(super) struct Task {
    pub(super) job: Job,
    pub(super) fetched: Option<Held>,
}

/// Frames that a job at work holds on to.
pub(super) struct Held {
    ranges: Vec<Arc<Fetched>>,
    flight: Arc<Flight>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ranges.clear();
        let mut state = self.flight.0.lock();
        state.0 -= 1;
        state.1 += 1;
        self.flight.1.notify_all();
    }
}

/// Counts the jobs at work that hold frames, and those that have ended.
#[derive(Default)]
struct Flight(Mutex<(usize, u64)>, Condvar);

impl Flight {
    fn ended(&self) -> u64 {
        self.0.lock().1
    }

    /// Waits until more than `ended` jobs have ended. Returns false at once if none is at work.
    fn wait(&self, ended: u64) -> bool {
        let mut state = self.0.lock();
        while state.1 == ended {
            if state.0 == 0 {
                return false;
            }
            self.1.wait(&mut state);
        }
        true
    }
}

/// A job that waits.
struct Waiting {
    job: Job,
    frames: Vec<FrameAt>,
    held_bytes: usize,
    /// Sealed bytes that were wanted up to this job.
    mark_bytes: u64,
}

/// A frame that jobs in the window want.
#[derive(Default)]
struct Wanted {
    jobs: usize,
    fetched: Option<Arc<Fetched>>,
}

/// The jobs that wait, and the frames that they want.
pub(super) struct Plan<'a> {
    reader: &'a Reader,
    window: VecDeque<Waiting>,
    /// So many jobs at its front have their frames, or will have.
    begun: usize,
    wanted: HashMap<PackId, BTreeMap<FrameAt, Wanted>>,
    wanted_bytes: u64,
    held_bytes: usize,
    flight: Arc<Flight>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        Self {
            reader,
            window: VecDeque::new(),
            begun: 0,
            wanted: HashMap::new(),
            wanted_bytes: 0,
            held_bytes: 0,
            flight: Arc::default(),
        }
    }

    /// Adds a job that will read these frames, and whose entries take `entry_bytes` of memory.
    pub(super) fn push(&mut self, job: Job, mut frames: Vec<FrameAt>, entry_bytes: usize) {
        frames.sort_unstable();
        frames.dedup();
        for frame in &frames {
            let wanted = self.wanted.entry(frame.pack).or_default().entry(*frame).or_default();
            if wanted.jobs == 0 {
                self.wanted_bytes += u64::from(frame.bytes);
            }
            wanted.jobs += 1;
        }
        let held_bytes = entry_bytes + JOB_BYTES + frames.len() * FRAME_BYTES;
        self.held_bytes += held_bytes;
        self.window.push_back(Waiting {
            job,
            frames,
            held_bytes,
            mark_bytes: self.wanted_bytes,
        });
    }

    /// Returns true if no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.held_bytes >= WINDOW_BYTES
    }

    /// Returns true if enough is known of what follows this job.
    fn is_ripe(&self, at: usize) -> bool {
        let mark_bytes = self.window.get(at).map(|waiting| waiting.mark_bytes);
        mark_bytes.is_some_and(|mark| self.is_full() || self.wanted_bytes - mark >= LOOKAHEAD_BYTES)
    }

    /// Returns the next job if enough is known of what follows it.
    pub(super) fn next_ripe(&mut self) -> Option<Task> {
        self.next(|plan, at| plan.is_ripe(at))
    }

    /// Returns the next job, if there is one. Nothing more will be pushed.
    pub(super) fn next_left(&mut self) -> Option<Task> {
        self.next(|_, _| true)
    }

    /// Fetches as far ahead as there is room, for jobs of which enough is known.
    pub(super) fn fetch_ahead(&mut self) {
        self.fetch_while(Self::is_ripe);
    }

    fn fetch_while(&mut self, is_ripe: impl Fn(&Self, usize) -> bool) {
        while self.begun < self.window.len() && is_ripe(self, self.begun) {
            if !self.begin_in_room(self.begun) {
                return;
            }
            self.begun += 1;
        }
    }

    fn next(&mut self, is_ripe: impl Fn(&Self, usize) -> bool) -> Option<Task> {
        self.fetch_while(&is_ripe);
        if self.begun == 0 {
            if !is_ripe(self, 0) {
                return None;
            }
            self.begin_first();
        }
        let waiting = self.window.pop_front()?;
        self.begun = self.begun.saturating_sub(1);
        self.held_bytes -= waiting.held_bytes;
        let fetched = self.release(&waiting.frames);
        Some(Task {
            job: waiting.job,
            fetched,
        })
    }

    /// Begins to fetch what a job wants, and makes room for it by freeing what is not wanted. Returns false if there was too little.
    fn begin_in_room(&mut self, at: usize) -> bool {
        self.begin(at) || self.compact() && self.begin(at)
    }

    /// Begins to fetch what a job wants. Returns false if there was no room for all of it.
    fn begin(&mut self, at: usize) -> bool {
        let frames = self.window.get(at).map(|waiting| waiting.frames.clone());
        frames.unwrap_or_default().iter().all(|frame| self.fetch(frame))
    }

    /// Begins to fetch a frame, with all that the window wants beside it. Returns false if there was no room.
    fn fetch(&mut self, frame: &FrameAt) -> bool {
        let Some(pack) = self.wanted.get(&frame.pack) else {
            return true;
        };
        let is_begun = pack.get(frame).is_none_or(|wanted| wanted.fetched.is_some());
        if is_begun || self.reader.has_frame(frame) {
            return true;
        }
        let open = pack.iter().filter(|(_, wanted)| wanted.fetched.is_none());
        let ranges = self.reader.requests(open.map(|(frame, _)| *frame).collect());
        let Some(range) = ranges.iter().find(|range| range.covers(frame)) else {
            return true;
        };
        self.fetch_range(range)
    }

    /// Begins to fetch a range, for all that want it. Returns false if there was no room.
    fn fetch_range(&mut self, range: &FrameRange) -> bool {
        let Some(fetched) = self.reader.fetch_held(range).map(Arc::new) else {
            return false;
        };
        let wanted = self.wanted.get_mut(&range.pack).into_iter().flatten();
        for (_, wanted) in wanted.filter(|(frame, _)| range.covers(frame)) {
            wanted.fetched.get_or_insert_with(|| fetched.clone());
        }
        true
    }

    /// Frees what was fetched between the frames that are still wanted, where that is most of it. Returns true if it freed anything.
    fn compact(&mut self) -> bool {
        let mut ranges: HashMap<*const Fetched, (u64, Vec<FrameAt>)> = HashMap::new();
        for (frame, wanted) in self.wanted.values().flatten() {
            if let Some(fetched) = &wanted.fetched {
                let (bytes, frames) = ranges.entry(Arc::as_ptr(fetched)).or_default();
                *bytes += u64::from(frame.bytes);
                frames.push(*frame);
            }
        }
        let mut has_freed = false;
        for (wanted_bytes, frames) in ranges.into_values() {
            has_freed |= self.keep_only(wanted_bytes, &frames);
        }
        has_freed
    }

    /// Frees all but these frames of the range that they came in, unless a job at work holds it.
    fn keep_only(&mut self, wanted_bytes: u64, frames: &[FrameAt]) -> bool {
        let wanted = self.wanted.values_mut().flatten();
        let is_meant = |frame: &FrameAt| frames.binary_search(frame).is_ok();
        let held = wanted.filter(|(frame, _)| is_meant(frame));
        let mut held: Vec<&mut Option<Arc<Fetched>>> = held.map(|(_, wanted)| &mut wanted.fetched).collect();
        let Some(range) = held.first().and_then(|fetched| fetched.as_ref()) else {
            return false;
        };
        let is_dense = 2 * wanted_bytes > range.held_bytes();
        if is_dense || !range.is_here() || Arc::strong_count(range) > held.len() {
            return false;
        }
        let mut taken: Vec<Arc<Fetched>> = held.iter_mut().filter_map(|fetched| fetched.take()).collect();
        let range = taken.pop();
        drop(taken);
        let kept = range
            .and_then(Arc::into_inner)
            .and_then(|range| range.keep_only(frames));
        let kept = kept.map(Arc::new);
        held.into_iter().for_each(|fetched| fetched.clone_from(&kept));
        true
    }

    /// Begins to fetch what the first job wants. Makes room: waits for jobs at work, then fetches less, then drops what was fetched for
    /// later jobs.
    fn begin_first(&mut self) {
        loop {
            let ended = self.flight.ended();
            if self.begin_in_room(0) {
                return;
            }
            if !self.flight.wait(ended) {
                break;
            }
        }
        let waiting = self.window.front().map(|waiting| waiting.frames.clone());
        let first = waiting.unwrap_or_default();
        if self.begin_alone(&first) {
            return;
        }
        for (frame, wanted) in self.wanted.values_mut().flatten() {
            if first.binary_search(frame).is_err() {
                wanted.fetched = None;
            }
        }
        // What finds no room even now is read frame by frame.
        self.begin_alone(&first);
    }

    /// Begins to fetch these frames, and nothing that is wanted beside them. Returns false if there was no room for all of them.
    fn begin_alone(&mut self, frames: &[FrameAt]) -> bool {
        let wanted = &self.wanted;
        let is_open = |frame: &&FrameAt| {
            let wanted = wanted.get(&frame.pack).and_then(|pack| pack.get(*frame));
            wanted.is_some_and(|wanted| wanted.fetched.is_none())
        };
        let open = frames.iter().filter(is_open).copied().collect();
        let ranges = self.reader.requests(open);
        ranges.iter().all(|range| self.fetch_range(range))
    }

    /// Takes the frames of a job that leaves the window.
    fn release(&mut self, frames: &[FrameAt]) -> Option<Held> {
        let mut ranges: Vec<Arc<Fetched>> = Vec::new();
        for frame in frames {
            let Slot::Occupied(mut pack) = self.wanted.entry(frame.pack) else {
                continue;
            };
            let Some(wanted) = pack.get_mut().get_mut(frame) else {
                continue;
            };
            if let Some(fetched) = &wanted.fetched
                && !ranges.iter().any(|range| Arc::ptr_eq(range, fetched))
            {
                ranges.push(fetched.clone());
            }
            wanted.jobs -= 1;
            if wanted.jobs == 0 {
                pack.get_mut().remove(frame);
            }
            if pack.get().is_empty() {
                pack.remove();
            }
        }
        if ranges.is_empty() {
            return None;
        }
        self.flight.0.lock().0 += 1;
        let flight = self.flight.clone();
        Some(Held { ranges, flight })
    }
}
