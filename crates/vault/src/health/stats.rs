//! Figures of a vault for people: how much, in how much space.

use drystone_format::seal::PackKind;

use crate::catalog::pack_kind;
use crate::error::Result;
use crate::vault::Vault;

/// Size of a vault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots.
    pub snapshots: u64,
    /// Packs of file data.
    pub data_packs: u64,
    /// Packs of trees and recipes.
    pub meta_packs: u64,
    /// Packs of both, of small commits.
    pub mixed_packs: u64,
    /// Bytes of data packs.
    pub data_bytes: u64,
    /// Bytes of metadata packs.
    pub meta_bytes: u64,
    /// Bytes of mixed packs.
    pub mixed_bytes: u64,
    /// Chunks in all packs.
    pub chunks: u64,
    /// Plaintext bytes of these chunks.
    pub chunk_bytes: u64,
    /// Packs that are known to be damaged.
    pub damaged_packs: u64,
    /// Bytes of the local index.
    pub index_bytes: u64,
}

impl Vault {
    /// Counts everything, from the index alone.
    pub fn stats(&self) -> Result<Stats> {
        let catalog = self.catalog()?;
        let mut stats = Stats {
            snapshots: self.snapshot_ids()?.len() as u64,
            ..Stats::default()
        };
        for pack in catalog.index.packs()? {
            let (count, bytes) = match pack_kind(&pack) {
                Some(PackKind::Data) | None => (&mut stats.data_packs, &mut stats.data_bytes),
                Some(PackKind::Meta) => (&mut stats.meta_packs, &mut stats.meta_bytes),
                Some(PackKind::Mixed) => (&mut stats.mixed_packs, &mut stats.mixed_bytes),
            };
            *count += 1;
            *bytes += pack.pack_bytes;
        }
        (stats.chunks, stats.chunk_bytes) = catalog.count()?;
        stats.damaged_packs = catalog.losses.damaged().len() as u64;
        stats.index_bytes = catalog.index.stats()?.disk_bytes;
        Ok(stats)
    }
}
