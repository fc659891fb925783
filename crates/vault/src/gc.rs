//! Every deletion: the only place that removes objects from a vault.
//!
//! - What is removed here is superseded by an object that is durable already.

use drystone_format::SlotId;
use drystone_store::Name;

use crate::error::Result;
use crate::vault::Vault;

impl Vault {
    /// Removes a key slot; the caller has made sure that an owner's slot remains.
    pub(crate) fn delete_slot(&self, id: &SlotId) -> Result<()> {
        self.place.delete(&Name::key(id))
    }

    /// Removes a damaged header, to be replaced at once; every key slot carries a copy.
    pub(crate) fn delete_header(&self) -> Result<()> {
        self.place.delete(&Name::header())
    }
}
