//! What changed in a subvolume since a generation, from its tree alone: the base of `find-new` and of incremental backups.
//!
//! - Metadata blocks that are older are not read, so that it costs what changed, whatever the size of the subvolume.
//! - Data is new by the generation of its extents, which sharing and cloning keep: an old extent at a place of a file does not
//!   prove that the place is unchanged. To know that, compare where it lies ([`Btrfs::file_extents`]) with where it lay before.

use std::ops::ControlFlow;

use crate::btrfs::{Btrfs, Flow, Range};
use crate::error::Result;
use crate::items::{FileExtent, Form, Inode, Key, kind};

/// An inode that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub inode: u64,
    /// What it is by now.
    pub about: Inode,
    /// Data that was written, by position in the file: offset and length, in order. Holes that were made are not in it.
    pub written: Vec<(u64, u64)>,
}

/// Ranges of one file that are told apart at most; more are joined to one.
const RANGES_MAX: usize = 64 << 10;

impl Btrfs {
    /// All inodes of `subvolume` that changed in generation `since` or later, in the order of their numbers.
    pub fn changes(&self, subvolume: u64, since: u64, mut visit: impl FnMut(Change) -> Flow) -> Result<()> {
        let mut open: Option<Open> = None;
        let mut failure = None;
        let mut stopped = false;
        self.search(Range::since(subvolume, since), |key, item| {
            if open.as_ref().is_none_or(|open| open.inode != key.object) {
                let flow = open.take().map_or(Ok(Flow::Continue(())), |last| {
                    self.close(subvolume, since, last, &mut visit)
                });
                match flow {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => {
                        stopped = true;
                        return Flow::Break(());
                    }
                    Err(error) => {
                        failure = Some(error);
                        return Flow::Break(());
                    }
                }
                open = Some(Open {
                    inode: key.object,
                    about: None,
                    written: Vec::new(),
                });
            }
            if let Some(open) = &mut open {
                open.add(key, item, since);
            }
            Flow::Continue(())
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if let Some(last) = open.filter(|_| !stopped) {
            // Whether to go on matters no more.
            let _ = self.close(subvolume, since, last, &mut visit)?;
        }
        Ok(())
    }

    fn close(&self, subvolume: u64, since: u64, open: Open, visit: &mut impl FnMut(Change) -> Flow) -> Result<Flow> {
        let about = match open.about {
            Some(about) => Some(about),
            None if open.written.is_empty() => None,
            // Its inode lies in a metadata block that did not change.
            None => self.inode(subvolume, open.inode)?,
        };
        Ok(match about {
            Some(about) if about.changed >= since || !open.written.is_empty() => visit(Change {
                inode: open.inode,
                about,
                written: open.written,
            }),
            _ => Flow::Continue(()),
        })
    }
}

/// An inode of which not all items were seen.
struct Open {
    inode: u64,
    about: Option<Inode>,
    written: Vec<(u64, u64)>,
}

impl Open {
    fn add(&mut self, key: &Key, item: &[u8], since: u64) {
        if key.kind == kind::INODE {
            self.about = Inode::decode(key, item);
        }
        let extent = FileExtent::decode(key, item).filter(|extent| extent.generation >= since);
        let is_data = |extent: &FileExtent| match extent.form {
            Form::Inline => true,
            Form::Plain | Form::Encoded => extent.disk_start != 0,
            Form::Reserved => false,
        };
        let Some(extent) = extent.filter(|extent| is_data(extent) && extent.len > 0) else {
            return;
        };
        let end = extent.file_offset.saturating_add(extent.len);
        let is_full = self.written.len() >= RANGES_MAX;
        match self.written.last_mut() {
            Some((from, len)) if *from + *len == extent.file_offset => *len += extent.len,
            Some((from, len)) if is_full => *len = end.saturating_sub(*from),
            _ => self.written.push((extent.file_offset, extent.len)),
        }
    }
}
