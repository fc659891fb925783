//! The one error of this crate: what went wrong with which object at which place.
//!
//! - `name` is the object, the prefix of a listing, or `its directory` where the place as a whole is meant.
//! - A variant exists for each thing that a caller does differently.

use std::io;

use thiserror::Error;

/// What to look at when the operating system refuses.
pub(crate) const OWN_DIRECTORY: &str = "check owner and mode of the place";
/// What to do when a directory is missing.
pub(crate) const NO_DIRECTORY: &str = "no such directory; check the path, or create a vault there with `drystone init`";

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store could not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The object is not there; the place itself answers.
    #[error("{place}: there is no object {name}")]
    NotFound {
        /// The object.
        name: String,
        /// Where it was looked for.
        place: String,
    },
    /// The object ends before the range that was asked for: it was truncated, or the caller holds a wrong length.
    #[error("{place}: {name} has {size} bytes, but bytes up to {wanted} were expected; run `drystone check`")]
    Short {
        /// The object.
        name: String,
        /// Where it lies.
        place: String,
        /// Its size in bytes.
        size: u64,
        /// The end of the range, bytes.
        wanted: u64,
    },
    /// The object is larger than the format or the place allows; nothing was read or written.
    #[error("{place}: {name} has {size} bytes, at most {limit} are allowed; run `drystone check`")]
    TooLarge {
        /// The object.
        name: String,
        /// Where it lies.
        place: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// No space or quota is left; nothing of the object was kept.
    #[error("{place}: no space is left to store {name}; free some and run the command again")]
    Full {
        /// The object.
        name: String,
        /// The full place.
        place: String,
    },
    /// Permission or a credential is missing or wrong.
    #[error("{place}: permission denied while {during} {name}; {advice}")]
    Denied {
        /// The object.
        name: String,
        /// The place.
        place: String,
        /// What was being done.
        during: &'static str,
        /// What to look at or to set.
        advice: &'static str,
    },
    /// The place is mounted or exported read-only.
    #[error("{place}: the place is read-only, {name} cannot be changed")]
    ReadOnly {
        /// The object.
        name: String,
        /// The place.
        place: String,
    },
    /// The place does not answer for now: trying again later may help.
    #[error("{place}: not available while working on {name}: {reason}; try again later")]
    Unavailable {
        /// The object.
        name: String,
        /// The place.
        place: String,
        /// What is known about it.
        reason: String,
    },
    /// A place answers with more than any honest one has to say; it was not read to the end.
    #[error("{place}: {name}: {what}; see what lies there, or who answers in its stead")]
    Endless {
        /// The object, or the prefix of a listing.
        name: String,
        /// The place.
        place: String,
        /// How much was read before it was given up.
        what: String,
    },
    /// The wish to stop ended the call.
    #[error("{place}: stopped, as was asked for")]
    Stopped {
        /// The place.
        place: String,
    },
    /// Something that is no object lies where an object or a directory of objects should be.
    #[error("{place}: {name} is {found}, and drystone follows or opens no such thing; look at it, then remove it")]
    Foreign {
        /// What is in the way, as a path below the place.
        name: String,
        /// The place.
        place: String,
        /// What it is.
        found: &'static str,
    },
    /// The place hangs: it gave no answer in time, or next to nothing of one.
    #[error("{place}: no answer while working on {name}: {reason}; try again later")]
    Silent {
        /// The object.
        name: String,
        /// The place.
        place: String,
        /// How long it was waited for.
        reason: String,
    },
    /// The bytes of an object, or of a shard, are not what was stored: altered, cut short, or of something else.
    #[error("{place}: {name} is damaged or not of this vault: {what}; run `drystone repair`")]
    Unsound {
        /// The object.
        name: String,
        /// Where it lies.
        place: String,
        /// What was found.
        what: String,
    },
    /// Other bytes lie under the name of an object that was to be stored: somebody else put them there, or they are damaged.
    #[error("{place}: other bytes lie under the name of {name}: nothing was stored; run `drystone check`")]
    Taken {
        /// The object.
        name: String,
        /// The place, or each of the places.
        place: String,
    },
    /// Too few places of a spread could do their part, and some of those that could not be asked may be able to.
    #[error(
        "{name}: too few places could do their part, and it takes {needed}: {said}; \
         bring the missing places back and run the command again"
    )]
    TooFew {
        /// The object, or the prefix of a listing.
        name: String,
        /// The spread.
        place: String,
        /// How many parts it takes.
        needed: u8,
        /// What each place said.
        said: String,
    },
    /// Every place of a spread that may have a part of an object answered, and too little of it is left.
    #[error("{place}: too little is left of {name}: {said}; run `drystone check` to see which files miss it")]
    Lost {
        /// The object.
        name: String,
        /// The spread.
        place: String,
        /// What each place said.
        said: String,
    },
    /// Shards, and the object that tells places apart, belong to one place each.
    #[error("{place}: {name} belongs to one place, not to all; name that place alone")]
    OnePlace {
        /// The object.
        name: String,
        /// The spread.
        place: String,
    },
    /// There is no spread like this.
    #[error("a spread of {needed}/{total} over {places} places cannot be: {why}")]
    Spread {
        /// How many shards are needed.
        needed: u8,
        /// How many there are.
        total: u8,
        /// Over how many places.
        places: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Anything else that the operating system reports.
    #[error("{place}: {during} {name}: {source}")]
    Io {
        /// The object.
        name: String,
        /// The place.
        place: String,
        /// What was being done.
        during: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The text is no object name.
    #[error("`{0}` is not the name of a drystone object")]
    Name(String),
    /// There is no such directory, bucket or container, or it is gone.
    #[error("{place}: {advice}")]
    NoPlace {
        /// The path or URL.
        place: String,
        /// What is missing, and how to make it.
        advice: &'static str,
    },
    /// The path leads to something other than a directory.
    #[error("{place}: not a directory")]
    NotDirectory {
        /// The path.
        place: String,
    },
    /// A new place must be empty, and this one holds something else.
    #[error("{place}: the place holds other things (`{found}`); choose an empty or new one for a vault")]
    Occupied {
        /// The path.
        place: String,
        /// One foreign name found there.
        found: String,
    },
    /// The URL has a scheme that no store exists for.
    #[error("{url}: there is no store for `{scheme}://`; known are {known}, and plain paths")]
    Scheme {
        /// The whole URL.
        url: String,
        /// Its scheme.
        scheme: String,
        /// The schemes that exist.
        known: &'static str,
    },
    /// This program was built without what the place needs.
    #[error(
        "{url}: this drystone was built without {scheme}://; take a released binary, or build with `--features {feature}` \
         (docs/places.md)"
    )]
    NotBuilt {
        /// The whole URL.
        url: String,
        /// Its scheme.
        scheme: String,
        /// The cargo feature that has it.
        feature: &'static str,
    },
    /// The URL is malformed.
    #[error("{url}: {why}")]
    Url {
        /// The whole URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Silent { .. })
    }

    /// Whether other calls to the same place have little hope for a while.
    pub(crate) fn is_of_place(&self) -> bool {
        let is_elsewhere = matches!(self, Error::NoPlace { .. } | Error::NotDirectory { .. });
        is_elsewhere || self.is_transient() || matches!(self, Error::Endless { .. } | Error::Stopped { .. })
    }

    /// Whether the object, and not the place, is missing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }

    /// Whether the object is there, but is not what was stored.
    pub(crate) fn is_unsound(&self) -> bool {
        matches!(
            self,
            Error::Unsound { .. } | Error::Short { .. } | Error::TooLarge { .. }
        )
    }

    /// Sorts an error of the operating system by what the caller does about it.
    pub(crate) fn from_io(place: &str, name: &str, during: &'static str, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let (place, name) = (place.to_string(), name.to_string());
        match source.kind() {
            Kind::NotFound => Error::NotFound { name, place },
            Kind::StorageFull | Kind::QuotaExceeded => Error::Full { name, place },
            Kind::PermissionDenied => Error::Denied {
                name,
                place,
                during,
                advice: OWN_DIRECTORY,
            },
            Kind::ReadOnlyFilesystem => Error::ReadOnly { name, place },
            Kind::TimedOut
            | Kind::StaleNetworkFileHandle
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::ResourceBusy
            | Kind::WouldBlock
            | Kind::Interrupted => {
                let reason = format!("{during}: {source}");
                Error::Unavailable { name, place, reason }
            }
            _ => Error::Io {
                name,
                place,
                during,
                source,
            },
        }
    }
}
