//! Pieces of index runs at the places: opening them, and reading them by blocks. The ledger says which are in force.
//!
//! - An owner has signed the directory, and the directory has the hash of each block: what is read counts as his word for where chunks
//!   lie. Reading goes by it, since every chunk is held against its id; deduplication does not.
//! - A piece that cannot be read costs a look at the packs themselves.

use std::collections::HashMap;
use std::ops::Range as Span;

use bytes::Bytes;
use drystone_format::RegistrationId;
use drystone_format::index_run::{RunChunk, RunDirectory, RunPack, run_tail_bytes};
use drystone_format::keys::Secrets;
use drystone_format::ledger::Numbered;
use drystone_format::limits::INDEX_BLOCK_PACKS;
use drystone_store::{Kind, Name, Prefix, Range};

use crate::error::Result;
use crate::places::place::Place;

/// First read of the end of a piece: the directory of a piece of a million chunks has as much, and a small piece lies in it whole.
const END_GUESS_BYTES: u64 = 64 << 10;

/// The lengths of all objects of the index at a place.
pub(crate) fn listed(place: &Place) -> Result<HashMap<Numbered, u64>> {
    let mut listed = HashMap::new();
    place.for_each(&Prefix::Index, |found| {
        if let Kind::Index(registration, number, hash) = found.name.kind() {
            let piece = Numbered {
                registration,
                number,
                hash,
            };
            listed.insert(piece, found.size);
        }
        Ok(())
    })?;
    Ok(listed)
}

/// The object that an entry of the ledger names.
pub(crate) fn name_of(piece: &Numbered) -> Name {
    Name::index(&piece.registration, piece.number, &piece.hash)
}

/// A piece whose directory was read.
pub(crate) struct Piece {
    place: Place,
    name: Name,
    bytes: u64,
    /// Its last bytes.
    end: Bytes,
    pub(crate) directory: RunDirectory,
}

impl Piece {
    /// Opens a piece of `bytes`: one request, or two if its directory is large.
    pub(crate) fn open(place: &Place, secrets: &Secrets, piece: &Numbered, bytes: u64) -> Result<Self> {
        let name = name_of(piece);
        let damaged = |source| place.damaged(&name)(source);
        let mut end = place.get(&name, Range::Last(END_GUESS_BYTES))?;
        let length = run_tail_bytes(&end, bytes).map_err(damaged)?;
        if length > end.len() {
            end = place.get(&name, Range::Last(length as u64))?;
        }
        let start = end.len().saturating_sub(length);
        let tail = end.get(start..).unwrap_or_default();
        let directory = RunDirectory::open(tail, bytes, secrets).map_err(damaged)?;
        let signer = &directory.certificate.writer;
        let registration = RegistrationId::derive(&secrets.vault, signer, &directory.of.registration);
        if (registration, directory.of.number) != (piece.registration, piece.number) {
            return Err(damaged(drystone_format::Error::Authentication { object: "index run" }));
        }
        Ok(Self {
            place: place.clone(),
            name,
            bytes,
            end,
            directory,
        })
    }

    fn read(&self, range: Option<Span<u64>>) -> Result<Bytes> {
        let range = range.unwrap_or_default();
        let (first, len) = (self.bytes - self.end.len() as u64, range.end - range.start);
        if let Some(offset) = range.start.checked_sub(first)
            && let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len))
            && offset + len <= self.end.len()
        {
            return Ok(self.end.slice(offset..offset + len));
        }
        let offset = range.start;
        self.place.get(&self.name, Range::From { offset, len })
    }

    /// The chunks of a block.
    pub(crate) fn chunks(&self, block: usize) -> Result<Vec<RunChunk>> {
        let sealed = self.read(self.directory.chunk_range(block))?;
        let opened = self.directory.open_chunks(block, &sealed);
        opened.map_err(self.place.damaged(&self.name))
    }

    /// The packs of the block that has pack number `pack`; the first of them has a multiple of [`INDEX_BLOCK_PACKS`].
    pub(crate) fn packs(&self, pack: u32) -> Result<Vec<RunPack>> {
        let sealed = self.read(self.directory.pack_range(pack))?;
        let opened = self.directory.open_packs(pack, &sealed);
        opened.map_err(self.place.damaged(&self.name))
    }

    /// All its packs, with one request.
    pub(crate) fn all_packs(&self) -> Result<Vec<RunPack>> {
        let count = self.directory.pack_count;
        let firsts = || (0..count).step_by(INDEX_BLOCK_PACKS).map(|first| first as u32);
        let ranges: Vec<Span<u64>> = firsts().filter_map(|first| self.directory.pack_range(first)).collect();
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(Vec::new());
        };
        let (start, sealed) = (first.start, self.read(Some(first.start..last.end))?);
        let mut packs = Vec::new();
        for (number, range) in firsts().zip(&ranges) {
            let block = (range.start - start) as usize..(range.end - start) as usize;
            let block = sealed.get(block).unwrap_or_default();
            let opened = self.directory.open_packs(number, block);
            packs.extend(opened.map_err(self.place.damaged(&self.name))?);
        }
        Ok(packs)
    }
}
