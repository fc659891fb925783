//! The places of a vault: their entries in the configuration, and the object by which a place knows which of them it is.
//! Layout: docs/format.md, "Configuration" and "Place".
//!
//! - An entry names its place by a URL without credentials; a place that was moved is still recognised by its id.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Result, within};
use crate::header::{body, sign, split_signature, verify};
use crate::id::{PlaceId, VaultId};
use crate::keys::{SignKey, VerifyKey};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES, TEXT_MAX_BYTES};

const ENTRY: &str = "configuration";
const OBJECT: &str = "place";
const MAGIC: &[u8; 7] = b"DRYPLCE";
const DOMAIN: &[u8] = b"drystone place v1";

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

impl PlaceEntry {
    pub(crate) fn encode(&self, out: &mut Writer) {
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

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
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
        let url = required(ENTRY, "URL of a place", url)?;
        within(ENTRY, "URL of a place", url.len() as u64, TEXT_MAX_BYTES as u64)?;
        Ok(Self {
            id: required(ENTRY, "id of a place", id)?,
            url,
            weight: required(ENTRY, "weight of a place", weight)?,
            marks: required(ENTRY, "marks of a place", marks)?,
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
