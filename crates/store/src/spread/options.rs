//! What a spread is made of, and what those above tell it: sound objects, lengths, signers.
//!
//! - Answers that turn out wrong make reads slower, never wrong.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use drystone_format::keys::VerifyKey;
use drystone_format::shard::ShardKeys;
use drystone_format::{PackId, PlaceId};

use super::place::SpreadPlace;
use crate::placement::Placement;
use crate::{Error, Name, Result};

/// Tells whether small objects are what was stored: the vault knows their signatures and seals.
pub trait Judge: Send + Sync {
    /// Whether these may be the bytes of the object; `true` for objects that it knows nothing about.
    ///
    /// Of an object whose name ends in a hash, every copy with that hash is read; one that is not sound is not copied to
    /// other places.
    fn is_sound(&self, name: &Name, bytes: &[u8]) -> bool;
}

/// Tells the length of a pack in bytes, if it is known.
pub type SizeHint = Arc<dyn Fn(&PackId) -> Option<u64> + Send + Sync>;

/// Tells who signed a pack, if it is known.
pub type SignerHint = Arc<dyn Fn(&PackId) -> Option<VerifyKey> + Send + Sync>;

/// Is told of each pack of which forged shards were found, and at which places.
pub type ForgedHook = Arc<dyn Fn(&PackId, &[PlaceId]) + Send + Sync>;

/// What a spread is.
pub struct SpreadOptions {
    /// How many shards give a pack back (k).
    pub needed: u8,
    /// How many shards a pack has (n).
    pub total: u8,
    /// Where they lie.
    pub places: Vec<SpreadPlace>,
    /// What their blocks are tagged with, and who signs them.
    pub keys: ShardKeys,
    /// Knows sound small objects.
    pub judge: Arc<dyn Judge>,
    /// How long a place may take for the first MiB of an answer before others are asked too, and for each further one.
    pub hedge_after: Duration,
    /// How long a place that did not answer is left alone.
    pub rest: Duration,
}

/// Refuses what is no spread.
pub(super) fn validate(options: &SpreadOptions, placement: &Placement) -> Result<()> {
    let ids: HashSet<_> = options.places.iter().map(|place| place.id).collect();
    let why = if options.needed == 0 || options.needed > options.total {
        "at least one part must be needed, and no more than there are"
    } else if placement.open_places() == 0 {
        "there must be a place that is not being emptied"
    } else if ids.len() < options.places.len() {
        "a place is named twice"
    } else {
        return Ok(());
    };
    Err(Error::Spread {
        needed: options.needed,
        total: options.total,
        places: options.places.len(),
        why,
    })
}
