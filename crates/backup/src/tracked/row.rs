//! What the last run made of a directory, kept so that a run in which nothing changed in or below it takes it over as it is.
//!
//! - Kept by inode. A row is true for the generation that is kept beside them: those of directories in which something changed
//!   since are removed before new ones are written.
//! - It is a cache: what cannot be decoded is not there.

use std::ops::AddAssign;

use crate::cache::Key;

/// Something below has several names, and its entry the number of a device, which a mount may change.
const HAS_LINKS: u8 = 1;
/// Bytes before the entry.
const HEAD_BYTES: usize = 1 + 16 + 3 * 8;

/// What is in a directory, at any depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) files: u64,
    /// Directories below it.
    pub(crate) dirs: u64,
    pub(crate) bytes: u64,
    /// Whether anything has several names.
    pub(crate) has_links: bool,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.bytes += other.bytes;
        self.has_links |= other.has_links;
    }
}

/// A directory as the last run made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Key of the path that it had.
    pub(crate) path: Key,
    pub(crate) sum: Sum,
    /// Its entry in the directory above.
    pub(crate) entry: Vec<u8>,
}

impl Row {
    /// Where the row of an inode is kept.
    pub(crate) fn key(inode: u64) -> Key {
        u128::from(inode).to_be_bytes()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.entry.len());
        out.push(if self.sum.has_links { HAS_LINKS } else { 0 });
        out.extend_from_slice(&self.path);
        for number in [self.sum.files, self.sum.dirs, self.sum.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.entry);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (path, rest) = rest.split_first_chunk::<16>()?;
        let (files, rest) = rest.split_first_chunk()?;
        let (dirs, rest) = rest.split_first_chunk()?;
        let (bytes, entry) = rest.split_first_chunk()?;
        let sum = Sum {
            files: u64::from_le_bytes(*files),
            dirs: u64::from_le_bytes(*dirs),
            bytes: u64::from_le_bytes(*bytes),
            has_links: flags & HAS_LINKS != 0,
        };
        (!entry.is_empty()).then_some(Self {
            path: *path,
            sum,
            entry: entry.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back(
            path in any::<Key>(),
            (files, dirs, bytes, has_links) in any::<(u64, u64, u64, bool)>(),
            entry in proptest::collection::vec(any::<u8>(), 1..80),
        ) {
            let row = Row { path, sum: Sum { files, dirs, bytes, has_links }, entry };
            let encoded = row.encode();
            prop_assert_eq!(Row::decode(&encoded), Some(row));
            prop_assert_eq!(Row::decode(&encoded[..HEAD_BYTES]), None);
        }

        #[test]
        fn damage_is_absence(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Row::decode(&bytes);
        }
    }
}
