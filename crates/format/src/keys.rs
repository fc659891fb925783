//! The vault's secrets, what is derived from them, and how secrets are sealed to public keys.
//!
//! - A writer's credential holds no secret that opens content: packs and roots are sealed to the vault's public key.
//! - Derivation is HKDF-SHA256 (RFC 5869); sealing to a public key is HPKE base mode (RFC 9180) with
//!   DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305; signatures are Ed25519 (RFC 8032).
//! - Secrets are wiped when dropped and never appear in `Debug`.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result};
use crate::id::VaultId;
use crate::limits::EPOCHS_MAX;
use crate::random::{Random, array};

/// Bytes that HPKE adds to a plaintext: the encapsulated key and the tag.
pub const HPKE_OVERHEAD_BYTES: usize = 32 + 16;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The secret with these bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// A fresh random secret.
            pub fn generate(random: &mut dyn Random) -> Self {
                Self(array(random))
            }

            /// The secret's bytes, for storing it inside another sealed object.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret!(
    /// Decides chunk ids and chunk boundaries; every credential has it. It lives as long as the vault, or dedup would end.
    DedupKey
);
secret!(
    /// Opens pack trailers, so that every credential can learn what lies where.
    IndexKey
);
secret!(
    /// Opens what was sealed to the public key of the same epoch: an owner's secret.
    OpenKey
);
secret!(
    /// Signs: as the vault (owners only) or as one writer.
    SignKey
);

impl DedupKey {
    /// 32 bytes for the purpose that `label` names.
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        hkdf(b"", &self.0, label)
    }
}

impl IndexKey {
    /// The key of one pack's trailer; `salt` is the pack's own.
    pub fn trailer_key(&self, salt: &[u8; 32]) -> [u8; 32] {
        hkdf(salt, &self.0, b"drystone trailer v1")
    }
}

/// HKDF-SHA256 with 32 bytes of output.
fn hkdf(salt: &[u8], secret: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let info = [info];
    let mut out = [0; 32];
    let expanded = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, salt).extract(secret);
    // Expansion fails only above 255 times 32 bytes of output (RFC 5869 section 2.3).
    let filled = expanded
        .expand(&info, ring::hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out));
    debug_assert!(filled.is_ok());
    out
}

/// A public key that data can be sealed to (X25519, 32 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealKey(pub [u8; 32]);

/// A public key that signatures are verified with (Ed25519, 32 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerifyKey(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl OpenKey {
    /// The public half.
    pub fn seal_key(&self) -> Result<SealKey> {
        let secret =
            <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0).map_err(|_| Error::Crypto("X25519 key"))?;
        let public = X25519HkdfSha256::sk_to_pk(&secret).to_bytes();
        public
            .as_slice()
            .try_into()
            .map(SealKey)
            .map_err(|_| Error::Crypto("X25519 key"))
    }

    /// Opens what [`SealKey::seal`] made with the same `info` and `aad`; `object` names it in the error.
    pub fn open(&self, object: &'static str, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let failed = || Error::Authentication { object };
        let (encapped, ciphertext) = sealed.split_at_checked(32).ok_or_else(failed)?;
        let encapped = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapped).map_err(|_| failed())?;
        let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0).map_err(|_| failed())?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &secret,
            &encapped,
            info,
            ciphertext,
            aad,
        )
        .map_err(|_| failed())
    }
}

impl SealKey {
    /// Seals `plaintext` so that only the owner of the matching [`OpenKey`] reads it; adds [`HPKE_OVERHEAD_BYTES`].
    pub fn seal(&self, random: &mut dyn Random, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0)
            .map_err(|_| Error::Crypto("X25519 public key"))?;
        let (encapped, ciphertext) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256, _>(
            &OpModeS::Base,
            &public,
            info,
            plaintext,
            aad,
            &mut Csprng(random),
        )
        .map_err(|_| Error::Crypto("HPKE seal"))?;
        let mut sealed = encapped.to_bytes().to_vec();
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }
}

/// Our seam in the shape that `hpke` asks for.
struct Csprng<'a>(&'a mut dyn Random);

impl hpke::rand_core::RngCore for Csprng<'_> {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(array(self.0))
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(array(self.0))
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), hpke::rand_core::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl hpke::rand_core::CryptoRng for Csprng<'_> {}

impl SignKey {
    /// The public half.
    pub fn verify_key(&self) -> Result<VerifyKey> {
        let bytes = self.pair()?.public_key().as_ref().try_into();
        bytes.map(VerifyKey).map_err(|_| Error::Crypto("Ed25519 key"))
    }

    /// Signs `message`, which must begin with a domain string that no other object uses.
    pub fn sign(&self, message: &[u8]) -> Result<Signature> {
        let signature = self.pair()?.sign(message);
        signature
            .as_ref()
            .try_into()
            .map(Signature)
            .map_err(|_| Error::Crypto("Ed25519 signature"))
    }

    fn pair(&self) -> Result<Ed25519KeyPair> {
        Ed25519KeyPair::from_seed_unchecked(&self.0).map_err(|_| Error::Crypto("Ed25519 key"))
    }
}

impl VerifyKey {
    /// `Ok` if `signature` over `message` is this key's; `object` names what was signed in the error.
    pub fn verify(&self, object: &'static str, message: &[u8], signature: &Signature) -> Result<()> {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, &signature.0)
            .map_err(|_| Error::Signature { object })
    }
}

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
