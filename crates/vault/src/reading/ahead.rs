//! Sealed bytes of packs that were fetched before anybody asked for the frames in them.
//!
//! - A fetch only saves requests. If it fails, is dropped or finds no room, readers ask for frames one by one, and report what is wrong.
//! - Bytes stay sealed as they came. The reader that opens a frame authenticates it (I6).
//! - The table is bounded in bytes. Ranges that nobody holds make room for new ones, oldest first (I7).
//! - The runtime waits for the place; no CPU work runs on it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_store::{Name, Range};
use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;

use super::range::{FrameAt, FrameRange};
use crate::places::place::Place;

/// How long what was fetched is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Until its [`Fetched`] is dropped.
    WhileHeld,
    /// Until there is no room for what is fetched later.
    WhileThereIsRoom,
}

/// Of the largest requests, how many find room at once: one is on its way while the other is read.
const REQUESTS_AT_ONCE: u64 = 2;
/// What nobody holds takes at most one part of this many of the room.
const LOOSE_MAX_SHARE: u64 = 2;
/// What nobody holds makes room for what somebody holds until it has only one part of this many: a restore would else read the same metadata
/// again and again.
const LOOSE_KEPT_SHARE: u64 = 4;

enum State {
    Coming,
    Here(Bytes),
    Failed,
}

/// One range, on its way or here.
struct Sealed {
    offset: u64,
    bytes: u64,
    ends_pack: bool,
    state: Mutex<State>,
    settled: Condvar,
}

impl Sealed {
    fn end(&self) -> u64 {
        self.offset + self.bytes
    }

    fn covers(&self, offset: u64, bytes: u64) -> bool {
        self.offset <= offset && offset + bytes <= self.end()
    }

    fn settle(&self, to: State) {
        let mut state = self.state.lock();
        if matches!(*state, State::Coming) {
            *state = to;
        }
        self.settled.notify_all();
    }

    /// Returns the bytes if they are here already.
    fn now(&self) -> Option<Bytes> {
        match &*self.state.lock() {
            State::Here(bytes) => Some(bytes.clone()),
            State::Coming | State::Failed => None,
        }
    }

    /// Returns a part of the pack out of `all` of this range.
    fn part(&self, all: &Bytes, offset: u64, bytes: u64) -> Option<Bytes> {
        let start = offset.checked_sub(self.offset)? as usize;
        let end = start + bytes as usize;
        (end <= all.len()).then(|| all.slice(start..end))
    }

    /// Waits until the bytes are here. Returns `None` if they do not come.
    fn wait(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        while matches!(*state, State::Coming) {
            self.settled.wait(&mut state);
        }
        match &*state {
            State::Here(bytes) => Some(bytes.clone()),
            State::Coming | State::Failed => None,
        }
    }
}

/// Settles a range when it is dropped, so that readers who wait wake up even if the runtime drops the task.
struct Promise(Arc<Sealed>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.settle(State::Failed);
    }
}

/// A range as the table knows it.
struct Entry {
    number: u64,
    keep: Keep,
    /// What it takes of the room.
    cost_bytes: u64,
    sealed: Arc<Sealed>,
    /// Brings the bytes, unless they were here from the start.
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Table {
    packs: HashMap<PackId, Vec<Entry>>,
    /// Those that nobody holds on to, oldest first; some of them may be gone.
    loose: VecDeque<(PackId, u64)>,
    limit_bytes: u64,
    used_bytes: u64,
    loose_bytes: u64,
    next: u64,
}

impl Table {
    fn remove(&mut self, pack: &PackId, number: u64) {
        let Some(entries) = self.packs.get_mut(pack) else {
            return;
        };
        let Some(at) = entries.iter().position(|entry| entry.number == number) else {
            return;
        };
        let entry = entries.swap_remove(at);
        if entries.is_empty() {
            self.packs.remove(pack);
        }
        if let Some(task) = entry.task {
            task.abort();
        }
        self.used_bytes -= entry.cost_bytes;
        if entry.keep == Keep::WhileThereIsRoom {
            self.loose_bytes -= entry.cost_bytes;
        }
    }

    /// Returns true if `cost_bytes` more fit, of what is kept like this.
    fn fits(&self, cost_bytes: u64, keep: Keep) -> bool {
        let limit_bytes = self.limit_bytes;
        let held_bytes = self.used_bytes - self.loose_bytes;
        match keep {
            Keep::WhileHeld => {
                let loose_bytes = self.loose_bytes.max(limit_bytes / LOOSE_KEPT_SHARE);
                held_bytes + cost_bytes + loose_bytes <= limit_bytes
            }
            Keep::WhileThereIsRoom => {
                let loose_bytes = self.loose_bytes + cost_bytes;
                loose_bytes <= limit_bytes / LOOSE_MAX_SHARE && held_bytes + loose_bytes <= limit_bytes
            }
        }
    }

    /// Drops loose ranges until there is room for `cost_bytes`. Returns false if there is none even then.
    fn make_room(&mut self, cost_bytes: u64, keep: Keep) -> bool {
        let least_bytes = match keep {
            Keep::WhileHeld => self.limit_bytes / LOOSE_KEPT_SHARE,
            Keep::WhileThereIsRoom => 0,
        };
        while !self.fits(cost_bytes, keep) {
            let oldest = (self.loose_bytes > least_bytes).then(|| self.loose.pop_front());
            let Some((pack, number)) = oldest.flatten() else {
                return false;
            };
            self.remove(&pack, number);
        }
        true
    }

    /// Adds a range, for which there must be room. Returns the number under which it is known.
    fn add(&mut self, pack: PackId, keep: Keep, cost_bytes: u64, coming: (Arc<Sealed>, Option<AbortHandle>)) -> u64 {
        let number = self.next;
        self.next += 1;
        self.used_bytes += cost_bytes;
        if keep == Keep::WhileThereIsRoom {
            self.loose_bytes += cost_bytes;
            self.loose.push_back((pack, number));
        }
        let (sealed, task) = coming;
        self.packs.entry(pack).or_default().push(Entry {
            number,
            keep,
            cost_bytes,
            sealed,
            task,
        });
        number
    }
}

/// What was fetched ahead, for all readers of a vault.
pub(crate) struct Ahead {
    place: Place,
    limit_bytes: u64,
    table: Arc<Mutex<Table>>,
}

/// Sealed frames that were fetched ahead, and are kept while this is.
pub struct Fetched {
    table: Arc<Mutex<Table>>,
    held: Vec<(PackId, u64)>,
    bytes: u64,
}

impl Fetched {
    /// Returns the memory that it takes, bytes.
    pub fn held_bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true if nothing of it is on its way any more.
    pub fn is_here(&self) -> bool {
        let table = self.table.lock();
        self.held.iter().all(|(pack, number)| {
            let entries = table.packs.get(pack).into_iter().flatten();
            let mut held = entries.filter(|entry| entry.number == *number);
            held.all(|entry| !matches!(*entry.sealed.state.lock(), State::Coming))
        })
    }

    /// Keeps only these frames, and frees the rest. Returns `None`, and frees all of it, if some are not here yet or there is no room.
    pub fn keep_only(self, frames: &[FrameAt]) -> Option<Self> {
        let table = self.table.clone();
        let copy = |frame: &FrameAt| {
            let (offset, bytes) = (u64::from(frame.offset), u64::from(frame.bytes));
            let sealed = find(&table, &frame.pack, |sealed| sealed.covers(offset, bytes))?;
            let part = sealed.now().and_then(|all| sealed.part(&all, offset, bytes))?;
            Some((frame.pack, sealed_here(offset, Bytes::copy_from_slice(&part))))
        };
        let copies: Option<Vec<(PackId, Sealed)>> = frames.iter().map(copy).collect();
        drop(self);
        let copies = copies?;
        let bytes = copies.iter().map(|(_, sealed)| sealed.bytes).sum();
        let mut locked = table.lock();
        if !locked.make_room(bytes, Keep::WhileHeld) {
            return None;
        }
        let add = |(pack, sealed): (PackId, Sealed)| {
            let cost_bytes = sealed.bytes;
            (
                pack,
                locked.add(pack, Keep::WhileHeld, cost_bytes, (Arc::new(sealed), None)),
            )
        };
        let held = copies.into_iter().map(add).collect();
        drop(locked);
        Some(Self { table, held, bytes })
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        self.held.iter().for_each(|(pack, number)| table.remove(pack, *number));
    }
}

impl Ahead {
    /// Makes an empty table with room for `limit_bytes`.
    pub(crate) fn new(place: Place, limit_bytes: u64) -> Self {
        let table = Arc::new(Mutex::new(Table {
            limit_bytes,
            ..Table::default()
        }));
        Self {
            place,
            limit_bytes,
            table,
        }
    }

    /// Returns the size up to which several requests find room at once, bytes.
    pub(crate) fn request_bytes(&self) -> u64 {
        self.held_max_bytes() / REQUESTS_AT_ONCE
    }

    /// Returns how many bytes of packs may be held at once.
    pub(crate) fn held_max_bytes(&self) -> u64 {
        let room_bytes = self.limit_bytes - self.limit_bytes / LOOSE_KEPT_SHARE;
        (room_bytes as f64 / self.place.held_while_read()) as u64
    }

    /// Begins to fetch these ranges, and does not wait for them. Returns `None` if there is no room for all of them.
    pub(crate) fn fetch(&self, ranges: &[FrameRange], keep: Keep) -> Option<Fetched> {
        let mut table = self.table.lock();
        let cost = |range: &FrameRange| (range.bytes as f64 * self.place.held_while_read()) as u64;
        let cost_bytes = ranges.iter().map(cost).sum();
        if !table.make_room(cost_bytes, keep) {
            return None;
        }
        let add = |range: &FrameRange| {
            let sealed = Arc::new(sealed(range));
            let task = Some(self.start(range, sealed.clone()));
            (range.pack, table.add(range.pack, keep, cost(range), (sealed, task)))
        };
        let held: Vec<_> = ranges.iter().map(add).collect();
        Some(Fetched {
            table: self.table.clone(),
            held: if keep == Keep::WhileHeld { held } else { Vec::new() },
            bytes: cost_bytes,
        })
    }

    fn start(&self, range: &FrameRange, sealed: Arc<Sealed>) -> AbortHandle {
        let (store, name) = (self.place.store().clone(), Name::pack(&range.pack));
        let range = Range::From {
            offset: range.offset,
            len: range.bytes,
        };
        let promise = Promise(sealed);
        self.place.spawn(async move {
            // An error is met again by who reads the frame itself.
            if let Ok(bytes) = store.get(&name, range).await {
                promise.0.settle(State::Here(bytes));
            }
        })
    }

    /// Returns this part of a pack if it was fetched. Waits for it if it is on its way.
    pub(crate) fn take(&self, pack: &PackId, offset: u64, bytes: u64) -> Option<Bytes> {
        let sealed = self.find(pack, |sealed| sealed.covers(offset, bytes))?;
        sealed.part(&sealed.wait()?, offset, bytes)
    }

    /// Returns the last bytes of a pack in the same way, at most `bytes` of them.
    pub(crate) fn take_end(&self, pack: &PackId, bytes: u64) -> Option<Bytes> {
        let all = self.find(pack, |sealed| sealed.ends_pack)?.wait()?;
        Some(all.slice((all.len() as u64).saturating_sub(bytes) as usize..))
    }

    /// Returns true if this part of a pack is here or on its way.
    pub(crate) fn has(&self, pack: &PackId, offset: u64, bytes: u64) -> bool {
        self.find(pack, |sealed| sealed.covers(offset, bytes)).is_some()
    }

    /// Returns true if the end of a pack is here or on its way.
    pub(crate) fn has_end(&self, pack: &PackId) -> bool {
        self.find(pack, |sealed| sealed.ends_pack).is_some()
    }

    /// Returns where the next fetched range of a pack begins, from `offset` on.
    pub(crate) fn next_start(&self, pack: &PackId, offset: u64) -> Option<u64> {
        let table = self.table.lock();
        let entries = table.packs.get(pack).into_iter().flatten();
        let starts = entries
            .map(|entry| entry.sealed.offset)
            .filter(|start| *start >= offset);
        starts.min()
    }

    fn find(&self, pack: &PackId, is_meant: impl Fn(&Sealed) -> bool) -> Option<Arc<Sealed>> {
        find(&self.table, pack, is_meant)
    }

    /// Drops everything of a pack: some of its bytes turned out wrong. Returns true if there was anything.
    pub(crate) fn forget(&self, pack: &PackId) -> bool {
        let mut table = self.table.lock();
        let numbers = table.packs.get(pack).into_iter().flatten().map(|entry| entry.number);
        let numbers: Vec<u64> = numbers.collect();
        numbers.iter().for_each(|number| table.remove(pack, *number));
        !numbers.is_empty()
    }

    /// Returns the memory that all of it takes, bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.table.lock().used_bytes
    }
}

fn find(table: &Mutex<Table>, pack: &PackId, is_meant: impl Fn(&Sealed) -> bool) -> Option<Arc<Sealed>> {
    let table = table.lock();
    let mut entries = table.packs.get(pack)?.iter();
    let entry = entries.find(|entry| is_meant(&entry.sealed))?;
    Some(entry.sealed.clone())
}

fn sealed_here(offset: u64, bytes: Bytes) -> Sealed {
    Sealed {
        offset,
        bytes: bytes.len() as u64,
        ends_pack: false,
        state: Mutex::new(State::Here(bytes)),
        settled: Condvar::new(),
    }
}

fn sealed(range: &FrameRange) -> Sealed {
    Sealed {
        offset: range.offset,
        bytes: range.bytes,
        ends_pack: range.ends_pack,
        state: Mutex::new(State::Coming),
        settled: Condvar::new(),
    }
}
