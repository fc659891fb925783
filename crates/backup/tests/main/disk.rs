//! A Btrfs in a file, mounted for a test and gone after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Disk {
    mounts: Vec<PathBuf>,
    image: PathBuf,
    directory: tempfile::TempDir,
}

/// Runs a command that has to succeed.
pub(crate) fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether file systems can be mounted here; where continuous integration says that they can, they must.
fn may_mount() -> bool {
    let found = Command::new("mkfs.btrfs").arg("-V").stdout(Stdio::null()).status();
    let may = rustix::process::geteuid().is_root()
        && found.is_ok_and(|status| status.success())
        && Path::new("/dev/loop-control").exists();
    assert!(
        may || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "the tests of backups on Btrfs need root and mkfs.btrfs"
    );
    if !may {
        eprintln!("LEFT OUT: backups on Btrfs: needs root, loop devices and mkfs.btrfs");
    }
    may
}

impl Disk {
    /// A file system of 600 MB; none, said loudly, where that cannot be.
    pub(crate) fn new() -> Option<Self> {
        if !may_mount() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(600 << 20).unwrap();
        command("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
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
            // Already unmounted, or still held by a test that failed.
            let _ = Command::new("umount")
                .arg("-l")
                .arg(mount)
                .stderr(Stdio::null())
                .status();
        }
    }
}
