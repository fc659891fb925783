//! Forgetting snapshots: naming them in an epoch, then removing their roots. Frees nothing; that is gc's.
//!
//! - A root that is named counts as absent for everybody from then on, also where a place that was away brings it back.

use drystone_format::RootId;
use drystone_format::epoch::Epoch;
use drystone_format::root::RootName;
use drystone_format::snapshot::Snapshot;
use drystone_store::Name;

use crate::context::Source;
use crate::error::Result;
use crate::features::Act;
use crate::order::{Candidate, FirstSeen, position};
use crate::problem::Problems;
use crate::retention::{Group, Keep, Sightings, plan};
use crate::roots::report_doubles;
use crate::vault::Vault;

/// State key of when snapshots were first seen.
const SIGHTINGS: &str = "snapshots_seen";

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
        let ids: Vec<RootId> = names.iter().map(|root| root.hash).collect();
        let sightings = self.note_seen(&ids)?;
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
                        seen: sightings.get(&name.hash).unwrap_or(FirstSeen { not_at: None, at: now }),
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

    /// Writes down which snapshots this machine has seen by now.
    pub(crate) fn note_seen(&self, ids: &[RootId]) -> Result<Sightings> {
        let before = self.state().get(SIGHTINGS)?.unwrap_or_default();
        let mut sightings = Sightings::decode(&before);
        sightings.look(ids, self.context.clock.now());
        self.state().set(SIGHTINGS, &sightings.encode())?;
        Ok(sightings)
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
        let names: Vec<RootName> = ids
            .iter()
            .map(|id| self.names_of(id))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let epoch = Epoch {
            forgotten: names
                .iter()
                .map(|root| (root.registration, root.number, root.hash))
                .collect(),
            ..Epoch::default()
        };
        self.epochs.put(&epoch, &mut Source(&*self.context.entropy))?;
        self.place.settle();
        names.iter().try_for_each(|root| self.place.delete(&Name::root(root)))
    }
}
