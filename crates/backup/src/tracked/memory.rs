//! What is remembered of the last run over the same sources: how far it looked in each subvolume, and under which conditions.
//!
//! - Changed by comparing and replacing, so that of two runs at the same time one notes nothing.
//! - While what belongs to it is being written it says so, and a run that finds it like that trusts nothing.
//! - It is a cache: what cannot be decoded is not there.

use crate::cache::Key;

/// Version of the layout.
const VERSION: u8 = 1;
/// Bytes before the subvolumes, and of each.
const HEAD_BYTES: usize = 1 + 1 + 16 + 4 + 8;
const SUBVOLUME_BYTES: usize = 16 + 16 + 8 + 8 + 16 + 16;

/// A subvolume, as far as the last run looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The file system, and the subvolume in it.
    pub(crate) id: Identity,
    /// Everything of this generation and before was seen.
    pub(crate) generation: u64,
    /// Number of its device, which is in the entries of files with several names.
    pub(crate) device: u64,
    /// What was written into the file system to be found again.
    pub(crate) token: Key,
    /// Where in the state its rows are.
    pub(crate) rows: Key,
}

/// What a subvolume is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) file_system: [u8; 16],
    pub(crate) subvolume: [u8; 16],
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// Set while what belongs to it is being written.
    pub(crate) is_open: bool,
    /// What the run was told to do, other than where.
    pub(crate) options: Key,
    /// Loss epoch of the vault.
    pub(crate) loss_epoch: u32,
    /// Directories that there were.
    pub(crate) dirs: u64,
    pub(crate) subvolumes: Vec<Seen>,
}

impl Memory {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.is_open)];
        out.extend_from_slice(&self.options);
        out.extend_from_slice(&self.loss_epoch.to_le_bytes());
        out.extend_from_slice(&self.dirs.to_le_bytes());
        for seen in &self.subvolumes {
            out.extend_from_slice(&seen.id.file_system);
            out.extend_from_slice(&seen.id.subvolume);
            out.extend_from_slice(&seen.generation.to_le_bytes());
            out.extend_from_slice(&seen.device.to_le_bytes());
            out.extend_from_slice(&seen.token);
            out.extend_from_slice(&seen.rows);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [VERSION, open, head @ ..] = head else { return None };
        let (options, head) = head.split_first_chunk()?;
        let (loss_epoch, head) = head.split_first_chunk()?;
        let (subvolumes, end) = rest.as_chunks::<SUBVOLUME_BYTES>();
        end.is_empty().then_some(())?;
        Some(Self {
            is_open: *open != 0,
            options: *options,
            loss_epoch: u32::from_le_bytes(*loss_epoch),
            dirs: u64::from_le_bytes(*head.first_chunk()?),
            subvolumes: subvolumes.iter().filter_map(decode_seen).collect(),
        })
    }

    /// What is known of a subvolume.
    pub(crate) fn of(&self, id: &Identity) -> Option<&Seen> {
        self.subvolumes.iter().find(|seen| seen.id == *id)
    }
}

fn decode_seen(bytes: &[u8; SUBVOLUME_BYTES]) -> Option<Seen> {
    let (file_system, rest) = bytes.split_first_chunk()?;
    let (subvolume, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (device, rest) = rest.split_first_chunk()?;
    let (token, rest) = rest.split_first_chunk()?;
    Some(Seen {
        id: Identity {
            file_system: *file_system,
            subvolume: *subvolume,
        },
        generation: u64::from_le_bytes(*generation),
        device: u64::from_le_bytes(*device),
        token: *token,
        rows: *rest.first_chunk()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_comes_back(count in 0u8..5, is_open in any::<bool>(), dirs in any::<u64>(), loss_epoch in any::<u32>()) {
            let seen = |number: u8| Seen {
                id: Identity { file_system: [number; 16], subvolume: [number + 1; 16] },
                generation: u64::from(number) << 40,
                device: u64::from(number) + 7,
                token: [number + 2; 16],
                rows: [number + 3; 16],
            };
            let memory = Memory { is_open, options: [9; 16], loss_epoch, dirs, subvolumes: (0..count).map(seen).collect() };
            let encoded = memory.encode();
            prop_assert_eq!(Memory::decode(&encoded), Some(memory));
            prop_assert_eq!(Memory::decode(&encoded[..encoded.len() - 1]), None);
        }

        #[test]
        fn damage_is_absence(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Memory::decode(&bytes);
        }
    }
}
