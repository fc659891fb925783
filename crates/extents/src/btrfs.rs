//! A mounted Btrfs file system, asked as root: extents, checksums, references, subvolumes, files by number.
//!
//! - Nothing but metadata is read, and nothing is changed but by [`Btrfs::commit`].
//! - A stream over a tree takes a bounded buffer, whatever the tree's size; what changes while it runs may be seen or not.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::compare::Layout;
use crate::error::{Error, Result};
use crate::ioctl::{self, SEARCH_HEAD_BYTES, SearchKey, u32_at, u64_at};
use crate::items::{
    CHECKSUM_OBJECT, DiskExtent, FileExtent, Inode, Items, Key, Reference, Root, RootRef, kind, references, tree,
};

/// Buffer of a search that streams a tree, and of one for a few items.
const STREAM_BYTES: usize = 1 << 20;
pub(crate) const FEW_BYTES: usize = 2 << 10;
/// And of one for the extents of a large file.
const LAYOUT_BYTES: usize = 128 << 10;
/// Items that are read over to the next that is looked for: as many as that buffer has.
const OTHERS_MAX: usize = 24;
/// No item is larger than a metadata block.
const ITEM_MAX_BYTES: usize = 128 << 10;
/// Room for references at first, and at most: of an extent with more, as many are told as had room at first.
const REFERENCES_AT_FIRST: usize = 64;
const REFERENCES_MAX: usize = 16 << 10;
/// Directories that a path of subvolumes can be deep.
const DEPTH_MAX: usize = 256;

/// What a file system says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its identity.
    pub fsid: [u8; 16],
    /// Generation of the transaction that runs, or ran last.
    pub generation: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Bytes of a block of metadata, which no item exceeds.
    pub metadata_bytes: u32,
    /// Kind of the checksums: 0 is crc32c.
    pub checksum_kind: u16,
    /// Bytes of a block's checksum.
    pub checksum_bytes: u16,
}

/// Range of keys to search.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The tree.
    pub tree: u64,
    /// First key: object, kind, offset.
    pub from: (u64, u32, u64),
    /// Last key.
    pub to: (u64, u32, u64),
    /// Metadata blocks of an earlier generation are skipped.
    pub min_generation: u64,
}

impl Range {
    /// All items of files and directories of a subvolume in metadata blocks of generation `since` or later.
    pub(crate) fn since(subvolume: u64, since: u64) -> Self {
        Self {
            tree: subvolume,
            from: (tree::SUBVOLUMES.0, 0, 0),
            to: (tree::SUBVOLUMES.1, u32::from(u8::MAX), u64::MAX),
            min_generation: since,
        }
    }
}

impl Range {
    /// The items that say in which directories of its subvolume an inode has a name.
    pub(crate) fn of_names(subvolume: u64, inode: u64) -> Self {
        Self {
            tree: subvolume,
            from: (inode, kind::INODE_REF, 0),
            to: (inode, kind::INODE_EXTENDED_REF, u64::MAX),
            min_generation: 0,
        }
    }
}

/// Whether a stream goes on.
pub type Flow = std::ops::ControlFlow<()>;

/// A mounted file system.
pub struct Btrfs {
    mount: OwnedFd,
    name: String,
    info: Info,
}

impl fmt::Debug for Btrfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btrfs")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Btrfs {
    /// The file system that `path` is on.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mount = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mount = mount.map_err(|source| Error::kernel("open", &name, source))?;
        Self::new(mount, name)
    }

    /// The file system that `mount`, a directory or file, is on; `name` is for messages.
    pub fn new(mount: OwnedFd, name: String) -> Result<Self> {
        let info = read_info(mount.as_fd(), &name)?;
        Ok(Self { mount, name, info })
    }

    /// Ends the running transaction, if there is one, and returns its generation: what is written after this is of a later one.
    ///
    /// (The generation that FS_INFO tells may still be running, and gain data.) What is not yet on its way to the disk is left there.
    pub fn end_generation(&self) -> Result<u64> {
        let done = ioctl::start_sync(self.mount())
            .and_then(|generation| ioctl::wait_sync(self.mount(), generation).map(|()| generation));
        done.map_err(|source| Error::kernel("commit", &self.name, source))
    }

    /// What it said about itself when it was opened.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The directory or file by which it was opened.
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Makes everything that was written so far part of the trees on disk; returns the generation that has it.
    pub fn commit(&self) -> Result<u64> {
        rustix::fs::syncfs(&self.mount).map_err(|source| Error::kernel("write out", &self.name, source))?;
        self.end_generation()
    }

    /// All items of a range, in the order of keys.
    pub fn search(&self, range: Range, visit: impl FnMut(&Key, &[u8]) -> Flow) -> Result<()> {
        self.search_by(range, STREAM_BYTES, visit)
    }

    pub(crate) fn search_by(
        &self,
        range: Range,
        buffer_bytes: usize,
        mut visit: impl FnMut(&Key, &[u8]) -> Flow,
    ) -> Result<()> {
        let mut buffer = vec![0; buffer_bytes];
        let (mut from, to) = (range.from, range.to);
        loop {
            let key = SearchKey {
                tree: range.tree,
                objectid: (from.0, to.0),
                kind: (from.1, to.1),
                offset: (from.2, to.2),
                min_transid: range.min_generation,
            };
            let count = match ioctl::tree_search(self.mount(), &key, u32::MAX, &mut buffer) {
                Err(Errno::OVERFLOW) if buffer.len() < ITEM_MAX_BYTES => {
                    buffer.resize(ITEM_MAX_BYTES, 0);
                    continue;
                }
                other => other.map_err(|source| Error::kernel("search the trees", &self.name, source))?,
            };
            let mut last = None;
            for (key, item) in Items::new(buffer.get(SEARCH_HEAD_BYTES..).unwrap_or_default(), count) {
                last = Some((key.object, key.kind, key.offset));
                if visit(&key, item).is_break() {
                    return Ok(());
                }
            }
            match last.and_then(after) {
                Some(next) if next <= to => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// All extents of data that lie in `from..`, or those written in `min_generation` or later, in the order of the disk.
    pub fn extents(&self, from: u64, min_generation: u64, mut visit: impl FnMut(DiskExtent) -> Flow) -> Result<()> {
        let range = Range {
            tree: tree::EXTENTS,
            from: (from, 0, 0),
            to: (u64::MAX, u32::from(u8::MAX), u64::MAX),
            min_generation,
        };
        self.search(range, |key, item| match DiskExtent::decode(key, item) {
            Some(extent) if extent.generation >= min_generation => visit(extent),
            _ => Flow::Continue(()),
        })
    }

    /// The extent that begins at `start`, if one does.
    pub fn extent(&self, start: u64) -> Result<Option<DiskExtent>> {
        let mut found = None;
        let range = Range {
            tree: tree::EXTENTS,
            from: (start, kind::EXTENT, 0),
            to: (start, kind::EXTENT, u64::MAX),
            min_generation: 0,
        };
        self.search_by(range, FEW_BYTES, |key, item| {
            found = DiskExtent::decode(key, item);
            Flow::Break(())
        })?;
        Ok(found)
    }

    /// Those of `starts` (in order) at which an extent of data begins that was made in `generation` or earlier, and has been there since.
    ///
    /// An extent that is on its way into the extent tree, or out of it, is never taken for an earlier one: a place is given
    /// away only after the transaction that freed it, in which its item goes.
    pub fn made_by(&self, starts: &[u64], generation: u64) -> Result<HashSet<u64>> {
        let (mut found, mut next) = (HashSet::new(), 0);
        let Some(last) = starts.last() else { return Ok(found) };
        while let Some(from) = starts.get(next) {
            let range = Range {
                tree: tree::EXTENTS,
                from: (*from, kind::EXTENT, 0),
                to: (*last, kind::EXTENT, u64::MAX),
                min_generation: 0,
            };
            let (mut others, at) = (0, next);
            self.search_by(range, FEW_BYTES, |key, item| {
                while starts.get(next).is_some_and(|start| *start < key.object) {
                    next += 1;
                }
                let extent = DiskExtent::decode(key, item).filter(|extent| starts.get(next) == Some(&extent.start));
                if let Some(extent) = extent {
                    found.extend((extent.generation <= generation).then_some(extent.start));
                    (next, others) = (next + 1, 0);
                } else {
                    others += 1;
                }
                // Further on it is quicker to search anew.
                if others > OTHERS_MAX {
                    Flow::Break(())
                } else {
                    Flow::Continue(())
                }
            })?;
            if others <= OTHERS_MAX {
                break;
            }
            next = next.max(at + 1);
        }
        Ok(found)
    }

    /// The checksums of the blocks in `from..to`: position on disk of the first, and the checksums one after another.
    ///
    /// The first item may begin before `from`, and the last end after `to`; blocks without checksums are in none.
    pub fn checksums(&self, from: u64, to: u64, mut visit: impl FnMut(u64, &[u8]) -> Flow) -> Result<()> {
        let (block, width) = (
            u64::from(self.info.block_bytes),
            usize::from(self.info.checksum_bytes).max(1),
        );
        let item_blocks = u64::from(self.info.metadata_bytes) / width as u64;
        let range = Range {
            tree: tree::CHECKSUMS,
            from: (
                CHECKSUM_OBJECT,
                kind::CHECKSUM,
                from.saturating_sub(item_blocks * block),
            ),
            to: (CHECKSUM_OBJECT, kind::CHECKSUM, to.saturating_sub(1)),
            min_generation: 0,
        };
        let bytes = if to.saturating_sub(from) > 64 << 20 {
            STREAM_BYTES
        } else {
            FEW_BYTES
        };
        self.search_by(range, bytes, |key, item| {
            let end = key.offset.saturating_add((item.len() / width) as u64 * block);
            if end <= from {
                Flow::Continue(())
            } else {
                visit(key.offset, item)
            }
        })
    }

    /// Where files use the extent that begins at `start`, and whether that is all: of very many references only the first are told.
    pub fn references(&self, start: u64) -> Result<(Vec<Reference>, bool)> {
        let mut room = REFERENCES_AT_FIRST;
        loop {
            let mut container = vec![0; ioctl::CONTAINER_HEAD_BYTES + room * 24];
            match ioctl::logical_ino(self.mount(), start, &mut container) {
                Err(Errno::NOENT) => return Ok((Vec::new(), true)),
                other => other.map_err(|source| Error::kernel("list references", &self.name, source))?,
            }
            let (found, missed) = references(&container);
            match missed {
                0 => return Ok((found, true)),
                _ if found.len() + missed as usize > REFERENCES_MAX => return Ok((found, false)),
                missed => room = found.len() + missed as usize + 8,
            }
        }
    }

    /// The extents of a file that begin in `from..=to` of it.
    pub fn file_extents(&self, subvolume: u64, inode: u64, (from, to): (u64, u64)) -> Result<Vec<FileExtent>> {
        let range = Range {
            tree: subvolume,
            from: (inode, kind::FILE_EXTENT, from),
            to: (inode, kind::FILE_EXTENT, to),
            min_generation: 0,
        };
        let mut found = Vec::new();
        self.search_by(range, FEW_BYTES, |key, item| {
            found.extend(FileExtent::decode(key, item));
            Flow::Continue(())
        })?;
        Ok(found)
    }

    /// Where a file lies, unless it lies in more than `max` pieces.
    pub fn layout(&self, subvolume: u64, inode: u64, max: usize) -> Result<Option<Layout>> {
        let Some(about) = self.inode(subvolume, inode)? else {
            return Ok(None);
        };
        let range = Range {
            tree: subvolume,
            from: (inode, kind::FILE_EXTENT, 0),
            to: (inode, kind::FILE_EXTENT, u64::MAX),
            min_generation: 0,
        };
        let mut extents = Vec::new();
        self.search_by(range, LAYOUT_BYTES, |key, item| {
            extents.extend(FileExtent::decode(key, item));
            if extents.len() > max {
                Flow::Break(())
            } else {
                Flow::Continue(())
            }
        })?;
        let len = about.size;
        Ok(Some(Layout { len, extents }).filter(|layout| layout.extents.len() <= max))
    }

    /// An inode, if it is there.
    pub fn inode(&self, subvolume: u64, inode: u64) -> Result<Option<Inode>> {
        let mut found = None;
        let range = Range {
            tree: subvolume,
            from: (inode, kind::INODE, 0),
            to: (inode, kind::INODE, 0),
            min_generation: 0,
        };
        self.search_by(range, FEW_BYTES, |key, item| {
            found = Inode::decode(key, item);
            Flow::Break(())
        })?;
        Ok(found)
    }

    /// Opens a file read-only, whether or not its subvolume is mounted.
    pub fn open_file(&self, subvolume: u64, inode: u64) -> Result<OwnedFd> {
        ioctl::open_by_handle(self.mount(), subvolume, inode).map_err(|source| {
            Error::kernel(
                "open",
                format!("inode {inode} of subvolume {subvolume} of {}", self.name),
                source,
            )
        })
    }

    /// All subvolumes and snapshots that are linked, in the order of their numbers.
    pub fn subvolumes(&self) -> Result<Vec<Root>> {
        let range = Range {
            tree: tree::ROOTS,
            from: (tree::TOP, kind::ROOT, 0),
            to: (tree::SUBVOLUMES.1, kind::ROOT, u64::MAX),
            min_generation: 0,
        };
        let mut found = Vec::new();
        self.search(range, |key, item| {
            found.extend(Root::decode(key, item).filter(|root| root.linked));
            Flow::Continue(())
        })?;
        Ok(found)
    }

    /// The path of a subvolume from the top of the file system; empty for the top itself, `None` if it is not linked.
    pub fn subvolume_path(&self, subvolume: u64) -> Result<Option<Vec<u8>>> {
        let (mut at, mut parts) = (subvolume, Vec::new());
        while at != tree::TOP && parts.len() < DEPTH_MAX {
            let Some(link) = self.link(at)? else { return Ok(None) };
            let mut part = self.directory_path(link.parent, link.dir)?;
            part.extend(&link.name);
            parts.push(part);
            at = link.parent;
        }
        parts.reverse();
        Ok(Some(parts.join(&b'/')))
    }

    /// A subvolume and all that are linked in it, and in those.
    pub fn nested(&self, top: u64) -> Result<BTreeSet<u64>> {
        let range = Range {
            tree: tree::ROOTS,
            from: (tree::SUBVOLUMES.0, kind::ROOT_BACKREF, 0),
            to: (tree::SUBVOLUMES.1, kind::ROOT_BACKREF, u64::MAX),
            min_generation: 0,
        };
        let mut links = Vec::new();
        self.search(range, |key, item| {
            links.extend(RootRef::decode(key, item).map(|link| (link.parent, link.child)));
            Flow::Continue(())
        })?;
        let (mut found, mut next) = (BTreeSet::from([top]), vec![top]);
        while let Some(parent) = next.pop() {
            let children = links.iter().filter(|(of, _)| *of == parent).map(|(_, child)| *child);
            next.extend(children.filter(|child| found.insert(*child)));
        }
        Ok(found)
    }

    pub(crate) fn link(&self, subvolume: u64) -> Result<Option<RootRef>> {
        let range = Range {
            tree: tree::ROOTS,
            from: (subvolume, kind::ROOT_BACKREF, 0),
            to: (subvolume, kind::ROOT_BACKREF, u64::MAX),
            min_generation: 0,
        };
        let mut found = None;
        self.search_by(range, FEW_BYTES, |key, item| {
            found = RootRef::decode(key, item);
            Flow::Break(())
        })?;
        Ok(found)
    }
}

fn read_info(fd: BorrowedFd<'_>, name: &str) -> Result<Info> {
    let reply = ioctl::fs_info(fd).map_err(|source| Error::kernel("tell its identity", name, source))?;
    let fsid = reply.get(16..).and_then(|rest| rest.first_chunk()).copied();
    let info = Info {
        fsid: fsid.unwrap_or_default(),
        generation: u64_at(&reply, 56),
        block_bytes: u32_at(&reply, 36),
        metadata_bytes: u32_at(&reply, 32),
        checksum_kind: u32_at(&reply, 44) as u16,
        checksum_bytes: (u32_at(&reply, 44) >> 16) as u16,
    };
    Ok(info)
}

/// The key that follows, if there is one.
fn after((object, kind, offset): (u64, u32, u64)) -> Option<(u64, u32, u64)> {
    if let Some(offset) = offset.checked_add(1) {
        return Some((object, kind, offset));
    }
    if kind < u32::from(u8::MAX) {
        return Some((object, kind + 1, 0));
    }
    Some((object.checked_add(1)?, 0, 0))
}

/// The subvolume that a file or directory is in; works without privileges.
pub fn subvolume_of(fd: BorrowedFd<'_>, name: &str) -> Result<u64> {
    let found = ioctl::ino_lookup(fd, 0, tree::SUBVOLUMES.0);
    found
        .map(|(id, _)| id)
        .map_err(|source| Error::kernel("tell its subvolume", name, source))
}
