//! What a writer may rely on, claim and report: the decisions of a run that ends, and of a handle that stays open. Pure, like `protocol.rs`.
//!
//! - Work that belongs to one root is a group. A statement claims only epochs that every open group has honoured since it began: what a group did
//!   before may rely on what they condemn.
//! - So a root claims for all groups but its own, and a presence without a root moves on only while no group is open.
//! - A writer that was given up is never let back. It registers anew, begins its open groups again, and reports only what it has published again.
//!
//! docs/decisions/0008-gc.md argues why this is enough; tests/it/gc_model.rs checks it.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::epoch::EpochName;
use drystone_format::ledger::Numbered;
use drystone_format::{RegistrationId, RootId};

use crate::gc::standing::Standing;
use crate::roots::ledger::{is_closed, widen};

/// What a writer that takes data in does. Several advances repeat the steps from `Work` to `Look` ([`WriterStep::order`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriterStep {
    /// Reads the configuration, then puts its presence, with the epochs that it had read before it listed the packs.
    Register,
    /// Reads the epochs again; lists the packs again if there are new ones ([`Writer::is_behind`]).
    Read,
    /// Stores what no pack has that it may rely on. A writer that registered anew does so for all that no root of its names yet.
    Work,
    /// Publishes a root.
    Publish,
    /// Reads the epochs. If there are new ones ([`Writer::is_behind`]), reads the ledgers and the configuration too. Reports the root if the
    /// writer is not given up ([`Writer::is_given_up`]), its key not removed, and no place gone that it wrote to. Then honours the epochs in
    /// all that follows ([`Writer::renew`]). A handle that may not report the root registers anew.
    Look,
    /// Reads what `Look` does, honours the epochs, and puts a presence that claims those that it may ([`Writer::claims`]). Removes the
    /// presence before it once every list shows the new one. Registers anew if it is given up.
    Advance,
    /// Removes its presence.
    Leave,
}

impl WriterStep {
    /// The steps of a writer that publishes so many roots, the last of which ends its registration.
    pub fn order(advances: usize) -> Vec<Self> {
        let mut order = vec![Self::Register, Self::Read];
        for _ in 0..advances {
            order.extend([Self::Work, Self::Publish, Self::Look]);
        }
        order.push(Self::Leave);
        order
    }

    /// The steps of a handle that stays open, as far as so many roots: it never says that it is over.
    pub fn lasting(roots: usize) -> Vec<Self> {
        let mut order = vec![Self::Register, Self::Read];
        for _ in 0..roots {
            order.extend([Self::Work, Self::Publish, Self::Look, Self::Advance]);
        }
        order
    }
}

/// Names work that one root will name ([`Writer::begin`]). Later groups are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(u64);

/// What was so when a group began.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Begun {
    /// The epochs that the writer honoured.
    seen: BTreeSet<EpochName>,
    /// The number of its next pack.
    packs: u64,
}

/// A writer that takes data in, under one registration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Its registration.
    pub id: RegistrationId,
    known: Standing,
    advance: Option<(u64, RootId)>,
    open: BTreeMap<Group, Begun>,
    groups: u64,
}

impl Writer {
    /// A writer that listed the packs after it had read the epochs `known`.
    pub fn new(id: RegistrationId, known: Standing) -> Self {
        Self {
            id,
            known,
            advance: None,
            open: BTreeMap::new(),
            groups: 0,
        }
    }

    /// Begins work that a later root will name. `packs` is the number of the writer's next pack.
    ///
    /// The packs must have been listed after the epochs were read that the writer honours by now.
    pub fn begin(&mut self, packs: u64) -> Group {
        let group = Group(self.groups);
        self.groups = self.groups.saturating_add(1);
        let seen = self.known.names();
        self.open.insert(group, Begun { seen, packs });
        group
    }

    /// Ends a group that a root names by now, or that was given up.
    pub fn end(&mut self, group: Group) {
        self.open.remove(&group);
    }

    /// The oldest open group, except for those that a root is about to name.
    fn oldest(&self, named: &[Group]) -> Option<&Begun> {
        let others = self.open.iter().filter(|(group, _)| !named.contains(group));
        others.map(|(_, begun)| begun).next()
    }

    /// The epochs that a statement claims which names these groups: the writer honours them in all that it does after its advance, and in
    /// all that its other groups have done. A presence names none.
    pub fn claims(&self, named: &[Group]) -> BTreeSet<EpochName> {
        match self.oldest(named) {
            Some(begun) => begun.seen.clone(),
            None => self.known.names(),
        }
    }

    /// The number below which all packs are published or abandoned once a statement names these groups; `packs` is that of the next pack.
    pub fn published_packs(&self, named: &[Group], packs: u64) -> u64 {
        self.oldest(named).map_or(packs, |begun| begun.packs)
    }

    /// Number and hash of its last root.
    pub fn advance(&self) -> Option<(u64, RootId)> {
        self.advance
    }

    /// The number of its next root.
    pub fn next_number(&self) -> u64 {
        self.advance.map_or(0, |(number, _)| number.saturating_add(1))
    }

    /// Notes that a root is durable that names these groups.
    pub fn published(&mut self, hash: RootId, named: &[Group]) {
        self.advance = Some((self.next_number(), hash));
        named.iter().for_each(|group| self.end(*group));
    }

    /// Honours these epochs too from now on. Open groups do not claim them: what they did before may be condemned.
    pub fn renew(&mut self, standing: &Standing) {
        self.known.honour(standing);
    }

    /// Forgets epochs that are gone. The packs must have been listed after `standing` was read, and the ledgers with it
    /// ([`is_behind`](Self::is_behind)): what was condemned is not in that list, and ledgers state the rest.
    pub fn forget_gone(&mut self, standing: &Standing) {
        self.known.retain(&standing.all_names());
    }

    /// Returns true if an epoch stands that it does not know. Then a pack of its list may have been deleted before it registered, a
    /// ledger may say that it was given up, and the configuration may be another: whoever deletes, gives up or changes puts an epoch, and
    /// whoever removes an epoch has put another after that.
    pub fn is_behind(&self, standing: &Standing) -> bool {
        !standing.all_names().is_subset(&self.known.all_names())
    }

    /// Returns true if the writer was given up: nothing that it puts from now on counts. `standing` is as new as
    /// [`is_behind`](Self::is_behind) asks for.
    pub fn is_fenced(&self, standing: &Standing) -> bool {
        standing.is_fenced(&self.id) || self.known.is_fenced(&self.id)
    }

    /// Returns true if the root of this number and hash must not be reported. The ledgers of `standing` are as new as
    /// [`is_behind`](Self::is_behind) asks for.
    pub fn is_given_up(&self, (number, hash): (u64, RootId), standing: &Standing) -> bool {
        let root = Numbered {
            registration: self.id,
            number,
            hash,
        };
        let mut announced = standing.announced();
        widen(&mut announced, &self.known.announced());
        standing.is_fenced(&self.id) || is_closed(&root, &announced, Some(standing.stated()))
    }
}
