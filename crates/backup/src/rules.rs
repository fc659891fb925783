//! What holds for a whole run: what is left out, where files are cached, why a directory is looked at.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use drystone_vault::{Problems, Progress, Vault};
use parking_lot::Mutex;

use crate::cache::{Key, key};
use crate::dir::{Dir, Follow};
use crate::filters::Filters;
use crate::names::Names;
use crate::options::OneFileSystem;
use crate::own::OwnDirs;
use crate::sources::Named;
use crate::system::Systems;
use crate::tracked::Tracker;

/// Most sources that have a key of their own.
const SLOTS_MAX: usize = 64;

/// What all scanning threads share.
pub(crate) struct Rules<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) filters: &'a Filters,
    pub(crate) own: &'a OwnDirs,
    pub(crate) names: &'a Names,
    pub(crate) one_file_system: OneFileSystem,
    /// Where in the cache files are.
    pub(crate) slots: Slots,
    pub(crate) systems: Systems,
    pub(crate) loss_epoch: u64,
    pub(crate) reads_cache: bool,
    pub(crate) problems: Mutex<Problems>,
    /// Directories that must be looked at again even if nothing changes in them.
    pub(crate) unsettled: Mutex<HashSet<Key>>,
    pub(crate) tracker: Tracker,
    pub(crate) progress: Arc<Progress>,
}

impl Rules<'_> {
    /// Notes what is not as it should be.
    pub(crate) fn problem(&self, path: impl Into<Vec<u8>>, what: impl Display) {
        let mut path = path.into();
        if path.is_empty() {
            path.push(b'/');
        }
        self.unsettle(&path);
        self.problems.lock().push(path, what);
        Progress::add(&self.progress.problems, 1);
    }

    /// Notes that this path, and what it is in, must be looked at again by the next run.
    pub(crate) fn unsettle(&self, path: &[u8]) {
        if !self.tracker.is_on() {
            return;
        }
        let mut unsettled = self.unsettled.lock();
        let mut end = path.len();
        while unsettled.insert(key(&[path.get(..end).unwrap_or_default()])) && end > 0 {
            let above = path.get(..end).unwrap_or_default();
            end = above.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
    }

    /// Whether a directory, by the key of its path, may be taken over by the next run.
    pub(crate) fn is_settled(&self, path: &Key) -> bool {
        !self.unsettled.lock().contains(path)
    }

    /// The scope of a run over everything.
    pub(crate) fn whole_root(&self, source: usize, named: Arc<Named>) -> Scope {
        Scope::Whole {
            slot: self.slots.of(source),
            device: Dir::root().map_or(0, |root| root.stat.device),
            named: Some(named),
        }
    }
}

/// Keys of the cache: one for each source, and one for files that are sources themselves.
///
/// A long list of sources shares one, so that it costs no more than one source.
pub(crate) struct Slots {
    pub(crate) keys: Vec<Key>,
}

impl Slots {
    /// For these sources of this host.
    pub(crate) fn new(host: &str, paths: &[Vec<u8>]) -> Self {
        if paths.len() > SLOTS_MAX {
            return Self {
                keys: vec![key(&[host.as_bytes()])],
            };
        }
        let host = host.as_bytes();
        let mut keys: Vec<Key> = paths.iter().map(|path| key(&[host, path])).collect();
        let all: Vec<&[u8]> = std::iter::once(host)
            .chain(paths.iter().map(Vec::as_slice))
            .chain([&b"files"[..]])
            .collect();
        keys.push(key(&all));
        Self { keys }
    }

    /// Number of the key of a source.
    pub(crate) fn of(&self, source: usize) -> usize {
        source.min(self.keys.len() - 1)
    }

    /// Number of the key of files that are sources.
    pub(crate) fn files(&self) -> usize {
        self.keys.len() - 1
    }
}

/// Why a directory is looked at.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    /// All of it belongs to a source.
    Whole {
        /// Where in the cache its files are.
        slot: usize,
        /// Device of the source's own directory.
        device: u64,
        /// Sources below.
        named: Option<Arc<Named>>,
    },
    /// Only what is named in it.
    Listed(Arc<Named>),
}

impl Scope {
    /// Whether the directory may be what a link leads to: what leads to a source, and a source that asks for it.
    pub(crate) fn follow(&self) -> Follow {
        match self {
            Self::Whole { named, .. } => named.as_ref().map_or(Follow::No, |named| named.follow),
            Self::Listed(_) => Follow::Yes,
        }
    }

    /// The source that the directory itself is, by number.
    pub(crate) fn source(&self) -> Option<usize> {
        match self {
            Self::Whole { named, .. } => named.as_ref().and_then(|named| named.source),
            Self::Listed(_) => None,
        }
    }

    /// What is named in the directory.
    pub(crate) fn named(&self) -> Option<&Arc<Named>> {
        match self {
            Self::Whole { named, .. } => named.as_ref(),
            Self::Listed(named) => Some(named),
        }
    }
}
