//! Fingerprints by reading, where the file system has none.

use std::os::fd::OwnedFd;

use drystone_extents::Piece;
use rustix::fs::{Advice, fadvise};
use rustix::io::pread;

use crate::error::{Error, Result};
use crate::progress::Cancel;
use crate::space::{NO_PRINT, Print};

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;

/// The fingerprint of a block: the beginning of its BLAKE3.
pub(crate) fn hash_block(block: &[u8]) -> Print {
    let hash = blake3::hash(block);
    hash.as_bytes()
        .first_chunk()
        .map_or(NO_PRINT, |first| Print::from_le_bytes(*first))
}

/// The fingerprints of the blocks of a piece of a file; where the file ends within a block, that is filled with zeros.
pub(crate) fn read_piece(file: &OwnedFd, piece: Piece, block_bytes: u64, cancel: &Cancel) -> Result<Vec<Print>> {
    let failed = |source| Error::io("a file", "read", source);
    let mut prints = Vec::with_capacity((piece.len / block_bytes) as usize);
    let mut buffer = vec![0; READ_BYTES.next_multiple_of(block_bytes) as usize];
    // A hint: without it reading is slower, and as right.
    let _ = fadvise(file, piece.file_offset, None, Advice::Sequential);
    let mut at = 0;
    while at < piece.len {
        cancel.check()?;
        let wanted = buffer.len().min((piece.len - at) as usize);
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        let mut filled = 0;
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match pread(file, &mut *rest, piece.file_offset + at + filled as u64).map_err(failed)? {
                0 => {
                    rest.fill(0);
                    break;
                }
                read => filled += read,
            }
        }
        prints.extend(room.chunks(block_bytes as usize).map(hash_block));
        at += wanted as u64;
    }
    Ok(prints)
}
