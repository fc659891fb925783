//! Handles that stay open, and owners who change the configuration meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use drystone_format::RegistrationId;
use drystone_format::epoch::Epoch;
use drystone_format::ledger::{KindWord, Ledger};
use drystone_format::root::RootName;
use drystone_format::{RootId, ledger};
use drystone_vault::ledger::next;
use drystone_vault::protocol::{Group, Published, Registered, Standing, Writer, WriterStep};

use super::{Actor, Bug, Change, Fresh, Lasting, Op, State, World, own_again, root};

/// How often a handle registers anew before it is given up for good.
const LIVES: u8 = 1;
/// Number and hash of the configuration that the owner puts.
const CONFIGURATION: (u64, RootId) = (2, RootId([0xcc; 16]));

impl World {
    pub(super) fn writer_order(&self) -> Vec<WriterStep> {
        let (roots, mut order) = (self.advances, WriterStep::lasting(self.advances));
        match self.lasting {
            Lasting::No => return WriterStep::order(roots),
            Lasting::AfterRoots => {}
            Lasting::AtWork => {
                order.truncate(2);
                for _ in 0..roots {
                    use WriterStep::{Advance, Look, Publish, Work};
                    order.extend([Work, Advance, Publish, Look]);
                }
            }
            Lasting::Overlapping => {
                order.retain(|step| !matches!(step, WriterStep::Work | WriterStep::Advance));
                let begun = std::iter::repeat_n(WriterStep::Work, roots);
                order.splice(2..2, begun);
            }
        }
        order
    }

    pub(super) fn advance_ops(&self) -> Vec<Op> {
        match self.bug {
            Bug::LeavesBetween => vec![Op::DropPresences, Op::Advance, Op::ListPacksIfOld],
            Bug::LeavesEarly => vec![Op::Advance, Op::ListPacksIfOld, Op::DropPresences],
            _ => vec![Op::Advance, Op::ListPacksIfOld, Op::Settle, Op::DropPresences],
        }
    }

    pub(super) fn owner_ops(&self) -> Vec<Op> {
        match (self.change, self.bug) {
            (Change::None, _) => vec![],
            (Change::Key, Bug::StatesFirst) => vec![Op::ListRoots, Op::State, Op::Configure, Op::Notify],
            (Change::Key, Bug::NoNotice) => vec![Op::Configure, Op::ListRoots, Op::State],
            (Change::Key, _) => vec![Op::Configure, Op::Notify, Op::ListRoots, Op::State],
            (Change::Place, Bug::CopiesFirst) => vec![Op::Move, Op::Configure, Op::Notify],
            (Change::Place, Bug::NoNotice) => vec![Op::Configure, Op::Move],
            (Change::Place, _) => vec![Op::Configure, Op::Notify, Op::Move],
        }
    }

    /// Where a handle that has registered anew goes on.
    fn registered(&self, at: usize) -> usize {
        let is_work = |op: &Op| *op == Op::Work;
        self.programs[at].iter().position(is_work).unwrap_or(usize::MAX)
    }

    /// What an actor does next.
    pub(super) fn next_op(&self, state: &State, at: usize) -> Option<Op> {
        let actor = &state.actors[at];
        if actor.again.is_some() && actor.at == self.registered(at) {
            return Some(Op::Work);
        }
        self.programs[at].get(actor.at).copied()
    }

    pub(super) fn op(&self, state: &State, at: usize) -> Op {
        self.next_op(state, at).unwrap()
    }

    /// Returns true if the key of this registration is the one that the owner removes.
    fn is_removed(&self, registration: RegistrationId) -> bool {
        let lives = (0..=LIVES).map(|life| own_again(0, life));
        self.change == Change::Key && lives.into_iter().any(|own| own == registration)
    }

    /// Returns true if a root counts, as far as gc may go by it: the root of a removed key does once a ledger states it, and all of them do
    /// until a ledger states that the key is removed.
    pub(super) fn counts(&self, standing: &Standing, name: &RootName, is_configured: bool) -> bool {
        let stated = standing.stated();
        let is_told = match self.bug {
            Bug::RemovesEarly => is_configured,
            _ => stated.configuration.heads.contains(&CONFIGURATION),
        };
        let is_void = is_told && self.is_removed(name.registration) && !stated.live.contains_key(&name.numbered());
        standing.counts(name) && !is_void
    }
}

impl Actor {
    fn open_groups(&self) -> &[Group] {
        &self.groups
    }

    fn writer_mut(&mut self) -> &mut Writer {
        Arc::make_mut(self.writer.as_mut().unwrap())
    }
}

impl State {
    /// Moves on in the program, behind what was done again.
    pub(super) fn step_on(&mut self, world: &World, at: usize) {
        let first = world.registered(at);
        let actor = &mut self.actors[at];
        match &mut actor.again {
            Some((left, _)) if actor.at == first => *left = left.saturating_sub(1),
            _ => actor.at = actor.at.wrapping_add(1),
        }
        if let Some((0, resume)) = actor.again
            && actor.at == first
        {
            (actor.at, actor.again) = (resume, None);
        }
    }

    /// Registers a handle anew, to begin its open commits again and go on at `resume`.
    fn restart(&mut self, world: &World, at: usize, resume: usize) {
        let actor = &mut self.actors[at];
        // Stepping on comes after this.
        actor.life += 1;
        if world.lasting == Lasting::No || actor.life > LIVES {
            actor.at = world.programs[at].len() - 1;
            return;
        }
        let groups = std::mem::take(&mut actor.groups);
        actor.again = Some((groups.len() as u8, resume));
        actor.is_deaf = false;
        if world.bug == Bug::AnewOldList {
            self.register(world, at);
            let actor = &mut self.actors[at];
            actor.at = world.registered(at) - 1;
        } else {
            (actor.known, actor.packs) = (Arc::default(), BTreeMap::new());
            (actor.stated, actor.before) = (Arc::default(), Arc::default());
            actor.at = usize::MAX;
        }
    }

    /// Follows the owner's configuration; says whether the writer may go on as it is.
    fn follow_config(&mut self, world: &World, at: usize) -> bool {
        let actor = &mut self.actors[at];
        if !self.place.is_configured || actor.is_configured {
            return true;
        }
        actor.is_configured = true;
        if world.change == Change::Key && at == 0 {
            actor.at = world.programs[at].len() - 1;
            actor.again = None;
            return false;
        }
        world.change != Change::Place
    }

    pub(super) fn read_config(&mut self, world: &World, at: usize) {
        let resume = self.actors[at].at;
        let is_registering = resume < world.registered(at);
        if !self.follow_config(world, at) && world.change == Change::Place && !is_registering {
            // It has worked by now: it looks at the configuration before it publishes.
            self.restart(world, at, resume);
        }
    }

    pub(super) fn list_packs(&mut self, world: &World, at: usize) {
        let packs = self.place.packs.clone();
        let actor = &mut self.actors[at];
        actor.packs = packs;
        if world.lasting != Lasting::No && *actor.before != Standing::default() {
            let before = actor.before.clone();
            actor.writer_mut().forget_gone(&before);
            actor.known = before;
        }
        actor.is_old = false;
    }

    pub(super) fn work(&mut self, world: &World, at: usize) {
        let actor = &mut self.actors[at];
        let chunk = actor.chunk();
        let group = actor.writer_mut().begin(0);
        actor.groups.push(group);
        let is_again = actor.again.is_some();
        if actor.holders(chunk, Bug::None).0.is_empty() && !(is_again && world.bug == Bug::NoRecheck) {
            self.put_pack(at, chunk);
        }
    }

    pub(super) fn renew(&mut self, world: &World, at: usize, standing: &Standing) {
        let actor = &mut self.actors[at];
        let writer = actor.writer_mut();
        let is_behind = writer.is_behind(standing);
        writer.renew(standing);
        match world.bug {
            Bug::ForgetsGone => {
                writer.forget_gone(standing);
                actor.known = Arc::new(standing.clone());
                return;
            }
            Bug::ClaimsTooMuch => return,
            _ => Arc::make_mut(&mut actor.known).honour(standing),
        }
        (actor.is_old, actor.before) = (is_behind, Arc::new(standing.clone()));
    }

    pub(super) fn publish(&mut self, world: &World, at: usize) {
        let actor = &self.actors[at];
        let writer = actor.writer.as_ref().unwrap();
        let name = root(writer.id, writer.next_number());
        let groups = actor.open_groups();
        let named = match world.bug {
            Bug::ClaimsForOthers => groups,
            _ => &groups[..1],
        };
        let published = Published {
            previous: writer.advance().map(|(_, hash)| hash),
            seen: writer.claims(named),
            packs: 0,
            is_last: world.lasting == Lasting::No && name.number + 1 == world.advances as u64,
        };
        self.place.roots.insert(name, (Arc::new(published), actor.done));
        if world.stale {
            self.place.fresh.insert(Fresh::Root(name));
        }
    }

    pub(super) fn look(&mut self, world: &World, at: usize, standing: &Standing) {
        let actor = &self.actors[at];
        let writer = actor.writer.as_ref().unwrap();
        let name = root(writer.id, writer.next_number());
        let is_given_up = writer.is_given_up((name.number, name.hash), standing);
        let reads_config = writer.is_behind(standing) && world.bug != Bug::ConfigBefore;
        let publishes = self.last_publish(world, at);
        if reads_config && !self.follow_config(world, at) {
            if world.change == Change::Place {
                self.restart(world, at, publishes);
            }
            return;
        }
        let actor = &mut self.actors[at];
        if !is_given_up || world.bug == Bug::NoLook || actor.is_deaf {
            let group = actor.groups.remove(0);
            actor.writer_mut().published(name.hash, &[group]);
            self.reported.insert(name, actor.done);
            actor.done += 1;
            if usize::from(actor.done) < world.advances {
                self.renew(world, at, standing);
            }
        } else if world.lasting == Lasting::No {
            // It registers anew, as another.
            actor.at = world.programs[at].len() - 2;
        } else {
            self.restart(world, at, publishes);
        }
    }

    /// Where the program publishes the root that is looked at now.
    fn last_publish(&self, world: &World, at: usize) -> usize {
        let done = &world.programs[at][..self.actors[at].at];
        done.iter().rposition(|op| *op == Op::Publish).unwrap()
    }

    pub(super) fn advance(&mut self, world: &World, at: usize, standing: &Standing) {
        let is_behind = self.actors[at].writer_mut().is_behind(standing);
        let resume = self.actors[at].at + 1;
        if is_behind && !self.follow_config(world, at) {
            if world.change == Change::Place {
                self.restart(world, at, resume);
            }
            return;
        }
        let actor = &mut self.actors[at];
        if actor.writer_mut().is_fenced(standing) {
            if world.bug != Bug::LetsItselfBack {
                return self.restart(world, at, resume);
            }
            actor.is_deaf = true;
        }
        self.renew(world, at, standing);
        let actor = &self.actors[at];
        let writer = actor.writer.as_ref().unwrap();
        let named = match world.bug {
            Bug::AdvancesOverWork => actor.open_groups(),
            _ => &[],
        };
        let own = self.place.presences.iter().filter(|found| found.id == writer.id);
        let beat = own.map(|found| found.beat + 1).max().unwrap_or(1);
        let presence = Registered {
            id: writer.id,
            beat,
            seen: writer.claims(named),
            advance: writer.advance(),
            packs: 0,
            is_over: false,
        };
        self.place.presences.insert(presence);
        if world.stale {
            let id = self.actors[at].writer.as_ref().unwrap().id;
            self.place.fresh.insert(Fresh::Presence(id, beat));
        }
    }

    pub(super) fn drop_presences(&mut self, world: &World, at: usize) {
        let id = self.actors[at].writer.as_ref().unwrap().id;
        let own = self.place.presences.iter().filter(|found| found.id == id);
        let last = own.map(|found| found.beat).max().unwrap_or(0);
        let stays = |beat: u64| beat == last && world.bug != Bug::LeavesBetween;
        self.place.presences.retain(|found| found.id != id || stays(found.beat));
    }

    pub(super) fn step_owner(&mut self, world: &World, at: usize, op: Op) {
        match op {
            Op::Configure => {
                self.place.is_configured = true;
                self.left.iter_mut().for_each(|left| left.is_configured = true);
            }
            Op::Notify => {
                self.actors[at].known = Arc::new(self.place.standing());
                let before: Vec<_> = self.place.epochs.keys().copied().collect();
                self.put_epoch(world, at, Epoch::default());
                let new = self.place.epochs.iter().filter(|(name, _)| !before.contains(name));
                let new: Vec<_> = new.map(|(name, epoch)| (*name, epoch.clone())).collect();
                self.left
                    .iter_mut()
                    .for_each(|left| left.epochs.extend(new.iter().cloned()));
            }
            Op::ListRoots => self.actors[at].roots = self.place.listed_roots(),
            Op::State => self.state(at),
            Op::Move => self.left = Some(self.place.clone()),
            _ => {}
        }
    }

    /// States the roots that were listed, and with them that the configuration is in force.
    fn state(&mut self, at: usize) {
        let view = self.place.view();
        let kind = KindWord::new("snapshot").unwrap();
        let seen = self.actors[at].roots.keys().map(|name| (name.numbered(), kind));
        let change = drystone_vault::ledger::Change {
            seen: seen.collect(),
            configuration: Some(CONFIGURATION),
            ..drystone_vault::ledger::Change::default()
        };
        let Some(ledger) = next(&view, &change) else { return };
        let name: ledger::LedgerName = (ledger.number, RootId([0xdd; 16]));
        self.place.ledgers.insert(name, Arc::<Ledger>::new(ledger));
    }

    /// Makes an actor that does not know that the place was given up see and change that one.
    pub(super) fn swap_left(&mut self, world: &World, at: usize) {
        let is_owner = world.change != Change::None && at == world.writers;
        if !self.actors[at].is_configured
            && !is_owner
            && let Some(left) = &mut self.left
        {
            std::mem::swap(left, &mut self.place);
        }
    }
}
