//! How far a run is, and the wish to stop it; shared between the threads that work and the one that shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Counters that only grow; read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that were looked at or read for their fingerprints, and those that there are, about; 0 while unknown.
    pub scanned_bytes: AtomicU64,
    /// As above.
    pub to_scan_bytes: AtomicU64,
    /// Extents that were planned about, and those that there are; 0 while unknown.
    pub planned_extents: AtomicU64,
    /// As above.
    pub total_extents: AtomicU64,
    /// Bytes that were given to the kernel to compare and share, and those that there are; 0 while unknown.
    pub shared_bytes: AtomicU64,
    /// As above.
    pub total_bytes: AtomicU64,
    /// Bytes that are expected to be free by what was done so far.
    pub freed_bytes: AtomicU64,
    /// Problems met.
    pub problems: AtomicU64,
}

impl Progress {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
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

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}
