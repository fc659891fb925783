//! Roots of slow places, kept on this machine as they are: each is read over a network once.
//!
//! - Holds sealed bytes only. A name ends in their hash, and whoever takes a root out verifies it as if a place had given it.
//! - A cache (I4): a file that is gone, cut, altered or of somebody else costs a request. That a root exists is never taken from
//!   here: callers ask only for roots that a list has just shown.
//! - About [`LIMIT_BYTES`] at most. A root that no list shows any more is removed; where there is no room, the next ones are not kept.
//! - Nothing here fails: what cannot be read or written is a root that is not kept.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drystone_format::limits::ROOT_MAX_BYTES;
use drystone_format::root::{RootKind, RootName};
use parking_lot::Mutex;

/// Bytes kept: 2,000 roots with the index parts of a common backup, some 70 KB each, fit.
const LIMIT_BYTES: u64 = 256 << 20;

/// Roots that were read, in a directory of this machine.
#[derive(Debug)]
pub(crate) struct RootCache {
    dir: PathBuf,
    /// Bytes kept, as far as this process knows; not known before the first look.
    held_bytes: Mutex<Option<u64>>,
    limit_bytes: u64,
}

/// The name of a root's file: kind, registration, number and hash.
fn file_name(root: &RootName) -> String {
    let RootName {
        kind,
        registration,
        number,
        hash,
    } = root;
    format!("{}-{registration}-{number}-{hash}", kind.word())
}

impl RootCache {
    /// The roots kept in `dir`, which is made with the first of them.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            held_bytes: Mutex::new(None),
            limit_bytes: LIMIT_BYTES,
        }
    }

    /// The bytes kept under this name, if there are any; right or not.
    pub(crate) fn get(&self, root: &RootName) -> Option<Vec<u8>> {
        let file = File::open(self.dir.join(file_name(root))).ok()?;
        let mut bytes = Vec::new();
        let limit = ROOT_MAX_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps a root that was verified, if there is room.
    pub(crate) fn put(&self, root: &RootName, bytes: &[u8]) {
        let added = bytes.len() as u64;
        {
            let mut held = self.held_bytes.lock();
            let now = held.unwrap_or_else(|| self.count());
            let fits = now + added <= self.limit_bytes;
            *held = Some(if fits { now + added } else { now });
            if !fits {
                return;
            }
        }
        if self.write(&file_name(root), bytes).is_err() {
            *self.held_bytes.lock() = None;
        }
    }

    /// Lets go of one that is not what its name says.
    pub(crate) fn remove(&self, root: &RootName) {
        let _ = fs::remove_file(self.dir.join(file_name(root)));
        *self.held_bytes.lock() = None;
    }

    /// Removes the roots of this kind that a list did not show, and what is no root.
    pub(crate) fn retain(&self, kind: RootKind, listed: &[RootName]) {
        let listed: BTreeSet<String> = listed.iter().map(file_name).collect();
        let own = format!("{}-", kind.word());
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_kept = name.to_str().is_some_and(|name| {
                let is_of_kind = name.starts_with(&own);
                let is_root = name
                    .split_once('-')
                    .is_some_and(|(word, _)| RootKind::from_word(word).is_some());
                listed.contains(name) || is_root && !is_of_kind
            });
            if !is_kept {
                let _ = fs::remove_file(entry.path());
            }
        }
        *self.held_bytes.lock() = None;
    }

    fn count(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Writes a file whole or not at all; after a power cut it may be cut, which its hash tells.
    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // Two processes may write the same root at once.
        let new = self.dir.join(format!(".{name}.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, self.dir.join(name))
    }
}

#[cfg(test)]
mod tests {
    use drystone_format::{RegistrationId, RootId};

    use super::*;

    fn root(kind: RootKind, byte: u8) -> RootName {
        RootName {
            kind,
            registration: RegistrationId([byte; 16]),
            number: u64::from(byte),
            hash: RootId([byte; 16]),
        }
    }

    #[test]
    fn what_is_listed_stays_and_no_more_than_fits() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = RootCache::in_dir(&dir.path().join("roots"));
        cache.limit_bytes = 1000;
        let [one, two, three] = [1, 2, 3].map(|byte| root(RootKind::SNAPSHOT, byte));
        let other = root(RootKind::HEAD, 1);
        assert_eq!(cache.get(&one), None);
        cache.put(&one, &[1; 400]);
        cache.put(&other, &[4; 300]);
        cache.put(&two, &[2; 400]);
        assert_eq!(cache.get(&two), None, "no room");
        cache.put(&two, &[2; 300]);
        for (root, bytes) in [(&one, vec![1; 400]), (&two, vec![2; 300]), (&other, vec![4; 300])] {
            assert_eq!(cache.get(root), Some(bytes));
        }
        fs::write(cache.dir.join("strange"), b"x").unwrap();
        cache.retain(RootKind::SNAPSHOT, &[two, three]);
        assert_eq!((cache.get(&one), cache.get(&three)), (None, None));
        assert!(cache.get(&two).is_some() && cache.get(&other).is_some());
        assert!(!cache.dir.join("strange").exists());
        cache.put(&three, &[3; 400]);
        assert!(cache.get(&three).is_some(), "there is room again");
        cache.remove(&three);
        assert_eq!(cache.get(&three), None);
        // Whatever becomes of the directory, the next root is kept.
        fs::remove_dir_all(&cache.dir).unwrap();
        cache.put(&one, &[1; 400]);
        assert!(cache.get(&one).is_some());
    }
}
