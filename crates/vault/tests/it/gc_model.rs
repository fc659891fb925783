//! The protocol of writers and gc, checked in all interleavings: the decisions are those of `drystone_vault::protocol`.
//!
//! - An actor that is paused for ever is one that crashed: every prefix of every run is looked at.
//! - Every step reads or changes the place once; what is listed may lag behind what was put, where lists are stale.
//! - Over several places, what an actor that crashed was putting may have reached too few of them: each list may or may not
//!   show it, until gc, which relies on it, has copied it to as many as a put asks for.
//! - A lasting handle never says that it is over: its presence moves on, several of its commits are under way at once, and once it is given up it
//!   registers anew and publishes again. An owner removes its key, or moves the vault to another place, meanwhile (`lasting.rs`).
//! - Ledgers say how many roots of a writer count that was given up. They are read right after the epochs: a later one never says less. All
//!   else about them is the matter of ledger_model.rs; here none is ever removed.
//! - The checks can fail: each bug that is seeded must be found.

mod lasting;
mod steps;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::{Epoch, EpochName};
use drystone_format::ledger::{Ledger, LedgerName};
use drystone_format::root::{RootKind, RootName};
use drystone_format::{PackId, RegistrationId, RootId};
use drystone_vault::ledger::{Known, View};
use drystone_vault::protocol::{
    Gaps, GcStep, Group, Published, Registered, Registrations, Roots, Standing, Writer, WriterStep,
};
use stateright::{Model, Property};

/// A way to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A writer reads the epochs before it registers, and not after.
    ReadsFirst,
    /// A writer trusts an old list of packs.
    OldList,
    /// A writer trusts what was condemned when it listed the packs, since the epoch is gone.
    ForgetsCondemned,
    /// A writer reports without looking whether it was given up.
    NoLook,
    /// gc does not mark what was published meanwhile.
    NoSecondMark,
    /// gc does not wait for writers.
    IgnoresWriters,
    /// gc lists the roots before the writers.
    RootsFirst,
    /// gc acts on epochs that it read after it had listed the writers.
    LateEpochs,
    /// gc counts condemned packs as good.
    KeepsCondemned,
    /// gc removes epochs whose packs are there.
    DropsEarly,
    /// gc removes an epoch without having put a later one.
    DropsLast,
    /// gc drops all that tells a writer that it was given up.
    ForgetsVoid,
    /// A writer does not look whether a ledger says that it was given up.
    LookIgnoresLedgers,
    /// gc does not wait until lists are up to date.
    NoSettling,
    /// gc acts on what too few places have.
    NoConfirming,
    /// gc takes a writer at its word without having read every root up to its advance.
    SkipsRoots,
    /// gc takes a writer for over since a thief of its key says so, though its presence says that it is at work.
    BelievesThief,
    /// gc says of a writer that it gave up that none of its roots counts.
    CutsAll,
    /// gc takes a writer that was cut for over, though it has not listed all of its roots that count.
    CutIsEnough,
    /// A writer claims epochs in a root that it does not honour in what follows.
    ClaimsTooMuch,
    /// A presence claims epochs that work did not honour which no root names yet.
    AdvancesOverWork,
    /// A root claims epochs that another commit under way did not honour.
    ClaimsForOthers,
    /// A handle removes its presence before it puts the next one.
    LeavesBetween,
    /// A handle removes its presence before every list shows the next one.
    LeavesEarly,
    /// A handle forgets what was condemned by epochs that are gone, and lists no packs.
    ForgetsGone,
    /// A handle that was given up registers anew with its old list of packs.
    AnewOldList,
    /// It publishes again without looking whether what it relied on is there.
    NoRecheck,
    /// A handle that has advanced since it was given up takes itself for alive.
    LetsItselfBack,
    /// A writer reads the configuration before it publishes, and not after.
    ConfigBefore,
    /// A writer that registers reads the configuration before the epochs.
    ConfigFirst,
    /// An owner puts no epoch after a configuration.
    NoNotice,
    /// An owner states the roots of a key before it removes it, and not after.
    StatesFirst,
    /// gc takes a key for removed before a ledger states so.
    RemovesEarly,
    /// An owner copies to another place before anybody can know of it.
    CopiesFirst,
}

/// What an owner does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// Removes the key of the first writer.
    Key,
    /// Gives the place up for another one.
    Place,
}

/// One access to the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    ReadEpochs,
    ReadConfig,
    ListPacks,
    Register,
    Read,
    ReadEpochsIfOld,
    ListPacksIfOld,
    Work,
    Publish,
    Look,
    Advance,
    DropPresences,
    Configure,
    Notify,
    State,
    Move,
    Mark,
    Copy,
    Condemn,
    Settle,
    ReadAgain,
    ListWriters,
    Fence,
    ListRoots,
    GiveUp,
    MarkAgain,
    Rescue,
    Delete,
    Drop,
    Leave,
}

/// What a list may not show yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Fresh {
    Root(RootName),
    Presence(RegistrationId, u64),
    Epoch(EpochName),
    Ledger(LedgerName),
}

/// A root, and the chunk that it needs.
type Stored = (Arc<Published>, u8);

/// The place. A pack holds one chunk, a root needs one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Place {
    packs: BTreeMap<PackId, u8>,
    roots: BTreeMap<RootName, Stored>,
    presences: BTreeSet<Registered>,
    epochs: BTreeMap<EpochName, Arc<Epoch>>,
    ledgers: BTreeMap<LedgerName, Arc<Ledger>>,
    /// The owner has put another configuration.
    is_configured: bool,
    fresh: BTreeSet<Fresh>,
    /// What lies at too few places to be listed for sure.
    torn: Option<Fresh>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Actor {
    at: usize,
    puts: u8,
    known: Arc<Standing>,
    /// The ledgers that a gc has read.
    view: Arc<View>,
    /// What ledgers stated when they were read last.
    stated: Arc<Ledger>,
    packs: BTreeMap<PackId, u8>,
    writer: Option<Arc<Writer>>,
    /// Commits under way, each with a chunk of its own.
    groups: Vec<Group>,
    /// Roots that it has reported.
    done: u8,
    /// How often it has registered anew.
    life: u8,
    /// How many commits it has to begin again, and where in its program it goes on after that.
    again: Option<(u8, usize)>,
    /// It knows the configuration of the owner.
    is_configured: bool,
    /// It has advanced since it was given up, and does not care.
    is_deaf: bool,
    is_old: bool,
    before: Arc<Standing>,
    named: Arc<Standing>,
    fences: Arc<Standing>,
    writers: Vec<Registered>,
    roots: BTreeMap<RootName, Stored>,
    live: BTreeSet<u8>,
    leave: BTreeSet<PackId>,
    has_put: bool,
    awaited: BTreeSet<Fresh>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    place: Place,
    actors: Vec<Actor>,
    /// The place that was given up, for those who do not know it.
    left: Option<Place>,
    reported: BTreeMap<RootName, u8>,
    has_torn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Step(usize),
    /// gc takes those that it waits for as dead.
    StepAndFence(usize),
    /// A list that does not show what is torn.
    StepBlind(usize),
    /// A list of roots that does not show one that another root names as its predecessor: a place hides it.
    StepHidden(usize, RootName),
    /// A put that reaches too few places, and the end of who put.
    Tear(usize, bool),
    Show(Fresh),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fencing {
    Any,
    Last,
    Never,
}

/// When the last gc begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Anytime,
    /// Once the one before it has condemned what it will.
    Condemned,
    /// Once the one before it is over.
    Over,
}

#[derive(Debug, Clone)]
struct World {
    writers: usize,
    /// An owner who changes something, after the writers.
    change: Change,
    gcs: usize,
    /// The writers are handles that stay open.
    lasting: Lasting,
    /// The last gc begins when all others are through, and gives up whoever is registered.
    judge: bool,
    stale: bool,
    /// One put may reach too few places.
    tears: bool,
    /// A place hides roots.
    hides: bool,
    /// A thief of the first writer's key says in its name that it is over.
    forges: bool,
    /// How many roots each writer publishes; each needs a chunk of its own.
    advances: usize,
    packs: Vec<u8>,
    root: bool,
    last: Begins,
    /// Which gcs give writers up: any may, none does, or the last alone, which always does.
    fencing: Fencing,
    bug: Bug,
    programs: Vec<Vec<Op>>,
}

/// How handles stay open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// They do not.
    No,
    /// They advance once after each root.
    AfterRoots,
    /// They advance while a commit is under way.
    AtWork,
    /// They begin all commits before they publish the first.
    Overlapping,
}

const WORLD: World = World {
    writers: 1,
    change: Change::None,
    gcs: 1,
    lasting: Lasting::No,
    judge: false,
    stale: false,
    tears: false,
    hides: false,
    forges: false,
    advances: 1,
    packs: Vec::new(),
    root: false,
    last: Begins::Anytime,
    fencing: Fencing::Any,
    bug: Bug::None,
    programs: Vec::new(),
};

fn pack(number: usize, count: u8) -> PackId {
    let mut id = [0; 32];
    (id[0], id[1]) = (number as u8, count);
    PackId(id)
}

fn own(actor: usize) -> RegistrationId {
    RegistrationId([actor as u8 + 1; 16])
}

/// The registration of a handle that has registered anew so many times.
fn own_again(actor: usize, life: u8) -> RegistrationId {
    RegistrationId([actor as u8 + 1 + 16 * life; 16])
}

/// The root of this number of a writer.
fn root(registration: RegistrationId, number: u64) -> RootName {
    RootName {
        kind: RootKind::SNAPSHOT,
        registration,
        number,
        hash: RootId([number as u8; 16]),
    }
}

/// What gc knows of the registrations.
fn judged(bug: Bug, writers: &[Registered], roots: &BTreeMap<RootName, Stored>, standing: &Standing) -> Registrations {
    let (mut read, mut writers) = (Roots::default(), writers.to_vec());
    for (name, (published, _)) in roots.iter().filter(|(name, _)| standing.counts(name)) {
        let mut published = Published::clone(published);
        let mut name = *name;
        if bug == Bug::SkipsRoots {
            (published.previous, name.number) = (None, 0);
        }
        read.insert(&name, published);
    }
    if bug == Bug::SkipsRoots {
        writers.iter_mut().for_each(|writer| writer.advance = None);
    }
    if bug == Bug::BelievesThief {
        let over: BTreeSet<RegistrationId> = writers.iter().filter(|one| one.is_over).map(|one| one.id).collect();
        writers.retain(|one| one.is_over || !over.contains(&one.id));
    }
    let gaps = match bug {
        Bug::CutIsEnough => Gaps::Accept,
        _ => Gaps::Keep,
    };
    Registrations::new(&writers, &read, standing, gaps)
}

impl World {
    fn built(mut self, bug: Bug) -> Self {
        self.bug = bug;
        self.programs = (0..self.actors()).map(|actor| self.program(actor)).collect();
        self
    }

    /// Writers, the owner, gcs.
    fn actors(&self) -> usize {
        self.first_gc() + self.gcs
    }

    fn first_gc(&self) -> usize {
        self.writers + usize::from(self.change != Change::None)
    }

    fn program(&self, actor: usize) -> Vec<Op> {
        if actor < self.writers {
            let ops = self.writer_order().into_iter().flat_map(|step| self.writer_ops(step));
            return ops.filter(|op| *op != Op::Settle || self.stale).collect();
        }
        if actor < self.first_gc() {
            return self.owner_ops();
        }
        let mut order = GcStep::ORDER.to_vec();
        let position = |step| GcStep::ORDER.iter().position(|found| *found == step).unwrap();
        if self.bug == Bug::RootsFirst {
            order.swap(position(GcStep::ListWriters), position(GcStep::ListRoots));
        }
        let ops = order.iter().flat_map(|step| self.gc_ops(*step));
        ops.filter(|op| *op != Op::Settle || self.stale && self.bug != Bug::NoSettling)
            .collect()
    }

    fn writer_ops(&self, step: WriterStep) -> Vec<Op> {
        match step {
            WriterStep::Register if self.change == Change::None => vec![Op::ReadEpochs, Op::ListPacks, Op::Register],
            WriterStep::Register if self.bug == Bug::ConfigFirst => {
                vec![Op::ReadConfig, Op::ReadEpochs, Op::ListPacks, Op::Register]
            }
            WriterStep::Register => vec![Op::ReadEpochs, Op::ReadConfig, Op::ListPacks, Op::Register],
            WriterStep::Read if self.bug == Bug::ReadsFirst => vec![],
            WriterStep::Read if self.change != Change::None && self.bug != Bug::ConfigFirst => {
                vec![Op::Read, Op::ReadEpochsIfOld, Op::ReadConfig, Op::ListPacksIfOld]
            }
            WriterStep::Read => vec![Op::Read, Op::ReadEpochsIfOld, Op::ListPacksIfOld],
            WriterStep::Work => vec![Op::Work],
            WriterStep::Publish if self.bug == Bug::ConfigBefore => vec![Op::ReadConfig, Op::Publish],
            WriterStep::Publish => vec![Op::Publish],
            WriterStep::Look if self.lasting != Lasting::No => vec![Op::Look, Op::ListPacksIfOld],
            WriterStep::Look => vec![Op::Look],
            WriterStep::Advance => self.advance_ops(),
            WriterStep::Leave => vec![Op::Leave],
        }
    }

    fn gc_ops(&self, step: GcStep) -> Vec<Op> {
        match step {
            GcStep::Register => vec![Op::ReadEpochs, Op::Register],
            GcStep::Read => vec![Op::ReadEpochs, Op::ListPacks],
            GcStep::Mark => vec![Op::Mark, Op::Copy],
            GcStep::Condemn => vec![Op::Condemn, Op::Settle, Op::Settle],
            GcStep::ReadAgain => vec![Op::ReadAgain],
            GcStep::ListWriters => vec![Op::ListWriters],
            GcStep::Fence => vec![Op::Fence, Op::Settle, Op::Settle],
            GcStep::ListRoots => vec![Op::Settle, Op::ListRoots],
            GcStep::GiveUp => vec![Op::GiveUp, Op::Settle, Op::Settle],
            GcStep::MarkAgain | GcStep::Rescue if self.bug == Bug::NoSecondMark => vec![],
            GcStep::MarkAgain => vec![Op::ReadEpochs, Op::ListPacks, Op::MarkAgain],
            GcStep::Rescue => vec![Op::Rescue],
            GcStep::Delete => vec![Op::Delete],
            GcStep::Drop => vec![Op::Drop],
            GcStep::Leave => vec![Op::Leave],
        }
    }

    fn is_over(&self, state: &State, actor: usize) -> bool {
        state.actors[actor].at >= self.programs[actor].len()
    }

    /// All others have begun, and none of them goes on once the judge has.
    fn may_judge(&self, state: &State) -> bool {
        state.actors.split_last().unwrap().1.iter().all(|actor| actor.at > 0)
    }

    fn may_begin(&self, state: &State, last: usize) -> bool {
        let condemns = |at: usize| self.programs[at].iter().position(|op| *op == Op::Condemn).unwrap();
        match self.last {
            Begins::Anytime => true,
            Begins::Condemned => state.actors[last - 1].at > condemns(last - 1),
            Begins::Over => self.is_over(state, last - 1),
        }
    }

    fn is_judge(&self, actor: usize) -> bool {
        self.judge && actor + 1 == self.actors()
    }
}

impl Place {
    /// The epochs, with what ledgers state in the word of who lists.
    fn epochs(&self, stated: &Arc<Ledger>) -> Standing {
        let mut standing = Standing::default();
        for (name, epoch) in &self.epochs {
            if !self.fresh.contains(&Fresh::Epoch(*name)) {
                standing.insert(*name, Epoch::clone(epoch));
            }
        }
        standing.set_stated(stated.clone());
        standing
    }

    fn view(&self) -> View {
        let mut known = Known::default();
        for (name, ledger) in &self.ledgers {
            if !self.fresh.contains(&Fresh::Ledger(*name)) {
                known.insert(*name, ledger.clone());
            }
        }
        known.view()
    }

    fn standing(&self) -> Standing {
        self.epochs(&self.view().stated)
    }

    fn listed_roots(&self) -> BTreeMap<RootName, Stored> {
        let shown = |(name, _): &(&RootName, &Stored)| !self.fresh.contains(&Fresh::Root(**name));
        let shown = self.roots.iter().filter(shown);
        shown.map(|(name, stored)| (*name, stored.clone())).collect()
    }

    /// Roots that a place may hide from a list: that they are missing shows in the roots after them.
    fn hidden(&self) -> Vec<RootName> {
        let follows = |name: &RootName| root(name.registration, name.number + 1);
        let names = self.roots.keys().filter(|name| self.roots.contains_key(&follows(name)));
        names.copied().collect()
    }
}

impl Op {
    /// Whether it lists what may be torn.
    fn lists(self) -> bool {
        let of_writers = matches!(
            self,
            Self::ReadEpochs | Self::Read | Self::ReadEpochsIfOld | Self::Look | Self::Advance
        );
        of_writers || matches!(self, Self::Mark | Self::ReadAgain | Self::ListWriters | Self::ListRoots)
    }

    /// Whether it makes sure that what it has listed is at enough places.
    fn confirms(self, torn: &Fresh) -> bool {
        match torn {
            Fresh::Root(_) => matches!(self, Self::Mark | Self::ListRoots),
            Fresh::Epoch(_) | Fresh::Ledger(_) => matches!(self, Self::ReadEpochs | Self::ReadAgain),
            Fresh::Presence(..) => false,
        }
    }
}

impl Actor {
    /// What the next commit that a writer begins is about.
    fn chunk(&self) -> u8 {
        self.done + self.groups.len() as u8
    }

    fn judged(&self, bug: Bug) -> Registrations {
        judged(bug, &self.writers, &self.roots, &self.known)
    }

    /// The chunks that the roots need.
    fn mark(&mut self, world: &World, is_configured: bool) {
        let counts = |name: &RootName| world.counts(&self.known, name, is_configured);
        let needed = self.roots.iter().filter(|(name, _)| counts(name));
        self.live = needed.map(|(_, (_, chunk))| *chunk).collect();
    }

    /// Packs of the list that hold `chunk`: good ones, then condemned ones.
    fn holders(&self, chunk: u8, bug: Bug) -> (Vec<PackId>, Vec<PackId>) {
        let holding = self.packs.iter().filter(|(_, held)| **held == chunk).map(|(id, _)| *id);
        let condemned = self.known.condemned();
        holding.partition(|id| bug == Bug::KeepsCondemned || !condemned.contains(id))
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut place = Place::default();
        let mut reported = BTreeMap::new();
        for (number, chunk) in self.packs.iter().enumerate() {
            place.packs.insert(pack(number, 0), *chunk);
        }
        if self.root {
            let name = root(RegistrationId([200; 16]), 0);
            let published = Published {
                is_last: true,
                ..Published::default()
            };
            place.roots.insert(name, (Arc::new(published), 0));
            reported.insert(name, 0);
        }
        vec![State {
            place,
            actors: vec![Actor::default(); self.actors()],
            left: None,
            reported,
            has_torn: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let has_begun = self.judge && state.actors.last().unwrap().at > 0;
        for at in 0..state.actors.len() {
            let is_last = at + 1 == state.actors.len();
            if has_begun && !self.is_judge(at) || is_last && !self.may_begin(state, at) {
                continue;
            }
            if self.is_over(state, at) || self.is_judge(at) && state.actors[at].at == 0 && !self.may_judge(state) {
                continue;
            }
            let op = self.op(state, at);
            if state.place.torn.is_some() && op.lists() {
                actions.push(Action::StepBlind(at));
            }
            if self.tears
                && !state.has_torn
                && matches!(op, Op::Register | Op::Publish | Op::Condemn | Op::Fence | Op::GiveUp)
            {
                actions.push(Action::Tear(at, op == Op::Fence));
            }
            if self.hides && matches!(op, Op::Mark | Op::ListRoots) {
                actions.extend(
                    state
                        .place
                        .hidden()
                        .into_iter()
                        .map(|name| Action::StepHidden(at, name)),
                );
            }
            match op {
                Op::Settle if !state.actors[at].awaited.is_disjoint(&state.place.fresh) => {}
                Op::Fence if self.fencing == Fencing::Any => {
                    actions.extend([Action::Step(at), Action::StepAndFence(at)]);
                }
                Op::Fence if is_last && self.fencing == Fencing::Last => actions.push(Action::StepAndFence(at)),
                _ => actions.push(Action::Step(at)),
            }
        }
        actions.extend(state.place.fresh.iter().cloned().map(Action::Show));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let (at, fences) = match action {
            Action::Step(at) => (at, false),
            Action::StepAndFence(at) => (at, true),
            Action::StepBlind(at) => {
                let torn = next.place.torn.take().unwrap();
                next.place.fresh.insert(torn.clone());
                next.go(self, at, false);
                next.place.fresh.remove(&torn);
                next.place.torn = Some(torn);
                return Some(next);
            }
            Action::StepHidden(at, name) => {
                next.place.fresh.insert(Fresh::Root(name));
                next.perform(self, at, self.op(state, at), false);
                next.place.fresh.remove(&Fresh::Root(name));
                return Some(next);
            }
            Action::Tear(at, fences) => {
                next.perform(self, at, self.op(state, at), fences);
                next.place.torn = Some(next.put_since(&state.place)?);
                next.has_torn = true;
                next.actors[at] = Actor {
                    at: self.programs[at].len(),
                    ..Actor::default()
                };
                return Some(next);
            }
            Action::Show(fresh) => {
                next.place.fresh.remove(&fresh);
                return Some(next);
            }
        };
        next.go(self, at, fences);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(
            "what was reported is whole",
            |world: &World, state: &State| !state.is_broken(world),
        )];
        if self.judge {
            properties.push(Property::always("garbage goes", |world: &World, state: &State| {
                !(world.is_over(state, state.actors.len() - 1) && state.has_garbage())
            }));
        }
        properties
    }
}
