//! The one error of this crate: what the kernel refused, or said that cannot be.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// Why a file system did not say, or do, what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel answers this question only to root (CAP_SYS_ADMIN).
    #[error("only root may {during} on {object}: run it again as root, or name single files")]
    NeedsRoot {
        /// What was being done.
        during: &'static str,
        /// The file system or file.
        object: String,
    },
    /// The file system cannot do this at all.
    #[error("cannot {during} {object}: this file system does not do that; Btrfs does, and XFS with reflink")]
    Unsupported {
        /// What was being done.
        during: &'static str,
        /// The file system or file.
        object: String,
    },
    /// The object is not there any more; whatever was to be done with it is moot.
    #[error("{object} is gone")]
    Gone {
        /// What is gone.
        object: String,
    },
    /// The kernel refused for another reason.
    #[error("cannot {during} {object}: {source}")]
    Kernel {
        /// What was being done.
        during: &'static str,
        /// The file system or file.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the kernel's own could not be read.
    #[error("cannot read {path}: {source}; is /proc mounted?")]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn kernel(during: &'static str, object: impl Into<String>, source: Errno) -> Self {
        let object = object.into();
        match source {
            Errno::PERM => Self::NeedsRoot { during, object },
            Errno::OPNOTSUPP | Errno::NOTTY => Self::Unsupported { during, object },
            Errno::NOENT | Errno::STALE => Self::Gone { object },
            source => Self::Kernel {
                during,
                object,
                source: source.into(),
            },
        }
    }

    /// What the kernel said, where it said a number.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NeedsRoot { .. } => Some(Errno::PERM.raw_os_error()),
            Self::Unsupported { .. } => Some(Errno::OPNOTSUPP.raw_os_error()),
            Self::Gone { .. } => Some(Errno::NOENT.raw_os_error()),
            Self::Kernel { source, .. } | Self::Proc { source, .. } => source.raw_os_error(),
        }
    }
}
