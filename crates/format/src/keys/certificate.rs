//! Certificates: the vault's word for who has which role. Layout: docs/format.md, "Keys".
//!
//! - Every credential has a signing key of its own, certified by the vault; everything it signs carries the certificate.
//! - What a reader's key signs counts for nobody: [`Certificate::verify`] is the one place that says so.

use crate::cbor::{Reader, Writer};
use crate::error::{Error, Result};
use crate::id::VaultId;

use super::primitive::{SignKey, Signature, VerifyKey};
use super::role::Role;

/// The role with this code; an error that names `object` if this program knows none.
pub(crate) fn role_of(object: &'static str, code: u8) -> Result<Role> {
    Role::from_code(code)
        .ok_or_else(|| Error::malformed(object, 0, format!("unknown role {code}: written by a newer drystone")))
}

/// The vault's word that a key signs as one of its writers; carried by everything that writer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// Verifies what the writer signed.
    pub writer: VerifyKey,
    /// What the writer's credential may do.
    pub role: Role,
    signature: Signature,
}

impl Certificate {
    /// Issues a certificate with the vault's signing key.
    pub fn issue(vault: &VaultId, vault_key: &SignKey, writer: VerifyKey, role: Role) -> Result<Self> {
        let signature = vault_key.sign(&Self::message(vault, &writer, role))?;
        Ok(Self {
            writer,
            role,
            signature,
        })
    }

    /// Checks that what this key signs counts in the vault that `verify` belongs to: the vault issued the certificate, to
    /// a credential that may publish.
    pub fn verify(&self, object: &'static str, vault: &VaultId, verify: &VerifyKey) -> Result<()> {
        self.verify_issued(object, vault, verify)?;
        if self.role.may_publish() {
            Ok(())
        } else {
            Err(Error::Signature { object })
        }
    }

    /// Checks that the vault that `verify` belongs to issued this certificate, to whomever.
    pub fn verify_issued(&self, object: &'static str, vault: &VaultId, verify: &VerifyKey) -> Result<()> {
        verify.verify(object, &Self::message(vault, &self.writer, self.role), &self.signature)
    }

    fn message(vault: &VaultId, writer: &VerifyKey, role: Role) -> Vec<u8> {
        [b"drystone writer v1".as_slice(), &vault.0, &writer.0, &[role.code()]].concat()
    }

    /// Length of [`flat`](Self::flat), bytes.
    pub(crate) const FLAT_BYTES: usize = 32 + 1 + 64;

    /// Key, role and signature at fixed places, for objects that are no CBOR.
    pub(crate) fn flat(&self) -> [u8; Self::FLAT_BYTES] {
        let mut flat = [self.role.code(); Self::FLAT_BYTES];
        let (writer, rest) = flat.split_at_mut(self.writer.0.len());
        writer.copy_from_slice(&self.writer.0);
        let (_, signature) = rest.split_at_mut(1);
        signature.copy_from_slice(&self.signature.0);
        flat
    }

    /// Reads what [`flat`](Self::flat) gave; nothing of it is verified.
    pub(crate) fn from_flat(object: &'static str, flat: &[u8; Self::FLAT_BYTES]) -> Result<Self> {
        let short = || Error::malformed(object, 0, "a certificate cut short");
        let (writer, rest) = flat.split_first_chunk().ok_or_else(short)?;
        let (&[role], signature) = rest.split_first_chunk().ok_or_else(short)?;
        Ok(Self {
            writer: VerifyKey(*writer),
            role: role_of(object, role)?,
            signature: Signature(signature.try_into().map_err(|_| short())?),
        })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.array(3)
            .bytes(&self.writer.0)
            .uint(self.role.code().into())
            .bytes(&self.signature.0);
    }

    pub(crate) fn decode(object: &'static str, reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("certificate", 3)?;
        Ok(Self {
            writer: VerifyKey(reader.fixed()?),
            role: role_of(object, reader.u8()?)?,
            signature: Signature(reader.fixed()?),
        })
    }
}
