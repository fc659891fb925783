//! Shards: the parts of a pack of which any k give it back. Layout: docs/format.md, "Shard".
//!
//! - The pack is cut into k columns; data shards hold one each, parity shards hold sums of them (`store/erasure.rs`).
//! - Each block has a tag, so any range is one read of whole blocks, and no byte is returned before it is authenticated (I6).
//! - A tag binds pack, k, number, length and position: a place can neither alter a block nor pass off another one for it.
//! - A shard does not depend on how many shards there are.

use std::ops::Range;

use crate::error::{Error, Result, within};
use crate::header::check_magic;
use crate::id::PackId;
use crate::keys::ShardKey;
use crate::limits::{FORMAT_VERSION, PACK_MAX_BYTES, SHARD_BLOCK_BYTES};

const OBJECT: &str = "shard";
const MAGIC: &[u8; 7] = b"DRYSHRD";
const TAG_BYTES: usize = 16;
const BLOCK: u64 = SHARD_BLOCK_BYTES as u64;
const SEALED_BLOCK: u64 = BLOCK + TAG_BYTES as u64;

/// Length of the footer of a shard: k, number, pack length, tag, magic.
pub const FOOTER_BYTES: usize = 1 + 1 + 8 + TAG_BYTES + 8;

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
    key: &'a ShardKey,
    shape: &'a Shape,
    number: u8,
}

impl Tagger<'_> {
    /// The tag of block `block`. That of an empty one after the last is the footer's.
    fn tag(&self, block: u64, payload: &[u8]) -> [u8; TAG_BYTES] {
        // The variable part comes first: aligned blocks are hashed at full width, and a fixed tail is unambiguous too.
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher
            .update(payload)
            .update(&self.shape.pack.0)
            .update(&[self.shape.needed, self.number])
            .update(&self.shape.pack_bytes.to_be_bytes())
            .update(&block.to_be_bytes());
        let mut tag = [0; TAG_BYTES];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }

    /// `Ok` if `found` is the tag of `payload`.
    fn check(&self, block: u64, payload: &[u8], found: &[u8; TAG_BYTES]) -> Result<()> {
        let expected = u128::from_be_bytes(self.tag(block, payload));
        // As numbers: one comparison, whose time does not tell where the difference is.
        if expected == u128::from_be_bytes(*found) {
            Ok(())
        } else {
            Err(Error::Authentication { object: OBJECT })
        }
    }
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
    pub fn open(&self, key: &ShardKey, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if sealed.len() as u64 != self.sealed_bytes() {
            return Err(Error::malformed(
                OBJECT,
                sealed.len(),
                "cut short, or longer than asked for",
            ));
        }
        let before = out.len();
        out.reserve(self.payload_bytes() as usize);
        let opened = self.append(key, sealed, out);
        if opened.is_err() {
            out.truncate(before);
        }
        opened
    }

    fn append(&self, key: &ShardKey, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let first = self.wanted.start / BLOCK;
        let (shape, number) = (&self.shape, self.number);
        let tagger = Tagger { key, shape, number };
        for (at, block) in (first..).zip(sealed.chunks(SEALED_BLOCK as usize)) {
            let short = || Error::malformed(OBJECT, 0, "a block shorter than its tag");
            let (payload, tag) = block.split_last_chunk().ok_or_else(short)?;
            tagger.check(at, payload, tag)?;
            let from = self.wanted.start.saturating_sub(at * BLOCK);
            let to = (self.wanted.end - at * BLOCK).min(payload.len() as u64);
            out.extend_from_slice(payload.get(from as usize..to as usize).unwrap_or_default());
        }
        Ok(())
    }
}

/// The object of shard `number` with this payload, in one pass.
///
/// [`Error::Malformed`] if the payload has another length than the shape says.
pub fn seal_shard(key: &ShardKey, shape: &Shape, number: u8, payload: &[u8]) -> Result<Vec<u8>> {
    if payload.len() as u64 != shape.payload_bytes(number) {
        return Err(Error::malformed(OBJECT, payload.len(), "a payload of another length"));
    }
    let tagger = Tagger { key, shape, number };
    let mut object = Vec::with_capacity(shape.object_bytes(number) as usize);
    let mut block = 0;
    for part in payload.chunks(SHARD_BLOCK_BYTES) {
        object.extend_from_slice(part);
        object.extend_from_slice(&tagger.tag(block, part));
        block += 1;
    }
    object.extend_from_slice(&[shape.needed, number]);
    object.extend_from_slice(&shape.pack_bytes.to_be_bytes());
    object.extend_from_slice(&tagger.tag(block, &[]));
    object.extend_from_slice(MAGIC);
    object.push(FORMAT_VERSION);
    Ok(object)
}

/// The shape that the footer of shard `number` of `pack`, of which `needed` are enough, vouches for.
///
/// `end` is any count of last bytes of the object, at least [`FOOTER_BYTES`].
/// [`Error::Authentication`] if it is another shard's footer, or altered.
pub fn open_footer(key: &ShardKey, pack: PackId, needed: u8, number: u8, end: &[u8]) -> Result<Shape> {
    let short = || Error::malformed(OBJECT, end.len(), "shorter than its footer");
    let footer = end.last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
    let (body, magic) = footer.split_last_chunk().ok_or_else(short)?;
    check_magic(OBJECT, MAGIC, magic)?;
    let (body, tag) = body.split_last_chunk().ok_or_else(short)?;
    let (&[found_needed, found_number], length) = body.split_first_chunk().ok_or_else(short)?;
    let pack_bytes = u64::from_be_bytes(*length.first_chunk().ok_or_else(short)?);
    if (found_needed, found_number) != (needed, number) {
        return Err(Error::Authentication { object: OBJECT });
    }
    let shape = Shape::new(pack, pack_bytes, needed)?;
    let blocks = shape.payload_bytes(number).div_ceil(BLOCK);
    let tagger = Tagger {
        key,
        shape: &shape,
        number,
    };
    tagger.check(blocks, &[], tag)?;
    Ok(shape)
}

/// The shape and payload of a whole shard object, every byte of it authenticated.
///
/// [`Error::Malformed`] if it has another length than its footer says, else as [`open_footer`] and [`Blocks::open`].
pub fn open_shard(key: &ShardKey, pack: PackId, needed: u8, number: u8, object: &[u8]) -> Result<(Shape, Vec<u8>)> {
    let shape = open_footer(key, pack, needed, number, object)?;
    let sealed = object.len() - FOOTER_BYTES;
    let mut payload = Vec::new();
    shape
        .all_blocks(number)
        .open(key, object.get(..sealed).unwrap_or_default(), &mut payload)?;
    Ok((shape, payload))
}
