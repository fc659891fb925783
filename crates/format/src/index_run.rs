//! Index runs: owners' merge of index parts, sorted, in pieces that are read in place by ranges.
//! Layout: docs/format.md, "Index run".
//!
//! - An owner signs the directory, which holds the hash of every block: who has the index key can read blocks, not forge them.
//! - Merging verifies nothing: an entry counts as much as the signer of its pack, whom the run names, unless an owner has
//!   verified the pack.
//! - Blocks are sealed one by one; one is enough to find a chunk, one more to open its pack.

mod blocks;
mod directory;
mod entry;

use std::ops::Range;

use crate::cbor::Writer;
use crate::error::{Error, Result, within};
use crate::index_part::Numbered;
use crate::keys::{Role, Secrets};
use crate::limits::{FORMAT_VERSION, INDEX_BLOCK_CHUNKS, INDEX_BLOCK_PACKS, INDEX_MAX_BYTES};
use crate::random::{Random, array};
use crate::seal::Sealer;

use self::blocks::{encode_entries, encode_packs};
use self::directory::{Block, DIRECTORY, ENDING, MAGIC, PACK_BLOCKS, Preamble, block_hash};
use self::entry::OBJECT;

pub use self::directory::{RunDirectory, run_tail_bytes};
pub use self::entry::{RunChunk, RunPack, Verified};

/// One piece of a run, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexRun {
    /// Its packs, in any order; chunks name them by their place here.
    pub packs: Vec<RunPack>,
    /// Its chunks, ascending by id and then by pack; none twice in one pack.
    pub chunks: Vec<RunChunk>,
}

impl IndexRun {
    /// The object, signed by an owner; [`Error::Limit`] if it is too large for one piece.
    pub fn seal(&self, secrets: &Secrets, of: &Numbered, random: &mut dyn Random) -> Result<Vec<u8>> {
        if secrets.certificate.role != Role::Owner {
            return Err(Error::Signature { object: OBJECT });
        }
        blocks::check_order(&self.chunks, self.packs.len())?;
        let preamble = Preamble {
            vault: secrets.vault,
            of: *of,
            certificate: secrets.certificate,
            epoch: secrets.current()?.number,
            salt: array(random),
        };
        let sealer = preamble.sealer(FORMAT_VERSION, secrets)?;
        let mut out = MAGIC.to_vec();
        out.push(FORMAT_VERSION);
        let mut directory = Writer::new();
        directory.map(4).uint(0).uint(self.chunks.len() as u64);
        directory.uint(1).uint(self.packs.len() as u64).uint(2);
        directory.array(self.chunks.len().div_ceil(INDEX_BLOCK_CHUNKS));
        for (number, chunks) in (0..).zip(self.chunks.chunks(INDEX_BLOCK_CHUNKS)) {
            let first = chunks.first().map_or([0; 32], |chunk| chunk.id.0);
            let block = append(&sealer, number, &encode_entries(chunks)?, &mut out)?;
            directory
                .array(3)
                .bytes(&first)
                .uint(block.bytes.into())
                .bytes(&block.hash);
        }
        directory.uint(3).array(self.packs.len().div_ceil(INDEX_BLOCK_PACKS));
        for (number, packs) in (PACK_BLOCKS..).zip(self.packs.chunks(INDEX_BLOCK_PACKS)) {
            let block = append(&sealer, number, &encode_packs(packs), &mut out)?;
            directory.array(2).uint(block.bytes.into()).bytes(&block.hash);
        }
        let blocks_end = out.len();
        out.extend_from_slice(&directory.finish());
        sealer.seal(DIRECTORY, &mut out, blocks_end)?;
        ENDING.append(
            FORMAT_VERSION,
            &secrets.writer_key,
            &preamble.encode(),
            (&mut out, blocks_end),
        )?;
        Ok(out)
    }

    /// Opens a whole piece: what [`IndexRun::seal`] made.
    pub fn open(secrets: &Secrets, piece: &[u8]) -> Result<Self> {
        let size = piece.len() as u64;
        let start = piece.len() - run_tail_bytes(piece, size)?;
        let directory = RunDirectory::open(piece.get(start..).unwrap_or_default(), size, secrets)?;
        let at = |range: Option<Range<u64>>| {
            let range = range.unwrap_or_default();
            piece.get(range.start as usize..range.end as usize).unwrap_or_default()
        };
        let mut run = Self::default();
        for block in 0..directory.chunk_blocks() {
            run.chunks
                .extend(directory.open_chunks(block, at(directory.chunk_range(block)))?);
        }
        for block in 0..directory.pack_blocks() {
            let pack = (block * INDEX_BLOCK_PACKS) as u32;
            run.packs
                .extend(directory.open_packs(pack, at(directory.pack_range(pack)))?);
        }
        blocks::check_order(&run.chunks, run.packs.len())?;
        Ok(run)
    }
}

/// Seals a block onto `out`.
fn append(sealer: &Sealer, number: u64, plaintext: &[u8], out: &mut Vec<u8>) -> Result<Block> {
    let start = out.len();
    out.extend_from_slice(plaintext);
    sealer.seal(number, out, start)?;
    within(OBJECT, "bytes", out.len() as u64, INDEX_MAX_BYTES as u64)?;
    let sealed = out.get(start..).unwrap_or_default();
    Ok(Block {
        start: start as u64,
        bytes: sealed.len() as u32,
        hash: block_hash(sealed),
    })
}
