//! The promises as assertions: what must hold after every honest step, and at the end of every trace.
//!
//! - Each has a short name; [`SENTENCES`] says which sentence of docs/threat-model.md, README.md or the invariants it is.
//! - `told` is what a person gets to see: errors, warnings, notes, problems, what is owed. Some promises allow loss that is told.
//! - What a machine has seen outlives its cache directory here: losing that may cost time only (I4).

use std::collections::BTreeSet;

use bytes::Bytes;
use drystone_format::{PackId, RootId};
use drystone_store::{Kind, Name};
use drystone_vault::{CheckOptions, Resolved, ScrubOptions, Vault};

use crate::attack::trace::{Client, Key, What};
use crate::attack::world::{HOSTS, Objects, World, is, opens, url};
use crate::support::files;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// A name of [`SENTENCES`].
    pub(crate) sentence: &'static str,
    pub(crate) what: String,
}

/// What is promised, by name.
pub(crate) const SENTENCES: [(&str, &str); 17] = [
    (
        "secrecy",
        "content, names and sizes of files cannot be read; a removed key does not open what is written afterwards",
    ),
    (
        "old-epoch",
        "nobody who lacks the key moves a client to an older key epoch without the client saying so",
    ),
    ("moved-vault", "a vault cannot be swapped for another"),
    ("foreign-place", "nobody but an owner can send clients to other places"),
    (
        "older-list",
        "a machine remembers the newest list of places that it saw",
    ),
    ("wrong-bytes", "altered bytes are never returned"),
    (
        "lost",
        "any n - k places may do what they like and nothing is lost; a writer can neither remove nor spoil anything",
    ),
    (
        "hidden",
        "a writer can neither remove nor hide anybody's snapshots; one of several places cannot hide the newest",
    ),
    (
        "revived",
        "what was forgotten is not brought back by a place that is rolled back",
    ),
    (
        "revoked",
        "what a removed writer, member or reader key signs no longer counts",
    ),
    ("latest", "`latest` is not what a writer says it is"),
    (
        "keep-rules",
        "a writer's dummy snapshots push no good ones out of the keep rules",
    ),
    (
        "silent-loss",
        "one place that deletes or rolls back objects takes data with it; `check` and `scrub` notice",
    ),
    ("silent-damage", "what is wrong is caught and the place is named"),
    ("endless", "a hostile vault cannot make an operation run without end"),
    ("panic", "a hostile vault cannot crash the reader"),
    ("hangs", "a hostile vault cannot make the reader hang"),
];

/// A broken promise, with what shows it.
pub(crate) fn broken<T>(sentence: &'static str, what: impl ToString) -> Result<T, Violation> {
    debug_assert!(SENTENCES.iter().any(|(name, _)| *name == sentence));
    Err(Violation {
        sentence,
        what: what.to_string(),
    })
}

/// What opening a vault and working on it told so far.
fn heard(vault: &Vault) -> Vec<String> {
    let mut told: Vec<String> = vault.warnings().iter().chain(vault.notes()).cloned().collect();
    let troubles = vault.troubles();
    if !troubles.is_none() {
        told.push(format!("{troubles:?}"));
    }
    told
}

impl World {
    /// Whether the attacker's places are so few that nothing may be lost.
    pub(crate) fn is_tolerated(&self) -> bool {
        let (needed, total) = self.setting.spread;
        self.setting.bad.len() <= usize::from(total - needed)
    }

    /// What honest clients have sealed in this step is not to be opened by the attacker, nor by a key that was removed.
    pub(crate) fn secrecy(&self, before: &[Objects]) -> Result<(), Violation> {
        let places = self.spots.iter().chain([&self.evil]);
        for (name, object) in places.flat_map(|spot| spot.written.lock().clone()) {
            let holds = |place: &Objects| place.get(&name) == Some(&object);
            // Copied from another place, or back to one: nobody has sealed it now. So is what the attacker has put during this very step.
            let is_sprung = self.spots.iter().any(|spot| holds(&spot.sprung.lock()));
            let is_copy = is_sprung || before.iter().any(holds) || self.history.iter().flatten().any(holds);
            if is_copy || !(is(What::Roots, &name) || is(What::Packs, &name)) {
                continue;
            }
            if self.forged.iter().any(|secrets| opens(secrets, &name, &object)) {
                return broken("secrecy", format!("the attacker's keys open {name}"));
            }
            let has_old = |at| at == 0 && self.setting.key == Key::RemovedMember;
            if let Some(at) = self.retired.iter().position(|secrets| opens(secrets, &name, &object)) {
                let sentence = if has_old(at) { "secrecy" } else { "old-epoch" };
                return broken(sentence, format!("the removed key {at} opens {name}"));
            }
        }
        Ok(())
    }

    /// The vault that a client has opened is the one it knows, at the places that it knows, and no older.
    pub(crate) fn moved(&mut self, client: Client, vault: &Vault) -> Result<(), Violation> {
        if vault.id() != self.vault || vault.header().vault_verify != self.vault_verify {
            return broken("moved-vault", format!("{client:?} opened vault {}", vault.id()));
        }
        let count = self.spots.len();
        let generation = vault.config().number;
        let urls: Vec<String> = vault.places().iter().map(|place| place.url.clone()).collect();
        if let Some(foreign) = urls.iter().find(|found| (0..count).all(|at| url(at) != **found)) {
            return broken("foreign-place", format!("{client:?} was sent to {foreign}"));
        }
        let known = self.machine(client).generation;
        if generation < known && heard(vault).is_empty() {
            return broken(
                "older-list",
                format!("{client:?} knew generation {known} and found {generation}"),
            );
        }
        self.machine(client).generation = known.max(generation);
        Ok(())
    }

    /// A listing shows what was acknowledged and nothing that was forgotten, and `latest` is honest.
    pub(crate) fn look(&mut self, client: Client, vault: &Vault) -> Result<(BTreeSet<RootId>, Vec<String>), Violation> {
        let Ok((listed, problems)) = vault.snapshots() else {
            return Ok((BTreeSet::new(), vec!["an error".to_owned()]));
        };
        let mut told = heard(vault);
        told.extend(problems.iter().map(ToString::to_string));
        let ids: BTreeSet<RootId> = listed.iter().map(|(id, _)| *id).collect();
        if self.is_tolerated() {
            for acked in &self.acked {
                if !acked.is_forgotten && !ids.contains(&acked.id) {
                    return broken(
                        "hidden",
                        format!("{client:?} does not list {} of {:?}", acked.id, acked.client),
                    );
                }
                if acked.is_forgotten && ids.contains(&acked.id) {
                    return broken("revived", format!("{client:?} lists {}", acked.id));
                }
            }
        }
        if let Some(id) = ids.iter().find(|id| !self.is_honest(id)) {
            let is_revoked = matches!(self.setting.key, Key::RemovedWriter | Key::RemovedMember);
            if is_revoked && self.is_tolerated() {
                return broken("revoked", format!("{client:?} lists {id}"));
            }
        }
        // What it notes excuses nothing: a dummy that is chosen is restored.
        if let Some(Resolved { id, snapshot, .. }) = vault.resolve("latest").ok().filter(|_| told.is_empty()) {
            let is_honest = self.acked.iter().any(|acked| acked.id == id);
            let claims = HOSTS.contains(&snapshot.host.as_str());
            let own_host = self.setting.key == Key::Stolen && snapshot.host == HOSTS[Client::Web as usize];
            if !is_honest && ((claims && !own_host) || snapshot.started.seconds > self.now()) {
                return broken(
                    "latest",
                    format!("{id} of host {} at {:?}", snapshot.host, snapshot.started),
                );
            }
        }
        let acked: Vec<RootId> = self
            .acked
            .iter()
            .map(|acked| acked.id)
            .filter(|id| ids.contains(id))
            .collect();
        self.machine(client).seen.extend(acked);
        Ok((ids, told))
    }

    /// Whether an honest machine has published this root, acknowledged or not.
    fn is_honest(&self, id: &RootId) -> bool {
        let is_it = |name: &Name| matches!(name.kind(), Kind::Root(root) if root.hash == *id);
        self.acked.iter().any(|acked| acked.id == *id)
            || self.spots.iter().any(|spot| spot.truth.lock().keys().any(is_it))
    }

    /// Everything that was acknowledged can be restored; returns what cannot, where that much is not promised.
    pub(crate) fn restore(&self, client: Client, vault: &Vault) -> Result<BTreeSet<RootId>, Violation> {
        let mut missing = BTreeSet::new();
        for acked in self
            .acked
            .iter()
            .filter(|acked| !acked.is_forgotten && client != Client::Web)
        {
            match files(vault, &acked.id) {
                Ok(found) if found == acked.files => {}
                Ok(found) => {
                    let names: Vec<_> = found.iter().map(|(name, _)| name).collect();
                    return broken(
                        "wrong-bytes",
                        format!("{} of {:?} holds {names:?}", acked.id, acked.client),
                    );
                }
                // Of one place alone that hides which others there are, as it said when it was opened.
                Err(_) if vault.places().is_empty() && self.spots.len() > 1 && !vault.warnings().is_empty() => {}
                Err(error) if self.is_tolerated() => {
                    return broken("lost", format!("{} of {:?}: {error}", acked.id, acked.client));
                }
                Err(_) => drop(missing.insert(acked.id)),
            }
        }
        Ok(missing)
    }

    /// The names of what honest clients have put and that is not so any more.
    fn tampered(&self) -> Vec<Name> {
        let pack = |name: &Name| match name.kind() {
            Kind::Shard(shard) => Some(shard.pack),
            Kind::Pack(id) => Some(id),
            _ => None,
        };
        let all = self.spots.iter().flat_map(|spot| spot.objects.contents().into_keys());
        let there: BTreeSet<PackId> = all.filter_map(|name| pack(&name)).collect();
        let altered = self.spots.iter().flat_map(|spot| {
            let now = spot.objects.contents();
            let truth = spot.truth.lock().clone();
            let differs = |(name, bytes): &(Name, Bytes)| now.get(name) != Some(bytes) && !is(What::Presences, name);
            // A pack of which no place has anything is one that gc has deleted: there was nothing left to delete at this place.
            let counts = |name: &Name| pack(name).is_none_or(|pack| there.contains(&pack));
            truth
                .into_iter()
                .filter(differs)
                .map(|(name, _)| name)
                .filter(counts)
                .collect::<Vec<_>>()
        });
        altered.collect()
    }

    /// What must hold at the end: on the owner's machine, and on a fresh one.
    pub(crate) fn finale(&mut self) -> Result<(), Violation> {
        let before = self.state();
        self.spots.iter().for_each(|spot| spot.written.lock().clear());
        for client in [Client::Home, Client::Desk, Client::Web] {
            self.finish_run(client)?;
        }
        self.secrecy(&before)?;
        let first = self.setting.bad.first().copied().unwrap_or_default() as u8;
        let tampered = self.tampered();
        match self.open(Client::Home, 8 + first) {
            Ok(vault) => {
                self.moved(Client::Home, &vault)?;
                self.at_home(&vault, &tampered)?;
            }
            Err(error) if self.is_tolerated() => return broken("lost", error),
            Err(_) => {}
        }
        match self.open_fresh(Client::Desk, 8 + first) {
            Ok((_key, vault)) => {
                // It has seen nothing yet, so that only the vault, not how new it is, is promised.
                self.machine(Client::Desk).generation = 0;
                self.moved(Client::Desk, &vault)?;
                self.look(Client::Desk, &vault)?;
                self.restore(Client::Desk, &vault).map(drop)
            }
            Err(error) if self.is_tolerated() => broken("lost", error),
            Err(_) => Ok(()),
        }
    }

    fn at_home(&mut self, vault: &Vault, tampered: &[Name]) -> Result<(), Violation> {
        let known = self.machine(Client::Home).seen.clone();
        let (listed, mut told) = self.look(Client::Home, vault)?;
        told.extend(check_and_scrub(vault));
        told.extend(heard(vault));
        let mut missing = self.restore(Client::Home, vault)?;
        let unlisted = self
            .acked
            .iter()
            .filter(|acked| !acked.is_forgotten && !listed.contains(&acked.id));
        missing.extend(unlisted.map(|acked| acked.id));
        missing.retain(|id| known.contains(id));
        if told.is_empty() && !missing.is_empty() {
            // It may have been taken since.
            told.extend(check_and_scrub(vault));
        }
        if told.is_empty() && !missing.is_empty() {
            return broken("silent-loss", format!("{} snapshots, {tampered:?}", missing.len()));
        }
        // What an ambush brings back while it is looked for was there.
        let still = self.tampered();
        let tampered: Vec<&Name> = tampered.iter().filter(|name| still.contains(name)).collect();
        if told.is_empty() && !tampered.is_empty() && self.spots.len() > 1 {
            return broken("silent-damage", format!("{tampered:?}"));
        }
        Ok(())
    }
}

/// What `check` and `scrub` say is not as it should be.
fn check_and_scrub(vault: &Vault) -> Vec<String> {
    let mut told = Vec::new();
    match vault.check(&CheckOptions::default()) {
        Ok(report) => {
            let all = [&report.problems, &report.out_of_reach, &report.harmless];
            told.extend(all.iter().flat_map(|problems| problems.iter()).map(ToString::to_string));
            let plan = report.redundancy;
            if plan.owed_packs + plan.lost_packs + plan.unreached_packs > 0 {
                told.push(format!("{plan:?}"));
            }
        }
        Err(error) => told.push(error.to_string()),
    }
    let options = ScrubOptions {
        share: 1.0,
        repair: false,
        progress: Default::default(),
        cancel: Default::default(),
    };
    match vault.scrub(&options) {
        Ok(report) => {
            told.extend(report.problems.iter().map(ToString::to_string));
            if report.rotten > 0 {
                told.push(format!("{} rotten", report.rotten));
            }
        }
        Err(error) => told.push(error.to_string()),
    }
    told
}
