//! A file system of either kind, looked at as a run looks at it.

use drystone_reflink::{Space, State};
use tempfile::TempDir;

use crate::disk::Disk;
use crate::xfs::walked;

/// Btrfs or XFS, with a directory beside it for what is noted.
pub struct Either {
    pub disk: Disk,
    pub is_btrfs: bool,
    directory: TempDir,
}

impl Either {
    /// None where it cannot be mounted.
    pub fn new(is_btrfs: bool) -> Option<Self> {
        Some(Self {
            disk: if is_btrfs { Disk::btrfs("") } else { Disk::xfs() }?,
            is_btrfs,
            directory: tempfile::tempdir().unwrap(),
        })
    }

    /// As it is now.
    pub fn space(&self) -> Box<dyn Space> {
        if self.is_btrfs {
            Box::new(self.disk.space())
        } else {
            Box::new(walked(&self.disk, Some(&self.directory.path().join("cache"))))
        }
    }

    /// A state that has seen it.
    pub fn state(&self) -> State {
        let state = State::open(&self.directory.path().join("state")).unwrap();
        state.see(self.space().id(), "a", "test").unwrap();
        state
    }
}
