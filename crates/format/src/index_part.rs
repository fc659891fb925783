//! Index parts: what one credential says of the packs that it wrote, so that a cold client need not ask for each of them.
//! Layout: docs/format.md, "Index part".
//!
//! - A part lists id, length and whole tail of packs. The signature of a tail does not bind the pack's id; that of the
//!   part, or of the root that carries it, does.
//! - A part speaks only of packs that its own signer wrote: tails of others in it count for nothing.
//! - An entry counts as much as the pack's signer. Where two parts claim a pack, the pack's own tail decides.

use std::collections::BTreeMap;

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{sign, split_signature, verify, versioned_body};
use crate::id::{PackId, VaultId};
use crate::keys::{Certificate, Secrets, VerifyKey};
use crate::limits::{FORMAT_VERSION, INDEX_MAX_BYTES, PACK_MAX_BYTES, PACK_TAIL_MAX_BYTES};
use crate::pack::{SealedPack, Tail};
use crate::random::{Random, array};
use crate::seal::{Sealer, Suite};

const OBJECT: &str = "index part";
const MAGIC: &[u8; 7] = b"DRYINDX";
const DOMAIN: &[u8] = b"drystone index part v1";
/// Bytes of an entry beside its tail, at most.
const ENTRY_BYTES: usize = 1 + 34 + 5 + 5;

/// Which object of which registration: the seal of what an object carries binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// The nonce of the registration.
    pub registration: [u8; 16],
    /// The number of the object in it.
    pub number: u64,
}

/// A pack as a part lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackTail {
    /// The pack.
    pub id: PackId,
    /// Length of the pack, bytes.
    pub bytes: u64,
    /// Its whole tail.
    pub tail: Vec<u8>,
}

impl PackTail {
    /// What is listed of a pack that was just made.
    pub fn of(pack: &SealedPack) -> Self {
        Self {
            id: pack.id,
            bytes: pack.bytes.len() as u64,
            tail: pack.tail().to_vec(),
        }
    }

    /// Opens the tail, and checks that `signer` wrote the pack.
    pub fn open(&self, secrets: &Secrets, signer: &VerifyKey) -> Result<Tail> {
        let tail = Tail::open(&self.tail, self.bytes, secrets)?;
        if tail.preamble.certificate.writer == *signer {
            Ok(tail)
        } else {
            Err(Error::Signature { object: OBJECT })
        }
    }
}

/// The packs that one credential wrote, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexPart {
    packs: BTreeMap<PackId, PackTail>,
    tail_bytes: usize,
}

impl IndexPart {
    /// The part that lists these packs.
    pub fn from_sealed_packs<'a>(packs: impl IntoIterator<Item = &'a SealedPack>) -> Self {
        let mut part = Self::default();
        packs.into_iter().for_each(|pack| part.insert(PackTail::of(pack)));
        part
    }

    /// Lists one more pack.
    pub fn insert(&mut self, pack: PackTail) {
        self.tail_bytes += pack.tail.len();
        if let Some(before) = self.packs.insert(pack.id, pack) {
            self.tail_bytes -= before.tail.len();
        }
    }

    /// The packs, in the order of their ids.
    pub fn packs(&self) -> impl ExactSizeIterator<Item = &PackTail> {
        self.packs.values()
    }

    /// Bytes that it takes in the object that carries it, at most.
    pub fn size_bytes(&self) -> usize {
        self.tail_bytes + self.packs.len() * ENTRY_BYTES + 256
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(1).uint(0).array(self.packs.len());
        for pack in self.packs.values() {
            out.array(3).bytes(&pack.id.0).uint(pack.bytes).bytes(&pack.tail);
        }
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut part = Self::default();
        let mut reader = Reader::new(OBJECT, bytes);
        reader.map(|reader, key| {
            if key != 0 {
                return Ok(false);
            }
            for _ in 0..reader.array("number of packs", (INDEX_MAX_BYTES / ENTRY_BYTES) as u64)? {
                part.decode_pack(reader)?;
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(part)
    }

    fn decode_pack(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        reader.array_of("pack", 3)?;
        let (id, bytes) = (PackId(reader.fixed()?), reader.uint()?);
        within(OBJECT, "bytes of a pack", bytes, PACK_MAX_BYTES as u64)?;
        let tail = reader.bytes("tail", PACK_TAIL_MAX_BYTES)?.to_vec();
        if self.packs.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(reader.malformed("packs out of order"));
        }
        self.insert(PackTail { id, bytes, tail });
        Ok(())
    }
}

/// The part sealed under the index key, to be carried by the object `of` whose version is `version`.
pub fn seal_part(
    secrets: &Secrets,
    version: u8,
    of: &Numbered,
    part: &IndexPart,
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    let epoch = secrets.current()?;
    let salt: [u8; 32] = array(random);
    let mut sealed = part.encode();
    within(OBJECT, "bytes", sealed.len() as u64, INDEX_MAX_BYTES as u64)?;
    let key = epoch.index_key.trailer_key(&salt);
    sealer(version, &secrets.vault, of, &key)?.seal(0, &mut sealed, 0)?;
    let mut out = Writer::new();
    out.map(3).uint(0).uint(epoch.number).uint(1).bytes(&salt);
    out.uint(2).bytes(&sealed);
    Ok(out.finish())
}

/// Opens what [`seal_part`] made. Who signed the object that carried it is for the caller to check, and with
/// [`PackTail::open`] that each pack is that signer's.
pub fn open_part(secrets: &Secrets, version: u8, of: &Numbered, sealed: &[u8]) -> Result<IndexPart> {
    within(OBJECT, "bytes", sealed.len() as u64, INDEX_MAX_BYTES as u64)?;
    let (mut epoch, mut salt, mut part) = (None, None, None);
    let mut reader = Reader::new(OBJECT, sealed);
    reader.map(|reader, key| {
        match key {
            0 => epoch = Some(reader.uint()?),
            1 => salt = Some(reader.fixed()?),
            2 => part = Some(reader.bytes("sealed part", INDEX_MAX_BYTES)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    let epoch = secrets.epoch(OBJECT, required(OBJECT, "key epoch", epoch)?)?;
    let key = epoch.index_key.trailer_key(&required(OBJECT, "salt", salt)?);
    let sealer = sealer(version, &secrets.vault, of, &key)?;
    IndexPart::decode(&sealer.open(OBJECT, 0, required(OBJECT, "sealed part", part)?)?)
}

fn sealer(version: u8, vault: &VaultId, of: &Numbered, key: &[u8; 32]) -> Result<Sealer> {
    let aad = [DOMAIN, &[version], &vault.0, &of.registration, &of.number.to_be_bytes()];
    Sealer::with_aad(Suite::ChaCha20Poly1305, key, aad.concat())
}

/// The object that carries a part which is too large for a root, signed by the credential.
pub fn seal_index_part(secrets: &Secrets, of: &Numbered, part: &IndexPart, random: &mut dyn Random) -> Result<Vec<u8>> {
    let sealed = seal_part(secrets, FORMAT_VERSION, of, part, random)?;
    let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
    out.map(5).uint(0).bytes(&secrets.vault.0);
    out.uint(1).bytes(&of.registration).uint(2).uint(of.number).uint(3);
    secrets.certificate.encode(&mut out);
    out.uint(4).bytes(&sealed);
    let object = sign(out.finish(), DOMAIN, &secrets.writer_key)?;
    within(OBJECT, "bytes", object.len() as u64, INDEX_MAX_BYTES as u64)?;
    Ok(object)
}

/// An index part object, with its signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPart {
    /// Which object of which registration.
    pub of: Numbered,
    /// Who signed it.
    pub certificate: Certificate,
    /// The packs, each of which still has to prove to be the signer's ([`PackTail::open`]).
    pub part: IndexPart,
}

/// Opens what [`seal_index_part`] made: checks vault, certificate and signature, and opens the part.
pub fn open_index_part(secrets: &Secrets, object: &[u8]) -> Result<SignedPart> {
    within(OBJECT, "bytes", object.len() as u64, INDEX_MAX_BYTES as u64)?;
    let (signed, signature) = split_signature(OBJECT, object)?;
    let (version, body) = versioned_body(OBJECT, MAGIC, signed)?;
    let (mut vault, mut registration, mut number) = (None, None, None);
    let (mut certificate, mut part) = (None, None);
    let mut reader = Reader::new(OBJECT, body);
    reader.map(|reader, key| {
        match key {
            0 => vault = Some(VaultId(reader.fixed()?)),
            1 => registration = Some(reader.fixed()?),
            2 => number = Some(reader.uint()?),
            3 => certificate = Some(Certificate::decode(OBJECT, reader)?),
            4 => part = Some(reader.bytes("part", INDEX_MAX_BYTES)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    if required(OBJECT, "vault id", vault)? != secrets.vault {
        return Err(Error::Authentication { object: OBJECT });
    }
    let certificate = required(OBJECT, "certificate", certificate)?;
    certificate.verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
    verify(OBJECT, DOMAIN, signed, &signature, &certificate.writer)?;
    let of = Numbered {
        registration: required(OBJECT, "registration nonce", registration)?,
        number: required(OBJECT, "number", number)?,
    };
    let part = open_part(secrets, version, &of, required(OBJECT, "part", part)?)?;
    Ok(SignedPart { of, certificate, part })
}
