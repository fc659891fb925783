//! Attributes of files as entries of a tree.
//!
//! - A file system without extended attributes has none, which is no problem; one that cannot be read is.

use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

use drystone_format::limits::{ENTRY_MAX_BYTES, XATTR_VALUE_MAX_BYTES, XATTRS_MAX};
use drystone_format::tree::{Entry, Kind, Marks};
use rustix::fs::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::{Errno, Result};

use crate::dir::{Dir, Stat};
use crate::names::Names;

/// Bytes of a list of names that is read at once; the kernel's limit is 64 KiB.
const LIST_BYTES: usize = 64 << 10;

/// Bytes of names and values that an entry may have: half of what its limit is.
const XATTRS_BYTES: usize = ENTRY_MAX_BYTES / 2;

/// Names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

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
    pub(crate) fn of_open(&mut self, fd: &OwnedFd) -> Result<Xattrs> {
        self.collect(|list| flistxattr(fd, list), |name, value| fgetxattr(fd, name, value))
    }

    /// Of a directory that is only passed through.
    pub(crate) fn of_passed(&mut self, dir: &Dir) -> Result<Xattrs> {
        let path = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
        self.collect(
            |list| listxattr(&*path, list),
            |name, value| getxattr(&*path, name, value),
        )
    }

    /// Of what cannot be opened: symbolic links, devices, pipes, sockets. There is no such call with a descriptor, but
    /// a path through `/proc` is one.
    pub(crate) fn of_name(&mut self, dir: &Dir, name: &[u8]) -> Result<Xattrs> {
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
    ) -> Result<Xattrs> {
        let length = match list(&mut self.list) {
            // Without /proc there is no way to ask.
            Err(Errno::NOTSUP | Errno::NOENT | Errno::NOSYS) => 0,
            other => other?,
        };
        let (mut xattrs, mut bytes) = (Vec::new(), 0);
        let names = self.list.get(..length).unwrap_or_default();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match get(name, &mut self.value) {
                Ok(length) => {
                    bytes += name.len() + length;
                    if bytes > XATTRS_BYTES || xattrs.len() == XATTRS_MAX {
                        return Err(Errno::TOOBIG);
                    }
                    xattrs.push((name.to_vec(), self.value.get(..length).unwrap_or_default().to_vec()));
                }
                // Removed since, or listed to everyone but readable by root only.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
                Err(error) => return Err(error),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }
}
