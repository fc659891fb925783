//! From what a user names to the file systems that are meant.
//!
//! - What is opened is what was named, or an error: a mount that another one hides is told from that by its number.
//! - One name that cannot be resolved stops no other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use drystone_extents::items::tree;
use drystone_extents::{Kind, Mount, fs_id, kind_of, mounts};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::Target;
use crate::devices::{devices, uuid};
use crate::error::{Error, Result};

/// Where links of file systems by UUID and label are.
const BY_UUID: &str = "/dev/disk/by-uuid";
const BY_LABEL: &str = "/dev/disk/by-label";
/// Kinds of file systems that can share data.
const KINDS: [&str; 2] = ["btrfs", "xfs"];

/// What was found by the names that were given.
#[derive(Debug, Default)]
pub struct Found {
    /// The file systems, or parts of them.
    pub targets: Vec<Target>,
    /// Why the others were not.
    pub failed: Vec<Error>,
}

impl Found {
    /// The targets, if all were found.
    pub fn all(self) -> Result<Vec<Target>> {
        self.failed.into_iter().next().map_or(Ok(self.targets), Err)
    }

    fn add(&mut self, found: Result<Target>) {
        let target = match found {
            Ok(target) => target,
            Err(error) => return self.failed.push(error),
        };
        let is_same = |known: &&mut Target| known.id == target.id && known.is_searched() && target.is_searched();
        match self.targets.iter_mut().find(is_same) {
            Some(known) => known.join(target),
            None => self.targets.push(target),
        }
    }
}

/// Whether root asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsRoot(pub bool);

/// The targets that `names` are; all mounted ones that can be written, if there are none. `is_root` is whether root asks.
pub fn find_targets(names: &[String], is_root: IsRoot) -> Result<Found> {
    let finder = Finder {
        mounts: mounts()?,
        is_root: is_root.0,
    };
    let mut found = Found::default();
    if names.is_empty() {
        finder.mounted(&mut found);
    }
    for name in names {
        found.add(finder.find(name));
    }
    for target in &mut found.targets {
        target.ways = finder.ways(target);
    }
    Ok(found)
}

/// Whether a file system of this identity is there now: mounted, or on a device that is known.
pub fn is_there(id: &[u8; 16]) -> bool {
    let finder = mounts().map(|mounts| Finder { mounts, is_root: false });
    finder.is_ok_and(|finder| finder.place_of(id).is_some() || device_of(id).is_some())
}

fn refused(path: impl Into<PathBuf>, why: &str) -> Error {
    Error::Target {
        path: path.into(),
        why: why.to_owned(),
    }
}

struct Finder {
    mounts: Vec<Mount>,
    is_root: bool,
}

impl Finder {
    fn find(&self, name: &str) -> Result<Target> {
        if let Some(path) = name.strip_prefix("vol:") {
            let mut target = self.at_path(Path::new(path))?;
            if target.kind != Kind::Btrfs {
                return Err(refused(path, "only Btrfs has subvolumes: leave out `vol:`"));
            }
            let alone = target.subvolume()?;
            target.subvolumes = Some(BTreeSet::from([alone]));
            target.named = BTreeSet::from([format!("subvolume {alone}")]);
            return Ok(target);
        }
        if let Some(label) = name.strip_prefix("LABEL=") {
            return self.labelled(label);
        }
        let text = name.strip_prefix("UUID=").unwrap_or(name);
        if let Some(id) = uuid_of(text) {
            return self.identified(text, &id);
        }
        if name.starts_with("UUID=") {
            return Err(refused(name, "this is no UUID of a file system that can share data"));
        }
        if name.starts_with("/dev/") {
            let device = fs::canonicalize(name).map_err(|_| refused(name, "no such device"))?;
            return self.whole(&device);
        }
        let mut target = self.at_path(Path::new(name))?;
        if target.is_searched() {
            let top = target.subvolume()?;
            if top != tree::TOP {
                target.subvolumes = Some(target.btrfs()?.nested(top)?);
                target.named = BTreeSet::from([format!("all in {top}")]);
            }
        }
        Ok(target)
    }

    fn at_path(&self, path: &Path) -> Result<Target> {
        let absolute = fs::canonicalize(path).map_err(|_| refused(path, "there is no such file or directory"))?;
        let place = open_directory(CWD, &absolute).map_err(|source| match source {
            Errno::NOTDIR => refused(path, "it is a file: name its directory, or use `dedup files`"),
            source => Error::io(path, "open", source),
        })?;
        self.of_place(place, path.display().to_string(), Some(absolute))
    }

    fn of_place(&self, place: OwnedFd, name: String, path: Option<PathBuf>) -> Result<Target> {
        let kind = kind_of(&place)?;
        if kind == Kind::Other {
            return Err(refused(
                name,
                "its file system cannot share data: only Btrfs and XFS (with reflink) can",
            ));
        }
        Ok(Target {
            name,
            id: fs_id(place.as_fd())?,
            kind,
            place,
            path,
            ways: Vec::new(),
            subvolumes: None,
            named: BTreeSet::new(),
            is_root: self.is_root,
        })
    }

    /// All file systems that are mounted to be written, each once.
    fn mounted(&self, found: &mut Found) {
        let mut by_device: BTreeMap<(u32, u32), Vec<&Mount>> = BTreeMap::new();
        for mount in self.mounts.iter().filter(|mount| KINDS.contains(&mount.kind.as_str())) {
            by_device.entry(mount.device).or_default().push(mount);
        }
        for mounts in by_device.into_values() {
            let Some(first) = mounts.iter().find(|mount| mount.writable) else {
                continue;
            };
            // Containers mount single files of what belongs to others.
            if mounts.iter().all(|mount| is_file_mount(mount)) {
                continue;
            }
            let target = match self.best_of(&mounts) {
                Some(target) => target,
                None => fs::canonicalize(&first.source)
                    .map_err(|source| Error::io(&first.source, "find", source))
                    .and_then(|device| self.hidden(&device)),
            };
            found.add(target);
        }
    }

    /// A file system by its label.
    fn labelled(&self, label: &str) -> Result<Target> {
        let name = || format!("LABEL={label}");
        let mut found: Vec<(PathBuf, [u8; 16])> = Vec::new();
        for (path, named) in devices()
            .into_iter()
            .filter(|(_, named)| named.label == label.as_bytes())
        {
            if found.iter().all(|(_, known)| *known != named.uuid) {
                found.push((path, named.uuid));
            }
        }
        match found.as_slice() {
            [(device, _)] => self.whole(device),
            [] => match fs::canonicalize(Path::new(BY_LABEL).join(label)) {
                Ok(device) => self.whole(&device),
                Err(_) => Err(refused(name(), "no file system that can share data has this label")),
            },
            _ => Err(refused(
                name(),
                "several file systems have this label: name one by its UUID",
            )),
        }
    }

    /// A file system by its identity.
    fn identified(&self, name: &str, id: &[u8; 16]) -> Result<Target> {
        if let Some(device) = self.place_of(id) {
            let mounts: Vec<&Mount> = self.mounts.iter().filter(|mount| mount.device == device).collect();
            if let Some(target) = self.best_of(&mounts) {
                return target;
            }
        }
        let device = device_of(id).ok_or_else(|| refused(name, "no file system has this UUID"))?;
        let target = self.whole(&device)?;
        if target.id == *id {
            Ok(target)
        } else {
            Err(refused(name, "no file system has this UUID"))
        }
    }

    /// The number of the mounted file system of this identity.
    fn place_of(&self, id: &[u8; 16]) -> Option<(u32, u32)> {
        let mut known = self.mounts.iter().filter(|mount| KINDS.contains(&mount.kind.as_str()));
        let has_id = |mount: &&Mount| {
            let place = open_mount(mount);
            place.is_some_and(|place| fs_id(place.as_fd()).is_ok_and(|own| own == *id))
        };
        known.find(has_id).map(|mount| mount.device)
    }

    /// A whole file system, by its device.
    fn whole(&self, device: &Path) -> Result<Target> {
        let number = rustix::fs::stat(device).ok();
        let number = number.map(|about| (rustix::fs::major(about.st_rdev), rustix::fs::minor(about.st_rdev)));
        let own = |mount: &&Mount| {
            let is_source = || fs::canonicalize(&mount.source).is_ok_and(|source| source == device);
            Some(mount.device) == number || KINDS.contains(&mount.kind.as_str()) && is_source()
        };
        let mounts: Vec<&Mount> = self.mounts.iter().filter(own).collect();
        match self.best_of(&mounts) {
            Some(target) => target,
            None if mounts.is_empty() && !self.is_root => {
                Err(refused(device, "it is not mounted, and only root may mount it"))
            }
            None => self.hidden(device),
        }
    }

    /// Of mounts of one file system the largest part that can be written, and is not hidden by another mount.
    fn best_of(&self, mounts: &[&Mount]) -> Option<Result<Target>> {
        let mut sorted = mounts.to_vec();
        sorted.sort_by_key(|mount| (!mount.writable, mount.root.as_os_str().len()));
        let mut open = sorted.into_iter().filter_map(|mount| Some((open_mount(mount)?, mount)));
        let (place, mount) = open.next()?;
        Some(self.of_place(place, mount.path.display().to_string(), Some(mount.path.clone())))
    }

    /// A file system whose mounts, if it has any, lead nowhere.
    fn hidden(&self, device: &Path) -> Result<Target> {
        if !self.is_root {
            return Err(refused(
                device,
                "other mounts hide it, and only root may mount it elsewhere",
            ));
        }
        let place = mount_privately(device)?;
        self.of_place(place, device.display().to_string(), None)
    }

    /// Where parts of a target's file system are mounted: the part, and where.
    fn ways(&self, target: &Target) -> Vec<(PathBuf, PathBuf)> {
        let own = mount_id(&target.place).and_then(|id| self.mounts.iter().find(|mount| mount.id == id));
        let of_it = |mount: &&Mount| own.is_some_and(|own| own.device == mount.device);
        let open = self
            .mounts
            .iter()
            .filter(of_it)
            .filter(|mount| open_mount(mount).is_some());
        open.map(|mount| (mount.root.clone(), mount.path.clone())).collect()
    }
}

fn open_directory(at: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The mount that something lies behind, if the kernel tells.
fn mount_id(place: impl AsFd) -> Option<u64> {
    let about = statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (about.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(about.stx_mnt_id)
}

/// Whether something lies behind a mount, and not behind one that hides it.
fn is_behind(place: impl AsFd, mount: &Mount) -> bool {
    // Kernels before 5.8 tell no mounts, but numbers of devices, which those of Btrfs are not.
    let device = || {
        let about = rustix::fs::fstat(&place).ok();
        let number = about.map(|about| (rustix::fs::major(about.st_dev), rustix::fs::minor(about.st_dev)));
        mount.kind == "btrfs" || number == Some(mount.device)
    };
    mount_id(&place).map_or_else(device, |id| id == mount.id)
}

/// The directory of a mount, if it can be opened and is not hidden.
fn open_mount(mount: &Mount) -> Option<OwnedFd> {
    let place = open_directory(CWD, &mount.path).ok()?;
    is_behind(&place, mount).then_some(place)
}

fn is_file_mount(mount: &Mount) -> bool {
    let opened = openat(CWD, &mount.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    opened.is_ok_and(|place| {
        let about = rustix::fs::fstat(&place);
        let is_directory = about.is_ok_and(|about| FileType::from_raw_mode(about.st_mode).is_dir());
        !is_directory && is_behind(&place, mount)
    })
}

/// Mounts a device where nobody else sees it; gone with the descriptor.
fn mount_privately(device: &Path) -> Result<OwnedFd> {
    let text = device.display().to_string();
    let mount = |kind: &str| {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", text.as_str())?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        // A descriptor that files can be opened and ioctls made by.
        open_directory(mount, Path::new("."))
    };
    let mut failure = Errno::NODEV;
    for kind in KINDS {
        match mount(kind) {
            Ok(place) => return Ok(place),
            Err(error) => failure = error,
        }
    }
    Err(Error::io(device, "mount", failure))
}

/// The identity that a UUID as people write it stands for.
fn uuid_of(name: &str) -> Option<[u8; 16]> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let has_form = name.len() == 36 && DASHES.iter().all(|at| name.as_bytes().get(*at) == Some(&b'-'));
    let digits: Vec<u8> = name.bytes().filter(|byte| *byte != b'-').collect();
    if !has_form || digits.len() != 32 {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let text = str::from_utf8(pair)
            .ok()
            .filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
        *byte = u8::from_str_radix(text, 16).ok()?;
    }
    Some(id)
}

/// The device of the file system of this identity.
fn device_of(id: &[u8; 16]) -> Option<PathBuf> {
    let link = Path::new(BY_UUID).join(uuid(id));
    let known = || {
        devices()
            .into_iter()
            .find(|(_, named)| named.uuid == *id)
            .map(|(path, _)| path)
    };
    fs::canonicalize(link).ok().or_else(known)
}

impl Target {
    /// A path on its file system, as [`crate::Space::path`] says it, such that it can be opened; from the top where no mount leads to it.
    pub fn reachable(&self, path: &[u8]) -> PathBuf {
        let inner = OsStr::from_bytes(path);
        if !self.is_searched() {
            return self.path.as_ref().map_or_else(|| inner.into(), |own| own.join(inner));
        }
        let from_top = Path::new("/").join(inner);
        let by = |(root, at): &(PathBuf, PathBuf)| Some(at.join(from_top.strip_prefix(root).ok()?));
        self.ways.iter().find_map(by).unwrap_or(from_top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_nothing_are_refused() {
        let find = |name: &str| {
            let found = find_targets(&[name.to_owned()], IsRoot(false)).and_then(Found::all);
            found.unwrap_err().to_string()
        };
        assert!(find("/no/such/place").contains("no such"));
        assert!(find("/dev/no-such-device").contains("no such device"));
        for uuid in [
            "01234567-89ab-cdef-0123-456789ABCDEF",
            "UUID=01234567-89ab-cdef-0123-456789ABCDEF",
        ] {
            assert!(find(uuid).contains("no file system has this UUID"));
        }
        assert!(find("UUID=1234-ABCD").contains("no UUID"));
        assert!(find("LABEL=no such label").contains("no file system"));
        assert!(find("/proc").contains("Btrfs and XFS"));
        assert!(find("vol:/no/such").contains("no such"));
        assert!(uuid_of("01234567-89ab-cdef-0123-456789ABCDEg").is_none());
    }
}
