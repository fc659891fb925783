//! The trailer of a pack: which frames it has and which chunks they hold. Layout: docs/format.md, "Pack".
//!
//! - Frames lie back to back from the magic to the trailer; what a trailer says of them fits the limits, or it is refused.
//! - Zeros may follow the trailer inside its seal; anything else is refused.

use crate::cbor::{Reader, Writer};
use crate::ending::MAGIC_BYTES;
use crate::error::{Result, within};
use crate::id::ChunkId;
use crate::limits::{CHUNK_MAX_BYTES, FRAME_CHUNKS_MAX, FRAME_MAX_BYTES, PACK_FRAMES_MAX};

use super::ending::OBJECT;

const CHUNK_ROW_BYTES: usize = 32 + 4;
/// Most bytes that the heads of one frame take in a trailer.
const FRAME_ROW_BYTES: usize = 1 + 5 + 5;
/// Most bytes of a trailer beside its frames: the heads of map, key and list.
pub(super) const TRAILER_HEAD_BYTES: usize = 1 + 1 + 5;

/// Most bytes that a frame of so many chunks takes in a trailer.
pub(super) fn row_bytes(chunk_count: usize) -> usize {
    FRAME_ROW_BYTES + chunk_count * CHUNK_ROW_BYTES
}

/// A chunk inside a frame: its id and plaintext length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedChunk {
    /// Keyed hash of the plaintext.
    pub id: ChunkId,
    /// Plaintext length, bytes.
    pub bytes: u32,
}

/// A frame inside a pack: where its sealed bytes lie and which chunks they hold, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameInfo {
    /// First byte in the pack.
    pub offset: u32,
    /// Sealed length, bytes.
    pub bytes: u32,
    /// Its chunks, back to back in the plaintext.
    pub chunks: Vec<PackedChunk>,
}

/// The trailer of these frames, in the clear; writers append zeros to it.
pub(super) fn encode_trailer(frames: &[FrameInfo]) -> Vec<u8> {
    let mut out = Writer::new();
    out.map(1).uint(0).array(frames.len());
    for frame in frames {
        let mut rows = Vec::with_capacity(frame.chunks.len() * CHUNK_ROW_BYTES);
        for chunk in &frame.chunks {
            rows.extend_from_slice(&chunk.id.0);
            rows.extend_from_slice(&chunk.bytes.to_be_bytes());
        }
        out.array(2).uint(frame.bytes.into()).bytes(&rows);
    }
    out.finish()
}

/// The frames that a trailer lists, which begin after the magic and end at `frames_end`.
pub(super) fn decode_trailer(bytes: &[u8], frames_end: u64) -> Result<Vec<FrameInfo>> {
    let mut frames = Vec::new();
    let mut offset = MAGIC_BYTES as u64;
    let mut reader = Reader::new(OBJECT, bytes);
    reader.map(|reader, key| {
        if key != 0 {
            return Ok(false);
        }
        for _ in 0..reader.array("number of frames", PACK_FRAMES_MAX as u64)? {
            reader.array_of("frame", 2)?;
            let bytes = reader.u32()?;
            let rows = reader.bytes("chunks of a frame", FRAME_CHUNKS_MAX * CHUNK_ROW_BYTES)?;
            frames.push(FrameInfo {
                offset: offset as u32,
                bytes,
                chunks: decode_rows(reader, rows)?,
            });
            offset += u64::from(bytes);
            if offset > frames_end {
                return Err(reader.malformed("frames beyond the trailer"));
            }
        }
        Ok(true)
    })?;
    let zeros = bytes.get(reader.position()..).unwrap_or_default();
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(reader.malformed("no zeros after the trailer"));
    }
    if offset == frames_end {
        Ok(frames)
    } else {
        Err(reader.malformed("frames do not fill the pack"))
    }
}

fn decode_rows(reader: &Reader<'_>, rows: &[u8]) -> Result<Vec<PackedChunk>> {
    let (rows, rest) = rows.as_chunks::<CHUNK_ROW_BYTES>();
    if !rest.is_empty() {
        return Err(reader.malformed("a chunk row cut short"));
    }
    let mut plaintext_bytes = 0;
    let mut chunks = Vec::with_capacity(rows.len());
    for row in rows {
        let Some((id, &[a, b, c, d])) = row
            .split_first_chunk::<32>()
            .and_then(|(id, bytes)| Some((id, bytes.first_chunk()?)))
        else {
            return Err(reader.malformed("a chunk row cut short"));
        };
        let bytes = u32::from_be_bytes([a, b, c, d]);
        within(OBJECT, "bytes of a chunk", bytes.into(), CHUNK_MAX_BYTES.into())?;
        plaintext_bytes += u64::from(bytes);
        chunks.push(PackedChunk {
            id: ChunkId(*id),
            bytes,
        });
    }
    within(OBJECT, "bytes of a frame", plaintext_bytes, FRAME_MAX_BYTES as u64)?;
    Ok(chunks)
}
