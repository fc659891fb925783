//! Forgetting snapshots and other roots: naming them in a ledger, then removing them. Frees nothing; that is gc's.
//!
//! - A root that a ledger forgets counts for nobody from then on, also where a place that was away brings it back.

use drystone_format::RootId;
use drystone_format::root::RootName;
use drystone_format::snapshot::Snapshot;
use drystone_store::{Name, Prefix};

use crate::error::Result;
use crate::places::allow::Act;
use crate::problem::Problems;
use crate::roots::RootSource;
use crate::roots::ledger::Change;
use crate::roots::retention::{Group, Keep, plan};
use crate::vault::Vault;

impl Vault {
    /// Plans which of the snapshots that are meant the rules keep, and why; those that cannot be read stay, and are reported.
    pub fn plan_forget(&self, keep: &Keep, is_meant: &dyn Fn(&Snapshot) -> bool) -> Result<(Vec<Group>, Problems)> {
        // One that cannot be read where it lies must not be the one that is kept.
        let (mut candidates, problems) = self.survey(RootSource::Place)?.told();
        candidates.retain(|candidate| is_meant(&candidate.snapshot));
        let clock = &*self.context.clock;
        let groups = plan(candidates, keep, clock.now().seconds, &|seconds| {
            clock.ahead_of_utc(seconds)
        });
        Ok((groups, problems))
    }

    /// Drops snapshots, and roots of any other kind; durable on return. Needs an owner's key. Nothing is freed before the next gc.
    pub fn forget(&self, ids: &[RootId]) -> Result<()> {
        self.may_govern("forget snapshots")?;
        self.allow(Act::Forget)?;
        if ids.is_empty() {
            return Ok(());
        }
        self.with_reserve(|_| self.forget_now(ids))
    }

    fn forget_now(&self, ids: &[RootId]) -> Result<()> {
        let mut there = self.root_names(&Prefix::AllRoots)?;
        self.ledgers.refresh()?;
        let missing = self.find_missing(&mut there, &|_| true)?;
        let mut names: Vec<RootName> = ids
            .iter()
            .map(|id| self.names_of(id))
            .collect::<Result<Vec<_>>>()?
            .concat();
        // One that no place has any more is forgotten by the name that a ledger or this machine knows.
        let missing = missing.into_iter().filter(|root| ids.contains(&root.hash));
        names.extend(missing);
        self.put_ledger(&Change {
            forgotten: names.iter().map(RootName::numbered).collect(),
            ..Change::default()
        })?;
        // Also this machine misses them no more, whatever becomes of the ledger.
        let view = self.ledgers.view();
        there.retain(|root| view.is_live(&root.numbered()));
        self.note_all_seen(&view, &there)?;
        if self.place.is_stale() {
            // Who lists late might miss the ledger and not the roots. gc removes them, once every list shows it.
            return Ok(());
        }
        names.iter().try_for_each(|root| self.place.delete(&Name::root(root)))
    }
}
