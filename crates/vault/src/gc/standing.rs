//! What stands: the epochs of gc with what they say together, and what the newest ledgers state. Pure, like `protocol.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::{Closings, Epoch, EpochName};
use drystone_format::ledger::{Ledger, Numbered};
use drystone_format::root::RootName;
use drystone_format::{PackId, RegistrationId, RootId};

use crate::roots::ledger::widen;

/// The epochs that stand with what they say together, and what the newest ledgers state that were read last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    epochs: BTreeMap<EpochName, Epoch>,
    unreadable: BTreeSet<EpochName>,
    stated: Arc<Ledger>,
}

impl Standing {
    /// Takes in one more epoch.
    pub fn insert(&mut self, name: EpochName, epoch: Epoch) {
        self.epochs.insert(name, epoch);
    }

    /// Notes an epoch that does not open; nobody may claim to have seen it.
    pub fn insert_unreadable(&mut self, name: EpochName) {
        self.unreadable.insert(name);
    }

    /// Leaves only what is still there.
    pub fn retain(&mut self, listed: &BTreeSet<EpochName>) {
        self.epochs.retain(|name, _| listed.contains(name));
        self.unreadable.retain(|name| listed.contains(name));
    }

    /// Returns true if the same epochs stand, whatever ledgers state.
    pub fn has_same_epochs(&self, other: &Self) -> bool {
        self.epochs == other.epochs && self.unreadable == other.unreadable
    }

    /// Returns true if this epoch was read.
    pub fn has_read(&self, name: &EpochName) -> bool {
        self.epochs.contains_key(name)
    }

    /// The epochs that were read.
    pub fn names(&self) -> BTreeSet<EpochName> {
        self.epochs.keys().copied().collect()
    }

    /// The epochs that are there, those that do not open among them.
    pub fn all_names(&self) -> BTreeSet<EpochName> {
        self.epochs.keys().chain(&self.unreadable).copied().collect()
    }

    /// Takes in the epochs of another.
    pub fn honour(&mut self, other: &Self) {
        for (name, epoch) in &other.epochs {
            self.epochs.entry(*name).or_insert_with(|| epoch.clone());
        }
        self.unreadable.extend(&other.unreadable);
    }

    /// What each epoch says.
    pub fn epochs(&self) -> impl Iterator<Item = (&EpochName, &Epoch)> {
        self.epochs.iter()
    }

    /// The number of the next epoch.
    pub fn next_number(&self) -> u64 {
        let last = self
            .epochs
            .keys()
            .chain(&self.unreadable)
            .map(|(number, _)| *number)
            .max();
        last.map_or(1, |last| last.saturating_add(1))
    }

    /// All packs that are condemned.
    pub fn condemned(&self) -> BTreeSet<PackId> {
        self.epochs.values().flat_map(|epoch| &epoch.packs).copied().collect()
    }

    /// Takes in what the newest ledgers state.
    pub fn set_stated(&mut self, stated: Arc<Ledger>) {
        self.stated = stated;
    }

    /// What the newest ledgers state.
    pub fn stated(&self) -> &Arc<Ledger> {
        &self.stated
    }

    /// Returns true if a root counts where it is there: no owner forgot it, and its writer was not given up before it published it.
    pub fn counts(&self, root: &RootName) -> bool {
        !self.stated.forgets(&root.numbered())
    }

    /// How many roots of a registration count that was given up or is dead, as far as ledgers state it.
    pub fn cut(&self, registration: &RegistrationId) -> Option<u64> {
        if self.stated.dead.contains(registration) {
            return Some(0);
        }
        self.stated.bounds.get(registration)?.end
    }

    /// One more than the highest number of a registration that ledgers name, or all whose roots they forget without naming them.
    pub(super) fn named(&self, registration: &RegistrationId) -> u64 {
        let bound = |number, byte| Numbered {
            registration: *registration,
            number,
            hash: RootId([byte; RootId::LEN]),
        };
        let all = bound(0, 0)..=bound(u64::MAX, u8::MAX);
        let last_live = self.stated.live.range(all.clone()).next_back().map(|(root, _)| root);
        let last_forgotten = self.stated.forgotten.range(all).next_back();
        let last = [last_live, last_forgotten]
            .into_iter()
            .flatten()
            .map(|root| root.number)
            .max();
        last.map_or(0, |last| last.saturating_add(1))
            .max(self.floor(registration))
    }

    /// The number below which the roots of a registration have no names any more.
    pub fn floor(&self, registration: &RegistrationId) -> u64 {
        if self.stated.dead.contains(registration) {
            return u64::MAX;
        }
        self.stated.bounds.get(registration).map_or(0, |bounds| bounds.floor)
    }

    /// All closings that epochs announce.
    pub fn announced(&self) -> Closings {
        let mut all = Closings::new();
        for epoch in self.epochs.values() {
            widen(&mut all, &epoch.closings);
        }
        all
    }

    /// All registrations that epochs give up.
    pub fn fences(&self) -> impl Iterator<Item = &RegistrationId> {
        self.epochs.values().flat_map(|epoch| &epoch.fences)
    }

    /// Returns true if a writer was given up. It must not report what it publishes from now on.
    pub fn is_fenced(&self, writer: &RegistrationId) -> bool {
        self.fences().any(|fence| fence == writer) || self.cut(writer).is_some()
    }
}
