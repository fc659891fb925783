//! Who may rely on what, and what may be deleted when: the decisions of writers and of gc, without any I/O.
//!
//! - Condemned is for ever: a pack that an epoch names is never relied upon again. What a published root needs of it is copied
//!   into another pack before it is deleted, and the epoch stands until the pack is gone from every place.
//! - A writer registers and then reads the epochs; gc condemns and then lists the writers: one of the two sees the other.
//! - A writer publishes its root and then looks whether it was given up; gc gives a writer up and then lists the roots: the
//!   same again. So no writer reports a root that counts as absent.
//! - A gc is a writer too: choosing one of two packs that hold a chunk is relying on it.
//! - No decision depends on a clock; how long a silent writer is waited for is a matter of courtesy alone.
//!
//! docs/decisions/0008-gc.md argues why this is enough; tests/it/gc_model.rs checks it.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::epoch::Epoch;
use drystone_format::{PackId, RootId};

/// Number and id of an epoch.
pub type EpochName = (u64, RootId);

/// The epochs that stand, and what they say together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    epochs: BTreeMap<EpochName, Epoch>,
    unreadable: BTreeSet<EpochName>,
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

    /// Whether this epoch was read.
    pub fn has_read(&self, name: &EpochName) -> bool {
        self.epochs.contains_key(name)
    }

    /// The epochs that were read.
    pub fn names(&self) -> BTreeSet<EpochName> {
        self.epochs.keys().copied().collect()
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

    /// Whether a root counts as absent, there or not: it was forgotten, or its writer given up before it published.
    pub fn is_absent(&self, root: &RootId) -> bool {
        self.epochs.values().any(|epoch| epoch.roots.contains(root))
    }

    /// All roots that count as absent.
    pub fn absent(&self) -> BTreeSet<RootId> {
        self.epochs.values().flat_map(|epoch| &epoch.roots).copied().collect()
    }

    /// Whether a writer was given up. What it publishes after it could have known counts as absent.
    pub fn is_fenced(&self, writer: &RootId) -> bool {
        self.epochs.values().any(|epoch| epoch.fenced.contains(writer))
    }

    /// Writers that were given up and never published: kept for ever, for nobody knows when such a writer wakes up.
    pub fn void(&self) -> BTreeSet<RootId> {
        let fenced = self.epochs.values().flat_map(|epoch| &epoch.fenced);
        fenced.filter(|writer| self.is_absent(writer)).copied().collect()
    }
}

/// What a run that takes data in does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriterStep {
    /// Puts its presence, with the epochs that it had read before it listed the packs.
    Register,
    /// Reads the epochs again; lists the packs again if there are new ones ([`Writer::must_list_again`]).
    Read,
    /// Stores what no pack has that it may rely on.
    Work,
    /// Publishes its root, if it is not given up ([`Writer::is_given_up`]).
    Publish,
    /// Reads the epochs and reports the root, if it is not given up.
    Look,
    /// Removes its presence.
    Leave,
}

impl WriterStep {
    /// The steps in their order.
    pub const ORDER: [Self; 6] = [
        Self::Register,
        Self::Read,
        Self::Work,
        Self::Publish,
        Self::Look,
        Self::Leave,
    ];
}

/// A run that takes data in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Of its presence, and of the root that it will publish.
    pub id: RootId,
    known: Standing,
}

impl Writer {
    /// A writer that listed the packs after it had read the epochs `known`.
    pub fn new(id: RootId, known: Standing) -> Self {
        Self { id, known }
    }

    /// What its presence claims: fewer epochs than it honours, never more.
    pub fn seen(&self) -> BTreeSet<EpochName> {
        self.known.names()
    }

    /// Whether a pack of its list may have been deleted before it registered: whoever deletes puts an epoch first, and whoever
    /// removes an epoch has put another after that.
    pub fn must_list_again(&self, standing: &Standing) -> bool {
        let known = |name: &EpochName| self.known.epochs.contains_key(name) || self.known.unreadable.contains(name);
        !standing.epochs.keys().chain(&standing.unreadable).all(known)
    }

    /// Whether nothing that it publishes may be reported.
    pub fn is_given_up(&self, standing: &Standing) -> bool {
        standing.is_fenced(&self.id) || standing.is_absent(&self.id)
    }
}

/// What gc does, in this order. Between what it puts and what it lists next it waits until lists are up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GcStep {
    /// As a writer does.
    Register,
    /// As a writer does.
    Read,
    /// Finds what the roots need, and copies what is live in packs that are mostly garbage.
    Mark,
    /// Puts an epoch that names the packs that are not needed, and the writers that are void.
    Condemn,
    /// Reads the epochs again: others may have condemned what it relies on.
    ReadAgain,
    /// Lists the writers.
    ListWriters,
    /// Puts an epoch that gives up those that were silent for too long.
    Fence,
    /// Lists the roots.
    ListRoots,
    /// Puts an epoch that says that those given up, and without a root, are void.
    GiveUp,
    /// Lists the packs, and finds what roots need that it has not seen before.
    MarkAgain,
    /// Copies what is needed and lies in condemned packs alone.
    Rescue,
    /// Deletes condemned packs that no writer can rely on.
    Delete,
    /// Removes epochs that it had read before it put its own, and that name nothing that is there.
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

/// A presence that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registered {
    /// The writer.
    pub id: RootId,
    /// How often it has renewed its presence.
    pub beat: u64,
    /// What it claims to have seen.
    pub seen: BTreeSet<EpochName>,
}

/// Writers that may rely on what `epoch` names, beside `own` and those for which [`is_over`] holds.
pub fn unaware(
    epoch: &EpochName,
    writers: &[Registered],
    own: &RootId,
    is_over: &dyn Fn(&RootId) -> bool,
) -> BTreeSet<RootId> {
    let unaware = writers.iter().filter(|writer| !writer.seen.contains(epoch));
    let running = unaware.filter(|writer| writer.id != *own && !is_over(&writer.id));
    running.map(|writer| writer.id).collect()
}

/// Whether a writer has published, or never will: it relies on nothing that is not marked.
pub fn is_over(writer: &RootId, standing: &Standing, roots: &BTreeSet<RootId>) -> bool {
    roots.contains(writer) || standing.is_absent(writer)
}

/// Writers that keep gc from deleting anything that the epochs `named` condemn. These must have been read before the `writers`
/// were listed: of a later epoch there may be a writer that is not in the list.
pub fn blockers(
    named: &Standing,
    writers: &[Registered],
    own: &RootId,
    is_over: &dyn Fn(&RootId) -> bool,
) -> BTreeSet<RootId> {
    let naming = named.epochs().filter(|(_, epoch)| !epoch.packs.is_empty());
    naming
        .flat_map(|(name, _)| unaware(name, writers, own, is_over))
        .collect()
}

/// Condemned packs that no writer can rely on. The order is: `named` were read, `writers` listed, the roots listed by which
/// a writer `is_over`, and all of them marked.
pub fn deletable(
    named: &Standing,
    writers: &[Registered],
    own: &RootId,
    is_over: &dyn Fn(&RootId) -> bool,
) -> BTreeSet<PackId> {
    let clear = named
        .epochs()
        .filter(|(name, _)| unaware(name, writers, own, is_over).is_empty());
    clear.flat_map(|(_, epoch)| &epoch.packs).copied().collect()
}

/// Writers given up in `fences` that had not published when `roots` were listed, which must have been after those were read.
pub fn void(fences: &Standing, roots: &BTreeSet<RootId>) -> BTreeSet<RootId> {
    let fenced = fences.epochs().flat_map(|(_, epoch)| &epoch.fenced);
    let open = fenced.filter(|writer| !is_over(writer, fences, roots));
    open.copied().collect()
}

/// Whether an epoch names nothing that is there. To be removed only by who has put another since it read this one.
pub fn is_spent(epoch: &Epoch, has_pack: &dyn Fn(&PackId) -> bool, roots: &BTreeSet<RootId>) -> bool {
    !epoch.packs.iter().any(has_pack) && epoch.roots.is_disjoint(roots)
}

/// Looks at a writer without a new beat before it is given up, after the first.
pub const SILENT_LOOKS: u32 = 2;

/// What gc remembers of a writer that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Its last beat.
    pub beat: u64,
    /// Looks since then that count.
    pub silent: u32,
    /// When the last look was that counted, seconds.
    pub at: i64,
}

impl Observed {
    /// One more look. Looks less than `gap` seconds apart count once; a clock that went backwards makes it count.
    pub fn look(before: Option<Self>, beat: u64, now: i64, gap: i64) -> Self {
        match before {
            Some(before) if before.beat == beat => {
                if (before.at..before.at.saturating_add(gap)).contains(&now) {
                    before
                } else {
                    Self {
                        beat,
                        silent: before.silent.saturating_add(1),
                        at: now,
                    }
                }
            }
            _ => Self {
                beat,
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
