//! What a run is about: file systems and parts of them, as a user names them.
//!
//! - `vol:/path` is one subvolume, `/path` a subvolume with those in it (or, where files are walked, a directory), `/dev/…`, a UUID (`UUID=…`
//!   as well) and `LABEL=…` a whole file system, mounted for this process alone if it is not mounted.
//! - Targets on the same Btrfs file system become one, so that what they have in common is found.

pub(crate) mod find;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use drystone_extents::items::tree;
use drystone_extents::{Btrfs, Kind, Subvolume, fs_id, subvolume, subvolume_of};
use rustix::fs::{CWD, Mode, OFlags, Stat, openat};

use crate::btrfs::BtrfsSpace;
use crate::devices::hex;
use crate::error::{Error, Result};
use crate::progress::{Cancel, Progress};
use crate::scope::Scope;
use crate::space::{FileId, Space};
use crate::walked::{Walk, WalkedSpace};

/// Below this size, files that not everybody may read share with files of their owner alone, unless the caller wants another size.
pub const PRIVATE_MIN_BYTES: u64 = 64 << 10;

/// A file system, or part of one.
#[derive(Debug)]
pub struct Target {
    /// For messages: where it is mounted, or its device.
    pub name: String,
    /// Its identity.
    pub id: [u8; 16],
    /// Its kind.
    pub kind: Kind,
    place: OwnedFd,
    path: Option<PathBuf>,
    /// Where parts of its file system are mounted: the part, and where.
    ways: Vec<(PathBuf, PathBuf)>,
    /// Those that are part of it; all if none are named.
    subvolumes: Option<BTreeSet<u64>>,
    /// Those that were named: what is made in them later changes nothing about what a run is about.
    named: BTreeSet<String>,
    is_root: bool,
}

/// What the caller knows.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Only files of this size and above, bytes.
    pub min_file_bytes: u64,
    /// Files that not everybody may read, below this size, share with files of their owner alone.
    pub private_min_bytes: u64,
    /// Directories and files that are left alone.
    pub exclude: &'a [PathBuf],
    /// Directory for what was read of data without checksums; nothing is remembered without one.
    pub cache_dir: Option<&'a Path>,
    /// What may be read to look for duplicates.
    pub reads: Reads,
}

/// What may be read to look for duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// What has no checksums.
    Needed,
    /// Only what cannot be looked at otherwise at all: where files are walked.
    Least,
}

impl Target {
    /// Whether its trees are searched, and not its directories walked.
    pub(crate) fn is_searched(&self) -> bool {
        self.kind == Kind::Btrfs && self.is_root
    }

    fn join(&mut self, other: Self) {
        self.subvolumes = match (self.subvolumes.take(), other.subvolumes) {
            (Some(one), Some(other)) => Some(&one | &other),
            _ => None,
        };
        self.named.extend(other.named);
        self.name = format!("{}, {}", self.name, other.name);
    }

    /// Its directory.
    pub(crate) fn place(&self) -> &OwnedFd {
        &self.place
    }

    /// Whether a subvolume is part of it.
    pub(crate) fn has_subvolume(&self, subvolume: u64) -> bool {
        self.subvolumes.as_ref().is_none_or(|own| own.contains(&subvolume))
    }

    /// What the subvolume that the target's directory is in says about itself.
    pub fn about_subvolume(&self) -> Result<Subvolume> {
        Ok(subvolume(self.place.as_fd(), &self.name)?)
    }

    /// The file system, asked as root.
    pub fn btrfs(&self) -> Result<Btrfs> {
        let place = self
            .place
            .try_clone()
            .map_err(|source| Error::io(&self.name, "open", source))?;
        Ok(Btrfs::new(place, self.name.clone())?)
    }

    /// The subvolume that the target's directory is in.
    pub fn subvolume(&self) -> Result<u64> {
        Ok(subvolume_of(self.place.as_fd(), &self.name)?)
    }

    /// What a run about it is about, in words that are the same for the same files.
    pub fn scope(&self, known: Known<'_>) -> String {
        let part = match (&self.subvolumes, &self.path) {
            (Some(_), _) => self.named.iter().cloned().collect::<Vec<_>>().join(", "),
            (None, Some(path)) if !self.is_searched() => format!("files under {}", path.display()),
            (None, _) => "all".to_owned(),
        };
        let without = known
            .exclude
            .iter()
            .map(|path| format!(", without {}", path.display()))
            .collect::<String>();
        let from = match known.min_file_bytes {
            0 => String::new(),
            bytes => format!(", from {bytes} bytes"),
        };
        let private = match known.private_min_bytes {
            PRIVATE_MIN_BYTES => String::new(),
            bytes => format!(", private files shared from {bytes} bytes"),
        };
        format!("{part}{from}{private}{without}")
    }

    /// Says where on this file system `path` is, with the subvolumes under it; nothing if it is on another.
    fn exclude(&self, fs: &Btrfs, path: &Path, excluded: &mut BTreeSet<FileId>) -> Result<()> {
        let failed = |source| Error::io(path, "exclude", source);
        let file = openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )
        .map_err(failed)?;
        if fs_id(file.as_fd())? != self.id {
            return Ok(());
        }
        let inode = rustix::fs::fstat(&file).map_err(failed)?.st_ino;
        let subvolume = subvolume_of(file.as_fd(), &path.display().to_string())?;
        let inner = fs.directory_path(subvolume, inode)?;
        let inner = inner.strip_suffix(b"/").unwrap_or(&inner).to_vec();
        let top = fs.subvolume_path(subvolume)?.unwrap_or_default();
        let top: Vec<&[u8]> = [top.as_slice(), &inner]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let prefix = [top.join(&b'/').as_slice(), b"/"].concat();
        for root in fs.subvolumes()? {
            let path = fs.subvolume_path(root.id)?.unwrap_or_default();
            if root.id != subvolume && path.starts_with(&prefix) {
                excluded.insert(FileId {
                    subvolume: root.id,
                    inode: tree::SUBVOLUMES.0,
                });
            }
        }
        excluded.insert(FileId { subvolume, inode });
        Ok(())
    }

    /// The inode of what is to be left alone, if it is in what is walked; that of the latter, if it is below the former.
    fn excluded_inode(&self, path: &Path, own: &Stat) -> Result<Option<u64>> {
        let failed = |source| Error::io(path, "exclude", source);
        let of_path = rustix::fs::stat(path).map_err(failed)?;
        let absolute = fs::canonicalize(path).map_err(|source| Error::io(path, "exclude", source))?;
        let is_below = self.path.as_ref().is_some_and(|own| own.starts_with(&absolute));
        Ok(if is_below {
            Some(own.st_ino)
        } else {
            (of_path.st_dev == own.st_dev).then_some(of_path.st_ino)
        })
    }

    /// Looks at it, which for a file system without checksums means to read what is new.
    pub fn open(&self, known: Known<'_>, progress: &Progress, cancel: &Cancel) -> Result<Box<dyn Space>> {
        if self.is_searched() {
            let fs = self.btrfs()?;
            let mut scope = Scope {
                subvolumes: self.subvolumes.clone(),
                min_file_bytes: known.min_file_bytes,
                private_min_bytes: known.private_min_bytes,
                excluded: BTreeSet::new(),
            };
            for path in known.exclude {
                self.exclude(&fs, path, &mut scope.excluded)?;
            }
            let space = BtrfsSpace::new(fs, scope);
            if known.reads == Reads::Least {
                return Ok(Box::new(space));
            }
            let cache = known
                .cache_dir
                .map(|dir| dir.join(format!("{}.unsummed", hex(&self.id))));
            return Ok(Box::new(space.with_unsummed(cache.as_deref(), cancel)?));
        }
        let about = rustix::fs::fstat(&self.place).map_err(|source| Error::io(&self.name, "look at", source))?;
        let mut excluded = BTreeSet::new();
        for path in known.exclude {
            excluded.extend(self.excluded_inode(path, &about)?);
        }
        // One for each directory, wherever it is mounted, since what is not found in it is forgotten.
        let file = format!("{}-{}.map", hex(&self.id), about.st_ino);
        let cache = known.cache_dir.map(|directory| directory.join(file));
        let walk = Walk {
            root: self.place.as_fd(),
            name: &self.name,
            cache: cache.as_deref(),
            min_file_bytes: known.min_file_bytes,
            private_min_bytes: known.private_min_bytes,
            excluded: &excluded,
        };
        Ok(Box::new(WalkedSpace::open(walk, progress, cancel)?))
    }
}
