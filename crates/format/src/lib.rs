//! What drystone's bytes mean: pure functions between values and bytes.
//!
//! - No I/O, no clock, no threads, no unsafe; randomness comes in through [`Random`].
//! - Every decoder is bounded by [`limits`] and returns an [`Error`] on bad input; it never panics.
//! - The layout of every object is specified in docs/format.md, and only there.

mod cbor;
pub mod chunker;
pub mod codec;
pub mod config;
mod ending;
pub mod epoch;
mod error;
pub mod header;
pub mod id;
pub mod index_part;
pub mod index_run;
pub mod keys;
pub mod kinds;
pub mod ledger;
pub mod limits;
pub mod notice;
pub mod pack;
pub mod places;
pub mod presence;
pub mod random;
pub mod recipe;
pub mod root;
pub mod seal;
pub mod shard;
pub mod slot;
pub mod snapshot;
pub mod tree;

pub use error::{Error, Result};
pub use id::{ChunkId, PackId, PlaceId, RegistrationId, RootId, SlotId, VaultId};
pub use random::Random;
