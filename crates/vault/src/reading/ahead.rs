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

use super::batch::FrameRange;
use crate::place::Place;

/// How long what was fetched is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Until its [`Fetched`] is dropped.
    WhileHeld,
    /// Until there is no room for what is fetched later.
    WhileThereIsRoom,
}

/// Of the largest requests, how many there is room for.
const REQUESTS_AT_ONCE: f64 = 3.0;
/// Of the room, how much is for what nobody holds on to: one part of this many.
const LOOSE_SHARE: u64 = 2;

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
    task: AbortHandle,
}

#[derive(Default)]
struct Table {
    packs: HashMap<PackId, Vec<Entry>>,
    /// Those that nobody holds on to, oldest first; some of them may be gone.
    loose: VecDeque<(PackId, u64)>,
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
        entry.task.abort();
        self.used_bytes -= entry.cost_bytes;
        if entry.keep == Keep::WhileThereIsRoom {
            self.loose_bytes -= entry.cost_bytes;
        }
    }

    /// Drops loose ranges until there is room for `cost_bytes`. Returns false if there is none even then.
    fn make_room(&mut self, cost_bytes: u64, keep: Keep, limit_bytes: u64) -> bool {
        let loose_limit_bytes = limit_bytes / LOOSE_SHARE;
        let fits = |table: &Self| {
            let is_within_share = keep == Keep::WhileHeld || table.loose_bytes + cost_bytes <= loose_limit_bytes;
            table.used_bytes + cost_bytes <= limit_bytes && is_within_share
        };
        while !fits(self) {
            match self.loose.pop_front() {
                Some((pack, number)) => self.remove(&pack, number),
                None => return false,
            }
        }
        true
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
        let table = Arc::default();
        Self {
            place,
            limit_bytes,
            table,
        }
    }

    /// Returns the size up to which several requests find room at once, bytes.
    pub(crate) fn request_bytes(&self) -> u64 {
        (self.limit_bytes as f64 / (REQUESTS_AT_ONCE * self.place.held_while_read())) as u64
    }

    /// Begins to fetch these ranges, and does not wait for them. Returns `None` if there is no room for all of them.
    pub(crate) fn fetch(&self, ranges: &[FrameRange], keep: Keep) -> Option<Fetched> {
        let mut table = self.table.lock();
        let cost = |range: &FrameRange| (range.bytes as f64 * self.place.held_while_read()) as u64;
        let cost_bytes = ranges.iter().map(cost).sum();
        if !table.make_room(cost_bytes, keep, self.limit_bytes) {
            return None;
        }
        let held = ranges.iter().map(|range| {
            let (number, sealed) = (table.next, Arc::new(sealed(range)));
            table.next += 1;
            let entry = Entry {
                number,
                keep,
                cost_bytes: cost(range),
                task: self.start(range, sealed.clone()),
                sealed,
            };
            table.used_bytes += entry.cost_bytes;
            if keep == Keep::WhileThereIsRoom {
                table.loose_bytes += entry.cost_bytes;
                table.loose.push_back((range.pack, number));
            }
            table.packs.entry(range.pack).or_default().push(entry);
            (range.pack, number)
        });
        let held: Vec<_> = held.collect();
        Some(Fetched {
            table: self.table.clone(),
            held: if keep == Keep::WhileHeld { held } else { Vec::new() },
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
        let start = (offset - sealed.offset) as usize;
        let all = sealed.wait()?;
        (all.len() as u64 == sealed.bytes).then(|| all.slice(start..start + bytes as usize))
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
        let table = self.table.lock();
        let mut entries = table.packs.get(pack)?.iter();
        let entry = entries.find(|entry| is_meant(&entry.sealed))?;
        Some(entry.sealed.clone())
    }

    /// Drops everything of a pack: its bytes turned out wrong, and other shards may have the right ones.
    pub(crate) fn forget(&self, pack: &PackId) {
        let mut table = self.table.lock();
        let numbers = table.packs.get(pack).into_iter().flatten().map(|entry| entry.number);
        let numbers: Vec<u64> = numbers.collect();
        numbers.into_iter().for_each(|number| table.remove(pack, number));
    }

    /// Returns the memory that all of it takes, bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.table.lock().used_bytes
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
