//! Keys, and what credentials know and may do. Layout: docs/format.md, "Keys" and "Secrets".
//!
//! - `primitive` has single keys, `role` what a credential may do, `certificate` the vault's word for it, and `secrets` all that
//!   a credential knows.
//! - Modules of this crate that the secrets rest on (errors, ids) import from the rooms within, not from here.

pub(crate) mod certificate;
pub(crate) mod epoch_id;
pub(crate) mod primitive;
pub(crate) mod role;
mod secrets;

pub use self::certificate::Certificate;
pub(crate) use self::certificate::role_of;
pub use self::epoch_id::epoch_number;
pub use self::primitive::{
    DedupKey, HPKE_OVERHEAD_BYTES, IndexKey, OpenKey, SealKey, ShardKey, SignKey, Signature, VerifyKey,
};
pub use self::role::Role;
pub use self::secrets::{Epoch, EpochSource, Secrets};
