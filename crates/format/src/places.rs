//! Where a vault lies: the list of its places, and the object by which a place knows which of them it is.
//! Layout: docs/format.md, "List of places" and "Place".
//!
//! - Of several lists the one with the highest generation is in force; unknown keys are kept on rewrite.
//! - A list names places by URLs without credentials; a place moved elsewhere is still recognised by its id.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body, sign, split_signature, verify};
use crate::id::{PlaceId, VaultId};
use crate::keys::{Secrets, SignKey, VerifyKey};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES, PLACES_MAX, TEXT_MAX_BYTES};
use crate::notice::{NoticeKind, open_notice, seal_notice};
use crate::random::Random;

const LIST: &str = "list of places";
const OBJECT: &str = "place";
const MAGIC: &[u8; 7] = b"DRYPLCE";
const DOMAIN: &[u8] = b"drystone place v1";

/// The places of a vault, and how packs are spread over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Counts the changes; the highest is in force.
    pub generation: u64,
    /// So many shards give a pack back (k).
    pub needed: u8,
    /// So many shards a pack has (n).
    pub total: u8,
    /// At least one.
    pub places: Vec<PlaceEntry>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

/// One place of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceEntry {
    /// Identity; also in the object `place` that lies there.
    pub id: PlaceId,
    /// Where it was when it was added, without credentials.
    pub url: String,
    /// Share of the shards it takes, relative to the other places', where there are more places than shards.
    pub weight: u32,
    /// What it is used for.
    pub marks: PlaceMarks,
    /// Most bytes per second to it; `None` for no limit.
    pub up_bytes: Option<u64>,
    /// Most bytes per second from it; `None` for no limit.
    pub down_bytes: Option<u64>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

/// What a place is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaceMarks(pub u64);

impl PlaceMarks {
    /// Nothing is ever deleted from it by a client; its own retention does that.
    pub const APPEND_ONLY: u64 = 1;
    /// Reading from it is slow or costs: the last to be asked.
    pub const COLD: u64 = 2;
    /// Takes nothing new; what lies there moves to the other places.
    pub const LEAVING: u64 = 4;

    /// Whether the place has this mark.
    pub fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }
}

impl Places {
    /// The notice object that says this; only an owner can make one that counts.
    pub fn seal(&self, secrets: &Secrets, random: &mut dyn Random) -> Result<Vec<u8>> {
        self.validate()?;
        let mut out = Writer::new();
        out.map(4 + self.unknown.len())
            .uint(0)
            .uint(self.generation)
            .uint(1)
            .uint(self.needed.into())
            .uint(2)
            .uint(self.total.into())
            .uint(3)
            .array(self.places.len());
        self.places.iter().for_each(|place| place.encode(&mut out));
        out.unknown(&self.unknown);
        seal_notice(secrets, NoticeKind::Places, out.finish(), random)
    }

    /// Opens what [`Places::seal`] made.
    pub fn open(secrets: &Secrets, object: &[u8]) -> Result<Self> {
        let payload = open_notice(secrets, NoticeKind::Places, object)?;
        let (mut generation, mut needed, mut total) = (None, None, None);
        let mut places = Vec::new();
        let mut reader = Reader::new(LIST, &payload);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => generation = Some(reader.uint()?),
                1 => needed = Some(reader.u8()?),
                2 => total = Some(reader.u8()?),
                3 => {
                    for _ in 0..reader.array("number of places", PLACES_MAX)? {
                        places.push(PlaceEntry::decode(reader)?);
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let list = Self {
            generation: required(LIST, "generation", generation)?,
            needed: required(LIST, "k", needed)?,
            total: required(LIST, "n", total)?,
            places,
            unknown,
        };
        list.validate()?;
        Ok(list)
    }

    fn validate(&self) -> Result<()> {
        within(LIST, "number of places", self.places.len() as u64, PLACES_MAX)?;
        if self.needed == 0 || self.needed > self.total {
            return Err(Error::malformed(LIST, 0, "k of n must be from 1 of 1 to n of n"));
        }
        let mut ids: Vec<PlaceId> = self.places.iter().map(|place| place.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() || ids.len() != self.places.len() {
            return Err(Error::malformed(LIST, 0, "no place, or one place twice"));
        }
        Ok(())
    }
}

impl PlaceEntry {
    fn encode(&self, out: &mut Writer) {
        let limits = [(4, self.up_bytes), (5, self.down_bytes)];
        let given = limits.iter().filter(|(_, limit)| limit.is_some()).count();
        out.map(4 + given + self.unknown.len())
            .uint(0)
            .bytes(&self.id.0)
            .uint(1)
            .text(&self.url)
            .uint(2)
            .uint(self.weight.into())
            .uint(3)
            .uint(self.marks.0);
        for (key, limit) in limits {
            if let Some(bytes) = limit {
                out.uint(key).uint(bytes);
            }
        }
        out.unknown(&self.unknown);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (mut id, mut url, mut weight, mut marks) = (None, None, None, None);
        let (mut up_bytes, mut down_bytes) = (None, None);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => id = Some(PlaceId(reader.fixed()?)),
                1 => url = Some(reader.text("URL of a place")?),
                2 => weight = Some(reader.u32()?),
                3 => marks = Some(PlaceMarks(reader.uint()?)),
                4 => up_bytes = Some(reader.uint()?),
                5 => down_bytes = Some(reader.uint()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let url = required(LIST, "URL of a place", url)?;
        within(LIST, "URL of a place", url.len() as u64, TEXT_MAX_BYTES as u64)?;
        Ok(Self {
            id: required(LIST, "id of a place", id)?,
            url,
            weight: required(LIST, "weight of a place", weight)?,
            marks: required(LIST, "marks of a place", marks)?,
            up_bytes,
            down_bytes,
            unknown,
        })
    }
}

/// The object `place`: which place of which vault this is, in the vault's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceMark {
    /// The vault.
    pub vault: VaultId,
    /// The place.
    pub place: PlaceId,
}

impl PlaceMark {
    /// The object, signed with the vault's key.
    pub fn encode(&self, vault_key: &SignKey) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
        out.map(2).uint(0).bytes(&self.vault.0).uint(1).bytes(&self.place.0);
        sign(out.finish(), DOMAIN, vault_key)
    }

    /// Reads the object and checks that the vault with this key signed it.
    pub fn decode(object: &[u8], vault_verify: &VerifyKey) -> Result<Self> {
        within(OBJECT, "bytes", object.len() as u64, HEADER_MAX_BYTES as u64)?;
        let (signed, signature) = split_signature(OBJECT, object)?;
        let (mut vault, mut place) = (None, None);
        let mut reader = Reader::new(OBJECT, body(OBJECT, MAGIC, signed)?);
        reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => place = Some(PlaceId(reader.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        verify(OBJECT, DOMAIN, signed, &signature, vault_verify)?;
        Ok(Self {
            vault: required(OBJECT, "vault id", vault)?,
            place: required(OBJECT, "place id", place)?,
        })
    }
}
