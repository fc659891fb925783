//! A Btrfs in a file, mounted for a test and gone after it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::image::{command, let_go, make, may_mount};

pub(crate) struct Disk {
    mounts: Vec<PathBuf>,
    image: PathBuf,
    directory: tempfile::TempDir,
}

impl Disk {
    /// A file system of 600 MB; none, said loudly, where that cannot be.
    pub(crate) fn new() -> Option<Self> {
        if !may_mount("backups on Btrfs", &["mkfs.btrfs"]) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        make(&["mkfs.btrfs", "-q"], &image, 600 << 20);
        let mut disk = Self {
            mounts: Vec::new(),
            image,
            directory,
        };
        disk.mount("mount", "loop");
        Some(disk)
    }

    /// Mounts it (again) on a directory of its own.
    pub(crate) fn mount(&mut self, name: &str, options: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        let (image, on) = (self.image.to_str().unwrap(), path.to_str().unwrap());
        command("mount", &["-o", options, image, on]);
        self.mounts.push(path.clone());
        path
    }

    /// Mounts what `from` says on a directory that is there.
    pub(crate) fn mount_on(&mut self, arguments: &[&str], path: &Path) {
        command("mount", &[arguments, &[path.to_str().unwrap()]].concat());
        self.mounts.push(path.to_owned());
    }

    /// Unmounts what was mounted last.
    pub(crate) fn unmount(&mut self) {
        let last = self.mounts.pop().unwrap();
        command("umount", &[last.to_str().unwrap()]);
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("mount").join(name)
    }

    pub(crate) fn subvolume(&self, name: &str) {
        let path = self.path(name);
        command("btrfs", &["-q", "subvolume", "create", path.to_str().unwrap()]);
    }

    /// What is left of snapshots that runs have made.
    pub(crate) fn left_over(&self) -> usize {
        fs::read_dir(self.path(".drystone-backup")).map_or(0, Iterator::count)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            let_go(mount);
        }
    }
}
