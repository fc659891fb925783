//! The protocol of writers and gc, checked in all interleavings: the decisions are those of `drystone_vault::protocol`.
//!
//! - An actor that is paused for ever is one that crashed: every prefix of every run is looked at.
//! - Every step reads or changes the place once; what is listed may lag behind what was put, where lists are stale.
//! - Over several places, what an actor that crashed was putting may have reached too few of them: each list may or may not
//!   show it, until gc, which relies on it, has copied it to as many as a put asks for.
//! - The checks can fail: each bug that is seeded must be found.

mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::Epoch;
use drystone_format::root::{RootKind, RootName};
use drystone_format::{PackId, RegistrationId, RootId};
use drystone_vault::protocol::{
    EpochName, Gaps, GcStep, Published, Registered, Registrations, Roots, Standing, Writer, WriterStep, blockers, cuts,
    deletable, is_spent,
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
    /// gc forgets who never published.
    ForgetsVoid,
    /// gc does not wait until lists are up to date.
    NoSettling,
    /// gc acts on what too few places have.
    NoConfirming,
    /// gc removes epochs though a place is away.
    DropsBlind,
    /// gc takes a writer at its word without having read every root up to its advance.
    SkipsRoots,
    /// gc believes a presence that the writer has not signed.
    BelievesForged,
    /// gc says of a writer that it gave up that none of its roots counts.
    CutsAll,
    /// A writer claims epochs in a root that it does not honour in what follows.
    ClaimsTooMuch,
}

/// One access to the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    ReadEpochs,
    ListPacks,
    Register,
    Read,
    ReadEpochsIfOld,
    ListPacksIfOld,
    Work,
    Renew,
    Publish,
    Look,
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
    Presence(RegistrationId),
    Epoch(EpochName),
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
    fresh: BTreeSet<Fresh>,
    /// What lies at too few places to be listed for sure.
    torn: Option<Fresh>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Actor {
    at: usize,
    puts: u8,
    known: Arc<Standing>,
    packs: BTreeMap<PackId, u8>,
    writer: Option<Arc<Writer>>,
    is_old: bool,
    before: Arc<Standing>,
    named: Arc<Standing>,
    fences: Arc<Standing>,
    writers: Vec<Registered>,
    roots: BTreeMap<RootName, Stored>,
    live: BTreeSet<u8>,
    leave: BTreeSet<PackId>,
    has_put: bool,
    /// A list did not show it everything.
    is_blind: bool,
    awaited: BTreeSet<Fresh>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    place: Place,
    actors: Vec<Actor>,
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
    gcs: usize,
    /// The last gc begins when all others are through, and gives up whoever is registered.
    judge: bool,
    stale: bool,
    /// One put may reach too few places.
    tears: bool,
    /// A place hides roots.
    hides: bool,
    /// Somebody else has put a presence in the first writer's name, which says that it is over.
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

const WORLD: World = World {
    writers: 1,
    gcs: 1,
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
    Registrations::new(&writers, &read, standing, Gaps::Keep)
}

impl World {
    fn built(mut self, bug: Bug) -> Self {
        self.bug = bug;
        self.programs = (0..self.writers + self.gcs).map(|actor| self.program(actor)).collect();
        self
    }

    fn program(&self, actor: usize) -> Vec<Op> {
        if actor < self.writers {
            let order = WriterStep::order(self.advances);
            return order.into_iter().flat_map(|step| self.writer_ops(step)).collect();
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
            WriterStep::Register => vec![Op::ReadEpochs, Op::ListPacks, Op::Register],
            WriterStep::Read if self.bug == Bug::ReadsFirst => vec![],
            WriterStep::Read => vec![Op::Read, Op::ReadEpochsIfOld, Op::ListPacksIfOld],
            WriterStep::Work => vec![Op::Work],
            WriterStep::Renew => vec![Op::Renew],
            WriterStep::Publish => vec![Op::Publish],
            WriterStep::Look => vec![Op::Look],
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
            GcStep::GiveUp => vec![Op::GiveUp],
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
        self.judge && actor + 1 == self.writers + self.gcs
    }
}

impl Place {
    fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        for (name, epoch) in &self.epochs {
            if !self.fresh.contains(&Fresh::Epoch(*name)) {
                standing.insert(*name, Epoch::clone(epoch));
            }
        }
        standing
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
            Self::ReadEpochs | Self::Read | Self::ReadEpochsIfOld | Self::Renew | Self::Look
        );
        of_writers || matches!(self, Self::Mark | Self::ReadAgain | Self::ListWriters | Self::ListRoots)
    }

    /// Whether it makes sure that what it has listed is at enough places.
    fn confirms(self, torn: &Fresh) -> bool {
        match torn {
            Fresh::Root(_) => matches!(self, Self::Mark | Self::ListRoots),
            Fresh::Epoch(_) => matches!(self, Self::ReadEpochs | Self::ReadAgain),
            Fresh::Presence(_) => false,
        }
    }
}

impl Actor {
    /// What a writer's next root needs.
    fn chunk(&self) -> u8 {
        self.writer.as_ref().map_or(0, |writer| writer.next_number() as u8)
    }

    fn judged(&self, bug: Bug) -> Registrations {
        judged(bug, &self.writers, &self.roots, &self.known)
    }

    /// The chunks that the roots need.
    fn mark(&mut self) {
        let needed = self.roots.iter().filter(|(name, _)| self.known.counts(name));
        self.live = needed.map(|(_, (_, chunk))| *chunk).collect();
    }

    /// Packs of the list that hold `chunk`: good ones, then condemned ones.
    fn holders(&self, chunk: u8, bug: Bug) -> (Vec<PackId>, Vec<PackId>) {
        let holding = self.packs.iter().filter(|(_, held)| **held == chunk).map(|(id, _)| *id);
        let condemned = self.known.condemned();
        holding.partition(|id| bug == Bug::KeepsCondemned || !condemned.contains(id))
    }
}

impl State {
    fn put_epoch(&mut self, world: &World, at: usize, epoch: Epoch) {
        let actor = &mut self.actors[at];
        actor.puts += 1;
        let mut id = [0; 16];
        (id[0], id[1]) = (at as u8, actor.puts);
        let name = (actor.known.next_number(), RootId(id));
        // Its own put is known to it.
        Arc::make_mut(&mut actor.known).insert(name, epoch.clone());
        self.place.epochs.insert(name, Arc::new(epoch));
        if world.stale {
            self.place.fresh.insert(Fresh::Epoch(name));
        }
    }

    fn put_pack(&mut self, at: usize, chunk: u8) {
        let actor = &mut self.actors[at];
        actor.puts += 1;
        let id = pack(100 + at, actor.puts);
        self.place.packs.insert(id, chunk);
        actor.packs.insert(id, chunk);
    }

    /// Copies what is live and lies in condemned packs alone.
    fn copy(&mut self, world: &World, at: usize) {
        for chunk in self.actors[at].live.clone() {
            let (good, condemned) = self.actors[at].holders(chunk, world.bug);
            let readable = condemned.iter().any(|id| self.place.packs.contains_key(id));
            if good.is_empty() && readable {
                self.put_pack(at, chunk);
            }
        }
    }

    fn register(&mut self, world: &World, at: usize) {
        let actor = &mut self.actors[at];
        let writer = Writer::new(own(at), Standing::clone(&actor.known));
        self.place.presences.insert(Registered {
            id: own(at),
            beat: 0,
            seen: writer.seen(),
            advance: None,
            is_over: false,
        });
        actor.writer = Some(Arc::new(writer));
        if world.stale {
            self.place.fresh.insert(Fresh::Presence(own(at)));
        }
    }

    fn step_writer(&mut self, world: &World, at: usize, op: Op) {
        let standing = self.place.standing();
        let actor = &mut self.actors[at];
        match op {
            Op::Read => {
                let writer = actor.writer.as_ref().unwrap();
                actor.is_old = writer.must_list_again(&standing) && world.bug != Bug::OldList;
                // What was condemned when it listed the packs stays so: that epoch may be gone, and the pack with it.
                if world.bug == Bug::ForgetsCondemned {
                    actor.known = Arc::new(standing);
                }
            }
            Op::ReadEpochsIfOld if actor.is_old => actor.known = Arc::new(standing),
            Op::ListPacksIfOld if actor.is_old => actor.packs = self.place.packs.clone(),
            Op::Work => {
                let chunk = actor.chunk();
                if actor.holders(chunk, Bug::None).0.is_empty() {
                    self.put_pack(at, chunk);
                }
            }
            Op::Renew => {
                let writer = Arc::make_mut(actor.writer.as_mut().unwrap());
                writer.renew(&standing);
                let known = Arc::make_mut(&mut actor.known);
                for (name, epoch) in standing.epochs().filter(|_| world.bug != Bug::ClaimsTooMuch) {
                    known.insert(*name, epoch.clone());
                }
            }
            Op::Publish => {
                let writer = actor.writer.as_ref().unwrap();
                let name = root(own(at), writer.next_number());
                let published = Published {
                    previous: writer.advance().map(|(_, hash)| hash),
                    seen: writer.seen(),
                    is_last: name.number + 1 == world.advances as u64,
                };
                self.place.roots.insert(name, (Arc::new(published), actor.chunk()));
                if world.stale {
                    self.place.fresh.insert(Fresh::Root(name));
                }
            }
            Op::Look => {
                let (chunk, writer) = (actor.chunk(), Arc::make_mut(actor.writer.as_mut().unwrap()));
                let name = root(own(at), writer.next_number());
                if world.bug == Bug::NoLook || !writer.is_given_up(&standing) {
                    self.reported.insert(name, chunk);
                    writer.published(name.hash);
                } else {
                    // It registers anew, as another.
                    actor.at = world.programs[at].len() - 2;
                }
            }
            _ => {}
        }
    }

    fn step_gc(&mut self, world: &World, at: usize, op: Op, fences: bool) {
        let standing = self.place.standing();
        let actor = &mut self.actors[at];
        match op {
            Op::Mark => {
                actor.before = actor.known.clone();
                actor.roots = self.place.listed_roots();
                actor.mark();
                let mut leave: BTreeSet<PackId> = actor.packs.keys().copied().collect();
                leave.retain(|id| !actor.known.condemned().contains(id));
                for chunk in actor.live.clone() {
                    // Two gcs choose differently where several packs hold a chunk.
                    let good = actor.holders(chunk, world.bug).0;
                    let chosen = if at.is_multiple_of(2) {
                        good.first()
                    } else {
                        good.last()
                    };
                    chosen.map(|id| leave.remove(id));
                }
                actor.leave = leave;
            }
            Op::Copy | Op::Rescue => self.copy(world, at),
            Op::Condemn => self.condemn(world, at),
            Op::Settle => {
                let waits = std::mem::take(&mut actor.awaited);
                assert!(waits.is_disjoint(&self.place.fresh));
            }
            Op::ReadAgain => {
                actor.named = Arc::new(standing);
                actor.fences = actor.named.clone();
                actor.known = actor.named.clone();
            }
            Op::ListWriters => {
                let shown = |found: &&Registered| !self.place.fresh.contains(&Fresh::Presence(found.id));
                actor.writers = self.place.presences.iter().filter(shown).cloned().collect();
                let forged = Registered {
                    id: own(0),
                    beat: 9,
                    seen: BTreeSet::new(),
                    advance: None,
                    is_over: true,
                };
                actor
                    .writers
                    .extend((world.forges && world.bug == Bug::BelievesForged).then_some(forged));
            }
            Op::Fence if fences => {
                let fences = blockers(&actor.named, &actor.judged(world.bug), &own(at));
                let epoch = Epoch {
                    fences,
                    ..Epoch::default()
                };
                self.put_epoch(world, at, epoch);
                self.actors[at].fences = self.actors[at].known.clone();
            }
            Op::ListRoots => actor.roots = self.place.listed_roots(),
            Op::GiveUp => self.give_up(world, at),
            Op::MarkAgain => actor.mark(),
            Op::Delete => self.delete(world, at),
            Op::Drop => self.drop_epochs(world, at),
            _ => {}
        }
    }

    fn condemn(&mut self, world: &World, at: usize) {
        let actor = &mut self.actors[at];
        let cuts = match world.bug {
            Bug::ForgetsVoid => BTreeMap::new(),
            _ => actor.before.cuts(),
        };
        let epoch = Epoch {
            packs: actor.leave.clone(),
            cuts,
            ..Epoch::default()
        };
        // More often than gc does, so that epochs are dropped in small worlds.
        if (!epoch.packs.is_empty() || *actor.before != Standing::default()) && world.bug != Bug::DropsLast
            || *actor.before == Standing::default()
        {
            self.put_epoch(world, at, epoch);
        }
        self.actors[at].has_put = true;
    }

    fn give_up(&mut self, world: &World, at: usize) {
        let actor = &self.actors[at];
        let mut cuts = cuts(&actor.fences, &actor.judged(world.bug));
        if world.bug == Bug::CutsAll {
            cuts.values_mut().for_each(|count| *count = 0);
        }
        if !cuts.is_empty() {
            let epoch = Epoch {
                cuts,
                ..Epoch::default()
            };
            self.put_epoch(world, at, epoch);
        }
        let actor = &self.actors[at];
        let registrations = actor.judged(world.bug);
        let listed = |id: &RegistrationId| actor.writers.iter().any(|found| found.id == *id);
        self.place
            .presences
            .retain(|found| !(listed(&found.id) && registrations.is_over(&found.id)));
    }

    fn delete(&mut self, world: &World, at: usize) {
        let standing = self.place.standing();
        let actor = &mut self.actors[at];
        let named = if world.bug == Bug::LateEpochs {
            &standing
        } else {
            &actor.named
        };
        let registrations = match world.bug {
            Bug::IgnoresWriters => Registrations::default(),
            bug => actor.judged(bug),
        };
        for id in deletable(named, &registrations, &own(at)) {
            self.place.packs.remove(&id);
        }
        let known = actor.known.clone();
        self.place
            .roots
            .retain(|name, _| !actor.roots.contains_key(name) || known.counts(name));
        actor.roots.retain(|name, _| known.counts(name));
    }

    fn drop_epochs(&mut self, world: &World, at: usize) {
        let actor = &self.actors[at];
        let packs = &self.place.packs;
        let has_pack = |id: &PackId| world.bug != Bug::DropsEarly && packs.contains_key(id);
        let roots: BTreeSet<RootName> = actor.roots.keys().copied().collect();
        let spent = actor
            .before
            .epochs()
            .filter(|(_, epoch)| is_spent(epoch, &has_pack, &roots));
        let spent: Vec<EpochName> = spent.map(|(name, _)| *name).collect();
        // It drops what it has seen to be spent at every place, and nothing else.
        if actor.has_put && (!actor.is_blind || world.bug == Bug::DropsBlind) {
            self.place.epochs.retain(|name, _| !spent.contains(name));
        }
    }

    /// What a gc has seen is at enough places from then on, and has been relied upon.
    fn confirm(&mut self, world: &World, at: usize, op: Op) {
        let Some(torn) = self
            .place
            .torn
            .clone()
            .filter(|torn| at >= world.writers && op.confirms(torn))
        else {
            return;
        };
        if world.bug != Bug::NoConfirming {
            self.place.torn = None;
        }
        if let Fresh::Root(name) = torn
            && let Some((_, chunk)) = self.place.roots.get(&name)
            && self.place.standing().counts(&name)
        {
            self.reported.insert(name, *chunk);
        }
    }

    /// The one object that was put since `before`, if any.
    fn put_since(&self, before: &Place) -> Option<Fresh> {
        let root = self.place.roots.keys().find(|name| !before.roots.contains_key(*name));
        let presence = self
            .place
            .presences
            .iter()
            .find(|found| !before.presences.contains(*found));
        let epoch = self.place.epochs.keys().find(|name| !before.epochs.contains_key(*name));
        let root = root.map(|name| Fresh::Root(*name));
        let presence = presence.map(|found| Fresh::Presence(found.id));
        root.or(presence).or(epoch.map(|name| Fresh::Epoch(*name)))
    }

    fn perform(&mut self, world: &World, at: usize, op: Op, fences: bool) {
        match op {
            Op::ReadEpochs => self.actors[at].known = Arc::new(self.place.standing()),
            Op::ListPacks => self.actors[at].packs = self.place.packs.clone(),
            Op::Register => self.register(world, at),
            Op::Leave => self.place.presences.retain(|found| found.id != own(at)),
            _ if at < world.writers => self.step_writer(world, at, op),
            _ => self.step_gc(world, at, op, fences),
        }
        let (program, actor) = (&world.programs[at], &mut self.actors[at]);
        actor.at += 1;
        if program.get(actor.at) == Some(&Op::Settle) {
            actor.awaited = self.place.fresh.clone();
        }
        // What it needs no more makes no states.
        match op {
            Op::Work if !program[actor.at..].contains(&Op::Work) => {
                (actor.known, actor.packs) = (Arc::default(), BTreeMap::new());
            }
            Op::Delete => {
                (actor.packs, actor.live, actor.leave) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
                (actor.named, actor.fences, actor.known) = (Arc::default(), Arc::default(), Arc::default());
                actor.writers = Vec::new();
            }
            _ => {}
        }
        if actor.at == program.len() {
            *actor = Actor {
                at: actor.at,
                ..Actor::default()
            };
        }
    }

    fn go(&mut self, world: &World, at: usize, fences: bool) {
        let op = world.programs[at][self.actors[at].at];
        self.perform(world, at, op, fences);
        if self.place.torn.is_some() {
            self.confirm(world, at, op);
        }
        // What neither changes nor reads the place needs no interleaving.
        while let Some(op) = world.programs[at].get(self.actors[at].at)
            && self.is_idle(world, at, *op)
        {
            self.perform(world, at, *op, false);
        }
    }

    fn is_idle(&self, world: &World, at: usize, op: Op) -> bool {
        let actor = &self.actors[at];
        match op {
            Op::ReadEpochsIfOld | Op::ListPacksIfOld => !actor.is_old,
            Op::MarkAgain => true,
            Op::Work => !actor.holders(actor.chunk(), Bug::None).0.is_empty(),
            Op::Copy | Op::Rescue => actor
                .live
                .iter()
                .all(|chunk| !actor.holders(*chunk, world.bug).0.is_empty()),
            Op::Fence => blockers(&actor.named, &actor.judged(world.bug), &own(at)).is_empty(),
            Op::GiveUp => {
                let registrations = actor.judged(world.bug);
                cuts(&actor.fences, &registrations).is_empty()
                    && !actor.writers.iter().any(|found| registrations.is_over(&found.id))
            }
            Op::Settle => actor.awaited.is_empty(),
            Op::Drop => *actor.before == Standing::default(),
            _ => false,
        }
    }

    /// A root that was reported, and whose chunk no pack holds.
    fn is_broken(&self) -> bool {
        let standing = self.place.standing();
        let is_whole = |chunk: &u8| self.place.packs.values().any(|held| held == chunk);
        self.reported
            .iter()
            .any(|(name, chunk)| !standing.counts(name) || !self.place.roots.contains_key(name) || !is_whole(chunk))
    }

    fn has_garbage(&self) -> bool {
        let standing = self.place.standing();
        let live = self.place.roots.iter().filter(|(name, _)| standing.counts(name));
        let live: BTreeSet<u8> = live.map(|(_, (_, chunk))| *chunk).collect();
        self.place.packs.values().any(|chunk| !live.contains(chunk))
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
            actors: vec![Actor::default(); self.writers + self.gcs],
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
            let op = self.programs[at][state.actors[at].at];
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
                next.actors[at].is_blind = at >= self.writers;
                next.go(self, at, false);
                next.place.fresh.remove(&torn);
                next.place.torn = Some(torn);
                return Some(next);
            }
            Action::StepHidden(at, name) => {
                next.place.fresh.insert(Fresh::Root(name));
                next.perform(self, at, self.programs[at][next.actors[at].at], false);
                next.place.fresh.remove(&Fresh::Root(name));
                return Some(next);
            }
            Action::Tear(at, fences) => {
                next.perform(self, at, self.programs[at][next.actors[at].at], fences);
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
            |_: &World, state: &State| !state.is_broken(),
        )];
        if self.judge {
            properties.push(Property::always("garbage goes", |world: &World, state: &State| {
                !(world.is_over(state, state.actors.len() - 1) && state.has_garbage())
            }));
        }
        properties
    }
}
