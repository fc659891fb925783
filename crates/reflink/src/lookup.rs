//! Files by their size, as the file system has them now.

use std::collections::BTreeSet;

use drystone_extents::items::{Inode, kind, tree};
use drystone_extents::{Flow, Range};

use crate::error::Result;
use crate::target::Target;
use crate::unsummed::if_there;
use crate::walk::walk;

/// Files that are listed at most.
const FILES_MAX: usize = 1 << 20;

/// Paths of the files of a target that have exactly `bytes` bytes, as [`crate::Space::path`] says them.
pub fn files_of_size(target: &Target, bytes: u64) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    if !target.is_searched() {
        walk(target.place(), &BTreeSet::new(), &mut |file, _| {
            if file.size == bytes && found.len() < FILES_MAX {
                found.push(file.path);
            }
            Ok(())
        })?;
        return Ok(found);
    }
    let fs = target.btrfs()?;
    for root in fs.subvolumes()?.iter().filter(|root| target.has_subvolume(root.id)) {
        let range = Range {
            tree: root.id,
            from: (tree::SUBVOLUMES.0, kind::INODE, 0),
            to: (tree::SUBVOLUMES.1, kind::INODE, u64::MAX),
            min_generation: 0,
        };
        let mut inodes = Vec::new();
        fs.search(range, |key, item| {
            let inode = Inode::decode(key, item).filter(|inode| inode.is_file() && inode.size == bytes);
            inodes.extend(inode.map(|_| key.object));
            if inodes.len() < FILES_MAX {
                Flow::Continue(())
            } else {
                Flow::Break(())
            }
        })?;
        let top = fs.subvolume_path(root.id)?.unwrap_or_default();
        for inode in inodes {
            // What was removed meanwhile has no path.
            let Some(path) = if_there(fs.directory_path(root.id, inode))? else {
                continue;
            };
            let path = path.strip_suffix(b"/").unwrap_or(&path);
            let parts: Vec<&[u8]> = [top.as_slice(), path]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            found.push(parts.join(&b'/'));
        }
    }
    Ok(found)
}
