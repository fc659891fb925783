//! How much a snapshot of another writer may turn out to hold: what it states, and some.
//!
//! - A tree of a few chunks can unfold to more than anybody can walk or copy. Whoever has stolen a writer key could keep a copy
//!   or a drill busy for ever with one.
//! - What a snapshot states decides its turn: those that state less go first.

use drystone_format::snapshot::Totals;
use drystone_format::tree::{Entry, Kind};

use crate::error::{Error, Result};

/// Entries that a snapshot may hold beyond twice what it states.
const ENTRIES_SLACK: u64 = 1000;
/// Bytes of files that a snapshot may hold beyond twice what it states: a GiB is copied in seconds.
const BYTES_SLACK: u64 = 1 << 30;

/// The rest of what a snapshot may hold.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    stated: Totals,
    entries: u64,
    bytes: u64,
}

impl Allowance {
    /// For a snapshot that states this.
    pub(crate) fn new(stated: &Totals) -> Self {
        let entries = stated.files.saturating_add(stated.dirs);
        let twice = |stated: u64, slack: u64| stated.saturating_mul(2).saturating_add(slack);
        Self {
            stated: *stated,
            entries: twice(entries, ENTRIES_SLACK),
            bytes: twice(stated.bytes, BYTES_SLACK),
        }
    }

    /// Takes an entry off; [`Error::MoreThanStated`] if there is not so much left.
    pub(crate) fn take(&mut self, entry: &Entry) -> Result<()> {
        let bytes = match &entry.kind {
            Kind::File(recipe) => recipe.size_bytes,
            _ => 0,
        };
        match (self.entries.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(entries), Some(bytes)) => {
                (self.entries, self.bytes) = (entries, bytes);
                Ok(())
            }
            _ => Err(Error::MoreThanStated {
                files: self.stated.files,
                bytes: self.stated.bytes,
            }),
        }
    }
}
