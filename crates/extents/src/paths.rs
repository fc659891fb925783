//! Where in its subvolume an inode is: the path of a directory or file, and the directories that it has a name in.

use rustix::io::Errno;

use crate::btrfs::{Btrfs, FEW_BYTES, Flow, Range};
use crate::error::{Error, Result};
use crate::ioctl;
use crate::items::{name, parent, tree};

/// Names that a path in a subvolume can have.
const PARTS_MAX: usize = 64 << 10;

impl Btrfs {
    /// The path of a directory in its subvolume, with `/` at its end unless it is the subvolume's root.
    pub fn directory_path(&self, subvolume: u64, inode: u64) -> Result<Vec<u8>> {
        match ioctl::ino_lookup(self.mount(), subvolume, inode) {
            Ok((_, path)) => Ok(path),
            // Longer than the kernel's answer may be.
            Err(Errno::NAMETOOLONG) => self.path_by_names(subvolume, inode),
            Err(source) => Err(Error::kernel("look up a directory", self.name(), source)),
        }
    }

    /// As [`Btrfs::directory_path`], for one of any length: name by name.
    fn path_by_names(&self, subvolume: u64, inode: u64) -> Result<Vec<u8>> {
        let (mut at, mut parts) = (inode, Vec::new());
        while at != tree::SUBVOLUMES.0 && parts.len() < PARTS_MAX {
            let mut found = None;
            self.search_by(Range::of_names(subvolume, at), FEW_BYTES, |key, item| {
                found = name(key, item);
                Flow::Break(())
            })?;
            let (parent, mut part) = found.ok_or_else(|| Error::kernel("look up", self.name(), Errno::NOENT))?;
            part.push(b'/');
            parts.push(part);
            at = parent;
        }
        parts.reverse();
        Ok(parts.concat())
    }

    /// The directories of the same subvolume that an inode has a name in; the top of a subvolume is in itself.
    pub fn parents(&self, subvolume: u64, inode: u64) -> Result<Vec<u64>> {
        let range = Range::of_names(subvolume, inode);
        let mut found = Vec::new();
        self.search_by(range, FEW_BYTES, |key, item| {
            found.extend(parent(key, item));
            Flow::Continue(())
        })?;
        Ok(found)
    }
}
