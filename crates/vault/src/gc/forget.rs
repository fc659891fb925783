//! Forgetting snapshots: naming them in an epoch, then removing their roots. Frees nothing; that is gc's.
//!
//! - A root that is named counts as absent for everybody from then on, also where a place that was away brings it back.

use drystone_format::RootId;
use drystone_format::epoch::Epoch;
use drystone_format::ledger::FirstSeen;
use drystone_format::root::RootName;
use drystone_format::snapshot::Snapshot;
use drystone_store::Name;

use crate::context::Source;
use crate::error::Result;
use crate::features::Act;
use crate::gc::protocol::Standing;
use crate::order::{Candidate, position};
use crate::problem::Problems;
use crate::retention::{Group, Keep, plan};
use crate::roots::report_doubles;
use crate::sightings::Sightings;
use crate::vault::Vault;

/// Section of what this machine knows that says when snapshots were first seen.
const SIGHTINGS: &str = "snapshots";

/// Says that a snapshot was seen before and is not there.
fn missed(root: &RootName) -> String {
    let id = root.hash.short();
    format!(
        "this machine has seen this snapshot, nobody has forgotten it, and no place that answered has it: it is lost, hidden, or \
         the place was rolled back; bring it back, or give it up: drystone forget {id}"
    )
}

impl Vault {
    /// Plans which of the snapshots that are meant the rules keep, and why; those that cannot be read stay, and are reported.
    pub fn plan_forget(&self, keep: &Keep, is_meant: &dyn Fn(&Snapshot) -> bool) -> Result<(Vec<Group>, Problems)> {
        let (mut candidates, problems) = self.candidates()?;
        candidates.retain(|candidate| is_meant(&candidate.snapshot));
        Ok((plan(candidates, keep, self.context.clock.now().seconds), problems))
    }

    /// Reads all snapshots with what is known of where and when they came from, oldest first, and reports those that are damaged.
    pub fn candidates(&self) -> Result<(Vec<Candidate>, Problems)> {
        let (mut candidates, mut signed, mut problems) = (Vec::new(), Vec::new(), Problems::default());
        let names = self.snapshot_names()?;
        let sightings = self.note_seen(&names)?;
        for root in sightings.missing(&names) {
            problems.push(Name::root(&root).as_str(), missed(&root));
        }
        let now = self.context.clock.now().seconds;
        for name in names {
            let read = self.signed_root(&name);
            match read.and_then(|root| Ok((self.opened_snapshot(&root)?, root))) {
                Ok((snapshot, root)) => {
                    signed.push(name);
                    candidates.push(Candidate {
                        id: name.hash,
                        snapshot,
                        writer: root.certificate.writer,
                        role: root.certificate.role,
                        seen: sightings.get(&name).unwrap_or(FirstSeen { not_at: None, at: now }),
                        stated: None,
                    });
                }
                Err(error) if error.is_damage() => problems.push(Name::root(&name).as_str(), error),
                Err(error) => return Err(error),
            }
        }
        report_doubles(signed, &mut problems);
        candidates.sort_by_key(position);
        Ok((candidates, problems))
    }

    /// Writes down which snapshots this machine has seen by now, outside of the cache; these are there.
    pub(crate) fn note_seen(&self, there: &[RootName]) -> Result<Sightings> {
        let sightings = self.look_again(there, &self.epochs.standing())?;
        if sightings.missing(there).is_empty() {
            return Ok(sightings);
        }
        // Another owner may have forgotten it since the epochs were read.
        let standing = self.epochs.refresh()?;
        self.look_again(there, &standing)
    }

    fn look_again(&self, there: &[RootName], standing: &Standing) -> Result<Sightings> {
        let mut sightings = Sightings::default();
        self.known().update_section(&self.id(), SIGHTINGS, |before| {
            sightings = Sightings::decode(&before.unwrap_or_default());
            sightings.look(there, &|root| standing.counts(root), self.context.clock.now());
            sightings.encode()
        })?;
        Ok(sightings)
    }

    /// Snapshots that this machine has seen, and that are not among those that are `there` now.
    pub(crate) fn missing_roots(&self, there: &[RootName]) -> Result<Vec<RootName>> {
        let seen = self.known().section(&self.id(), SIGHTINGS)?.unwrap_or_default();
        Ok(Sightings::decode(&seen).missing(there))
    }

    /// Drops snapshots; durable on return. Needs an owner's key. Nothing is freed before the next gc.
    pub fn forget(&self, ids: &[RootId]) -> Result<()> {
        if !self.role().may_govern() {
            return Err(self.secrets.refused("forget snapshots").into());
        }
        self.allow(Act::Forget)?;
        if ids.is_empty() {
            return Ok(());
        }
        self.epochs.refresh()?;
        let mut names: Vec<RootName> = ids
            .iter()
            .map(|id| self.names_of(id))
            .collect::<Result<Vec<_>>>()?
            .concat();
        // One that no place has any more is forgotten by the name that this machine remembers.
        let missing = self.missing_roots(&names)?.into_iter();
        names.extend(missing.filter(|root| ids.contains(&root.hash)));
        let epoch = Epoch {
            forgotten: names.iter().map(RootName::numbered).collect(),
            ..Epoch::default()
        };
        self.epochs.put(&epoch, &mut Source(&*self.context.entropy))?;
        self.place.settle();
        names.iter().try_for_each(|root| self.place.delete(&Name::root(root)))
    }
}
