//! The configuration: what an owner has decided about the whole vault. Layout: docs/format.md, "Configuration".
//!
//! - A notice: sealed with the index key, signed by an owner; a writer's counts for nobody.
//! - Never changed: a new configuration names the hashes of those that it replaces, all of them, not the last only.
//! - A program that lacks a feature that a configuration lists refuses what the feature is needed for.
//! - Keys of a newer program are kept when a configuration is rewritten.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::chunker::Sizes;
use crate::error::{Error, Result, within};
use crate::id::{PlaceId, RootId};
use crate::keys::{Secrets, VerifyKey};
use crate::limits::{CONFIG_REPLACES_MAX, CREDENTIALS_MAX, FEATURES_MAX, PLACES_MAX, ROOT_KINDS_MAX};
use crate::notice::{NoticeKind, open_notice, seal_notice};
use crate::places::PlaceEntry;
use crate::random::Random;
use crate::tree::Time;

const OBJECT: &str = "configuration";
/// Longest name of a feature, bytes.
const FEATURE_MAX_BYTES: usize = 32;
/// Longest name of a kind of roots, bytes.
const ROOT_KIND_MAX_BYTES: usize = 15;

/// Whether clients may deduplicate against packs of writers that no owner has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Own packs, packs of owners, and packs that an owner's scrub has verified.
    Verified,
    /// Everybody's: all credentials belong to one trust domain.
    Everyone,
}

/// What an owner has decided about the whole vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Greater than the number of every configuration that it replaces.
    pub number: u64,
    /// When it was made, by its maker's clock; for people only.
    pub made: Time,
    /// Hashes of all configurations that it replaces, directly or through another; ascending.
    pub replaces: Vec<RootId>,
    /// What a program must know to use the vault.
    pub features: Features,
    /// Chunk sizes of file data.
    pub data_sizes: Sizes,
    /// Chunk sizes of trees and recipes.
    pub meta_sizes: Sizes,
    /// Whose packs are deduplicated against.
    pub trust: Trust,
    /// Any `spread.0` of `spread.1` shards give a pack back.
    pub spread: (u8, u8),
    /// The places that packs are spread over; none if the vault lies whole at one place.
    pub places: Vec<PlaceEntry>,
    /// Words of the kinds of roots that owners have admitted; ascending.
    pub root_kinds: Vec<String>,
    /// Credentials that no longer count; ascending by key.
    pub removed: Vec<Removed>,
    /// Keys of a newer program, kept.
    pub unknown: Vec<Unknown>,
}

/// Names of features, by what a program cannot do without them; each list ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    /// A program that lacks one of them does nothing with the vault.
    pub read: Vec<String>,
    /// A program that lacks one of them stores nothing.
    pub write: Vec<String>,
    /// A program that lacks one of them neither forgets nor deletes.
    pub collect: Vec<String>,
}

/// A credential that an owner has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removed {
    /// Its writer public key.
    pub writer: VerifyKey,
    /// Number of the configuration that removed it.
    pub since: u64,
}

impl Config {
    /// The notice object that says this; only an owner can make one that counts.
    pub fn seal(&self, secrets: &Secrets, random: &mut dyn Random) -> Result<Vec<u8>> {
        seal_notice(secrets, NoticeKind::Config, self.encode()?, random)
    }

    /// Opens what [`Config::seal`] made.
    pub fn open(secrets: &Secrets, object: &[u8]) -> Result<Self> {
        Self::decode(&open_notice(secrets, NoticeKind::Config, object)?)
    }

    /// Returns true if roots of the kind with this word may count: owners have admitted them.
    pub fn lists(&self, kind_word: &str) -> bool {
        self.root_kinds.iter().any(|listed| listed == kind_word)
    }

    /// Returns true if the configuration with this hash is replaced by this one.
    pub fn is_after(&self, hash: &RootId) -> bool {
        self.replaces.binary_search(hash).is_ok()
    }

    /// The content of the notice.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let mut out = Writer::new();
        let optional = usize::from(!self.removed.is_empty());
        out.map(10 + optional + self.unknown.len())
            .uint(0)
            .uint(self.number)
            .uint(1);
        self.made.encode(&mut out);
        out.uint(2).array(self.replaces.len());
        for hash in &self.replaces {
            out.bytes(&hash.0);
        }
        out.uint(3).array(3);
        for words in self.features.classes() {
            out.texts(words);
        }
        for (key, sizes) in [(4, self.data_sizes), (5, self.meta_sizes)] {
            let (min, max) = (sizes.min_bytes(), sizes.max_bytes());
            out.uint(key).array(2).uint(min.into()).uint(max.into());
        }
        out.uint(6).uint(self.trust as u64);
        let (needed, total) = self.spread;
        out.uint(7).array(2).uint(needed.into()).uint(total.into());
        out.uint(8).array(self.places.len());
        self.places.iter().for_each(|place| place.encode(&mut out));
        out.uint(9).texts(&self.root_kinds);
        if !self.removed.is_empty() {
            out.uint(10).array(self.removed.len());
        }
        for Removed { writer, since } in &self.removed {
            out.array(2).bytes(&writer.0).uint(*since);
        }
        out.unknown(&self.unknown);
        Ok(out.finish())
    }

    /// Reads the content of a notice whose signature was verified.
    pub fn decode(payload: &[u8]) -> Result<Self> {
        let (mut number, mut made, mut replaces, mut features) = (None, None, None, None);
        let (mut data, mut meta, mut trust, mut spread) = (None, None, None, None);
        let (mut places, mut root_kinds, mut removed) = (None, None, Vec::new());
        let mut reader = Reader::new(OBJECT, payload);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => number = Some(reader.uint()?),
                1 => made = Some(Time::decode(reader)?),
                2 => replaces = Some(hashes(reader)?),
                3 => features = Some(Features::decode(reader)?),
                4 => data = Some(sizes(reader)?),
                5 => meta = Some(sizes(reader)?),
                6 => trust = Some(trust_of(reader.u8()?)),
                7 => {
                    reader.array_of("spread", 2)?;
                    spread = Some((reader.u8()?, reader.u8()?));
                }
                8 => places = Some(entries(reader)?),
                9 => root_kinds = Some(reader.texts("number of kinds of roots", ROOT_KINDS_MAX)?),
                10 => removed = credentials(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let config = Self {
            number: required(OBJECT, "number", number)?,
            made: required(OBJECT, "time", made)?,
            replaces: required(OBJECT, "list of replaced configurations", replaces)?,
            features: required(OBJECT, "features", features)?,
            data_sizes: required(OBJECT, "data chunk sizes", data)?,
            meta_sizes: required(OBJECT, "metadata chunk sizes", meta)?,
            trust: required(OBJECT, "trust", trust)?,
            spread: required(OBJECT, "spread", spread)?,
            places: required(OBJECT, "places", places)?,
            root_kinds: required(OBJECT, "kinds of roots", root_kinds)?,
            removed,
            unknown,
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        let malformed = |why: &str| Err(Error::malformed(OBJECT, 0, why));
        within(OBJECT, "number of places", self.places.len() as u64, PLACES_MAX)?;
        let replaced = self.replaces.len() as u64;
        within(
            OBJECT,
            "number of replaced configurations",
            replaced,
            CONFIG_REPLACES_MAX,
        )?;
        let removed = self.removed.len() as u64;
        within(OBJECT, "number of removed credentials", removed, CREDENTIALS_MAX)?;
        let kinds = self.root_kinds.len() as u64;
        within(OBJECT, "number of kinds of roots", kinds, ROOT_KINDS_MAX)?;
        let (needed, total) = self.spread;
        if needed == 0 || needed > total {
            return malformed("k of n must be from 1 of 1 to n of n");
        }
        if self.places.is_empty() && total != 1 {
            return malformed("shards of several, and no place for them");
        }
        let mut ids: Vec<PlaceId> = self.places.iter().map(|place| place.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.places.len() {
            return malformed("one place twice");
        }
        let is_kind = |word: &String| {
            (1..=ROOT_KIND_MAX_BYTES).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        if !ascends(&self.root_kinds) || !self.root_kinds.iter().all(is_kind) {
            return malformed("kinds of roots that are no words in order");
        }
        if !ascends(&self.replaces) || !self.removed.is_sorted_by(|one, other| one.writer < other.writer) {
            return malformed("hashes or keys out of order");
        }
        self.features.validate()
    }
}

impl Features {
    /// The three lists, in the order of the format.
    pub fn classes(&self) -> [&Vec<String>; 3] {
        [&self.read, &self.write, &self.collect]
    }

    /// Returns true if no feature is named.
    pub fn is_empty(&self) -> bool {
        self.classes().iter().all(|words| words.is_empty())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("features", 3)?;
        let what = "number of features";
        Ok(Self {
            read: reader.texts(what, FEATURES_MAX)?,
            write: reader.texts(what, FEATURES_MAX)?,
            collect: reader.texts(what, FEATURES_MAX)?,
        })
    }

    fn validate(&self) -> Result<()> {
        for words in self.classes() {
            within(OBJECT, "number of features", words.len() as u64, FEATURES_MAX)?;
            let is_word = |word: &String| {
                let is_letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
                (1..=FEATURE_MAX_BYTES).contains(&word.len()) && word.bytes().all(is_letter)
            };
            if !ascends(words) || !words.iter().all(is_word) {
                return Err(Error::malformed(OBJECT, 0, "features that are no words in order"));
            }
        }
        Ok(())
    }
}

fn ascends<T: PartialOrd>(items: &[T]) -> bool {
    items.is_sorted_by(|one, other| one < other)
}

fn trust_of(code: u8) -> Trust {
    if code == 1 { Trust::Everyone } else { Trust::Verified }
}

fn sizes(reader: &mut Reader<'_>) -> Result<Sizes> {
    reader.array_of("chunk sizes", 2)?;
    Sizes::new(reader.u32()?, reader.u32()?)
}

fn hashes(reader: &mut Reader<'_>) -> Result<Vec<RootId>> {
    let count = reader.array("number of replaced configurations", CONFIG_REPLACES_MAX)?;
    (0..count).map(|_| reader.fixed().map(RootId)).collect()
}

fn entries(reader: &mut Reader<'_>) -> Result<Vec<PlaceEntry>> {
    let count = reader.array("number of places", PLACES_MAX)?;
    (0..count).map(|_| PlaceEntry::decode(reader)).collect()
}

fn credentials(reader: &mut Reader<'_>) -> Result<Vec<Removed>> {
    let count = reader.array("number of removed credentials", CREDENTIALS_MAX)?;
    let one = |_| {
        reader.array_of("removed credential", 2)?;
        Ok(Removed {
            writer: VerifyKey(reader.fixed()?),
            since: reader.uint()?,
        })
    };
    (0..count).map(one).collect()
}
