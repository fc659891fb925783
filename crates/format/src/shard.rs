//! Shards: the parts of a pack of which any k give it back. Layout: docs/format.md, "Shard".
//!
//! - The pack is cut into k columns; data shards hold one each, parity shards hold sums of them (`store/erasure.rs`).
//! - Each block has a tag, so any range is one read of whole blocks, and no byte is returned before it is authenticated (I6).
//! - A tag binds pack, k, number, length and position: a place can neither alter a block nor pass off another one for it.
//! - Every credential can make tags. So each shard is signed by its maker too, over the hashes that the tags are cut from:
//!   whoever reads all of it knows who made it.
//! - A shard does not depend on how many shards there are.

use std::ops::Range;

use crate::error::{Error, Result, within};
use crate::header::check_magic_up_to;
use crate::id::{PackId, VaultId};
use crate::keys::{Certificate, Role, Secrets, ShardKey, SignKey, Signature, VerifyKey};
use crate::limits::{FORMAT_VERSION, PACK_MAX_BYTES, SHARD_BLOCK_BYTES};

const OBJECT: &str = "shard";
const MAGIC: &[u8; 7] = b"DRYSHRD";
const TAG_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;
const SIGN_DOMAIN: &[u8] = b"drystone shard v1";
const BLOCK: u64 = SHARD_BLOCK_BYTES as u64;
const SEALED_BLOCK: u64 = BLOCK + TAG_BYTES as u64;

/// What the footer says of the maker: certificate and signature.
const MADE_BYTES: usize = Certificate::FLAT_BYTES + SIGNATURE_BYTES;
/// Length of the footer of a shard: certificate, signature, k, number, pack length, tag, magic.
pub const FOOTER_BYTES: usize = MADE_BYTES + 1 + 1 + 8 + TAG_BYTES + 8;

/// What a credential makes and checks the shards of its vault with.
#[derive(Debug, Clone)]
pub struct ShardKeys {
    tags: ShardKey,
    vault: VaultId,
    vault_verify: VerifyKey,
    writer_key: SignKey,
    certificate: Certificate,
}

impl ShardKeys {
    /// Those of the credential that knows these secrets.
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            tags: secrets.shard_key(),
            vault: secrets.vault,
            vault_verify: secrets.vault_verify,
            writer_key: secrets.writer_key.clone(),
            certificate: secrets.certificate,
        }
    }

    /// Whose signature the shards carry that are made with these keys.
    pub fn maker(&self) -> Maker {
        Maker::of(&self.certificate)
    }
}

/// Who signed a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// A credential that the vault certified as an owner's.
    Owner(VerifyKey),
    /// Another credential that the vault certified.
    Other(VerifyKey),
    /// Nobody: the certificate is not the vault's, or the signature is of other bytes.
    Nobody,
}

impl Maker {
    fn of(certificate: &Certificate) -> Self {
        match certificate.role {
            Role::Owner => Self::Owner(certificate.writer),
            _ => Self::Other(certificate.writer),
        }
    }

    /// Returns true if this maker may vouch for the shards of a pack that `signer` signed: an owner may, and the signer itself.
    ///
    /// Of a pack whose signer is not known, everybody whom the vault certified may.
    pub fn counts_for(&self, signer: Option<&VerifyKey>) -> bool {
        match self {
            Self::Owner(_) => true,
            Self::Other(maker) => signer.is_none_or(|signer| signer == maker),
            Self::Nobody => false,
        }
    }
}

/// A whole shard whose tags are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenShard {
    /// How its pack is cut, as the shard says.
    pub shape: Shape,
    /// Its bytes of the pack, or sums of them.
    pub payload: Vec<u8>,
    /// Who signed it.
    pub maker: Maker,
}

/// How a pack is cut: everything that says which bytes its shards hold, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pack: PackId,
    pack_bytes: u64,
    needed: u8,
}

/// A range of the pack inside one data shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The shard.
    pub number: u8,
    /// First byte in its payload.
    pub start: u64,
    /// Count of bytes, at least 1.
    pub bytes: u64,
}

impl Shape {
    /// The shape of the shards of `pack`, of which any `needed` (k) are enough.
    ///
    /// [`Error::Malformed`] if `needed` or `pack_bytes` is 0, [`Error::Limit`] if the pack is larger than the format allows.
    pub fn new(pack: PackId, pack_bytes: u64, needed: u8) -> Result<Self> {
        if needed == 0 || pack_bytes == 0 {
            return Err(Error::malformed(OBJECT, 0, "of an empty pack, or none needed"));
        }
        within(OBJECT, "bytes of its pack", pack_bytes, PACK_MAX_BYTES as u64)?;
        Ok(Self {
            pack,
            pack_bytes,
            needed,
        })
    }

    /// The pack.
    pub fn pack(&self) -> PackId {
        self.pack
    }

    /// Its length, bytes.
    pub fn pack_bytes(&self) -> u64 {
        self.pack_bytes
    }

    /// How many shards give it back (k).
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// Length of a column: of shard 0, of every parity shard, and of the other data shards unless the pack ends before.
    pub fn column_bytes(&self) -> u64 {
        self.pack_bytes.div_ceil(self.needed.into())
    }

    /// Payload of shard `number`, bytes; 0 for the last data shards of a pack that ends before them.
    pub fn payload_bytes(&self, number: u8) -> u64 {
        if number < self.needed {
            let range = self.data_range(number);
            range.end - range.start
        } else {
            self.column_bytes()
        }
    }

    /// Length of the object of shard `number`, bytes.
    pub fn object_bytes(&self, number: u8) -> u64 {
        let payload = self.payload_bytes(number);
        payload + payload.div_ceil(BLOCK) * TAG_BYTES as u64 + FOOTER_BYTES as u64
    }

    /// Which bytes of the pack data shard `number` holds.
    fn data_range(&self, number: u8) -> Range<u64> {
        let start = (self.column_bytes() * u64::from(number)).min(self.pack_bytes);
        start..(start + self.column_bytes()).min(self.pack_bytes)
    }

    /// The payloads of the data shards, in order, as parts of the whole pack.
    ///
    /// [`Error::Malformed`] if `pack` has another length.
    pub fn columns<'a>(&self, pack: &'a [u8]) -> Result<Vec<&'a [u8]>> {
        if pack.len() as u64 != self.pack_bytes {
            return Err(Error::malformed(
                "pack",
                pack.len(),
                "another length than its shards say",
            ));
        }
        let column = |number| {
            let range = self.data_range(number);
            pack.get(range.start as usize..range.end as usize).unwrap_or_default()
        };
        Ok((0..self.needed).map(column).collect())
    }

    /// Which parts of which data shards hold `range` of the pack, in order; nothing for an empty range.
    ///
    /// [`Error::Limit`] if the range ends beyond the pack.
    pub fn split(&self, range: Range<u64>) -> Result<Vec<Piece>> {
        within("pack", "end of the range", range.end, self.pack_bytes)?;
        let piece = |number| {
            let own = self.data_range(number);
            let (start, end) = (range.start.max(own.start), range.end.min(own.end));
            (start < end).then(|| Piece {
                number,
                start: start - own.start,
                bytes: end - start,
            })
        };
        Ok((0..self.needed).filter_map(piece).collect())
    }

    /// The blocks of shard `number` that hold `bytes` bytes of its payload from `start` on.
    ///
    /// What lies beyond the payload is left out: in a column that is cut short, missing bytes count as zeros.
    pub fn blocks(&self, number: u8, start: u64, bytes: u64) -> Blocks {
        let payload = self.payload_bytes(number);
        let start = start.min(payload);
        Blocks {
            shape: *self,
            number,
            wanted: start..start.saturating_add(bytes).min(payload),
        }
    }

    /// All blocks of shard `number`.
    pub fn all_blocks(&self, number: u8) -> Blocks {
        self.blocks(number, 0, self.payload_bytes(number))
    }
}

/// Makes and checks the tags of one shard.
struct Tagger<'a> {
    keys: &'a ShardKeys,
    shape: &'a Shape,
    number: u8,
}

impl Tagger<'_> {
    /// The hash that the tag of block `block` is the beginning of. What the footer says of the maker is one more block.
    fn hash(&self, block: u64, payload: &[u8]) -> blake3::Hash {
        // The variable part comes first: aligned blocks are hashed at full width, and a fixed tail is unambiguous too.
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.tags.0);
        hasher
            .update(payload)
            .update(&self.shape.pack.0)
            .update(&[self.shape.needed, self.number])
            .update(&self.shape.pack_bytes.to_be_bytes())
            .update(&block.to_be_bytes());
        hasher.finalize()
    }

    /// The hash of `payload`, if `found` is its tag.
    fn check(&self, block: u64, payload: &[u8], found: &[u8; TAG_BYTES]) -> Result<blake3::Hash> {
        let hash = self.hash(block, payload);
        // As numbers: one comparison, whose time does not tell where the difference is.
        if u128::from_be_bytes(tag_of(&hash)) == u128::from_be_bytes(*found) {
            Ok(hash)
        } else {
            Err(Error::Authentication { object: OBJECT })
        }
    }

    /// What the maker signs: `content` is the hash over the hashes of all blocks, `version` that of the object.
    fn message(&self, version: u8, content: &blake3::Hasher) -> Vec<u8> {
        [
            SIGN_DOMAIN,
            &[version],
            &self.keys.vault.0,
            &self.shape.pack.0,
            &[self.shape.needed, self.number],
            &self.shape.pack_bytes.to_be_bytes(),
            content.finalize().as_bytes(),
        ]
        .concat()
    }

    /// What the tag of the footer covers: what it says of the maker, and the version.
    fn footer_block(made: &[u8], version: u8) -> Vec<u8> {
        [made, &[version]].concat()
    }

    /// Who made a shard of this `content`, by what its footer says.
    fn maker(&self, content: &blake3::Hasher, made: &Made) -> Maker {
        let Some((certificate, signature)) = made.bytes.split_first_chunk() else {
            return Maker::Nobody;
        };
        let verified = || {
            let certificate = Certificate::from_flat(OBJECT, certificate)?;
            certificate.verify(OBJECT, &self.keys.vault, &self.keys.vault_verify)?;
            let signature = signature.try_into().map_err(|_| Error::Signature { object: OBJECT })?;
            let message = self.message(made.version, content);
            certificate.writer.verify(OBJECT, &message, &Signature(signature))?;
            Ok::<_, Error>(Maker::of(&certificate))
        };
        verified().unwrap_or(Maker::Nobody)
    }
}

fn tag_of(hash: &blake3::Hash) -> [u8; TAG_BYTES] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Length of the payload of a shard object of `object_bytes`; [`Error::Malformed`] if no shard has that length.
pub fn payload_bytes(object_bytes: u64) -> Result<u64> {
    let wrong = || Error::malformed(OBJECT, 0, format!("no shard has {object_bytes} bytes"));
    let sealed = object_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(wrong)?;
    match sealed % SEALED_BLOCK {
        0 => Ok(sealed / SEALED_BLOCK * BLOCK),
        last if last <= TAG_BYTES as u64 => Err(wrong()),
        last => Ok(sealed / SEALED_BLOCK * BLOCK + last - TAG_BYTES as u64),
    }
}

/// A range of the payload of one shard, and the whole sealed blocks that it lies in: one ranged read of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    shape: Shape,
    number: u8,
    wanted: Range<u64>,
}

impl Blocks {
    /// Length of the range of the payload, bytes.
    pub fn payload_bytes(&self) -> u64 {
        self.wanted.end - self.wanted.start
    }

    /// Where its blocks begin in the object.
    pub fn offset(&self) -> u64 {
        self.wanted.start / BLOCK * SEALED_BLOCK
    }

    /// Length of its blocks in the object, bytes.
    pub fn sealed_bytes(&self) -> u64 {
        if self.wanted.is_empty() {
            return 0;
        }
        let blocks = self.wanted.end.div_ceil(BLOCK);
        let payload_end = (blocks * BLOCK).min(self.shape.payload_bytes(self.number));
        payload_end + blocks * TAG_BYTES as u64 - self.offset()
    }

    /// Checks the tags of `sealed`, which is exactly these blocks, and appends the range of the payload to `out`.
    ///
    /// [`Error::Malformed`] for another length, [`Error::Authentication`] if a tag is wrong; `out` is then as it was.
    pub fn open(&self, keys: &ShardKeys, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.check_length(sealed)?;
        let before = out.len();
        out.reserve(self.payload_bytes() as usize);
        let opened = self.append(keys, sealed, out, |_| ());
        if opened.is_err() {
            out.truncate(before);
        }
        opened
    }

    fn check_length(&self, sealed: &[u8]) -> Result<()> {
        if sealed.len() as u64 == self.sealed_bytes() {
            return Ok(());
        }
        Err(Error::malformed(
            OBJECT,
            sealed.len(),
            "cut short, or longer than asked for",
        ))
    }

    fn append(
        &self,
        keys: &ShardKeys,
        sealed: &[u8],
        out: &mut Vec<u8>,
        mut hashed: impl FnMut(&blake3::Hash),
    ) -> Result<()> {
        let first = self.wanted.start / BLOCK;
        let (shape, number) = (&self.shape, self.number);
        let tagger = Tagger { keys, shape, number };
        for (at, block) in (first..).zip(sealed.chunks(SEALED_BLOCK as usize)) {
            let short = || Error::malformed(OBJECT, 0, "a block shorter than its tag");
            let (payload, tag) = block.split_last_chunk().ok_or_else(short)?;
            hashed(&tagger.check(at, payload, tag)?);
            let from = self.wanted.start.saturating_sub(at * BLOCK);
            let to = (self.wanted.end - at * BLOCK).min(payload.len() as u64);
            out.extend_from_slice(payload.get(from as usize..to as usize).unwrap_or_default());
        }
        Ok(())
    }
}

/// The object of shard `number` with this payload, signed as made with `keys`, in one pass.
///
/// Whoever signs shards of a pack that is not in his hands as a whole vouches for what others gave him: hash the pack first.
/// [`Error::Malformed`] if the payload has another length than the shape says.
pub fn seal_shard(keys: &ShardKeys, shape: &Shape, number: u8, payload: &[u8]) -> Result<Vec<u8>> {
    seal_as(FORMAT_VERSION, keys, shape, number, payload)
}

fn seal_as(version: u8, keys: &ShardKeys, shape: &Shape, number: u8, payload: &[u8]) -> Result<Vec<u8>> {
    if payload.len() as u64 != shape.payload_bytes(number) {
        return Err(Error::malformed(OBJECT, payload.len(), "a payload of another length"));
    }
    let tagger = Tagger { keys, shape, number };
    let mut object = Vec::with_capacity(shape.object_bytes(number) as usize);
    let (mut block, mut content) = (0, blake3::Hasher::new());
    for part in payload.chunks(SHARD_BLOCK_BYTES) {
        let hash = tagger.hash(block, part);
        content.update(hash.as_bytes());
        object.extend_from_slice(part);
        object.extend_from_slice(&tag_of(&hash));
        block += 1;
    }
    let signature = keys.writer_key.sign(&tagger.message(version, &content))?;
    let made = [keys.certificate.flat().as_slice(), &signature.0].concat();
    object.extend_from_slice(&made);
    object.extend_from_slice(&[shape.needed, number]);
    object.extend_from_slice(&shape.pack_bytes.to_be_bytes());
    object.extend_from_slice(&tag_of(&tagger.hash(block, &Tagger::footer_block(&made, version))));
    object.extend_from_slice(MAGIC);
    object.push(version);
    Ok(object)
}

/// The shape that the footer of shard `number` of `pack`, of which `needed` are enough, states.
///
/// `end` is any count of last bytes of the object, at least [`FOOTER_BYTES`]. The footer's tag is checked, the signature is
/// not, since it covers all of the object.
/// [`Error::Authentication`] if it is another shard's footer, or altered.
pub fn open_footer(keys: &ShardKeys, pack: PackId, needed: u8, number: u8, end: &[u8]) -> Result<Shape> {
    split_footer(FORMAT_VERSION, keys, (pack, needed, number), end).map(|(shape, _)| shape)
}

/// What a footer says of the maker, and the version of the object.
struct Made {
    version: u8,
    bytes: [u8; MADE_BYTES],
}

/// The shape that a footer states, and what it says of the maker, for a program that knows versions up to `newest`.
fn split_footer(
    newest: u8,
    keys: &ShardKeys,
    (pack, needed, number): (PackId, u8, u8),
    end: &[u8],
) -> Result<(Shape, Made)> {
    let short = || Error::malformed(OBJECT, end.len(), "shorter than its footer");
    let footer = end.last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
    let (body, magic) = footer.split_last_chunk().ok_or_else(short)?;
    let version = check_magic_up_to(newest, OBJECT, MAGIC, magic)?;
    let (body, tag) = body.split_last_chunk().ok_or_else(short)?;
    let (made, body) = body.split_first_chunk::<MADE_BYTES>().ok_or_else(short)?;
    let (&[found_needed, found_number], length) = body.split_first_chunk().ok_or_else(short)?;
    let pack_bytes = u64::from_be_bytes(*length.first_chunk().ok_or_else(short)?);
    if (found_needed, found_number) != (needed, number) {
        return Err(Error::Authentication { object: OBJECT });
    }
    let shape = Shape::new(pack, pack_bytes, needed)?;
    let blocks = shape.payload_bytes(number).div_ceil(BLOCK);
    let tagger = Tagger {
        keys,
        shape: &shape,
        number,
    };
    tagger.check(blocks, &Tagger::footer_block(made, version), tag)?;
    let made = Made { version, bytes: *made };
    Ok((shape, made))
}

/// Opens a whole shard object, every byte of it checked against the tags, and tells who signed it.
///
/// A signature that does not fit is no error: it is told as [`Maker::Nobody`].
/// [`Error::Malformed`] if it has another length than its footer says, else as [`open_footer`] and [`Blocks::open`].
pub fn open_shard(keys: &ShardKeys, pack: PackId, needed: u8, number: u8, object: &[u8]) -> Result<OpenShard> {
    open_up_to(FORMAT_VERSION, keys, (pack, needed, number), object)
}

fn open_up_to(newest: u8, keys: &ShardKeys, part: (PackId, u8, u8), object: &[u8]) -> Result<OpenShard> {
    let (shape, made) = split_footer(newest, keys, part, object)?;
    let (_, _, number) = part;
    let sealed = object.get(..object.len() - FOOTER_BYTES).unwrap_or_default();
    let all = shape.all_blocks(number);
    all.check_length(sealed)?;
    let (mut payload, mut content) = (Vec::with_capacity(all.payload_bytes() as usize), blake3::Hasher::new());
    all.append(keys, sealed, &mut payload, |hash| {
        content.update(hash.as_bytes());
    })?;
    let tagger = Tagger {
        keys,
        shape: &shape,
        number,
    };
    let maker = tagger.maker(&content, &made);
    Ok(OpenShard { shape, payload, maker })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Counting;
    use crate::{VaultId, keys::Secrets};

    #[test]
    fn each_shard_binds_its_own_version() {
        let secrets = Secrets::generate(&mut Counting(0), VaultId([1; 16])).unwrap();
        let (keys, part) = (ShardKeys::new(&secrets), (PackId([7; 32]), 1, 1));
        let shape = Shape::new(part.0, 100, part.1).unwrap();
        for version in [1, 2] {
            let mut object = seal_as(version, &keys, &shape, part.2, &[5; 100]).unwrap();
            let opened = open_up_to(2, &keys, part, &object).unwrap();
            assert!(opened.payload == [5; 100] && matches!(opened.maker, Maker::Owner(_)));
            assert_eq!(open_up_to(1, &keys, part, &object).is_ok(), version == 1);
            *object.last_mut().unwrap() = 3 - version;
            let refused = open_up_to(2, &keys, part, &object);
            assert!(matches!(refused, Err(Error::Authentication { .. })));
        }
    }
}
