//! What a credential knows: the secrets of a key slot, and key epochs. Layout: docs/format.md, "Secrets".
//!
//! - A writer's credential holds no secret that opens content; only an owner's holds one that signs as the vault.
//! - Every credential has a signing key of its own, certified by the vault. It lasts as long as the credential: new key
//!   epochs leave it alone.
//! - Key epochs have ids of number and chance, so that both sides of a split may make the next one; the highest is
//!   written in. A credential unites all epochs that it learns of, and asks for those that it meets and does not know.

use std::fmt;
use std::sync::{Arc, RwLock, Weak};

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::id::VaultId;
use crate::limits::EPOCHS_MAX;
use crate::random::{Random, array};

use super::certificate::Certificate;
use super::epoch_id::{epoch_id, epoch_number};
use super::primitive::{DedupKey, IndexKey, OpenKey, SealKey, ShardKey, SignKey, VerifyKey};
use super::role::Role;

/// The keys of one epoch. Removing a key slot can start a new one, closed to the removed key.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// Id of the epoch: its number, then 32 random bits. See [`epoch_number`].
    pub number: u64,
    /// What is written in this epoch is sealed to this key.
    pub seal_key: SealKey,
    /// Opens what was sealed in this epoch; absent in a writer's credential.
    pub open_key: Option<OpenKey>,
    /// Seals and opens the trailers of this epoch.
    pub index_key: IndexKey,
}

/// Finds key epochs that a credential does not know yet: others may have made some since its slot was read.
pub trait EpochSource: Send + Sync {
    /// The epochs that the credential's slots hold now; asked when an object names the epoch `unknown`.
    fn epochs(&self, unknown: u64) -> Vec<Epoch>;
}

/// What a credential has learned since it was unlocked; clones of the secrets share it.
#[derive(Clone, Default)]
struct Learned(Arc<RwLock<Vec<Epoch>>>, Arc<RwLock<Option<Weak<dyn EpochSource>>>>);

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learned({} epochs)", self.epochs().len())
    }
}

impl Learned {
    fn epochs(&self) -> Vec<Epoch> {
        match self.0.read() {
            Ok(epochs) => epochs.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    fn source(&self) -> Option<Arc<dyn EpochSource>> {
        let source = match self.1.read() {
            Ok(source) => source.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        };
        source?.upgrade()
    }
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
    /// The epochs that the key slot held, ascending.
    pub epochs: Vec<Epoch>,
    /// Signs what this credential writes.
    pub writer_key: SignKey,
    /// The vault's word for that key.
    pub certificate: Certificate,
    /// Signs as the vault; only an owner's credential has it.
    pub vault_key: Option<SignKey>,
    learned: Learned,
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
            learned: Learned::default(),
        })
    }

    /// What this credential may do.
    pub fn role(&self) -> Role {
        self.certificate.role
    }

    /// Says that this credential may not do `what`.
    pub fn refused(&self, what: &'static str) -> Error {
        match self.role() {
            Role::Writer => Error::WriterKey { what },
            role => Error::Right { role, what },
        }
    }

    /// What the blocks of this vault's shards are tagged with.
    pub fn shard_key(&self) -> ShardKey {
        ShardKey(self.dedup_key.derive(b"drystone shard v1"))
    }

    /// All epochs that are known, ascending.
    pub fn all_epochs(&self) -> Vec<Epoch> {
        let (mut all, learned) = (self.epochs.clone(), self.learned.epochs());
        if learned.is_empty() {
            return all;
        }
        all.extend(learned);
        all.sort_by_key(|epoch| epoch.number);
        all.dedup_by_key(|epoch| epoch.number);
        all
    }

    /// The epoch that is written in: the highest that is known.
    pub fn current(&self) -> Result<Epoch> {
        self.all_epochs()
            .pop()
            .ok_or_else(|| Error::malformed(SECRETS, 0, "no key epoch"))
    }

    /// The epoch with this id; `object` names what was sealed in it. One that is not known is asked for once.
    pub fn epoch(&self, object: &'static str, number: u64) -> Result<Epoch> {
        let is_it = |epoch: &Epoch| epoch.number == number;
        let find = || {
            self.epochs
                .iter()
                .find(|epoch| is_it(epoch))
                .cloned()
                .or_else(|| self.learned.epochs().into_iter().find(is_it))
        };
        if let Some(epoch) = find() {
            return Ok(epoch);
        }
        if let Some(source) = self.learned.source() {
            self.learn(source.epochs(number));
        }
        find().ok_or(Error::Epoch { object, epoch: number })
    }

    /// Adds epochs that other slots of the same credential hold; all clones of these secrets know them too.
    pub fn learn(&self, epochs: impl IntoIterator<Item = Epoch>) {
        let mut known: Vec<u64> = self.all_epochs().iter().map(|epoch| epoch.number).collect();
        let mut learned = match self.learned.0.write() {
            Ok(learned) => learned,
            Err(poisoned) => poisoned.into_inner(),
        };
        for epoch in epochs {
            if !known.contains(&epoch.number) && known.len() < EPOCHS_MAX as usize {
                known.push(epoch.number);
                learned.push(epoch);
            }
        }
    }

    /// Sets where epochs are asked for that are not known, as long as somebody holds it.
    pub fn set_source(&self, source: Weak<dyn EpochSource>) {
        match self.learned.1.write() {
            Ok(mut slot) => *slot = Some(source),
            Err(poisoned) => *poisoned.into_inner() = Some(source),
        }
    }

    /// Opens what was sealed to the public key of epoch `number`; a writer gets [`Error::WriterKey`].
    pub fn open_key(&self, object: &'static str, number: u64) -> Result<OpenKey> {
        self.epoch(object, number)?
            .open_key
            .ok_or_else(|| self.refused("read what is stored"))
    }

    /// A fresh credential of this vault with `role` and a signing key of its own; only an owner can make one.
    pub fn delegate(&self, random: &mut dyn Random, role: Role) -> Result<Self> {
        let writer_key = SignKey::generate(random);
        let certificate = Certificate::issue(
            &self.vault,
            self.vault_key.as_ref().ok_or_else(|| self.refused("make new keys"))?,
            writer_key.verify_key()?,
            role,
        )?;
        let mut secrets = Self {
            writer_key,
            certificate,
            epochs: self.all_epochs(),
            learned: Learned::default(),
            ..self.clone()
        };
        secrets.limit_to(role);
        Ok(secrets)
    }

    /// Drops what a credential with `role` must not know.
    fn limit_to(&mut self, role: Role) {
        if !role.may_govern() {
            self.vault_key = None;
        }
        if !role.may_read() {
            self.epochs.iter_mut().for_each(|epoch| epoch.open_key = None);
        }
    }

    /// Starts a new epoch: what is written from now on is closed to credentials that do not learn of it.
    pub fn advance(&mut self, random: &mut dyn Random) -> Result<()> {
        if self.vault_key.is_none() {
            return Err(self.refused("start a key epoch"));
        }
        self.epochs = self.all_epochs();
        within(
            SECRETS,
            "number of key epochs",
            self.epochs.len() as u64 + 1,
            EPOCHS_MAX,
        )?;
        let number = epoch_number(self.current()?.number)
            .checked_add(1)
            .ok_or(Error::Crypto("key epochs exhausted"))?;
        self.epochs.push(Epoch::generate(random, number)?);
        Ok(())
    }

    /// Appends the deterministic encoding of all of it; secret, to be sealed.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_parts(self.role(), true, true)
    }

    /// The encoding of what all credentials of `role` share.
    pub(crate) fn encode_shared(&self, role: Role) -> Vec<u8> {
        self.encode_parts(role, true, false)
    }

    /// The encoding of what this credential alone has: its signing key and certificate.
    pub(crate) fn encode_own(&self) -> Vec<u8> {
        self.encode_parts(self.role(), false, true)
    }

    fn encode_parts(&self, role: Role, shared: bool, own: bool) -> Vec<u8> {
        let mut limited = self.clone();
        limited.epochs = self.all_epochs();
        limited.limit_to(role);
        let vault_key = limited.vault_key.as_ref().filter(|_| shared);
        let mut out = Writer::new();
        out.map(usize::from(shared) * 4 + usize::from(own) * 2 + usize::from(vault_key.is_some()));
        if shared {
            out.uint(0)
                .bytes(&self.vault.0)
                .uint(1)
                .bytes(&self.vault_verify.0)
                .uint(2)
                .bytes(&self.dedup_key.0);
            out.uint(3).array(limited.epochs.len());
            for epoch in &limited.epochs {
                let open_key: &[u8] = epoch.open_key.as_ref().map_or(&[], |key| &key.0);
                out.array(4)
                    .uint(epoch.number)
                    .bytes(&epoch.seal_key.0)
                    .bytes(open_key)
                    .bytes(&epoch.index_key.0);
            }
        }
        if own {
            out.uint(4).bytes(&self.writer_key.0).uint(5);
            self.certificate.encode(&mut out);
        }
        if let Some(vault_key) = vault_key {
            out.uint(6).bytes(&vault_key.0);
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_parts(&[bytes])
    }

    /// Reads secrets that lie in several parts, and checks that these fit each other.
    pub(crate) fn decode_parts(parts: &[&[u8]]) -> Result<Self> {
        let (mut vault, mut verify, mut dedup, mut epochs) = (None, None, None, Vec::new());
        let (mut writer_key, mut certificate, mut vault_key) = (None, None, None);
        for part in parts {
            let mut reader = Reader::new(SECRETS, part);
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
        }
        let secrets = Self {
            vault: required(SECRETS, "vault id", vault)?,
            vault_verify: required(SECRETS, "vault key", verify)?,
            dedup_key: required(SECRETS, "dedup key", dedup)?,
            epochs,
            writer_key: required(SECRETS, "writer key", writer_key)?,
            certificate: required(SECRETS, "certificate", certificate)?,
            vault_key,
            learned: Learned::default(),
        };
        secrets.fits_its_role()?;
        Ok(secrets)
    }

    /// Checks the epochs, and that the credential knows what its role needs and nothing else.
    fn fits_its_role(&self) -> Result<()> {
        let malformed = |why: &str| Err(Error::malformed(SECRETS, 0, why));
        self.current()?;
        if !self.epochs.is_sorted_by(|one, two| one.number < two.number) {
            return malformed("key epochs out of order");
        }
        let role = self.role();
        let reads = |epoch: &Epoch| epoch.open_key.is_some() == role.may_read();
        if self.vault_key.is_some() != role.may_govern() || !self.epochs.iter().all(reads) {
            return malformed("secrets of another role than the certificate's");
        }
        Ok(())
    }
}

impl Epoch {
    /// BLAKE3 of the id and the public key of this epoch: tells it from another that somebody made under its id.
    pub fn hash(&self) -> [u8; 32] {
        let public = [self.number.to_be_bytes().as_slice(), &self.seal_key.0].concat();
        *blake3::hash(&[b"drystone key epoch v1".as_slice(), &public].concat()).as_bytes()
    }

    /// A new epoch of this number; its id ends in chance.
    fn generate(random: &mut dyn Random, number: u32) -> Result<Self> {
        let open_key = OpenKey::generate(random);
        let seal_key = open_key.seal_key()?;
        let index_key = IndexKey::generate(random);
        let chance: [u8; 4] = array(random);
        Ok(Self {
            number: epoch_id(number, chance),
            seal_key,
            open_key: Some(open_key),
            index_key,
        })
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("key epoch", 4)?;
        let number = reader.uint()?;
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
