//! The ledgers that an owner or a writer knows, and what follows from them.
//!
//! - A ledger that was read counts as long as nobody supersedes it, wherever it lies and whatever its number.
//! - A ledger that is known by name alone, and that nobody supersedes, may state anything: it stops gc.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::ledger::{Ledger, LedgerName, Numbered};

use super::join::join;

/// The ledgers of all places, and those that this machine remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Known {
    read: BTreeMap<LedgerName, Arc<Ledger>>,
    unreadable: BTreeSet<LedgerName>,
}

impl Known {
    /// Takes in a ledger that was read.
    pub fn insert(&mut self, name: LedgerName, ledger: Arc<Ledger>) {
        self.unreadable.remove(&name);
        self.read.insert(name, ledger);
    }

    /// Notes a ledger of which no sound copy was found: listed somewhere, or remembered by this machine.
    pub fn insert_unreadable(&mut self, name: LedgerName) {
        if !self.read.contains_key(&name) {
            self.unreadable.insert(name);
        }
    }

    /// Returns true if the ledger was read.
    pub fn has_read(&self, name: &LedgerName) -> bool {
        self.read.contains_key(name)
    }

    /// Returns true if a ledger that was read carries this one over.
    pub fn is_superseded(&self, name: &LedgerName) -> bool {
        self.read.values().any(|ledger| ledger.predecessors.contains(name))
    }

    /// Lets go of the names of ledgers that could not be read, to note those that still cannot.
    pub fn forget_unreadable(&mut self) {
        self.unreadable.clear();
    }

    /// Lets go of ledgers that others carry over: they say nothing more.
    pub fn forget_superseded(&mut self) {
        let superseded = self.superseded();
        self.read.retain(|name, _| !superseded.contains(name));
        self.unreadable.retain(|name| !superseded.contains(name));
    }

    /// All that were read.
    pub fn read(&self) -> impl Iterator<Item = (&LedgerName, &Arc<Ledger>)> {
        self.read.iter()
    }

    /// The ledgers that another one carries over.
    fn superseded(&self) -> BTreeSet<LedgerName> {
        self.read
            .values()
            .flat_map(|ledger| &ledger.predecessors)
            .copied()
            .collect()
    }

    /// What the newest ledgers state together: all that no other names as a predecessor.
    pub fn view(&self) -> View {
        let superseded = self.superseded();
        let newest = self.read.iter().filter(|(name, _)| !superseded.contains(name));
        let newest: BTreeMap<&LedgerName, &Arc<Ledger>> = newest.collect();
        View {
            stated: Arc::new(join(newest.values().map(|ledger| &***ledger))),
            newest: newest.into_keys().copied().collect(),
            unreadable: self.unreadable.difference(&superseded).copied().collect(),
        }
    }
}

/// Why gc must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// These ledgers are among the newest, and no place gives one of them back.
    Unreadable(BTreeSet<LedgerName>),
    /// These roots are known to exist, are not forgotten, and no place has them.
    Missing(BTreeSet<Numbered>),
}

/// What is known of roots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The join of the newest ledgers.
    pub stated: Arc<Ledger>,
    /// The newest ledgers that were read; the next one names them as predecessors.
    pub newest: BTreeSet<LedgerName>,
    /// The newest ledgers that could not be read.
    pub unreadable: BTreeSet<LedgerName>,
}

impl View {
    /// Returns true if there is no ledger yet, as far as is known: all roots are live.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.unreadable.is_empty()
    }

    /// Returns true unless an owner has forgotten the root: also if no ledger states it.
    pub fn is_live(&self, root: &Numbered) -> bool {
        !self.stated.forgets(root)
    }

    /// The live roots among those that a list shows and those that ledgers state.
    pub fn live(&self, listed: &BTreeSet<Numbered>) -> BTreeSet<Numbered> {
        let stated = self.stated.live.keys();
        stated
            .chain(listed)
            .filter(|root| self.is_live(root))
            .copied()
            .collect()
    }

    /// Roots that are known to exist, from ledgers or since this machine has `seen` them, and that are neither `found` nor forgotten.
    pub fn missing(&self, seen: &BTreeSet<Numbered>, found: &BTreeSet<Numbered>) -> BTreeSet<Numbered> {
        self.live(seen).difference(found).copied().collect()
    }

    /// Returns the roots to mark from, or why gc must not go on. `seen` are the roots that this machine remembers, `found` are those that
    /// were listed, or read by name since a list may lag.
    pub fn collectable(
        &self,
        seen: &BTreeSet<Numbered>,
        found: &BTreeSet<Numbered>,
    ) -> Result<BTreeSet<Numbered>, Refusal> {
        if !self.unreadable.is_empty() {
            return Err(Refusal::Unreadable(self.unreadable.clone()));
        }
        let missing = self.missing(seen, found);
        if missing.is_empty() {
            Ok(self.live(found))
        } else {
            Err(Refusal::Missing(missing))
        }
    }

    /// Roots of one registration and number, of which at least one is live, that are not the same: the writer's key is in two hands.
    pub fn forks(&self, listed: &BTreeSet<Numbered>) -> Vec<BTreeSet<Numbered>> {
        let live: Vec<Numbered> = self.live(listed).into_iter().collect();
        let groups = live.chunk_by(|one, two| one.registration == two.registration && one.number == two.number);
        groups
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().copied().collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use drystone_format::RootId;

    use super::super::join::tests::{live, root};
    use super::*;

    fn known(ledgers: &[(u8, &[u8], Ledger)]) -> Known {
        let name = |hash: u8| (1, RootId([hash; 16]));
        let mut known = Known::default();
        for (hash, predecessors, ledger) in ledgers {
            let mut ledger = ledger.clone();
            ledger.predecessors = predecessors.iter().map(|hash| name(*hash)).collect();
            known.insert(name(*hash), Arc::new(ledger));
        }
        known
    }

    fn says(live_roots: &[Numbered], forgotten: &[Numbered]) -> Ledger {
        Ledger {
            number: 1,
            live: live_roots.iter().map(|root| (*root, live(1))).collect(),
            forgotten: forgotten.iter().copied().collect(),
            ..Ledger::default()
        }
    }

    #[test]
    fn newest_are_those_that_nobody_carries_over() {
        let one = root(1, 0, 1);
        let known = known(&[
            (1, &[], says(&[one], &[])),
            (2, &[1], says(&[one], &[])),
            (3, &[1], says(&[], &[one])),
        ]);
        let names: Vec<u8> = known.view().newest.iter().map(|(_, hash)| hash.0[0]).collect();
        assert_eq!(names, [2, 3], "the same number, and no word about each other");
        assert!(!known.view().is_live(&one));
    }

    #[test]
    fn an_unreadable_ledger_that_is_carried_over_is_no_loss() {
        let mut known = known(&[(2, &[1], says(&[], &[]))]);
        known.insert_unreadable((1, RootId([1; 16])));
        assert!(known.view().unreadable.is_empty());
        known.insert_unreadable((1, RootId([9; 16])));
        assert_eq!(known.view().unreadable.len(), 1);
        known.insert((1, RootId([9; 16])), Arc::default());
        assert!(known.view().unreadable.is_empty());
    }

    #[test]
    fn without_a_ledger_all_roots_live() {
        let view = Known::default().view();
        let listed = [root(1, 0, 1), root(2, 5, 1)].into();
        assert!(view.is_empty());
        assert_eq!(view.collectable(&BTreeSet::new(), &listed), Ok(listed));
    }

    #[test]
    fn roots_that_are_known_and_gone_are_missed() {
        let [stated, seen, forgotten] = [root(1, 0, 1), root(1, 1, 1), root(1, 2, 1)];
        let view = known(&[(1, &[], says(&[stated], &[forgotten]))]).view();
        let remembered = [seen, forgotten].into();
        assert_eq!(view.missing(&remembered, &BTreeSet::new()), [stated, seen].into());
        assert_eq!(view.missing(&remembered, &[stated].into()), [seen].into());
        assert_eq!(
            view.collectable(&remembered, &[seen].into()),
            Err(Refusal::Missing([stated].into()))
        );
        let all = [stated, seen, forgotten].into();
        assert_eq!(view.collectable(&remembered, &all), Ok([stated, seen].into()));
    }

    #[test]
    fn two_roots_of_one_number_both_live_and_are_told() {
        let [genuine, forged, other] = [root(1, 3, 1), root(1, 3, 2), root(2, 3, 2)];
        let listed = [genuine, forged, other].into();
        let view = known(&[(1, &[], says(&[genuine], &[]))]).view();
        assert_eq!(view.live(&listed), listed);
        assert_eq!(view.forks(&listed), [BTreeSet::from([genuine, forged])]);
        let view = known(&[(1, &[], says(&[genuine], &[forged]))]).view();
        assert!(view.forks(&listed).is_empty());
    }
}
