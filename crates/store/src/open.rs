//! From the URL of a place to its store.
//!
//! - A plain path or `file://` is a local directory; any other scheme is an error that names the known ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::{Error, Local, Result, Store};

const KNOWN: &str = "file://";

/// Opens an existing place. Blocks for a moment; its methods need a tokio runtime.
///
/// [`Error::NoPlace`] if the directory does not exist; whether a vault is in it shows in the header.
/// [`Error::Scheme`] and [`Error::Url`] for what no store understands.
pub fn open(url: &str) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Local::open(Path::new(OsStr::from_bytes(&local_path(url)?)))?))
}

/// Makes a new place, or opens one that is empty or holds a vault's objects only. Blocks for a moment.
///
/// As [`open`], and [`Error::Occupied`] if the directory holds anything else.
pub fn create(url: &str) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(Local::create(Path::new(OsStr::from_bytes(&local_path(
        url,
    )?)))?))
}

/// The path that a URL or plain path stands for.
fn local_path(url: &str) -> Result<Vec<u8>> {
    let malformed = |why| Error::Url {
        url: url.to_string(),
        why,
    };
    let path = match scheme(url) {
        None => url.as_bytes().to_vec(),
        Some(("file", rest)) => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(malformed("a file URL has the form file:///absolute/path"));
            }
            percent_decode(path).ok_or_else(|| malformed("`%` is not followed by two hexadecimal digits"))?
        }
        Some((scheme, _)) => {
            return Err(Error::Scheme {
                url: url.to_string(),
                scheme: scheme.to_string(),
                known: KNOWN,
            });
        }
    };
    if path.is_empty() {
        return Err(malformed("the path of the vault is empty"));
    }
    if path.contains(&0) {
        return Err(malformed("a path cannot hold a zero byte"));
    }
    Ok(path)
}

/// Scheme and rest, if there is a scheme (RFC 3986 section 3.1, with the `//` that tells it from a path).
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let mut chars = scheme.chars();
    let starts = chars.next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = chars.all(|next| next.is_ascii_alphanumeric() || matches!(next, '+' | '-' | '.'));
    (starts && goes_on).then_some((scheme, rest))
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let (high, low) = (
                char::from(rest.next()?).to_digit(16)?,
                char::from(rest.next()?).to_digit(16)?,
            );
            u8::try_from(high << 4 | low).ok()?
        } else {
            byte
        });
    }
    Some(bytes)
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

    #[test]
    fn other_schemes_are_named() {
        let message = open("s3://bucket/vault").unwrap_err().to_string();
        assert!(message.contains("s3://") && message.contains("file://"), "{message}");
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
