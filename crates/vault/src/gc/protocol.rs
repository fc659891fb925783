//! Who may rely on what, and what may be deleted when: the decisions of writers and of gc, without any I/O.
//!
//! - Condemned is for ever: a pack that an epoch names is never relied upon again. What a published root needs of it is copied
//!   into another pack before it is deleted, and the epoch stands until the pack is gone from every place.
//! - A writer registers and then reads the epochs; gc condemns and then lists the writers: one of the two sees the other.
//! - A writer publishes a root and then looks whether it was given up; gc gives a writer up and then lists the roots: the
//!   same again. So no writer reports a root that counts as absent.
//! - A statement (a presence or a root) says which epochs the writer knows in all that it does after its advance. gc relies
//!   on it only after it has read every root up to that advance, since what those need may lie in what the epochs condemn.
//! - A gc is a writer too: choosing one of two packs that hold a chunk is relying on it.
//! - Which roots count is what ledgers state, the cuts of writers that were given up among it. Epochs are read first, ledgers after: what
//!   a ledger forgets stays forgotten, so a later one never says less.
//! - No decision depends on a clock; how long a silent writer is waited for is a matter of courtesy alone.
//!
//! docs/decisions/0008-gc.md argues why this is enough; tests/it/gc_model.rs checks it. What gc knows of the registrations
//! is put together in `registrations.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::{Closings, Epoch, EpochName};
use drystone_format::ledger::{Ledger, Numbered};
use drystone_format::root::RootName;
use drystone_format::{PackId, RegistrationId, RootId};

pub use crate::gc::registrations::{Gaps, Published, Registered, Registrations, Roots};
pub use crate::gc::writer::{Group, Writer, WriterStep};
use crate::ledger::{is_stated, widen};

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
    fn named(&self, registration: &RegistrationId) -> u64 {
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

/// What gc does, in this order. Between what it puts and what it lists next it waits until lists are up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GcStep {
    /// As a writer does.
    Register,
    /// As a writer does; reads the ledgers, and lists the roots. Puts a ledger if there is none.
    Read,
    /// Finds what the roots need, and copies what is live in packs that are mostly garbage.
    Mark,
    /// Puts an epoch that names the packs that are not needed, and the ranges that it is about to close.
    Condemn,
    /// Reads the epochs and ledgers again: others may have condemned what it relies on.
    ReadAgain,
    /// Lists the writers.
    ListWriters,
    /// Puts an epoch that gives up those that were silent for too long.
    Fence,
    /// Lists the roots.
    ListRoots,
    /// Puts a ledger that states the roots it has found, how many roots of those given up count, and which ranges are closed.
    GiveUp,
    /// Lists the packs, and finds what roots need that it has not seen before.
    MarkAgain,
    /// Copies what is needed and lies in condemned packs alone.
    Rescue,
    /// Deletes condemned packs that no writer can rely on.
    Delete,
    /// Removes ledgers that others carry over, and epochs that it had read before it put its own and that have nothing more to say.
    Drop,
    /// As a writer does.
    Leave,
}

impl GcStep {
    /// The steps in their order.
    pub const ORDER: [Self; 14] = [
        Self::Register,
        Self::Read,
        Self::Mark,
        Self::Condemn,
        Self::ReadAgain,
        Self::ListWriters,
        Self::Fence,
        Self::ListRoots,
        Self::GiveUp,
        Self::MarkAgain,
        Self::Rescue,
        Self::Delete,
        Self::Drop,
        Self::Leave,
    ];
}

/// Writers that keep gc from deleting anything that the epochs `named` condemn. These must have been read before the
/// presences of `registrations` were listed: of a later epoch there may be a writer that is not in the list.
pub fn blockers(named: &Standing, registrations: &Registrations, own: &RegistrationId) -> BTreeSet<RegistrationId> {
    let naming = named.epochs().filter(|(_, epoch)| !epoch.packs.is_empty());
    naming.flat_map(|(name, _)| registrations.unaware(name, own)).collect()
}

/// Condemned packs that no writer can rely on. The order is: `named` were read, the presences of `registrations` listed, its
/// roots listed and read, and all of them marked.
pub fn deletable(named: &Standing, registrations: &Registrations, own: &RegistrationId) -> BTreeSet<PackId> {
    let clear = named
        .epochs()
        .filter(|(name, _)| registrations.unaware(name, own).is_empty());
    clear.flat_map(|(_, epoch)| &epoch.packs).copied().collect()
}

/// For each writer given up in `fences`, how many of its roots count: all that were found when the roots were listed, which
/// must have been after `fences` were read, and all that it states to have published. The same for writers of which a
/// presence alone says that they are over, since presences are removed. A ledger states it.
pub fn cuts(fences: &Standing, registrations: &Registrations) -> BTreeMap<RegistrationId, u64> {
    let open = fences.fences().chain(registrations.over_by_presence());
    let open = open.filter(|writer| fences.cut(writer).is_none());
    let count = |writer| registrations.published(writer).max(fences.named(writer));
    open.map(|writer| (*writer, count(writer))).collect()
}

/// Returns true if an epoch names nothing that is there, and ledgers state all else that it says. To be removed only by who has put another
/// since it read this one.
pub fn is_spent(epoch: &Epoch, has_pack: &dyn Fn(&PackId) -> bool, stated: &Ledger) -> bool {
    !epoch.packs.iter().any(has_pack) && is_stated(stated, &epoch.closings, &epoch.fences)
}

/// Looks at a writer without a new sign of life before it is given up, after the first.
pub const SILENT_LOOKS: u32 = 2;

/// What gc remembers of a writer that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Its last sign of life ([`Registrations::life`]).
    pub life: u64,
    /// Looks since then that count.
    pub silent: u32,
    /// When the last look was that counted, seconds.
    pub at: i64,
}

impl Observed {
    /// One more look. Looks less than `gap` seconds apart count once; a clock that went backwards makes it count.
    pub fn look(before: Option<Self>, life: u64, now: i64, gap: i64) -> Self {
        match before {
            Some(before) if before.life == life => {
                if (before.at..before.at.saturating_add(gap)).contains(&now) {
                    before
                } else {
                    Self {
                        life,
                        silent: before.silent.saturating_add(1),
                        at: now,
                    }
                }
            }
            _ => Self {
                life,
                silent: 0,
                at: now,
            },
        }
    }

    /// Whether the writer may be given up.
    pub fn is_silent(&self) -> bool {
        self.silent >= SILENT_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_count_when_they_are_apart_or_the_clock_is_odd() {
        let mut seen = Observed::look(None, 0, 100, 10);
        seen = Observed::look(Some(seen), 0, 105, 10);
        assert_eq!(seen.silent, 0);
        seen = Observed::look(Some(seen), 0, 110, 10);
        assert_eq!((seen.silent, seen.at), (1, 110));
        seen = Observed::look(Some(seen), 0, -5, 10);
        assert!(seen.is_silent());
        assert!(!Observed::look(Some(seen), 1, 200, 10).is_silent());
    }
}
