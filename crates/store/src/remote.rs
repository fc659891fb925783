//! Places over a network: which kind of place a URL means, whether this program was built with it, and the limits of all of them.

mod frames;
#[cfg(feature = "http")]
mod http;
mod sftp;
mod ssh;
pub(crate) mod url;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use self::sftp::Sftp;
use self::url::shown;
use crate::open::{OpenOptions, Place, scheme};
use crate::{Error, Result};

/// What an error about an unknown scheme names.
pub(crate) const KNOWN: &str =
    "file://, s3://, swift://, sftp://, webdav://, webdavs://, opendal+azblob://, opendal+b2://, opendal+gcs://";
/// Schemes of places that speak HTTP: the feature of this program that each needs, and whether it was built with it. All those that are
/// passed on show an object only when it is complete.
const SCHEMES: [(&str, &str, bool); 8] = [
    ("s3", "http", cfg!(feature = "http")),
    ("swift", "http", cfg!(feature = "http")),
    ("webdav", "http", cfg!(feature = "http")),
    ("webdavs", "http", cfg!(feature = "http")),
    ("opendal+azblob", "azure", cfg!(feature = "azure")),
    ("opendal+b2", "b2", cfg!(feature = "b2")),
    ("opendal+gcs", "google", cfg!(feature = "google")),
    ("opendal+memory", "http", cfg!(feature = "http")),
];

/// Time for a connection to stand.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time for an answer to begin, and between its pieces.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Time without any progress after which an upload has failed.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Most entries of one directory, or met in one listing.
pub(crate) const ENTRIES_MAX: usize = 1 << 20;

/// A server answered with more than any honest one has to say.
#[derive(Debug, Error)]
#[error("the answer has no end: more than {limit} {what}")]
pub(crate) struct Excess {
    /// How much there may be.
    pub(crate) limit: u64,
    /// Of what.
    pub(crate) what: &'static str,
}

pub(crate) fn too_many_entries() -> Excess {
    Excess {
        limit: ENTRIES_MAX as u64,
        what: "entries",
    }
}

/// The place that a URL means, nothing being sent yet; `None` for a local one.
pub(crate) fn place(url: &str, options: &OpenOptions<'_>) -> Result<Option<Arc<dyn Place>>> {
    let parts = match scheme(url) {
        None | Some(("file", _)) => return Ok(None),
        Some(("sftp", _)) => {
            let sftp = Sftp::new(url, options.retry.seed, Arc::clone(&options.hidden))?;
            return Ok(Some(Arc::new(sftp)));
        }
        Some(parts) => parts,
    };
    let known = SCHEMES.iter().find(|(known, ..)| *known == parts.0);
    let (url, scheme) = match known {
        #[cfg(feature = "http")]
        Some((.., true)) => return http::place(url, parts, options).map(Some),
        _ => (shown(url), parts.0.to_owned()),
    };
    Err(match known {
        Some((_, feature, _)) => Error::NotBuilt { url, scheme, feature },
        None => Error::Scheme {
            url,
            scheme,
            known: KNOWN,
        },
    })
}
