//! Snapshots: publishing and listing them.
//!
//! - Publishing takes the proof that everything the snapshot needs is durable (I2).

use std::collections::BTreeSet;

use drystone_format::RootId;
use drystone_format::keys::{Role, VerifyKey};
use drystone_format::root::{RootKind, RootState};
use drystone_format::snapshot::Snapshot;

use crate::error::Result;
use crate::problem::Problems;
use crate::vault::Vault;
use crate::writing::ingest::Finished;

impl Vault {
    /// Makes a snapshot visible; durable on return. `stored` is the run that stored what it reaches, and ends with it.
    ///
    /// After [`Error::GivenUp`](crate::Error::GivenUp) the run has to be repeated: while it was silent, gc may have deleted what it relied on.
    pub fn publish(&self, snapshot: &Snapshot, stored: &Finished) -> Result<RootId> {
        self.publish_root(RootKind::SNAPSHOT, &snapshot.encode(), stored, RootState::Last)
    }

    /// Makes a snapshot visible as [`Vault::publish`] does; the run stays registered, and [`Vault::ingest_on`] goes on with it.
    pub fn publish_open(&self, snapshot: &Snapshot, stored: &Finished) -> Result<RootId> {
        self.publish_root(RootKind::SNAPSHOT, &snapshot.encode(), stored, RootState::Open)
    }

    /// The ids of all snapshots, in no order; without those that an owner has forgotten, wherever they come from.
    pub fn snapshot_ids(&self) -> Result<Vec<RootId>> {
        let names = self.root_listing(RootKind::SNAPSHOT)?.there;
        let ids: BTreeSet<RootId> = names.into_iter().map(|root| root.hash).collect();
        Ok(ids.into_iter().collect())
    }

    /// One snapshot; a writer's credential cannot read it.
    pub fn snapshot(&self, id: &RootId) -> Result<Snapshot> {
        Ok(self.signed_snapshot(id)?.0)
    }

    /// One snapshot with the key that signed it, and what that key may do.
    pub fn snapshot_of(&self, id: &RootId) -> Result<(Snapshot, VerifyKey, Role)> {
        let (snapshot, certificate) = self.signed_snapshot(id)?;
        Ok((snapshot, certificate.writer, certificate.role))
    }

    /// Reads all snapshots, in the order in which they came, and reports those that are damaged.
    pub fn snapshots(&self) -> Result<(Vec<(RootId, Snapshot)>, Problems)> {
        let (candidates, problems) = self.candidates()?;
        let snapshots = candidates.into_iter().map(|one| (one.id, one.snapshot));
        Ok((snapshots.collect(), problems))
    }
}
