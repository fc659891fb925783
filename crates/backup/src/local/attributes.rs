//! Attributes of files as entries of a tree.
//!
//! - A file system without extended attributes has none, which is no problem; one that cannot be read is.
//! - The names of the users and groups that ACLs name by number are kept beside them, for systems with other numbers.

use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

use drystone_format::limits::{ENTRY_MAX_BYTES, XATTR_VALUE_MAX_BYTES, XATTRS_MAX};
use drystone_format::tree::{AclId, Entry, Kind, Marks};
use rustix::fs::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::{Errno, Result};

use crate::local::acl::{Acl, is_acl, is_copy};
use crate::local::dir::{Dir, Stat};
use crate::local::names::Names;

/// Bytes of a list of names that is read at once; the kernel's limit is 64 KiB.
const LIST_BYTES: usize = 64 << 10;

/// Bytes of names and values that an entry may have: half of what its limit is.
const XATTRS_BYTES: usize = ENTRY_MAX_BYTES / 2;

/// Bytes of names in the ACLs of an entry; those beyond it have their numbers alone. ACLs of that many rules do not fit into ext4.
const ACL_NAMES_BYTES: usize = 512 << 10;

/// Names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Extended attributes as far as they could be read, and why some are missing.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) xattrs: Xattrs,
    pub(crate) missing: Option<Missing>,
}

/// The reason for extended attributes that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("{}", std::io::Error::from(*.0))]
    Unreadable(Errno),
    #[error(
        "there are more than {} bytes or {XATTRS_MAX} of them, which is the most that drystone stores of one entry; the first by \
         name are stored",
        XATTRS_BYTES
    )]
    TooMany,
    #[error("/proc is not mounted, and only it leads to those of links, devices, pipes and sockets")]
    NoProc,
}

/// An entry with everything but extended attributes.
pub(crate) fn entry(name: &[u8], stat: &Stat, kind: Kind, names: &Names) -> Entry {
    Entry {
        name: name.to_vec(),
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        user: names.user(stat.uid).to_owned(),
        group: names.group(stat.gid).to_owned(),
        mtime: stat.mtime,
        xattrs: Vec::new(),
        hard_link: stat.hard_link(),
        marks: Marks::default(),
        acl_names: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Gives an entry its extended attributes, and the names of whom its ACLs name.
pub(crate) fn put(entry: &mut Entry, xattrs: Xattrs, names: &Names) {
    let acls = xattrs.iter().filter(|(name, _)| is_acl(name));
    let mut ids: Vec<AclId> = acls
        .filter_map(|(_, value)| Acl::decode(value))
        .flat_map(|acl| acl.named().collect::<Vec<_>>())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut bytes = 0;
    for id in ids {
        let name = match id {
            AclId::User(number) => names.user(number),
            AclId::Group(number) => names.group(number),
        };
        bytes += name.len();
        if !name.is_empty() && bytes <= ACL_NAMES_BYTES {
            entry.acl_names.push((id, name.to_owned()));
        }
    }
    entry.xattrs = xattrs;
}

/// Reads extended attributes; one for each thread, for its buffers.
pub(crate) struct XattrReader {
    list: Vec<u8>,
    value: Vec<u8>,
}

impl XattrReader {
    pub(crate) fn new() -> Self {
        Self {
            list: vec![0; LIST_BYTES],
            value: vec![0; XATTR_VALUE_MAX_BYTES],
        }
    }

    /// Of an open file or directory.
    pub(crate) fn of_open(&mut self, fd: &OwnedFd) -> Found {
        self.collect(|list| flistxattr(fd, list), |name, value| fgetxattr(fd, name, value))
    }

    /// Of a directory that is only passed through.
    pub(crate) fn of_passed(&mut self, dir: &Dir) -> Found {
        let path = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
        self.collect(
            |list| listxattr(&*path, list),
            |name, value| getxattr(&*path, name, value),
        )
    }

    /// Of what cannot be opened: symbolic links, devices, pipes, sockets. There is no such call with a descriptor, but
    /// a path through `/proc` is one.
    pub(crate) fn of_name(&mut self, dir: &Dir, name: &[u8]) -> Found {
        let mut path = Vec::with_capacity(name.len() + 24);
        // Writing into a vector does not fail.
        let _ = write!(path, "/proc/self/fd/{}/", dir.fd.as_raw_fd());
        path.extend_from_slice(name);
        self.collect(
            |list| llistxattr(&*path, list),
            |name, value| lgetxattr(&*path, name, value),
        )
    }

    fn collect(
        &mut self,
        list: impl FnOnce(&mut [u8]) -> Result<usize>,
        get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
    ) -> Found {
        let mut found = Found::default();
        let length = match list(&mut self.list) {
            Ok(length) => length,
            Err(Errno::NOTSUP | Errno::NOSYS) => 0,
            Err(Errno::NOENT) => {
                // Removed since, or there is no way to ask.
                found.missing = (!has_proc()).then_some(Missing::NoProc);
                0
            }
            Err(errno) => {
                found.missing = Some(Missing::Unreadable(errno));
                0
            }
        };
        let names = self.list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
        let mut names: Vec<&[u8]> = names.filter(|name| !name.is_empty() && !is_copy(name)).collect();
        names.sort_unstable();
        let mut bytes = 0;
        for name in names {
            match get(name, &mut self.value) {
                Ok(length) if bytes + name.len() + length > XATTRS_BYTES || found.xattrs.len() == XATTRS_MAX => {
                    found.missing = Some(Missing::TooMany);
                }
                Ok(length) => {
                    bytes += name.len() + length;
                    let value = self.value.get(..length).unwrap_or_default();
                    found.xattrs.push((name.to_vec(), value.to_vec()));
                }
                // Removed since, or listed to everyone but readable by root only.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
                Err(errno) => found.missing = Some(Missing::Unreadable(errno)),
            }
        }
        found
    }
}

/// Returns true if /proc is mounted, which leads to what cannot be opened.
pub(crate) fn has_proc() -> bool {
    rustix::fs::stat("/proc/self/fd").is_ok()
}
