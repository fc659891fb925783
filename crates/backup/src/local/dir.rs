//! Open directories, and what the kernel says about what is in them.
//!
//! - Nothing is opened through a symbolic link, but for what leads to a named source, and a source that was named with a final `/`.

use std::os::fd::{AsFd, OwnedFd};

use drystone_format::tree::Time;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, makedev, openat, statx};
use rustix::io::{Errno, Result};

/// Whether a last symbolic link is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Follow {
    Yes,
    #[default]
    No,
}

/// What the kernel knows about a file without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// Bytes that it takes on the disk.
    pub(crate) disk_bytes: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) ino: u64,
    pub(crate) device: u64,
    /// Major and minor number of a device.
    pub(crate) special: (u32, u32),
}

impl Stat {
    /// Of `name` in `dir`; of `dir` itself if the name is empty.
    pub(crate) fn at(dir: impl AsFd, name: &[u8], follow: Follow) -> Result<Self> {
        let mut flags = AtFlags::NO_AUTOMOUNT;
        flags.set(AtFlags::EMPTY_PATH, name.is_empty());
        flags.set(AtFlags::SYMLINK_NOFOLLOW, follow == Follow::No);
        Ok(Self::new(&statx(dir, name, flags, StatxFlags::BASIC_STATS)?))
    }

    /// Of what is open.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        Self::at(fd, b"", Follow::No)
    }

    fn new(stat: &Statx) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            size: stat.stx_size,
            disk_bytes: stat.stx_blocks.saturating_mul(512),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            ino: stat.stx_ino,
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            special: (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Device and inode of a file that may have other names; `None` for all others.
    pub(crate) fn hard_link(&self) -> Option<(u64, u64)> {
        (self.links > 1 && !self.is_dir()).then_some((self.device, self.ino))
    }

    /// Bytes of a regular file; 0 for all others.
    pub(crate) fn content_bytes(&self) -> u64 {
        if self.is_file() { self.size } else { 0 }
    }
}

fn time(stamp: StatxTimestamp) -> Time {
    Time {
        seconds: stamp.tv_sec,
        nanos: stamp.tv_nsec.min(999_999_999),
    }
}

/// A snapshot that is read in the place of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StandIn {
    /// The subvolume among those of the run.
    pub(crate) number: usize,
    /// Raw device number of the snapshot.
    pub(crate) snapshot_device: u64,
    /// Raw device number of the subvolume.
    pub(crate) device: u64,
}

impl StandIn {
    /// Returns true if whatever has this raw device number is in the snapshot.
    fn has(&self, device: u64) -> bool {
        device == self.snapshot_device
    }
}

/// The device number that something has in the subvolume.
fn device_of(stand_in: Option<StandIn>, device: u64) -> u64 {
    let inside = stand_in.filter(|stand_in| stand_in.has(device));
    inside.map_or(device, |stand_in| stand_in.device)
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
    /// The snapshot that it is in, if it is read in the place of that of a subvolume.
    pub(crate) stand_in: Option<StandIn>,
}

impl Dir {
    /// The root of the file system, not to be listed.
    pub(crate) fn root() -> Result<Self> {
        let fd = openat(
            CWD,
            c"/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Self::new(fd, None)
    }

    /// What an open descriptor is; `within` is the snapshot that it may be in.
    pub(crate) fn new(fd: OwnedFd, within: Option<StandIn>) -> Result<Self> {
        let mut stat = Stat::of(&fd)?;
        let stand_in = within.filter(|stand_in| stand_in.has(stat.device));
        stat.device = device_of(stand_in, stat.device);
        Ok(Self { fd, stat, stand_in })
    }

    /// What the kernel knows about a name in it, as it would be told in the subvolume itself.
    pub(crate) fn look(&self, name: &[u8], follow: Follow) -> Result<Stat> {
        let stat = Stat::at(&self.fd, name, follow)?;
        Ok(self.in_place(stat))
    }

    /// What was told about something in it, as it would be told in the subvolume itself.
    pub(crate) fn in_place(&self, stat: Stat) -> Stat {
        Stat {
            device: device_of(self.stand_in, stat.device),
            ..stat
        }
    }

    /// The directory `name` in this one, for listing; `.` is this one.
    pub(crate) fn open(&self, name: &[u8]) -> Result<Self> {
        self.open_through(name, Follow::No)
    }

    /// The same; `name` may be a link to it if links are followed.
    pub(crate) fn open_through(&self, name: &[u8], follow: Follow) -> Result<Self> {
        let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, follow == Follow::No);
        let fd = match openat(&self.fd, name, flags | OFlags::NOATIME, Mode::empty()) {
            // Only its owner may read a directory without a trace.
            Err(Errno::PERM) => openat(&self.fd, name, flags, Mode::empty())?,
            other => other?,
        };
        Self::new(fd, self.stand_in)
    }

    /// The directory `name` in this one, for what is named in it; needs no right to read it.
    pub(crate) fn pass(&self, name: &[u8]) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        Self::new(fd, self.stand_in)
    }

    /// The directory that this one is in, if it is still the one that `stat` describes.
    pub(crate) fn parent(&self, stat: &Stat) -> Result<Self> {
        let parent = self.open(b"..")?;
        if (parent.stat.device, parent.stat.ino) == (stat.device, stat.ino) {
            Ok(parent)
        } else {
            Err(Errno::STALE)
        }
    }
}
