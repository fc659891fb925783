//! Limits of all requests over a network: in time, and in what may come.
//!
//! - Nothing that a server does makes a call last for ever or take memory without end.

use std::time::Duration;

use thiserror::Error;

/// Time for a connection to stand.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time for an answer to begin, and between its pieces.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Time without any progress after which an upload has failed.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Most entries of one directory, or met in one listing.
pub(crate) const ENTRIES_MAX: usize = 1 << 20;

/// A server answered with more than any honest one has to say.
#[derive(Debug, Error)]
#[error("the answer has no end: more than {limit} {what}")]
pub(crate) struct Excess {
    /// How much there may be.
    pub(crate) limit: u64,
    /// Of what.
    pub(crate) what: &'static str,
}

pub(crate) fn too_many_entries() -> Excess {
    Excess {
        limit: ENTRIES_MAX as u64,
        what: "entries",
    }
}
