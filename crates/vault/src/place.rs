//! The store as the engine's threads use it: blocking calls, complete listings.
//!
//! - Must not be called from within the runtime: it blocks its caller.

use std::sync::Arc;

use bytes::Bytes;
use drystone_store::{Listed, Name, Prefix, Range, Store};
use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// Names asked for in one listing call.
const LIST_PAGE: usize = 1000;

/// A store and the runtime that it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    store: Arc<dyn Store>,
    runtime: Handle,
}

impl Place {
    pub(crate) fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self { store, runtime }
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        self.store.place()
    }

    /// Requests that may usefully wait at once.
    pub(crate) fn parallel(&self, threads: usize) -> usize {
        if self.store.traits().slow {
            threads.max(16)
        } else {
            threads
        }
    }

    /// Whether every place that the vault lies at can be reached: what is seen to be gone is gone everywhere.
    pub(crate) fn is_complete(&self) -> bool {
        true
    }

    /// Waits until every list shows what was put or deleted before, by this machine or by one that listed before it put.
    pub(crate) fn settle(&self) {
        if let Some(stale) = self.store.traits().stale_list {
            self.runtime.block_on(tokio::time::sleep(2 * stale));
        }
    }

    /// Durable on return, as far as the store says so.
    pub(crate) fn put(&self, name: &Name, bytes: Bytes) -> Result<()> {
        self.runtime.block_on(self.store.put(name, bytes))?;
        Ok(())
    }

    pub(crate) fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        Ok(self.runtime.block_on(self.store.get(name, range))?)
    }

    pub(crate) fn delete(&self, name: &Name) -> Result<()> {
        Ok(self.runtime.block_on(self.store.delete(name))?)
    }

    /// Calls `each` for every object under `prefix`.
    pub(crate) fn for_each(&self, prefix: &Prefix, mut each: impl FnMut(Listed) -> Result<()>) -> Result<()> {
        let mut after: Option<Name> = None;
        loop {
            let page = self
                .runtime
                .block_on(self.store.list(prefix, after.as_ref(), LIST_PAGE))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            page.into_iter().try_for_each(&mut each)?;
        }
    }

    /// Says that `object` here is not what it should be.
    pub(crate) fn damaged(&self, object: &Name) -> impl FnOnce(drystone_format::Error) -> Error {
        let (object, place) = (object.to_string(), self.name().to_owned());
        move |source| match source {
            // What the credential may not do is no damage.
            source @ drystone_format::Error::WriterKey { .. } => Error::Format(source),
            source => Error::Damaged { object, place, source },
        }
    }
}
