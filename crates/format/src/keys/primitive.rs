//! Single keys: what is derived from them, sealing to public keys, signatures. Layout: docs/format.md, "Keys".
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

use crate::error::{Error, Result};
use crate::random::{Random, array};

/// Bytes that HPKE adds to a plaintext: the encapsulated key and the tag.
pub const HPKE_OVERHEAD_BYTES: usize = 32 + 16;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub(crate) [u8; 32]);

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
secret!(
    /// Tags the blocks of shards; every credential has it, no place does.
    ShardKey
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
