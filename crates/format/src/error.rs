//! The one error of this crate: what is wrong with bytes, in terms of the object they claim to be.

use thiserror::Error;

use crate::keys::epoch_id::epoch_number;
use crate::keys::role::Role;

/// Why bytes were refused. The caller adds which object and place they came from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The bytes do not begin (or end) with the magic of this object: another kind of object, or not drystone's.
    #[error("not a {object}: wrong magic bytes")]
    Magic {
        /// The object that was expected.
        object: &'static str,
    },
    /// The object was written by a newer format than this program reads; nothing is wrong with it.
    #[error(
        "{object} has format version {found}, this program reads versions up to {known}: use a newer drystone to open it"
    )]
    Version {
        /// The object that was read.
        object: &'static str,
        /// The version it carries.
        found: u8,
        /// The newest version this program reads.
        known: u8,
    },
    /// The bytes are cut short, too long, or do not follow docs/format.md.
    #[error("{object} is malformed at byte {offset}: {why}")]
    Malformed {
        /// The object that was read.
        object: &'static str,
        /// Where decoding stopped, in bytes from the start of the decoded part.
        offset: usize,
        /// What was expected there.
        why: String,
    },
    /// A length or count is above the format's limit; refused before anything of that size is allocated.
    #[error("{object}: {what} is {found}, the format allows at most {limit}")]
    Limit {
        /// The object that was read.
        object: &'static str,
        /// The field.
        what: &'static str,
        /// What the object claims.
        found: u64,
        /// The bound of `limits`.
        limit: u64,
    },
    /// The bytes are not those whose hash is in the name of the object.
    #[error("{object} has other bytes than its name says: altered since it was stored, or put in its place")]
    Hash {
        /// The object that was read.
        object: &'static str,
    },
    /// Authentication failed: the bytes were altered, belong to another vault, or the key is not the right one.
    #[error("{object} does not authenticate: its bytes were altered, or it belongs to another vault or key")]
    Authentication {
        /// The object that was read.
        object: &'static str,
    },
    /// A signature does not verify against the vault's keys.
    #[error("{object} carries a signature that does not verify: altered, or written by a stranger to this vault")]
    Signature {
        /// The object that was read.
        object: &'static str,
    },
    /// The credential may not do this: a writer key was asked to read, or a reader's secret is missing.
    #[error("this key is a writer key: it can back up and deduplicate, but not {what}; use an owner key")]
    WriterKey {
        /// What was attempted.
        what: &'static str,
    },
    /// The credential's role does not allow this.
    #[error("this key is a {} key: it cannot {what}; use an owner key", role.word())]
    Right {
        /// The role of the credential.
        role: Role,
        /// What was attempted.
        what: &'static str,
    },
    /// No secret for the key epoch that sealed this object.
    #[error("{object} was sealed in key epoch {} ({epoch:016x}), which this key does not know", epoch_number(*epoch))]
    Epoch {
        /// The object that was read.
        object: &'static str,
        /// The epoch named in it.
        epoch: u64,
    },
    /// A codec failed on the payload, which means damage or a hostile writer, since the frame authenticated.
    #[error("{codec} cannot decompress this frame: {why}")]
    Codec {
        /// Name of the codec.
        codec: &'static str,
        /// Its own words.
        why: String,
    },
    /// The operating system's randomness failed, or a cryptographic primitive refused a well-formed input.
    #[error("cryptographic failure: {0}")]
    Crypto(&'static str),
}

impl Error {
    pub(crate) fn malformed(object: &'static str, offset: usize, why: impl Into<String>) -> Self {
        Self::Malformed {
            object,
            offset,
            why: why.into(),
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Ok` if `found <= limit`, else [`Error::Limit`].
pub(crate) fn within(object: &'static str, what: &'static str, found: u64, limit: u64) -> Result<()> {
    if found <= limit {
        Ok(())
    } else {
        Err(Error::Limit {
            object,
            what,
            found,
            limit,
        })
    }
}
