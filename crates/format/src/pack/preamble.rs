//! The plain part of a pack's tail: whose pack it is, which of its registration, and how it is sealed.
//! Layout: docs/format.md, "Pack".
//!
//! - The signature of the tail covers it. Without that signature nothing in it is authentic but what its seals bind.
//! - Its version is that of the object, and every seal of the pack binds it.

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result};
use crate::id::{RegistrationId, VaultId};
use crate::keys::{Certificate, Secrets};
use crate::limits::FORMAT_VERSION;
use crate::seal::{Bound, PackKind, Sealer, Suite};

use super::ending::{ENDING, OBJECT};

pub(super) const KEY_INFO: &[u8] = b"drystone pack key v1";
const FRAME_LABEL: &[u8] = b"drystone frame v1";
const TRAILER_LABEL: &[u8] = b"drystone trailer v1";
/// Longest wrapped key, bytes: HPKE takes 80, and another way of wrapping may take more.
pub(crate) const WRAPPED_KEY_MAX_BYTES: usize = 256;

/// The plain part of a pack's tail.
#[derive(Debug, Clone)]
pub struct Preamble {
    /// Format version of the object.
    pub version: u8,
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
    /// The nonce of the registration that it was written under.
    pub registration: [u8; 16],
    /// Which pack of that registration it is; they count from 0.
    pub number: u64,
    pub(super) salt: [u8; 32],
    pub(super) wrapped_key: Vec<u8>,
}

/// What it takes to open the frames of a pack, beside the secrets.
pub(crate) struct LockedFrames<'a> {
    pub(crate) version: u8,
    pub(crate) vault: &'a VaultId,
    pub(crate) kind: PackKind,
    pub(crate) suite: Suite,
    pub(crate) epoch: u64,
    pub(crate) salt: &'a [u8; 32],
    pub(crate) wrapped_key: &'a [u8],
}

impl LockedFrames<'_> {
    fn aad(&self) -> Vec<u8> {
        [
            &[self.version],
            self.vault.0.as_slice(),
            &[self.kind as u8, self.suite as u8],
            &self.epoch.to_be_bytes(),
            self.salt,
        ]
        .concat()
    }

    /// What the seals of the pack bind.
    fn bound<'b>(&'b self, label: &'b [u8]) -> Bound<'b> {
        Bound {
            label,
            version: self.version,
            vault: self.vault,
            kind: self.kind,
        }
    }

    /// What opens the frames; a writer's credential gets [`Error::WriterKey`].
    pub(crate) fn open(&self, secrets: &Secrets) -> Result<Sealer> {
        let open_key = secrets.open_key(OBJECT, self.epoch)?;
        let key = open_key.open(OBJECT, KEY_INFO, &self.aad(), self.wrapped_key)?;
        let key: [u8; 32] = key
            .try_into()
            .map_err(|_| Error::malformed(OBJECT, 0, "pack key of another length"))?;
        Sealer::new(self.suite, &key, &self.bound(FRAME_LABEL))
    }
}

impl Preamble {
    /// The registration that the pack was written under.
    pub fn registration_id(&self) -> RegistrationId {
        RegistrationId::derive(&self.vault, &self.certificate.writer, &self.registration)
    }

    /// Salt of the pack: with the index key it gives the trailer's key, and every wrapped key binds it.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The pack key, sealed to the seal key of the epoch.
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// Associated data of the wrapped pack key.
    pub(super) fn key_aad(&self) -> Vec<u8> {
        self.locked().aad()
    }

    fn locked(&self) -> LockedFrames<'_> {
        LockedFrames {
            version: self.version,
            vault: &self.vault,
            kind: self.kind,
            suite: self.suite,
            epoch: self.epoch,
            salt: &self.salt,
            wrapped_key: &self.wrapped_key,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(9)
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
        out.uint(7).bytes(&self.registration).uint(8).uint(self.number);
        out.finish()
    }

    pub(super) fn decode(version: u8, bytes: &[u8]) -> Result<Self> {
        let (mut vault, mut kind, mut suite, mut epoch) = (None, None, None, None);
        let (mut salt, mut wrapped, mut certificate) = (None, None, None);
        let (mut registration, mut number) = (None, None);
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
                5 => wrapped = Some(reader.bytes("wrapped key", WRAPPED_KEY_MAX_BYTES)?.to_vec()),
                6 => certificate = Some(Certificate::decode(OBJECT, reader)?),
                7 => registration = Some(reader.fixed()?),
                8 => number = Some(reader.uint()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            version,
            vault: required(OBJECT, "vault id", vault)?,
            kind: required(OBJECT, "kind", kind)?,
            suite: required(OBJECT, "cipher", suite)?,
            epoch: required(OBJECT, "key epoch", epoch)?,
            certificate: required(OBJECT, "certificate", certificate)?,
            registration: required(OBJECT, "registration nonce", registration)?,
            number: required(OBJECT, "pack number", number)?,
            salt: required(OBJECT, "salt", salt)?,
            wrapped_key: required(OBJECT, "wrapped key", wrapped)?,
        })
    }

    /// The preamble in `end`, the last bytes of a pack, to open its frames without its trailer. It is not authenticated:
    /// whatever comes out of a frame must still be checked against the chunk ids that were asked for.
    pub fn from_end(end: &[u8]) -> Result<Self> {
        Self::from_end_up_to(FORMAT_VERSION, end)
    }

    /// The same for a program that knows the versions up to `newest`.
    pub(super) fn from_end_up_to(newest: u8, end: &[u8]) -> Result<Self> {
        let (version, preamble) = ENDING.plain(newest, end)?;
        Self::decode(version, preamble)
    }

    /// What opens the frames of this pack; a writer's credential gets [`Error::WriterKey`].
    pub fn frame_sealer(&self, secrets: &Secrets) -> Result<Sealer> {
        self.locked().open(secrets)
    }

    /// What seals the frames, by the pack's key.
    pub(super) fn frames(&self, key: &[u8; 32]) -> Result<Sealer> {
        self.sealer(FRAME_LABEL, key)
    }

    /// What seals and opens the trailer.
    pub(super) fn trailer(&self, secrets: &Secrets) -> Result<Sealer> {
        let epoch = secrets.epoch(OBJECT, self.epoch)?;
        self.sealer(TRAILER_LABEL, &epoch.index_key.trailer_key(&self.salt))
    }

    fn sealer(&self, label: &[u8], key: &[u8; 32]) -> Result<Sealer> {
        Sealer::new(self.suite, key, &self.locked().bound(label))
    }
}
