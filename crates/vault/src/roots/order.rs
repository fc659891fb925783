//! In which order snapshots came: what is known of that beside what they claim, without any I/O.
//!
//! - The first ledger that states a snapshot decides. Of those that one ledger states first, and of those that none states yet, the time decides.
//! - A claimed time counts within the bounds that owners saw: not before a look without the snapshot, not after the first look with it.
//!   So writers cannot choose their place in the order, and a clock that is wrong changes little.
//! - A time in the future, whoever claims it, does not count: the snapshot is kept and reported, and is never the latest.
//! - A copy keeps the time of its original, which is older than the copy.
//! - Of copies of one snapshot the one that lost least comes last.

use std::cmp::Reverse;

use drystone_format::keys::{Role, VerifyKey};
use drystone_format::ledger::FirstSeen;
use drystone_format::snapshot::Snapshot;
use drystone_format::{RootId, VaultId, tree::Time};

/// How wrong clocks may be before their times count as false, seconds: a day, so that no time zone matters.
const SKEW: i64 = 86_400;

/// A snapshot wherever it is: the vault that it was made into, and its id there.
pub type Identity = (VaultId, RootId);

/// A snapshot with what is known of it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: RootId,
    /// What it says.
    pub snapshot: Snapshot,
    /// The snapshot that it is a copy of; itself if it is no copy.
    pub identity: Identity,
    /// The key that signed it.
    pub writer: VerifyKey,
    /// What that key may do.
    pub role: Role,
    /// When owners saw it first.
    pub seen: FirstSeen,
    /// The number of the first ledger that states it; `None` if it is newer than all of them. Of a copy, after [`arrange`]: that of
    /// the newest snapshot that is not younger.
    pub stated: Option<u64>,
}

impl Candidate {
    /// Returns the writer key whose snapshots compete only with its own; `None` for owners, who trust each other.
    pub fn signers(&self) -> Option<[u8; 32]> {
        (self.role != Role::Owner).then_some(self.writer.0)
    }

    /// Returns true if a backup on a machine made it at the time it claims, rather than a copy of an older snapshot.
    fn is_original(&self) -> bool {
        self.snapshot.origin.is_none() || self.role != Role::Owner
    }
}

/// Returns why the claimed time cannot be true, as a clause that follows the snapshot's name; `None` if it can.
pub fn contradiction(candidate: &Candidate) -> Option<&'static str> {
    let Snapshot { started, finished, .. } = &candidate.snapshot;
    let FirstSeen { not_at, at } = candidate.seen;
    if started.seconds.max(finished.seconds) > at.saturating_add(SKEW) {
        Some("its time is later than it was first seen: it does not count, look at it")
    } else if candidate.role != Role::Owner
        && not_at.is_some_and(|not_at| finished.seconds < not_at.saturating_sub(SKEW))
    {
        Some("its time is before a time when it was not there: it does not count, look at it")
    } else {
        None
    }
}

/// The start time that counts: the claimed one, clamped between the last look without the snapshot and the first with it.
pub fn began(candidate: &Candidate) -> i64 {
    let claimed = candidate.snapshot.started.seconds;
    if candidate.is_original() {
        candidate.seen.bound(claimed)
    } else {
        claimed.min(candidate.seen.at)
    }
}

/// Returns the identity of a snapshot that `vault` has under `id`.
pub fn identity(vault: VaultId, id: RootId, snapshot: &Snapshot) -> Identity {
    snapshot
        .origin
        .map_or((vault, id), |origin| (origin.vault, origin.snapshot))
}

/// The place of a snapshot among others: the first ledger that states it, then the time that counts, then what it claims, then
/// how little it has lost.
pub fn position(candidate: &Candidate) -> (u64, i64, Time, Reverse<u64>, RootId) {
    (
        candidate.stated.unwrap_or(u64::MAX),
        began(candidate),
        candidate.snapshot.started,
        Reverse(candidate.snapshot.lost()),
        candidate.id,
    )
}

/// Sorts snapshots as they came. Copies that owners made get the place of their originals, by the time that counts.
pub fn arrange(candidates: &mut [Candidate]) {
    let mut originals: Vec<(i64, Option<u64>)> = candidates
        .iter()
        .filter(|candidate| candidate.is_original())
        .map(|candidate| (began(candidate), candidate.stated))
        .collect();
    originals.sort_unstable_by_key(|(began, stated)| (*began, stated.unwrap_or(u64::MAX)));
    // The newest ledger so far, in the order of times.
    let mut newest = 0;
    let ranks: Vec<(i64, u64)> = originals
        .iter()
        .map(|(began, stated)| {
            newest = newest.max(stated.unwrap_or(u64::MAX));
            (*began, newest)
        })
        .collect();
    for copy in candidates.iter_mut().filter(|candidate| !candidate.is_original()) {
        let at = ranks.partition_point(|(time, _)| *time <= began(copy));
        let before = at.checked_sub(1).and_then(|at| ranks.get(at));
        let rank = before.map_or(0, |(_, rank)| *rank);
        copy.stated = Some(rank).filter(|rank| *rank < u64::MAX);
    }
    candidates.sort_by_key(position);
}

#[cfg(test)]
pub(crate) mod tests {
    use drystone_format::recipe::RecipeBuilder;
    use drystone_format::snapshot::{Origin, Totals};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn candidate(number: u8, started: i64, role: Role) -> Candidate {
        let time = Time {
            seconds: started,
            nanos: 0,
        };
        let snapshot = Snapshot {
            started: time,
            finished: time,
            host: "host".to_owned(),
            user: String::new(),
            paths: vec![b"/".to_vec()],
            tags: Vec::new(),
            tree: RecipeBuilder::default()
                .finish(&mut |_| Err::<_, drystone_format::Error>(drystone_format::Error::Crypto("no tree")))
                .unwrap(),
            parent: None,
            totals: Totals::default(),
            program: String::new(),
            origin: None,
            unknown: Vec::new(),
        };
        Candidate {
            id: RootId([number; 16]),
            identity: identity(VaultId([9; 16]), RootId([number; 16]), &snapshot),
            snapshot,
            writer: VerifyKey([7; 32]),
            role,
            seen: FirstSeen {
                not_at: None,
                at: started,
            },
            stated: None,
        }
    }

    /// A copy of the snapshot of this number in some other vault, with so much lost.
    pub(crate) fn copy_of(original: u8, lost: u64, copy: Candidate) -> Candidate {
        let origin = Origin {
            vault: VaultId([1; 16]),
            snapshot: RootId([original; 16]),
            lost,
        };
        Candidate {
            identity: (origin.vault, origin.snapshot),
            snapshot: Snapshot {
                origin: Some(origin),
                ..copy.snapshot
            },
            ..copy
        }
    }

    const NOON: i64 = 1_700_000_000;

    fn seen(number: u8, started: i64, role: Role, not_at: i64, at: i64) -> Candidate {
        Candidate {
            seen: FirstSeen {
                not_at: Some(not_at),
                at,
            },
            ..candidate(number, started, role)
        }
    }

    #[test]
    fn a_time_in_the_future_counts_for_nobody() {
        for role in [Role::Owner, Role::Writer] {
            let later = seen(1, NOON + 73 * 365 * SKEW, role, NOON - 10, NOON);
            assert!(contradiction(&later).is_some());
            assert_eq!(began(&later), NOON);
            assert!(contradiction(&seen(2, NOON + SKEW / 2, role, NOON - 10, NOON)).is_none());
        }
    }

    #[test]
    fn a_clock_that_fell_back_does_not_make_the_newest_the_oldest() {
        let old = seen(1, NOON, Role::Owner, NOON - 10, NOON + 10);
        let new = seen(2, 0, Role::Owner, NOON + 10, NOON + 20);
        assert!(position(&old) < position(&new));
        assert!(contradiction(&new).is_none() && contradiction(&seen(3, 0, Role::Writer, NOON, NOON)).is_some());
    }

    #[test]
    fn a_copy_has_the_age_of_its_original_if_an_owner_made_it() {
        let copy = |role| copy_of(1, 0, seen(1, 1000, role, NOON, NOON + 10));
        assert_eq!(began(&copy(Role::Owner)), 1000);
        // A writer could claim to have copied.
        assert_eq!(began(&copy(Role::Writer)), NOON);
    }

    #[test]
    fn within_one_look_the_ledger_decides() {
        let at = |number, stated| Candidate {
            stated,
            ..seen(number, 0, Role::Owner, NOON, NOON)
        };
        assert!(position(&at(9, Some(1))) < position(&at(1, Some(2))));
        assert!(position(&at(9, Some(2))) < position(&at(1, None)));
    }

    proptest! {
        /// Whatever a writer claims, its snapshot comes after what was seen before it could have come, and before what came later.
        #[test]
        fn writers_cannot_choose_their_place(claimed in any::<i64>(), other in any::<i32>()) {
            let writers = seen(1, claimed, Role::Writer, NOON, NOON + 10);
            let before = seen(2, NOON.min(other.into()), Role::Owner, NOON - 10, NOON - 1);
            let after = seen(3, (NOON + 20).max(other.into()), Role::Owner, NOON + 11, NOON + 20);
            prop_assert!(position(&before) < position(&writers));
            prop_assert!(position(&writers) < position(&after));
        }
    }
}
