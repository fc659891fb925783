//! Where copies go: a vault, and what this machine knows of earlier copies into it.

use drystone_index::State;
use drystone_vault::Vault;

use crate::cache::file;
use crate::error::Result;

/// The vault that a copy is made into.
pub(crate) struct Destination<'a> {
    pub(crate) vault: &'a Vault,
    /// What was copied before.
    pub(crate) state: State,
}

impl<'a> Destination<'a> {
    /// Opens what is known of earlier copies.
    pub(crate) fn open(vault: &'a Vault) -> Result<Self> {
        Ok(Self {
            vault,
            state: file::open(vault, &[])?,
        })
    }
}
