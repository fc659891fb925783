//! The file in which this door keeps what it knows of earlier runs: one for each vault, of the door's own.
//!
//! - It can be lost or damaged at any moment at the cost of time (I4): a damaged one is set aside, and a new one begun.
//! - It goes with the vault's local state: a loss epoch that is written in it is one of that state.

use drystone_index::State;
use drystone_vault::Vault;

use crate::error::Result;

/// The door's name among doors.
const DOOR: &str = "backup";

/// Opens the file of a vault; `facts` are the keys of those that must be readable.
pub(crate) fn open(vault: &Vault, facts: &[&str]) -> Result<State> {
    let path = vault.door_dir(DOOR)?.join("cache.sqlite");
    Ok(State::open_sound(&path, facts)?)
}
