//! Index runs: owners' merge of index parts, sorted, in pieces that are read in place by ranges.
//! Layout: docs/format.md, "Index run".
//!
//! - An owner signs the directory, which holds the hash of every block: who has the index key can read blocks, not forge them.
//! - Merging verifies nothing: an entry counts as much as the signer of its pack, whom the run names, unless an owner has
//!   verified the pack.
//! - Blocks are sealed one by one; one is enough to find a chunk, one more to open its pack.

mod blocks;
mod directory;

use crate::cbor::Writer;
use crate::ending::Ending;
use crate::error::{Error, Result, within};
use crate::id::{ChunkId, PackId, VaultId};
use crate::index_part::Numbered;
use crate::keys::{Role, Secrets, VerifyKey};
use crate::limits::{FORMAT_VERSION, INDEX_BLOCK_CHUNKS, INDEX_BLOCK_PACKS, INDEX_MAX_BYTES, INDEX_TAIL_MAX_BYTES};
use crate::pack::{self, LockedFrames, Tail};
use crate::random::{Random, array};
use crate::seal::{PackKind, Sealer, Suite};

use self::blocks::{encode_entries, encode_packs};
use self::directory::{Block, Preamble, block_hash};

pub use self::directory::{RunDirectory, run_tail_bytes};

const OBJECT: &str = "index run";
const MAGIC: &[u8; 7] = b"DRYIRUN";
const DOMAIN: &[u8] = b"drystone index run v1";
/// A piece ends in its sealed directory, its preamble and a footer.
const ENDING: Ending = Ending {
    object: OBJECT,
    whole: "piece",
    magic: MAGIC,
    domain: DOMAIN,
    max_bytes: INDEX_MAX_BYTES,
    tail_max_bytes: INDEX_TAIL_MAX_BYTES,
};
/// Number of the seal of the first block of packs; those of chunks begin at 0.
const PACK_BLOCKS: u64 = 1 << 32;
/// Number of the seal of the directory.
const DIRECTORY: u64 = 1 << 33;

/// A pack of a run: whose it is, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPack {
    /// The pack.
    pub id: PackId,
    /// Its length, bytes.
    pub bytes: u64,
    /// Format version of the pack.
    pub version: u8,
    /// What it holds.
    pub kind: PackKind,
    /// How it is sealed.
    pub suite: Suite,
    /// Which epoch's keys sealed it.
    pub epoch: u64,
    /// Its salt.
    pub salt: [u8; 32],
    /// Its key, sealed to the seal key of the epoch.
    pub wrapped_key: Vec<u8>,
    /// Who signed it.
    pub signer: VerifyKey,
    /// What the signer's credential might do.
    pub role: Role,
    /// Whether an owner has verified that it holds what its trailer claims.
    pub verified: Verified,
}

/// Whether an owner has verified a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Nobody has yet.
    No = 0,
    /// An owner has read it.
    Yes = 1,
}

impl RunPack {
    /// What a run says of the pack with this tail.
    pub fn new(id: PackId, bytes: u64, tail: &Tail, verified: Verified) -> Self {
        Self::of_preamble(id, bytes, &tail.preamble, verified)
    }

    /// The same of the pack with this preamble. If it is not authenticated, the caller has compared what it says of the signer.
    pub fn of_preamble(id: PackId, bytes: u64, preamble: &pack::Preamble, verified: Verified) -> Self {
        Self {
            id,
            bytes,
            version: preamble.version,
            kind: preamble.kind,
            suite: preamble.suite,
            epoch: preamble.epoch,
            salt: *preamble.salt(),
            wrapped_key: preamble.wrapped_key().to_vec(),
            signer: preamble.certificate.writer,
            role: preamble.certificate.role,
            verified,
        }
    }

    /// What opens the frames of the pack; a writer's credential gets [`Error::WriterKey`].
    pub fn frame_sealer(&self, secrets: &Secrets) -> Result<Sealer> {
        let locked = LockedFrames {
            version: self.version,
            vault: &secrets.vault,
            kind: self.kind,
            suite: self.suite,
            epoch: self.epoch,
            salt: &self.salt,
            wrapped_key: &self.wrapped_key,
        };
        locked.open(secrets)
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Place of its pack in the list of packs.
    pub pack: u32,
    /// Number of its frame in the pack.
    pub frame: u16,
    /// First byte of the frame in the pack.
    pub frame_offset: u32,
    /// Sealed length of the frame, bytes, below 2^24.
    pub frame_bytes: u32,
    /// First byte of the chunk in the plaintext of the frame, below 2^24.
    pub chunk_offset: u32,
    /// Length of the chunk, bytes, below 2^24.
    pub chunk_bytes: u32,
}

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

/// Associated data of all seals of a run.
fn aad(version: u8, vault: &VaultId, of: &Numbered) -> Vec<u8> {
    [DOMAIN, &[version], &vault.0, &of.registration, &of.number.to_be_bytes()].concat()
}
