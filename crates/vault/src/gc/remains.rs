//! Remains: packs of which too few shards are left to read them, from puts that died and places that came back.
//!
//! - Only where the vault lies at several places, all of which take part.
//! - Nothing that a snapshot needs is among them: everything live was found in packs that can be read.
//! - No run may be in the middle of storing one: they were remains before this gc began, and nobody else is registered.

use std::collections::BTreeSet;

use drystone_format::PackId;
use drystone_store::Name;

use super::run::Run;
use crate::error::Result;

impl Run<'_> {
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
        let own = self.own();
        let is_alone = self.registrations.running().all(|id| *id == own);
        if self.is_partial || self.remains.is_empty() || !self.is_whole || !is_alone {
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
