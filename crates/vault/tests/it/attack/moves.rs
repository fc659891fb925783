//! The attacker's moves, on raw objects at the places where he may make them.
//!
//! - At a place of his he may do anything. At others, if he may write there at all, he adds objects and changes none.

use bytes::Bytes;
use drystone_store::Name;

use crate::attack::forge::pick_of;
use crate::attack::spot::Changes;
use crate::attack::trace::{Act, What};
use crate::attack::world::{Objects, World, is};

/// Where a move happens.
#[derive(Debug, Clone, Copy)]
enum Spots {
    /// At a place of his.
    Own(usize),
    /// At a place where he may add.
    Added(usize),
    /// At all places, his or not.
    All,
}

impl World {
    /// The attacker's move; one that is impossible now changes nothing.
    pub(crate) fn attack(&mut self, at: u8, act: Act) {
        let mut spots: Vec<Spots> = self.setting.bad.iter().map(|at| Spots::Own(*at)).collect();
        if self.setting.adds {
            spots.extend([Spots::All, Spots::All]);
            spots.extend((0..self.setting.places).map(Spots::Added));
        }
        match (pick_of(&spots, at), act) {
            (None, _) => {}
            (Some(spots), Act::Put(content, under)) => {
                for (name, object) in self.forge(content, under) {
                    self.put(spots, &name, &object.into());
                }
            }
            (Some(Spots::Own(at)), act) => self.alter(at, act),
            (Some(Spots::Added(_) | Spots::All), act) => {
                if let Some(own) = self.setting.bad.first() {
                    self.alter(*own, act);
                }
            }
        }
        let state = self.state();
        self.note_births(&state);
    }

    /// The same, made ready now to happen at a later call.
    pub(crate) fn ambush(&mut self, call: u8, at: u8, act: Act) {
        let before = self.state();
        self.attack(at, act);
        for (spot, before) in self.spots.iter().zip(&before) {
            let after = spot.objects.contents();
            let gone = before.keys().filter(|name| !after.contains_key(*name));
            let mut changes: Changes = gone.map(|name| (name.clone(), None)).collect();
            let altered = after.iter().filter(|(name, bytes)| before.get(*name) != Some(*bytes));
            changes.extend(altered.map(|(name, bytes)| (name.clone(), Some(bytes.clone()))));
            if !changes.is_empty() {
                spot.replace(before);
                spot.lie_in_wait(u64::from(call), changes);
            }
        }
    }

    fn put(&self, spots: Spots, name: &Name, object: &Bytes) {
        for (at, spot) in self.spots.iter().enumerate() {
            let is_own = self.setting.bad.contains(&at);
            let is_meant = match spots {
                Spots::Own(own) => own == at,
                Spots::Added(added) => added == at,
                Spots::All => true,
            };
            if is_meant && (is_own || !spot.objects.contents().contains_key(name)) {
                spot.objects.overwrite(name, object.clone());
            }
        }
    }

    /// The object of this kind at a place that a number means, the oldest first.
    fn choose(&self, objects: &Objects, what: What, pick: u8) -> Option<Name> {
        let mut names: Vec<&Name> = objects.keys().filter(|name| is(what, name)).collect();
        names.sort_by_key(|name| (self.born.get(*name).copied(), objects[*name].len(), (*name).clone()));
        pick_of(&names, pick).cloned()
    }

    fn alter(&mut self, at: usize, act: Act) {
        let here = self.spots[at].objects.contents();
        let spot = self.spots[at].clone();
        let two = |what, one, other| Some((self.choose(&here, what, one)?, self.choose(&here, what, other)?));
        match act {
            Act::Delete(what, pick) => {
                if let Some(name) = self.choose(&here, what, pick) {
                    spot.objects.remove(&name);
                }
            }
            Act::DeleteAll(what) => {
                for name in here.keys().filter(|name| is(what, name)) {
                    spot.objects.remove(name);
                }
            }
            Act::RollBack(what, to) => {
                let then = self.history[usize::from(to) % self.history.len()][at].clone();
                let mut mixed: Objects = here.into_iter().filter(|(name, _)| !is(what, name)).collect();
                mixed.extend(then.into_iter().filter(|(name, _)| is(what, name)));
                spot.replace(&mixed);
            }
            Act::Replay(what, pick) => {
                let once: Objects = self.history.iter().flatten().flatten().map(owned).collect();
                let gone: Objects = once
                    .into_iter()
                    .filter(|(name, bytes)| is(what, name) && here.get(name) != Some(bytes))
                    .collect();
                if let Some(name) = self.choose(&gone, what, pick) {
                    spot.objects.overwrite(&name, gone[&name].clone());
                }
            }
            Act::Swap(what, one, other) => {
                if let Some((one, other)) = two(what, one, other) {
                    spot.objects.overwrite(&one, here[&other].clone());
                    spot.objects.overwrite(&other, here[&one].clone());
                }
            }
            Act::Copy(what, from, to) => {
                if let Some((from, to)) = two(what, from, to) {
                    spot.objects.overwrite(&to, here[&from].clone());
                }
            }
            Act::Flip(what, pick) => {
                if let Some(name) = self.choose(&here, what, pick) {
                    let mut bytes = here[&name].to_vec();
                    let middle = bytes.len() / 2;
                    if let Some(byte) = bytes.get_mut(middle) {
                        *byte ^= 1;
                    }
                    spot.objects.overwrite(&name, bytes.into());
                }
            }
            Act::Truncate(what, pick) => {
                if let Some(name) = self.choose(&here, what, pick) {
                    let bytes = &here[&name];
                    spot.objects.overwrite(&name, bytes.slice(..bytes.len() / 2));
                }
            }
            Act::Hide(what, pick) => spot.hidden.lock().extend(self.choose(&here, what, pick)),
            Act::OtherVault { same_id } => {
                let (objects, secrets) = self.foreign_vault(same_id);
                spot.replace(&objects);
                self.forged.push(secrets);
            }
            Act::Put(..) => {}
        }
    }
}

fn owned((name, bytes): (&Name, &Bytes)) -> (Name, Bytes) {
    (name.clone(), bytes.clone())
}
