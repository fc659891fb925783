//! Roots: the small objects that make something live, sealed to the owners and signed by who wrote them.
//! Layout: docs/format.md, "Root".
//!
//! - Type and id are bound into the seal: a root cannot be passed off under another name.

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body, sign, split_signature, verify};
use crate::id::{RootId, VaultId};
use crate::keys::{Certificate, Secrets};
use crate::limits::ROOT_MAX_BYTES;
use crate::random::Random;
use crate::snapshot::Snapshot;

const OBJECT: &str = "root";
const MAGIC: &[u8; 7] = b"DRYROOT";
const DOMAIN: &[u8] = b"drystone root v1";
const INFO: &[u8] = b"drystone root v1";

/// What kind of thing a root makes live; the text is its directory in the store and stands in the seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RootKind {
    /// A backed-up tree.
    Snapshot,
}

impl RootKind {
    /// The word in names and seals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
        }
    }

    /// The kind that has this word.
    pub fn from_word(word: &str) -> Option<Self> {
        (word == Self::Snapshot.word()).then_some(Self::Snapshot)
    }
}

/// An opened root.
#[derive(Debug, Clone)]
pub struct Root {
    /// Who wrote it.
    pub certificate: Certificate,
    /// What it says, to be decoded by its kind.
    pub payload: Vec<u8>,
}

fn aad(vault: &VaultId, kind: &str, id: &RootId) -> Vec<u8> {
    [vault.0.as_slice(), &id.0, kind.as_bytes()].concat()
}

/// The root object of `kind` and `id` that says `payload`; an error if `payload` could not be read back (a tag too long,
/// say), since a root is the only way to what it makes live.
pub fn seal_root(
    secrets: &Secrets,
    kind: RootKind,
    id: &RootId,
    payload: &[u8],
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    match kind {
        RootKind::Snapshot => Snapshot::decode(payload).map(drop)?,
    }
    let epoch = secrets.current()?;
    let sealed = epoch
        .seal_key
        .seal(random, INFO, &aad(&secrets.vault, kind.word(), id), payload)?;
    let mut out = Writer::onto([MAGIC.as_slice(), &[crate::limits::FORMAT_VERSION]].concat());
    out.map(6)
        .uint(0)
        .bytes(&secrets.vault.0)
        .uint(1)
        .text(kind.word())
        .uint(2)
        .bytes(&id.0);
    out.uint(3).uint(epoch.number).uint(4);
    secrets.certificate.encode(&mut out);
    out.uint(5).bytes(&sealed);
    let object = sign(out.finish(), DOMAIN, &secrets.writer_key)?;
    within(OBJECT, "bytes", object.len() as u64, ROOT_MAX_BYTES as u64)?;
    Ok(object)
}

/// A root whose signatures are right; what it says is still sealed.
#[derive(Debug, Clone)]
pub struct SignedRoot {
    /// Who wrote it.
    pub certificate: Certificate,
    epoch: u64,
    sealed: Vec<u8>,
}

/// Checks that `object` is the root `kind` and `id` of this vault, signed by one of its writers; any credential can.
pub fn verify_root(secrets: &Secrets, kind: RootKind, id: &RootId, object: &[u8]) -> Result<SignedRoot> {
    within(OBJECT, "bytes", object.len() as u64, ROOT_MAX_BYTES as u64)?;
    let (signed, signature) = split_signature(OBJECT, object)?;
    let (mut vault, mut word, mut found, mut epoch) = (None, None, None, None);
    let (mut certificate, mut sealed) = (None, None);
    let mut reader = Reader::new(OBJECT, body(OBJECT, MAGIC, signed)?);
    reader.map(|reader, key| {
        match key {
            0 => vault = Some(VaultId(reader.fixed()?)),
            1 => word = Some(reader.text("kind")?),
            2 => found = Some(RootId(reader.fixed()?)),
            3 => epoch = Some(reader.uint()?),
            4 => certificate = Some(Certificate::decode(OBJECT, reader)?),
            5 => sealed = Some(reader.bytes("sealed part", ROOT_MAX_BYTES)?.to_vec()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    if vault != Some(secrets.vault) || word.as_deref() != Some(kind.word()) || found != Some(*id) {
        return Err(Error::Authentication { object: OBJECT });
    }
    let certificate = required(OBJECT, "certificate", certificate)?;
    certificate.verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
    verify(OBJECT, DOMAIN, signed, &signature, &certificate.writer)?;
    Ok(SignedRoot {
        certificate,
        epoch: required(OBJECT, "key epoch", epoch)?,
        sealed: required(OBJECT, "sealed part", sealed)?,
    })
}

/// Opens the root that is stored as `kind` and `id`; a writer gets [`Error::WriterKey`].
pub fn open_root(secrets: &Secrets, kind: RootKind, id: &RootId, object: &[u8]) -> Result<Root> {
    let SignedRoot {
        certificate,
        epoch,
        sealed,
    } = verify_root(secrets, kind, id, object)?;
    let open_key = secrets.open_key(OBJECT, epoch)?;
    let payload = open_key.open(OBJECT, INFO, &aad(&secrets.vault, kind.word(), id), &sealed)?;
    Ok(Root { certificate, payload })
}
