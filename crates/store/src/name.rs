//! Object names: the only place where they are made and parsed.
//!
//! - A `Name` is always one of the forms of docs/format.md, so it has no `..`, no empty part and no foreign character.
//! - The text form is the path below the vault's directory; order is the order of its bytes.
//! - A name that ends in a hash is a checksum: other bytes under it are damage ([`Name::matches`]).
//! - Where objects of each kind lie is in the table of directories (`prefix.rs`).
//! - A spare copy is named like its original, below `spare/<number>/`; packs, shards and presences have none.

use std::fmt;
use std::sync::Arc;

use drystone_format::id::{object_hash, pack_id};
pub use drystone_format::root::{RootKind, RootName};
use drystone_format::{PackId, RegistrationId, RootId, SlotId, limits};

use crate::prefix::{
    CONFIG, EPOCHS, INDEX, KEYS, LEDGER, Layout, PACKS, Prefix, ROOTS, SHARDS, SPARE, VERIFIED, WRITERS, directory_of,
};
use crate::{Error, Result};

const HEADER: &str = "drystone";
const PLACE: &str = "place";
/// What the names of the reserve begin with.
const RESERVE: &str = "reserve-";

/// The validated name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    text: Arc<str>,
    pub(crate) kind: Kind,
    /// Which spare copy it is; 0 for an original.
    pub(crate) spare: u8,
}

/// What kind of object a name belongs to, and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The vault header.
    Header,
    /// A key slot.
    Key(SlotId),
    /// A pack.
    Pack(PackId),
    /// A root.
    Root(RootName),
    /// An owner's list of packs that were read and found right, by its hash.
    Verified(RootId),
    /// A part of a pack that is spread over several places.
    Shard(ShardId),
    /// Presence of a writer: its registration, how often it has renewed it, and the hash of the object.
    Writer(RegistrationId, u64, RootId),
    /// What gc condemned: the number of the epoch, and the hash of the object, since several may have one number.
    Epoch(u64, RootId),
    /// What is in force in the vault: the number of the configuration, and the hash of the object.
    Config(u64, RootId),
    /// What owners state together: the number of the ledger, and the hash of the object.
    Ledger(u64, RootId),
    /// What lies in which pack: registration and number of the part, or of the piece of a run, and the hash of the object.
    Index(RegistrationId, u64, RootId),
    /// Which of the vault's places this is. Like the reserve, it belongs to one place.
    Place,
    /// Space at a place that is set aside for when it is full; the bytes mean nothing.
    Reserve(u8),
}

/// Which part of which pack a shard is.
///
/// The bytes of shard `number` depend on the pack and on `needed` alone, not on how many shards there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The pack.
    pub pack: PackId,
    /// How many shards give the pack back (k).
    pub needed: u8,
    /// Counts from 0; those below `needed` hold data, the others parity.
    pub number: u8,
}

impl Name {
    fn new(text: String, kind: Kind) -> Self {
        let (text, spare) = (text.into(), 0);
        Self { text, kind, spare }
    }

    /// The vault header.
    pub fn header() -> Self {
        Self::new(HEADER.to_string(), Kind::Header)
    }

    /// The key slot with this id.
    pub fn key(id: &SlotId) -> Self {
        Self::new(format!("{KEYS}/{id}"), Kind::Key(*id))
    }

    /// The pack with this id; packs are spread over 256 directories by its first byte.
    pub fn pack(id: &PackId) -> Self {
        let [first, ..] = id.0;
        Self::new(format!("{PACKS}/{first:02x}/{id}"), Kind::Pack(*id))
    }

    /// A root.
    pub fn root(root: &RootName) -> Self {
        let RootName {
            kind,
            registration,
            number,
            hash,
        } = root;
        Self::new(
            format!("{ROOTS}/{}/{registration}-{number}-{hash}", kind.word()),
            Kind::Root(*root),
        )
    }

    /// The list of verified packs with this hash.
    pub fn verified(hash: &RootId) -> Self {
        Self::new(format!("{VERIFIED}/{hash}"), Kind::Verified(*hash))
    }

    /// This shard of a pack.
    pub fn shard(id: &ShardId) -> Self {
        let ShardId { pack, needed, number } = id;
        let [first, ..] = pack.0;
        Self::new(
            format!("{SHARDS}/{first:02x}/{pack}.{needed}.{number}"),
            Kind::Shard(*id),
        )
    }

    /// The presence with this hash, of a writer that has renewed it `beat` times.
    pub fn writer(registration: &RegistrationId, beat: u64, hash: &RootId) -> Self {
        Self::new(
            format!("{WRITERS}/{registration}-{beat}-{hash}"),
            Kind::Writer(*registration, beat, *hash),
        )
    }

    /// The epoch of gc with this number and hash.
    pub fn epoch(number: u64, hash: &RootId) -> Self {
        Self::new(format!("{EPOCHS}/{number}-{hash}"), Kind::Epoch(number, *hash))
    }

    /// The configuration with this number and hash.
    pub fn config(number: u64, hash: &RootId) -> Self {
        Self::new(format!("{CONFIG}/{number}-{hash}"), Kind::Config(number, *hash))
    }

    /// The ledger with this number and hash.
    pub fn ledger(number: u64, hash: &RootId) -> Self {
        Self::new(format!("{LEDGER}/{number}-{hash}"), Kind::Ledger(number, *hash))
    }

    /// The index part, or piece of an index run, of this registration, number and hash.
    pub fn index(registration: &RegistrationId, number: u64, hash: &RootId) -> Self {
        Self::new(
            format!("{INDEX}/{registration}-{number}-{hash}"),
            Kind::Index(*registration, number, *hash),
        )
    }

    /// The object that says which place of the vault this is.
    pub fn place() -> Self {
        Self::new(PLACE.to_string(), Kind::Place)
    }

    /// The piece of the reserve with this number.
    pub fn reserve(number: u8) -> Self {
        Self::new(format!("{RESERVE}{number}"), Kind::Reserve(number))
    }

    /// The spare copy of this number of an original; the original for 0.
    ///
    /// Of what has no spare copies it is a name that is not there, but has its place in the order of names.
    pub fn spare(&self, number: u8) -> Self {
        if number == 0 || self.spare > 0 {
            return self.clone();
        }
        let text = format!("{SPARE}/{number}/{self}");
        Self {
            spare: number,
            ..Self::new(text, self.kind)
        }
    }

    /// What a spare copy is of; of an original, itself.
    pub fn original(&self) -> Self {
        let path = self.text.splitn(3, '/').last().filter(|_| self.spare > 0);
        path.map_or_else(|| self.clone(), |path| Self::new(path.to_owned(), self.kind))
    }

    /// Which spare copy it is; 0 for an original.
    pub fn spare_number(&self) -> u8 {
        self.spare
    }

    /// Whether there may be spare copies of it: packs have parity, and what a presence says is in its name.
    pub fn has_spares(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Pack(_) | Kind::Shard(_) | Kind::Writer(..) | Kind::Reserve(_)
        )
    }

    /// Whether `bytes` are the object, for a name that ends in a hash; `None` for those that say nothing about the bytes.
    ///
    /// Where it is false, the object was damaged or replaced, whoever signed the bytes.
    pub fn matches(&self, bytes: &[u8]) -> Option<bool> {
        match self.kind {
            Kind::Pack(id) => Some(pack_id(bytes) == id),
            Kind::Root(RootName { hash, .. })
            | Kind::Verified(hash)
            | Kind::Writer(_, _, hash)
            | Kind::Epoch(_, hash)
            | Kind::Config(_, hash)
            | Kind::Ledger(_, hash)
            | Kind::Index(_, _, hash) => Some(object_hash(bytes) == hash),
            Kind::Header | Kind::Key(_) | Kind::Shard(_) | Kind::Place | Kind::Reserve(_) => None,
        }
    }

    /// Returns true if an object of this name that has another size than the one to be stored is damaged and replaced: its name says
    /// all of its content.
    pub(crate) fn is_replaced_by_size(&self) -> bool {
        matches!(self.kind, Kind::Pack(_) | Kind::Shard(_))
    }

    /// Reads the text form; [`Error::Name`] for anything that the constructors would not have made.
    pub fn parse(text: &str) -> Result<Self> {
        let name = match split_spare(text) {
            Some((spare, path)) => Self::parse_original(path)
                .filter(Self::has_spares)
                .map(|name| name.spare(spare)),
            None => Self::parse_original(text),
        };
        name.ok_or_else(|| Error::Name(text.to_string()))
    }

    fn parse_original(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let kind = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(HEADER), None, ..) => Some(Kind::Header),
            (Some(PLACE), None, ..) => Some(Kind::Place),
            (Some(word), None, ..) if let Some(piece) = word.strip_prefix(RESERVE) => number(piece).map(Kind::Reserve),
            (Some(KEYS), Some(id), None, _) => SlotId::from_hex(id).map(Kind::Key),
            (Some(VERIFIED), Some(id), None, _) => RootId::from_hex(id).map(Kind::Verified),
            (Some(PACKS), Some(fan), Some(id), None) if fan.len() == 2 && id.starts_with(fan) => {
                PackId::from_hex(id).map(Kind::Pack)
            }
            (Some(ROOTS), Some(word), Some(id), None) => {
                RootKind::from_word(word)
                    .zip(triple(id))
                    .map(|(kind, (registration, number, hash))| {
                        Kind::Root(RootName {
                            kind,
                            registration,
                            number,
                            hash,
                        })
                    })
            }
            (Some(SHARDS), Some(fan), Some(id), None) if fan.len() == 2 && id.starts_with(fan) => {
                shard_id(id).map(Kind::Shard)
            }
            (Some(WRITERS), Some(id), None, _) => triple(id).map(|(id, n, hash)| Kind::Writer(id, n, hash)),
            (Some(INDEX), Some(id), None, _) => triple(id).map(|(id, n, hash)| Kind::Index(id, n, hash)),
            (Some(EPOCHS), Some(id), None, _) => pair(id).map(|(n, hash)| Kind::Epoch(n, hash)),
            (Some(CONFIG), Some(id), None, _) => pair(id).map(|(n, hash)| Kind::Config(n, hash)),
            (Some(LEDGER), Some(id), None, _) => pair(id).map(|(n, hash)| Kind::Ledger(n, hash)),
            _ => None,
        };
        kind.map(|kind| Self::new(text.to_owned(), kind))
    }

    /// What the name says about the object.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text form: the path below the vault's directory, parts separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The most bytes that the format allows for an object of this kind.
    pub fn max_bytes(&self) -> u64 {
        let bytes = match self.kind {
            Kind::Header => limits::HEADER_MAX_BYTES,
            Kind::Key(_) => limits::SLOT_MAX_BYTES,
            Kind::Pack(_) => limits::PACK_MAX_BYTES,
            Kind::Shard(_) => limits::SHARD_MAX_BYTES,
            Kind::Place | Kind::Writer(..) => limits::HEADER_MAX_BYTES,
            Kind::Reserve(_) => limits::RESERVE_PIECE_BYTES,
            Kind::Root(..) | Kind::Verified(_) | Kind::Epoch(..) | Kind::Config(..) => limits::ROOT_MAX_BYTES,
            Kind::Ledger(..) => limits::LEDGER_MAX_BYTES,
            Kind::Index(..) => limits::INDEX_MAX_BYTES,
        };
        bytes as u64
    }

    /// Gives `size` back if an object of this kind may have it.
    pub(crate) fn check_size(&self, place: &str, size: u64) -> Result<u64> {
        if size <= self.max_bytes() {
            Ok(size)
        } else {
            Err(self.too_large(place, size, self.max_bytes()))
        }
    }

    pub(crate) fn too_large(&self, place: &str, size: u64, limit: u64) -> Error {
        Error::TooLarge {
            name: self.to_string(),
            place: place.to_string(),
            size,
            limit,
        }
    }

    /// Whether `path` is a directory in which objects may lie, directly or deeper.
    pub(crate) fn is_directory(path: &str) -> bool {
        let (first, below) = match path.split_once('/') {
            None => return path == SPARE || directory_of(path).is_some(),
            Some(parts) => parts,
        };
        if first == SPARE {
            return match split_spare(path) {
                Some((_, path)) => Self::may_have_spares(path),
                None => number::<u8>(below).is_some_and(|number| number > 0),
            };
        }
        match directory_of(first).map(|directory| directory.layout) {
            Some(Layout::Kinds) => RootKind::from_word(below).is_some(),
            Some(Layout::Fanned) => {
                below.len() == 2 && below.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            Some(Layout::Flat) | None => false,
        }
    }

    /// Whether `path` is a directory of objects that may have spare copies.
    fn may_have_spares(path: &str) -> bool {
        let first = path.split('/').next().unwrap_or_default();
        directory_of(first).is_some_and(|directory| directory.has_spares) && Self::is_directory(path)
    }

    /// Whether `entry`, found at the top of a directory, may belong to a vault.
    pub(crate) fn is_top_level(entry: &str) -> bool {
        entry == HEADER || entry == PLACE || entry.starts_with(RESERVE) || Self::is_directory(entry)
    }
}

/// The number of a spare copy, and the path of its original.
fn split_spare(path: &str) -> Option<(u8, &str)> {
    let mut parts = path.splitn(3, '/');
    let (SPARE, spare, path) = (parts.next()?, parts.next()?, parts.next()?) else {
        return None;
    };
    number(spare).filter(|number| *number > 0).zip(Some(path))
}

/// A number as the constructors write it: no sign, no leading zero.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// A number and a hash.
fn pair(text: &str) -> Option<(u64, RootId)> {
    let (first, hash) = text.split_once('-')?;
    number(first).zip(RootId::from_hex(hash))
}

/// A registration, a number and a hash.
fn triple(text: &str) -> Option<(RegistrationId, u64, RootId)> {
    let (registration, rest) = text.split_once('-')?;
    let (number, hash) = pair(rest)?;
    Some((RegistrationId::from_hex(registration)?, number, hash))
}

fn shard_id(text: &str) -> Option<ShardId> {
    let mut parts = text.split('.');
    let (pack, needed, index) = (parts.next()?, parts.next()?, parts.next()?);
    match parts.next() {
        None => Some(ShardId {
            pack: PackId::from_hex(pack)?,
            needed: number(needed)?,
            number: number(index)?,
        }),
        Some(_) => None,
    }
}

impl Prefix {
    /// Whether a name is covered.
    pub fn covers(&self, name: &Name) -> bool {
        match self {
            Prefix::All => true,
            Prefix::Spares => name.spare > 0,
            Prefix::Spare(number, of) => {
                let of = of.prefix();
                name.spare == *number && (of == Prefix::All || of.covers_kind(name))
            }
            _ => name.spare == 0 && self.covers_kind(name),
        }
    }

    fn covers_kind(&self, name: &Name) -> bool {
        match (self, name.kind) {
            (Prefix::Keys, Kind::Key(_))
            | (Prefix::Packs, Kind::Pack(_))
            | (Prefix::AllRoots, Kind::Root(_))
            | (Prefix::Verified, Kind::Verified(_))
            | (Prefix::Shards, Kind::Shard(_))
            | (Prefix::Writers, Kind::Writer(..))
            | (Prefix::Epochs, Kind::Epoch(..))
            | (Prefix::Config, Kind::Config(..))
            | (Prefix::Ledger, Kind::Ledger(..))
            | (Prefix::Index, Kind::Index(..)) => true,
            (Prefix::Roots(kind), Kind::Root(found)) => *kind == found.kind,
            _ => false,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use crate::prefix::DIRECTORIES;
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Name> {
        let (pack, id, slot) = (PackId([0xab; 32]), RootId([0x0c; 16]), SlotId([7; 16]));
        let registration = RegistrationId([0x0d; 16]);
        let root = |word| {
            Name::root(&RootName {
                kind: RootKind::from_word(word).unwrap(),
                registration,
                number: 10,
                hash: id,
            })
        };
        let (needed, number) = (2, 255);
        let shard = ShardId { pack, needed, number };
        vec![
            Name::config(3, &id),
            Name::header(),
            Name::epoch(12, &id),
            Name::index(&registration, 4, &id),
            Name::key(&slot),
            Name::ledger(7, &id),
            Name::pack(&pack),
            Name::place(),
            Name::reserve(3),
            root("head"),
            root("snapshot"),
            Name::shard(&shard),
            Name::header().spare(1),
            Name::key(&slot).spare(1),
            Name::place().spare(1),
            root("head").spare(1),
            root("snapshot").spare(1),
            Name::verified(&id).spare(255),
            Name::verified(&id),
            Name::writer(&registration, 0, &id),
        ]
    }

    #[test]
    fn every_kind_round_trips_and_is_ordered_like_its_text() {
        let names = all();
        for name in &names {
            assert_eq!(&Name::parse(name.as_str()).unwrap(), name);
            assert!(Prefix::All.covers(name));
            let parent = name.as_str().rsplit_once('/').map(|(parent, _)| parent);
            assert!(parent.is_none_or(Name::is_directory), "{name}");
        }
        assert!(names.is_sorted() && names.is_sorted_by_key(|name| name.to_string()));
    }

    #[test]
    fn prefixes_cover_their_own_names_only() {
        let prefixes = [
            Prefix::Keys,
            Prefix::Packs,
            Prefix::Roots(RootKind::SNAPSHOT),
            Prefix::Roots(RootKind::HEAD),
            Prefix::AllRoots,
            Prefix::Verified,
            Prefix::Shards,
            Prefix::Writers,
            Prefix::Epochs,
            Prefix::Config,
            Prefix::Ledger,
            Prefix::Index,
            Prefix::Spares,
            Prefix::AllRoots.spare(1),
            Prefix::Roots(RootKind::HEAD).spare(1),
            Prefix::All.spare(1),
            Prefix::Keys.spare(1),
            Prefix::Verified.spare(255),
        ];
        for name in all() {
            for prefix in prefixes {
                assert_eq!(
                    prefix.covers(&name),
                    name.as_str().starts_with(&prefix.to_string()),
                    "{prefix} {name}"
                );
            }
        }
    }

    #[test]
    fn spare_copies_are_named_like_their_originals() {
        for name in all().into_iter().filter(|name| name.spare_number() == 0) {
            let spare = name.spare(3);
            assert_eq!(Name::parse(spare.as_str()).is_ok(), name.has_spares(), "{name}");
            assert_eq!(
                (spare.original(), spare.spare(2), name.spare(0)),
                (name.clone(), spare.clone(), name)
            );
        }
    }

    #[test]
    fn what_the_constructors_would_not_make_is_refused() {
        let (pack, id) = (PackId([0xab; 32]).to_string(), RootId([0xab; 16]).to_string());
        for bad in [
            "".to_string(),
            "drystone/".to_string(),
            "/drystone".to_string(),
            "keys".to_string(),
            format!("keys/{pack}"),
            format!("keys/{}", id.to_uppercase()),
            format!("keys//{id}"),
            format!("keys/{id}/"),
            format!("packs/{pack}"),
            format!("packs/ac/{pack}"),
            format!("packs/a/{pack}"),
            format!("packs//{pack}"),
            format!("packs/{pack}/{pack}"),
            format!("roots/head/{id}"),
            format!("roots/Head/{id}-0-{id}"),
            format!("roots/abcdefghijklmnop/{id}-0-{id}"),
            format!("roots/{id}-0-{id}"),
            format!("roots/snapshot/{id}-0-{id}.tmp"),
            format!("roots/snapshot/{id}-00-{id}"),
            "writers/..".to_string(),
            "writers/".to_string(),
            format!("writers/{id}"),
            format!("writers/{id}-1"),
            format!("writers/{id}-01-{id}"),
            format!("index/{id}-1"),
            format!("ledger/{id}"),
            format!("config/1-{id}-{id}"),
            format!("epochs/+1-{id}"),
            format!("epochs/18446744073709551616-{id}"),
            format!("epochs/-{id}"),
            format!("config/1-{id}-"),
            format!("shards/ab/{pack}"),
            format!("shards/ac/{pack}.2.1"),
            format!("shards/ab/{pack}.2.256"),
            format!("shards/ab/{pack}.2.01"),
            format!("shards/ab/{pack}.2.1.0"),
            "place/".to_string(),
            "tmp/1-1".to_string(),
            "spare/1".to_string(),
            "spare/0/drystone".to_string(),
            "spare/01/drystone".to_string(),
            "spare/256/drystone".to_string(),
            "spare/1/spare/1/drystone".to_string(),
            format!("spare/1/packs/ab/{pack}"),
            format!("spare/1/writers/{id}-1-{id}"),
            "keys/../drystone".to_string(),
        ] {
            assert!(
                matches!(Name::parse(&bad), Err(Error::Name(text)) if text == bad),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_that_end_in_a_hash_tell_other_bytes() {
        let (bytes, registration) = (b"object".as_slice(), RegistrationId([1; 16]));
        let hash = object_hash(bytes);
        let root = RootName {
            kind: RootKind::SNAPSHOT,
            registration,
            number: 0,
            hash,
        };
        for name in [
            Name::root(&root),
            Name::writer(&registration, 1, &hash),
            Name::epoch(1, &hash),
            Name::config(1, &hash),
            Name::ledger(1, &hash),
            Name::index(&registration, 1, &hash),
            Name::verified(&hash),
            Name::verified(&hash).spare(1),
            Name::pack(&pack_id(bytes)),
        ] {
            assert_eq!(
                (name.matches(bytes), name.matches(b"objecu")),
                (Some(true), Some(false)),
                "{name}"
            );
        }
        assert_eq!(Name::header().matches(bytes), None);
    }

    #[test]
    fn the_table_of_directories_is_in_the_order_of_names_and_has_all_kinds() {
        assert!(DIRECTORIES.is_sorted_by_key(|directory| directory.word));
        for name in all().into_iter().filter(|name| name.spare_number() == 0) {
            let directories = DIRECTORIES.iter().filter(|directory| directory.prefix.covers(&name));
            let is_alone = matches!(name.kind(), Kind::Header | Kind::Place | Kind::Reserve(_));
            assert_eq!(directories.count(), usize::from(!is_alone), "{name}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_exact(text in "(spare/[0-9]{1,3}/)?(config|drystone|epochs|index|keys|ledger|packs|place|reserve-[0-9]{1,3}|roots|shards|verified|tmp|writers|\\.\\.)(/([0-9a-f]{2}|snapshot|[a-z]{1,16}|[0-9]{1,2}-[0-9a-f]{32}|[0-9a-f]{32}(-[0-9]{1,2}-[0-9a-f]{32})?|[0-9a-f]{64}(\\.[0-9]{1,3}){0,2})){0,3}") {
            if let Ok(name) = Name::parse(&text) {
                let remade = match name.kind() {
                    Kind::Header => Name::header(),
                    Kind::Key(id) => Name::key(&id),
                    Kind::Pack(id) => Name::pack(&id),
                    Kind::Root(root) => Name::root(&root),
                    Kind::Verified(id) => Name::verified(&id),
                    Kind::Shard(id) => Name::shard(&id),
                    Kind::Writer(id, beat, hash) => Name::writer(&id, beat, &hash),
                    Kind::Config(number, hash) => Name::config(number, &hash),
                    Kind::Ledger(number, hash) => Name::ledger(number, &hash),
                    Kind::Index(id, number, hash) => Name::index(&id, number, &hash),
                    Kind::Epoch(number, id) => Name::epoch(number, &id),
                    Kind::Place => Name::place(),
                    Kind::Reserve(number) => Name::reserve(number),
                };
                let remade = remade.spare(name.spare_number());
                prop_assert_eq!(remade.as_str(), text);
            }
        }
    }
}
