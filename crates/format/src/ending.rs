//! How objects end that are read from their end: packs, and pieces of index runs.
//!
//! - A tail is a sealed part, a plain part and a footer: the lengths of the two (4 bytes each, big endian), a signature over
//!   both and over where they begin, magic and version.
//! - Only [`Ending::append`] and [`Ending::split`] know the signature; whoever reads the plain part alone has nothing authentic.

use ring::digest::{SHA256, digest};

use crate::error::{Error, Result, within};
use crate::header::check_magic_up_to;
use crate::keys::{SignKey, Signature, VerifyKey};

/// Magic and version, at the start and at the end.
pub(crate) const MAGIC_BYTES: usize = 8;
/// Length of the sealed part, length of the plain part, signature, magic.
pub(crate) const FOOTER_BYTES: usize = 4 + 4 + 64 + MAGIC_BYTES;

/// The end of one kind of object.
pub(crate) struct Ending {
    /// What it is, for errors.
    pub(crate) object: &'static str,
    /// What one of them is called.
    pub(crate) whole: &'static str,
    pub(crate) magic: &'static [u8; 7],
    /// What its signatures are for.
    pub(crate) domain: &'static [u8],
    /// Most bytes of an object.
    pub(crate) max_bytes: usize,
    /// Most bytes of a tail.
    pub(crate) tail_max_bytes: usize,
}

/// The parts of a whole tail.
pub(crate) struct Parts<'a> {
    pub(crate) version: u8,
    pub(crate) sealed: &'a [u8],
    pub(crate) plain: &'a [u8],
    /// Where in the object the tail begins.
    pub(crate) start: u64,
    message: Vec<u8>,
    signature: Signature,
}

impl Parts<'_> {
    /// `Ok` if the holder of this key signed the tail.
    pub(crate) fn verify(&self, object: &'static str, writer: &VerifyKey) -> Result<()> {
        writer.verify(object, &self.message, &self.signature)
    }
}

impl Ending {
    /// Appends plain part and footer to an object whose sealed part begins at `start`.
    pub(crate) fn append(
        &self,
        version: u8,
        writer: &SignKey,
        plain: &[u8],
        (out, start): (&mut Vec<u8>, usize),
    ) -> Result<()> {
        let sealed = out.get(start..).unwrap_or_default();
        let lengths = [(sealed.len() as u32).to_be_bytes(), (plain.len() as u32).to_be_bytes()].concat();
        let signature = writer.sign(&self.signed_message(plain, sealed, start as u64))?;
        out.extend_from_slice(plain);
        out.extend_from_slice(&lengths);
        out.extend_from_slice(&signature.0);
        out.extend_from_slice(self.magic);
        out.push(version);
        within(self.object, "bytes", out.len() as u64, self.max_bytes as u64)
    }

    /// Length of the tail, read from `end`, the last bytes of an object (at least those of the footer), by a program that
    /// knows the versions up to `newest`.
    pub(crate) fn tail_bytes(&self, newest: u8, end: &[u8], object_bytes: u64) -> Result<usize> {
        let footer = end
            .last_chunk::<FOOTER_BYTES>()
            .ok_or_else(|| Error::malformed(self.object, 0, "shorter than its footer"))?;
        self.version(newest, footer)?;
        within(self.object, "bytes", object_bytes, self.max_bytes as u64)?;
        let (sealed, plain) = lengths(footer);
        let tail = u64::from(sealed) + u64::from(plain) + FOOTER_BYTES as u64;
        within(self.object, "bytes of the tail", tail, self.tail_max_bytes as u64)?;
        if tail + MAGIC_BYTES as u64 > object_bytes {
            let why = format!("a tail longer than the {}", self.whole);
            return Err(Error::malformed(self.object, 0, why));
        }
        Ok(tail as usize)
    }

    /// The parts of the last [`tail_bytes`](Self::tail_bytes) bytes of an object.
    pub(crate) fn split<'a>(&self, newest: u8, tail: &'a [u8], object_bytes: u64) -> Result<Parts<'a>> {
        if self.tail_bytes(newest, tail, object_bytes)? != tail.len() {
            return Err(Error::malformed(self.object, 0, "a tail of another length"));
        }
        let short = || self.cut_short();
        let (body, footer) = tail.split_last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
        let (sealed_bytes, plain_bytes) = lengths(footer);
        let (sealed, plain) = body.split_at_checked(sealed_bytes as usize).ok_or_else(short)?;
        if plain.len() != plain_bytes as usize {
            return Err(short());
        }
        let signature = footer.get(8..).and_then(|rest| rest.first_chunk());
        let start = object_bytes - tail.len() as u64;
        Ok(Parts {
            version: self.version(newest, footer)?,
            sealed,
            plain,
            start,
            message: self.signed_message(plain, sealed, start),
            signature: Signature(*signature.ok_or_else(short)?),
        })
    }

    /// Version and plain part alone, of an object with these last bytes. Nothing of it is authenticated.
    pub(crate) fn plain<'a>(&self, newest: u8, end: &'a [u8]) -> Result<(u8, &'a [u8])> {
        let short = || self.cut_short();
        let (body, footer) = end.split_last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
        let version = self.version(newest, footer)?;
        let (_, plain_bytes) = lengths(footer);
        let start = body.len().checked_sub(plain_bytes as usize).ok_or_else(short)?;
        Ok((version, body.get(start..).unwrap_or_default()))
    }

    fn version(&self, newest: u8, footer: &[u8; FOOTER_BYTES]) -> Result<u8> {
        let magic = footer.last_chunk().unwrap_or(&[0; MAGIC_BYTES]);
        check_magic_up_to(newest, self.object, self.magic, magic)
    }

    fn cut_short(&self) -> Error {
        Error::malformed(self.object, 0, "a tail cut short")
    }

    fn signed_message(&self, plain: &[u8], sealed: &[u8], start: u64) -> Vec<u8> {
        let (plain, sealed) = (digest(&SHA256, plain), digest(&SHA256, sealed));
        [self.domain, plain.as_ref(), sealed.as_ref(), &start.to_be_bytes()].concat()
    }
}

/// Lengths of the sealed and of the plain part.
fn lengths(footer: &[u8; FOOTER_BYTES]) -> (u32, u32) {
    let &[a, b, c, d, e, f, g, h, ..] = footer;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
