//! What each step does: the places' side, and the decisions of the ledger's rules with the bugs that are seeded in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_format::epoch::{Closings, EpochName};
use drystone_format::ledger::{Ledger, LedgerName, Numbered};
use drystone_format::{RegistrationId, RootId};
use drystone_vault::ledger::{
    Change, Known, View, closable, confirmed, is_closed, is_stated, must_read_ledgers, next, removable, widen,
};

use super::{Actor, Bug, Epoch, Lie, Object, Op, State, World, kind, ledger_name, root};

impl World {
    /// What the ledgers say, with the bug that is seeded.
    pub(super) fn view(&self, known: &Known) -> View {
        let mut view = known.view();
        if self.bug == Bug::HighestWins
            && let Some((name, highest)) = known.read().max_by_key(|(name, _)| **name)
        {
            view.stated = highest.clone();
            view.newest = [*name].into();
        }
        view
    }

    /// Every place takes part, and lets go of what is deleted.
    fn is_complete(&self, actor: &Actor) -> bool {
        actor.mask == self.all() && !self.append_only
    }
}

impl State {
    /// What a list of `mask` shows; `None` for a ledger that does not open.
    fn list(&self, world: &World, mask: u8, lie: Lie) -> (BTreeSet<Object>, BTreeSet<Object>) {
        let mut sound = self.shown(world, mask);
        let mut damaged = BTreeSet::new();
        if world.lies && mask & 1 == 1 {
            let now = self.places[0].difference(&self.fresh).copied();
            match lie {
                Lie::Truth => sound.extend(now),
                Lie::Nothing => {}
                Lie::Ever => sound.extend(self.ever.difference(&self.fresh)),
                Lie::Damage => damaged.extend(now.filter(|object| matches!(object, Object::Ledger(_)))),
            }
        }
        (sound, damaged)
    }

    fn list_epochs(&self, world: &World, mask: u8) -> BTreeSet<EpochName> {
        let (sound, _) = self.list(world, mask, Lie::Truth);
        let epoch = |object| match object {
            Object::Epoch(name) => Some(name),
            _ => None,
        };
        sound.into_iter().filter_map(epoch).collect()
    }

    fn copies(&self, object: &Object) -> usize {
        self.places.iter().filter(|place| place.contains(object)).count()
    }

    /// Notes what a ledger forgets that everybody can list.
    pub(super) fn tell(&mut self, world: &World, object: Object) {
        if let Object::Ledger(name) = object
            && !self.fresh.contains(&object)
            && self.copies(&object) >= world.least
        {
            let ledger = &self.ledgers[&name];
            // What the fenced writer may publish when it wakes up.
            for (registration, bounds) in &ledger.bounds {
                let void = (bounds.end.unwrap_or(9)..3).map(|number| root(registration.0[0], number, 0));
                self.told.extend(void);
            }
            let told: BTreeSet<Numbered> = self.meant.iter().filter(|root| ledger.forgets(root)).copied().collect();
            self.told.extend(told);
        }
    }

    fn put(&mut self, world: &World, mask: u8, object: Object) {
        let is_new = self.copies(&object) == 0;
        for place in (0..world.places).filter(|place| mask >> place & 1 == 1) {
            self.places[place].insert(object);
            if place == 0 && world.lies {
                self.ever.insert(object);
            }
        }
        if world.stale && is_new {
            self.fresh.insert(object);
        }
        self.tell(world, object);
    }

    fn delete(&mut self, world: &World, mask: u8, object: Object) {
        for place in (0..world.places).filter(|place| mask >> place & 1 == 1) {
            if !(world.append_only && place + 1 == world.places) {
                self.places[place].remove(&object);
            }
        }
    }

    /// What was read is at as many places as a put asks for from then on.
    fn confirm(&mut self, world: &World, mask: u8, read: &BTreeSet<Object>) {
        for object in read {
            if world.bug != Bug::NoConfirming && self.copies(object) > 0 && self.copies(object) < world.least {
                self.put(world, mask, *object);
            }
        }
    }

    fn put_ledger(&mut self, world: &World, at: usize, ledger: Ledger) {
        let actor = &mut self.actors[at];
        actor.puts += 1;
        let name = ledger_name(ledger.number, at, actor.puts);
        let ledger = Arc::new(ledger);
        actor.stated = Some(ledger.clone());
        actor.ledgers = [name].into();
        // What it could not read stays unreadable.
        Arc::make_mut(&mut actor.known).insert(name, ledger.clone());
        let mask = actor.mask;
        self.ledgers.insert(name, ledger);
        self.put(world, mask, Object::Ledger(name));
    }

    /// Puts the ledger that adds `change`, with the bug that is seeded.
    fn state(&mut self, world: &World, at: usize, change: &Change) {
        let actor = &self.actors[at];
        let view = world.view(&actor.known);
        let Some(mut ledger) = next(&view, change) else {
            self.actors[at].stated = Some(view.stated);
            return;
        };
        match world.bug {
            Bug::NoCarry => ledger.forgotten.retain(|root| change.forgotten.contains(root)),
            Bug::DropsForgotten => {
                let there = &actor.listed;
                ledger
                    .forgotten
                    .retain(|root| there.contains(root) || change.forgotten.contains(root));
            }
            Bug::SupersedesUnread => ledger.predecessors.extend(&view.unreadable),
            Bug::ForgetsCuts => {
                for registration in view.stated.bounds.keys() {
                    ledger.bounds.entry(*registration).or_default().end = None;
                }
            }
            _ => {}
        }
        ledger.normalise();
        self.put_ledger(world, at, ledger);
    }

    fn step_writer(&mut self, world: &World, at: usize, op: Op, lie: Lie) {
        let mask = self.actors[at].mask;
        match op {
            Op::Register => {
                self.actors[at].epochs = self.list_epochs(world, mask);
                // It goes on with a registration that others know: its numbers may be closed already.
                let (sound, _) = self.list(world, mask, lie);
                let stated = (world.bug != Bug::ResumesBlind).then(|| self.known_of(&sound).view().stated);
                self.actors[at].stated = stated;
            }
            Op::Publish(number) | Op::Fork(number) => {
                let root = root(1, number, u8::from(matches!(op, Op::Fork(_))));
                self.packs.insert(root);
                self.put(world, mask, Object::Root(root));
            }
            Op::Look(number) => {
                let root = root(1, number, 0);
                let standing = self.list_epochs(world, mask);
                let known = &self.actors[at].epochs;
                let mut announced = Closings::new();
                let mut is_fenced = false;
                for name in standing.union(known) {
                    let epoch = &self.epochs[name];
                    is_fenced |= epoch.fenced.contains(&root.registration);
                    widen(&mut announced, &epoch.closings);
                }
                let reads = must_read_ledgers(known, &standing) && world.bug != Bug::LookIgnoresLedgers;
                let stated = match reads {
                    true => Some(self.known_of(&self.list(world, mask, lie).0).view().stated),
                    false => self.actors[at].stated.clone(),
                };
                if world.bug == Bug::LookIgnoresEpochs {
                    announced.clear();
                }
                if !is_fenced && !is_closed(&root, &announced, stated.as_deref()) {
                    self.reported.insert(root);
                } else {
                    self.actors[at].at = world.programs[at].len();
                }
            }
            _ => unreachable!(),
        }
    }

    fn known_of(&self, sound: &BTreeSet<Object>) -> Known {
        let mut known = Known::default();
        for object in sound {
            if let Object::Ledger(name) = object {
                known.insert(*name, self.ledgers[name].clone());
            }
        }
        known
    }

    fn read_ledgers(&mut self, world: &World, at: usize, lie: Lie) {
        let mask = self.actors[at].mask;
        let (sound, damaged) = self.list(world, mask, lie);
        let ledgers = sound
            .iter()
            .filter(|object| matches!(object, Object::Ledger(_)))
            .copied()
            .collect();
        self.confirm(world, mask, &ledgers);
        let mut known = self.known_of(&sound);
        for object in damaged {
            if let Object::Ledger(name) = object {
                known.insert_unreadable(name);
            }
        }
        let actor = &mut self.actors[at];
        for name in &actor.ledgers {
            known.insert_unreadable(*name);
        }
        let view = known.view();
        actor.ledgers = view.newest.union(&view.unreadable).copied().collect();
        actor.known = Arc::new(known);
    }

    fn list_roots(&mut self, world: &World, at: usize, lie: Lie) {
        let mask = self.actors[at].mask;
        let (sound, _) = self.list(world, mask, lie);
        let is_root = |object: &&Object| matches!(object, Object::Root(_));
        let roots: BTreeSet<Object> = sound.iter().filter(is_root).copied().collect();
        self.confirm(world, mask, &roots);
        let listed = roots.iter().filter_map(|object| match object {
            Object::Root(root) => Some(*root),
            _ => None,
        });
        let listed: BTreeSet<Numbered> = listed.collect();
        let stated = world.view(&self.actors[at].known).stated;
        // A list may lag: what ledgers state is asked for by name.
        let has = |root: &&Numbered| {
            let held = |place: usize| mask >> place & 1 == 1 && self.places[place].contains(&Object::Root(**root));
            (0..world.places).any(|place| (!world.is_liar(place) || lie == Lie::Truth) && held(place))
        };
        let named: Vec<Numbered> = stated.live.keys().filter(has).copied().collect();
        let actor = &mut self.actors[at];
        actor.found = listed.iter().copied().chain(named).collect();
        actor.roots.extend(&actor.found);
        actor.listed = listed;
    }

    /// What gc marks from; `None` if it must not go on.
    fn live(&self, world: &World, actor: &Actor) -> Option<BTreeSet<Numbered>> {
        let mut view = world.view(&actor.known);
        if world.bug == Bug::IgnoresUnreadable {
            view.unreadable.clear();
        }
        let seen = match world.bug {
            Bug::IgnoresMissing => &actor.found,
            _ => &actor.roots,
        };
        if world.bug == Bug::IgnoresMissing {
            Arc::make_mut(&mut view.stated)
                .live
                .retain(|root, _| actor.found.contains(root));
        }
        let mut live = view.collectable(seen, &actor.found).ok()?;
        if world.bug == Bug::UnstatedIsGone && !view.is_empty() {
            live.retain(|root| view.stated.live.contains_key(root));
        }
        Some(live)
    }

    fn closable(&self, world: &World, actor: &Actor) -> Closings {
        if !world.is_complete(actor) {
            return Closings::new();
        }
        let over = |registration: &RegistrationId| world.ended.filter(|_| *registration == RegistrationId([1; 16]));
        closable(&world.view(&actor.known), &actor.listed, &over)
    }

    fn announce(&mut self, world: &World, at: usize, fences: bool) {
        let closings = match world.bug {
            Bug::NoAnnouncement => Closings::new(),
            _ => self.closable(world, &self.actors[at]),
        };
        let fenced = world
            .fences
            .filter(|_| fences)
            .map(|number| RegistrationId([number; 16]));
        let epoch = Epoch {
            closings,
            fenced: fenced.into_iter().collect(),
        };
        let (actor, standing) = (&self.actors[at], &self.epochs);
        let is_known = |name: &EpochName| *standing[name] == epoch;
        if epoch == Epoch::default() || actor.epochs.iter().any(is_known) {
            return;
        }
        let number = actor.epochs.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        let actor = &mut self.actors[at];
        actor.puts += 1;
        let mut id = [0xee; 16];
        (id[0], id[1]) = (at as u8, actor.puts);
        let name = (number, RootId(id));
        actor.epochs.insert(name);
        actor.own = Some(name);
        let mask = actor.mask;
        self.epochs.insert(name, Arc::new(epoch));
        self.put(world, mask, Object::Epoch(name));
    }

    /// gc's ledger: what it has seen, what it may close, what fences have cut.
    fn put_gc_ledger(&mut self, world: &World, at: usize) {
        let actor = &self.actors[at];
        let mut announced = Closings::new();
        let mut fenced: BTreeSet<RegistrationId> = BTreeSet::new();
        for name in &actor.epochs {
            widen(&mut announced, &self.epochs[name].closings);
            fenced.extend(&self.epochs[name].fenced);
        }
        let again = self.closable(world, actor);
        let closed = match world.bug {
            Bug::NoAnnouncement => again,
            Bug::NoSecondList => announced,
            _ => confirmed(&announced, &again),
        };
        let stated = world.view(&actor.known).stated;
        let count = |registration: &RegistrationId| {
            let roots = actor.found.iter().chain(&stated.forgotten).chain(stated.live.keys());
            let of = roots.filter(|root| root.registration == *registration);
            let floor = stated.bounds.get(registration).map_or(0, |bounds| bounds.floor);
            of.map(|root| root.number + 1).max().unwrap_or(0).max(floor)
        };
        let seen = actor.found.iter().filter(|_| world.bug != Bug::UnstatedIsGone);
        let change = Change {
            seen: seen.map(|root| (*root, kind())).collect(),
            closed,
            cuts: fenced
                .iter()
                .map(|registration| (*registration, count(registration)))
                .collect(),
            ..Change::default()
        };
        self.state(world, at, &change);
    }

    fn step_owner(&mut self, world: &World, at: usize, lie: Lie, fences: bool) {
        let op = world.programs[at][self.actors[at].at];
        let mask = self.actors[at].mask;
        match op {
            Op::ReadEpochs => self.actors[at].epochs = self.list_epochs(world, mask),
            Op::ReadLedgers => {
                self.actors[at].packs = self.packs.clone();
                self.read_ledgers(world, at, lie);
            }
            Op::ReadAgain => self.read_ledgers(world, at, lie),
            Op::ListRoots => self.list_roots(world, at, lie),
            Op::ListAgain if world.bug == Bug::NoSecondList => {}
            Op::ListAgain => self.list_roots(world, at, lie),
            Op::First if world.view(&self.actors[at].known).is_empty() => self.state(world, at, &self.seen(at)),
            Op::State => self.state(world, at, &self.seen(at)),
            Op::Forget => self.forget(world, at),
            Op::Revive => self.revive(world, at),
            Op::Announce => match self.live(world, &self.actors[at]) {
                Some(_) => self.announce(world, at, fences),
                None => self.stop(world, at),
            },
            Op::PutLedger => match self.live(world, &self.actors[at]) {
                Some(_) => self.put_gc_ledger(world, at),
                None => self.stop(world, at),
            },
            Op::Delete => match self.live(world, &self.actors[at]) {
                Some(live) => {
                    let (packs, stated) = (self.actors[at].packs.clone(), self.actors[at].stated.clone());
                    // What was acted upon holds for everybody.
                    let going = packs.intersection(&self.packs).filter(|pack| self.meant.contains(pack));
                    let going = going.filter(|pack| stated.as_ref().is_some_and(|stated| stated.forgets(pack)));
                    let going: Vec<Numbered> = going.copied().collect();
                    self.told.extend(going);
                    self.packs.retain(|pack| !packs.contains(pack) || live.contains(pack));
                    self.delete_forgotten(world, at);
                }
                None => self.stop(world, at),
            },
            Op::DeleteForgotten => self.delete_forgotten(world, at),
            Op::Clean => self.clean(world, at, lie),
            Op::Drop => self.drop_epochs(world, at),
            _ => {}
        }
    }

    fn seen(&self, at: usize) -> Change {
        Change {
            seen: self.actors[at].found.iter().map(|root| (*root, kind())).collect(),
            ..Change::default()
        }
    }

    fn forget(&mut self, world: &World, at: usize) {
        let mut change = self.seen(at);
        let chosen = self.actors[at].found.iter().filter(|root| world.forget.contains(root));
        change.forgotten = chosen.copied().collect();
        self.meant.extend(&change.forgotten);
        if world.bug == Bug::NumberIsEnough {
            let is_same = |root: &&Numbered| {
                let mut chosen = change.forgotten.iter();
                chosen.any(|one| (one.registration, one.number) == (root.registration, root.number))
            };
            let same: Vec<Numbered> = self.actors[at].found.iter().filter(is_same).copied().collect();
            change.forgotten.extend(same);
        }
        self.state(world, at, &change);
    }

    /// Publishes what was forgotten as a root of its own registration, and states it.
    fn revive(&mut self, world: &World, at: usize) {
        let actor = &self.actors[at];
        let view = world.view(&actor.known);
        let old = view
            .stated
            .forgotten
            .iter()
            .find(|root| self.packs.contains(root))
            .copied();
        let Some(old) = old else { return };
        if world.bug == Bug::RevivesInPlace {
            let mut ledger = next(&view, &self.seen(at)).unwrap_or_else(|| Ledger::clone(&view.stated));
            ledger.forgotten.remove(&old);
            ledger.predecessors.extend(&view.newest);
            self.put_ledger(world, at, ledger);
            return;
        }
        let (mask, new) = (actor.mask, root(50 + at as u8, 0, 0));
        self.packs.insert(new);
        self.put(world, mask, Object::Root(new));
        self.reported.insert(new);
        let actor = &mut self.actors[at];
        actor.found.insert(new);
        self.state(world, at, &self.seen(at));
    }

    fn delete_forgotten(&mut self, world: &World, at: usize) {
        let actor = self.actors[at].clone();
        let Some(stated) = &actor.stated else { return };
        for root in actor.found.iter().filter(|root| stated.forgets(root)) {
            self.delete(world, actor.mask, Object::Root(*root));
        }
        self.actors[at].roots.retain(|root| !stated.forgets(root));
    }

    /// Deletes ledgers that others carry over.
    fn clean(&mut self, world: &World, at: usize, lie: Lie) {
        let mask = self.actors[at].mask;
        let (sound, _) = self.list(world, mask, lie);
        let is_ledger = |object: &&Object| matches!(object, Object::Ledger(_));
        let ledgers = sound.iter().filter(is_ledger).copied().collect();
        if world.bug != Bug::RemovesForTorn {
            self.confirm(world, mask, &ledgers);
        }
        let mut known = self.known_of(&sound);
        if world.bug == Bug::NoSettling || world.bug == Bug::RemovesUncarried {
            known = Known::clone(&self.actors[at].known);
        }
        let listed = sound.iter().filter_map(|object| match object {
            Object::Ledger(name) => Some(*name),
            _ => None,
        });
        let listed: BTreeSet<LedgerName> = listed.collect();
        let going = match world.bug {
            Bug::RemovesUncarried => listed.difference(&self.actors[at].ledgers).copied().collect(),
            _ => removable(&known, &listed),
        };
        for name in going {
            self.delete(world, mask, Object::Ledger(name));
        }
    }

    /// Drops epochs all of whose closings and fences ledgers state, if another was put.
    fn drop_epochs(&mut self, world: &World, at: usize) {
        let actor = self.actors[at].clone();
        let Some(stated) = actor.stated.filter(|_| actor.mask == world.all()) else {
            return;
        };
        let Some(own) = actor.own else { return };
        for name in actor.epochs.iter().filter(|name| **name != own) {
            if is_stated(&stated, &self.epochs[name].closings, &self.epochs[name].fenced)
                || world.bug == Bug::DropsEpochsEarly
            {
                self.delete(world, actor.mask, Object::Epoch(*name));
            }
        }
    }

    /// Refuses to go on.
    fn stop(&mut self, world: &World, at: usize) {
        let program = &world.programs[at];
        let end = program.iter().skip(self.actors[at].at).position(|op| *op == Op::End);
        self.actors[at].at += end.unwrap_or(0).saturating_sub(1);
    }

    pub(super) fn perform(&mut self, world: &World, at: usize, lie: Lie, fences: bool) {
        let op = world.programs[at][self.actors[at].at];
        match op {
            Op::Register | Op::Publish(_) | Op::Look(_) | Op::Fork(_) => self.step_writer(world, at, op, lie),
            _ => self.step_owner(world, at, lie, fences),
        }
        let (program, actor) = (&world.programs[at], &mut self.actors[at]);
        actor.at += 1;
        if op == Op::Settle {
            actor.awaited.clear();
        }
        if program.get(actor.at) == Some(&Op::Settle) {
            actor.awaited = self.fresh.clone();
        }
        if op == Op::End || actor.at >= program.len() {
            let (at, puts) = (actor.at, actor.puts);
            let (roots, ledgers) = (std::mem::take(&mut actor.roots), std::mem::take(&mut actor.ledgers));
            *actor = Actor {
                at,
                puts,
                ..Actor::default()
            };
            if at < program.len() {
                (actor.roots, actor.ledgers) = (roots, ledgers);
            }
        }
    }

    pub(super) fn go(&mut self, world: &World, at: usize, lie: Lie, fences: bool) {
        self.perform(world, at, lie, fences);
        // What neither changes nor reads the places needs no interleaving.
        while let Some(op) = world.programs[at].get(self.actors[at].at) {
            let actor = &self.actors[at];
            let is_idle = match op {
                Op::End => true,
                Op::First => !world.view(&actor.known).is_empty(),
                Op::Settle => actor.awaited.is_empty(),
                _ => false,
            };
            if !is_idle {
                return;
            }
            self.perform(world, at, Lie::Truth, false);
        }
    }
}
