//! XFS, and Btrfs without root: files found by walking, mapped by FIEMAP, read and hashed once for each place on the disk.
//!
//! - What was read is remembered in a database, by place on the disk, and not read again while the files that use it are unchanged
//!   (size, mtime, ctime; sharing changes none of them).
//! - The database is a cache: without it everything is read again. Memory does not grow with the number of files.
//! - Files that cannot be opened are counted and left alone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use drystone_extents::{Shared, dedupe, fs_id};
use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, pwrite};

use crate::error::{Error, Result};
use crate::map::Map;
use crate::progress::{Cancel, Progress};
use crate::read::{hash_block, read_pieces};
use crate::space::{Extent, FileId, Print, Space, Unread, Uses, Which};
use crate::state::{drop_damaged, failed};
use crate::swap::is_swap;
use crate::walk::{FoundFile, Unreadable, walk};

/// Walks of one map are fewer than this power of two for each second since it was made.
const WALKS_A_SECOND_BITS: u32 = 8;
/// Files that are open at once, and whose changes are committed together; and of those with many pieces fewer.
const BATCH: usize = 256;
const PIECES_ENOUGH: usize = 64 << 10;

/// A walked part of a file system.
#[derive(Debug)]
pub struct WalkedSpace {
    root: OwnedFd,
    path: PathBuf,
    id: [u8; 16],
    block_bytes: u64,
    zero: Print,
    map: Mutex<Map>,
    generation: u64,
    unreadable: Unreadable,
    /// Bytes that were read.
    pub read_bytes: u64,
}

/// What came of looking at some files.
#[derive(Debug, Default)]
struct Looked {
    /// Files that could not be opened, and pieces that could not be read.
    unreadable: Unreadable,
    read_bytes: u64,
}

/// What to walk.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a> {
    /// The directory.
    pub root: BorrowedFd<'a>,
    /// Its name, for messages.
    pub name: &'a str,
    /// Where to remember; in memory if nowhere.
    pub cache: Option<&'a Path>,
    /// Only files of this size and above, bytes.
    pub min_file_bytes: u64,
    /// Files that not everybody may read, below this size, share with files of their owner alone.
    pub private_min_bytes: u64,
    /// Directories and files that are left alone, by inode.
    pub excluded: &'a BTreeSet<u64>,
}

impl WalkedSpace {
    /// Walks `root` and reads what is not yet known.
    pub fn open(about: Walk<'_>, progress: &Progress, cancel: &Cancel) -> Result<Self> {
        let failed_on = |during| move |source: Errno| Error::io(about.name, during, source);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(about.root, ".", flags, Mode::empty()).map_err(failed_on("open"))?;
        let stat = rustix::fs::fstatvfs(&root).map_err(failed_on("ask the size of"))?;
        let block_bytes = stat.f_frsize.clamp(512, 1 << 20);
        let path = about.cache.map_or_else(|| PathBuf::from(":memory:"), Path::to_owned);
        drop_damaged(&path);
        let connection = Connection::open(&path).map_err(|error| failed(&path, &error))?;
        let mut space = Self {
            id: fs_id(root.as_fd())?,
            zero: hash_block(&vec![0; block_bytes as usize]),
            map: Mutex::new(Map::new(connection, path, (block_bytes, about.private_min_bytes))?),
            root,
            path: about.name.into(),
            block_bytes,
            generation: 0,
            unreadable: Unreadable::default(),
            read_bytes: 0,
        };
        space.probe()?;
        space.refresh(about, progress, cancel)?;
        Ok(space)
    }

    /// Finds out whether the file system can share at all, before everything is read for nothing.
    fn probe(&self) -> Result<()> {
        // Where no file can be made, the first that is shared will tell.
        let (Ok(one), Ok(other)) = (self.scratch(), self.scratch()) else {
            return Ok(());
        };
        let block = vec![1; self.block_bytes as usize];
        if pwrite(&one, &block, 0).is_err() || pwrite(&other, &block, 0).is_err() {
            return Ok(());
        }
        let refused = match dedupe(one.as_fd(), 0, self.block_bytes, &[(other.as_fd(), 0)]) {
            Ok(replies) => replies.into_iter().find_map(|reply| match reply {
                Shared::Refused(error) => error.raw_os_error(),
                _ => None,
            }),
            Err(error) => error.errno(),
        };
        match refused {
            Some(number) if number == Errno::OPNOTSUPP.raw_os_error() => Err(Error::Target {
                path: self.path.clone(),
                why: "its file system was made without reflink, and cannot share data".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Brings the map up to date.
    fn refresh(&mut self, about: Walk<'_>, progress: &Progress, cancel: &Cancel) -> Result<()> {
        let mut map = self.map.lock();
        // A map that is new begins above whatever one that was lost had come to: its file is younger.
        let made = about.cache.and_then(|cache| rustix::fs::stat(cache).ok());
        let least = made.map_or(0, |made| (made.st_ctime.max(0) as u64) << WALKS_A_SECOND_BITS);
        self.generation = map.begin(least)?;
        let mut batch = Vec::new();
        let mut unreadable = walk(&self.root, about.excluded, &mut |found: FoundFile, is_excluded| {
            cancel.check()?;
            if is_excluded {
                map.exclude(found.inode)?;
            } else if found.size >= about.min_file_bytes.max(1) {
                batch.push(found);
            }
            if batch.len() >= BATCH {
                map.see(std::mem::take(&mut batch))
            } else {
                Ok(())
            }
        })?;
        map.see(batch)?;
        map.sweep()?;
        let mut read_bytes = 0;
        Progress::add(&progress.to_scan_bytes, map.changed_bytes()?);
        while let Some(changed) = Some(map.changed(BATCH)?).filter(|changed| !changed.is_empty()) {
            let looked = self.look_into(&mut map, changed, progress, cancel)?;
            unreadable.extend(looked.unreadable);
            read_bytes += looked.read_bytes;
            map.commit()?;
        }
        map.end()?;
        drop(map);
        (self.unreadable, self.read_bytes) = (unreadable, read_bytes);
        Ok(())
    }

    /// Reads what is not known of files that changed, and notes what they use; of the last ones nothing if there is too much to read.
    fn look_into(
        &self,
        map: &mut Map,
        changed: Vec<FoundFile>,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<Looked> {
        let mut looked = Looked::default();
        let (mut files, mut unknown) = (Vec::new(), Vec::new());
        for found in changed {
            cancel.check()?;
            if unknown.len() > PIECES_ENOUGH {
                break;
            }
            match open_checked(&self.root, &found) {
                // Nobody could use it any more if it shared data.
                Ok(file) if is_swap(&file, found.size).unwrap_or(false) => map.leave(found.inode)?,
                Ok(file) => {
                    let pieces = map.unknown_pieces(&file, &found)?;
                    unknown.extend(pieces.into_iter().map(|piece| (files.len(), piece)));
                    files.push((file, found));
                }
                // Removed meanwhile, or another by now.
                Err(Errno::NOENT | Errno::STALE) => map.drop_file(found.inode)?,
                Err(error) => {
                    looked.unreadable.add(&found.path, error);
                    map.drop_file(found.inode)?;
                }
            }
        }
        let once = map.each_place_once(unknown);
        let pieces: Vec<_> = once
            .iter()
            .filter_map(|(file, piece)| Some((&files.get(*file)?.0, *piece)))
            .collect();
        let about = (self.block_bytes, cancel);
        let mut partly = BTreeSet::new();
        read_pieces(&pieces, about, &mut |index, prints| match (pieces.get(index), prints) {
            (Some((_, piece)), Some(prints)) => {
                Progress::add(&progress.scanned_bytes, piece.len);
                looked.read_bytes += piece.len;
                map.add_extent(piece.disk_offset, &prints, self.generation)
            }
            _ => {
                // Of the file that has it the rest is known.
                partly.extend(once.get(index).map(|(file, _)| *file));
                Ok(())
            }
        })?;
        for (at, (file, found)) in files.iter().enumerate() {
            map.add_uses(file, found)?;
            if partly.contains(&at) {
                looked.unreadable.add(&found.path, "its data could not be read");
                map.look_again(found.inode)?;
            }
        }
        Ok(looked)
    }
}

/// Opens a file that was found, if it is still that.
fn open_checked(root: &OwnedFd, found: &FoundFile) -> std::result::Result<OwnedFd, Errno> {
    let path = Path::new(OsStr::from_bytes(&found.path));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = |flags| openat2(root, path, flags, Mode::empty(), resolve);
    // Only the owner may leave the access time alone.
    let file =
        open(flags | OFlags::NOATIME).or_else(|error| if error == Errno::PERM { open(flags) } else { Err(error) })?;
    if fstat(&file)?.st_ino == found.inode {
        Ok(file)
    } else {
        Err(Errno::STALE)
    }
}

impl Space for WalkedSpace {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn generation(&self) -> Result<u64> {
        Ok(self.generation)
    }

    fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn used_bytes(&self) -> Result<u64> {
        self.map.lock().used_bytes()
    }

    fn unreadable(&self) -> u64 {
        self.unreadable.count
    }

    fn unread(&self) -> Vec<Unread> {
        self.unreadable.named.clone()
    }

    fn frees_whole_extents(&self) -> bool {
        false
    }

    fn zero_print(&self) -> Option<Print> {
        Some(self.zero)
    }

    fn scan(&self, which: Which, visit: &mut dyn FnMut(Extent, &[Print]) -> Result<()>) -> Result<()> {
        self.map.lock().scan(which, visit)
    }

    fn prepare(&self, _: &mut [Extent], _: u64) -> Result<()> {
        Ok(())
    }

    fn uses(&self, extents: &[Extent], visit: &mut dyn FnMut(usize, Uses) -> Result<()>) -> Result<()> {
        let map = self.map.lock();
        for (at, extent) in extents.iter().enumerate() {
            visit(at, map.uses(extent.start)?)?;
        }
        Ok(())
    }

    fn open(&self, file: FileId) -> Result<OwnedFd> {
        let found = self.map.lock().file(file.inode)?;
        let opened = found
            .as_ref()
            .ok_or(Errno::NOENT)
            .and_then(|found| open_checked(&self.root, found));
        let path = || {
            found
                .as_ref()
                .map_or_else(PathBuf::new, |found| OsStr::from_bytes(&found.path).into())
        };
        opened.map_err(|source| Error::io(path(), "open", source))
    }

    fn path(&self, file: FileId) -> Option<Vec<u8>> {
        Some(self.map.lock().file(file.inode).ok()??.path)
    }

    fn scratch(&self) -> Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made = openat(&self.root, ".", flags, Mode::RUSR | Mode::WUSR);
        made.map_err(|source| Error::io(&self.path, "make a scratch file in", source))
    }

    fn join(&self, _: FileId) -> Result<bool> {
        // XFS has a tool of its own for this.
        Ok(false)
    }

    fn commit(&self) -> Result<()> {
        // Sharing is on the map at once.
        Ok(())
    }

    fn freed(&self, extents: &[Extent]) -> Result<u64> {
        let mut map = self.map.lock();
        map.commit()?;
        let (before, users) = map.used_of(extents)?;
        for inode in users {
            let Some(found) = map.file(inode)? else { continue };
            match open_checked(&self.root, &found) {
                Ok(file) => map.replace_uses(&file, &found)?,
                Err(_) => map.drop_file(inode)?,
            }
        }
        let after = map.used_of(extents)?.0;
        // The next pass is to see what is left of each as the next walk would.
        map.cut_lost()?;
        map.end()?;
        Ok(before.saturating_sub(after))
    }
}
