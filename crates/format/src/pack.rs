//! Packs: many sealed frames and a tail that says what they hold. Layout: docs/format.md, "Pack".
//!
//! - Everything needed to open a pack is in its tail, so that one read of its end indexes it.
//! - The trailer is sealed with the index key: writers read it to deduplicate, strangers do not.
//! - The pack key is sealed to the vault's public key: only who may read opens frames.
//! - The writer signs preamble and trailer, so nobody can claim chunks in another writer's name.
//! - The lengths of a pack and of its trailer say in which class of sizes it is, and no more (`pack/padding.rs`).

mod ending;
mod padding;
mod preamble;
mod tail;
mod trailer;

use crate::ending::FOOTER_BYTES;
use crate::error::{Result, within};
use crate::id::{PackId, RegistrationId, pack_id};
use crate::keys::Secrets;
use crate::limits::{FORMAT_VERSION, PACK_FRAMES_MAX, PACK_MAX_BYTES, PACK_TAIL_MAX_BYTES};
use crate::random::{Random, array};
use crate::seal::{Compressed, PackKind, Sealer, Suite, TAG_BYTES};

use self::ending::{ENDING, MAGIC, OBJECT};
use self::padding::{Padded, padded};
use self::preamble::KEY_INFO;
use self::trailer::{TRAILER_HEAD_BYTES, encode_trailer, row_bytes};

pub use self::preamble::Preamble;
pub(crate) use self::preamble::{LockedFrames, WRAPPED_KEY_MAX_BYTES};
pub use self::tail::{Tail, tail_bytes};
pub use self::trailer::{FrameInfo, PackedChunk};

/// Largest sealed trailer that is written, bytes: the largest power of two that leaves room for the rest of a tail.
const TRAILER_MAX_BYTES: usize = PACK_TAIL_MAX_BYTES / 2;

/// What a pack is made as.
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// What it holds.
    pub kind: PackKind,
    /// How it is sealed.
    pub suite: Suite,
    /// The nonce of the registration that it is written under.
    pub registration: [u8; 16],
    /// Which pack of the registration it is.
    pub number: u64,
    /// Memory to reserve, bytes.
    pub capacity_bytes: usize,
}

/// A finished pack, ready to be stored under its id.
pub struct SealedPack {
    /// BLAKE3 of `bytes`.
    pub id: PackId,
    /// The object.
    pub bytes: Vec<u8>,
    /// What it holds; a frame without chunks is padding.
    pub frames: Vec<FrameInfo>,
    /// Its kind.
    pub kind: PackKind,
    /// The registration that it was written under, and which of its packs it is.
    pub registration: (RegistrationId, u64),
    /// Where in `bytes` the tail begins.
    pub tail_start: usize,
}

impl SealedPack {
    /// The tail, which an index part carries.
    pub fn tail(&self) -> &[u8] {
        self.bytes.get(self.tail_start..).unwrap_or_default()
    }
}

/// A pack that is being filled, in memory.
pub struct PackBuilder {
    preamble: Preamble,
    sealer: Sealer,
    bytes: Vec<u8>,
    frames: Vec<FrameInfo>,
    /// Most bytes that the trailer of `frames` and of a last frame without chunks takes.
    trailer_bytes: usize,
}

impl PackBuilder {
    /// An empty pack, sealed with a fresh key to the current epoch of `secrets`.
    pub fn new(secrets: &Secrets, options: &PackOptions, random: &mut dyn Random) -> Result<Self> {
        Self::of_version(FORMAT_VERSION, secrets, options, random)
    }

    fn of_version(version: u8, secrets: &Secrets, options: &PackOptions, random: &mut dyn Random) -> Result<Self> {
        let epoch = secrets.current()?;
        let (key, salt): ([u8; 32], [u8; 32]) = (array(random), array(random));
        let mut preamble = Preamble {
            version,
            vault: secrets.vault,
            kind: options.kind,
            suite: options.suite,
            epoch: epoch.number,
            certificate: secrets.certificate,
            registration: options.registration,
            number: options.number,
            salt,
            wrapped_key: Vec::new(),
        };
        preamble.wrapped_key = epoch.seal_key.seal(random, KEY_INFO, &preamble.key_aad(), &key)?;
        let mut bytes = Vec::with_capacity(options.capacity_bytes);
        bytes.extend_from_slice(MAGIC);
        bytes.push(version);
        Ok(Self {
            sealer: preamble.frames(&key)?,
            preamble,
            bytes,
            frames: Vec::new(),
            trailer_bytes: TRAILER_HEAD_BYTES + row_bytes(0) + TAG_BYTES,
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

    /// Returns true if a frame of `frame_bytes` that holds `chunk_count` chunks still fits the limits of a pack.
    pub fn has_room(&self, frame_bytes: usize, chunk_count: usize) -> bool {
        // One frame is left for the padding.
        self.frames.len() + 1 < PACK_FRAMES_MAX
            && self.bytes.len() + frame_bytes + TAG_BYTES + PACK_TAIL_MAX_BYTES <= PACK_MAX_BYTES
            && self.trailer_bytes + row_bytes(chunk_count) <= TRAILER_MAX_BYTES
    }

    /// Seals `frame`, which holds `chunks` in this order, and appends it.
    pub fn push(&mut self, frame: &Compressed, chunks: Vec<PackedChunk>) -> Result<()> {
        let start = self.bytes.len();
        self.trailer_bytes += row_bytes(chunks.len());
        within(
            OBJECT,
            "bytes of the trailer",
            self.trailer_bytes as u64,
            TRAILER_MAX_BYTES as u64,
        )?;
        self.bytes.extend_from_slice(frame.bytes());
        self.sealer.seal(self.frames.len() as u64, &mut self.bytes, start)?;
        self.note_frame(start, chunks)
    }

    /// Lists the frame that was sealed from `start` on.
    fn note_frame(&mut self, start: usize, chunks: Vec<PackedChunk>) -> Result<()> {
        let (count, end) = (self.frames.len() as u64 + 1, self.bytes.len());
        within(OBJECT, "number of frames", count, PACK_FRAMES_MAX as u64)?;
        within(OBJECT, "bytes", end as u64, PACK_MAX_BYTES as u64)?;
        self.frames.push(FrameInfo {
            offset: start as u32,
            bytes: (end - start) as u32,
            chunks,
        });
        Ok(())
    }

    /// Closes the pack: padding, trailer, preamble, signature, name.
    pub fn finish(mut self, secrets: &Secrets) -> Result<SealedPack> {
        let preamble = self.preamble.encode();
        let rest = self.bytes.len() + preamble.len() + FOOTER_BYTES;
        let Padded { pack, trailer } = padded(rest, self.trailer_bytes);
        let start = self.bytes.len();
        let number = self.frames.len() as u64;
        // The tail follows, without one more allocation for it.
        self.bytes.reserve_exact(pack - start);
        self.sealer
            .seal_padding(number, &mut self.bytes, pack - rest - trailer)?;
        self.note_frame(start, Vec::new())?;
        self.close(secrets, &preamble, trailer)
    }

    /// Closes the pack as it is: its length and that of its trailer show what it holds. For examples and tests: readers must
    /// not depend on padding.
    pub fn finish_unpadded(self, secrets: &Secrets) -> Result<SealedPack> {
        let preamble = self.preamble.encode();
        self.close(secrets, &preamble, 0)
    }

    /// Appends the tail, with a sealed trailer of at least `trailer_bytes`.
    fn close(mut self, secrets: &Secrets, preamble: &[u8], trailer_bytes: usize) -> Result<SealedPack> {
        let frames_end = self.bytes.len();
        self.bytes.extend_from_slice(&encode_trailer(&self.frames));
        let padded = frames_end + trailer_bytes.saturating_sub(TAG_BYTES);
        self.bytes.resize(padded.max(self.bytes.len()), 0);
        self.preamble.trailer(secrets)?.seal(0, &mut self.bytes, frames_end)?;
        let version = self.preamble.version;
        ENDING.append(version, &secrets.writer_key, preamble, (&mut self.bytes, frames_end))?;
        Ok(SealedPack {
            id: pack_id(&self.bytes),
            bytes: self.bytes,
            frames: self.frames,
            kind: self.preamble.kind,
            registration: (self.preamble.registration_id(), self.preamble.number),
            tail_start: frames_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Compression, Compressor};
    use crate::id::{ChunkId, VaultId};
    use crate::random::tests::Counting;

    const OPTIONS: PackOptions = PackOptions {
        kind: PackKind::Mixed,
        suite: Suite::ChaCha20Poly1305,
        registration: [7; 16],
        number: 3,
        capacity_bytes: 0,
    };

    fn secrets() -> Secrets {
        Secrets::generate(&mut Counting(0), VaultId([9; 16])).unwrap()
    }

    fn pack_of_version(version: u8) -> SealedPack {
        let mut pack = PackBuilder::of_version(version, &secrets(), &OPTIONS, &mut Counting(1)).unwrap();
        let mut compressor = Compressor::new(Compression::DEFAULT).unwrap();
        let chunk = PackedChunk {
            id: ChunkId([1; 32]),
            bytes: 5,
        };
        let frame = Compressed::new(&mut compressor, b"hello").unwrap();
        pack.push(&frame, vec![chunk]).unwrap();
        pack.finish(&secrets()).unwrap()
    }

    /// The first chunkful of frame 0, as a program that knows versions up to `newest` reads it.
    fn read(newest: u8, pack: &[u8]) -> Result<Vec<u8>> {
        let size = pack.len() as u64;
        let start = pack.len() - tail::tail_bytes_up_to(newest, pack, size)?;
        let tail = Tail::open_up_to(newest, &pack[start..], size, &secrets())?;
        assert_eq!(tail.preamble.version, pack[7]);
        let frame = &tail.frames[0];
        let sealed = &pack[frame.offset as usize..][..frame.bytes as usize];
        let sealer = Preamble::from_end_up_to(newest, pack)?.frame_sealer(&secrets())?;
        sealer.open_frame(0, sealed)
    }

    #[test]
    fn packs_of_an_old_version_open_beside_new_ones_after_the_version_is_raised() {
        let (one, two) = (pack_of_version(1), pack_of_version(2));
        for pack in [&one, &two] {
            assert_eq!(read(2, &pack.bytes).unwrap(), b"hello");
        }
        assert_eq!(read(1, &one.bytes).unwrap(), b"hello");
        let refused = read(1, &two.bytes);
        assert!(
            matches!(refused, Err(crate::Error::Version { found: 2, known: 1, .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn every_seal_binds_the_version_of_its_object() {
        let mut pack = pack_of_version(1);
        *pack.bytes.last_mut().unwrap() = 2;
        let size = pack.bytes.len() as u64;
        let opened = Tail::open_up_to(2, pack.tail(), size, &secrets()).map(drop);
        assert!(
            matches!(opened, Err(crate::Error::Authentication { .. })),
            "trailer: {opened:?}"
        );
        let preamble = Preamble::from_end_up_to(2, &pack.bytes).unwrap();
        let key = preamble.frame_sealer(&secrets()).map(drop);
        assert!(
            matches!(key, Err(crate::Error::Authentication { .. })),
            "wrapped key: {key:?}"
        );
        let frame = &pack.frames[0];
        let sealed = &pack.bytes[frame.offset as usize..][..frame.bytes as usize];
        for (version, opens) in [(1, true), (2, false)] {
            let of_version = Preamble {
                version,
                ..preamble.clone()
            };
            assert_eq!(
                of_version.frames(&key_of(1)).unwrap().open_frame(0, sealed).is_ok(),
                opens,
                "frame"
            );
        }
    }

    /// The pack key that `Counting(start)` gives.
    fn key_of(start: u8) -> [u8; 32] {
        array(&mut Counting(start))
    }

    #[test]
    fn a_pack_of_tiny_frames_keeps_one_for_its_padding() {
        let secrets = secrets();
        let mut pack = PackBuilder::new(&secrets, &OPTIONS, &mut Counting(1)).unwrap();
        let mut compressor = Compressor::new(Compression::DEFAULT).unwrap();
        let frame = Compressed::new(&mut compressor, &[7]).unwrap();
        while pack.has_room(frame.bytes().len(), 0) {
            pack.push(&frame, Vec::new()).unwrap();
        }
        assert_eq!(pack.frames.len(), PACK_FRAMES_MAX - 1);
        let pack = pack.finish(&secrets).unwrap();
        let tail = Tail::open(pack.tail(), pack.bytes.len() as u64, &secrets).unwrap();
        assert_eq!(tail.frames.len(), PACK_FRAMES_MAX);
    }

    #[test]
    fn a_pack_of_tiny_chunks_is_full_before_its_tail_is_too_large() {
        let secrets = secrets();
        let mut pack = PackBuilder::new(&secrets, &OPTIONS, &mut Counting(1)).unwrap();
        let mut compressor = Compressor::new(Compression::DEFAULT).unwrap();
        let frame = Compressed::new(&mut compressor, &vec![0; 1 << 16]).unwrap();
        let chunk = PackedChunk {
            id: ChunkId([1; 32]),
            bytes: 1,
        };
        let chunks = vec![chunk; 1 << 15];
        while pack.has_room(frame.bytes().len(), chunks.len()) {
            pack.push(&frame, chunks.clone()).unwrap();
        }
        assert!(pack.push(&frame, chunks).is_err());
        let mut pack = PackBuilder::new(&secrets, &OPTIONS, &mut Counting(1)).unwrap();
        assert!(
            pack.has_room(4 << 20, crate::limits::FRAME_CHUNKS_MAX),
            "any one frame fits an empty pack"
        );
        let most = vec![chunk; crate::limits::FRAME_CHUNKS_MAX];
        pack.push(&frame, most.clone()).unwrap();
        assert!(!pack.has_room(1, most.len()));
        let pack = pack.finish(&secrets).unwrap();
        let size = pack.bytes.len() as u64;
        let tail = Tail::open(pack.tail(), size, &secrets).unwrap();
        assert_eq!(tail.frames[0].chunks.len(), most.len());
    }
}
