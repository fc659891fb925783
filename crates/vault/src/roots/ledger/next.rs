//! The next ledger: what the newest ones state, and what its writer has to add.
//!
//! - It carries over all that the newest state, so each of them may be deleted once it is durable.
//! - It states so many live roots and no more: those that are left out are live all the same, so a flood of them stops nothing.
//! - It never names a ledger that could not be read as a predecessor, unless an owner gives that one up by name.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::RegistrationId;
use drystone_format::epoch::{Closing, Closings};
use drystone_format::ledger::{ConfigurationName, KindWord, Ledger, LedgerName, Live, Numbered};
use drystone_format::limits::{LEDGER_LIVE_MAX, LEDGER_PREDECESSORS_MAX};

use super::known::View;

/// What a new ledger adds.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Roots that the owner has read and verified, with their kinds.
    pub seen: BTreeMap<Numbered, KindWord>,
    /// Roots that an owner wants forgotten: named by hash, read or not.
    pub forgotten: BTreeSet<Numbered>,
    /// How many roots of a fenced registration count; those with this number or a higher one are void.
    pub cuts: BTreeMap<RegistrationId, u64>,
    /// Ranges that are closed; see [`confirmed`](super::confirmed).
    pub closed: Closings,
    /// Ledgers that no place gives back, and that an owner no longer waits for: what they alone state is lost.
    pub given_up: BTreeSet<LedgerName>,
    /// The configuration that replaces all that are in force.
    pub configuration: Option<ConfigurationName>,
    /// Index runs that are new.
    pub runs: BTreeSet<Numbered>,
    /// Index runs that those replace.
    pub replaced_runs: BTreeSet<Numbered>,
}

/// Returns the ledger that carries over what `view` says and adds `change`; `None` if that says nothing new, and one ledger says it all.
pub fn next(view: &View, change: &Change) -> Option<Ledger> {
    let mut ledger = Ledger::clone(&view.stated);
    ledger.number = ledger.number.saturating_add(1);
    ledger.forgotten.extend(&change.forgotten);
    for (registration, count) in &change.cuts {
        let bounds = ledger.bounds.entry(*registration).or_default();
        bounds.end = Some(bounds.end.map_or(*count, |end| end.min(*count)));
    }
    for (root, kind) in &change.seen {
        let has_room = ledger.live.len() < LEDGER_LIVE_MAX;
        if has_room && !ledger.forgets(root) {
            let live = Live {
                kind: *kind,
                first: ledger.number,
            };
            ledger.live.entry(*root).or_insert(live);
        }
    }
    for (registration, closing) in &change.closed {
        match closing {
            Closing::Dead => drop(ledger.dead.insert(*registration)),
            Closing::Below(floor) => {
                let bounds = ledger.bounds.entry(*registration).or_default();
                bounds.floor = bounds.floor.max(*floor);
            }
        }
    }
    if let Some(configuration) = change.configuration {
        ledger.configuration.replace(configuration);
    }
    ledger.runs.heads.extend(&change.runs);
    ledger.runs.superseded.extend(&change.replaced_runs);
    ledger.runs.heads.retain(|run| !change.replaced_runs.contains(run));
    ledger.normalise();
    let is_new = ledger.live != view.stated.live
        || ledger.forgotten != view.stated.forgotten
        || ledger.bounds != view.stated.bounds
        || ledger.dead != view.stated.dead
        || ledger.configuration != view.stated.configuration
        || ledger.runs != view.stated.runs;
    if !is_new && change.given_up.is_empty() && view.newest.len() == 1 {
        return None;
    }
    ledger.predecessors.extend(&view.newest);
    ledger.predecessors.extend(&change.given_up);
    while ledger.predecessors.len() > LEDGER_PREDECESSORS_MAX {
        ledger.predecessors.pop_first();
    }
    Some(ledger)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drystone_format::RootId;
    use proptest::prelude::*;

    use super::super::join::tests::{all, ledgers, live, root};
    use super::super::known::{Known, Refusal};
    use super::*;

    const KIND: &str = "snapshot";

    fn name(number: u64, hash: u8) -> LedgerName {
        (number, RootId([hash; 16]))
    }

    fn known(ledgers: &[Ledger]) -> Known {
        let mut known = Known::default();
        for (hash, ledger) in (0..).zip(ledgers) {
            known.insert(name(ledger.number, hash), Arc::new(ledger.clone()));
        }
        known
    }

    fn seen(root: Numbered) -> Change {
        Change {
            seen: [(root, KindWord::new(KIND).unwrap())].into(),
            ..Change::default()
        }
    }

    proptest! {
        #[test]
        fn the_next_carries_over_all(one in ledgers(), two in ledgers(), forgets in 0..20_usize) {
            let mut known = known(&[one.clone(), two.clone()]);
            let change = Change { forgotten: all().skip(forgets).take(2).collect(), ..Change::default() };
            let ledger = next(&known.view(), &change).unwrap();
            for root in all() {
                let forgets = one.forgets(&root) || two.forgets(&root) || change.forgotten.contains(&root);
                prop_assert_eq!(ledger.forgets(&root), forgets);
                let is_live = !forgets && (one.live.contains_key(&root) || two.live.contains_key(&root));
                prop_assert_eq!(ledger.live.contains_key(&root), is_live);
            }
            // It alone is the newest, and with the two again nothing changes.
            known.insert(name(99, 99), Arc::new(ledger.clone()));
            let view = known.view();
            prop_assert_eq!(view.newest, [name(99, 99)].into());
            prop_assert_eq!(&*view.stated, &ledger);
            prop_assert_eq!(next(&known.view(), &change), None);
        }
    }

    #[test]
    fn roots_get_the_number_of_the_first_ledger_that_states_them() {
        let first = next(&Known::default().view(), &seen(root(1, 0, 1))).unwrap();
        assert_eq!((first.number, &first.live), (1, &[(root(1, 0, 1), live(1))].into()));
        let mut known = known(&[first]);
        let second = next(
            &known.view(),
            &Change {
                seen: [seen(root(1, 0, 1)).seen, seen(root(1, 1, 1)).seen]
                    .into_iter()
                    .flatten()
                    .collect(),
                ..Change::default()
            },
        )
        .unwrap();
        assert_eq!(second.live, [(root(1, 0, 1), live(1)), (root(1, 1, 1), live(2))].into());
        // A number that a place invented does not count.
        known.insert_unreadable(name(u64::MAX, 9));
        assert_eq!(next(&known.view(), &seen(root(1, 1, 1))).unwrap().number, 2);
    }

    #[test]
    fn an_unreadable_ledger_stops_gc_until_it_is_given_up_by_name() {
        let mut known = known(&[Ledger {
            number: 1,
            live: [(root(1, 0, 1), live(1))].into(),
            ..Ledger::default()
        }]);
        let lost = name(2, 9);
        known.insert_unreadable(lost);
        let found = [root(1, 0, 1)].into();
        let refused = Err(Refusal::Unreadable([lost].into()));
        assert_eq!(known.view().collectable(&BTreeSet::new(), &found), refused);
        let ledger = next(&known.view(), &seen(root(2, 0, 1))).unwrap();
        known.insert(name(2, 2), Arc::new(ledger));
        assert_eq!(
            known.view().collectable(&BTreeSet::new(), &found),
            refused,
            "a ledger that did not read it supersedes it"
        );
        let given_up = Change {
            given_up: [lost].into(),
            ..Change::default()
        };
        known.insert(name(3, 3), Arc::new(next(&known.view(), &given_up).unwrap()));
        let missing = Err(Refusal::Missing([root(2, 0, 1)].into()));
        assert_eq!(known.view().collectable(&BTreeSet::new(), &found), missing);
    }

    #[test]
    fn a_flood_of_roots_makes_no_ledger_too_large() {
        let kind = KindWord::new(KIND).unwrap();
        let flood = (0..LEDGER_LIVE_MAX as u64 + 9).map(|number| (root(1, number, 0), kind));
        let ledger = next(
            &Known::default().view(),
            &Change {
                seen: flood.collect(),
                ..Change::default()
            },
        )
        .unwrap();
        assert_eq!(ledger.live.len(), LEDGER_LIVE_MAX);
        assert!(!ledger.forgets(&root(1, LEDGER_LIVE_MAX as u64 + 1, 0)));
    }

    #[test]
    fn predecessors_are_bounded_and_the_oldest_go() {
        let mut ledger = Ledger {
            number: 70_000,
            ..Ledger::default()
        };
        ledger.predecessors = (0..LEDGER_PREDECESSORS_MAX as u64)
            .map(|number| name(number, 0))
            .collect();
        let known = known(&[ledger]);
        let next = next(&known.view(), &seen(root(1, 0, 0))).unwrap();
        assert_eq!(next.predecessors.len(), LEDGER_PREDECESSORS_MAX);
        assert_eq!(next.predecessors.first(), Some(&name(1, 0)));
        assert!(next.predecessors.contains(&name(70_000, 0)));
    }
}
