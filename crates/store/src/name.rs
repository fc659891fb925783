//! Object names: the only place where they are made and parsed.
//!
//! - A `Name` is always one of the forms of docs/format.md, so it has no `..`, no empty part and no foreign character.
//! - The text form is the path below the vault's directory; order is the order of its bytes.
//! - A spare copy is named like its original, below `spare/<number>/`; packs, shards and presences have none.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use drystone_format::root::RootKind;
use drystone_format::{PackId, RootId, SlotId, limits};

use crate::{Error, Result};

const HEADER: &str = "drystone";
const KEYS: &str = "keys";
const PACKS: &str = "packs";
const ROOTS: &str = "roots";
const VERIFIED: &str = "verified";
const SHARDS: &str = "shards";
const WRITERS: &str = "writers";
const EPOCHS: &str = "epochs";
const CONFIG: &str = "config";
const PLACE: &str = "place";
const SPARE: &str = "spare";
/// Directories whose objects lie directly in them.
const FLAT: [&str; 5] = [CONFIG, EPOCHS, KEYS, VERIFIED, WRITERS];
/// Directories whose objects are spread over 256 more, by the first byte of a pack's id.
const FANNED: [&str; 2] = [PACKS, SHARDS];

/// The validated name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    text: Arc<str>,
    kind: Kind,
    /// Which spare copy it is; 0 for an original.
    spare: u8,
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
    Root(RootKind, RootId),
    /// An owner's list of packs that were read and found right.
    Verified(RootId),
    /// A part of a pack that is spread over several places.
    Shard(ShardId),
    /// Presence of a writer: its id, and how often it has renewed it.
    Writer(RootId, u64),
    /// What gc condemned: the number of the epoch, and an id, since several may have one number.
    Epoch(u64, RootId),
    /// A configuration: its number, and the hash of its bytes.
    Config(u64, RootId),
    /// Which of the vault's places this is; the one object that differs from place to place.
    Place,
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

/// The names that a listing covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Key slots.
    Keys,
    /// Packs.
    Packs,
    /// Roots of one kind.
    Roots(RootKind),
    /// Lists of verified packs.
    Verified,
    /// Shards of packs.
    Shards,
    /// Presences of writers.
    Writers,
    /// Epochs of gc.
    Epochs,
    /// Configurations.
    Config,
    /// Spare copies of this number, of originals that the other prefix covers.
    Spare(u8, &'static Prefix),
    /// All spare copies.
    Spares,
    /// Every object.
    All,
}

impl Prefix {
    /// The directory below which the names lie; empty for all.
    pub(crate) fn directory(&self) -> Cow<'static, str> {
        let directory = match self {
            Prefix::Keys => KEYS,
            Prefix::Packs => PACKS,
            Prefix::Roots(RootKind::Snapshot) => "roots/snapshot",
            Prefix::Verified => VERIFIED,
            Prefix::Shards => SHARDS,
            Prefix::Writers => WRITERS,
            Prefix::Epochs => EPOCHS,
            Prefix::Config => CONFIG,
            Prefix::Spares => SPARE,
            Prefix::Spare(number, of) => {
                let path = format!("{SPARE}/{number}/{}", of.directory());
                return path.trim_end_matches('/').to_owned().into();
            }
            Prefix::All => "",
        };
        directory.into()
    }

    /// The same, of the spare copies of this number; itself for 0.
    pub(crate) fn spare(self, number: u8) -> Self {
        let of: &'static Prefix = match self {
            _ if number == 0 => return self,
            Prefix::Keys => &Prefix::Keys,
            Prefix::Packs => &Prefix::Packs,
            Prefix::Roots(RootKind::Snapshot) => &Prefix::Roots(RootKind::Snapshot),
            Prefix::Verified => &Prefix::Verified,
            Prefix::Shards => &Prefix::Shards,
            Prefix::Writers => &Prefix::Writers,
            Prefix::Epochs => &Prefix::Epochs,
            Prefix::Config => &Prefix::Config,
            Prefix::All => &Prefix::All,
            Prefix::Spare(..) | Prefix::Spares => &Prefix::Spares,
        };
        Prefix::Spare(number, of)
    }

    /// Whether a name is covered.
    pub fn covers(&self, name: &Name) -> bool {
        match self {
            Prefix::All => true,
            Prefix::Spares => name.spare > 0,
            Prefix::Spare(number, of) => name.spare == *number && (**of == Prefix::All || of.covers_kind(name)),
            _ => name.spare == 0 && self.covers_kind(name),
        }
    }

    fn covers_kind(&self, name: &Name) -> bool {
        match (self, name.kind) {
            (Prefix::Keys, Kind::Key(_))
            | (Prefix::Packs, Kind::Pack(_))
            | (Prefix::Verified, Kind::Verified(_))
            | (Prefix::Shards, Kind::Shard(_))
            | (Prefix::Writers, Kind::Writer(..))
            | (Prefix::Epochs, Kind::Epoch(..))
            | (Prefix::Config, Kind::Config(..)) => true,
            (Prefix::Roots(kind), Kind::Root(found, _)) => *kind == found,
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prefix::All => f.write_str("all objects"),
            _ => write!(f, "{}/", self.directory()),
        }
    }
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

    /// The root of this kind and id.
    pub fn root(kind: RootKind, id: &RootId) -> Self {
        Self::new(format!("{ROOTS}/{}/{id}", kind.word()), Kind::Root(kind, *id))
    }

    /// The list of verified packs with this id.
    pub fn verified(id: &RootId) -> Self {
        Self::new(format!("{VERIFIED}/{id}"), Kind::Verified(*id))
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

    /// The presence of a writer that has renewed it `beat` times.
    pub fn writer(id: &RootId, beat: u64) -> Self {
        Self::new(format!("{WRITERS}/{id}-{beat}"), Kind::Writer(*id, beat))
    }

    /// The epoch of gc with this number and id.
    pub fn epoch(number: u64, id: &RootId) -> Self {
        Self::new(format!("{EPOCHS}/{number}-{id}"), Kind::Epoch(number, *id))
    }

    /// The configuration of this number whose bytes have this hash.
    pub fn config(number: u64, hash: &RootId) -> Self {
        Self::new(format!("{CONFIG}/{number}-{hash}"), Kind::Config(number, *hash))
    }

    /// The object that says which place of the vault this is.
    pub fn place() -> Self {
        Self::new(PLACE.to_string(), Kind::Place)
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
        !matches!(self.kind, Kind::Pack(_) | Kind::Shard(_) | Kind::Writer(..))
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
            (Some(KEYS), Some(id), None, _) => SlotId::from_hex(id).map(Kind::Key),
            (Some(VERIFIED), Some(id), None, _) => RootId::from_hex(id).map(Kind::Verified),
            (Some(PACKS), Some(fan), Some(id), None) if fan.len() == 2 && id.starts_with(fan) => {
                PackId::from_hex(id).map(Kind::Pack)
            }
            (Some(ROOTS), Some(word), Some(id), None) => match (RootKind::from_word(word), RootId::from_hex(id)) {
                (Some(kind), Some(id)) => Some(Kind::Root(kind, id)),
                _ => None,
            },
            (Some(SHARDS), Some(fan), Some(id), None) if fan.len() == 2 && id.starts_with(fan) => {
                shard_id(id).map(Kind::Shard)
            }
            (Some(WRITERS), Some(id), None, _) => pair(id, RootId::from_hex, number).map(|(id, n)| Kind::Writer(id, n)),
            (Some(EPOCHS), Some(id), None, _) => pair(id, number, RootId::from_hex).map(|(n, id)| Kind::Epoch(n, id)),
            (Some(CONFIG), Some(id), None, _) => pair(id, number, RootId::from_hex).map(|(n, id)| Kind::Config(n, id)),
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
            Kind::Root(..) | Kind::Verified(_) | Kind::Epoch(..) | Kind::Config(..) => limits::ROOT_MAX_BYTES,
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
        match path.split_once('/') {
            None if path == SPARE => true,
            Some((SPARE, below)) => match split_spare(path) {
                Some((_, path)) => Self::may_have_spares(path),
                None => number::<u8>(below).is_some_and(|number| number > 0),
            },
            None => path == ROOTS || FLAT.contains(&path) || FANNED.contains(&path),
            Some((ROOTS, word)) => RootKind::from_word(word).is_some(),
            Some((first, fan)) if FANNED.contains(&first) => {
                fan.len() == 2 && fan.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            Some(_) => false,
        }
    }

    /// Whether `path` is a directory of objects that may have spare copies.
    fn may_have_spares(path: &str) -> bool {
        let first = path.split('/').next().unwrap_or_default();
        first != SPARE && first != WRITERS && !FANNED.contains(&first) && Self::is_directory(path)
    }

    /// Whether `entry`, found at the top of a directory, may belong to a vault.
    pub(crate) fn is_top_level(entry: &str) -> bool {
        entry == HEADER || entry == PLACE || Self::is_directory(entry)
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

/// Two parts with a `-` between them.
fn pair<A, B>(
    text: &str,
    first: impl FnOnce(&str) -> Option<A>,
    second: impl FnOnce(&str) -> Option<B>,
) -> Option<(A, B)> {
    let (one, other) = text.split_once('-')?;
    first(one).zip(second(other))
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
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Name> {
        let (pack, id, slot) = (PackId([0xab; 32]), RootId([0x0c; 16]), SlotId([7; 16]));
        let (needed, number) = (2, 255);
        let shard = ShardId { pack, needed, number };
        vec![
            Name::config(u64::MAX, &id),
            Name::header(),
            Name::epoch(12, &id),
            Name::key(&slot),
            Name::pack(&pack),
            Name::place(),
            Name::root(RootKind::Snapshot, &id),
            Name::shard(&shard),
            Name::header().spare(1),
            Name::key(&slot).spare(1),
            Name::place().spare(1),
            Name::root(RootKind::Snapshot, &id).spare(1),
            Name::verified(&id).spare(255),
            Name::verified(&id),
            Name::writer(&id, 0),
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
            Prefix::Roots(RootKind::Snapshot),
            Prefix::Verified,
            Prefix::Shards,
            Prefix::Writers,
            Prefix::Epochs,
            Prefix::Config,
            Prefix::Spares,
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
            format!("roots/snapshot/{id}.tmp"),
            "writers/..".to_string(),
            "writers/".to_string(),
            format!("writers/{id}"),
            format!("writers/{id}-01"),
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
            format!("spare/1/writers/{id}-1"),
            "keys/../drystone".to_string(),
        ] {
            assert!(
                matches!(Name::parse(&bad), Err(Error::Name(text)) if text == bad),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_is_exact(text in "(spare/[0-9]{1,3}/)?(drystone|epochs|keys|packs|place|places|roots|shards|verified|tmp|writers|\\.\\.)(/([0-9a-f]{2}|snapshot|[0-9]{1,2}-[0-9a-f]{32}|[0-9a-f]{32}(-[0-9]{1,2})?|[0-9a-f]{64}(\\.[0-9]{1,3}){0,2})){0,3}") {
            if let Ok(name) = Name::parse(&text) {
                let remade = match name.kind() {
                    Kind::Header => Name::header(),
                    Kind::Key(id) => Name::key(&id),
                    Kind::Pack(id) => Name::pack(&id),
                    Kind::Root(kind, id) => Name::root(kind, &id),
                    Kind::Verified(id) => Name::verified(&id),
                    Kind::Shard(id) => Name::shard(&id),
                    Kind::Writer(id, beat) => Name::writer(&id, beat),
                    Kind::Epoch(number, id) => Name::epoch(number, &id),
                    Kind::Config(number, hash) => Name::config(number, &hash),
                    Kind::Place => Name::place(),
                };
                let remade = remade.spare(name.spare_number());
                prop_assert_eq!(remade.as_str(), text);
            }
        }
    }
}
