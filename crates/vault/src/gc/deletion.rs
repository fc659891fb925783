//! The removal of single objects that the caller has superseded, or knows that nothing needs.

use drystone_format::{RootId, SlotId};
use drystone_store::Name;

use crate::error::Result;
use crate::places::place::Place;

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
pub(super) fn delete_presence(place: &Place, name: &Name) -> Result<()> {
    place.delete(name)
}

/// Removes a damaged list of verified packs; an owner has just read them all and published what is sound.
pub(crate) fn delete_list(place: &Place, name: &Name) -> Result<()> {
    place.delete(name)
}

/// Removes a damaged header, to be replaced at once; every key slot carries a copy.
pub(crate) fn delete_header(place: &Place) -> Result<()> {
    place.delete(&Name::header())
}
