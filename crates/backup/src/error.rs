//! The one error of this crate. What concerns a single file is a problem in the report, not an error.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use parking_lot::Mutex;
use rustix::io::Errno;
use thiserror::Error;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a backup, restore or look into a snapshot could not go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The vault failed, or the run was interrupted.
    #[error(transparent)]
    Vault(#[from] drystone_vault::Error),
    /// A pattern of a filter is malformed.
    #[error("pattern `{pattern}`: {why}")]
    Pattern {
        /// As it was given, with the file it stands in where it came from one.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// What is to be backed up is not there at all, or was given as a relative path.
    #[error("{}: {why}; nothing was backed up", shown(path))]
    Source {
        /// The path.
        path: Vec<u8>,
        /// Why not.
        why: String,
    },
    /// The process, or the machine, has no descriptors or memory left: every further file would fail.
    #[error(
        "{}: {source}; raise the limit of open files (ulimit -n) or lower the number of threads",
        shown(path)
    )]
    Exhausted {
        /// Where it was met.
        path: Vec<u8>,
        /// What is missing.
        source: io::Error,
    },
    /// The stream to be backed up failed; the source says which.
    #[error("{}: {source}; no snapshot was made", shown(path))]
    Stream {
        /// The name it was to be stored under.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The directory to restore into cannot be used.
    #[error("{}: {source}; choose another target", shown(path))]
    Target {
        /// The directory.
        path: Vec<u8>,
        /// Why not.
        source: io::Error,
    },
    /// There is no room to restore into.
    #[error(
        "{}: {needed_bytes} bytes are needed, {free_bytes} are free; restore a smaller share, or elsewhere",
        shown(path)
    )]
    NoRoom {
        /// The directory.
        path: Vec<u8>,
        /// What would be restored.
        needed_bytes: u64,
        /// What its file system has.
        free_bytes: u64,
    },
    /// The file system that is restored to cannot take more.
    #[error(
        "{}: {what}: {source}; nothing more was restored, mend it and run the same restore again to go on",
        shown(path)
    )]
    Write {
        /// The path, relative to the target.
        path: Vec<u8>,
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Source and target of a copy are one vault.
    #[error("{place}: is the vault that is copied from; nothing was copied")]
    SameVault {
        /// Where the target lies.
        place: String,
    },
    /// A snapshot of another writer holds more than it states, and may have no end to speak of.
    #[error(
        "holds more than it states ({files} files, {bytes} bytes), so it was left: find out who wrote it; if nobody needs it, \
         drop it with `drystone forget`"
    )]
    MoreThanStated {
        /// Files that it states.
        files: u64,
        /// Bytes that it states.
        bytes: u64,
    },
    /// What the bytes are written to failed.
    #[error("output: {source}")]
    Output {
        /// Why.
        source: io::Error,
    },
    /// A path within a snapshot is not there.
    #[error("{}: not in this snapshot; see `drystone ls`", shown(path))]
    NotFound {
        /// The path.
        path: Vec<u8>,
    },
    /// A stored entry is not of the kind that is needed.
    #[error("{} is not a {wanted}", shown_or_root(path))]
    WrongKind {
        /// The path.
        path: Vec<u8>,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// Directories nest deeper than the format allows.
    #[error(
        "{}: nested deeper than {} directories",
        shown(path),
        drystone_format::limits::TREE_DEPTH_MAX
    )]
    TooDeep {
        /// The path.
        path: Vec<u8>,
    },
}

impl Error {
    /// Whether something stored is damaged, so that other files may still be fine.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Vault(error) => error.is_damage(),
            Self::TooDeep { .. } => true,
            _ => false,
        }
    }
}

impl From<drystone_index::Error> for Error {
    fn from(error: drystone_index::Error) -> Self {
        Self::Vault(error.into())
    }
}

/// The first error of a run that is not the consequence of another.
#[derive(Default)]
pub(crate) struct FirstError(Mutex<Option<Error>>);

impl FirstError {
    /// The value; an error is kept.
    pub(crate) fn note<T>(&self, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let mut first = self.0.lock();
        if matches!(*first, None | Some(Error::Vault(drystone_vault::Error::Stopped))) {
            *first = Some(error);
        }
        None
    }

    /// What was kept.
    pub(crate) fn into_error(self) -> Option<Error> {
        self.0.into_inner()
    }
}

/// Starts a thread within `scope`.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().spawn_scoped(scope, work);
    started.map_err(|source| Error::Vault(drystone_vault::Error::thread(source)))
}

/// Starts so many threads that do the same; those that can be started are enough, and none is an error.
pub(crate) fn spawn_some<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: impl FnOnce() -> T + Send + Clone + 'scope,
) -> Result<()> {
    spawn(scope, work.clone())?;
    let others = 1..count;
    others.map_while(|_| spawn(scope, work.clone()).ok()).for_each(drop);
    Ok(())
}

/// The error of a thread that finds the others gone; one of them knows why.
pub(crate) fn stopped() -> Error {
    Error::Vault(drystone_vault::Error::Stopped)
}

/// Whether an error says nothing about the file that it was met at.
pub(crate) fn is_exhausted(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// A path in a snapshot for people; the empty one is the whole tree.
fn shown_or_root(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { shown(path) }
}

/// A path for people: escapes what is not text.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut shown = String::new();
    for piece in path.utf8_chunks() {
        for letter in piece.valid().chars() {
            if letter.is_control() {
                shown.extend(letter.escape_default());
            } else {
                shown.push(letter);
            }
        }
        shown.extend(piece.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}
