//! The one error of this crate; a file that cannot be treated is no error but a problem in the report.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// Why a run, or a question, came to nothing. No user data is ever at stake: only the kernel shares, after comparing.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused or cannot do it; says whether root could.
    #[error(transparent)]
    Kernel(#[from] drystone_extents::Error),
    /// The target is not there, or not what it should be.
    #[error("{}: {why}", path.display())]
    Target {
        /// As it was given.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// A file of this run, not the user's, could not be read or written.
    #[error("cannot {during} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        during: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The state is damaged or of another program; it holds nothing that the file system does not know.
    #[error("the state {} cannot be used: {why}; move it away, or name another with --state", path.display())]
    State {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another run holds the state.
    #[error("the state {} is in use by another run: wait for it", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("cannot start a thread: {0}; the limits of this process are too low (ulimit -v, ulimit -u)")]
    Thread(io::Error),
    /// The caller asked to stop.
    #[error("stopped as asked; what was shared so far stays")]
    Interrupted,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, during: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.into(),
            during,
            source: source.into(),
        }
    }

    /// What the operating system said, where it said a number.
    pub(crate) fn errno(&self) -> Option<Errno> {
        let number = match self {
            Self::Kernel(error) => error.errno(),
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        };
        number.map(Errno::from_raw_os_error)
    }
}
