//! The directories of the vault itself and of its cache: they are never part of a backup, which would grow by its own size, and nothing is
//! restored into them.
//!
//! - Known by device and inode: links, bind mounts and second mounts of their file system lead to the same directory.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cache::{Key, key};
use crate::local::dir::Stat;

/// Directories that a run does not enter.
#[derive(Debug, Clone, Default)]
pub struct OwnDirs {
    /// Device and inode of each.
    known: Vec<(u64, u64)>,
    /// Without links, sorted.
    paths: Vec<PathBuf>,
}

impl OwnDirs {
    /// Looks the directories up, through links. Those that are not there are left out.
    pub fn of<P: AsRef<Path>>(dirs: impl IntoIterator<Item = P>) -> Self {
        let mut own = Self::default();
        for dir in dirs {
            if let (Ok(stat), Ok(path)) = (std::fs::metadata(&dir), std::fs::canonicalize(&dir)) {
                own.known.push((stat.dev(), stat.ino()));
                own.paths.push(path);
            }
        }
        own.paths.sort();
        own.paths.dedup();
        own
    }

    /// Returns true if `path`, which need not exist, is one of these directories or lies below one.
    pub fn hold(&self, path: &Path) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let there = path.ancestors().find_map(|above| std::fs::canonicalize(above).ok());
        let is_known = |dir: &Path| {
            let stat = std::fs::metadata(dir);
            stat.is_ok_and(|stat| self.has_number(stat.dev(), stat.ino()))
        };
        there.is_some_and(|there| there.ancestors().any(is_known))
    }

    pub(crate) fn has(&self, stat: &Stat) -> bool {
        stat.is_dir() && self.has_number(stat.device, stat.ino)
    }

    /// Whether the directory of this number on this device is one of these.
    pub(crate) fn has_number(&self, device: u64, inode: u64) -> bool {
        self.known.contains(&(device, inode))
    }

    /// Tells these directories from others. By their paths, since device numbers change at every start of the machine.
    pub(crate) fn digest(&self) -> Key {
        let paths: Vec<&[u8]> = self.paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
        key(&paths)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;
    use crate::local::dir::Follow;

    #[test]
    fn a_directory_is_known_by_whatever_name_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("vault")).unwrap();
        std::fs::create_dir(path("other")).unwrap();
        symlink("vault", path("link")).unwrap();
        let own = OwnDirs::of([path("link"), path("missing")]);
        let stat = |name: &str| Stat::at(CWD, path(name).as_os_str().as_bytes(), Follow::Yes).unwrap();
        assert!(own.has(&stat("vault")) && own.has(&stat("link")));
        assert!(!own.has(&stat("other")));
        assert_eq!(own.digest(), OwnDirs::of([path("vault")]).digest());
        assert_ne!(own.digest(), OwnDirs::of([path("other")]).digest());
    }

    #[test]
    fn what_lies_in_a_directory_is_told_before_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("vault/packs")).unwrap();
        symlink("vault", path("link")).unwrap();
        let own = OwnDirs::of([path("vault")]);
        for inside in ["vault", "vault/packs", "vault/new/deep", "link/new", "vault/packs/../x"] {
            assert!(own.hold(&path(inside)), "{inside}");
        }
        for outside in ["", "vault2", "new/deep", "vault/../new"] {
            assert!(!own.hold(&path(outside)), "{outside}");
        }
    }
}
