//! The plaintext of the blocks of an index run: chunks in rows of 51 bytes, packs in CBOR.
//! Layout: docs/format.md, "Index run".
//!
//! - Chunks ascend strictly by id and pack, within a block and from block to block.
//! - Numbers are big-endian; a chunk names a pack that the run has.

use crate::cbor::{Reader, Writer};
use crate::error::{Error, Result, within};
use crate::id::{ChunkId, PackId};
use crate::keys::{VerifyKey, role_of};
use crate::limits::{CHUNK_MAX_BYTES, FRAME_MAX_BYTES, INDEX_BLOCK_CHUNKS, INDEX_BLOCK_PACKS, PACK_MAX_BYTES};
use crate::pack::WRAPPED_KEY_MAX_BYTES;
use crate::seal::{PackKind, Suite};

use super::entry::{OBJECT, RunChunk, RunPack, Verified};

/// Id, pack, frame, frame offset, frame bytes, chunk offset, chunk bytes.
const ROW_BYTES: usize = 32 + 4 + 2 + 4 + 3 + 3 + 3;
/// Largest value of a number of three bytes.
const THREE_BYTES_MAX: u64 = (1 << 24) - 1;

/// `Ok` if these are chunks as a run may list them.
pub(super) fn check_order(chunks: &[RunChunk], pack_count: usize) -> Result<()> {
    let key = |chunk: &RunChunk| (chunk.id, chunk.pack);
    let ordered = chunks.is_sorted_by(|one, two| key(one) < key(two));
    let known = chunks.iter().all(|chunk| (chunk.pack as usize) < pack_count);
    match (ordered, known) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::malformed(OBJECT, 0, "chunks out of order")),
        (_, false) => Err(Error::malformed(OBJECT, 0, "a chunk in no pack of the run")),
    }
}

pub(super) fn encode_entries(chunks: &[RunChunk]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(chunks.len() * ROW_BYTES);
    for chunk in chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.pack.to_be_bytes());
        out.extend_from_slice(&chunk.frame.to_be_bytes());
        out.extend_from_slice(&chunk.frame_offset.to_be_bytes());
        for number in [chunk.frame_bytes, chunk.chunk_offset, chunk.chunk_bytes] {
            within(OBJECT, "length in an entry", number.into(), THREE_BYTES_MAX)?;
            let [_, a, b, c] = number.to_be_bytes();
            out.extend_from_slice(&[a, b, c]);
        }
    }
    Ok(out)
}

pub(super) fn decode_entries(bytes: &[u8], pack_count: u64) -> Result<Vec<RunChunk>> {
    let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
    if !rest.is_empty() || rows.is_empty() {
        return Err(Error::malformed(OBJECT, 0, "a block that ends amid an entry"));
    }
    within(
        OBJECT,
        "chunks of a block",
        rows.len() as u64,
        INDEX_BLOCK_CHUNKS as u64,
    )?;
    let chunks: Vec<RunChunk> = rows.iter().map(decode_row).collect();
    check_order(&chunks, pack_count as usize)?;
    for chunk in &chunks {
        let end = u64::from(chunk.chunk_offset) + u64::from(chunk.chunk_bytes);
        within(
            OBJECT,
            "bytes of a chunk",
            chunk.chunk_bytes.into(),
            CHUNK_MAX_BYTES.into(),
        )?;
        within(OBJECT, "bytes of a frame", end, FRAME_MAX_BYTES as u64)?;
        let end = u64::from(chunk.frame_offset) + u64::from(chunk.frame_bytes);
        within(OBJECT, "end of a frame", end, PACK_MAX_BYTES as u64)?;
    }
    Ok(chunks)
}

fn decode_row(row: &[u8; ROW_BYTES]) -> RunChunk {
    let (id, numbers) = row.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
    let mut at = 0;
    let mut number = |bytes: usize| {
        let value = numbers.get(at..at + bytes).unwrap_or_default();
        at += bytes;
        value.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
    };
    RunChunk {
        id: ChunkId(*id),
        pack: number(4),
        frame: number(2) as u16,
        frame_offset: number(4),
        frame_bytes: number(3),
        chunk_offset: number(3),
        chunk_bytes: number(3),
    }
}

pub(super) fn encode_packs(packs: &[RunPack]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(packs.len());
    for pack in packs {
        out.array(11).bytes(&pack.id.0).uint(pack.bytes);
        out.uint(pack.version.into())
            .uint(pack.kind as u64)
            .uint(pack.suite as u64);
        out.uint(pack.epoch).bytes(&pack.salt).bytes(&pack.wrapped_key);
        out.bytes(&pack.signer.0)
            .uint(pack.role.code().into())
            .uint(pack.verified as u64);
    }
    out.finish()
}

pub(super) fn decode_packs(bytes: &[u8]) -> Result<Vec<RunPack>> {
    let mut reader = Reader::new(OBJECT, bytes);
    let count = reader.array("packs of a block", INDEX_BLOCK_PACKS as u64)?;
    let packs: Result<Vec<RunPack>> = (0..count).map(|_| decode_pack(&mut reader)).collect();
    reader.end()?;
    packs
}

fn decode_pack(reader: &mut Reader<'_>) -> Result<RunPack> {
    reader.array_of("pack", 11)?;
    let (id, bytes, version) = (PackId(reader.fixed()?), reader.uint()?, reader.u8()?);
    within(OBJECT, "bytes of a pack", bytes, PACK_MAX_BYTES as u64)?;
    let kind = PackKind::from_code(reader.u8()?).ok_or_else(|| reader.malformed("unknown pack kind"))?;
    Ok(RunPack {
        id,
        bytes,
        version,
        kind,
        suite: Suite::from_code(OBJECT, reader.u8()?)?,
        epoch: reader.uint()?,
        salt: reader.fixed()?,
        wrapped_key: reader.bytes("wrapped key", WRAPPED_KEY_MAX_BYTES)?.to_vec(),
        signer: VerifyKey(reader.fixed()?),
        role: role_of(OBJECT, reader.u8()?)?,
        verified: match reader.u8()? {
            0 => Verified::No,
            1 => Verified::Yes,
            _ => return Err(reader.malformed("neither verified nor not")),
        },
    })
}
