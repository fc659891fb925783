//! The tail of a pack as it is read: located, verified, opened. Layout: docs/format.md, "Pack".
//!
//! - Nothing is returned before certificate and signature verify and the trailer is authenticated.
//! - The version is that of the object: an old pack opens in a program that writes a newer version.

use crate::error::{Error, Result};
use crate::keys::Secrets;
use crate::limits::FORMAT_VERSION;

use super::ending::{ENDING, OBJECT};
use super::preamble::Preamble;
use super::trailer::{FrameInfo, decode_trailer};

/// The tail of a pack, authenticated: who wrote it and what it holds.
pub struct Tail {
    /// The plain part.
    pub preamble: Preamble,
    /// The frames, in order; a frame's number is its place here. One without chunks is padding.
    pub frames: Vec<FrameInfo>,
}

/// Length of the tail of a pack, read from `end`, the last bytes of it (at least the footer's 80).
pub fn tail_bytes(end: &[u8], pack_bytes: u64) -> Result<usize> {
    tail_bytes_up_to(FORMAT_VERSION, end, pack_bytes)
}

/// The same for a program that knows the versions up to `newest`.
pub(super) fn tail_bytes_up_to(newest: u8, end: &[u8], pack_bytes: u64) -> Result<usize> {
    ENDING.tail_bytes(newest, end, pack_bytes)
}

impl Tail {
    /// Opens the last [`tail_bytes`] bytes of a pack of `pack_bytes`: checks vault, certificate and signature, and
    /// opens the trailer with the index key.
    pub fn open(tail: &[u8], pack_bytes: u64, secrets: &Secrets) -> Result<Self> {
        Self::open_up_to(FORMAT_VERSION, tail, pack_bytes, secrets)
    }

    /// The same for a program that knows the versions up to `newest`.
    pub(super) fn open_up_to(newest: u8, tail: &[u8], pack_bytes: u64, secrets: &Secrets) -> Result<Self> {
        let parts = ENDING.split(newest, tail, pack_bytes)?;
        let decoded = Preamble::decode(parts.version, parts.plain)?;
        if decoded.vault != secrets.vault {
            return Err(Error::Authentication { object: OBJECT });
        }
        decoded
            .certificate
            .verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
        parts.verify(OBJECT, &decoded.certificate.writer)?;
        let opened = decoded.trailer(secrets)?.open(OBJECT, 0, parts.sealed)?;
        let frames = decode_trailer(&opened, parts.start)?;
        Ok(Self {
            preamble: decoded,
            frames,
        })
    }
}
