//! Roots: the small objects that make something live, sealed to the owners and signed by who wrote them.
//! Layout: docs/format.md, "Root".
//!
//! - A root's name ends in the hash of its bytes, and its registration commits to the key that signs it: nobody can replace
//!   one, or publish one in another writer's name.
//! - Kind, registration, number and writer are bound into the seal: a payload cannot be passed off as another root's.
//! - The roots of a registration form a chain: each states the hash of the one before it.

use std::collections::BTreeSet;
use std::fmt;

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body_up_to, sign, split_signature, verify};
use crate::id::{RegistrationId, RootId, VaultId, object_hash};
use crate::index_part::{self, IndexPart};
use crate::keys::{Certificate, Secrets, VerifyKey};
use crate::ledger::Numbered;
use crate::limits::{FORMAT_VERSION, ROOT_MAX_BYTES};
use crate::presence::{Seen, decode_seen, encode_seen};
use crate::random::Random;

const OBJECT: &str = "root";
const MAGIC: &[u8; 7] = b"DRYROOT";
const DOMAIN: &[u8] = b"drystone root v1";
const INFO: &[u8] = b"drystone root v1";

/// What kind of thing a root makes live: a word of 1 to 15 letters from `a` to `z`, known to this program or not.
///
/// The word is the root's directory in the store and stands in the seal. Kinds sort like their words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootKind([u8; 15]);

impl RootKind {
    /// A backed-up tree.
    pub const SNAPSHOT: Self = Self(*b"snapshot\0\0\0\0\0\0\0");
    /// Blocks of the HTTP service; reserved.
    pub const BLOCKS: Self = Self(*b"blocks\0\0\0\0\0\0\0\0\0");
    /// The latest commit of one actor of a volume; reserved.
    pub const HEAD: Self = Self(*b"head\0\0\0\0\0\0\0\0\0\0\0");
    /// Means nothing; stands for the kind of a door to come in tests.
    pub const TEST: Self = Self(*b"test\0\0\0\0\0\0\0\0\0\0\0");

    /// The word in names and seals.
    pub fn word(&self) -> &str {
        let letters = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(letters).unwrap_or_default()
    }

    /// The kind that has this word; `None` unless it is one of 1 to 15 letters from `a` to `z`.
    pub fn from_word(word: &str) -> Option<Self> {
        let mut letters = [0; 15];
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        letters.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
        is_word.then_some(Self(letters))
    }
}

impl fmt::Debug for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKind({})", self.word())
    }
}

/// What the name of a root says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootName {
    /// What it makes live.
    pub kind: RootKind,
    /// Who published it: the writer at work, by its registration.
    pub registration: RegistrationId,
    /// Counts the roots of the registration from 0, over all kinds.
    pub number: u64,
    /// Hash of the object: the id that people use.
    pub hash: RootId,
}

impl RootName {
    /// Which root it is, whatever its kind: as epochs and ledgers name it.
    pub fn numbered(&self) -> Numbered {
        Numbered {
            registration: self.registration,
            number: self.number,
            hash: self.hash,
        }
    }
}

/// Whether more roots of the same registration may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum RootState {
    /// More may follow.
    #[default]
    Open,
    /// It is the last one.
    Last,
}

/// A root to be sealed.
#[derive(Debug, Clone)]
pub struct NewRoot<'a> {
    /// What it makes live.
    pub kind: RootKind,
    /// The nonce of the registration.
    pub nonce: [u8; 16],
    /// Its number; the first root of a registration has 0.
    pub number: u64,
    /// The hash of the root before it; `None` for number 0.
    pub previous: Option<RootId>,
    /// Whether it ends the registration.
    pub state: RootState,
    /// The epochs of gc that the writer had read, the latest ones if there are many.
    pub epochs: &'a Seen,
    /// The ledgers that the writer had read.
    pub ledgers: &'a Seen,
    /// How many packs the registration has begun: all of these are published or abandoned.
    pub packs: u64,
    /// What it says, encoded by its kind.
    pub payload: &'a [u8],
    /// The part of the index that lists the packs of this root, sealed under the index key.
    pub index_part: Option<&'a [u8]>,
}

/// An opened root.
#[derive(Debug, Clone)]
pub struct Root {
    /// Who wrote it.
    pub certificate: Certificate,
    /// What it says, to be decoded by its kind.
    pub payload: Vec<u8>,
}

/// A root whose hash and signatures are right; what it says is still sealed.
#[derive(Debug, Clone)]
pub struct SignedRoot {
    /// What its name must say.
    pub name: RootName,
    /// Who wrote it.
    pub certificate: Certificate,
    /// The hash of the root before it; `None` for number 0.
    pub previous: Option<RootId>,
    /// Whether it ends the registration.
    pub state: RootState,
    /// The epochs of gc that the writer had read when it published this root.
    pub epochs: Seen,
    /// The ledgers that the writer had read.
    pub ledgers: Seen,
    /// Packs of the registration with a lower number are published or abandoned.
    pub packs: u64,
    /// The part of the index that lists the packs of this root, sealed under the index key.
    pub index_part: Option<Vec<u8>>,
    nonce: [u8; 16],
    version: u8,
    epoch: u64,
    sealed: Vec<u8>,
}

/// What is bound into the seal of a payload. Only the kind has no fixed length, so no two roots share it.
fn aad(version: u8, vault: &VaultId, name: &RootName, writer: &VerifyKey) -> Vec<u8> {
    [
        &[version],
        vault.0.as_slice(),
        name.kind.word().as_bytes(),
        &name.registration.0,
        &name.number.to_be_bytes(),
        &writer.0,
    ]
    .concat()
}

/// Makes a root object; its name follows from it by [`root_name`].
///
/// Fails if the payload of a known kind could not be read back (a tag too long, say), since a root is the only way to what
/// it makes live.
pub fn seal_root(secrets: &Secrets, root: &NewRoot<'_>, random: &mut dyn Random) -> Result<Vec<u8>> {
    seal_as(FORMAT_VERSION, secrets, root, random)
}

/// The same, as a program writes it whose newest version is `version`.
fn seal_as(version: u8, secrets: &Secrets, root: &NewRoot<'_>, random: &mut dyn Random) -> Result<Vec<u8>> {
    if let Some(known) = root.kind.known() {
        (known.marker)(root.payload)?;
    }
    let (epoch, writer) = (secrets.current()?, &secrets.certificate.writer);
    let name = RootName {
        kind: root.kind,
        registration: RegistrationId::derive(&secrets.vault, writer, &root.nonce),
        number: root.number,
        hash: RootId([0; RootId::LEN]),
    };
    let bound = aad(version, &secrets.vault, &name, writer);
    let sealed = epoch.seal_key.seal(random, INFO, &bound, root.payload)?;
    let mut out = Writer::onto([MAGIC.as_slice(), &[version]].concat());
    out.map(11 + usize::from(root.index_part.is_some()) + usize::from(root.previous.is_some()));
    out.uint(0).bytes(&secrets.vault.0).uint(1).text(root.kind.word());
    out.uint(2).bytes(&root.nonce).uint(3).uint(root.number);
    out.uint(4).uint(epoch.number).uint(5);
    secrets.certificate.encode(&mut out);
    out.uint(6).bytes(&sealed);
    if let Some(part) = root.index_part {
        out.uint(7).bytes(part);
    }
    if let Some(previous) = &root.previous {
        out.uint(8).bytes(&previous.0);
    }
    out.uint(9).uint(u64::from(root.state == RootState::Last)).uint(10);
    encode_seen(&mut out, root.epochs);
    out.uint(11);
    encode_seen(&mut out, root.ledgers);
    out.uint(12).uint(root.packs);
    let object = sign(out.finish(), DOMAIN, &secrets.writer_key)?;
    within(OBJECT, "bytes", object.len() as u64, ROOT_MAX_BYTES as u64)?;
    Ok(object)
}

/// Returns the name of a root that this credential has just sealed with [`seal_root`].
pub fn root_name(secrets: &Secrets, root: &NewRoot<'_>, object: &[u8]) -> RootName {
    RootName {
        kind: root.kind,
        registration: RegistrationId::derive(&secrets.vault, &secrets.certificate.writer, &root.nonce),
        number: root.number,
        hash: object_hash(object),
    }
}

/// Checks that `object` is the root of this name, signed by the writer that its registration commits to; any credential can.
///
/// [`Error::Hash`] if these are not the bytes that the name states; other errors mean that the root counts for nobody.
pub fn verify_root(secrets: &Secrets, name: &RootName, object: &[u8]) -> Result<SignedRoot> {
    verify_up_to(FORMAT_VERSION, secrets, name, object)
}

/// The same, for a program that knows versions up to `newest`.
fn verify_up_to(newest: u8, secrets: &Secrets, name: &RootName, object: &[u8]) -> Result<SignedRoot> {
    within(OBJECT, "bytes", object.len() as u64, ROOT_MAX_BYTES as u64)?;
    if object_hash(object) != name.hash {
        return Err(Error::Hash { object: OBJECT });
    }
    let (signed, signature) = split_signature(OBJECT, object)?;
    let mut fields = Fields::default();
    let (version, body) = body_up_to(OBJECT, MAGIC, signed, newest)?;
    let mut reader = Reader::new(OBJECT, body);
    reader.map(|reader, key| fields.read(reader, key))?;
    reader.end()?;
    let certificate = required(OBJECT, "certificate", fields.certificate)?;
    let nonce = required(OBJECT, "nonce", fields.nonce)?;
    let is_named = fields.vault == Some(secrets.vault)
        && fields.kind.as_deref() == Some(name.kind.word())
        && fields.number == Some(name.number)
        && RegistrationId::derive(&secrets.vault, &certificate.writer, &nonce) == name.registration;
    if !is_named {
        return Err(Error::Authentication { object: OBJECT });
    }
    certificate.verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
    verify(OBJECT, DOMAIN, signed, &signature, &certificate.writer)?;
    if fields.previous.is_none() != (name.number == 0) {
        return Err(Error::malformed(
            OBJECT,
            0,
            "every root but the first states the one before it",
        ));
    }
    Ok(SignedRoot {
        name: *name,
        certificate,
        previous: fields.previous,
        state: fields.state,
        epochs: fields.epochs,
        ledgers: fields.ledgers,
        packs: fields.packs,
        index_part: fields.index_part,
        nonce,
        version,
        epoch: required(OBJECT, "key epoch", fields.epoch)?,
        sealed: required(OBJECT, "sealed part", fields.sealed)?,
    })
}

#[derive(Default)]
struct Fields {
    vault: Option<VaultId>,
    kind: Option<String>,
    nonce: Option<[u8; 16]>,
    number: Option<u64>,
    epoch: Option<u64>,
    certificate: Option<Certificate>,
    sealed: Option<Vec<u8>>,
    index_part: Option<Vec<u8>>,
    previous: Option<RootId>,
    state: RootState,
    epochs: Seen,
    ledgers: Seen,
    packs: u64,
}

impl Fields {
    fn read(&mut self, reader: &mut Reader<'_>, key: u64) -> Result<bool> {
        match key {
            0 => self.vault = Some(VaultId(reader.fixed()?)),
            1 => self.kind = Some(reader.text("kind")?),
            2 => self.nonce = Some(reader.fixed()?),
            3 => self.number = Some(reader.uint()?),
            4 => self.epoch = Some(reader.uint()?),
            5 => self.certificate = Some(Certificate::decode(OBJECT, reader)?),
            6 => self.sealed = Some(reader.bytes("sealed part", ROOT_MAX_BYTES)?.to_vec()),
            7 => self.index_part = Some(reader.bytes("index part", ROOT_MAX_BYTES)?.to_vec()),
            8 => self.previous = Some(RootId(reader.fixed()?)),
            9 => {
                self.state = match reader.uint()? {
                    1 => RootState::Last,
                    _ => RootState::Open,
                }
            }
            10 => self.epochs = decode_seen(reader)?,
            11 => self.ledgers = decode_seen(reader)?,
            12 => self.packs = reader.uint()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl SignedRoot {
    /// Opens what the root says; a writer gets [`Error::WriterKey`].
    pub fn open(&self, secrets: &Secrets) -> Result<Root> {
        let open_key = secrets.open_key(OBJECT, self.epoch)?;
        let bound = aad(self.version, &secrets.vault, &self.name, &self.certificate.writer);
        let payload = open_key.open(OBJECT, INFO, &bound, &self.sealed)?;
        Ok(Root {
            certificate: self.certificate,
            payload,
        })
    }
}

impl SignedRoot {
    /// Opens the index part that the root carries; `None` if it carries none. Any credential can. Of each pack that the part lists
    /// [`PackTail::open`](crate::index_part::PackTail::open) tells whether the root's signer wrote it.
    pub fn open_index_part(&self, secrets: &Secrets) -> Result<Option<IndexPart>> {
        let of = index_part::Numbered {
            registration: self.nonce,
            number: self.name.number,
        };
        let open = |part: &Vec<u8>| index_part::open_part(secrets, self.version, &of, part);
        self.index_part.as_ref().map(open).transpose()
    }
}

/// Verifies and opens the root of this name; a writer gets [`Error::WriterKey`].
pub fn open_root(secrets: &Secrets, name: &RootName, object: &[u8]) -> Result<Root> {
    verify_root(secrets, name, object)?.open(secrets)
}

/// Roots that share registration and number with another one: the same key was used twice, or by somebody else.
pub fn doubles(roots: impl IntoIterator<Item = RootName>) -> Vec<RootName> {
    let mut ordered: Vec<RootName> = roots.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    ordered.sort_by_key(RootName::numbered);
    let is_same = |one: &RootName, two: &RootName| (one.registration, one.number) == (two.registration, two.number);
    let groups = ordered.chunk_by(is_same).filter(|group| group.len() > 1);
    groups.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Counting;

    #[test]
    fn any_word_of_small_letters_is_a_kind() {
        for word in ["snapshot", "a", "abcdefghijklmno", "head"] {
            assert_eq!(RootKind::from_word(word).unwrap().word(), word);
        }
        for bad in ["", "abcdefghijklmnop", "Head", "head1", "he-ad", "h\0", "é"] {
            assert_eq!(RootKind::from_word(bad), None, "{bad}");
        }
        assert_eq!(RootKind::from_word("snapshot"), Some(RootKind::SNAPSHOT));
        assert!(RootKind::BLOCKS < RootKind::HEAD && RootKind::HEAD < RootKind::SNAPSHOT);
    }

    #[test]
    fn roots_of_an_old_version_open_beside_new_ones_after_the_version_is_raised() {
        let secrets = Secrets::generate(&mut Counting(0), VaultId([9; 16])).unwrap();
        let none = Seen::new();
        let root = NewRoot {
            kind: RootKind::HEAD,
            nonce: [7; 16],
            number: 0,
            previous: None,
            state: RootState::Open,
            epochs: &none,
            ledgers: &none,
            packs: 0,
            payload: b"what a later door says",
            index_part: None,
        };
        let read = |newest: u8, object: &[u8]| {
            let name = root_name(&secrets, &root, object);
            verify_up_to(newest, &secrets, &name, object)?.open(&secrets)
        };
        let [one, two] = [1, 2].map(|version| seal_as(version, &secrets, &root, &mut Counting(1)).unwrap());
        for object in [&one, &two] {
            assert_eq!(read(2, object).unwrap().payload, root.payload);
        }
        assert_eq!(read(1, &one).unwrap().payload, root.payload);
        let refused = read(1, &two).map(drop);
        assert!(
            matches!(refused, Err(Error::Version { found: 2, known: 1, .. })),
            "{refused:?}"
        );
        // The seal binds the version: a signature over another one does not open it.
        let mut altered = one[..one.len() - 64].to_vec();
        altered[7] = 2;
        let altered = sign(altered, DOMAIN, &secrets.writer_key).unwrap();
        assert!(matches!(read(2, &altered), Err(Error::Authentication { .. })));
    }
}
