//! The vault header: which vault this is, for anybody who finds a place. Layout: docs/format.md, "Vault header".
//!
//! - Signed by the vault; a key slot pins the verifying key, so a forged header is noticed.
//! - Never changes: all that an owner may decide anew lies in the configuration (config.rs).
//! - A lost header costs nothing: every key slot carries a copy.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Error, Result, within};
use crate::id::VaultId;
use crate::keys::{SignKey, Signature, VerifyKey};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES};

const OBJECT: &str = "vault header";
const MAGIC: &[u8; 7] = b"DRYVALT";
const DOMAIN: &[u8] = b"drystone header v1";

/// The header of a vault; it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Identity.
    pub vault: VaultId,
    /// The vault's first public key: verifies this header.
    pub vault_verify: VerifyKey,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

impl Header {
    /// The object, signed with the vault's key.
    pub fn encode(&self, vault_key: &SignKey) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
        out.map(2 + self.unknown.len()).uint(0).bytes(&self.vault.0);
        out.uint(1).bytes(&self.vault_verify.0).unknown(&self.unknown);
        sign(out.finish(), DOMAIN, vault_key)
    }

    /// Reads a header and checks its own signature; whether its verifying key is the right one is for the key slot to say.
    pub fn decode(object: &[u8]) -> Result<Self> {
        within(OBJECT, "bytes", object.len() as u64, HEADER_MAX_BYTES as u64)?;
        let (signed, signature) = split_signature(OBJECT, object)?;
        let (mut vault, mut verify_key) = (None, None);
        let mut reader = Reader::new(OBJECT, body(OBJECT, MAGIC, signed)?);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => verify_key = Some(VerifyKey(reader.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let header = Self {
            vault: required(OBJECT, "vault id", vault)?,
            vault_verify: required(OBJECT, "vault key", verify_key)?,
            unknown,
        };
        verify(OBJECT, DOMAIN, signed, &signature, &header.vault_verify)?;
        Ok(header)
    }
}

/// Returns true if the holder of this vault key signed the object as a header, whatever its version: only he can say that a vault is newer.
pub fn is_signed_header(object: &[u8], vault: &VerifyKey) -> bool {
    let split = split_signature(OBJECT, object);
    split.is_ok_and(|(signed, signature)| verify(OBJECT, DOMAIN, signed, &signature, vault).is_ok())
}

/// Checks the eight bytes that open (and close) an object, the magic, then the version, for a program that knows the versions
/// up to `newest`; returns the version.
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
    body_up_to(object, magic, bytes, FORMAT_VERSION).map(|(_, body)| body)
}

/// The version of an object and what follows its magic, for a program that knows versions up to `known`.
pub(crate) fn body_up_to<'a>(
    object: &'static str,
    magic: &[u8; 7],
    bytes: &'a [u8],
    known: u8,
) -> Result<(u8, &'a [u8])> {
    let (head, body) = bytes.split_first_chunk().ok_or(Error::Magic { object })?;
    Ok((check_magic_up_to(known, object, magic, head)?, body))
}

/// The version of an object, and what follows its magic.
pub(crate) fn versioned_body<'a>(object: &'static str, magic: &[u8; 7], bytes: &'a [u8]) -> Result<(u8, &'a [u8])> {
    body_up_to(object, magic, bytes, FORMAT_VERSION)
}

/// The version byte of an object whose magic was checked; it is bound into what the object seals.
pub(crate) fn version(bytes: &[u8]) -> u8 {
    bytes.get(7).copied().unwrap_or_default()
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
