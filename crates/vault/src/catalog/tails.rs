//! What the tail of a pack tells the index, and reading it.

use bytes::Bytes;
use drystone_format::keys::{Role, Secrets};
use drystone_format::limits::{PACK_MAX_BYTES, PACK_TAIL_GUESS_BYTES};
use drystone_format::pack::{FrameInfo, Tail, tail_bytes};
use drystone_format::{ChunkId, PackId};
use drystone_index::{PackEntries, Span};
use drystone_store::{Name, Range};

use crate::error::{Error, Result};
use crate::places::place::Place;

/// Set in the index's pack kind when an owner wrote the pack.
pub(super) const BY_OWNER: u8 = 0x80;

pub(super) fn owner_bit(role: Role) -> u8 {
    if role == Role::Owner { BY_OWNER } else { 0 }
}

pub(super) fn entries(pack: PackId, pack_bytes: u64, tail: &Tail) -> PackEntries {
    let certificate = tail.preamble.certificate;
    let kind = tail.preamble.kind as u8 | owner_bit(certificate.role);
    PackEntries {
        pack,
        pack_bytes,
        kind,
        writer: certificate.writer.0,
        registration: (tail.preamble.registration_id(), tail.preamble.number),
        chunks: spans(&tail.frames),
    }
}

pub(crate) fn spans(frames: &[FrameInfo]) -> Vec<(ChunkId, Span)> {
    let mut chunks = Vec::with_capacity(frames.iter().map(|frame| frame.chunks.len()).sum());
    for (number, frame) in frames.iter().enumerate() {
        let mut chunk_offset = 0;
        for chunk in &frame.chunks {
            let span = Span {
                frame: number as u16,
                frame_offset: frame.offset,
                frame_bytes: frame.bytes,
                chunk_offset,
                chunk_bytes: chunk.bytes,
            };
            chunks.push((chunk.id, span));
            chunk_offset += chunk.bytes;
        }
    }
    chunks
}

/// Reads and opens the tail of a pack that is listed with this size: one request for most packs, two for those of many
/// small chunks. The size that it turns out to have is the listed one, unless a place lied about it.
///
/// A stolen writer key and one place can invent a tail, and leave out of it what they want: of what no owner signed, the tail
/// counts only if other shards give the same.
pub(crate) fn read_tail(place: &Place, secrets: &Secrets, id: &PackId, size: u64) -> Result<(Tail, u64)> {
    place.reading(id, |proven| {
        let size = proven.unwrap_or(size);
        let (bytes, tail) = read_tail_of(place, secrets, id, size)?;
        let is_sure = proven.is_some() || tail.preamble.certificate.role == Role::Owner;
        if is_sure || place.is_end_confirmed(id, &bytes) {
            return Ok((tail, size));
        }
        let source = drystone_format::Error::Authentication { object: "pack" };
        Err(place.damaged(&Name::pack(id))(source))
    })
}

fn read_tail_of(place: &Place, secrets: &Secrets, id: &PackId, size: u64) -> Result<(Bytes, Tail)> {
    let name = Name::pack(id);
    if size > PACK_MAX_BYTES as u64 {
        let limit = PACK_MAX_BYTES as u64;
        return Err(place.damaged(&name)(drystone_format::Error::Limit {
            object: "pack",
            what: "bytes",
            found: size,
            limit,
        }));
    }
    let guess = place.get(&name, Range::Last(PACK_TAIL_GUESS_BYTES as u64))?;
    let length = tail_bytes(&guess, size).map_err(place.damaged(&name))?;
    let tail = match guess.len().checked_sub(length) {
        Some(start) => guess.slice(start..),
        None => place.get(&name, Range::Last(length as u64))?,
    };
    if tail.len() != length {
        return Err(Error::Store(drystone_store::Error::Short {
            name: name.to_string(),
            place: place.name().to_owned(),
            size: tail.len() as u64,
            wanted: length as u64,
        }));
    }
    let opened = Tail::open(&tail, size, secrets).map_err(place.damaged(&name))?;
    Ok((tail, opened))
}
