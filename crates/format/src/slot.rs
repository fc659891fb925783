//! Key slots: the vault's secrets, locked with a passphrase, a key file or an ssh key. Layout: docs/format.md, "Key slot".
//!
//! - The lock (an age file) opens a key pair of the slot; the secrets are sealed to that pair. So an owner can give every
//!   slot new secrets (a new key epoch) without its passphrase.
//! - What is shown of a slot (label, role) is signed by the vault, so it can be listed without unlocking it.
//! - Each slot carries a copy of the vault header.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body, sign, split_signature, verify};
use crate::id::{SlotId, VaultId};
use crate::keys::{OpenKey, Role, SealKey, Secrets, SignKey, VerifyKey};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES, SLOT_MAX_BYTES};
use crate::random::Random;
use crate::tree::Time;

const OBJECT: &str = "key slot";
const MAGIC: &[u8; 7] = b"DRYSLOT";
const DOMAIN: &[u8] = b"drystone slot v1";
const INFO: &[u8] = b"drystone slot v1";

/// What unlocks a slot; the number is its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// A passphrase that a person chose (age scrypt).
    Passphrase = 0,
    /// A generated recovery code (age scrypt).
    Recovery = 1,
    /// An age X25519 key, kept in a key file.
    X25519 = 2,
    /// An ssh key (age ssh-ed25519 or ssh-rsa).
    Ssh = 3,
}

impl Lock {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery",
            Self::X25519 => "x25519",
            Self::Ssh => "ssh",
        }
    }

    fn from_code(code: u8) -> Result<Self> {
        [Self::Passphrase, Self::Recovery, Self::X25519, Self::Ssh]
            .into_iter()
            .find(|lock| *lock as u8 == code)
            .ok_or_else(|| Error::malformed(OBJECT, 0, format!("unknown lock {code}: written by a newer drystone")))
    }
}

/// A key slot as stored, still locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The vault it opens.
    pub vault: VaultId,
    /// Its own identity; a rewritten slot gets a new one.
    pub id: SlotId,
    /// What its secrets may do.
    pub role: Role,
    /// What unlocks it.
    pub lock: Lock,
    /// The owner's name for it.
    pub label: String,
    /// When it was made.
    pub created: Time,
    /// The public key it is locked to, as age writes it; empty for passphrases.
    pub recipient: String,
    /// Secrets are sealed to this key, whose secret half is in `locked`.
    pub slot_key: SealKey,
    /// An age file whose plaintext is the 32 bytes of the slot's secret key.
    pub locked: Vec<u8>,
    /// The sealed secrets.
    pub sealed: Vec<u8>,
    /// A copy of the vault header object.
    pub header: Vec<u8>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

impl Slot {
    fn aad(&self) -> Vec<u8> {
        [self.vault.0.as_slice(), &self.id.0, &self.slot_key.0].concat()
    }

    /// Seals `secrets` into this slot, replacing what it held.
    pub fn fill(&mut self, secrets: &Secrets, random: &mut dyn Random) -> Result<()> {
        self.role = secrets.role();
        self.sealed = self.slot_key.seal(random, INFO, &self.aad(), &secrets.encode())?;
        Ok(())
    }

    /// The secrets, with the key that unlocking `locked` gave; checks that slot and secrets belong together.
    pub fn open(&self, slot_key: &OpenKey) -> Result<Secrets> {
        let secrets = Secrets::decode(&slot_key.open(OBJECT, INFO, &self.aad(), &self.sealed)?)?;
        if secrets.vault == self.vault {
            Ok(secrets)
        } else {
            Err(Error::Authentication { object: OBJECT })
        }
    }

    /// The object, signed with the vault's key; an error if it could not be read back (a label too long, say).
    pub fn encode(&self, vault_key: &SignKey) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
        out.map(11 + self.unknown.len())
            .uint(0)
            .bytes(&self.vault.0)
            .uint(1)
            .bytes(&self.id.0);
        out.uint(2)
            .uint(self.role.code().into())
            .uint(3)
            .uint(self.lock as u64)
            .uint(4)
            .text(&self.label)
            .uint(5);
        self.created.encode(&mut out);
        out.uint(6)
            .text(&self.recipient)
            .uint(7)
            .bytes(&self.slot_key.0)
            .uint(8)
            .bytes(&self.locked);
        out.uint(9)
            .bytes(&self.sealed)
            .uint(10)
            .bytes(&self.header)
            .unknown(&self.unknown);
        let object = sign(out.finish(), DOMAIN, vault_key)?;
        // A slot that cannot be read back would lock its owner out: refused before it is stored.
        Self::decode(&object)?;
        Ok(object)
    }

    /// Reads a slot; its signature is checked by [`verify`](Self::verify) once the vault's key is known.
    pub fn decode(object: &[u8]) -> Result<Self> {
        within(OBJECT, "bytes", object.len() as u64, SLOT_MAX_BYTES as u64)?;
        let (signed, _) = split_signature(OBJECT, object)?;
        let (mut vault, mut id, mut role, mut lock, mut label) = (None, None, None, None, None);
        let (mut created, mut recipient, mut slot_key) = (None, String::new(), None);
        let (mut locked, mut sealed, mut header) = (None, None, Vec::new());
        let mut reader = Reader::new(OBJECT, body(OBJECT, MAGIC, signed)?);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => id = Some(SlotId(reader.fixed()?)),
                2 => role = Some(Role::from_code(OBJECT, reader.u8()?)?),
                3 => lock = Some(Lock::from_code(reader.u8()?)?),
                4 => label = Some(reader.text("label")?),
                5 => created = Some(Time::decode(reader)?),
                6 => recipient = reader.text("recipient")?,
                7 => slot_key = Some(SealKey(reader.fixed()?)),
                8 => locked = Some(reader.bytes("locked key", SLOT_MAX_BYTES)?.to_vec()),
                9 => sealed = Some(reader.bytes("sealed secrets", SLOT_MAX_BYTES)?.to_vec()),
                10 => header = reader.bytes("header", HEADER_MAX_BYTES)?.to_vec(),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            vault: required(OBJECT, "vault id", vault)?,
            id: required(OBJECT, "id", id)?,
            role: required(OBJECT, "role", role)?,
            lock: required(OBJECT, "lock", lock)?,
            label: required(OBJECT, "label", label)?,
            created: required(OBJECT, "time", created)?,
            recipient,
            slot_key: required(OBJECT, "slot key", slot_key)?,
            locked: required(OBJECT, "locked key", locked)?,
            sealed: required(OBJECT, "sealed secrets", sealed)?,
            header,
            unknown,
        })
    }

    /// `Ok` if the vault that `vault_verify` belongs to signed these bytes of a slot.
    pub fn verify(object: &[u8], vault_verify: &VerifyKey) -> Result<()> {
        let (signed, signature) = split_signature(OBJECT, object)?;
        verify(OBJECT, DOMAIN, signed, &signature, vault_verify)
    }
}
