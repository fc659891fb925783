//! Snapshots: publishing and listing them.
//!
//! - Publishing takes the proof that everything the snapshot needs is durable (I2).

use bytes::Bytes;
use drystone_format::RootId;
use drystone_format::root::{RootKind, seal_root};
use drystone_format::snapshot::Snapshot;
use drystone_store::{Kind, Listed, Name, Prefix};

use crate::context::Source;
use crate::error::Result;
use crate::ingest::Finished;
use crate::problem::Problems;
use crate::vault::Vault;

/// Where snapshots are.
const SNAPSHOTS: Prefix = Prefix::Roots(RootKind::Snapshot);

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

    /// Reads all snapshots, in the order in which they came, and reports those that are damaged.
    pub fn snapshots(&self) -> Result<(Vec<(RootId, Snapshot)>, Problems)> {
        let (candidates, problems) = self.candidates()?;
        let snapshots = candidates.into_iter().map(|one| (one.id, one.snapshot));
        Ok((snapshots.collect(), problems))
    }
}

fn collect(ids: &mut Vec<RootId>, listed: &Listed) -> Result<()> {
    if let Kind::Root(RootKind::Snapshot, id) = listed.name.kind() {
        ids.push(id);
    }
    Ok(())
}
