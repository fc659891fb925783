//! Snapshots: publishing, listing, and finding them by what a person types.
//!
//! - Publishing takes the proof that everything the snapshot needs is durable (I2).

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_format::RootId;
use drystone_format::root::{RootKind, RootName, RootState};
use drystone_format::snapshot::Snapshot;
use drystone_store::{Name, Prefix};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::problem::Problems;
use crate::roots::report_doubles;
use crate::vault::Vault;

/// Where snapshots are.
const SNAPSHOTS: Prefix = Prefix::Roots(RootKind::SNAPSHOT);
/// Fewest digits that name a snapshot.
const PREFIX_MIN: usize = 4;

impl Vault {
    /// Makes a snapshot visible; durable on return. `stored` is the run that stored what it reaches, and ends with it.
    ///
    /// After [`Error::GivenUp`] the run has to be repeated: while it was silent, gc may have deleted what it relied on.
    pub fn publish(&self, snapshot: &Snapshot, stored: &Finished) -> Result<RootId> {
        self.publish_root(snapshot, stored, RootState::Last)
    }

    /// Makes a snapshot visible as [`Vault::publish`] does; the run stays registered, and [`Vault::ingest_on`] goes on with it.
    pub fn publish_open(&self, snapshot: &Snapshot, stored: &Finished) -> Result<RootId> {
        let id = self.publish_root(snapshot, stored, RootState::Open)?;
        // What it relies on from now on must not be condemned by an epoch that the root states.
        self.catalog()?.follow(&Arc::default())?;
        Ok(id)
    }

    fn publish_root(&self, snapshot: &Snapshot, stored: &Finished, state: RootState) -> Result<RootId> {
        let mut random = Source(&*self.context.entropy);
        stored
            .registration
            .publish((RootKind::SNAPSHOT, &snapshot.encode(), state), &mut random)
    }

    /// The ids of all snapshots, in no order; without those that an owner has forgotten, wherever they come from.
    pub fn snapshot_ids(&self) -> Result<Vec<RootId>> {
        let names = self.snapshot_names()?;
        let ids: BTreeSet<RootId> = names.into_iter().map(|root| root.hash).collect();
        Ok(ids.into_iter().collect())
    }

    fn snapshot_names(&self) -> Result<Vec<RootName>> {
        let mut names = self.root_names(&SNAPSHOTS)?;
        // Read after: what is forgotten meanwhile is not listed.
        let standing = self.epochs.refresh()?;
        names.retain(|root| standing.counts(root));
        Ok(names)
    }

    /// One snapshot; a writer's credential cannot read it.
    pub fn snapshot(&self, id: &RootId) -> Result<Snapshot> {
        Ok(self.signed_snapshot(id)?.0)
    }

    /// All snapshots by the time they began, and those that are damaged.
    pub fn snapshots(&self) -> Result<(Vec<(RootId, Snapshot)>, Problems)> {
        let (mut snapshots, mut signed, mut problems) = (Vec::new(), Vec::new(), Problems::default());
        let names = self.snapshot_names()?;
        let ids: Vec<RootId> = names.iter().map(|root| root.hash).collect();
        // Best effort: each look narrows down when a snapshot came, which `forget` holds against what it claims.
        let _ = self.note_seen(&ids);
        for name in names {
            let read = self.signed_root(&name);
            match read.and_then(|root| Ok((self.opened_snapshot(&root)?, root))) {
                Ok((snapshot, root)) => {
                    snapshots.push((name.hash, snapshot));
                    signed.push(root.name);
                }
                Err(error) if error.is_damage() => problems.push(Name::root(&name).as_str(), error),
                Err(error) => return Err(error),
            }
        }
        report_doubles(signed, &mut problems);
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
