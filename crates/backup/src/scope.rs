//! Why a directory is looked at, and which of the names in it are meant.

pub(crate) mod filters;
pub(crate) mod own;
pub(crate) mod patterns;
pub(crate) mod sources;

use std::sync::Arc;

use crate::local::dir::Follow;
use crate::scope::sources::Named;

/// Why a directory is looked at.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    /// All of it belongs to a source.
    Whole {
        /// Where in the cache its files are.
        slot: usize,
        /// Device of the source's own directory.
        device: u64,
        /// Sources below.
        named: Option<Arc<Named>>,
    },
    /// Only what is named in it.
    Listed(Arc<Named>),
}

impl Scope {
    /// Whether the directory may be what a link leads to: what leads to a source, and a source that asks for it.
    pub(crate) fn follow(&self) -> Follow {
        match self {
            Self::Whole { named, .. } => named.as_ref().map_or(Follow::No, |named| named.follow),
            Self::Listed(_) => Follow::Yes,
        }
    }

    /// The source that the directory itself is, by number.
    pub(crate) fn source(&self) -> Option<usize> {
        match self {
            Self::Whole { named, .. } => named.as_ref().and_then(|named| named.source),
            Self::Listed(_) => None,
        }
    }

    /// What is named in the directory.
    pub(crate) fn named(&self) -> Option<&Arc<Named>> {
        match self {
            Self::Whole { named, .. } => named.as_ref(),
            Self::Listed(named) => Some(named),
        }
    }
}
