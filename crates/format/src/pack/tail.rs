//! The tail of a pack as it is read: located, verified, opened. Layout: docs/format.md, "Pack".
//!
//! - Nothing is returned before certificate and signature verify and the trailer is authenticated.
//! - The version is that of the object: an old pack opens in a program that writes a newer version.

use ring::digest::{SHA256, digest};

use crate::error::{Error, Result, within};
use crate::header::check_magic_up_to;
use crate::keys::{Secrets, Signature};
use crate::limits::{FORMAT_VERSION, PACK_MAX_BYTES, PACK_TAIL_MAX_BYTES};

use super::trailer::decode_trailer;
use super::{FOOTER_BYTES, FrameInfo, MAGIC, MAGIC_BYTES, OBJECT, Preamble};

/// What a signature in the footer covers.
pub(super) fn signed_message(preamble: &[u8], trailer: &[u8], frames_end: u64) -> Vec<u8> {
    let (preamble, trailer) = (digest(&SHA256, preamble), digest(&SHA256, trailer));
    [
        b"drystone pack v1".as_slice(),
        preamble.as_ref(),
        trailer.as_ref(),
        &frames_end.to_be_bytes(),
    ]
    .concat()
}

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
    let footer = end
        .last_chunk::<FOOTER_BYTES>()
        .ok_or_else(|| Error::malformed(OBJECT, 0, "shorter than its footer"))?;
    check_magic_up_to(newest, OBJECT, MAGIC, footer.last_chunk().unwrap_or(&[0; MAGIC_BYTES]))?;
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

impl Tail {
    /// Opens the last [`tail_bytes`] bytes of a pack of `pack_bytes`: checks vault, certificate and signature, and
    /// opens the trailer with the index key.
    pub fn open(tail: &[u8], pack_bytes: u64, secrets: &Secrets) -> Result<Self> {
        Self::open_up_to(FORMAT_VERSION, tail, pack_bytes, secrets)
    }

    /// The same for a program that knows the versions up to `newest`.
    pub(super) fn open_up_to(newest: u8, tail: &[u8], pack_bytes: u64, secrets: &Secrets) -> Result<Self> {
        if tail_bytes_up_to(newest, tail, pack_bytes)? != tail.len() {
            return Err(Error::malformed(OBJECT, 0, "a tail of another length"));
        }
        let version = tail.last().copied().unwrap_or_default();
        let (preamble, trailer, signature) = split_tail(tail)?;
        let frames_end = pack_bytes - tail.len() as u64;
        let decoded = Preamble::decode(version, preamble)?;
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
        let opened = decoded.trailer(secrets)?.open(OBJECT, 0, trailer)?;
        let frames = decode_trailer(&opened, frames_end)?;
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
