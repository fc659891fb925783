//! The directories of a vault, and what listings are of. Which names one covers is decided in `name.rs`.
//!
//! - What is listed, copied, verified and repaired follows from one table, and every kind of root is in it.
//! - The words are those of docs/format.md, "Names".

use std::borrow::Cow;
use std::fmt;

use drystone_format::root::RootKind;

pub(crate) const CONFIG: &str = "config";
pub(crate) const KEYS: &str = "keys";
pub(crate) const PACKS: &str = "packs";
pub(crate) const ROOTS: &str = "roots";
pub(crate) const VERIFIED: &str = "verified";
pub(crate) const SHARDS: &str = "shards";
pub(crate) const WRITERS: &str = "writers";
pub(crate) const EPOCHS: &str = "epochs";
pub(crate) const LEDGER: &str = "ledger";
pub(crate) const INDEX: &str = "index";
pub(crate) const SPARE: &str = "spare";

/// How objects lie in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Directly.
    Flat,
    /// In 256 more directories, by the first byte of a pack's id.
    Fanned,
    /// In one directory for each kind of root, whichever kinds there are.
    Kinds,
}

/// A directory at the top of a vault.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) word: &'static str,
    pub(crate) prefix: Prefix,
    pub(crate) layout: Layout,
    /// Whether its objects are copied to every place, and have spare copies where that makes too few.
    pub(crate) has_spares: bool,
}

const fn directory(word: &'static str, prefix: Prefix, layout: Layout, has_spares: bool) -> Directory {
    Directory {
        word,
        prefix,
        layout,
        has_spares,
    }
}

/// The directories of a vault, in the order of names. Everything that goes through all objects goes by this table.
pub(crate) const DIRECTORIES: [Directory; 10] = [
    directory(CONFIG, Prefix::Config, Layout::Flat, true),
    directory(EPOCHS, Prefix::Epochs, Layout::Flat, true),
    directory(INDEX, Prefix::Index, Layout::Flat, true),
    directory(KEYS, Prefix::Keys, Layout::Flat, true),
    directory(LEDGER, Prefix::Ledger, Layout::Flat, true),
    directory(PACKS, Prefix::Packs, Layout::Fanned, false),
    directory(ROOTS, Prefix::AllRoots, Layout::Kinds, true),
    directory(SHARDS, Prefix::Shards, Layout::Fanned, false),
    directory(VERIFIED, Prefix::Verified, Layout::Flat, true),
    directory(WRITERS, Prefix::Writers, Layout::Flat, false),
];

pub(crate) fn directory_of(word: &str) -> Option<&'static Directory> {
    DIRECTORIES.iter().find(|directory| directory.word == word)
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
    /// Roots of all kinds, known to this program or not.
    AllRoots,
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
    /// Ledgers.
    Ledger,
    /// Index parts and runs.
    Index,
    /// Spare copies of this number.
    Spare(u8, SpareOf),
    /// All spare copies.
    Spares,
    /// Every object.
    All,
}

/// The originals whose spare copies a prefix covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpareOf {
    /// Those below this prefix.
    Prefix(&'static Prefix),
    /// Roots of this kind.
    Roots(RootKind),
}

impl SpareOf {
    /// What names of such originals begin with.
    pub(crate) fn prefix(self) -> Prefix {
        match self {
            Self::Prefix(prefix) => *prefix,
            Self::Roots(kind) => Prefix::Roots(kind),
        }
    }
}

impl Prefix {
    /// The directory below which the names lie; empty for all.
    pub(crate) fn directory(&self) -> Cow<'static, str> {
        match self {
            Prefix::Roots(kind) => format!("{ROOTS}/{}", kind.word()).into(),
            Prefix::Spares => SPARE.into(),
            Prefix::Spare(number, of) => {
                let path = format!("{SPARE}/{number}/{}", of.prefix().directory());
                path.trim_end_matches('/').to_owned().into()
            }
            prefix => {
                let found = DIRECTORIES.iter().find(|directory| directory.prefix == *prefix);
                found.map_or("", |directory| directory.word).into()
            }
        }
    }

    /// The same, of the spare copies of this number; itself for 0.
    pub(crate) fn spare(self, number: u8) -> Self {
        let of = match self {
            _ if number == 0 => return self,
            Prefix::Roots(kind) => SpareOf::Roots(kind),
            Prefix::All => SpareOf::Prefix(&Prefix::All),
            Prefix::Spare(..) | Prefix::Spares => SpareOf::Prefix(&Prefix::Spares),
            prefix => {
                let found = DIRECTORIES.iter().find(|directory| directory.prefix == prefix);
                SpareOf::Prefix(found.map_or(&Prefix::Spares, |directory| &directory.prefix))
            }
        };
        Prefix::Spare(number, of)
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
