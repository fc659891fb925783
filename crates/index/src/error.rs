//! The one error of this crate; since everything here can be rebuilt, each variant says what rebuilding or freeing helps.

use std::{io, path::PathBuf};

use drystone_format::PackId;
use thiserror::Error;

/// Why the index or the state could not do what was asked. Nothing that is stored in the vault is affected by any of them.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system of the cache is full. What was inserted stays visible to this process; nothing is damaged.
    #[error("no space left for the index at {path}: free some, or move the cache elsewhere")]
    Full {
        /// The file that was being written.
        path: PathBuf,
    },
    /// The operating system refused an operation on the cache.
    #[error("cannot {during} {path}: {source}")]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was being done, as a verb.
        during: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A run turned out to be damaged in the middle of a scan and was dropped: read the packs that [`crate::Index::packs`]
    /// no longer lists again and repeat.
    #[error(
        "the index run {path} is damaged and was dropped; its packs have to be read again (`drystone repair index`)"
    )]
    Damaged {
        /// The run.
        path: PathBuf,
    },
    /// A location does not fit the width of an index entry; a pack of this format cannot contain it.
    #[error("pack {pack}: {what} is {found}, an index entry holds at most {limit}")]
    TooLarge {
        /// The pack whose entries were to be inserted.
        pack: PackId,
        /// The field that is too large.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The largest value that fits.
        limit: u64,
    },
    /// Another process keeps the state database locked for longer than ten seconds.
    #[error("the state database {path} is kept busy by another process: try again when it is done")]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The state database is damaged. It has been marked: the next [`crate::State::open`] sets it aside and starts afresh.
    #[error("the state database {path} is damaged and will be rebuilt by the next run")]
    StateDamaged {
        /// The database.
        path: PathBuf,
    },
    /// A map of chunks that several hosts share could not answer.
    #[error("cannot {during} in the shared index {map}: {why}")]
    Map {
        /// The map, as people name it.
        map: String,
        /// What was being done, as a verb.
        during: &'static str,
        /// What went wrong.
        why: String,
    },
    /// The state database failed in another way.
    #[error("cannot {during} the state database {path}: {source}")]
    State {
        /// The database.
        path: PathBuf,
        /// What was being done, as a verb.
        during: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, during: &'static str, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, during, source },
        }
    }
}
