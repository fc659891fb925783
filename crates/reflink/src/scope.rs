//! Which files of a Btrfs file system may be touched.
//!
//! - What lies under an excluded directory is found by its parents, by all names that it has: neither the length of a path nor a
//!   second name elsewhere lets it be touched. What cannot be found out is left alone.
//! - Memory is bounded: what was found out about directories is forgotten, all together, when there is too much of it.

use std::collections::{BTreeSet, HashMap};

use drystone_extents::Btrfs;
use drystone_extents::items::{Inode, tree};
use parking_lot::Mutex;

use crate::space::FileId;
use crate::swap::is_swap;

/// The bit of a file's mode that lets everybody read it.
const EVERYBODY_READS: u32 = 0o004;
/// Directories remembered, 40 bytes each.
const DIRECTORIES_MAX: usize = 1 << 20;
/// Directories that are in each other.
const DEPTH_MAX: usize = 64 << 10;

/// Which files may be touched.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only these subvolumes; all if none are named.
    pub subvolumes: Option<BTreeSet<u64>>,
    /// Only files of this size and above, bytes.
    pub min_file_bytes: u64,
    /// Files that not everybody may read, below this size, share with files of their owner alone.
    pub private_min_bytes: u64,
    /// Not these files, nor what lies under these directories. The top directory of a subvolume is all of it.
    pub excluded: BTreeSet<FileId>,
}

/// Whether a file is one of those whose content others could guess, and find out by what it shares.
pub(crate) fn is_private(mode: u32, bytes: u64, private_min_bytes: u64) -> bool {
    mode & EVERYBODY_READS == 0 && bytes < private_min_bytes
}

/// Answers whether files are in a scope, and remembers of directories whether they are excluded.
#[derive(Debug, Default)]
pub(crate) struct Scoped {
    pub(crate) scope: Scope,
    directories: Mutex<HashMap<FileId, bool>>,
}

impl Scoped {
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            directories: Mutex::default(),
        }
    }

    /// Whether a file may be touched.
    pub(crate) fn has(&self, fs: &Btrfs, file: FileId, inode: Inode) -> bool {
        let scope = &self.scope;
        inode.is_file()
            && inode.size >= scope.min_file_bytes
            && scope
                .subvolumes
                .as_ref()
                .is_none_or(|known| known.contains(&file.subvolume))
            && !self.is_excluded(fs, file)
            && !is_swap_space(fs, file, inode)
    }

    fn is_excluded(&self, fs: &Btrfs, file: FileId) -> bool {
        let excluded = &self.scope.excluded;
        let top = FileId {
            inode: tree::SUBVOLUMES.0,
            ..file
        };
        if !excluded.iter().any(|one| one.subvolume == file.subvolume) {
            return false;
        }
        if excluded.contains(&file) || excluded.contains(&top) {
            return true;
        }
        let of = |inode| FileId { inode, ..file };
        let parents = fs.parents(file.subvolume, file.inode);
        parents.map_or(true, |parents| {
            parents.into_iter().any(|inode| self.is_under_excluded(fs, of(inode)))
        })
    }

    /// Whether a directory is excluded, or lies in one that is.
    fn is_under_excluded(&self, fs: &Btrfs, directory: FileId) -> bool {
        let mut known = self.directories.lock();
        let (mut at, mut passed) = (directory, Vec::new());
        let answer = loop {
            if let Some(answer) = known.get(&at) {
                break *answer;
            }
            if self.scope.excluded.contains(&at) || passed.len() >= DEPTH_MAX {
                break true;
            }
            if at.inode == tree::SUBVOLUMES.0 {
                break false;
            }
            passed.push(at);
            match fs.parents(at.subvolume, at.inode).as_deref() {
                Ok([parent]) => at.inode = *parent,
                // Removed meanwhile, or not to be found out.
                _ => break true,
            }
        };
        if known.len() >= DIRECTORIES_MAX {
            known.clear();
        }
        known.extend(passed.into_iter().map(|directory| (directory, answer)));
        answer
    }
}

/// Whether a file is swap space, which on Btrfs only one that is written in place can be.
fn is_swap_space(fs: &Btrfs, file: FileId, inode: Inode) -> bool {
    inode.is_written_in_place()
        && fs
            .open_file(file.subvolume, file.inode)
            .map_or(true, |opened| is_swap(opened, inode.size).unwrap_or(true))
}
