//! Object names: the only place where they are made and parsed.
//!
//! - A `Name` is always one of the forms of docs/format.md, so it has no `..`, no empty part and no foreign character.
//! - The text form is the path below the vault's directory; order is the order of its bytes.

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
/// Directories of later versions of the protocol: listed and kept, not interpreted.
const RESERVED: [&str; 2] = ["epochs", "writers"];
/// Longest name part of a reserved object, bytes: a number of 20 digits and an id of 32 fit.
const RESERVED_NAME_MAX_BYTES: usize = 64;

/// The validated name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    text: Arc<str>,
    kind: Kind,
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
    /// Reserved: presence of a writer, or an epoch of gc.
    Other,
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
    /// Every object, the header and reserved ones included.
    All,
}

impl Prefix {
    /// The directory below which the names lie; empty for all.
    pub(crate) fn directory(&self) -> &'static str {
        match self {
            Prefix::Keys => KEYS,
            Prefix::Packs => PACKS,
            Prefix::Roots(RootKind::Snapshot) => "roots/snapshot",
            Prefix::Verified => VERIFIED,
            Prefix::All => "",
        }
    }

    /// Whether a name is covered.
    pub fn covers(&self, name: &Name) -> bool {
        match (self, name.kind) {
            (Prefix::All, _)
            | (Prefix::Keys, Kind::Key(_))
            | (Prefix::Packs, Kind::Pack(_))
            | (Prefix::Verified, Kind::Verified(_)) => true,
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
        Self {
            text: text.into(),
            kind,
        }
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

    /// Reads the text form; [`Error::Name`] for anything that the constructors would not have made.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let kind = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(HEADER), None, ..) => Some(Kind::Header),
            (Some(KEYS), Some(id), None, _) => SlotId::from_hex(id).map(Kind::Key),
            (Some(VERIFIED), Some(id), None, _) => RootId::from_hex(id).map(Kind::Verified),
            (Some(PACKS), Some(fan), Some(id), None) if fan.len() == 2 && id.starts_with(fan) => {
                PackId::from_hex(id).map(Kind::Pack)
            }
            (Some(ROOTS), Some(word), Some(id), None) => match (RootKind::from_word(word), RootId::from_hex(id)) {
                (Some(kind), Some(id)) => Some(Kind::Root(kind, id)),
                _ => None,
            },
            (Some(first), Some(id), None, _) if RESERVED.contains(&first) && is_reserved_id(id) => Some(Kind::Other),
            _ => None,
        };
        match kind {
            Some(kind) => Ok(Self {
                text: text.into(),
                kind,
            }),
            None => Err(Error::Name(text.to_string())),
        }
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
            Kind::Root(..) | Kind::Verified(_) | Kind::Other => limits::ROOT_MAX_BYTES,
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
            None => [KEYS, PACKS, ROOTS, VERIFIED].contains(&path) || RESERVED.contains(&path),
            Some((ROOTS, word)) => RootKind::from_word(word).is_some(),
            Some((PACKS, fan)) => fan.len() == 2 && fan.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            Some(_) => false,
        }
    }

    /// Whether `entry`, found at the top of a directory, may belong to a vault.
    pub(crate) fn is_top_level(entry: &str) -> bool {
        entry == HEADER || Self::is_directory(entry)
    }
}

fn is_reserved_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !id.is_empty() && id.len() <= RESERVED_NAME_MAX_BYTES && id.bytes().all(plain)
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
        vec![
            Name::header(),
            Name::parse("epochs/12-0af3").unwrap(),
            Name::key(&slot),
            Name::pack(&pack),
            Name::root(RootKind::Snapshot, &id),
            Name::verified(&id),
            Name::parse("writers/00ff").unwrap(),
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
            format!("writers/{}", "a".repeat(65)),
            "tmp/1-1".to_string(),
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
        fn parsing_is_exact(text in "(drystone|keys|packs|roots|verified|tmp|writers|\\.\\.)(/([0-9a-f]{2}|snapshot|[0-9a-f]{32}|[0-9a-f]{64})){0,3}") {
            if let Ok(name) = Name::parse(&text) {
                let remade = match name.kind() {
                    Kind::Header => Name::header(),
                    Kind::Key(id) => Name::key(&id),
                    Kind::Pack(id) => Name::pack(&id),
                    Kind::Root(kind, id) => Name::root(kind, &id),
                    Kind::Verified(id) => Name::verified(&id),
                    Kind::Other => name.clone(),
                };
                prop_assert_eq!(remade.as_str(), text);
            }
        }
    }
}
