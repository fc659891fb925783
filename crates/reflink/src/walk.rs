//! Walking a directory for its files, on one file system, without following links.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use crate::error::{Error, Result};

/// Depth at which a tree is taken for endless.
const DEPTH_MAX: usize = 512;

/// A regular file, with what tells whether it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    pub(crate) inode: u64,
    /// Relative to where the walk began.
    pub(crate) path: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

/// Calls `visit` for each regular file under `root`, with its mode; returns how many files and directories could not be looked at.
pub(crate) fn walk(root: &OwnedFd, visit: &mut dyn FnMut(FoundFile, u32) -> Result<()>) -> Result<u64> {
    let about = fstat(root).map_err(|source| Error::io(".", "look at", source))?;
    let directory = open_directory(root, b".").map_err(|source| Error::io(".", "list", source))?;
    let mut pending = vec![(directory, Vec::new())];
    let mut unreadable = 0;
    while let Some((directory, path)) = pending.last_mut() {
        let Some(entry) = directory.read() else {
            pending.pop();
            continue;
        };
        let Ok(entry) = entry else {
            unreadable += 1;
            pending.pop();
            continue;
        };
        let name = entry.file_name().to_bytes();
        if [b".".as_slice(), b".."].contains(&name) {
            continue;
        }
        let Ok(stat) = directory
            .fd()
            .and_then(|fd| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW))
        else {
            unreadable += 1;
            continue;
        };
        let mut path = path.clone();
        path.extend(name);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_dev == about.st_dev => visit(found(&stat, path), stat.st_mode)?,
            FileType::Directory if stat.st_dev == about.st_dev && pending.len() < DEPTH_MAX => {
                match pending.last().map(|(parent, _)| open_child(parent, name)) {
                    Some(Ok(child)) => {
                        path.push(b'/');
                        pending.push((child, path));
                    }
                    _ => unreadable += 1,
                }
            }
            _ => {}
        }
    }
    Ok(unreadable)
}

fn open_child(parent: &Dir, name: &[u8]) -> rustix::io::Result<Dir> {
    open_directory(parent.fd()?, name)
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &[u8]) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Dir::new(openat(parent, name, flags, Mode::empty())?)
}

fn found(stat: &Stat, path: Vec<u8>) -> FoundFile {
    let ns = |seconds: i64, rest: u64| seconds.saturating_mul(1_000_000_000).saturating_add(rest as i64);
    FoundFile {
        inode: stat.st_ino,
        path,
        size: stat.st_size.max(0) as u64,
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
    }
}
