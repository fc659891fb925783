//! Packs: many sealed frames and a tail that says what they hold. Layout: docs/format.md, "Pack".
//!
//! - Everything needed to open a pack is in its tail, so that one read of its end indexes it.
//! - The trailer is sealed with the index key: writers read it to deduplicate, strangers do not.
//! - The pack key is sealed to the vault's public key: only owners read frames.
//! - The writer signs preamble and trailer, so nobody can claim chunks in another writer's name.

use ring::digest::{SHA256, digest};

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::id::{ChunkId, PackId, VaultId, pack_id};
use crate::keys::{Certificate, Secrets, Signature};
use crate::limits::{
    CHUNK_MAX_BYTES, FORMAT_VERSION, FRAME_CHUNKS_MAX, FRAME_MAX_BYTES, PACK_FRAMES_MAX, PACK_MAX_BYTES,
    PACK_TAIL_MAX_BYTES,
};
use crate::random::{Random, array};
use crate::seal::{Compressed, PackKind, Sealer, Suite, TAG_BYTES};

const OBJECT: &str = "pack";
const MAGIC: &[u8; 7] = b"DRYPACK";
/// Magic and version, at the start and at the end.
const MAGIC_BYTES: usize = 8;
/// Trailer length, preamble length, signature, magic.
const FOOTER_BYTES: usize = 4 + 4 + 64 + MAGIC_BYTES;
const KEY_INFO: &[u8] = b"drystone pack key v1";
const CHUNK_ROW_BYTES: usize = 32 + 4;

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

/// The plain part of a pack's tail.
#[derive(Debug, Clone)]
pub struct Preamble {
    /// The vault that this pack belongs to.
    pub vault: VaultId,
    /// What it holds.
    pub kind: PackKind,
    /// How it is sealed.
    pub suite: Suite,
    /// Which epoch's keys sealed it.
    pub epoch: u64,
    /// Who wrote it.
    pub certificate: Certificate,
    salt: [u8; 32],
    wrapped_key: Vec<u8>,
}

impl Preamble {
    /// Associated data of the wrapped pack key.
    fn key_aad(vault: &VaultId, kind: PackKind, suite: Suite, epoch: u64, salt: &[u8; 32]) -> Vec<u8> {
        [
            &[FORMAT_VERSION],
            vault.0.as_slice(),
            &[kind as u8, suite as u8],
            &epoch.to_be_bytes(),
            salt,
        ]
        .concat()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(7)
            .uint(0)
            .bytes(&self.vault.0)
            .uint(1)
            .uint(self.kind as u64)
            .uint(2)
            .uint(self.suite as u64);
        out.uint(3)
            .uint(self.epoch)
            .uint(4)
            .bytes(&self.salt)
            .uint(5)
            .bytes(&self.wrapped_key)
            .uint(6);
        self.certificate.encode(&mut out);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut vault, mut kind, mut suite, mut epoch) = (None, None, None, None);
        let (mut salt, mut wrapped, mut certificate) = (None, None, None);
        let mut reader = Reader::new(OBJECT, bytes);
        reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => {
                    kind = Some(PackKind::from_code(reader.u8()?).ok_or_else(|| reader.malformed("unknown pack kind"))?)
                }
                2 => suite = Some(Suite::from_code(OBJECT, reader.u8()?)?),
                3 => epoch = Some(reader.uint()?),
                4 => salt = Some(reader.fixed()?),
                5 => wrapped = Some(reader.bytes("wrapped key", 256)?.to_vec()),
                6 => certificate = Some(Certificate::decode(OBJECT, reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            vault: required(OBJECT, "vault id", vault)?,
            kind: required(OBJECT, "kind", kind)?,
            suite: required(OBJECT, "cipher", suite)?,
            epoch: required(OBJECT, "key epoch", epoch)?,
            salt: required(OBJECT, "salt", salt)?,
            wrapped_key: required(OBJECT, "wrapped key", wrapped)?,
            certificate: required(OBJECT, "certificate", certificate)?,
        })
    }

    /// The preamble in `end`, the last bytes of a pack, to open its frames without its trailer. It is not authenticated:
    /// whatever comes out of a frame must still be checked against the chunk ids that were asked for.
    pub fn from_end(end: &[u8]) -> Result<Self> {
        let short = || Error::malformed(OBJECT, 0, "a tail cut short");
        let (body, footer) = end.split_last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
        check_magic(footer.last_chunk().unwrap_or(&[0; MAGIC_BYTES]))?;
        let &[_, _, _, _, a, b, c, d, ..] = footer;
        let start = body
            .len()
            .checked_sub(u32::from_be_bytes([a, b, c, d]) as usize)
            .ok_or_else(short)?;
        Self::decode(body.get(start..).unwrap_or_default())
    }

    /// What opens the frames of this pack; a writer's credential gets [`Error::WriterKey`].
    pub fn frame_sealer(&self, secrets: &Secrets) -> Result<Sealer> {
        let open_key = secrets.open_key(OBJECT, self.epoch)?;
        let aad = Self::key_aad(&self.vault, self.kind, self.suite, self.epoch, &self.salt);
        let key = open_key.open(OBJECT, KEY_INFO, &aad, &self.wrapped_key)?;
        let key: [u8; 32] = key
            .try_into()
            .map_err(|_| Error::malformed(OBJECT, 0, "pack key of another length"))?;
        Sealer::new(self.suite, &key, FRAME_LABEL, &self.vault, self.kind)
    }
}

const FRAME_LABEL: &[u8] = b"drystone frame v1";
const TRAILER_LABEL: &[u8] = b"drystone trailer v1";

/// What a signature in the footer covers.
fn signed_message(preamble: &[u8], trailer: &[u8], frames_end: u64) -> Vec<u8> {
    let (preamble, trailer) = (digest(&SHA256, preamble), digest(&SHA256, trailer));
    [
        b"drystone pack v1".as_slice(),
        preamble.as_ref(),
        trailer.as_ref(),
        &frames_end.to_be_bytes(),
    ]
    .concat()
}

/// A finished pack, ready to be stored under its id.
pub struct SealedPack {
    /// BLAKE3 of `bytes`.
    pub id: PackId,
    /// The object.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub frames: Vec<FrameInfo>,
    /// Its kind.
    pub kind: PackKind,
}

/// A pack that is being filled, in memory.
pub struct PackBuilder {
    preamble: Preamble,
    sealer: Sealer,
    bytes: Vec<u8>,
    frames: Vec<FrameInfo>,
}

impl PackBuilder {
    /// An empty pack of `kind`, sealed with a fresh key to the current epoch of `secrets`; reserves `capacity_bytes`.
    pub fn new(
        secrets: &Secrets,
        kind: PackKind,
        suite: Suite,
        capacity_bytes: usize,
        random: &mut dyn Random,
    ) -> Result<Self> {
        let epoch = secrets.current()?;
        let (key, salt): ([u8; 32], [u8; 32]) = (array(random), array(random));
        let aad = Preamble::key_aad(&secrets.vault, kind, suite, epoch.number, &salt);
        let preamble = Preamble {
            vault: secrets.vault,
            kind,
            suite,
            epoch: epoch.number,
            certificate: secrets.certificate,
            salt,
            wrapped_key: epoch.seal_key.seal(random, KEY_INFO, &aad, &key)?,
        };
        let sealer = Sealer::new(suite, &key, FRAME_LABEL, &secrets.vault, kind)?;
        let mut bytes = Vec::with_capacity(capacity_bytes);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT_VERSION);
        Ok(Self {
            preamble,
            sealer,
            bytes,
            frames: Vec::new(),
        })
    }

    /// Bytes so far, tail not counted.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// No frame yet.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame of `frame_bytes` still fits the limits of a pack.
    pub fn has_room(&self, frame_bytes: usize) -> bool {
        self.frames.len() < PACK_FRAMES_MAX
            && self.bytes.len() + frame_bytes + TAG_BYTES + PACK_TAIL_MAX_BYTES <= PACK_MAX_BYTES
    }

    /// Seals `frame`, which holds `chunks` in this order, and appends it.
    pub fn push(&mut self, frame: &Compressed, chunks: Vec<PackedChunk>) -> Result<()> {
        let start = self.bytes.len();
        let number = self.frames.len();
        within(OBJECT, "number of frames", number as u64 + 1, PACK_FRAMES_MAX as u64)?;
        self.bytes.extend_from_slice(frame.bytes());
        self.sealer.seal(number as u64, &mut self.bytes, start)?;
        within(OBJECT, "bytes", self.bytes.len() as u64, PACK_MAX_BYTES as u64)?;
        self.frames.push(FrameInfo {
            offset: start as u32,
            bytes: (self.bytes.len() - start) as u32,
            chunks,
        });
        Ok(())
    }

    /// Closes the pack: trailer, preamble, signature, name.
    pub fn finish(mut self, secrets: &Secrets) -> Result<SealedPack> {
        let frames_end = self.bytes.len();
        let trailer_key = secrets
            .epoch(OBJECT, self.preamble.epoch)?
            .index_key
            .trailer_key(&self.preamble.salt);
        let Preamble { suite, vault, kind, .. } = self.preamble;
        self.bytes.extend_from_slice(&encode_trailer(&self.frames));
        Sealer::new(suite, &trailer_key, TRAILER_LABEL, &vault, kind)?.seal(0, &mut self.bytes, frames_end)?;
        let trailer = self.bytes.get(frames_end..).unwrap_or_default();
        let preamble = self.preamble.encode();
        let lengths = [
            (trailer.len() as u32).to_be_bytes(),
            (preamble.len() as u32).to_be_bytes(),
        ]
        .concat();
        let signature = secrets
            .writer_key
            .sign(&signed_message(&preamble, trailer, frames_end as u64))?;
        self.bytes.extend_from_slice(&preamble);
        self.bytes.extend_from_slice(&lengths);
        self.bytes.extend_from_slice(&signature.0);
        self.bytes.extend_from_slice(MAGIC);
        self.bytes.push(FORMAT_VERSION);
        Ok(SealedPack {
            id: pack_id(&self.bytes),
            bytes: self.bytes,
            frames: self.frames,
            kind,
        })
    }
}

fn encode_trailer(frames: &[FrameInfo]) -> Vec<u8> {
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

fn decode_trailer(bytes: &[u8], frames_end: u64) -> Result<Vec<FrameInfo>> {
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
    reader.end()?;
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

/// The tail of a pack, authenticated: who wrote it and what it holds.
pub struct Tail {
    /// The plain part.
    pub preamble: Preamble,
    /// The frames, in order; a frame's number is its place here.
    pub frames: Vec<FrameInfo>,
}

/// Length of the tail of a pack, read from `end`, the last bytes of it (at least the footer's 80).
pub fn tail_bytes(end: &[u8], pack_bytes: u64) -> Result<usize> {
    let footer = end
        .last_chunk::<FOOTER_BYTES>()
        .ok_or_else(|| Error::malformed(OBJECT, 0, "shorter than its footer"))?;
    check_magic(footer.last_chunk().unwrap_or(&[0; MAGIC_BYTES]))?;
    within(OBJECT, "bytes", pack_bytes, PACK_MAX_BYTES as u64)?;
    let &[a, b, c, d, e, f, g, h, ..] = footer;
    let lengths = u64::from(u32::from_be_bytes([a, b, c, d])) + u64::from(u32::from_be_bytes([e, f, g, h]));
    let tail = lengths + FOOTER_BYTES as u64;
    within(OBJECT, "bytes of the tail", tail, PACK_TAIL_MAX_BYTES as u64)?;
    if tail + MAGIC_BYTES as u64 > pack_bytes {
        return Err(Error::malformed(OBJECT, 0, "a tail longer than the pack"));
    }
    Ok(tail as usize)
}

fn check_magic(bytes: &[u8; MAGIC_BYTES]) -> Result<()> {
    crate::header::check_magic(OBJECT, MAGIC, bytes).map(|_| ())
}

impl Tail {
    /// Opens the last [`tail_bytes`] bytes of a pack of `pack_bytes`: checks vault, certificate and signature, and
    /// opens the trailer with the index key.
    pub fn open(tail: &[u8], pack_bytes: u64, secrets: &Secrets) -> Result<Self> {
        if tail_bytes(tail, pack_bytes)? != tail.len() {
            return Err(Error::malformed(OBJECT, 0, "a tail of another length"));
        }
        let (preamble, trailer, signature) = split_tail(tail)?;
        let frames_end = pack_bytes - tail.len() as u64;
        let decoded = Preamble::decode(preamble)?;
        if decoded.vault != secrets.vault {
            return Err(Error::Authentication { object: OBJECT });
        }
        decoded
            .certificate
            .verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
        decoded
            .certificate
            .writer
            .verify(OBJECT, &signed_message(preamble, trailer, frames_end), &signature)?;
        let key = secrets
            .epoch(OBJECT, decoded.epoch)?
            .index_key
            .trailer_key(&decoded.salt);
        let sealer = Sealer::new(decoded.suite, &key, TRAILER_LABEL, &decoded.vault, decoded.kind)?;
        let frames = decode_trailer(&sealer.open(OBJECT, 0, trailer)?, frames_end)?;
        Ok(Self {
            preamble: decoded,
            frames,
        })
    }
}

/// Preamble, sealed trailer and signature of a whole tail.
fn split_tail(tail: &[u8]) -> Result<(&[u8], &[u8], Signature)> {
    let short = || Error::malformed(OBJECT, 0, "a tail cut short");
    let (body, footer) = tail.split_last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
    let (&[a, b, c, d, e, f, g, h], rest) = footer.split_first_chunk::<8>().ok_or_else(short)?;
    let (trailer_bytes, preamble_bytes) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let (trailer, preamble) = body.split_at_checked(trailer_bytes as usize).ok_or_else(short)?;
    if preamble.len() != preamble_bytes as usize {
        return Err(short());
    }
    Ok((preamble, trailer, Signature(*rest.first_chunk().ok_or_else(short)?)))
}
