//! What looking at a directory gives: what was asked for, and what was found at its names.

use std::sync::Arc;

use drystone_format::tree::Entry;
use parking_lot::{Condvar, Mutex};

use crate::cache::{Cursor, Key, Lookup, Record};
use crate::error::Result;
use crate::local::dir::{Dir, Stat};
use crate::local::listing::Listing;
use crate::scope::Scope;
use crate::tracked::Row;

/// A directory to be looked at.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) parent: Arc<Dir>,
    pub(crate) name: Vec<u8>,
    /// Absolute; the root is empty.
    pub(crate) path: Vec<u8>,
    pub(crate) scope: Scope,
    /// How many directories it is in.
    pub(crate) depth: usize,
}

/// A directory found in another one.
pub(crate) struct Below {
    pub(crate) name: Vec<u8>,
    pub(crate) scope: Scope,
    /// What is known of it already, for one that stays empty: it is on another file system.
    pub(crate) stat: Option<Stat>,
    /// The directory that it is in, if that is not the one that is listed.
    pub(crate) live: Option<Arc<Dir>>,
    /// Set if it is looked at ahead.
    pub(crate) task: Option<Arc<Task>>,
}

/// What was found at a name.
pub(crate) enum Found {
    /// It is as it was.
    Same {
        record: Record,
        content_bytes: Option<u64>,
        has_links: bool,
    },
    /// A directory that is as it was, with all that is in it.
    Spared {
        row: Box<Row>,
        /// The source that it is, by number, and its inode.
        source: Option<(usize, u64)>,
    },
    /// The record of a name that is no longer there, or looks different.
    Gone,
    /// To be read.
    Fresh {
        name: Vec<u8>,
        stat: Stat,
        is_new: bool,
        /// The directory that it is in, if that is not the one that is listed.
        live: Option<Arc<Dir>>,
    },
    /// A directory.
    Below(Below),
}

impl Found {
    /// Whatever is no directory, and what the cache says about it.
    pub(crate) fn file(name: &[u8], (stat, live): (Stat, Option<Arc<Dir>>), lookup: Lookup) -> Self {
        match lookup {
            Lookup::Same(record) => Self::Same {
                record,
                content_bytes: stat.is_file().then_some(stat.size),
                has_links: stat.hard_link().is_some(),
            },
            lookup => Self::Fresh {
                name: name.to_vec(),
                stat,
                is_new: matches!(lookup, Lookup::New),
                live,
            },
        }
    }
}

/// A directory that was opened, or could not be.
pub(crate) struct Scanned {
    /// The entry, without content.
    pub(crate) head: Entry,
    /// `None` if nothing in it can be looked at.
    pub(crate) dir: Option<Arc<Dir>>,
    pub(crate) cached: Cached,
    pub(crate) rest: Rest,
    pub(crate) batch: Vec<Found>,
    /// Set if all of it is as it was; then nothing in it was looked at.
    pub(crate) spared: Option<Box<Row>>,
}

/// The names of a directory that were not looked at yet.
pub(crate) struct Rest {
    pub(crate) listing: Listing,
    pub(crate) next: usize,
    pub(crate) cursor: Option<Cursor>,
}

impl Rest {
    pub(crate) const NONE: Self = Self {
        listing: Listing::EMPTY,
        next: 0,
        cursor: None,
    };

    /// Whether all names were looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.next >= self.listing.len()
    }
}

/// What the cache holds of a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached {
    pub(crate) slot: usize,
    pub(crate) key: Key,
    /// Epoch of its pages, if there are any.
    pub(crate) epoch: Option<u64>,
    /// Whether its pages may stay if nothing has changed.
    pub(crate) is_current: bool,
}

impl Below {
    /// What is needed to look at it.
    pub(crate) fn order(&self, parent: &Arc<Dir>, parent_path: &[u8], parent_depth: usize) -> Order {
        let mut path = Vec::with_capacity(parent_path.len() + 1 + self.name.len());
        path.extend_from_slice(parent_path);
        path.push(b'/');
        path.extend_from_slice(&self.name);
        Order {
            parent: self.live.as_ref().unwrap_or(parent).clone(),
            name: self.name.clone(),
            path,
            scope: self.scope.clone(),
            depth: parent_depth + 1,
        }
    }
}

/// A directory that may be looked at ahead of the walk. Whoever comes to it first looks at it.
pub(crate) struct Task {
    state: Mutex<Ahead>,
    done: Condvar,
}

/// How far a directory was looked at ahead.
pub(crate) enum Ahead {
    /// Nobody has begun.
    Order(Order),
    /// Somebody is at it.
    Running,
    /// This came of it.
    Done(Result<Option<Box<Scanned>>>),
    /// The walk has it.
    Taken,
}

impl Task {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            state: Mutex::new(Ahead::Order(order)),
            done: Condvar::new(),
        }
    }

    /// Begins to look at it ahead, to be ended with [`finish`](Self::finish); `None` if the walk came first.
    pub(crate) fn begin(&self) -> Option<Order> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, Ahead::Running) {
            Ahead::Order(order) => Some(order),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Hands over what was found.
    pub(crate) fn finish(&self, result: Result<Option<Box<Scanned>>>) {
        *self.state.lock() = Ahead::Done(result);
        self.done.notify_one();
    }

    /// Waits for whoever has begun; returns what is left to do, or what was found.
    pub(crate) fn take(&self) -> Ahead {
        let mut state = self.state.lock();
        while matches!(*state, Ahead::Running) {
            self.done.wait(&mut state);
        }
        std::mem::replace(&mut *state, Ahead::Taken)
    }
}
