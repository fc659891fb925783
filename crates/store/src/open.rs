//! From the URL of a place to its store.
//!
//! - A plain path or `file://` is a local directory; every other place is reached over a network, with retries and a limit of requests.
//! - Credentials are looked up by their usual names; the URL of a place holds none (docs/places.md).

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::decorators::limit::Limits;
use crate::decorators::retry::Policy;
use crate::options::OpenOptions;
use crate::remote::store::RemoteStore;
use crate::remote::url::{malformed, percent_decode, scheme, shown};
use crate::remote::{self, KNOWN};
use crate::{Error, Limit, Local, Result, Retry, Stoppable, Store};

/// Calls that opening a place takes at most, about three seconds in all: one that is gone is not to hold up the others.
const KNOCKS: u32 = 3;
/// Time that opening a place may take in all: one that hangs is not to hold them up for long.
const KNOCK_LIMIT: Duration = Duration::from_secs(15);

/// Opens an existing place. Over a network this takes a request, and all calls need the same tokio runtime.
///
/// [`Error::NoPlace`] if the directory, bucket or container does not exist; whether a vault is in it shows in the header.
/// [`Error::Scheme`] and [`Error::Url`] for what no store understands, [`Error::Denied`] if credentials are missing or wrong.
pub async fn open(url: &str, options: &OpenOptions<'_>) -> Result<Arc<dyn Store>> {
    let Some(place) = remote::place(url, options)? else {
        return Ok(Arc::new(Local::open(Path::new(OsStr::from_bytes(&local_path(url)?)))?));
    };
    let attempts = options.retry.attempts.min(KNOCKS);
    let knock = Retry::new(
        Arc::clone(&place) as Arc<dyn Store>,
        Policy {
            attempts,
            ..options.retry
        },
    );
    let knocked = async { knock.repeat(|| place.check()).await.0 };
    let knocked = async {
        timeout(KNOCK_LIMIT, knocked)
            .await
            .unwrap_or_else(|_| Err(no_answer(&place)))
    };
    options.stop.limit(place.place(), knocked).await?;
    Ok(stoppable(decorated(&place, options), options))
}

/// Makes a new place, or opens one that is empty or holds a vault's objects only. Buckets and containers are not made.
///
/// As [`open`], and [`Error::Occupied`] if the place holds anything else.
pub async fn create(url: &str, options: &OpenOptions<'_>) -> Result<Arc<dyn Store>> {
    let Some(place) = remote::place(url, options)? else {
        let path = local_path(url)?;
        return Ok(Arc::new(Local::create(Path::new(OsStr::from_bytes(&path)))?));
    };
    let store = decorated(&place, options);
    let made = async { store.repeat(|| place.make()).await.0 };
    options.stop.limit(place.place(), made).await?;
    Ok(stoppable(store, options))
}

fn no_answer(place: &Arc<dyn RemoteStore>) -> Error {
    Error::Silent {
        name: "the place".to_string(),
        place: place.place().to_string(),
        reason: format!("it gives no answer within {} seconds", KNOCK_LIMIT.as_secs()),
    }
}

fn stoppable(store: Arc<Retry>, options: &OpenOptions<'_>) -> Arc<dyn Store> {
    Arc::new(Stoppable::new(store, options.stop.clone()))
}

fn decorated(place: &Arc<dyn RemoteStore>, options: &OpenOptions<'_>) -> Arc<Retry> {
    let limits = Limits {
        requests: NonZeroUsize::new(place.requests()),
        ..Limits::default()
    };
    let limited = Limit::new(Arc::clone(place) as Arc<dyn Store>, limits);
    Arc::new(Retry::new(Arc::new(limited), options.retry))
}

/// The directory that a URL or plain path stands for; `None` if it stands for a place over a network.
pub fn local_dir(url: &str) -> Option<PathBuf> {
    let path = local_path(url).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(&path)))
}

/// The path that a URL or plain path stands for.
fn local_path(url: &str) -> Result<Vec<u8>> {
    let path = match scheme(url) {
        None => url.as_bytes().to_vec(),
        Some(("file", rest)) => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(malformed(url, "a file URL has the form file:///absolute/path"));
            }
            percent_decode(path).ok_or_else(|| malformed(url, "`%` is not followed by two hexadecimal digits"))?
        }
        Some((scheme, _)) => {
            return Err(Error::Scheme {
                url: shown(url),
                scheme: scheme.to_string(),
                known: KNOWN,
            });
        }
    };
    if path.is_empty() {
        return Err(malformed(url, "the path of the vault is empty"));
    }
    if path.contains(&0) {
        return Err(malformed(url, "a path cannot hold a zero byte"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_local() {
        for (url, path) in [
            ("vault", "vault"),
            ("./a:b", "./a:b"),
            ("/a b%20", "/a b%20"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("file://localhost/srv", "/srv"),
            ("1://x", "1://x"),
        ] {
            assert_eq!(local_path(url).unwrap(), path.as_bytes(), "{url}");
        }
        assert_eq!(local_path("file:///%ff").unwrap(), b"/\xff");
    }

    #[tokio::test]
    async fn other_schemes_are_named() {
        let options = OpenOptions::new(&|_| None, 1);
        for url in ["gopher://bucket/vault", "opendal+gopher://bucket/vault"] {
            let message = open(url, &options).await.unwrap_err().to_string();
            assert!(message.contains("gopher") && message.contains("s3://"), "{message}");
        }
    }

    #[tokio::test]
    async fn what_a_build_lacks_is_named_with_its_feature() {
        let options = OpenOptions::new(&|_| None, 1);
        for (scheme, feature, (is_built, need)) in [
            ("s3", "http", (cfg!(feature = "http"), "AWS_ACCESS_KEY_ID")),
            ("opendal+azblob", "azure", (cfg!(feature = "azure"), "MY_KEY")),
            ("opendal+b2", "b2", (cfg!(feature = "b2"), "MY_KEY")),
            ("opendal+gcs", "google", (cfg!(feature = "google"), "MY_KEY")),
        ] {
            let options_of = if need == "MY_KEY" { "?key=$MY_KEY" } else { "" };
            let error = open(&format!("{scheme}://container{options_of}"), &options)
                .await
                .unwrap_err();
            let said = if is_built {
                need.to_owned()
            } else {
                format!("--features {feature}")
            };
            assert!(error.to_string().contains(&said), "{error}");
        }
    }

    #[cfg(feature = "http")]
    #[tokio::test]
    async fn missing_credentials_are_named() {
        let options = OpenOptions::new(&|_| None, 1);
        for (url, name) in [
            ("s3://bucket", "AWS_ACCESS_KEY_ID"),
            ("swift://container", "OS_AUTH_URL"),
            ("swift://container?endpoint=http://127.0.0.1:1/auth/v1.0", "ST_USER"),
            ("opendal+memory://container?root=$MY_KEY", "MY_KEY"),
        ] {
            let error = open(url, &options).await.unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn malformed_urls_are_refused() {
        for url in [
            "",
            "file://",
            "file://host/x",
            "file:///%g0",
            "file:///%2",
            "a\0b",
            "file:///a%00",
        ] {
            assert!(matches!(local_path(url), Err(Error::Url { .. })), "{url}");
        }
    }
}
