//! Keys: what unlocks a vault, and who has a slot.

pub(crate) mod keys;
pub(crate) mod slots;
pub(crate) mod unlock;

use drystone_format::keys::{Secrets, SignKey};

use crate::error::{Error, Result};

/// The key that signs for the vault; only an owner has it.
pub(crate) fn owner_key(secrets: &Secrets) -> Result<&SignKey> {
    let refused = || Error::Format(secrets.refused("change keys or configuration"));
    secrets.vault_key.as_ref().ok_or_else(refused)
}
