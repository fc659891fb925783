//! Snapshots: publishing, listing, and finding them by what a person types.
//!
//! - Publishing takes the proof that everything the snapshot needs is durable (I2).

use bytes::Bytes;
use drystone_format::RootId;
use drystone_format::root::{RootKind, seal_root};
use drystone_format::snapshot::Snapshot;
use drystone_store::{Kind, Listed, Name, Prefix};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::problem::Problems;
use crate::vault::Vault;

/// Where snapshots are.
const SNAPSHOTS: Prefix = Prefix::Roots(RootKind::Snapshot);
/// Fewest digits that name a snapshot.
const PREFIX_MIN: usize = 4;

impl Vault {
    /// Makes a snapshot visible; durable on return. `stored` is the run that stored what it reaches; it publishes once.
    ///
    /// After [`Error::GivenUp`] the run has to be repeated: while it was silent, gc may have deleted what it relied on.
    pub fn publish(&self, snapshot: &Snapshot, stored: &Finished) -> Result<RootId> {
        // Sealed before: a snapshot that cannot be sealed does not end the run.
        let id = stored.registration.id();
        let mut random = Source(&*self.context.entropy);
        let object = seal_root(&self.secrets, RootKind::Snapshot, &id, &snapshot.encode(), &mut random)?;
        stored
            .registration
            .publish(|id| self.place.put(&Name::root(RootKind::Snapshot, id), Bytes::from(object)))
    }

    /// The ids of all snapshots, in no order; without those that an owner has forgotten, wherever they come from.
    pub fn snapshot_ids(&self) -> Result<Vec<RootId>> {
        let mut ids = self.root_ids()?;
        // Read after: what is forgotten meanwhile is not listed.
        let standing = self.epochs.refresh()?;
        ids.retain(|id| !standing.is_absent(id));
        Ok(ids)
    }

    /// The ids of all snapshot objects at the place, forgotten or not.
    pub(crate) fn root_ids(&self) -> Result<Vec<RootId>> {
        let mut ids = Vec::new();
        self.place.for_each(&SNAPSHOTS, |listed| collect(&mut ids, &listed))?;
        Ok(ids)
    }

    /// The same; each of them is at enough places from then on for everybody else to list it too.
    pub(crate) fn confirmed_root_ids(&self) -> Result<Vec<RootId>> {
        let mut ids = Vec::new();
        self.place
            .for_each_confirmed(&SNAPSHOTS, |listed| collect(&mut ids, &listed))?;
        Ok(ids)
    }

    /// One snapshot; a writer's credential cannot read it.
    pub fn snapshot(&self, id: &RootId) -> Result<Snapshot> {
        Ok(self.signed_snapshot(id)?.0)
    }

    /// All snapshots by the time they began, and those that are damaged.
    pub fn snapshots(&self) -> Result<(Vec<(RootId, Snapshot)>, Problems)> {
        let (mut snapshots, mut problems) = (Vec::new(), Problems::default());
        let ids = self.snapshot_ids()?;
        // Best effort: each look narrows down when a snapshot came, which `forget` holds against what it claims.
        let _ = self.note_seen(&ids);
        for id in ids {
            match self.snapshot(&id) {
                Ok(snapshot) => snapshots.push((id, snapshot)),
                Err(error) if error.is_damage() => {
                    problems.push(Name::root(RootKind::Snapshot, &id).as_str(), error);
                }
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by(|(a, one), (b, two)| (one.started, a).cmp(&(two.started, b)));
        Ok((snapshots, problems))
    }

    /// The snapshot that `text` means: `latest`, an id, or the first digits of one.
    pub fn resolve(&self, text: &str) -> Result<(RootId, Snapshot)> {
        if text == "latest" {
            return self.snapshots()?.0.pop().ok_or_else(|| Error::NoSnapshot {
                text: text.to_owned(),
                place: self.place().to_owned(),
            });
        }
        let id = self.resolve_id(text)?;
        Ok((id, self.snapshot(&id)?))
    }

    /// Snapshots, readable or not, whose ids begin with `text`, if it is long enough.
    pub(crate) fn ids_beginning(&self, text: &str) -> Result<Vec<RootId>> {
        let matching = |id: &RootId| text.len() >= PREFIX_MIN && id.to_string().starts_with(text);
        Ok(self.snapshot_ids()?.into_iter().filter(matching).collect())
    }
}

fn collect(ids: &mut Vec<RootId>, listed: &Listed) -> Result<()> {
    if let Kind::Root(RootKind::Snapshot, id) = listed.name.kind() {
        ids.push(id);
    }
    Ok(())
}
