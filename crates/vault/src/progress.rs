//! How far a long operation is, and the wish to stop it; shared between the threads that work and the one that shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Counters that only grow; read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files done; for check and gc entries of directories, for scrub and repair packs.
    pub files: AtomicU64,
    /// Bytes done, of the source or the target.
    pub bytes: AtomicU64,
    /// Bytes stored at the place.
    pub stored_bytes: AtomicU64,
    /// Files there are; 0 while unknown.
    pub total_files: AtomicU64,
    /// Bytes there are; 0 while unknown.
    pub total_bytes: AtomicU64,
    /// Problems met.
    pub problems: AtomicU64,
    current: Mutex<Vec<u8>>,
}

impl Progress {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Says what is being worked on.
    pub fn set_current(&self, path: &[u8]) {
        let mut current = self.current.lock();
        current.clear();
        current.extend_from_slice(path);
    }

    /// What is being worked on.
    pub fn current(&self) -> Vec<u8> {
        self.current.lock().clone()
    }
}

/// A wish to stop, which all copies share.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everything that holds a copy to stop soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Interrupted`] if it was asked.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}
