//! Remains: packs of which too few shards are left to read them, from puts that died and places that came back; and packs that are none.
//!
//! - Only where the vault lies at several places, all of which take part.
//! - Nothing that a snapshot needs is among them: everything live was found in packs that can be read.
//! - No run may be in the middle of storing one: they were remains before this gc began, and nobody else is registered.

use std::collections::BTreeSet;

use drystone_format::PackId;
use drystone_store::Name;

use super::protocol::Registrations;
use super::run::Run;
use crate::error::Result;

impl Run<'_> {
    /// Condemns packs that are none, if everything that the snapshots need was found in others and nobody is at work who may have stored them.
    pub(super) fn choose_worthless(&mut self) -> Result<()> {
        if self.is_partial || !self.is_whole || !self.is_alone(&self.at_work) {
            return Ok(());
        }
        let worthless = self.catalog.worthless()?.into_iter();
        self.leave
            .extend(worthless.filter(|pack| !self.catalog.is_condemned(pack)));
        Ok(())
    }

    /// Packs that cannot be read and that stay though they are condemned: what turned out to be needed since may lie in them.
    pub(super) fn doubtful_to_keep(&self) -> Result<BTreeSet<PackId>> {
        let doubtful = self.catalog.doubtful();
        if doubtful.is_empty() {
            return Ok(doubtful);
        }
        let (_, found) = self.sweep().survey()?;
        let is_whole = found == self.marker.live.len() as u64;
        Ok(if is_whole && !self.is_partial && self.is_alone(&self.registrations) {
            BTreeSet::new()
        } else {
            doubtful
        })
    }

    /// Whether none of these but this run is at work.
    fn is_alone(&self, registrations: &Registrations) -> bool {
        let own = self.own();
        registrations.running().all(|id| *id == own)
    }

    /// Packs of which something is held, but not enough.
    pub(super) fn find_remains(&self) -> Result<BTreeSet<PackId>> {
        let mut remains = BTreeSet::new();
        if let Some(spread) = self.vault.place.as_spread() {
            self.vault.for_each_page(spread, &mut |page| {
                let unreadable = page.iter().filter(|holdings| !holdings.is_readable());
                remains.extend(unreadable.map(|holdings| holdings.pack));
                Ok(())
            })?;
        }
        Ok(remains)
    }

    /// Deletes what was remains all along, unless somebody may need it.
    pub(super) fn delete_remains(&mut self) -> Result<()> {
        if self.is_partial || self.remains.is_empty() || !self.is_whole || !self.is_alone(&self.registrations) {
            return Ok(());
        }
        let now = self.find_remains()?;
        for pack in self.remains.intersection(&now) {
            self.options.cancel.check()?;
            self.vault.place.delete(&Name::pack(pack))?;
            self.report.deleted_packs += 1;
        }
        Ok(())
    }
}
