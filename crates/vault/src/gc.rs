//! Every deletion: the only place that removes objects from a vault, with what is below it.
//!
//! - What is removed is superseded by an object that is durable already, or can be reached by nothing that was reported and by
//!   no run that is registered (I5).

pub(crate) mod epochs;
mod fold;
mod forget;
mod ledgers;
mod live;
mod mark;
mod options;
pub mod protocol;
pub(crate) mod registration;
mod registrations;
mod remains;
mod reserve;
mod roots;
mod run;
mod runs;
mod standing;
mod sweep;
mod waiting;
mod writer;

pub use options::{GcOptions, GcReport};
pub(crate) use reserve::Taking;
pub(crate) use roots::{COUNTS_FOR_NOBODY, counts_for_nobody};

use drystone_format::{RootId, SlotId};
use drystone_store::Name;

use crate::error::Result;
use crate::places::place::Place;
use crate::vault::Vault;

/// Removes a damaged mark of a place, to be written anew at once.
pub(crate) fn delete_mark(place: &Place) -> Result<()> {
    place.delete(&Name::place())
}

/// Removes a key slot, of a vault that never came to be or of one that keeps an owner's slot; the caller has made sure.
pub(crate) fn delete_slot(place: &Place, id: &SlotId) -> Result<()> {
    place.delete(&Name::key(id))
}

/// Removes a configuration of a vault that never came to be, or a copy of one that is damaged, to be written anew at once.
pub(crate) fn delete_config(place: &Place, number: u64, hash: &RootId) -> Result<()> {
    place.delete(&Name::config(number, hash))
}

/// Removes a presence of a run that is over, or that has put a newer one.
fn delete_presence(place: &Place, name: &Name) -> Result<()> {
    place.delete(name)
}

impl Vault {
    /// Removes a damaged list of verified packs; an owner has just read them all and published what is sound.
    pub(crate) fn delete_list(&self, name: &Name) -> Result<()> {
        self.place.delete(name)
    }

    /// Removes a damaged header, to be replaced at once; every key slot carries a copy.
    pub(crate) fn delete_header(&self) -> Result<()> {
        self.place.delete(&Name::header())
    }
}
