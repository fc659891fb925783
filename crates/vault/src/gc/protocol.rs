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

use drystone_format::epoch::Epoch;
use drystone_format::ledger::Ledger;
use drystone_format::{PackId, RegistrationId};

pub use crate::gc::registrations::{Gaps, Published, Registered, Registrations, Roots};
pub use crate::gc::standing::Standing;
pub use crate::gc::writer::{Group, Writer, WriterStep};
use crate::roots::ledger::is_stated;

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
