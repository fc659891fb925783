//! What each access to the place does in the model, to the place and to who makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::epoch::{Epoch, EpochName};
use drystone_format::{PackId, RegistrationId, RootId};
use drystone_vault::ledger::{Change as LedgerChange, next};
use drystone_vault::protocol::{Registered, Registrations, Standing, Writer, blockers, cuts, deletable, is_spent};

use super::{Actor, Bug, Change, Fresh, Lasting, Op, Place, State, World, own, own_again, pack};

impl State {
    pub(super) fn put_epoch(&mut self, world: &World, at: usize, epoch: Epoch) {
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

    fn put_ledger(&mut self, world: &World, at: usize, cuts: BTreeMap<RegistrationId, u64>) {
        let actor = &mut self.actors[at];
        actor.puts += 1;
        let change = LedgerChange {
            cuts,
            ..LedgerChange::default()
        };
        let Some(ledger) = next(&actor.view, &change) else {
            return;
        };
        let mut id = [0; 16];
        (id[0], id[1]) = (at as u8, actor.puts);
        let name = (ledger.number, RootId(id));
        let ledger = Arc::new(ledger);
        // Its own put is known to it.
        Arc::make_mut(&mut actor.known).set_stated(ledger.clone());
        self.place.ledgers.insert(name, ledger);
        if world.stale {
            self.place.fresh.insert(Fresh::Ledger(name));
        }
    }

    pub(super) fn put_pack(&mut self, at: usize, chunk: u8) {
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

    pub(super) fn register(&mut self, world: &World, at: usize) {
        let actor = &mut self.actors[at];
        let id = own_again(at, actor.life);
        let writer = Writer::new(id, Standing::clone(&actor.known));
        self.place.presences.insert(Registered {
            id,
            beat: 0,
            seen: writer.claims(&[]),
            advance: None,
            packs: 0,
            is_over: false,
        });
        actor.writer = Some(Arc::new(writer));
        if world.stale {
            self.place.fresh.insert(Fresh::Presence(id, 0));
        }
    }

    fn step_writer(&mut self, world: &World, at: usize, op: Op) {
        let mut standing = self.place.epochs(&self.actors[at].stated);
        let actor = &mut self.actors[at];
        let writer = actor.writer.as_ref();
        if matches!(op, Op::Look | Op::Advance)
            && writer.is_some_and(|writer| writer.is_behind(&standing))
            && world.bug != Bug::LookIgnoresLedgers
        {
            actor.stated = self.place.view().stated;
            standing.set_stated(actor.stated.clone());
        }
        match op {
            Op::Read => {
                let writer = actor.writer.as_ref().unwrap();
                actor.is_old = writer.is_behind(&standing) && world.bug != Bug::OldList;
                // What was condemned when it listed the packs stays so: that epoch may be gone, and the pack with it.
                if world.bug == Bug::ForgetsCondemned {
                    actor.known = Arc::new(standing);
                }
            }
            Op::ReadEpochsIfOld if actor.is_old => actor.known = Arc::new(standing),
            Op::ListPacksIfOld if actor.is_old => self.list_packs(world, at),
            Op::Work => self.work(world, at),
            Op::Publish => self.publish(world, at),
            Op::Look => self.look(world, at, &standing),
            Op::Advance => self.advance(world, at, &standing),
            Op::DropPresences => self.drop_presences(world, at),
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
                actor.mark(world, self.place.is_configured);
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
                actor.view = Arc::new(self.place.view());
                actor.named = Arc::new(standing);
                actor.fences = actor.named.clone();
                actor.known = actor.named.clone();
            }
            Op::ListWriters => {
                let shown = |found: &&Registered| !self.place.fresh.contains(&Fresh::Presence(found.id, found.beat));
                actor.writers = self.place.presences.iter().filter(shown).cloned().collect();
                let thiefs = Registered {
                    id: own(0),
                    beat: 9,
                    seen: BTreeSet::new(),
                    advance: None,
                    packs: 0,
                    is_over: true,
                };
                actor.writers.extend(world.forges.then_some(thiefs));
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
            Op::MarkAgain => actor.mark(world, self.place.is_configured),
            Op::Delete => self.delete(world, at),
            Op::Drop => self.drop_epochs(world, at),
            _ => {}
        }
    }

    fn condemn(&mut self, world: &World, at: usize) {
        let actor = &mut self.actors[at];
        let epoch = Epoch {
            packs: actor.leave.clone(),
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
            self.put_ledger(world, at, cuts);
        }
        let actor = &self.actors[at];
        let registrations = actor.judged(world.bug);
        let listed = actor.writers.clone();
        self.place
            .presences
            .retain(|found| !(listed.contains(found) && registrations.is_over(&found.id)));
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
        let stated = &actor.stated;
        let is_spent = |epoch: &Epoch| match world.bug {
            Bug::ForgetsVoid => !epoch.packs.iter().any(has_pack),
            _ => is_spent(epoch, &has_pack, stated),
        };
        let spent = actor.before.epochs().filter(|(_, epoch)| is_spent(epoch));
        let spent: Vec<EpochName> = spent.map(|(name, _)| *name).collect();
        if actor.has_put {
            self.place.epochs.retain(|name, _| !spent.contains(name));
            if world.bug == Bug::ForgetsVoid {
                self.place.ledgers.clear();
            }
        }
    }

    /// What a gc has seen is at enough places from then on, and has been relied upon.
    fn confirm(&mut self, world: &World, at: usize, op: Op) {
        let Some(torn) = self
            .place
            .torn
            .clone()
            .filter(|torn| at >= world.first_gc() && op.confirms(torn))
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
    pub(super) fn put_since(&self, before: &Place) -> Option<Fresh> {
        let root = self.place.roots.keys().find(|name| !before.roots.contains_key(*name));
        let presence = self
            .place
            .presences
            .iter()
            .find(|found| !before.presences.contains(*found));
        let epoch = self.place.epochs.keys().find(|name| !before.epochs.contains_key(*name));
        let mut ledgers = self.place.ledgers.keys();
        let ledger = ledgers.find(|name| !before.ledgers.contains_key(*name));
        let root = root.map(|name| Fresh::Root(*name));
        let presence = presence.map(|found| Fresh::Presence(found.id, found.beat));
        let notice = epoch.map(|name| Fresh::Epoch(*name));
        root.or(presence).or(notice).or(ledger.map(|name| Fresh::Ledger(*name)))
    }

    pub(super) fn perform(&mut self, world: &World, at: usize, op: Op, fences: bool) {
        let knew = self.actors[at].is_configured;
        self.swap_left(world, at);
        self.perform_there(world, at, op, fences);
        let knows = std::mem::replace(&mut self.actors[at].is_configured, knew);
        self.swap_left(world, at);
        self.actors[at].is_configured = knows;
        self.step_on(world, at);
        let (program, actor) = (&world.programs[at], &mut self.actors[at]);
        if program.get(actor.at) == Some(&Op::Settle) {
            actor.awaited = self.place.fresh.clone();
        }
        // What it needs no more makes no states.
        match op {
            Op::Work if world.lasting == Lasting::No && !program[actor.at..].contains(&Op::Work) => {
                (actor.known, actor.packs) = (Arc::default(), BTreeMap::new());
            }
            Op::Delete => {
                (actor.packs, actor.live, actor.leave) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
                actor.stated = actor.known.stated().clone();
                (actor.named, actor.fences, actor.known) = (Arc::default(), Arc::default(), Arc::default());
                (actor.writers, actor.view) = (Vec::new(), Arc::default());
            }
            _ => {}
        }
        if actor.at >= program.len() {
            *actor = Actor {
                at: program.len(),
                is_configured: actor.is_configured,
                ..Actor::default()
            };
        }
    }

    fn perform_there(&mut self, world: &World, at: usize, op: Op, fences: bool) {
        match op {
            Op::ReadEpochs => {
                // A writer that registers anew needs no ledger.
                let is_writer = at < world.writers;
                let standing = match is_writer {
                    true => self.place.epochs(&Arc::default()),
                    false => self.place.standing(),
                };
                self.actors[at].known = Arc::new(standing);
            }
            Op::ReadConfig => self.read_config(world, at),
            Op::ListPacks => self.actors[at].packs = self.place.packs.clone(),
            Op::Register => self.register(world, at),
            Op::Leave => self.place.presences.retain(|found| found.id != own(at)),
            _ if at < world.writers => self.step_writer(world, at, op),
            _ if at < world.first_gc() => self.step_owner(world, at, op),
            _ => self.step_gc(world, at, op, fences),
        }
    }

    pub(super) fn go(&mut self, world: &World, at: usize, fences: bool) {
        let op = world.op(self, at);
        self.perform(world, at, op, fences);
        if self.place.torn.is_some() {
            self.confirm(world, at, op);
        }
        // What neither changes nor reads the place needs no interleaving.
        while let Some(op) = world.next_op(self, at)
            && self.is_idle(world, at, op)
        {
            self.perform(world, at, op, false);
        }
    }

    fn is_idle(&self, world: &World, at: usize, op: Op) -> bool {
        let actor = &self.actors[at];
        match op {
            Op::ReadEpochsIfOld | Op::ListPacksIfOld => !actor.is_old,
            Op::ReadConfig => actor.is_configured || world.change == Change::None,
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
    pub(super) fn is_broken(&self, world: &World) -> bool {
        let standing = self.place.standing();
        let is_whole = |chunk: &u8| self.place.packs.values().any(|held| held == chunk);
        self.reported.iter().any(|(name, chunk)| {
            !world.counts(&standing, name, false) || !self.place.roots.contains_key(name) || !is_whole(chunk)
        })
    }

    pub(super) fn has_garbage(&self) -> bool {
        let standing = self.place.standing();
        let live = self.place.roots.iter().filter(|(name, _)| standing.counts(name));
        let live: BTreeSet<u8> = live.map(|(_, (_, chunk))| *chunk).collect();
        self.place.packs.values().any(|chunk| !live.contains(chunk))
    }
}
