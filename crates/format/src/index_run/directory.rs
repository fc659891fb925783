//! The tail of a piece of an index run: an owner's signature, and which blocks there are. Layout: docs/format.md, "Index run".
//!
//! - Whoever opens a directory has checked that an owner signed it; a block counts only if it has the hash that stands there.
//! - Blocks lie back to back between the magic and the directory.

use std::ops::Range;

use crate::cbor::{Reader, Writer, required};
use crate::ending::{Ending, MAGIC_BYTES};
use crate::error::{Error, Result, within};
use crate::id::{ChunkId, VaultId, object_hash};
use crate::index_part::Numbered;
use crate::keys::{Certificate, Role, Secrets};
use crate::limits::{
    FORMAT_VERSION, INDEX_BLOCK_CHUNKS, INDEX_BLOCK_MAX_BYTES, INDEX_BLOCK_PACKS, INDEX_MAX_BYTES, INDEX_TAIL_MAX_BYTES,
};
use crate::seal::{Sealer, Suite};

use super::blocks::{decode_entries, decode_packs};
use super::entry::{OBJECT, RunChunk, RunPack};

pub(super) const MAGIC: &[u8; 7] = b"DRYIRUN";
const DOMAIN: &[u8] = b"drystone index run v1";
/// A piece ends in its sealed directory, its preamble and a footer.
pub(super) const ENDING: Ending = Ending {
    object: OBJECT,
    whole: "piece",
    magic: MAGIC,
    domain: DOMAIN,
    max_bytes: INDEX_MAX_BYTES,
    tail_max_bytes: INDEX_TAIL_MAX_BYTES,
};
/// Number of the seal of the first block of packs; those of chunks begin at 0.
pub(super) const PACK_BLOCKS: u64 = 1 << 32;
/// Number of the seal of the directory.
pub(super) const DIRECTORY: u64 = 1 << 33;

/// Most blocks of one piece.
const BLOCKS_MAX: u64 = (INDEX_TAIL_MAX_BYTES / 20) as u64;

/// A sealed block of a piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// First byte in the piece.
    pub(super) start: u64,
    /// Sealed length, bytes.
    pub(super) bytes: u32,
    /// The first 16 bytes of the BLAKE3 of its sealed bytes.
    pub(super) hash: [u8; 16],
}

pub(super) fn block_hash(sealed: &[u8]) -> [u8; 16] {
    object_hash(sealed).0
}

/// The plain part of a piece.
pub(super) struct Preamble {
    pub(super) vault: VaultId,
    pub(super) of: Numbered,
    pub(super) certificate: Certificate,
    pub(super) epoch: u64,
    pub(super) salt: [u8; 32],
}

impl Preamble {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(6).uint(0).bytes(&self.vault.0);
        out.uint(1).bytes(&self.of.registration).uint(2).uint(self.of.number);
        out.uint(3);
        self.certificate.encode(&mut out);
        out.uint(4).uint(self.epoch).uint(5).bytes(&self.salt);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut vault, mut registration, mut number) = (None, None, None);
        let (mut certificate, mut epoch, mut salt) = (None, None, None);
        let mut reader = Reader::new(OBJECT, bytes);
        reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => registration = Some(reader.fixed()?),
                2 => number = Some(reader.uint()?),
                3 => certificate = Some(Certificate::decode(OBJECT, reader)?),
                4 => epoch = Some(reader.uint()?),
                5 => salt = Some(reader.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            vault: required(OBJECT, "vault id", vault)?,
            of: Numbered {
                registration: required(OBJECT, "registration nonce", registration)?,
                number: required(OBJECT, "number", number)?,
            },
            certificate: required(OBJECT, "certificate", certificate)?,
            epoch: required(OBJECT, "key epoch", epoch)?,
            salt: required(OBJECT, "salt", salt)?,
        })
    }

    pub(super) fn sealer(&self, version: u8, secrets: &Secrets) -> Result<Sealer> {
        let epoch = secrets.epoch(OBJECT, self.epoch)?;
        let key = epoch.index_key.trailer_key(&self.salt);
        Sealer::with_aad(Suite::ChaCha20Poly1305, &key, aad(version, &self.vault, &self.of))
    }
}

/// Length of the tail of a piece, read from `end`, the last bytes of it (at least the footer's 80).
pub fn run_tail_bytes(end: &[u8], piece_bytes: u64) -> Result<usize> {
    ENDING.tail_bytes(FORMAT_VERSION, end, piece_bytes)
}

/// The directory of a piece, authenticated: finds and opens its blocks.
pub struct RunDirectory {
    /// Which object of which registration.
    pub of: Numbered,
    /// The owner who merged it.
    pub certificate: Certificate,
    /// Chunks that it lists; one in several packs counts for each.
    pub chunk_count: u64,
    /// Packs that it lists.
    pub pack_count: u64,
    sealer: Sealer,
    firsts: Vec<ChunkId>,
    chunk_blocks: Vec<Block>,
    pack_blocks: Vec<Block>,
}

impl RunDirectory {
    /// Opens the last [`run_tail_bytes`] bytes of a piece of `piece_bytes`: checks vault, certificate, that an owner signed.
    pub fn open(tail: &[u8], piece_bytes: u64, secrets: &Secrets) -> Result<Self> {
        let parts = ENDING.split(FORMAT_VERSION, tail, piece_bytes)?;
        let decoded = Preamble::decode(parts.plain)?;
        if decoded.vault != secrets.vault {
            return Err(Error::Authentication { object: OBJECT });
        }
        let certificate = decoded.certificate;
        certificate.verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
        parts.verify(OBJECT, &certificate.writer)?;
        if certificate.role != Role::Owner {
            return Err(Error::Signature { object: OBJECT });
        }
        let sealer = decoded.sealer(parts.version, secrets)?;
        let opened = sealer.open(OBJECT, DIRECTORY, parts.sealed)?;
        let mut found = Self {
            of: decoded.of,
            certificate,
            chunk_count: 0,
            pack_count: 0,
            sealer,
            firsts: Vec::new(),
            chunk_blocks: Vec::new(),
            pack_blocks: Vec::new(),
        };
        found.decode(&opened, parts.start)?;
        Ok(found)
    }

    fn decode(&mut self, bytes: &[u8], blocks_end: u64) -> Result<()> {
        let mut reader = Reader::new(OBJECT, bytes);
        let mut end = MAGIC_BYTES as u64;
        reader.map(|reader, key| {
            match key {
                0 => self.chunk_count = reader.uint()?,
                1 => self.pack_count = reader.uint()?,
                2 => {
                    for _ in 0..reader.array("blocks", BLOCKS_MAX)? {
                        reader.array_of("block", 3)?;
                        self.firsts.push(ChunkId(reader.fixed()?));
                        self.chunk_blocks.push(block(reader, &mut end)?);
                    }
                }
                3 => {
                    for _ in 0..reader.array("blocks", BLOCKS_MAX)? {
                        reader.array_of("block", 2)?;
                        self.pack_blocks.push(block(reader, &mut end)?);
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let blocks = |count: u64, each: usize| count.div_ceil(each as u64);
        let counts = (self.chunk_blocks.len() as u64, self.pack_blocks.len() as u64);
        if (
            blocks(self.chunk_count, INDEX_BLOCK_CHUNKS),
            blocks(self.pack_count, INDEX_BLOCK_PACKS),
        ) != counts
            || end != blocks_end
            || !self.firsts.is_sorted()
        {
            return Err(Error::malformed(OBJECT, 0, "a directory that does not fit its piece"));
        }
        Ok(())
    }

    /// The blocks in which the chunk may stand: none or one as a rule, more if it lies in many packs.
    pub fn blocks_of(&self, id: &ChunkId) -> Range<usize> {
        let first = self.firsts.partition_point(|first| first < id).saturating_sub(1);
        first..self.firsts.partition_point(|first| first <= id).max(first)
    }

    /// How many blocks of chunks there are.
    pub fn chunk_blocks(&self) -> usize {
        self.chunk_blocks.len()
    }

    /// How many blocks of packs there are.
    pub(super) fn pack_blocks(&self) -> usize {
        self.pack_blocks.len()
    }

    /// Where in the piece a block of chunks lies.
    pub fn chunk_range(&self, block: usize) -> Option<Range<u64>> {
        self.chunk_blocks.get(block).map(Block::range)
    }

    /// Where in the piece the block lies that has pack number `pack`.
    pub fn pack_range(&self, pack: u32) -> Option<Range<u64>> {
        self.pack_blocks
            .get(pack as usize / INDEX_BLOCK_PACKS)
            .map(Block::range)
    }

    /// Opens block number `block` of chunks.
    pub fn open_chunks(&self, block: usize, sealed: &[u8]) -> Result<Vec<RunChunk>> {
        let opened = self.open_block(self.chunk_blocks.get(block), block as u64, sealed)?;
        let chunks = decode_entries(&opened, self.pack_count)?;
        let is_last = block + 1 == self.chunk_blocks.len();
        let before = (block * INDEX_BLOCK_CHUNKS) as u64;
        let wanted = self.chunk_count.saturating_sub(before).min(INDEX_BLOCK_CHUNKS as u64);
        let next = self.firsts.get(block + 1);
        let reaches_too_far = |chunk: &RunChunk| next.is_some_and(|next| chunk.id > *next);
        if chunks.len() as u64 != wanted
            || chunks.first().map(|chunk| &chunk.id) != self.firsts.get(block)
            || (!is_last && chunks.last().is_some_and(reaches_too_far))
        {
            return Err(Error::malformed(
                OBJECT,
                0,
                "a block that the directory describes otherwise",
            ));
        }
        Ok(chunks)
    }

    /// Opens the block that has pack number `pack`; the numbers in it begin at a multiple of [`INDEX_BLOCK_PACKS`].
    pub fn open_packs(&self, pack: u32, sealed: &[u8]) -> Result<Vec<RunPack>> {
        let block = pack as usize / INDEX_BLOCK_PACKS;
        let opened = self.open_block(self.pack_blocks.get(block), PACK_BLOCKS + block as u64, sealed)?;
        let packs = decode_packs(&opened)?;
        let before = (block * INDEX_BLOCK_PACKS) as u64;
        let wanted = self.pack_count.saturating_sub(before).min(INDEX_BLOCK_PACKS as u64);
        if packs.len() as u64 != wanted {
            return Err(Error::malformed(
                OBJECT,
                0,
                "a block that the directory describes otherwise",
            ));
        }
        Ok(packs)
    }

    fn open_block(&self, block: Option<&Block>, number: u64, sealed: &[u8]) -> Result<Vec<u8>> {
        let block = block.ok_or_else(|| Error::malformed(OBJECT, 0, "no such block"))?;
        if sealed.len() != block.bytes as usize || block_hash(sealed) != block.hash {
            return Err(Error::Authentication { object: OBJECT });
        }
        self.sealer.open(OBJECT, number, sealed)
    }
}

impl Block {
    fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.bytes)
    }
}

/// Length and hash of the block that begins at `end`.
fn block(reader: &mut Reader<'_>, end: &mut u64) -> Result<Block> {
    let (start, bytes) = (*end, reader.u32()?);
    within(OBJECT, "bytes of a block", bytes.into(), INDEX_BLOCK_MAX_BYTES as u64)?;
    *end += u64::from(bytes);
    Ok(Block {
        start,
        bytes,
        hash: reader.fixed()?,
    })
}

/// Associated data of all seals of a run.
fn aad(version: u8, vault: &VaultId, of: &Numbered) -> Vec<u8> {
    [DOMAIN, &[version], &vault.0, &of.registration, &of.number.to_be_bytes()].concat()
}
