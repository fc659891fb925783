//! One of the places of a vault, there or not.

use std::num::NonZeroU64;
use std::sync::Arc;

use drystone_format::places::PlaceEntry;
use drystone_store::Store;
use drystone_store::limit::{Limit, Limits};

/// A place of the vault, there or not.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) entry: PlaceEntry,
    /// The store, or why there is none.
    pub(crate) store: Result<Arc<dyn Store>, String>,
}

impl Site {
    /// The place as its entry wants it used: within its bandwidth.
    pub(crate) fn new(entry: PlaceEntry, store: Result<Arc<dyn Store>, String>) -> Self {
        let store = store.map(|store| limited(store, &entry));
        Self { entry, store }
    }
}

fn limited(store: Arc<dyn Store>, entry: &PlaceEntry) -> Arc<dyn Store> {
    let limits = Limits {
        requests: None,
        put_bytes_per_s: entry.up_bytes.and_then(NonZeroU64::new),
        get_bytes_per_s: entry.down_bytes.and_then(NonZeroU64::new),
    };
    if limits.put_bytes_per_s.is_none() && limits.get_bytes_per_s.is_none() {
        return store;
    }
    Arc::new(Limit::new(store, limits))
}
