//! Which file systems are mounted where, and of what kind; from /proc/self/mountinfo, whose lines `man 5 proc` specifies.
//!
//! - A line that cannot be read as one is left out.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ioctl;

const MOUNTINFO: &str = "/proc/self/mountinfo";
const BTRFS_MAGIC: u64 = 0x9123_683e;
const XFS_MAGIC: u64 = 0x5846_5342;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as statx(2) tells it of what lies behind it.
    pub id: u64,
    /// Number of the file system, major and minor: the same for all its mounts, and for XFS that of its device.
    pub device: (u32, u32),
    /// Where.
    pub path: PathBuf,
    /// Which part of the file system, from its top.
    pub root: PathBuf,
    /// Type, as mount calls it.
    pub kind: String,
    /// What it is mounted from: a device, for those that are of interest here.
    pub source: PathBuf,
    /// Whether it can be written.
    pub writable: bool,
}

/// Kind of a file system, as far as sharing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Btrfs.
    Btrfs,
    /// XFS, with or without reflink.
    Xfs,
    /// Any other.
    Other,
}

/// All mounts that this process sees, in the order in which they were made.
pub fn mounts() -> Result<Vec<Mount>> {
    let text = fs::read(MOUNTINFO).map_err(|source| Error::Proc {
        path: MOUNTINFO.into(),
        source,
    })?;
    Ok(parse(&text))
}

/// The kind of the file system that a file or directory is on.
pub fn kind_of(fd: impl AsFd) -> Result<Kind> {
    let stat = rustix::fs::fstatfs(fd).map_err(|source| Error::kernel("tell its file system", "the file", source))?;
    Ok(match stat.f_type as u64 {
        BTRFS_MAGIC => Kind::Btrfs,
        XFS_MAGIC => Kind::Xfs,
        _ => Kind::Other,
    })
}

/// Identity of the file system that a file or directory is on: its UUID, or, from kernels that do not tell, what statfs has.
pub fn fs_id(fd: BorrowedFd<'_>) -> Result<[u8; 16]> {
    if let Ok([16, uuid @ ..]) = ioctl::fs_uuid(fd) {
        return Ok(uuid);
    }
    // Btrfs, which has one per device too, tells in its own way.
    let of_btrfs = ioctl::fs_info(fd).ok();
    if let Some(id) = of_btrfs.and_then(|info| info.get(16..)?.first_chunk().copied()) {
        return Ok(id);
    }
    let stat = rustix::fs::fstatvfs(fd).map_err(|source| Error::kernel("tell its identity", "the file", source))?;
    let mut id = [0; 16];
    id.iter_mut()
        .zip(stat.f_fsid.to_le_bytes())
        .for_each(|(to, from)| *to = from);
    Ok(id)
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| str::from_utf8(word).ok()?.parse::<u64>().ok();
    let id = number(words.next()?)?;
    let mut device = words.nth(1)?.split(|byte| *byte == b':').filter_map(number);
    let device = (u32::try_from(device.next()?).ok()?, u32::try_from(device.next()?).ok()?);
    let root = words.next()?;
    let path = words.next()?;
    let options = words.next()?;
    let mut rest = words.skip_while(|word| *word != b"-").skip(1);
    let (kind, source, whole) = (rest.next()?, rest.next()?, rest.next()?);
    let says = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"rw");
    Some(Mount {
        id,
        device,
        path: unescape(path),
        root: unescape(root),
        kind: String::from_utf8(kind.to_vec()).ok()?,
        source: unescape(source),
        writable: says(options) && says(whole),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut plain = Vec::new();
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let digits = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(*first));
        if value.is_some() {
            rest = after.get(3..).unwrap_or_default();
        }
    }
    OsString::from_vec(plain).into()
}

/// The mount that a path is on: the one whose directory is the longest beginning of it; of several, the one mounted last.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let holds = mounts.iter().filter(|mount| path.starts_with(&mount.path));
    holds.max_by_key(|mount| mount.path.as_os_str().as_bytes().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_read() {
        let text = b"36 35 98:0 /sub /mnt/a\\040b rw,noatime master:1 shared:2 - btrfs /dev/loop0 rw,ssd\nbad\n\
                     37 35 98:0 / /mnt ro - xfs /dev/loop1 rw\n38 1 0:1 / / rw - ext4 /dev/vda ro\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].path, Path::new("/mnt/a b"));
        assert_eq!((mounts[0].id, mounts[0].device), (36, (98, 0)));
        assert_eq!(mounts[0].root, Path::new("/sub"));
        assert_eq!((mounts[0].kind.as_str(), mounts[0].writable), ("btrfs", true));
        assert!(!mounts[1].writable && !mounts[2].writable);
        let of = |path: &str| mount_of(&mounts, Path::new(path)).unwrap().kind.clone();
        assert_eq!(
            (of("/mnt/a b/c"), of("/mnt/ab"), of("/etc")),
            ("btrfs".into(), "xfs".into(), "ext4".into())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in proptest::collection::vec(any::<u8>(), 0..500)) {
            parse(&text);
        }

        #[test]
        fn any_path_comes_back(path in proptest::collection::vec(1u8..255, 1..40)) {
            let escaped: Vec<u8> = path.iter().flat_map(|byte| format!("\\{byte:03o}").into_bytes()).collect();
            prop_assert_eq!(unescape(&escaped).into_os_string().into_vec(), path);
        }
    }
}
