//! Opening what lies below a directory without ever following a link out of it.
//!
//! - No symbolic link on the way or at the end is followed, and nothing leads above the directory (openat2(2), Linux 5.6).
//! - A kernel or sandbox without that call gets the same by one step for each part of the path.
//! - Whoever may write below the place can therefore make an operation fail, but not make it touch anything elsewhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::{Errno, Result};

/// What a directory is opened with.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens `path` below `root` with these flags; parts are separated by `/`, and none is `..`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, mode, resolve) {
        Err(Errno::NOSYS | Errno::PERM) => open_by_steps(root, path, flags, mode),
        // A rename somewhere in the tree came in between; the steps do not mind.
        Err(Errno::AGAIN) => open_by_steps(root, path, flags, mode),
        outcome => outcome,
    }
}

fn open_by_steps(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    if path.split('/').any(|part| part == "..") {
        return Err(Errno::XDEV);
    }
    let Some((parent, name)) = path.rsplit_once('/') else {
        return openat(root, path, flags, mode);
    };
    let parent = open_by_steps(root, parent, DIRECTORY, Mode::empty())?;
    openat(parent, name, flags, mode)
}

/// Opens a directory below `root`; `""` is `root` itself.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    open(root, if path.is_empty() { "." } else { path }, DIRECTORY, Mode::empty())
}

/// The directory that holds the last part of a path.
pub(crate) enum Parent<'a> {
    /// The place itself.
    Root(BorrowedFd<'a>),
    /// One below it.
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => fd.as_fd(),
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// The directory that a path lies in, and the last part of the path: for calls that take both and follow nothing.
pub(crate) fn parent<'a, 'p>(root: BorrowedFd<'a>, path: &'p str) -> Result<(Parent<'a>, &'p str)> {
    match path.rsplit_once('/') {
        None => Ok((Parent::Root(root), path)),
        Some((parent, name)) => Ok((Parent::Below(directory(root, parent)?), name)),
    }
}

/// The first part of `path` that is neither a directory on the way nor, at the end, a file (or a directory, if one is
/// `wanted`), and what it is instead.
pub(crate) fn foreign(root: BorrowedFd<'_>, path: &str, wanted: FileType) -> Option<(String, &'static str)> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        let part = path.get(..end).filter(|part| !part.is_empty())?;
        // From the top down, so that no link was passed on the way.
        let found = FileType::from_raw_mode(statat(root, part, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode);
        let right = if end == path.len() { wanted } else { FileType::Directory };
        if found != right {
            return Some((part.to_string(), named(found)));
        }
    }
    None
}

fn named(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn both_ways_follow_no_link_and_nothing_above() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("in/a/b")).unwrap();
        std::fs::write(place.path().join("in/a/b/file"), b"x").unwrap();
        std::fs::write(place.path().join("secret"), b"x").unwrap();
        symlink("a", place.path().join("in/link")).unwrap();
        symlink("a/b/file", place.path().join("in/end")).unwrap();
        let root = std::fs::File::open(place.path().join("in")).unwrap();
        for opened in [open, open_by_steps] {
            let open = |path| {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
                opened(root.as_fd(), path, flags, Mode::empty()).map(drop)
            };
            assert_eq!(open("a/b/file"), Ok(()));
            for path in ["link/b/file", "end", "../secret", "a/../../secret"] {
                assert!(open(path).is_err(), "{path}");
            }
        }
        let what = foreign(root.as_fd(), "link/b/file", FileType::RegularFile);
        assert_eq!(what, Some(("link".to_string(), "a symbolic link")));
        assert_eq!(foreign(root.as_fd(), "a/b/file", FileType::RegularFile), None);
    }
}
