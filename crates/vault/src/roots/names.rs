//! The names of roots that were listed.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::RootId;
use drystone_format::root::RootName;
use parking_lot::Mutex;

/// The names of roots that were listed, by their hashes. Bytes may lie under several names, of which at most one is theirs.
#[derive(Debug, Default)]
pub(crate) struct RootNames(Mutex<BTreeMap<RootId, BTreeSet<RootName>>>);

impl RootNames {
    pub(crate) fn learn(&self, names: &[RootName]) {
        let mut known = self.0.lock();
        for name in names {
            known.entry(name.hash).or_default().insert(*name);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<RootName> {
        self.0.lock().values().flatten().copied().collect()
    }

    pub(super) fn get(&self, id: &RootId) -> Vec<RootName> {
        self.0.lock().get(id).into_iter().flatten().copied().collect()
    }
}
