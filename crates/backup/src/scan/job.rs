//! What the threads of a run tell each other.
//!
//! - The walk tells everything in the order of the tree; results of jobs come in the order of their items.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use drystone_format::tree::Entry;

use crate::cache::{Print, Record};
use crate::local::dir::{Dir, Stat};
use crate::scan::found::Cached;
use crate::tracked::{NewMap, Row};

/// Files to be read by one thread, one after the other: neighbours share frames.
pub(crate) struct Job {
    pub(crate) items: Vec<Item>,
    pub(crate) reply: Sender<Vec<Taken>>,
}

/// A file to be read.
pub(crate) struct Item {
    pub(crate) dir: Arc<Dir>,
    pub(crate) name: Vec<u8>,
    pub(crate) stat: Stat,
    /// Path to be shown while it is read; empty for small files.
    pub(crate) path: Vec<u8>,
}

/// What became of it.
pub(crate) enum Taken {
    /// It is in the vault.
    Entry {
        encoded: Vec<u8>,
        name: Vec<u8>,
        /// What the cache may hold; `None` if the next run must look again.
        print: Option<Print>,
        content_bytes: Option<u64>,
        /// Whether it has several names.
        has_links: bool,
        /// What it is made of, for when it changes.
        map: Option<NewMap>,
        /// Bytes that were not read since they had not changed.
        unread_bytes: u64,
        /// What is not as it should be.
        problem: Option<String>,
    },
    /// It could not be read.
    Left { name: Vec<u8>, why: String },
    /// It was removed before it could be read.
    Vanished,
}

/// One step of the walk.
pub(crate) enum Event {
    /// What follows is in this directory.
    Enter {
        head: Box<Entry>,
        cached: Cached,
        /// The tracked subvolume, by number, and the inode of the directory.
        tracked: Option<(usize, u64)>,
        /// The source that it is, by number, and its inode, unless something of it cannot be seen.
        source: Option<(usize, u64)>,
    },
    /// A file that is as it was.
    Same {
        record: Record,
        content_bytes: Option<u64>,
        has_links: bool,
    },
    /// A directory that is as it was, with all that is in it.
    Spared {
        row: Row,
        /// The source that it is, by number, and its inode.
        source: Option<(usize, u64)>,
    },
    /// A record of the cache is of no use any more.
    Gone,
    /// The results that follow come from here.
    Open(Receiver<Vec<Taken>>),
    /// The next result.
    Next { is_new: bool, content_bytes: u64 },
    /// The directory is over.
    Leave { marks: u64 },
}
