//! File systems in files, mounted for a test and gone after it; and what is in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use drystone_extents::Btrfs;
use drystone_reflink::{
    BtrfsSpace, Cancel, Limits, Note, Options, Policy, Progress, Report, Result, Scope, Space, State, run,
};

use crate::image::{self, command, let_go, may_mount};

/// How long a mount may be busy.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// A mounted file system of its own.
pub struct Disk {
    mount: PathBuf,
    image: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    pub fn btrfs(mount_options: &str) -> Option<Self> {
        Self::make(&["mkfs.btrfs", "-q"], 600 << 20, mount_options)
    }

    pub fn xfs() -> Option<Self> {
        Self::make(&["mkfs.xfs", "-q", "-m", "reflink=1"], 400 << 20, "")
    }

    pub fn make(make: &[&str], bytes: u64, mount_options: &str) -> Option<Self> {
        if !may_mount("real file systems", &["mkfs.btrfs", "mkfs.xfs"]) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (image, mount) = (directory.path().join("image"), directory.path().join("mount"));
        image::make(make, &image, bytes);
        fs::create_dir(&mount).unwrap();
        let options = ["loop", mount_options].join(if mount_options.is_empty() { "" } else { "," });
        command(
            "mount",
            &["-o", &options, image.to_str().unwrap(), mount.to_str().unwrap()],
        );
        Some(Self {
            mount,
            image,
            _directory: directory,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.mount
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn subvolume(&self, name: &str) {
        command(
            "btrfs",
            &["-q", "subvolume", "create", self.path(name).to_str().unwrap()],
        );
    }

    pub fn snapshot(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        command(
            "btrfs",
            &[
                "-q",
                "subvolume",
                "snapshot",
                "-r",
                from.to_str().unwrap(),
                to.to_str().unwrap(),
            ],
        );
    }

    pub fn sync(&self) {
        command("sync", &["-f", self.mount.to_str().unwrap()]);
    }

    pub fn space(&self) -> BtrfsSpace {
        self.scoped(Scope::default())
    }

    pub fn scoped(&self, scope: Scope) -> BtrfsSpace {
        BtrfsSpace::new(Btrfs::open(&self.mount).unwrap(), scope)
    }

    /// What every file holds, and what it is.
    pub fn manifest(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.mount.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let about = path.symlink_metadata().unwrap();
                if about.is_dir() {
                    directories.push(path);
                } else if about.is_file() {
                    let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
                    let kind = (about.len(), about.mode(), about.uid(), about.nlink());
                    found.insert(path.clone(), format!("{} {kind:?} {times:?}", hash(&path)));
                }
            }
        }
        found
    }

    /// Unmounts it; what has its file may go on with that.
    pub fn unmount(&self) -> &Path {
        // Another test may be looking at all mounts just now.
        let limit = Instant::now() + UNMOUNT_LIMIT;
        while !Command::new("umount").arg(&self.mount).status().unwrap().success() {
            assert!(Instant::now() < limit, "{} stays busy", self.mount.display());
            std::thread::yield_now();
        }
        &self.image
    }

    /// The file that it is in.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Takes the file system down, and has it checked.
    pub fn check(self) {
        command(
            "btrfs",
            &["check", "--check-data-csum", self.unmount().to_str().unwrap()],
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let_go(&self.mount);
    }
}

pub fn hash(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    blake3::hash(&bytes).to_hex().to_string()
}

/// Bytes that compress badly, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn put(path: &Path, offset: u64, bytes: &[u8]) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

pub fn options(memory_bytes: u64) -> Options<'static> {
    Options {
        policy: Policy::default(),
        limits: Limits {
            threads: 2,
            max_bytes: u64::MAX,
            is_late: &|| false,
        },
        memory_bytes,
        incremental: true,
        flush: true,
        join: false,
        estimate: false,
    }
}

pub fn run_noted(space: &dyn Space, options: &Options<'_>, state: Option<&mut State>) -> Result<Report> {
    let started = Instant::now();
    let elapsed_ms = || started.elapsed().as_millis() as u64;
    let note = Note {
        state,
        scope: "all",
        started_s: 0,
        elapsed_ms: &elapsed_ms,
    };
    run(space, options, note, &Progress::default(), &Cancel::default())
}

/// A run without state that must do all that it finds.
pub fn run_all(space: &dyn Space) -> Report {
    let report = run_noted(space, &options(64 << 20), None).unwrap();
    assert!(
        report.complete && report.outcome.problems.is_empty(),
        "{:?}",
        report.outcome.problems
    );
    report
}

pub fn estimate(space: &dyn Space) -> u64 {
    let report = run_noted(
        space,
        &Options {
            estimate: true,
            ..options(64 << 20)
        },
        None,
    )
    .unwrap();
    report.outcome.predicted_bytes
}
