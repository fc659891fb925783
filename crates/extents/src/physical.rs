//! Where on the disk a file lies: FIEMAP, on any file system that has it, without privileges.
//!
//! - A map is of one moment: a file that is written meanwhile may lie elsewhere.

use std::os::fd::BorrowedFd;

use crate::error::{Error, Result};
use crate::ioctl::{self, FIEMAP_EXTENT_BYTES, FIEMAP_HEAD_BYTES, u32_at, u64_at};

/// Extents asked for in one call.
const BATCH: usize = 512;
/// Extents of one file at most (48 MiB of memory): a file with more is mapped up to there.
const EXTENTS_MAX: usize = 1 << 20;

const SYNC: u32 = 1;
const LAST: u32 = 1;
/// Unknown, not yet allocated, encrypted, inline, packed with others: not at a place of its own.
const NOWHERE: u32 = 0x2 | 0x4 | 0x80 | 0x100 | 0x200 | 0x400;
const ENCODED: u32 = 0x8;
const RESERVED: u32 = 0x800;
const SHARED: u32 = 0x2000;

/// Part of a file that lies in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Position in the file, bytes.
    pub file_offset: u64,
    /// Position on the disk (for Btrfs: in its logical address space), bytes.
    pub disk_offset: u64,
    /// Bytes.
    pub len: u64,
    /// Stored compressed or otherwise encoded.
    pub encoded: bool,
    /// Reserved only: reads as zeros.
    pub reserved: bool,
    /// Known to be shared with another file or place.
    pub shared: bool,
}

/// The pieces of a file that begin before `to` and end after `from`, after writing out what is pending; holes and inline data have none.
pub fn physical_map(file: BorrowedFd<'_>, (from, to): (u64, u64)) -> Result<Vec<Piece>> {
    let mut buffer = vec![0; FIEMAP_HEAD_BYTES + BATCH * FIEMAP_EXTENT_BYTES];
    let (mut found, mut at) = (Vec::new(), from);
    while at < to && found.len() < EXTENTS_MAX {
        let count = ioctl::fiemap(file, at, to - at, SYNC, &mut buffer)
            .map_err(|source| Error::kernel("tell where its data lies", "the file", source))?;
        let extents = buffer.get(FIEMAP_HEAD_BYTES..).unwrap_or_default();
        let mut last = true;
        for extent in extents.chunks_exact(FIEMAP_EXTENT_BYTES).take(count) {
            let piece = piece(extent);
            let flags = u32_at(extent, 40);
            last = flags & LAST != 0;
            let end = piece.file_offset.saturating_add(piece.len);
            if end <= at {
                return Ok(found);
            }
            at = end;
            if flags & NOWHERE == 0 {
                found.push(piece);
            }
        }
        if last {
            break;
        }
    }
    Ok(found)
}

fn piece(extent: &[u8]) -> Piece {
    let flags = u32_at(extent, 40);
    Piece {
        file_offset: u64_at(extent, 0),
        disk_offset: u64_at(extent, 8),
        len: u64_at(extent, 16),
        encoded: flags & ENCODED != 0,
        reserved: flags & RESERVED != 0,
        shared: flags & SHARED != 0,
    }
}
