//! The vault header: what anybody who finds a place may know of the vault. Layout: docs/format.md, "Vault header".
//!
//! - Signed by the vault; a key slot pins the verifying key, so a forged header is noticed.
//! - Needed to write (chunk sizes), not to read: a lost header costs nothing, every key slot carries a copy.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::chunker::Sizes;
use crate::error::{Error, Result, within};
use crate::id::VaultId;
use crate::keys::{SignKey, Signature, VerifyKey};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES};
use crate::tree::Time;

const OBJECT: &str = "vault header";
const MAGIC: &[u8; 7] = b"DRYVALT";
const DOMAIN: &[u8] = b"drystone header v1";

/// Whether clients may deduplicate against packs of writers that no owner has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Own packs, packs of owners, and packs that an owner's scrub has verified.
    Verified,
    /// Everybody's: all credentials belong to one trust domain.
    Everyone,
}

/// The configuration of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Identity.
    pub vault: VaultId,
    /// When it was made.
    pub created: Time,
    /// Counts changes of the configuration; the highest is in force.
    pub generation: u64,
    /// Verifies this header, key slots and certificates.
    pub vault_verify: VerifyKey,
    /// Chunk sizes of file data.
    pub data_sizes: Sizes,
    /// Chunk sizes of trees and recipes.
    pub meta_sizes: Sizes,
    /// Whose packs are deduplicated against.
    pub trust: Trust,
    /// Any `spread.0` of the `spread.1` places are enough.
    pub spread: (u8, u8),
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

impl Header {
    /// The object, signed with the vault's key.
    pub fn encode(&self, vault_key: &SignKey) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
        out.map(8 + self.unknown.len()).uint(0).bytes(&self.vault.0).uint(1);
        self.created.encode(&mut out);
        out.uint(2).uint(self.generation).uint(3).bytes(&self.vault_verify.0);
        for (key, sizes) in [(4, self.data_sizes), (5, self.meta_sizes)] {
            out.uint(key)
                .array(2)
                .uint(sizes.min_bytes().into())
                .uint(sizes.max_bytes().into());
        }
        out.uint(6).uint(self.trust as u64);
        out.uint(7)
            .array(2)
            .uint(self.spread.0.into())
            .uint(self.spread.1.into())
            .unknown(&self.unknown);
        sign(out.finish(), DOMAIN, vault_key)
    }

    /// Reads a header and checks its own signature; whether its verifying key is the right one is for the key slot to say.
    pub fn decode(object: &[u8]) -> Result<Self> {
        within(OBJECT, "bytes", object.len() as u64, HEADER_MAX_BYTES as u64)?;
        let (signed, signature) = split_signature(OBJECT, object)?;
        let body = body(OBJECT, MAGIC, signed)?;
        let (mut vault, mut created, mut generation, mut verify) = (None, None, None, None);
        let (mut data, mut meta, mut trust, mut spread) = (None, None, None, None);
        let mut reader = Reader::new(OBJECT, body);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => created = Some(Time::decode(reader)?),
                2 => generation = Some(reader.uint()?),
                3 => verify = Some(VerifyKey(reader.fixed()?)),
                4 => data = Some(sizes(reader)?),
                5 => meta = Some(sizes(reader)?),
                6 => {
                    trust = Some(if reader.u8()? == 1 {
                        Trust::Everyone
                    } else {
                        Trust::Verified
                    })
                }
                7 => {
                    reader.array_of("spread", 2)?;
                    spread = Some((reader.u8()?, reader.u8()?));
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let header = Self {
            vault: required(OBJECT, "vault id", vault)?,
            created: required(OBJECT, "time", created)?,
            generation: required(OBJECT, "generation", generation)?,
            vault_verify: required(OBJECT, "vault key", verify)?,
            data_sizes: required(OBJECT, "data chunk sizes", data)?,
            meta_sizes: required(OBJECT, "metadata chunk sizes", meta)?,
            trust: required(OBJECT, "trust", trust)?,
            spread: required(OBJECT, "spread", spread)?,
            unknown,
        };
        header
            .vault_verify
            .verify(OBJECT, &domain(DOMAIN, signed), &signature)?;
        Ok(header)
    }
}

fn sizes(reader: &mut Reader<'_>) -> Result<Sizes> {
    reader.array_of("chunk sizes", 2)?;
    Sizes::new(reader.u32()?, reader.u32()?)
}

/// Checks the eight bytes that open (and close) an object, the magic, then the version; returns the version.
pub(crate) fn check_magic(object: &'static str, magic: &[u8; 7], bytes: &[u8; 8]) -> Result<u8> {
    check_magic_up_to(FORMAT_VERSION, object, magic, bytes)
}

/// The same for a program that knows the versions up to `newest`.
pub(crate) fn check_magic_up_to(newest: u8, object: &'static str, magic: &[u8; 7], bytes: &[u8; 8]) -> Result<u8> {
    let &[ref found @ .., version] = bytes;
    if found != magic {
        return Err(Error::Magic { object });
    }
    if version == 0 || version > newest {
        return Err(Error::Version {
            object,
            found: version,
            known: newest,
        });
    }
    Ok(version)
}

/// What follows the magic.
pub(crate) fn body<'a>(object: &'static str, magic: &[u8; 7], bytes: &'a [u8]) -> Result<&'a [u8]> {
    Ok(versioned_body(object, magic, bytes)?.1)
}

/// The version of an object, and what follows its magic.
pub(crate) fn versioned_body<'a>(object: &'static str, magic: &[u8; 7], bytes: &'a [u8]) -> Result<(u8, &'a [u8])> {
    let (head, body) = bytes.split_first_chunk().ok_or(Error::Magic { object })?;
    Ok((check_magic(object, magic, head)?, body))
}

fn domain(domain: &[u8], signed: &[u8]) -> Vec<u8> {
    [domain, signed].concat()
}

/// Appends the signature over `domain` and `bytes`.
pub(crate) fn sign(mut bytes: Vec<u8>, domain_label: &[u8], key: &SignKey) -> Result<Vec<u8>> {
    let signature = key.sign(&domain(domain_label, &bytes))?;
    bytes.extend_from_slice(&signature.0);
    Ok(bytes)
}

/// The signed part of an object and the signature that ends it.
pub(crate) fn split_signature<'a>(object: &'static str, bytes: &'a [u8]) -> Result<(&'a [u8], Signature)> {
    let (signed, signature) = bytes
        .split_last_chunk()
        .ok_or_else(|| Error::malformed(object, 0, "shorter than its signature"))?;
    Ok((signed, Signature(*signature)))
}

/// Verifies what [`sign`] appended.
pub(crate) fn verify(
    object: &'static str,
    domain_label: &[u8],
    signed: &[u8],
    signature: &Signature,
    key: &VerifyKey,
) -> Result<()> {
    key.verify(object, &domain(domain_label, signed), signature)
}
