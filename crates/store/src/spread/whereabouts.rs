//! Where to read a pack, as far as that is known.

use std::sync::Arc;

/// Where one shard may lie.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) number: u8,
    /// Positions of places, in the order in which to ask them.
    pub(super) places: Vec<usize>,
}

/// Where a pack was found.
#[derive(Debug, Clone)]
pub(super) enum Whereabouts {
    /// As shards, of which so many are needed.
    Shards { needed: u8, sources: Arc<[Source]> },
    /// Whole, at the place of this position.
    Whole { position: usize },
}
