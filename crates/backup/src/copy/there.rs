//! Which snapshots the target has, wherever they come from.
//!
//! - An owner's credential reads it off the snapshots, also of those that other runs publish meanwhile. A writer's, which
//!   cannot, goes by what it published from this machine and is still there; where that is forgotten, a snapshot is copied
//!   twice.
//! - Of several copies of one snapshot the best is the one that lost least, then the one with the lowest id: so runs that
//!   publish the same at once agree which one stays. Each forgets its own copy if it is not the best, and those that are as good if it is.

use std::collections::{HashMap, HashSet};

use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_vault::order::{self, Identity};

use super::destination::Destination;
use crate::error::Result;

/// What the target has of each snapshot.
#[derive(Default)]
pub(crate) struct There {
    /// What is known of the target's snapshots: nothing of those that count as no copy.
    known: HashMap<RootId, Option<(Identity, u64)>>,
    best: HashMap<Identity, (u64, RootId)>,
}

impl There {
    /// What `to` has; a credential that reads nothing knows only of those that are `wanted`.
    pub(crate) fn read(to: &Destination<'_>, wanted: impl Iterator<Item = Identity>) -> Result<Self> {
        let mut there = Self::default();
        if to.vault.role().may_read() {
            // Anybody could say that he has copied something: only an owner's word counts, and one's own.
            for copy in to.vault.candidates()?.0 {
                let counts = copy.role == Role::Owner || to.vault.is_own(&copy.writer);
                there.know(copy.id, counts.then_some((copy.identity, copy.snapshot.lost())));
            }
            return Ok(there);
        }
        let ids: HashSet<RootId> = to.vault.snapshot_ids()?.into_iter().collect();
        for identity in wanted {
            there.remember(to, identity, &ids)?;
        }
        Ok(there)
    }

    /// Looks again what there is of one snapshot: another run may copy the same.
    pub(crate) fn refresh(&mut self, to: &Destination<'_>, identity: Identity) -> Result<()> {
        let ids: HashSet<RootId> = to.vault.snapshot_ids()?.into_iter().collect();
        if !to.vault.role().may_read() {
            return self.remember(to, identity, &ids);
        }
        for id in &ids {
            if self.known.contains_key(id) {
                continue;
            }
            let copy = match to.vault.snapshot_of(id) {
                Ok((snapshot, writer, role)) if role == Role::Owner || to.vault.is_own(&writer) => {
                    Some((order::identity(to.vault.id(), *id, &snapshot), snapshot.lost()))
                }
                Err(error) if !error.is_damage() => return Err(error.into()),
                Ok(_) | Err(_) => None,
            };
            self.know(*id, copy);
        }
        if self.known.len() > ids.len() {
            self.known.retain(|id, _| ids.contains(id));
            self.best.clear();
            let known: Vec<_> = self.known.iter().map(|(id, copy)| (*id, *copy)).collect();
            known.into_iter().for_each(|(id, copy)| self.know(id, copy));
        }
        Ok(())
    }

    fn know(&mut self, id: RootId, copy: Option<(Identity, u64)>) {
        self.known.insert(id, copy);
        if let Some((identity, lost)) = copy {
            let best = self.best.entry(identity).or_insert((lost, id));
            *best = (lost, id).min(*best);
        }
    }

    fn remember(&mut self, to: &Destination<'_>, identity: Identity, ids: &HashSet<RootId>) -> Result<()> {
        let remembered = to.state.get(&key(&identity))?;
        if let Some((lost, id)) = remembered.as_deref().and_then(decode)
            && ids.contains(&id)
        {
            self.know(id, Some((identity, lost)));
        }
        Ok(())
    }

    /// Its id in the target.
    pub(crate) fn id(&self, identity: &Identity) -> Option<RootId> {
        self.best.get(identity).map(|(_, id)| *id)
    }

    /// Returns true if the target has this snapshot with no more lost than this.
    pub(crate) fn has(&self, identity: &Identity, lost: u64) -> bool {
        self.best.get(identity).is_some_and(|(before, _)| *before <= lost)
    }

    /// The other copies of this snapshot that lost as much.
    pub(crate) fn as_good(&self, identity: &Identity, lost: u64, own: RootId) -> Vec<RootId> {
        let is_meant =
            |(id, copy): &(&RootId, &Option<(Identity, u64)>)| **id != own && **copy == Some((*identity, lost));
        self.known.iter().filter(is_meant).map(|(id, _)| *id).collect()
    }

    /// A copy was published.
    pub(crate) fn published(&mut self, to: &Destination<'_>, identity: Identity, lost: u64, id: RootId) {
        if !to.vault.role().may_read() {
            // Best effort: what is not remembered is copied again.
            let _ = to
                .state
                .set(&key(&identity), &[lost.to_le_bytes().as_slice(), &id.0].concat());
        }
        self.know(id, Some((identity, lost)));
    }
}

fn key((vault, snapshot): &Identity) -> String {
    format!("copied/{vault}/{snapshot}")
}

fn decode(bytes: &[u8]) -> Option<(u64, RootId)> {
    let (lost, id) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*lost), RootId(id.try_into().ok()?)))
}
