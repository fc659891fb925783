//! Writes a run from entries in the order of their ids, keeping only its tables in memory.
//!
//! - The layout is described in [`crate::run`].
//! - Nothing appears before everything is written.

use std::os::unix::fs::FileExt;

use crate::{
    Error, Result,
    checksum::checksum,
    directory::{Draft, Identity},
    entry::{ENTRY_BYTES, Entry, PackInfo},
    filter::Filter,
    run::{
        BLOCK_BODY_BYTES, BLOCK_BYTES, BLOCK_ENTRIES, FENCE_SEED, FILTER_SEED, Footer, OpenRun, PACKS_SEED,
        PIECE_BYTES, Tables, encode_pack,
    },
};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// A run in the making.
pub(crate) struct RunWriter {
    draft: Draft,
    /// Whole blocks and the one that is being filled, not yet written.
    buffer: Vec<u8>,
    written_bytes: u64,
    /// Entries in the block that is being filled.
    filled: usize,
    entries: u64,
    fence: Vec<u64>,
    filter: Filter,
}

/// A run that is written but not yet to be seen.
pub(crate) struct Written {
    draft: Draft,
    footer: Footer,
    tables: Tables,
}

impl RunWriter {
    /// A writer for this many entries, with at most so many bytes of filter.
    pub(crate) fn new(draft: Draft, entries: u64, filter_bytes: usize) -> Self {
        Self {
            draft,
            buffer: Vec::with_capacity(WRITE_BYTES + BLOCK_BYTES),
            written_bytes: 0,
            filled: 0,
            entries: 0,
            fence: Vec::with_capacity((entries as usize).div_ceil(BLOCK_ENTRIES)),
            filter: Filter::new(entries, filter_bytes),
        }
    }

    /// Appends an entry, whose id is not before the last one's.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<()> {
        if self.filled == 0 {
            self.fence.push(entry.prefix());
        }
        self.filter.put(&entry.id());
        self.buffer.extend_from_slice(&entry.0);
        self.filled += 1;
        self.entries += 1;
        if self.filled == BLOCK_ENTRIES {
            self.end_block()
        } else {
            Ok(())
        }
    }

    fn end_block(&mut self) -> Result<()> {
        let used = self.filled * ENTRY_BYTES;
        self.buffer.resize(self.buffer.len() + BLOCK_BODY_BYTES - used, 0);
        let body = self
            .buffer
            .last_chunk::<BLOCK_BODY_BYTES>()
            .map_or(&[][..], |body| body);
        let sum = checksum((self.fence.len() - 1) as u64, body);
        self.buffer.extend(sum.to_le_bytes());
        self.filled = 0;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()
        } else {
            Ok(())
        }
    }

    fn write_out(&mut self) -> Result<()> {
        let written = self.draft.file()?.write_all_at(&self.buffer, self.written_bytes);
        written.map_err(|source| Error::io(self.draft.path(), "write", source))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the tables. `packs` is the pack table, in the order of the entries' pack numbers.
    pub(crate) fn finish(mut self, packs: Vec<PackInfo>) -> Result<Written> {
        if self.filled > 0 {
            self.end_block()?;
        }
        let fence: Vec<u8> = self.fence.iter().flat_map(|first| first.to_le_bytes()).collect();
        let fence_sum = self.write_table(FENCE_SEED, fence.chunks(PIECE_BYTES))?;
        let filter = std::mem::take(&mut self.filter);
        let filter_sum = self.write_table(FILTER_SEED, filter.pieces(PIECE_BYTES))?;
        let table: Vec<u8> = packs.iter().flat_map(encode_pack).collect();
        let packs_sum = self.write_table(PACKS_SEED, table.chunks(PIECE_BYTES))?;
        let footer = Footer {
            entries: self.entries,
            packs: packs.len() as u64,
            filter_lines: filter.line_count() as u64,
            fence_sum,
            filter_sum,
            packs_sum,
        };
        self.buffer.extend(footer.encode());
        self.write_out()?;
        Ok(Written {
            draft: self.draft,
            footer,
            tables: Tables {
                fence: self.fence,
                filter,
                packs,
            },
        })
    }

    fn write_table<P: AsRef<[u8]>>(&mut self, seed: u64, pieces: impl Iterator<Item = P>) -> Result<u64> {
        let mut sum = seed;
        for piece in pieces {
            sum = checksum(sum, piece.as_ref());
            self.buffer.extend_from_slice(piece.as_ref());
            if self.buffer.len() >= WRITE_BYTES {
                self.write_out()?;
            }
        }
        Ok(sum)
    }
}

impl Written {
    /// Makes the run appear.
    pub(crate) fn publish(self) -> Result<Opened> {
        let (file, identity) = self.draft.publish()?;
        Ok(Opened {
            file,
            identity,
            footer: self.footer,
            tables: self.tables,
        })
    }
}

/// A run whose packs are not numbered yet.
pub(crate) struct Opened {
    pub(crate) file: std::fs::File,
    pub(crate) identity: Identity,
    pub(crate) footer: Footer,
    pub(crate) tables: Tables,
}

impl Opened {
    /// The run and its filter, its packs numbered by `number`.
    pub(crate) fn number(self, number: impl FnMut(&PackInfo) -> u32) -> (OpenRun, Filter) {
        let Tables { fence, filter, packs } = self.tables;
        let run = OpenRun {
            identity: self.identity,
            file: self.file,
            entries: self.footer.entries,
            disk_bytes: self.footer.file_bytes().unwrap_or_default(),
            fence,
            packs: packs.iter().map(number).collect(),
        };
        (run, filter)
    }
}
