//! Which snapshots the target has, wherever they come from.
//!
//! - An owner's credential reads it off the snapshots. A writer's, which cannot, goes by what it published from this
//!   machine and is still there; where that is forgotten, a snapshot is copied twice.

use std::collections::{HashMap, HashSet};

use drystone_format::keys::Role;
use drystone_format::snapshot::Snapshot;
use drystone_format::{RootId, VaultId};
use drystone_vault::Vault;

use crate::error::Result;

/// A snapshot wherever it is: the vault that it was made into, and its id there.
pub(crate) type Identity = (VaultId, RootId);

/// The identity of a snapshot in `vault`, and how many of its entries were lost on the way there.
pub(crate) fn identity(vault: &Vault, id: RootId, snapshot: &Snapshot) -> (Identity, u64) {
    match snapshot.origin {
        Some(origin) => ((origin.vault, origin.snapshot), origin.lost),
        None => ((vault.id(), id), 0),
    }
}

/// The best that the target has of each snapshot.
#[derive(Default)]
pub(crate) struct There {
    best: HashMap<Identity, (u64, RootId)>,
}

impl There {
    /// What `to` has; a credential that reads nothing knows only of those that are `wanted`.
    pub(crate) fn read(to: &Vault, wanted: impl Iterator<Item = Identity>) -> Result<Self> {
        let mut there = Self::default();
        if to.role().may_read() {
            // Anybody could say that he has copied something: only an owner's word counts, and one's own.
            let candidates = to.candidates()?.0.into_iter();
            for copy in candidates.filter(|one| one.role == Role::Owner || to.is_own(&one.writer)) {
                let (identity, lost) = identity(to, copy.id, &copy.snapshot);
                there.add(identity, lost, copy.id);
            }
            return Ok(there);
        }
        let ids: HashSet<RootId> = to.snapshot_ids()?.into_iter().collect();
        for identity in wanted {
            let remembered = to.state().get(&key(&identity))?;
            if let Some((lost, id)) = remembered.as_deref().and_then(decode)
                && ids.contains(&id)
            {
                there.add(identity, lost, id);
            }
        }
        Ok(there)
    }

    fn add(&mut self, identity: Identity, lost: u64, id: RootId) {
        let best = self.best.entry(identity).or_insert((lost, id));
        if lost < best.0 {
            *best = (lost, id);
        }
    }

    /// Its id in the target.
    pub(crate) fn id(&self, identity: &Identity) -> Option<RootId> {
        self.best.get(identity).map(|(_, id)| *id)
    }

    /// How many of its entries it has lost there.
    pub(crate) fn lost(&self, identity: &Identity) -> Option<u64> {
        self.best.get(identity).map(|(lost, _)| *lost)
    }

    /// A copy was published.
    pub(crate) fn published(&mut self, to: &Vault, identity: Identity, lost: u64, id: RootId) {
        if !to.role().may_read() {
            // Best effort: what is not remembered is copied again.
            let _ = to
                .state()
                .set(&key(&identity), &[lost.to_le_bytes().as_slice(), &id.0].concat());
        }
        self.add(identity, lost, id);
    }
}

fn key((vault, snapshot): &Identity) -> String {
    format!("copied/{vault}/{snapshot}")
}

fn decode(bytes: &[u8]) -> Option<(u64, RootId)> {
    let (lost, id) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*lost), RootId(id.try_into().ok()?)))
}
