//! The numbers of packs: without gaps for each registration, in the order in which packs are begun.

use std::sync::atomic::{AtomicU64, Ordering};

/// The packs of one registration: who writes it, and which number the next one has.
pub(crate) struct PackSeries {
    pub(crate) nonce: [u8; 16],
    next: AtomicU64,
}

impl PackSeries {
    pub(crate) fn new(nonce: [u8; 16]) -> Self {
        let next = AtomicU64::new(0);
        Self { nonce, next }
    }

    /// How many packs were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
