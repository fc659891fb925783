//! Notices: what an owner tells every credential of a vault, sealed under the index key and signed.
//! Layout: docs/format.md, "Notice".
//!
//! - Only an owner's notice counts: a writer's signature is refused.
//! - Each kind has a magic and a label of its own, so that one kind cannot be passed off as another.

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body_up_to, sign, split_signature, verify};
use crate::id::PackId;
use crate::keys::{Certificate, Role, Secrets};
use crate::limits::{FORMAT_VERSION, LEDGER_MAX_BYTES, ROOT_MAX_BYTES};
use crate::random::{Random, array};
use crate::seal::{Bound, PackKind, Sealer, Suite};

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// Packs that hold what their trailers claim.
    Verified,
    /// What gc has condemned.
    Epoch,
    /// What owners have decided about the whole vault.
    Config,
    /// What owners state together.
    Ledger,
}

impl NoticeKind {
    fn object(self) -> &'static str {
        match self {
            Self::Verified => "list of verified packs",
            Self::Epoch => "epoch of gc",
            Self::Config => "configuration",
            Self::Ledger => "ledger",
        }
    }

    fn magic(self) -> &'static [u8; 7] {
        match self {
            Self::Verified => b"DRYLIST",
            Self::Epoch => b"DRYEPOC",
            Self::Config => b"DRYCONF",
            Self::Ledger => b"DRYLEDG",
        }
    }

    fn domain(self) -> &'static [u8] {
        match self {
            Self::Verified => b"drystone list v1",
            Self::Epoch => b"drystone epoch v1",
            Self::Config => b"drystone config v1",
            Self::Ledger => b"drystone ledger v1",
        }
    }

    fn max_bytes(self) -> usize {
        match self {
            Self::Ledger => LEDGER_MAX_BYTES,
            Self::Verified | Self::Epoch | Self::Config => ROOT_MAX_BYTES,
        }
    }
}

/// The notice object of `kind` that says `payload`; readable by every credential.
pub fn seal_notice(secrets: &Secrets, kind: NoticeKind, payload: Vec<u8>, random: &mut dyn Random) -> Result<Vec<u8>> {
    seal_notice_as(FORMAT_VERSION, secrets, kind, payload, random)
}

/// The same, as a program writes it whose newest version is `version`.
pub fn seal_notice_as(
    version: u8,
    secrets: &Secrets,
    kind: NoticeKind,
    payload: Vec<u8>,
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    let epoch = secrets.current()?;
    let salt: [u8; 32] = array(random);
    let mut sealed = payload;
    sealer(secrets, kind, version, epoch.number, &salt)?.seal(0, &mut sealed, 0)?;
    let mut out = Writer::onto([kind.magic().as_slice(), &[version]].concat());
    out.map(4).uint(0).uint(epoch.number).uint(1).bytes(&salt).uint(2);
    secrets.certificate.encode(&mut out);
    out.uint(3).bytes(&sealed);
    let object = sign(out.finish(), kind.domain(), &secrets.writer_key)?;
    within(kind.object(), "bytes", object.len() as u64, kind.max_bytes() as u64)?;
    Ok(object)
}

/// What the notice says, checked to be an owner's of this vault; to be decoded by its kind.
pub fn open_notice(secrets: &Secrets, kind: NoticeKind, object: &[u8]) -> Result<Vec<u8>> {
    open_notice_up_to(FORMAT_VERSION, secrets, kind, object)
}

/// The same, for a program whose newest version is `known`.
pub fn open_notice_up_to(known: u8, secrets: &Secrets, kind: NoticeKind, object: &[u8]) -> Result<Vec<u8>> {
    let Signed {
        version,
        epoch,
        salt,
        sealed,
    } = signed_notice(known, secrets, kind, object)?;
    sealer(secrets, kind, version, epoch, &salt)?.open(kind.object(), 0, &sealed)
}

/// Checks that `object` is an owner's notice of `kind` in this vault; what it says may be sealed in an epoch that this
/// credential does not know.
pub fn verify_notice(secrets: &Secrets, kind: NoticeKind, object: &[u8]) -> Result<()> {
    signed_notice(FORMAT_VERSION, secrets, kind, object).map(drop)
}

/// Checks that an owner of this vault signed the notice and returns its version, which may be newer than this program:
/// the outer form of a notice does not change, so that nobody but an owner can claim to be newer.
pub fn notice_version(secrets: &Secrets, kind: NoticeKind, object: &[u8]) -> Result<u8> {
    Ok(signed_notice(u8::MAX, secrets, kind, object)?.version)
}

/// A notice that an owner signed, still sealed.
struct Signed {
    version: u8,
    epoch: u64,
    salt: [u8; 32],
    sealed: Vec<u8>,
}

/// Checks the signatures of a notice.
fn signed_notice(known: u8, secrets: &Secrets, kind: NoticeKind, object: &[u8]) -> Result<Signed> {
    let what = kind.object();
    within(what, "bytes", object.len() as u64, kind.max_bytes() as u64)?;
    let (signed, signature) = split_signature(what, object)?;
    let (version, body) = body_up_to(what, kind.magic(), signed, known)?;
    let (mut epoch, mut salt, mut certificate, mut sealed) = (None, None, None, None);
    let mut reader = Reader::new(what, body);
    reader.map(|reader, key| {
        match key {
            0 => epoch = Some(reader.uint()?),
            1 => salt = Some(reader.fixed()?),
            2 => certificate = Some(Certificate::decode(what, reader)?),
            3 => sealed = Some(reader.bytes("sealed part", kind.max_bytes())?.to_vec()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    let certificate = required(what, "certificate", certificate)?;
    certificate.verify(what, &secrets.vault, &secrets.vault_verify)?;
    verify(what, kind.domain(), signed, &signature, &certificate.writer)?;
    if certificate.role != Role::Owner {
        return Err(Error::Signature { object: what });
    }
    Ok(Signed {
        version,
        epoch: required(what, "key epoch", epoch)?,
        salt: required(what, "salt", salt)?,
        sealed: required(what, "sealed part", sealed)?,
    })
}

fn sealer(secrets: &Secrets, kind: NoticeKind, version: u8, epoch: u64, salt: &[u8; 32]) -> Result<Sealer> {
    let key = secrets.epoch(kind.object(), epoch)?.index_key.trailer_key(salt);
    let bound = Bound {
        label: kind.domain(),
        version,
        vault: &secrets.vault,
        kind: PackKind::Meta,
    };
    Sealer::new(Suite::ChaCha20Poly1305, &key, &bound)
}

/// An owner's word that the packs `packs` hold what their trailers claim.
pub fn seal_verified(secrets: &Secrets, packs: &[PackId], random: &mut dyn Random) -> Result<Vec<u8>> {
    let mut list = Writer::new();
    list.map(1).uint(0).array(packs.len());
    for pack in packs {
        list.bytes(&pack.0);
    }
    seal_notice(secrets, NoticeKind::Verified, list.finish(), random)
}

/// Opens what [`seal_verified`] made.
pub fn open_verified(secrets: &Secrets, object: &[u8]) -> Result<Vec<PackId>> {
    let list = open_notice(secrets, NoticeKind::Verified, object)?;
    let mut packs = Vec::new();
    let mut reader = Reader::new(NoticeKind::Verified.object(), &list);
    reader.map(|reader, key| {
        if key != 0 {
            return Ok(false);
        }
        for _ in 0..reader.array("number of packs", (ROOT_MAX_BYTES / PackId::LEN) as u64)? {
            packs.push(PackId(reader.fixed()?));
        }
        Ok(true)
    })?;
    reader.end()?;
    Ok(packs)
}
