//! What a run needs to know of a file system: extents with fingerprints of their blocks, and where files use them.
//!
//! - A fingerprint is a hint: equal ones are compared by the kernel before anything is shared.
//! - Everything here may be outdated by the next write; acting on it then does nothing, or something equally right.

use std::os::fd::OwnedFd;

use crate::cache::STEP_BYTES;
use crate::error::Result;

/// Fingerprint of a block: equal blocks have equal ones.
pub type Print = u32;

/// Of a block that has no fingerprint: equal to no other. (A block that by chance has this one is not matched.)
pub const NO_PRINT: Print = u32::MAX;

/// Bytes of the disk that were written in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Position on disk, bytes; names the extent.
    pub start: u64,
    /// Length on disk, in blocks.
    pub blocks: u32,
    /// How many files use it, at least.
    pub refs: u32,
    /// In how many pieces they do, at least.
    pub pieces: u32,
    /// Generation that it was written in.
    pub generation: u64,
}

/// A file by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Its subvolume; 0 where there are none.
    pub subvolume: u64,
    /// Its inode.
    pub inode: u64,
}

/// One place where a file uses a part of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The file.
    pub file: FileId,
    /// Position in the file, bytes.
    pub file_offset: u64,
    /// First block that is used, in the uncompressed extent.
    pub block: u32,
    /// Blocks that are used.
    pub blocks: u32,
    /// Bytes of the last of them that are in the file; 0 if all.
    pub tail_bytes: u32,
    /// The user that the file belongs to.
    pub owner: u32,
    /// The file is small and not everybody may read it: only files of its owner may share with it.
    pub is_private: bool,
}

/// What could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Where it is, as [`Space::path`] says it.
    pub path: Vec<u8>,
    /// What the operating system said.
    pub why: String,
}

/// All uses of an extent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Those that may be changed or shared with.
    pub list: Vec<Use>,
    /// There are no others: without these the extent is free.
    pub complete: bool,
    /// Blocks on disk are not those of files: it matches only as a whole.
    pub encoded: bool,
    /// Without checksums: nothing that is written anew could be shared with it.
    pub unsummed: bool,
}

/// Which extents a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those of a later generation than this.
    NewSince(u64),
}

/// A file system.
pub trait Space: Sync {
    /// Its identity.
    fn id(&self) -> [u8; 16];

    /// A generation that has ended: what is written from now on is of a later one.
    fn generation(&self) -> Result<u64>;

    /// Names the time that the file system has been mounted without a break: within it nobody can have set it back. `None` if it
    /// cannot be told.
    fn life(&self) -> Option<String> {
        Some("walked".to_owned())
    }

    /// Bytes of a block.
    fn block_bytes(&self) -> u64;

    /// Bytes of data and metadata on it, about.
    fn used_bytes(&self) -> Result<u64>;

    /// Files, and pieces of files, that could not be looked at.
    fn unreadable(&self) -> u64 {
        0
    }

    /// The first of those.
    fn unread(&self) -> Vec<Unread> {
        Vec::new()
    }

    /// Bytes of data that were not looked at because they would have to be read.
    fn unlooked_bytes(&self) -> u64 {
        0
    }

    /// Whether space is given back only with the last use of any block of an extent, and not block by block.
    fn frees_whole_extents(&self) -> bool;

    /// Bytes to ask for at once when reading ahead: of more than its limit the kernel loses the rest, and small steps fill the device's queue.
    fn read_ahead_bytes(&self) -> u64 {
        STEP_BYTES
    }

    /// Fingerprint of a block of zeros, if it is known.
    fn zero_print(&self) -> Option<Print>;

    /// All extents with the fingerprints of their blocks, in the order of the disk.
    fn scan(&self, which: Which, visit: &mut dyn FnMut(Extent, &[Print]) -> Result<()>) -> Result<()>;

    /// Says which extents, in the order of the disk, [`Space::uses`] will be asked about, and how much memory that may take.
    ///
    /// Corrects how often they are used, where it finds that out by the way.
    fn prepare(&self, extents: &mut [Extent], memory_bytes: u64) -> Result<()>;

    /// The uses of each of `extents`, which are in the order of the disk.
    fn uses(&self, extents: &[Extent], visit: &mut dyn FnMut(usize, Uses) -> Result<()>) -> Result<()>;

    /// Opens a file for reading and for being shared into.
    fn open(&self, file: FileId) -> Result<OwnedFd>;

    /// Where a file is, for people: from the top of the file system, or of what was walked.
    fn path(&self, file: FileId) -> Option<Vec<u8>>;

    /// A new file without a name, for reading and writing.
    fn scratch(&self) -> Result<OwnedFd>;

    /// Writes a file anew in larger pieces, if it lies in small ones and shares none of them. False if it was left as it is.
    fn join(&self, file: FileId) -> Result<bool>;

    /// Makes what was done visible to [`Space::freed`].
    fn commit(&self) -> Result<()>;

    /// Bytes of `extents` (in the order of the disk) that were taken when they were looked at, and no longer are.
    fn freed(&self, extents: &[Extent]) -> Result<u64>;
}
