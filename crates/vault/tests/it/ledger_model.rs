//! The rules of the ledger, checked in all interleavings: the decisions are those of `drystone_vault::ledger`.
//!
//! - An actor that is paused for ever is one that crashed: every prefix of every run is looked at.
//! - Every step reads or changes the places once. Lists may lag behind what was put; a place may be away during a whole run; the first place
//!   may lie, in another way for each list: hide all, show all that it ever had, show damaged ledgers.
//! - Packs and presences are the matter of gc_model.rs: here each root has one pack, stored with it, and gc deletes those packs of its list
//!   whose roots are not live.
//! - The checks can fail: each bug that is seeded must be found.

mod step;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::{Closings, EpochName};
use drystone_format::ledger::{KindWord, Ledger, LedgerName, Live, Numbered};
use drystone_format::{RegistrationId, RootId};
use drystone_vault::ledger::{Known, View};
use stateright::{Model, Property};

/// A way to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// The ledger with the highest number counts alone.
    HighestWins,
    /// A new ledger states what its writer sees, and drops what earlier ones forgot.
    NoCarry,
    /// What is forgotten is dropped once it is gone from the places that were asked.
    DropsForgotten,
    /// A root that no ledger states counts as forgotten, if there is a ledger.
    UnstatedIsGone,
    /// gc goes on while one of the newest ledgers is unreadable.
    IgnoresUnreadable,
    /// gc goes on while a known root is missing.
    IgnoresMissing,
    /// A range is closed without having been announced.
    NoAnnouncement,
    /// A range is closed by the list that was made before it was announced.
    NoSecondList,
    /// A writer does not look whether its number was closed by an epoch.
    LookIgnoresEpochs,
    /// A writer does not look whether its number was closed by a ledger.
    LookIgnoresLedgers,
    /// A writer that goes on with its registration does not read the ledgers first.
    ResumesBlind,
    /// gc goes on without a mirror.
    GoesOnBlind,
    /// gc does not wait until lists show what it has put.
    NoSettling,
    /// gc deletes all ledgers but its own.
    RemovesUncarried,
    /// gc deletes ledgers that one carries over which too few places have.
    RemovesForTorn,
    /// Reviving a root takes back that it was forgotten.
    RevivesInPlace,
    /// A ledger names those that could not be read as predecessors.
    SupersedesUnread,
    /// A root is named by registration and number alone.
    NumberIsEnough,
    /// gc drops an epoch whose closings no ledger states.
    DropsEpochsEarly,
    /// gc acts on a ledger that too few places have.
    NoConfirming,
    /// A new ledger does not carry over where fences have cut registrations.
    ForgetsCuts,
}

/// One access to the places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    // A writer's.
    Register,
    Publish(u64),
    Look(u64),
    // A thief's of the same key.
    Fork(u64),
    // An owner's.
    ReadEpochs,
    ReadLedgers,
    ListRoots,
    First,
    State,
    Forget,
    Revive,
    Settle,
    Announce,
    ReadAgain,
    ListAgain,
    PutLedger,
    Delete,
    DeleteForgotten,
    Clean,
    Drop,
    /// One run of an owner is over; what it remembers stays.
    End,
}

const STATE: &[Op] = &[Op::ReadLedgers, Op::ListRoots, Op::State, Op::End];
const FORGET: &[Op] = &[
    Op::ReadLedgers,
    Op::ListRoots,
    Op::Forget,
    Op::Settle,
    Op::DeleteForgotten,
    Op::End,
];
const REVIVE: &[Op] = &[Op::ReadLedgers, Op::ListRoots, Op::Revive, Op::End];
const GC: &[Op] = &[
    Op::ReadEpochs,
    Op::ReadLedgers,
    Op::Settle,
    Op::ListRoots,
    Op::First,
    Op::Announce,
    Op::Settle,
    Op::Settle,
    Op::ReadAgain,
    Op::ListAgain,
    Op::PutLedger,
    Op::Settle,
    Op::Delete,
    Op::Clean,
    Op::Drop,
    Op::End,
];

/// The end of a gc that had nothing to state.
const CLEAN: &[Op] = &[Op::Clean, Op::End];
/// gc as far as it closes ranges, and deletes nothing else.
const CLOSE: &[Op] = &[
    Op::ReadEpochs,
    Op::ReadLedgers,
    Op::ListRoots,
    Op::Announce,
    Op::ReadAgain,
    Op::ListAgain,
    Op::PutLedger,
    Op::Drop,
    Op::End,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Object {
    Root(Numbered),
    Ledger(LedgerName),
    Epoch(EpochName),
}

/// What an epoch says, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Epoch {
    closings: Closings,
    fenced: BTreeSet<RegistrationId>,
}

/// How the lying place answers a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lie {
    Truth,
    Nothing,
    /// All that it ever had, deleted or not.
    Ever,
    /// Ledgers that do not open.
    Damage,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Actor {
    at: usize,
    /// The places that take part in this run, one bit each.
    mask: u8,
    puts: u8,
    known: Arc<Known>,
    epochs: BTreeSet<EpochName>,
    own: Option<EpochName>,
    packs: BTreeSet<Numbered>,
    found: BTreeSet<Numbered>,
    listed: BTreeSet<Numbered>,
    stated: Option<Arc<Ledger>>,
    awaited: BTreeSet<Object>,
    /// What its machine remembers from run to run.
    roots: BTreeSet<Numbered>,
    ledgers: BTreeSet<LedgerName>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct State {
    places: Vec<BTreeSet<Object>>,
    /// All that the lying place ever had.
    ever: BTreeSet<Object>,
    fresh: BTreeSet<Object>,
    packs: BTreeSet<Numbered>,
    ledgers: BTreeMap<LedgerName, Arc<Ledger>>,
    epochs: BTreeMap<EpochName, Arc<Epoch>>,
    actors: Vec<Actor>,
    reported: BTreeSet<Numbered>,
    /// What owners wanted forgotten.
    meant: BTreeSet<Numbered>,
    /// What a ledger forgets that enough places have, and lists show.
    told: BTreeSet<Numbered>,
    has_torn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Step {
        at: usize,
        mask: u8,
        lie: Lie,
        fences: bool,
    },
    /// A put that reaches one place, and the end of who put.
    Tear {
        at: usize,
        place: usize,
    },
    Show(Object),
}

#[derive(Debug, Clone)]
struct World {
    /// How many, and how many copies a put needs.
    places: usize,
    least: usize,
    lies: bool,
    /// One place may be away during a run.
    away: bool,
    /// Nothing is ever deleted from the last place.
    append_only: bool,
    stale: bool,
    tears: bool,
    /// The registration that the last gc may fence.
    fences: Option<u8>,
    /// How many roots the first registration has, in the word of who has its key.
    ended: Option<u64>,
    /// The actors, each with its runs.
    actors: Vec<Vec<&'static [Op]>>,
    /// What owners want forgotten, by variant of hash and number.
    forget: Vec<Numbered>,
    /// Roots that were published and reported.
    published: Vec<Numbered>,
    /// Ledgers that stand, and whether all machines remember them.
    ledgers: Vec<Ledger>,
    remembered: bool,
    bug: Bug,
    programs: Vec<Vec<Op>>,
}

const WORLD: World = World {
    places: 1,
    least: 1,
    lies: false,
    away: false,
    append_only: false,
    stale: false,
    tears: false,
    fences: None,
    ended: None,
    actors: Vec::new(),
    forget: Vec::new(),
    published: Vec::new(),
    ledgers: Vec::new(),
    remembered: false,
    bug: Bug::None,
    programs: Vec::new(),
};

/// The root of a registration with this number; variants other than 0 are a thief's.
fn root(registration: u8, number: u64, variant: u8) -> Numbered {
    let mut hash = [0; 16];
    (hash[0], hash[1], hash[2]) = (registration, number as u8, variant);
    Numbered {
        registration: RegistrationId([registration; 16]),
        number,
        hash: RootId(hash),
    }
}

fn kind() -> KindWord {
    KindWord::new("snapshot").unwrap()
}

/// A ledger that states these.
fn ledger(number: u64, live: &[Numbered], forgotten: &[Numbered]) -> Ledger {
    let first = |root: &Numbered| {
        (
            *root,
            Live {
                kind: kind(),
                first: number,
            },
        )
    };
    Ledger {
        number,
        live: live.iter().map(first).collect(),
        forgotten: forgotten.iter().copied().collect(),
        ..Ledger::default()
    }
}

fn ledger_name(number: u64, actor: usize, puts: u8) -> LedgerName {
    let mut hash = [0xff; 16];
    (hash[0], hash[1]) = (actor as u8, puts);
    (number, RootId(hash))
}

impl World {
    fn built(mut self, bug: Bug) -> Self {
        self.bug = bug;
        self.programs = self.actors.iter().map(|runs| self.program(runs)).collect();
        self
    }

    fn program(&self, runs: &[&'static [Op]]) -> Vec<Op> {
        let ops = runs.iter().flat_map(|run| run.iter().copied());
        let settles = self.stale && self.bug != Bug::NoSettling;
        ops.filter(|op| *op != Op::Settle || settles).collect()
    }

    fn all(&self) -> u8 {
        (1 << self.places) - 1
    }

    /// The sets of places that a run may have.
    fn masks(&self) -> Vec<u8> {
        let mut masks = vec![self.all()];
        if self.away {
            masks.extend((0..self.places).map(|place| self.all() & !(1 << place)));
        }
        masks
    }

    /// Whether every run has a place in common with every put.
    fn is_quorate(&self) -> bool {
        !self.away || self.least > 1
    }

    fn is_over(&self, state: &State, at: usize) -> bool {
        state.actors[at].at >= self.programs[at].len()
    }

    fn is_liar(&self, place: usize) -> bool {
        self.lies && place == 0
    }
}

impl State {
    /// The sound objects of the honest places of `mask` that lists show.
    fn shown(&self, world: &World, mask: u8) -> BTreeSet<Object> {
        let honest = (0..world.places).filter(|place| mask >> place & 1 == 1 && !world.is_liar(*place));
        let all = honest.flat_map(|place| &self.places[place]);
        all.filter(|object| !self.fresh.contains(object)).copied().collect()
    }

    /// What all honest places of `mask` say together.
    fn agreed(&self, world: &World, mask: u8) -> View {
        let mut known = Known::default();
        for object in self.shown(world, mask) {
            if let Object::Ledger(name) = object {
                known.insert(name, self.ledgers[&name].clone());
            }
        }
        world.view(&known)
    }

    /// Something that was reported, and that no owner wanted forgotten, is.
    fn is_lost(&self, world: &World) -> bool {
        let honest = |root: &Numbered| {
            let has = |place: usize| self.places[place].contains(&Object::Root(*root));
            (0..world.places).any(|place| (world.places == 1 || !world.is_liar(place)) && has(place))
        };
        self.reported.difference(&self.meant).any(|root| {
            self.ledgers.values().any(|ledger| ledger.forgets(root)) || !self.packs.contains(root) || !honest(root)
        })
    }

    /// Something that was forgotten counts as live for somebody who sees enough places.
    fn is_risen(&self, world: &World) -> bool {
        let masks = if world.is_quorate() {
            world.masks()
        } else {
            vec![world.all()]
        };
        let is_risen = |mask: u8| {
            let view = self.agreed(world, mask);
            self.told.iter().any(|root| view.is_live(root))
        };
        !self.told.is_empty() && (!world.lies || world.places > 1) && masks.into_iter().any(is_risen)
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            places: vec![BTreeSet::new(); self.places],
            actors: vec![Actor::default(); self.actors.len()],
            ..State::default()
        };
        for (count, ledger) in self.ledgers.iter().enumerate() {
            let name = ledger_name(ledger.number, 100 + count, 0);
            state.told.extend(&ledger.forgotten);
            state.meant.extend(&ledger.forgotten);
            state.ledgers.insert(name, Arc::new(ledger.clone()));
            for place in &mut state.places {
                place.insert(Object::Ledger(name));
            }
            for actor in state.actors.iter_mut().filter(|_| self.remembered) {
                actor.ledgers.insert(name);
            }
        }
        for root in &self.published {
            state.reported.insert(*root);
            state.packs.insert(*root);
            for place in &mut state.places {
                place.insert(Object::Root(*root));
            }
        }
        state.ever = state.places[0].clone();
        // What was forgotten by these ledgers was there once.
        state.ever.extend(state.meant.iter().copied().map(Object::Root));
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in (0..state.actors.len()).filter(|at| !self.is_over(state, *at)) {
            let actor = &state.actors[at];
            let op = self.programs[at][actor.at];
            if op == Op::Settle && !actor.awaited.is_disjoint(&state.fresh) {
                continue;
            }
            let masks = match actor.mask {
                // Over mirrors gc waits for all.
                0 if op == Op::ReadEpochs && !self.is_quorate() && self.bug != Bug::GoesOnBlind => vec![self.all()],
                0 => self.masks(),
                mask => vec![mask],
            };
            let lies: &[Lie] = match (self.lies, op) {
                (true, Op::ReadLedgers | Op::ReadAgain | Op::Clean) => {
                    &[Lie::Truth, Lie::Nothing, Lie::Ever, Lie::Damage]
                }
                (true, Op::ListRoots | Op::ListAgain | Op::Register | Op::Look(_)) => {
                    &[Lie::Truth, Lie::Nothing, Lie::Ever]
                }
                _ => &[Lie::Truth],
            };
            let fencing: &[bool] = if self.fences.is_some() && op == Op::Announce && at + 1 == state.actors.len() {
                &[false, true]
            } else {
                &[false]
            };
            for mask in masks {
                for lie in lies {
                    let step = |fences: &bool| Action::Step {
                        at,
                        mask,
                        lie: *lie,
                        fences: *fences,
                    };
                    actions.extend(fencing.iter().map(step));
                }
            }
            let puts = matches!(
                op,
                Op::Publish(_) | Op::State | Op::Forget | Op::PutLedger | Op::Announce
            );
            if self.tears && !state.has_torn && puts {
                actions.extend((0..self.places).map(|place| Action::Tear { at, place }));
            }
        }
        actions.extend(state.fresh.iter().copied().map(Action::Show));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Step { at, mask, lie, fences } => {
                next.actors[at].mask = mask;
                next.go(self, at, lie, fences);
            }
            Action::Tear { at, place } => {
                next.actors[at].mask = 1 << place;
                next.has_torn = true;
                next.perform(self, at, Lie::Truth, false);
                next.actors[at] = Actor {
                    at: self.programs[at].len(),
                    ..Actor::default()
                };
            }
            Action::Show(object) => {
                next.fresh.remove(&object);
                next.tell(self, object);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was reported is kept", |world: &World, state: &State| {
                !state.is_lost(world)
            }),
            Property::always("forgotten wins", |world: &World, state: &State| !state.is_risen(world)),
            Property::sometimes("a range is closed", |_: &World, state: &State| {
                state
                    .ledgers
                    .values()
                    .any(|ledger| !ledger.dead.is_empty() || ledger.bounds.values().any(|bounds| bounds.floor > 0))
            }),
            Property::sometimes("garbage goes", |world: &World, state: &State| {
                world
                    .forget
                    .iter()
                    .chain(&state.meant)
                    .any(|root| state.reported.contains(root) && !state.packs.contains(root))
            }),
        ]
    }
}
