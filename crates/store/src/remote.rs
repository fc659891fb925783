//! Places over a network: which kind of place a URL means, and whether this program was built with it.

mod frames;
#[cfg(feature = "http")]
mod http;
pub(crate) mod limits;
mod sftp;
mod ssh;
pub(crate) mod store;
pub(crate) mod url;

use std::sync::Arc;

use self::sftp::Sftp;
use self::store::RemoteStore;
use self::url::{scheme, shown};
use crate::options::OpenOptions;
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

/// The place that a URL means, nothing being sent yet; `None` for a local one.
pub(crate) fn place(url: &str, options: &OpenOptions<'_>) -> Result<Option<Arc<dyn RemoteStore>>> {
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
