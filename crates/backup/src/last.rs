//! What is remembered of the last run over the same sources.

use drystone_format::RootId;
use drystone_vault::Vault;

use crate::cache::key;
use crate::error::Result;
use crate::sources::Sources;

/// What is remembered of the last run over the same sources.
pub(crate) struct Last {
    pub(crate) snapshot: RootId,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Last {
    pub(crate) fn key(host: &str, sources: &Sources) -> String {
        let parts: Vec<&[u8]> = std::iter::once(host.as_bytes())
            .chain(sources.paths.iter().map(Vec::as_slice))
            .collect();
        format!("last/{:032x}", u128::from_be_bytes(key(&parts)))
    }

    pub(crate) fn get(vault: &Vault, key: &str) -> Result<Option<Self>> {
        let found = vault.state().get(key)?;
        Ok(found.as_deref().and_then(Self::decode))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (snapshot, rest) = bytes.split_first_chunk()?;
        let (files, rest) = rest.split_first_chunk()?;
        let (bytes, _) = rest.split_first_chunk()?;
        Some(Self {
            snapshot: RootId(*snapshot),
            files: u64::from_le_bytes(*files),
            bytes: u64::from_le_bytes(*bytes),
        })
    }

    pub(crate) fn set(&self, vault: &Vault, key: &str) -> Result<()> {
        let mut bytes = self.snapshot.0.to_vec();
        bytes.extend_from_slice(&self.files.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        Ok(vault.state().set(key, &bytes)?)
    }
}
