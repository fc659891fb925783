//! Authenticated encryption of frames and trailers, and the plaintext layout of a frame.
//!
//! - One key per pack, nonce = frame number: a nonce is never used twice with a key, without any shared counter.
//! - Kind of object, the version of the object that is sealed, vault and pack kind are bound as associated data. The version is
//!   the object's own and never the program's, so that old objects stay readable after a new version.
//! - Nothing is returned before it is authenticated (I6).

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::codec::{Codec, Compressor, decompress};
use crate::error::{Error, Result};
use crate::id::VaultId;

/// Bytes that sealing adds: the tag.
pub const TAG_BYTES: usize = 16;
/// Bytes before the payload inside a frame: codec and plaintext length.
const FRAME_HEAD_BYTES: usize = 5;
/// Shortest frame, sealed: one that holds nothing.
pub(crate) const PADDING_MIN_BYTES: usize = FRAME_HEAD_BYTES + TAG_BYTES;

/// The cipher of a pack; the number is its code in the preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D): fastest where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): fastest elsewhere, and constant time everywhere.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    pub(crate) fn from_code(object: &'static str, code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            _ => Err(Error::malformed(
                object,
                0,
                format!("unknown cipher {code}: written by a newer drystone"),
            )),
        }
    }
}

/// What a pack holds; the number is its code in the preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackKind {
    /// Chunks of files.
    Data = 0,
    /// Chunks of trees and recipes, kept apart so that reading metadata stays local.
    Meta = 1,
    /// Frames of both kinds, those of file data first: all that a small commit stores.
    Mixed = 2,
}

impl PackKind {
    /// The kind with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            1 => Some(Self::Meta),
            2 => Some(Self::Mixed),
            _ => None,
        }
    }
}

/// A cipher with its key: seals and opens the numbered frames of one pack, or its trailer.
pub struct Sealer {
    key: LessSafeKey,
    aad: Vec<u8>,
}

/// What the seals of an object bind beside its key: no other object can be passed off as it.
pub(crate) struct Bound<'a> {
    /// Says what kind of object it is.
    pub(crate) label: &'a [u8],
    /// Format version of that object.
    pub(crate) version: u8,
    pub(crate) vault: &'a VaultId,
    pub(crate) kind: PackKind,
}

impl Bound<'_> {
    fn aad(&self) -> Vec<u8> {
        [self.label, &[self.version], &self.vault.0, &[self.kind as u8]].concat()
    }
}

impl Sealer {
    /// A cipher whose seals bind `bound`.
    pub(crate) fn new(suite: Suite, key: &[u8; 32], bound: &Bound<'_>) -> Result<Self> {
        Self::with_aad(suite, key, bound.aad())
    }

    /// The same around any associated data.
    pub(crate) fn with_aad(suite: Suite, key: &[u8; 32], aad: Vec<u8>) -> Result<Self> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Error::Crypto("cipher key"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            aad,
        })
    }

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; 12];
        for (byte, value) in nonce.iter_mut().skip(4).zip(number.to_be_bytes()) {
            *byte = value;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals what `out` holds from `start` on, in place, and appends the tag.
    pub(crate) fn seal(&self, number: u64, out: &mut Vec<u8>, start: usize) -> Result<()> {
        let plaintext = out.get_mut(start..).ok_or(Error::Crypto("seal range"))?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Self::nonce(number), Aad::from(&self.aad), plaintext)
            .map_err(|_| Error::Crypto("seal"))?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Appends frame `number`, which holds no chunk: sealed zeros of `frame_bytes` in all, at least [`PADDING_MIN_BYTES`].
    pub(crate) fn seal_padding(&self, number: u64, out: &mut Vec<u8>, frame_bytes: usize) -> Result<()> {
        let zeros = frame_bytes.checked_sub(PADDING_MIN_BYTES);
        let zeros = zeros.ok_or(Error::Crypto("padding shorter than its seal"))?;
        let start = out.len();
        out.push(Codec::None as u8);
        out.extend_from_slice(&(zeros as u32).to_be_bytes());
        out.resize(out.len() + zeros, 0);
        self.seal(number, out, start)
    }

    /// The authenticated plaintext of `sealed`.
    pub(crate) fn open(&self, object: &'static str, number: u64, sealed: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = sealed.to_vec();
        let plaintext = self
            .key
            .open_in_place(Self::nonce(number), Aad::from(&self.aad), &mut buffer)
            .map_err(|_| Error::Authentication { object })?;
        let length = plaintext.len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// The chunks' bytes in frame `number`, authenticated and decompressed.
    pub fn open_frame(&self, number: u16, sealed: &[u8]) -> Result<Vec<u8>> {
        let opened = self.open("frame", number.into(), sealed)?;
        let Some((&[codec, a, b, c, d], payload)) = opened.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            return Err(Error::malformed("frame", 0, "shorter than its head"));
        };
        decompress(
            Codec::from_code(codec)?,
            payload,
            u32::from_be_bytes([a, b, c, d]) as usize,
        )
    }
}

/// The plaintext of a frame, compressed, waiting for its pack: codec, length, payload.
pub struct Compressed(Vec<u8>);

impl Compressed {
    /// Compresses the concatenated chunks of a frame.
    pub fn new(compressor: &mut Compressor, chunks: &[u8]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(chunks.len() / 2 + FRAME_HEAD_BYTES);
        let length = u32::try_from(chunks.len()).map_err(|_| Error::Crypto("frame length"))?;
        bytes.push(0);
        bytes.extend_from_slice(&length.to_be_bytes());
        let codec = compressor.compress(chunks, &mut bytes)?;
        if let Some(code) = bytes.first_mut() {
            *code = codec as u8;
        }
        // Frames wait for their packs: those that shrank well must not keep the room that they might have taken.
        bytes.shrink_to_fit();
        Ok(Self(bytes))
    }

    /// The bytes that are sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
