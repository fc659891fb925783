//! The join of ledgers: the union of what they state, in which forgotten wins.
//!
//! - It does not matter in which order ledgers are joined, nor how often: proven by the property tests below.

use drystone_format::ledger::{Ledger, Live, Numbered};

/// Returns what `ledgers` state together. Its number is the highest of theirs, its predecessors are all of theirs.
///
/// A root is forgotten in the join if any one of them forgets it. That is more than the union of the lists: a floor forgets
/// what its ledger does not list as live, so a root that only another ledger lists as live is forgotten.
pub fn join<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>) -> Ledger {
    let ledgers: Vec<&Ledger> = ledgers.into_iter().collect();
    let mut joined = Ledger::default();
    for ledger in &ledgers {
        joined.number = joined.number.max(ledger.number);
        joined.predecessors.extend(&ledger.predecessors);
        joined.forgotten.extend(&ledger.forgotten);
        joined.dead.extend(&ledger.dead);
        for (registration, bounds) in &ledger.bounds {
            let known = joined.bounds.entry(*registration).or_default();
            known.floor = known.floor.max(bounds.floor);
            known.end = [known.end, bounds.end].into_iter().flatten().min();
        }
        joined.configuration.join(&ledger.configuration);
        joined.runs.join(&ledger.runs);
    }
    let is_live = |root: &Numbered| !ledgers.iter().any(|ledger| ledger.forgets(root));
    for (root, live) in ledgers.iter().flat_map(|ledger| &ledger.live) {
        if is_live(root) {
            let known = joined.live.entry(*root).or_insert(*live);
            *known = Live {
                first: known.first.min(live.first),
                kind: known.kind.min(live.kind),
            };
        }
    }
    joined.normalise();
    joined
}

#[cfg(test)]
pub(super) mod tests {
    use drystone_format::ledger::{Bounds, InForce, KindWord};
    use drystone_format::{RegistrationId, RootId};
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn root(registration: u8, number: u64, hash: u8) -> Numbered {
        Numbered {
            registration: RegistrationId([registration; 16]),
            number,
            hash: RootId([hash; 16]),
        }
    }

    pub(crate) fn live(first: u64) -> Live {
        let kind = KindWord::new("snapshot").unwrap();
        Live { kind, first }
    }

    fn roots() -> impl Strategy<Value = Numbered> {
        (0..3_u8, 0..6_u64, 0..2_u8).prop_map(|(registration, number, hash)| root(registration, number, hash))
    }

    /// Few registrations, numbers and hashes, so that ledgers contradict each other.
    pub(crate) fn ledgers() -> impl Strategy<Value = Ledger> {
        let bounds = (0..6_u64, proptest::option::of(0..6_u64)).prop_map(|(floor, end)| Bounds { floor, end });
        let runs = || btree_set(roots(), 0..4);
        (
            (
                0..9_u64,
                btree_map(roots(), (1..9_u64).prop_map(live), 0..8),
                btree_set(roots(), 0..8),
            ),
            (
                btree_map(0..3_u8, bounds, 0..3),
                btree_set(0..3_u8, 0..2),
                runs(),
                runs(),
            ),
        )
            .prop_map(|((number, live, forgotten), (bounds, dead, heads, superseded))| {
                let mut ledger = Ledger {
                    number,
                    live,
                    forgotten,
                    bounds: bounds
                        .into_iter()
                        .map(|(id, bounds)| (RegistrationId([id; 16]), bounds))
                        .collect(),
                    dead: dead.into_iter().map(|id| RegistrationId([id; 16])).collect(),
                    runs: InForce { heads, superseded },
                    ..Ledger::default()
                };
                ledger.runs.join(&InForce::default());
                ledger.normalise();
                ledger
            })
    }

    /// All roots that the ledgers of these tests may speak of, and some more.
    pub(crate) fn all() -> impl Iterator<Item = Numbered> {
        let of = |registration| (0..8).flat_map(move |number| (0..3).map(move |hash| root(registration, number, hash)));
        (0..4).flat_map(of)
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(one in ledgers(), two in ledgers(), three in ledgers()) {
            let together = join([&one, &two, &three]);
            prop_assert_eq!(&join([&three, &one, &two, &one]), &together);
            prop_assert_eq!(&join([&join([&one, &two]), &three]), &together);
            prop_assert_eq!(&join([&one, &join([&two, &three])]), &together);
            prop_assert_eq!(&join([&together, &one]), &together);
            prop_assert_eq!(&join([&one]), &one);
        }

        #[test]
        fn forgotten_by_one_is_forgotten_by_all(one in ledgers(), two in ledgers()) {
            let joined = join([&one, &two]);
            for root in all() {
                prop_assert_eq!(joined.forgets(&root), one.forgets(&root) || two.forgets(&root), "{:?}", root);
                let is_stated = one.live.contains_key(&root) || two.live.contains_key(&root);
                prop_assert_eq!(joined.live.contains_key(&root), is_stated && !joined.forgets(&root));
            }
        }
    }
}
