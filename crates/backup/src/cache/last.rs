//! What is remembered of the last run over the same sources: its snapshot, its size, and what was in each directory.
//!
//! - A directory that has become empty is worth a word: its disk may not be mounted. If it is the same directory as before, the
//!   word is said once. If it is another one, as the place of a disk that is away, it is said by every run.

use std::collections::{HashMap, HashSet};

use drystone_format::RootId;
use drystone_index::State;

use crate::cache::{Key, key};
use crate::error::Result;

/// Bytes of what is remembered of a source.
const SOURCE_BYTES: usize = 4 + 8 + 8;

/// What was in a directory that is a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceSeen {
    /// Which source, by number.
    pub(crate) number: u32,
    /// Of the directory.
    pub(crate) inode: u64,
    /// Everything in it but directories, at any depth.
    pub(crate) files: u64,
}

/// What is remembered of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) snapshot: RootId,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Directories that held files.
    pub(crate) sources: Vec<SourceSeen>,
}

impl Last {
    /// The key in the state of a run over these paths.
    pub(crate) fn key(host: &str, paths: &[Vec<u8>]) -> String {
        let parts: Vec<&[u8]> = std::iter::once(host.as_bytes())
            .chain(paths.iter().map(Vec::as_slice))
            .collect();
        let key: Key = key(&parts);
        format!("last/{:032x}", u128::from_be_bytes(key))
    }

    pub(crate) fn get(state: &State, key: &str) -> Result<Option<Self>> {
        let found = state.get(key)?;
        Ok(found.as_deref().and_then(Self::decode))
    }

    pub(crate) fn set(&self, state: &State, key: &str) -> Result<()> {
        Ok(state.set(key, &self.encode())?)
    }

    /// The sources that held files and do not any more, as they were.
    pub(crate) fn emptied(&self, now: &[SourceSeen]) -> Vec<SourceSeen> {
        let empty = now.iter().filter(|seen| seen.files == 0);
        let empty: HashSet<u32> = empty.map(|seen| seen.number).collect();
        let sources = self.sources.iter().filter(|before| empty.contains(&before.number));
        sources.copied().collect()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.snapshot.0.to_vec();
        bytes.extend_from_slice(&self.files.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        for SourceSeen { number, inode, files } in &self.sources {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&inode.to_le_bytes());
            bytes.extend_from_slice(&files.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (snapshot, rest) = bytes.split_first_chunk()?;
        let (files, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let source = |record: &[u8; SOURCE_BYTES]| {
            let (number, rest) = record.split_first_chunk()?;
            let (inode, rest) = rest.split_first_chunk()?;
            let (files, _) = rest.split_first_chunk()?;
            Some(SourceSeen {
                number: u32::from_le_bytes(*number),
                inode: u64::from_le_bytes(*inode),
                files: u64::from_le_bytes(*files),
            })
        };
        Some(Self {
            snapshot: RootId(*snapshot),
            files: u64::from_le_bytes(*files),
            bytes: u64::from_le_bytes(*bytes),
            sources: rest.as_chunks().0.iter().filter_map(source).collect(),
        })
    }
}

/// What the next run is told of the sources: an emptied one stays as it was while another directory is in its place.
pub(crate) fn remembered(now: &[SourceSeen], emptied: &[SourceSeen]) -> Vec<SourceSeen> {
    let emptied: HashMap<u32, &SourceSeen> = emptied.iter().map(|before| (before.number, before)).collect();
    let before = |seen: &SourceSeen| emptied.get(&seen.number).filter(|before| before.inode != seen.inode);
    let kept = now.iter().map(|seen| before(seen).map_or(*seen, |before| **before));
    kept.filter(|seen| seen.files > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u32, inode: u64, files: u64) -> SourceSeen {
        SourceSeen { number, inode, files }
    }

    fn last(sources: &[SourceSeen]) -> Last {
        Last {
            snapshot: RootId([7; 16]),
            files: 1,
            bytes: 2,
            sources: sources.to_vec(),
        }
    }

    #[test]
    fn what_is_remembered_comes_back() {
        for sources in [&[][..], &[seen(0, 1, 2), seen(3, u64::MAX, 5)]] {
            let last = last(sources);
            assert_eq!(Last::decode(&last.encode()), Some(last));
        }
        assert_eq!(Last::decode(&[0; 20]), None);
    }

    #[test]
    fn an_emptied_directory_is_said_once_and_another_in_its_place_each_time() {
        let before = last(&[seen(0, 10, 5), seen(1, 20, 5), seen(2, 30, 5)]);
        let now = [seen(0, 10, 0), seen(1, 99, 0), seen(2, 30, 4)];
        let emptied = before.emptied(&now);
        assert_eq!(emptied, [seen(0, 10, 5), seen(1, 20, 5)]);
        assert_eq!(remembered(&now, &emptied), [seen(1, 20, 5), seen(2, 30, 4)]);
        // A source that was not seen at all is another matter.
        assert_eq!(before.emptied(&[]), []);
    }
}
