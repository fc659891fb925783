//! What is mounted in a tracked subvolume: a snapshot has the directories below the mounts in their place.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::{Key, key};

/// Names of one directory.
pub(crate) type NamesThere = Arc<BTreeSet<Vec<u8>>>;

/// Mounts, by paths as the run has them.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    names: HashMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    above: HashSet<Key>,
}

impl Mounts {
    /// Adds those in the directory that the kernel knows as `real` and the run as `path`.
    pub(crate) fn add(&mut self, all: &[PathBuf], real: &Path, path: &[u8]) {
        for mount in all {
            let Ok(below) = mount.strip_prefix(real) else { continue };
            let mut at = path.to_vec();
            let names: Vec<&[u8]> = below.iter().map(OsStrExt::as_bytes).collect();
            for (number, name) in names.iter().enumerate() {
                self.above.insert(key(&[&at]));
                if number + 1 == names.len() {
                    self.names.entry(at.clone()).or_default().insert(name.to_vec());
                }
                at.push(b'/');
                at.extend_from_slice(name);
            }
        }
    }

    /// What is mounted on names of this directory.
    pub(crate) fn names(&self, path: &[u8]) -> Option<NamesThere> {
        self.names.get(path).cloned().map(Arc::new)
    }

    /// Whether anything is mounted in or below this directory.
    pub(crate) fn is_above(&self, path: &Key) -> bool {
        self.above.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_the_paths_of_the_run() {
        let all = ["/", "/mnt/real", "/mnt/real/a/b", "/mnt/real/a/b/c", "/mnt/realm/x"].map(PathBuf::from);
        let mut mounts = Mounts::default();
        mounts.add(&all, Path::new("/mnt/real"), b"/data");
        assert_eq!(*mounts.names(b"/data/a").unwrap(), BTreeSet::from([b"b".to_vec()]));
        assert_eq!(mounts.names(b"/data"), None);
        for (path, expected) in [
            ("/data", true),
            ("/data/a", true),
            ("/data/a/b", true),
            ("/data/a/b/c", false),
            ("", false),
        ] {
            assert_eq!(mounts.is_above(&key(&[path.as_bytes()])), expected, "{path}");
        }
        let mut root = Mounts::default();
        root.add(&all, Path::new("/"), b"");
        assert!(root.names(b"/mnt").is_some() && root.is_above(&key(&[b""])));
    }
}
