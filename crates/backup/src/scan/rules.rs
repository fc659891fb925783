//! What holds for a whole run: what is left out, where files are cached, why a directory is looked at.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use drystone_index::State;
use drystone_vault::{Problems, Progress, Vault};
use parking_lot::Mutex;

use crate::cache::slots::Slots;
use crate::cache::{Key, key};
use crate::local::dir::Dir;
use crate::local::names::Names;
use crate::local::system::Systems;
use crate::options::OneFileSystem;
use crate::scope::Scope;
use crate::scope::filters::Filters;
use crate::scope::own::OwnDirs;
use crate::scope::sources::Named;
use crate::tracked::Tracker;

/// What all scanning threads share.
pub(crate) struct Rules<'a> {
    pub(crate) vault: &'a Vault,
    /// What this machine knows of earlier runs.
    pub(crate) state: &'a State,
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
