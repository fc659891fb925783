//! Btrfs as root: fingerprints from the checksum tree, uses from the trees of the subvolumes.
//!
//! - Extents come from the extent tree, which has each once however many snapshots there are, with the generation that it was
//!   written in: sharing keeps that, so that a run is not new data to the next.
//! - No data is read but what has no checksums (NODATASUM, NODATACOW), and that only if it is wanted.

mod stream;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_extents::items::{DiskExtent, FileExtent, Form, Inode, Key, Reference, kind, tree};
use drystone_extents::{Btrfs, Flow, Range};
use parking_lot::Mutex;
use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};
use rustix::io::Errno;

use crate::devices::uuid;
use crate::error::{Error, Result};
use crate::files::join_own;
use crate::progress::Cancel;
use crate::scope::{Scope, Scoped, is_private};
use crate::space::{Extent, FileId, NO_PRINT, Print, Space, Unread, Use, Uses, Which};
use crate::unsummed::{Unsummed, if_there, reader};

/// crc32c of 4096 zeros.
const ZERO_CRC32C: Print = 0x98f9_4189;
/// A walk through all files costs about as much as looking up the uses of one extent in so many.
const WALK_ABOVE: u64 = 6;
/// Looking for single extents costs about as much as streaming so many.
const STREAM_ABOVE: u64 = 32;

/// What tells one start of the machine from another, and where the kernel shows mounted file systems by UUID.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const SYSFS: &str = "/sys/fs/btrfs";

/// A mounted Btrfs file system.
#[derive(Debug)]
pub struct BtrfsSpace {
    fs: Btrfs,
    scope: Scoped,
    extent_count: AtomicU64,
    walked: Mutex<Option<Walked>>,
    /// Bytes of data that were not looked at for want of checksums, in the latest scan.
    unlooked: Mutex<u64>,
    unsummed: Option<Unsummed>,
}

/// Uses of the extents that are planned about, sorted.
#[derive(Debug, Default)]
struct Walked {
    uses: Vec<(u64, Found)>,
}

/// A file's extent, and whether it may be touched.
#[derive(Debug, Clone, Copy)]
struct Found {
    one: Use,
    form: Form,
    in_scope: bool,
    unsummed: bool,
}

/// A file of which extents are met.
#[derive(Debug, Clone, Copy)]
struct Known {
    file: FileId,
    inode: Inode,
    /// May be touched.
    in_scope: bool,
}

impl BtrfsSpace {
    /// The file system that `fs` is.
    pub fn new(fs: Btrfs, scope: Scope) -> Self {
        Self {
            fs,
            scope: Scoped::new(scope),
            extent_count: AtomicU64::new(0),
            unlooked: Mutex::default(),
            walked: Mutex::new(None),
            unsummed: None,
        }
    }

    /// The same, with data that has no checksums: it is read, and what was found remembered in `cache`, or for this run alone.
    pub fn with_unsummed(self, cache: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        let unsummed = Some(Unsummed::open(cache, cancel)?);
        Ok(Self { unsummed, ..self })
    }

    /// Bytes of data that were read for want of checksums.
    pub fn read_bytes(&self) -> u64 {
        let unsummed = self.unsummed.as_ref();
        unsummed.map_or(0, |unsummed| unsummed.read_bytes.load(Ordering::Relaxed))
    }

    /// The file system.
    pub fn fs(&self) -> &Btrfs {
        &self.fs
    }

    /// An inode, and whether its file may be touched.
    fn known(&self, file: FileId, inode: Inode) -> Known {
        let in_scope = self.scope.has(&self.fs, file, inode);
        Known { file, inode, in_scope }
    }

    fn found(&self, extent: &FileExtent, known: &Known) -> Found {
        let Known { file, inode, in_scope } = *known;
        let block = self.block_bytes();
        let end = extent.file_offset.saturating_add(extent.len);
        // Preallocated or partly truncated: what lies beyond the end of the file is of no file.
        let beyond = end.saturating_sub(inode.size).min(extent.len);
        let blocks = (extent.len - beyond).div_ceil(block);
        Found {
            one: Use {
                file,
                file_offset: extent.file_offset,
                block: (extent.offset / block) as u32,
                blocks: blocks as u32,
                tail_bytes: ((extent.len - beyond) % block) as u32,
                owner: inode.owner,
                is_private: is_private(inode.mode, inode.size, self.scope.scope.private_min_bytes),
            },
            form: extent.form,
            unsummed: inode.is_unsummed(),
            in_scope: in_scope && blocks * block >= extent.len,
        }
    }

    /// The uses of one extent, by asking for its references.
    fn look_up(&self, start: u64, seen: &mut Option<Known>) -> Result<Uses> {
        let (references, are_all) = self.fs.references(start)?;
        let mut found = Vec::new();
        for Reference {
            subvolume,
            inode,
            file_offset,
        } in references
        {
            let file = FileId { subvolume, inode };
            if seen.as_ref().is_none_or(|known| known.file != file) {
                let about = if_there(self.fs.inode(subvolume, inode))?.flatten();
                *seen = about.map(|inode| self.known(file, inode));
            }
            let Some(known) = seen else { continue };
            let extents = if_there(self.fs.file_extents(subvolume, inode, (file_offset, file_offset)))?;
            let extents = extents.unwrap_or_default();
            let extent = extents.iter().find(|extent| extent.disk_start == start);
            found.extend(extent.map(|extent| self.found(extent, known)));
        }
        let uses = collect(&found);
        Ok(Uses {
            complete: uses.complete && are_all,
            ..uses
        })
    }

    /// Goes through all files once and keeps the uses of `extents`; nothing if they do not fit.
    fn walk(&self, extents: &[Extent], memory_bytes: u64) -> Result<Option<Walked>> {
        let limit = memory_bytes as usize / size_of::<(u64, Found)>();
        let mut walked = Walked::default();
        for root in self.fs.subvolumes()? {
            let range = Range {
                tree: root.id,
                from: (tree::SUBVOLUMES.0, kind::INODE, 0),
                to: (tree::SUBVOLUMES.1, kind::FILE_EXTENT, u64::MAX),
                min_generation: 0,
            };
            let mut inode: Option<Inode> = None;
            let mut seen: Option<Known> = None;
            self.fs.search(range, |key: &Key, item| {
                if key.kind == kind::INODE {
                    inode = Inode::decode(key, item);
                    seen = None;
                }
                let extent = FileExtent::decode(key, item).filter(|extent| extent.disk_start != 0);
                let (Some(extent), Some(inode)) = (extent, inode) else {
                    return Flow::Continue(());
                };
                let known = extents
                    .binary_search_by_key(&extent.disk_start, |extent| extent.start)
                    .is_ok();
                if known {
                    let file = FileId {
                        subvolume: root.id,
                        inode: key.object,
                    };
                    let seen = seen.get_or_insert_with(|| self.known(file, inode));
                    walked.uses.push((extent.disk_start, self.found(&extent, seen)));
                }
                if walked.uses.len() > limit {
                    Flow::Break(())
                } else {
                    Flow::Continue(())
                }
            })?;
            if walked.uses.len() > limit {
                return Ok(None);
            }
        }
        walked
            .uses
            .sort_unstable_by_key(|(start, found)| (*start, found.one.file, found.one.file_offset));
        Ok(Some(walked))
    }
}

/// Whether an extent is the one that was looked at, and not a later one at its place.
fn is_same(extent: &Extent, found: &DiskExtent) -> bool {
    (extent.start, extent.generation) == (found.start, found.generation)
}

/// A file without a name, in the file system of a directory.
fn scratch_in(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)
}

/// The uses that the file extents of one extent on disk are.
fn collect(found: &[Found]) -> Uses {
    let usable = |found: &&Found| found.in_scope && found.form != Form::Reserved && found.one.blocks > 0;
    let list: Vec<Use> = found.iter().filter(usable).map(|found| found.one).collect();
    Uses {
        complete: list.len() == found.len(),
        list,
        encoded: found.iter().any(|found| found.form == Form::Encoded),
        unsummed: found.iter().any(|found| found.unsummed),
    }
}

impl Space for BtrfsSpace {
    fn id(&self) -> [u8; 16] {
        self.fs.info().fsid
    }

    fn generation(&self) -> Result<u64> {
        Ok(self.fs.end_generation()?)
    }

    fn life(&self) -> Option<String> {
        let boot = std::fs::read_to_string(BOOT_ID).ok()?;
        // The kernel makes this directory anew, with another number, whenever the file system is mounted after it was not.
        let fs = std::fs::metadata(Path::new(SYSFS).join(uuid(&self.id()))).ok()?;
        Some(format!("{} {}", boot.trim(), fs.ino()))
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.fs.info().block_bytes.max(512))
    }

    fn used_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(self.fs.mount());
        let stat = stat.map_err(|source| Error::io("the file system", "ask the size of", source))?;
        Ok(stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize))
    }

    fn unreadable(&self) -> u64 {
        self.unsummed.as_ref().map_or(0, Unsummed::unreadable)
    }

    fn unread(&self) -> Vec<Unread> {
        let files = self.unsummed.as_ref().map(Unsummed::unread).unwrap_or_default();
        let named = files.into_iter().map(|(file, why)| Unread {
            path: self.path(file).unwrap_or_default(),
            why,
        });
        named.collect()
    }

    fn unlooked_bytes(&self) -> u64 {
        *self.unlooked.lock()
    }

    fn frees_whole_extents(&self) -> bool {
        true
    }

    fn read_ahead_bytes(&self) -> u64 {
        // A quarter of the least that Btrfs sets.
        1 << 20
    }

    fn zero_print(&self) -> Option<Print> {
        let info = self.fs.info();
        (info.checksum_kind == 0 && info.block_bytes == 4096).then_some(ZERO_CRC32C)
    }

    fn scan(&self, which: Which, visit: &mut dyn FnMut(Extent, &[Print]) -> Result<()>) -> Result<()> {
        let (min_generation, only_new) = match which {
            Which::All => (0, false),
            Which::NewSince(since) => (since + 1, true),
        };
        let (mut batch, mut prints, mut from, mut count) = (Vec::new(), Vec::new(), 0, 0);
        let (mut before, mut unlooked) = (0, 0);
        loop {
            self.batch(from, min_generation, &mut batch)?;
            let Some(last) = batch.last() else { break };
            from = last.start + 1;
            count += batch.len() as u64;
            self.prints(&batch, &mut prints)?;
            let mut rest = prints.as_mut_slice();
            for extent in &batch {
                let (own, after) = rest.split_at_mut_checked(extent.blocks as usize).unwrap_or_default();
                rest = after;
                if own.iter().all(|print| *print == NO_PRINT) {
                    if let Some(unsummed) = &self.unsummed {
                        // Only a look at all of them says what lies between two.
                        let last = if only_new { extent.start } else { before };
                        unsummed.fill(&self.fs, extent, last, own)?;
                        before = extent.start;
                    } else if reader(&self.fs, extent.start)?.is_some() {
                        unlooked += u64::from(extent.blocks) * self.block_bytes();
                    }
                }
                visit(*extent, own)?;
            }
        }
        if let Some(unsummed) = &self.unsummed {
            unsummed.commit()?;
        }
        if !only_new {
            self.extent_count.store(count, Ordering::Relaxed);
            *self.unlooked.lock() = unlooked;
        }
        Ok(())
    }

    fn prepare(&self, extents: &mut [Extent], memory_bytes: u64) -> Result<()> {
        let many = extents.len() as u64 * WALK_ABOVE >= self.extent_count.load(Ordering::Relaxed);
        let walked = if many && !extents.is_empty() {
            self.walk(extents, memory_bytes)?
        } else {
            None
        };
        if let Some(walked) = &walked {
            // The extent tree counts what snapshots have in common once.
            let mut rest = walked.uses.as_slice();
            for extent in extents {
                let count = rest.iter().take_while(|(start, _)| *start == extent.start).count();
                let (own, after) = rest.split_at(count);
                rest = after;
                let files = own.chunk_by(|(_, one), (_, other)| one.one.file == other.one.file);
                extent.refs = extent.refs.max(files.count() as u32);
                extent.pieces = extent.pieces.max(count as u32);
            }
        }
        *self.walked.lock() = walked;
        Ok(())
    }

    fn uses(&self, extents: &[Extent], visit: &mut dyn FnMut(usize, Uses) -> Result<()>) -> Result<()> {
        let walked = self.walked.lock();
        let mut seen = None;
        for (at, extent) in extents.iter().enumerate() {
            let uses = match walked.as_ref() {
                Some(walked) => {
                    let from = walked.uses.partition_point(|(start, _)| *start < extent.start);
                    let own = walked
                        .uses
                        .iter()
                        .skip(from)
                        .take_while(|(start, _)| *start == extent.start);
                    collect(&own.map(|(_, found)| *found).collect::<Vec<_>>())
                }
                None => self.look_up(extent.start, &mut seen)?,
            };
            visit(at, uses)?;
        }
        Ok(())
    }

    fn open(&self, file: FileId) -> Result<OwnedFd> {
        Ok(self.fs.open_file(file.subvolume, file.inode)?)
    }

    fn path(&self, file: FileId) -> Option<Vec<u8>> {
        let mut path = self.fs.subvolume_path(file.subvolume).ok()??;
        let inner = self.fs.directory_path(file.subvolume, file.inode).ok()?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(inner.strip_suffix(b"/").unwrap_or(&inner));
        Some(path)
    }

    fn scratch(&self) -> Result<OwnedFd> {
        let failed = |source| Error::io("the file system", "make a scratch file on", source);
        let scratch = match scratch_in(self.fs.mount()) {
            // The target is a snapshot; any subvolume that can be written will do.
            Err(Errno::ROFS) => {
                let writable = self.fs.subvolumes()?.into_iter().filter(|root| !root.read_only);
                let roots = writable.filter_map(|root| self.fs.open_file(root.id, tree::SUBVOLUMES.0).ok());
                let made = roots.filter_map(|root| scratch_in(root.as_fd()).ok()).next();
                made.ok_or(Errno::ROFS)
            }
            other => other,
        };
        let scratch = scratch.map_err(failed)?;
        // Its directory may want no copy on write, and then nothing could share it.
        let flags = ioctl_getflags(&scratch).map_err(failed)?;
        if flags.contains(IFlags::NOCOW) {
            ioctl_setflags(&scratch, flags - IFlags::NOCOW).map_err(failed)?;
        }
        Ok(scratch)
    }

    fn join(&self, file: FileId) -> Result<bool> {
        join_own(&self.open(file)?)
    }

    fn commit(&self) -> Result<()> {
        self.fs.commit()?;
        Ok(())
    }

    fn freed(&self, extents: &[Extent]) -> Result<u64> {
        let of = |extent: &Extent| u64::from(extent.blocks) * self.block_bytes();
        let mut bytes: u64 = extents.iter().map(of).sum();
        if extents.len() as u64 * STREAM_ABOVE < self.extent_count.load(Ordering::Relaxed) {
            for extent in extents {
                let found = self.fs.extent(extent.start)?;
                let left = found.filter(|found| is_same(extent, found));
                bytes = bytes.saturating_sub(left.map_or(0, |left| left.len));
            }
            return Ok(bytes);
        }
        let mut rest = extents;
        self.fs.extents(0, 0, |found| {
            while let Some((_, after)) = rest.split_first().filter(|(extent, _)| extent.start < found.start) {
                rest = after;
            }
            if rest.first().is_some_and(|extent| is_same(extent, &found)) {
                bytes = bytes.saturating_sub(found.len);
            }
            Flow::Continue(())
        })?;
        Ok(bytes)
    }
}
