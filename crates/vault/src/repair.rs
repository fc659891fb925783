//! Repair of what is rebuildable: the local index, and the vault header from its copy in a key slot.

use drystone_index::Index;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::problem::Problems;
use crate::slots::owner_key;
use crate::vault::Vault;

/// What a repair of the index found.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Packs whose tails were read.
    pub packs: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Packs whose tails cannot be read: what only they held is lost.
    pub problems: Problems,
}

impl Vault {
    /// Throws the local index away and builds it from the packs at the place.
    pub fn repair_index(&self) -> Result<RepairReport> {
        let dir = self.index_dir();
        Index::clear(&dir)?;
        let catalog = Catalog::open(self, &dir)?;
        let stats = catalog.index.stats();
        Ok(RepairReport {
            packs: stats.packs,
            chunks: stats.chunks,
            problems: catalog.unreadable(),
        })
    }

    /// Writes the vault header anew from the copy that this run works with; needs an owner's key.
    pub fn repair_header(&self) -> Result<()> {
        let object = bytes::Bytes::from(self.header().encode(owner_key(&self.secrets)?)?);
        self.delete_header()?;
        self.place.put(&drystone_store::Name::header(), object)
    }
}
