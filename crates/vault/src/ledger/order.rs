//! The order among roots: the first ledger that states a root, and no writer's clock.
//!
//! - Roots that no ledger states come last, by the time that they claim, within the bounds that are known.

use drystone_format::RootId;
use drystone_format::ledger::{Ledger, Numbered};

/// When a root says that it was made, and what is known about that. All of it is in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What the root says.
    pub claimed: i64,
    /// Somebody looked then, and it was not there.
    pub not_at: Option<i64>,
    /// It was seen then.
    pub at: i64,
}

/// The place of a root among others: ascending from the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    first: u64,
    time: i64,
    hash: RootId,
}

/// Returns the place of a root. What the root claims counts between the last look that did not find it and the first that did.
pub fn order(stated: &Ledger, root: &Numbered, claim: &Claim) -> Order {
    Order {
        first: stated.live.get(root).map_or(u64::MAX, |live| live.first),
        time: claim.claimed.max(claim.not_at.unwrap_or(i64::MIN)).min(claim.at),
        hash: root.hash,
    }
}
