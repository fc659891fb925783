//! What has to be looked at again in a subvolume since a generation: inodes, and the directories that lead to them.
//!
//! - A directory that is in neither set is as it was, and so is everything below it in this subvolume, whatever its size.
//! - What was removed or renamed shows in the directory that it was in, whose inode changes with its names.
//! - Other subvolumes and mounts below are not seen.

use std::collections::HashSet;

use crate::btrfs::{Btrfs, Flow, Range};
use crate::error::Result;
use crate::items::{FileExtent, Inode, Key, parent};

/// What changed in a subvolume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Inodes that changed in any way.
    pub inodes: HashSet<u64>,
    /// Directories that changed, or in which something changed, at any depth.
    pub directories: HashSet<u64>,
}

/// An inode of which not all items were seen.
#[derive(Default)]
struct Open {
    inode: u64,
    about: Option<Inode>,
    has_new_data: bool,
    parents: Vec<u64>,
}

impl Open {
    fn add(&mut self, key: &Key, item: &[u8], since: u64) {
        self.about = self.about.or_else(|| Inode::decode(key, item));
        self.parents.extend(parent(key, item));
        self.has_new_data |= FileExtent::decode(key, item).is_some_and(|extent| extent.generation >= since);
    }

    fn is_changed(&self, since: u64) -> bool {
        self.has_new_data || self.about.is_some_and(|about| about.changed >= since)
    }

    /// Whether all directories that it has a name in were among its items.
    fn knows_parents(&self) -> bool {
        self.about.is_some_and(|about| about.links == 1) && !self.parents.is_empty()
    }
}

impl Btrfs {
    /// What changed in `subvolume` in generation `since` or later; `None` if that is more than `max` inodes.
    ///
    /// The subvolume must be at rest: what changes meanwhile may be missed. A read-only snapshot is.
    pub fn touched(&self, subvolume: u64, since: u64, max: usize) -> Result<Option<Touched>> {
        let (mut touched, mut open, mut asked) = (Touched::default(), Open::default(), Vec::new());
        let mut close = |open: Open| {
            if !open.is_changed(since) {
                return Flow::Continue(());
            }
            touched.inodes.insert(open.inode);
            if open.about.is_none_or(|about| about.is_dir()) {
                touched.directories.insert(open.inode);
            }
            if open.knows_parents() {
                touched.directories.extend(&open.parents);
            } else {
                asked.push(open.inode);
            }
            if touched.inodes.len() > max {
                Flow::Break(())
            } else {
                Flow::Continue(())
            }
        };
        self.search(Range::since(subvolume, since), |key, item| {
            if open.inode != key.object {
                let last = std::mem::replace(
                    &mut open,
                    Open {
                        inode: key.object,
                        ..Open::default()
                    },
                );
                close(last)?;
            }
            open.add(key, item, since);
            Flow::Continue(())
        })?;
        // Whether to go on matters no more.
        let _ = close(open);
        if touched.inodes.len() > max {
            return Ok(None);
        }
        for inode in asked {
            touched.directories.extend(self.parents(subvolume, inode)?);
        }
        self.add_ancestors(subvolume, &mut touched.directories)?;
        Ok(Some(touched))
    }

    fn add_ancestors(&self, subvolume: u64, directories: &mut HashSet<u64>) -> Result<()> {
        let mut next: Vec<u64> = directories.iter().copied().collect();
        while let Some(inode) = next.pop() {
            let above = self.parents(subvolume, inode)?;
            next.extend(above.into_iter().filter(|above| directories.insert(*above)));
        }
        Ok(())
    }
}
