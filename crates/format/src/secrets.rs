//! What a credential knows and may do: roles, certificates, key epochs. Layout: docs/format.md, "Secrets".
//!
//! - A writer's credential holds no secret that opens content, and none that signs as the vault.
//! - Every credential has a signing key of its own, certified by the vault.
//! - Epochs ascend; what is written is sealed in the last one.

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::id::VaultId;
use crate::keys::{DedupKey, IndexKey, OpenKey, SealKey, ShardKey, SignKey, Signature, VerifyKey};
use crate::limits::EPOCHS_MAX;
use crate::random::Random;

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, reading included.
    Owner,
    /// Back up and deduplicate; neither read content nor vouch for anybody.
    Writer,
}

impl Role {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Owner => 0,
            Self::Writer => 1,
        }
    }

    pub(crate) fn from_code(object: &'static str, code: u8) -> Result<Self> {
        match code {
            0 => Ok(Self::Owner),
            1 => Ok(Self::Writer),
            _ => Err(Error::malformed(object, 0, format!("unknown role {code}"))),
        }
    }
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

    /// `Ok` if the vault that `verify` belongs to issued this certificate.
    pub fn verify(&self, object: &'static str, vault: &VaultId, verify: &VerifyKey) -> Result<()> {
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
            role: Role::from_code(object, role)?,
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
            role: Role::from_code(object, reader.u8()?)?,
            signature: Signature(reader.fixed()?),
        })
    }
}

/// The keys of one epoch. Removing a key slot can start a new one, closed to the removed key.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// Number of the epoch, ascending from 0.
    pub number: u32,
    /// What is written in this epoch is sealed to this key.
    pub seal_key: SealKey,
    /// Opens what was sealed in this epoch; absent in a writer's credential.
    pub open_key: Option<OpenKey>,
    /// Seals and opens the trailers of this epoch.
    pub index_key: IndexKey,
}

/// Everything a credential knows: what a key slot holds once it is unlocked.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The vault these belong to.
    pub vault: VaultId,
    /// Verifies the vault's own signatures; pins the vault against a forged header.
    pub vault_verify: VerifyKey,
    /// Decides ids and boundaries.
    pub dedup_key: DedupKey,
    /// All epochs this credential knows, ascending; the last one is written in.
    pub epochs: Vec<Epoch>,
    /// Signs what this credential writes.
    pub writer_key: SignKey,
    /// The vault's word for that key.
    pub certificate: Certificate,
    /// Signs as the vault; absent in a writer's credential.
    pub vault_key: Option<SignKey>,
}

const SECRETS: &str = "key slot";

impl Secrets {
    /// The secrets of a new vault, with an owner's powers.
    pub fn generate(random: &mut dyn Random, vault: VaultId) -> Result<Self> {
        let vault_key = SignKey::generate(random);
        let writer_key = SignKey::generate(random);
        let certificate = Certificate::issue(&vault, &vault_key, writer_key.verify_key()?, Role::Owner)?;
        Ok(Self {
            vault,
            vault_verify: vault_key.verify_key()?,
            dedup_key: DedupKey::generate(random),
            epochs: vec![Epoch::generate(random, 0)?],
            writer_key,
            certificate,
            vault_key: Some(vault_key),
        })
    }

    /// What this credential may do.
    pub fn role(&self) -> Role {
        if self.vault_key.is_some() {
            Role::Owner
        } else {
            Role::Writer
        }
    }

    /// What the blocks of this vault's shards are tagged with.
    pub fn shard_key(&self) -> ShardKey {
        ShardKey(self.dedup_key.derive(b"drystone shard v1"))
    }

    /// The epoch that is written in.
    pub fn current(&self) -> Result<&Epoch> {
        self.epochs
            .last()
            .ok_or_else(|| Error::malformed(SECRETS, 0, "no key epoch"))
    }

    /// The epoch with this number; `object` names what was sealed in it.
    pub fn epoch(&self, object: &'static str, number: u32) -> Result<&Epoch> {
        self.epochs
            .iter()
            .find(|epoch| epoch.number == number)
            .ok_or(Error::Epoch { object, epoch: number })
    }

    /// Opens what was sealed to the public key of epoch `number`; a writer gets [`Error::WriterKey`].
    pub fn open_key(&self, object: &'static str, number: u32) -> Result<&OpenKey> {
        self.epoch(object, number)?.open_key.as_ref().ok_or(Error::WriterKey {
            what: "read what is stored",
        })
    }

    /// A fresh credential of this vault with `role` and a signing key of its own; only an owner can make one.
    pub fn delegate(&self, random: &mut dyn Random, role: Role) -> Result<Self> {
        let vault_key = self
            .vault_key
            .as_ref()
            .ok_or(Error::WriterKey { what: "make new keys" })?;
        let writer_key = SignKey::generate(random);
        let certificate = Certificate::issue(&self.vault, vault_key, writer_key.verify_key()?, role)?;
        let mut secrets = Self {
            writer_key,
            certificate,
            ..self.clone()
        };
        if role == Role::Writer {
            secrets.vault_key = None;
            secrets.epochs.iter_mut().for_each(|epoch| epoch.open_key = None);
        }
        Ok(secrets)
    }

    /// Starts a new epoch: what is written from now on is closed to credentials that do not learn of it.
    pub fn advance(&mut self, random: &mut dyn Random) -> Result<()> {
        if self.vault_key.is_none() {
            return Err(Error::WriterKey {
                what: "start a key epoch",
            });
        }
        within(
            SECRETS,
            "number of key epochs",
            self.epochs.len() as u64 + 1,
            EPOCHS_MAX,
        )?;
        let number = self
            .current()?
            .number
            .checked_add(1)
            .ok_or(Error::Crypto("key epochs exhausted"))?;
        self.epochs.push(Epoch::generate(random, number)?);
        Ok(())
    }

    /// Appends the deterministic encoding; the result is secret and must be sealed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(if self.vault_key.is_some() { 7 } else { 6 });
        out.uint(0)
            .bytes(&self.vault.0)
            .uint(1)
            .bytes(&self.vault_verify.0)
            .uint(2)
            .bytes(&self.dedup_key.0);
        out.uint(3).array(self.epochs.len());
        for epoch in &self.epochs {
            let open_key: &[u8] = epoch.open_key.as_ref().map_or(&[], |key| &key.0);
            out.array(4)
                .uint(epoch.number.into())
                .bytes(&epoch.seal_key.0)
                .bytes(open_key)
                .bytes(&epoch.index_key.0);
        }
        out.uint(4).bytes(&self.writer_key.0).uint(5);
        self.certificate.encode(&mut out);
        if let Some(vault_key) = &self.vault_key {
            out.uint(6).bytes(&vault_key.0);
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut vault, mut verify, mut dedup, mut epochs) = (None, None, None, Vec::new());
        let (mut writer_key, mut certificate, mut vault_key) = (None, None, None);
        let mut reader = Reader::new(SECRETS, bytes);
        reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => verify = Some(VerifyKey(reader.fixed()?)),
                2 => dedup = Some(DedupKey(reader.fixed()?)),
                3 => {
                    for _ in 0..reader.array("key epochs", EPOCHS_MAX)? {
                        epochs.push(Epoch::decode(reader)?);
                    }
                }
                4 => writer_key = Some(SignKey(reader.fixed()?)),
                5 => certificate = Some(Certificate::decode(SECRETS, reader)?),
                6 => vault_key = Some(SignKey(reader.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let secrets = Self {
            vault: required(SECRETS, "vault id", vault)?,
            vault_verify: required(SECRETS, "vault key", verify)?,
            dedup_key: required(SECRETS, "dedup key", dedup)?,
            epochs,
            writer_key: required(SECRETS, "writer key", writer_key)?,
            certificate: required(SECRETS, "certificate", certificate)?,
            vault_key,
        };
        secrets.current()?;
        if !secrets.epochs.is_sorted_by(|one, two| one.number < two.number) {
            return Err(Error::malformed(SECRETS, 0, "key epochs out of order"));
        }
        Ok(secrets)
    }
}

impl Epoch {
    fn generate(random: &mut dyn Random, number: u32) -> Result<Self> {
        let open_key = OpenKey::generate(random);
        let seal_key = open_key.seal_key()?;
        Ok(Self {
            number,
            seal_key,
            open_key: Some(open_key),
            index_key: IndexKey::generate(random),
        })
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("key epoch", 4)?;
        let number = reader.u32()?;
        let seal_key = SealKey(reader.fixed()?);
        let open_key = match reader.bytes("secret key", 32)? {
            [] => None,
            bytes => Some(OpenKey(
                bytes
                    .try_into()
                    .map_err(|_| reader.malformed("a secret key of another length"))?,
            )),
        };
        Ok(Self {
            number,
            seal_key,
            open_key,
            index_key: IndexKey(reader.fixed()?),
        })
    }
}
