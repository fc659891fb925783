//! The order among roots: the first ledger that states a root, and no writer's clock.
//!
//! - Roots that no ledger states come last, by the time that they claim, within the bounds that are known.

use drystone_format::RootId;
use drystone_format::ledger::{FirstSeen, Ledger, Numbered};

/// Returns when a root was first seen, in the word of two owners: the earlier one saw it, and nobody found it before that.
///
/// Owners' clocks may differ, and lists lag: a look in vain after somebody saw the root does not count.
pub fn first_seen(one: FirstSeen, two: FirstSeen) -> FirstSeen {
    let at = one.at.min(two.at);
    let looks = [one.not_at, two.not_at].into_iter().flatten();
    FirstSeen {
        not_at: looks.filter(|look| *look <= at).max(),
        at,
    }
}

/// The place of a root among others: ascending from the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    first: u64,
    time: i64,
    hash: RootId,
}

/// Returns the place of a root that claims to be made at a time, in seconds since 1970, which counts within the bounds of `seen`.
pub fn order(stated: &Ledger, root: &Numbered, claimed: i64, seen: FirstSeen) -> Order {
    Order {
        first: stated.live.get(root).map_or(u64::MAX, |live| live.first),
        time: seen.bound(claimed),
        hash: root.hash,
    }
}

#[cfg(test)]
mod tests {
    use super::super::join::tests::{live, root};
    use super::*;

    #[test]
    fn owners_narrow_down_when_a_root_came() {
        let seen = |not_at, at| FirstSeen { not_at, at };
        assert_eq!(first_seen(seen(Some(10), 90), seen(Some(50), 70)), seen(Some(50), 70));
        assert_eq!(first_seen(seen(Some(10), 90), seen(None, 70)), seen(Some(10), 70));
        assert_eq!(first_seen(seen(Some(80), 90), seen(Some(20), 70)), seen(Some(20), 70));
        assert_eq!(first_seen(seen(Some(80), 90), seen(None, 70)), seen(None, 70));
    }

    #[test]
    fn ledgers_come_before_clocks_and_clocks_count_within_bounds() {
        let stated = Ledger {
            live: [(root(1, 0, 1), live(3)), (root(1, 1, 2), live(2))].into(),
            ..Ledger::default()
        };
        let at = |root: &Numbered, claimed| {
            let seen = FirstSeen {
                not_at: Some(100),
                at: 200,
            };
            order(&stated, root, claimed, seen)
        };
        assert!(at(&root(1, 0, 1), 0) > at(&root(1, 1, 2), i64::MAX));
        assert!(
            at(&root(1, 2, 0), 0) > at(&root(1, 0, 1), 0),
            "what no ledger states is newer"
        );
        assert!(at(&root(1, 2, 0), 150) < at(&root(1, 3, 0), 160));
        // Lies about the past and the future count no more than the bounds.
        assert_eq!(at(&root(1, 2, 0), i64::MIN), at(&root(1, 2, 0), 100));
        assert_eq!(at(&root(1, 2, 0), i64::MAX), at(&root(1, 2, 0), 200));
    }
}
