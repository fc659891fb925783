//! Walking a directory for its files, on one file system, without following links and without entering what is mounted in it.
//!
//! - What cannot be looked at is counted, and the first of it named.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, openat, statx};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::space::Unread;

/// Directories that are open at once, one in the other: what lies deeper is not looked at.
const DEPTH_MAX: usize = 512;
/// What could not be looked at and is named.
const NAMED_MAX: usize = 100;

/// A regular file, with what tells whether it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    pub(crate) inode: u64,
    /// Relative to where the walk began.
    pub(crate) path: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    /// Its user.
    pub(crate) owner: u32,
    /// Type and permissions.
    pub(crate) mode: u32,
}

/// Files and directories that could not be looked at.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) named: Vec<Unread>,
}

impl Unreadable {
    pub(crate) fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = NAMED_MAX.saturating_sub(self.named.len());
        self.named.extend(other.named.into_iter().take(room));
    }

    pub(crate) fn add(&mut self, path: &[u8], why: impl ToString) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Unread {
                path: path.to_owned(),
                why: why.to_string(),
            });
        }
    }
}

/// A directory that is being listed.
struct Open {
    directory: Dir,
    path: Vec<u8>,
    is_excluded: bool,
}

/// Calls `visit` for each regular file under `root`, and says whether it is excluded, itself or a directory that it is in, by inode.
///
/// Of those that are excluded it is called only for files of several names.
pub(crate) fn walk(
    root: &OwnedFd,
    excluded: &BTreeSet<u64>,
    visit: &mut dyn FnMut(FoundFile, bool) -> Result<()>,
) -> Result<Unreadable> {
    let about = look(root, b"", AtFlags::EMPTY_PATH).map_err(|source| Error::io(".", "look at", source))?;
    let directory = open_directory(root, b".").map_err(|source| Error::io(".", "list", source))?;
    let mut pending = vec![Open {
        directory,
        path: Vec::new(),
        is_excluded: excluded.contains(&about.stx_ino),
    }];
    let mut unreadable = Unreadable::default();
    while let Some(open) = pending.last_mut() {
        let Some(entry) = open.directory.read() else {
            pending.pop();
            continue;
        };
        let Ok(entry) = entry.inspect_err(|error| unreadable.add(&open.path, error)) else {
            pending.pop();
            continue;
        };
        let name = entry.file_name().to_bytes();
        if [b".".as_slice(), b".."].contains(&name) {
            continue;
        }
        let path = [open.path.as_slice(), name].concat();
        let at = open.directory.fd();
        let stat = match at.and_then(|at| look(at, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => stat,
            // Removed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(error) => {
                unreadable.add(&path, error);
                continue;
            }
        };
        if !is_of(&about, &stat) {
            continue;
        }
        let is_excluded = open.is_excluded || excluded.contains(&stat.stx_ino);
        match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            // Of those that are excluded, what may have a name elsewhere.
            FileType::RegularFile if is_excluded && stat.stx_nlink < 2 => {}
            FileType::RegularFile => visit(found(&stat, path), is_excluded)?,
            FileType::Directory => {
                let child = open.directory.fd().and_then(|at| open_directory(at, name));
                match child {
                    Ok(_) if pending.len() >= DEPTH_MAX => {
                        unreadable.add(&path, format_args!("it lies more than {DEPTH_MAX} directories deep"));
                    }
                    Ok(directory) => pending.push(Open {
                        directory,
                        path: [path.as_slice(), b"/"].concat(),
                        is_excluded,
                    }),
                    Err(error) => unreadable.add(&path, error),
                }
            }
            _ => {}
        }
    }
    Ok(unreadable)
}

fn look(at: impl AsFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<Statx> {
    statx(at, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

/// Whether something is on the file system, and behind the mount, that a walk began on.
fn is_of(about: &Statx, stat: &Statx) -> bool {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    // Kernels before 5.8 tell no mounts.
    let tells = |stat: &Statx| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let is_other_mount = tells(about) && tells(stat) && about.stx_mnt_id != stat.stx_mnt_id;
    device(about) == device(stat) && !is_other_mount
}

fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Dir::new(openat(parent, name, flags, Mode::empty())?)
}

fn found(stat: &Statx, path: Vec<u8>) -> FoundFile {
    let ns = |time: &StatxTimestamp| {
        let seconds = time.tv_sec.saturating_mul(1_000_000_000);
        seconds.saturating_add(i64::from(time.tv_nsec))
    };
    FoundFile {
        inode: stat.stx_ino,
        path,
        size: stat.stx_size,
        mtime_ns: ns(&stat.stx_mtime),
        ctime_ns: ns(&stat.stx_ctime),
        owner: stat.stx_uid,
        mode: u32::from(stat.stx_mode),
    }
}
