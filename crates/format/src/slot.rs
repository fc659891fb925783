//! Key slots: the vault's secrets, locked with a passphrase, a key file or an ssh key. Layout: docs/format.md, "Key slot".
//!
//! - The lock (an age file) opens a key pair of the slot; the secrets are sealed to that pair. So an owner can give every
//!   slot new secrets (a new key epoch) without its passphrase.
//! - The credential's own signing key is sealed apart from what all credentials share: a new key epoch leaves it alone.
//! - Role and lock stand in clear, since a key must find its slot; label, public key and writer key are sealed under the
//!   index key, for credentials only. All of it is signed by the vault.
//! - Each slot carries a copy of the vault header.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body_up_to, sign, split_signature, verify};
use crate::id::{SlotId, VaultId};
use crate::keys::{OpenKey, Role, SealKey, Secrets, SignKey, VerifyKey, role_of};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES, SLOT_MAX_BYTES};
use crate::random::{Random, array};
use crate::seal::{Bound, PackKind, Sealer, Suite};
use crate::tree::Time;

const OBJECT: &str = "key slot";
const MAGIC: &[u8; 7] = b"DRYSLOT";
const DOMAIN: &[u8] = b"drystone slot v1";
const INFO: &[u8] = b"drystone slot v1";
const OWN_INFO: &[u8] = b"drystone slot own v1";
const NOTE_LABEL: &[u8] = b"drystone slot note v1";

/// What credentials of the vault may know of a slot, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotNote {
    /// The owner's name for it.
    pub label: String,
    /// The public key it is locked to, as age writes it; empty for passphrases.
    pub recipient: String,
    /// Verifies what the slot's credential signs.
    pub writer: VerifyKey,
}

/// A [`SlotNote`], sealed under the index key of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealedNote {
    /// Of the slot that it was sealed in; whoever writes a slot of another version seals its note anew.
    version: u8,
    epoch: u64,
    salt: [u8; 32],
    sealed: Vec<u8>,
}

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
    /// When it was made.
    pub created: Time,
    /// What only credentials of the vault may know of it.
    pub note: SealedNote,
    /// Secrets are sealed to this key, whose secret half is in `locked`.
    pub slot_key: SealKey,
    /// An age file whose plaintext is the slot's secret key and the vault's public key.
    pub locked: Vec<u8>,
    /// The sealed secrets that all credentials of the role share.
    pub sealed: Vec<u8>,
    /// The sealed signing key and certificate of this credential; the same however often the slot is renewed.
    pub own: Vec<u8>,
    /// A copy of the vault header object.
    pub header: Vec<u8>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

impl Slot {
    fn aad(&self) -> Vec<u8> {
        [self.vault.0.as_slice(), &self.id.0, &self.slot_key.0].concat()
    }

    /// Outlives the slot's id, which changes with each renewal.
    fn own_aad(&self) -> Vec<u8> {
        [self.vault.0.as_slice(), &self.slot_key.0].concat()
    }

    /// Seals the credential `secrets` into this slot, replacing what it held.
    pub fn fill(&mut self, secrets: &Secrets, random: &mut dyn Random) -> Result<()> {
        self.role = secrets.role();
        self.own = self
            .slot_key
            .seal(random, OWN_INFO, &self.own_aad(), &secrets.encode_own())?;
        self.renew(secrets, random)
    }

    /// Seals the epochs of `secrets`, an owner's, into this slot; its credential stays what it was.
    pub fn renew(&mut self, secrets: &Secrets, random: &mut dyn Random) -> Result<()> {
        let shared = secrets.encode_shared(self.role);
        self.sealed = self.slot_key.seal(random, INFO, &self.aad(), &shared)?;
        Ok(())
    }

    /// The secrets, with the key that unlocking `locked` gave; checks that slot and secrets belong together.
    pub fn open(&self, slot_key: &OpenKey) -> Result<Secrets> {
        let shared = slot_key.open(OBJECT, INFO, &self.aad(), &self.sealed)?;
        let own = slot_key.open(OBJECT, OWN_INFO, &self.own_aad(), &self.own)?;
        let secrets = Secrets::decode_parts(&[&shared, &own])?;
        if secrets.vault != self.vault || secrets.role() != self.role {
            return Err(Error::Authentication { object: OBJECT });
        }
        secrets
            .certificate
            .verify_issued(OBJECT, &secrets.vault, &secrets.vault_verify)?;
        Ok(secrets)
    }

    /// Seals what credentials may know of this slot, in the current epoch of `secrets`; an error if it could not be read
    /// back (a label too long, say).
    pub fn set_note(&mut self, secrets: &Secrets, note: &SlotNote, random: &mut dyn Random) -> Result<()> {
        self.set_note_as(FORMAT_VERSION, secrets, note, random)
    }

    fn set_note_as(&mut self, version: u8, secrets: &Secrets, note: &SlotNote, random: &mut dyn Random) -> Result<()> {
        let (epoch, salt) = (secrets.current()?.number, array(random));
        let mut out = Writer::new();
        out.map(3).uint(0).text(&note.label).uint(1).text(&note.recipient);
        out.uint(2).bytes(&note.writer.0);
        let mut sealed = out.finish();
        self.note_sealer(secrets, (version, epoch), &salt)?
            .seal(0, &mut sealed, 0)?;
        self.note = SealedNote {
            version,
            epoch,
            salt,
            sealed,
        };
        // A note that cannot be read back is refused before it is stored.
        self.open_note(secrets).map(drop)
    }

    /// What credentials may know of this slot.
    pub fn open_note(&self, secrets: &Secrets) -> Result<SlotNote> {
        let sealer = self.note_sealer(secrets, (self.note.version, self.note.epoch), &self.note.salt)?;
        let bytes = sealer.open(OBJECT, 0, &self.note.sealed)?;
        let (mut label, mut recipient, mut writer) = (None, None, None);
        let mut reader = Reader::new(OBJECT, &bytes);
        reader.map(|reader, key| {
            match key {
                0 => label = Some(reader.text("label")?),
                1 => recipient = Some(reader.text("recipient")?),
                2 => writer = Some(VerifyKey(reader.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(SlotNote {
            label: required(OBJECT, "label", label)?,
            recipient: required(OBJECT, "recipient", recipient)?,
            writer: required(OBJECT, "writer key", writer)?,
        })
    }

    /// The key epoch in which the slot was written.
    pub fn epoch(&self) -> u64 {
        self.note.epoch
    }

    fn note_sealer(&self, secrets: &Secrets, (version, epoch): (u8, u64), salt: &[u8; 32]) -> Result<Sealer> {
        let key = secrets.epoch(OBJECT, epoch)?.index_key.trailer_key(salt);
        let bound = Bound {
            label: NOTE_LABEL,
            version,
            vault: &self.vault,
            kind: PackKind::Meta,
        };
        Sealer::new(Suite::ChaCha20Poly1305, &key, &bound)
    }

    /// The object, signed with the vault's key; an error if it could not be read back (a note too long, say).
    pub fn encode(&self, vault_key: &SignKey) -> Result<Vec<u8>> {
        self.encode_as(FORMAT_VERSION, vault_key)
    }

    /// The same, as a program writes it whose newest version is `version`.
    fn encode_as(&self, version: u8, vault_key: &SignKey) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[version]].concat());
        out.map(11 + self.unknown.len())
            .uint(0)
            .bytes(&self.vault.0)
            .uint(1)
            .bytes(&self.id.0);
        out.uint(2)
            .uint(self.role.code().into())
            .uint(3)
            .uint(self.lock as u64)
            .uint(4);
        self.created.encode(&mut out);
        out.uint(5)
            .array(3)
            .uint(self.note.epoch)
            .bytes(&self.note.salt)
            .bytes(&self.note.sealed);
        out.uint(6).bytes(&self.slot_key.0).uint(7).bytes(&self.locked);
        out.uint(8)
            .bytes(&self.sealed)
            .uint(9)
            .bytes(&self.own)
            .uint(10)
            .bytes(&self.header)
            .unknown(&self.unknown);
        let object = sign(out.finish(), DOMAIN, vault_key)?;
        // A slot that cannot be read back would lock its owner out: refused before it is stored.
        Self::decode_up_to(version, &object)?;
        Ok(object)
    }

    /// Reads a slot; its signature is checked by [`verify`](Self::verify) once the vault's key is known.
    pub fn decode(object: &[u8]) -> Result<Self> {
        Self::decode_up_to(FORMAT_VERSION, object)
    }

    /// The same, for a program that knows versions up to `newest`.
    fn decode_up_to(newest: u8, object: &[u8]) -> Result<Self> {
        within(OBJECT, "bytes", object.len() as u64, SLOT_MAX_BYTES as u64)?;
        let (signed, _) = split_signature(OBJECT, object)?;
        let (mut vault, mut id, mut role, mut lock) = (None, None, None, None);
        let (mut created, mut note, mut slot_key) = (None, None, None);
        let (mut locked, mut sealed, mut own, mut header) = (None, None, None, Vec::new());
        let (version, body) = body_up_to(OBJECT, MAGIC, signed, newest)?;
        let mut reader = Reader::new(OBJECT, body);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => id = Some(SlotId(reader.fixed()?)),
                2 => role = Some(role_of(OBJECT, reader.u8()?)?),
                3 => lock = Some(Lock::from_code(reader.u8()?)?),
                4 => created = Some(Time::decode(reader)?),
                5 => note = Some(SealedNote::decode(version, reader)?),
                6 => slot_key = Some(SealKey(reader.fixed()?)),
                7 => locked = Some(reader.bytes("locked key", SLOT_MAX_BYTES)?.to_vec()),
                8 => sealed = Some(reader.bytes("sealed secrets", SLOT_MAX_BYTES)?.to_vec()),
                9 => own = Some(reader.bytes("sealed signing key", SLOT_MAX_BYTES)?.to_vec()),
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
            created: required(OBJECT, "time", created)?,
            note: required(OBJECT, "note", note)?,
            slot_key: required(OBJECT, "slot key", slot_key)?,
            locked: required(OBJECT, "locked key", locked)?,
            sealed: required(OBJECT, "sealed secrets", sealed)?,
            own: required(OBJECT, "sealed signing key", own)?,
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

impl SealedNote {
    fn decode(version: u8, reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("note", 3)?;
        Ok(Self {
            version,
            epoch: reader.uint()?,
            salt: reader.fixed()?,
            sealed: reader.bytes("sealed note", SLOT_MAX_BYTES)?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Counting;

    #[test]
    fn slots_of_an_old_version_open_beside_new_ones_after_the_version_is_raised() {
        let random = &mut Counting(0);
        let secrets = Secrets::generate(random, VaultId([9; 16])).unwrap();
        let vault_key = secrets.vault_key.as_ref().unwrap();
        let slot_key = OpenKey::generate(random);
        let note = SlotNote {
            label: "laptop".to_owned(),
            recipient: String::new(),
            writer: secrets.certificate.writer,
        };
        let mut of_version = |version: u8| {
            let mut slot = Slot {
                vault: secrets.vault,
                id: SlotId([version; 16]),
                role: Role::Owner,
                lock: Lock::X25519,
                created: Time::default(),
                note: SealedNote::default(),
                slot_key: slot_key.seal_key().unwrap(),
                locked: Vec::new(),
                sealed: Vec::new(),
                own: Vec::new(),
                header: Vec::new(),
                unknown: Vec::new(),
            };
            slot.fill(&secrets, random).unwrap();
            slot.set_note_as(version, &secrets, &note, random).unwrap();
            slot.encode_as(version, vault_key).unwrap()
        };
        let [one, two] = [1, 2].map(&mut of_version);
        for object in [&one, &two] {
            let slot = Slot::decode_up_to(2, object).unwrap();
            Slot::verify(object, &secrets.vault_verify).unwrap();
            assert_eq!(slot.open(&slot_key).unwrap().encode(), secrets.encode());
            assert_eq!(slot.open_note(&secrets).unwrap(), note);
        }
        assert!(Slot::decode_up_to(1, &one).is_ok());
        let refused = Slot::decode_up_to(1, &two).map(drop);
        assert!(
            matches!(refused, Err(Error::Version { found: 2, known: 1, .. })),
            "{refused:?}"
        );
        let mut altered = one;
        altered[7] = 2;
        assert!(Slot::verify(&altered, &secrets.vault_verify).is_err());
        let slot = Slot::decode_up_to(2, &altered).unwrap();
        assert!(slot.open_note(&secrets).is_err(), "its seal binds the version");
    }
}
