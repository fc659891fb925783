//! Forgetting snapshots: naming them in an epoch, then removing their roots. Frees nothing; that is gc's.
//!
//! - A root that is named counts as absent for everybody from then on, also where a place that was away brings it back.

use drystone_format::epoch::Epoch;
use drystone_format::keys::Role;
use drystone_format::root::{RootKind, open_root};
use drystone_format::snapshot::Snapshot;
use drystone_format::{RootId, keys::Certificate};
use drystone_store::{Name, Range};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::features::Act;
use crate::problem::Problems;
use crate::retention::{Candidate, FirstSeen, Group, Keep, Sightings, plan};
use crate::vault::Vault;

/// State key of when snapshots were first seen.
const SIGHTINGS: &str = "snapshots_seen";

impl Vault {
    /// Which of the snapshots that are meant the rules keep, and why; and those that cannot be read, which stay.
    pub fn plan_forget(&self, keep: &Keep, is_meant: &dyn Fn(&Snapshot) -> bool) -> Result<(Vec<Group>, Problems)> {
        let (mut candidates, mut problems) = (Vec::new(), Problems::default());
        let ids = self.snapshot_ids()?;
        let sightings = self.note_seen(&ids)?;
        let now = self.context.clock.now().seconds;
        for id in ids {
            match self.signed_snapshot(&id) {
                Ok((snapshot, _)) if !is_meant(&snapshot) => {}
                Ok((snapshot, certificate)) => candidates.push(Candidate {
                    id,
                    snapshot,
                    writer: certificate.writer,
                    role: certificate.role,
                    seen: sightings.get(&id).unwrap_or(FirstSeen { not_at: None, at: now }),
                }),
                Err(error) if error.is_damage() => {
                    problems.push(Name::root(RootKind::Snapshot, &id).as_str(), error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((plan(candidates, keep, now), problems))
    }

    /// A snapshot and who signed it.
    pub(crate) fn signed_snapshot(&self, id: &RootId) -> Result<(Snapshot, Certificate)> {
        let name = Name::root(RootKind::Snapshot, id);
        let object = self.place.get(&name, Range::All)?;
        let damaged = |source| self.place.damaged(&name)(source);
        let root = open_root(&self.secrets, RootKind::Snapshot, id, &object).map_err(damaged)?;
        let snapshot = Snapshot::decode(&root.payload).map_err(damaged)?;
        Ok((snapshot, root.certificate))
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
        if self.role() != Role::Owner {
            return Err(drystone_format::Error::WriterKey {
                what: "forget snapshots",
            }
            .into());
        }
        self.allow(Act::Forget)?;
        if ids.is_empty() {
            return Ok(());
        }
        self.epochs.refresh()?;
        let epoch = Epoch {
            roots: ids.iter().copied().collect(),
            ..Epoch::default()
        };
        self.epochs.put(&epoch, &mut Source(&*self.context.entropy))?;
        self.place.settle();
        ids.iter()
            .try_for_each(|id| self.place.delete(&Name::root(RootKind::Snapshot, id)))
    }

    /// The snapshot whose id begins with `text`, readable or not.
    pub fn resolve_id(&self, text: &str) -> Result<RootId> {
        let ids = self.ids_beginning(text)?;
        match ids.as_slice() {
            [] => Err(Error::NoSnapshot {
                text: text.to_owned(),
                place: self.place().to_owned(),
            }),
            [id] => Ok(*id),
            several => Err(Error::AmbiguousSnapshot {
                text: text.to_owned(),
                count: several.len(),
            }),
        }
    }
}
