//! Fingerprints by reading, where the file system has none.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use drystone_extents::Piece;
use rustix::fs::{Advice, fadvise};
use rustix::io::pread;

use crate::error::Result;
use crate::progress::Cancel;
use crate::space::{NO_PRINT, Print};
use crate::threads::start_some;

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;
/// Threads that read: they wait for the disk as much as they compute.
const READERS: usize = 4;

/// The fingerprint of a block: the beginning of its BLAKE3.
pub(crate) fn hash_block(block: &[u8]) -> Print {
    let hash = blake3::hash(block);
    hash.as_bytes()
        .first_chunk()
        .map_or(NO_PRINT, |first| Print::from_le_bytes(*first))
}

/// Reads with one buffer.
pub(crate) struct Reader<'a> {
    block_bytes: u64,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(block_bytes: u64, cancel: &'a Cancel) -> Self {
        Self {
            block_bytes,
            cancel,
            buffer: Vec::new(),
        }
    }

    /// The fingerprints of the blocks of a piece of a file, `None` if it cannot be read; where the file ends within a block, that is
    /// filled with zeros.
    pub(crate) fn prints(&mut self, file: &OwnedFd, piece: Piece) -> Result<Option<Vec<Print>>> {
        let block = self.block_bytes as usize;
        let room = READ_BYTES.min(piece.len).next_multiple_of(self.block_bytes) as usize;
        self.buffer.resize(room.max(self.buffer.len()), 0);
        let mut prints = Vec::with_capacity((piece.len / self.block_bytes) as usize);
        // A hint: without it reading is slower, and as right.
        let _ = fadvise(file, piece.file_offset, None, Advice::Sequential);
        let mut at = 0;
        while at < piece.len {
            self.cancel.check()?;
            let wanted = room.min((piece.len - at) as usize);
            let room = self.buffer.get_mut(..wanted).unwrap_or_default();
            let mut filled = 0;
            while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match pread(file, &mut *rest, piece.file_offset + at + filled as u64) {
                    Ok(0) => {
                        rest.fill(0);
                        break;
                    }
                    Ok(read) => filled += read,
                    Err(_) => return Ok(None),
                }
            }
            prints.extend(room.chunks(block).map(hash_block));
            at += wanted as u64;
        }
        Ok(Some(prints))
    }
}

/// Reads pieces of files, several at once, and hands over the fingerprints of each, by its index and in no order.
pub(crate) fn read_pieces(
    pieces: &[(&OwnedFd, Piece)],
    (block_bytes, cancel): (u64, &Cancel),
    each: &mut dyn FnMut(usize, Option<Vec<Print>>) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = sync_channel(READERS);
    std::thread::scope(|scope| {
        let next = &next;
        let read = move || {
            let mut reader = Reader::new(block_bytes, cancel);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((file, piece)) = pieces.get(index) else { return };
                let prints = reader.prints(file, *piece);
                if sender.send((index, prints)).is_err() {
                    return;
                }
            }
        };
        start_some(scope, READERS.min(pieces.len()), read)?;
        receiver
            .into_iter()
            .try_for_each(|(index, prints)| each(index, prints?))
    })
}
