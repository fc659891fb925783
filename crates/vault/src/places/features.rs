//! Features: what a program must know to use a vault, and which operation needs what.
//!
//! - A feature is switched on by `drystone vault upgrade` and by nothing else; it is never switched off.
//! - A program that lacks one refuses exactly what it is needed for, and says that the vault is the newer of the two.
//! - docs/decisions/0014-configuration.md lists what every command of the program needs.

use drystone_format::config::{Config, Features};
use drystone_format::root::RootKind;

use crate::error::{Error, Result};

/// A feature that this program knows.
struct Known {
    /// Its name in the configuration.
    word: &'static str,
    /// What it is needed for.
    class: Class,
    /// `drystone vault upgrade` offers to switch it on.
    offered: bool,
}

/// Every feature that this program knows.
const KNOWN: [Known; 1] = [Known {
    // Means nothing; stands for a feature of the future in tests.
    word: "test",
    class: Class::Read,
    offered: false,
}];

/// What a feature is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Doing anything with the vault.
    Read,
    /// Storing anything.
    Write,
    /// Forgetting and deleting.
    Collect,
}

impl Class {
    /// What a program without the feature does not do.
    fn deed(self) -> &'static str {
        match self {
            Self::Read => "be opened",
            Self::Write => "be written to",
            Self::Collect => "have anything forgotten or deleted",
        }
    }
}

/// An error if the vault needs a feature that this program lacks.
pub(crate) fn check(config: &Config, class: Class, place: &str) -> Result<()> {
    let words = match class {
        Class::Read => &config.features.read,
        Class::Write => &config.features.write,
        Class::Collect => &config.features.collect,
    };
    match words.iter().find(|word| KNOWN.iter().all(|known| known.word != **word)) {
        None => Ok(()),
        Some(feature) => Err(Error::Feature {
            place: place.to_owned(),
            feature: feature.clone(),
            deed: class.deed(),
        }),
    }
}

/// The features that this program knows and a vault with this configuration does not need yet.
pub(crate) fn offered(config: &Config) -> Features {
    let features = &config.features;
    let missing = |class: Class, have: &[String]| {
        let offered = KNOWN.iter().filter(|known| known.class == class && known.offered);
        let words = offered.map(|known| known.word.to_owned());
        words.filter(|word| !have.contains(word)).collect()
    };
    Features {
        read: missing(Class::Read, &features.read),
        write: missing(Class::Write, &features.write),
        collect: missing(Class::Collect, &features.collect),
    }
}

/// gc would take what only such roots need for garbage.
pub(crate) fn refuse_unknown_kinds(config: &Config, place: &str) -> Result<()> {
    let is_known = |word: &String| RootKind::from_word(word).and_then(RootKind::known).is_some();
    let is_unknown = |word: &&String| !is_known(word);
    match config.root_kinds.iter().find(is_unknown) {
        None => Ok(()),
        Some(kind) => Err(Error::UnknownRoots {
            place: place.to_owned(),
            kind: kind.clone(),
        }),
    }
}
