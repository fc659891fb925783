//! The URL of a place on another machine, taken apart.
//!
//! - A secret in it is refused, and never shown: a URL is kept in the vault and printed in messages.
//! - An option that is not known is refused, so that a misspelt one is noticed.

use std::collections::BTreeMap;

use url::Url;

use crate::{Error, Result};

/// Ends of option names whose values are secrets; such a value must name a credential instead.
const SECRET_ENDS: [&str; 8] = [
    "key",
    "secret",
    "password",
    "token",
    "credential",
    "sas",
    "key_id",
    "passphrase",
];

/// Longest name of an unknown option that is shown, bytes: those that are known are shorter, a secret is seldom so short.
const OPTION_SHOWN_BYTES: usize = 24;

/// A URL in parts. Percent escapes are decoded in `path` and `options`.
#[derive(Debug)]
pub(crate) struct PlaceUrl {
    /// The whole, without a final `/` of the path; it holds no secret.
    pub(crate) text: String,
    /// The host, bucket or container.
    pub(crate) host: String,
    /// The port, if given.
    pub(crate) port: Option<u16>,
    /// The user, if given.
    pub(crate) user: Option<String>,
    /// The path without `/` at its ends; may be empty.
    pub(crate) path: String,
    options: BTreeMap<String, String>,
}

impl PlaceUrl {
    /// Takes `url` apart; [`Error::Url`] if it is malformed, holds a password, or has another option than those `known`.
    pub(crate) fn parse(url: &str, known: &[&str]) -> Result<Self> {
        let parsed = Self::parse_open(url)?;
        match parsed.options.keys().find(|option| !known.contains(&option.as_str())) {
            None => Ok(parsed),
            Some(option) => Err(malformed(url, unknown_option(option, known))),
        }
    }

    /// As [`PlaceUrl::parse`], with whatever options; those that are secrets must be of the form `$NAME`.
    pub(crate) fn parse_open(url: &str) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|_| malformed(url, "it is not a URL"))?;
        if parsed.password().is_some() {
            return Err(malformed(
                url,
                "a URL must hold no password; give it as docs/places.md says",
            ));
        }
        if parsed.fragment().is_some() {
            return Err(malformed(
                url,
                "`#` has no meaning here; write %23 if it is part of a name",
            ));
        }
        let text = |text: &str| {
            let decoded = percent_decode(text).and_then(|bytes| String::from_utf8(bytes).ok());
            decoded.ok_or_else(|| malformed(url, "a `%` escape is malformed or no UTF-8"))
        };
        let mut options = BTreeMap::new();
        for (option, value) in parsed.query_pairs() {
            let is_secret = SECRET_ENDS.iter().any(|end| option.to_ascii_lowercase().ends_with(end));
            let names_file = option == "key" && value.starts_with('/');
            if is_secret && !value.starts_with('$') && !names_file {
                let why = "a URL must hold no secret; write `$NAME` and set the variable NAME, see docs/places.md";
                return Err(malformed(url, why));
            }
            if options.insert(option.into_owned(), value.into_owned()).is_some() {
                return Err(malformed(url, "an option is given twice"));
            }
        }
        let path = text(parsed.path())?.trim_matches('/').to_string();
        if path.split('/').any(|part| matches!(part, "." | "..")) || path.contains("//") || path.contains('\0') {
            return Err(malformed(url, "the path has an empty part, `.` or `..`"));
        }
        Ok(Self {
            text: shown_whole(url),
            host: text(parsed.host_str().unwrap_or_default())?,
            port: parsed.port(),
            user: Some(text(parsed.username())?).filter(|user| !user.is_empty()),
            path,
            options,
        })
    }

    /// The value of an option.
    pub(crate) fn option(&self, name: &str) -> Option<String> {
        self.options.get(name).cloned()
    }

    /// Refuses a URL without host, bucket or container.
    pub(crate) fn need_host(&self, why: &'static str) -> Result<()> {
        match self.host.as_str() {
            "" => Err(malformed(&self.text, why)),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "http")]
impl PlaceUrl {
    /// All options.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&String, &String)> {
        self.options.iter()
    }

    /// The path as what object paths begin with: empty, or ending with `/`.
    pub(crate) fn base(&self) -> String {
        match self.path.as_str() {
            "" => String::new(),
            path => format!("{path}/"),
        }
    }

    /// Refuses a URL with a user or a port, where these have no meaning.
    pub(crate) fn need_no_user_or_port(&self) -> Result<()> {
        match (&self.user, self.port) {
            (None, None) => Ok(()),
            _ => Err(malformed(
                &self.text,
                "user and port have no meaning in this kind of URL; see docs/places.md",
            )),
        }
    }
}

/// Scheme and rest, if there is a scheme (RFC 3986 section 3.1, with the `//` that tells it from a path).
pub(crate) fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let mut chars = scheme.chars();
    let starts = chars.next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = chars.all(|next| next.is_ascii_alphanumeric() || matches!(next, '+' | '-' | '.'));
    (starts && goes_on).then_some((scheme, rest))
}

/// The bytes of a text with percent escapes; nothing if one of them is malformed.
pub(crate) fn percent_decode(text: &str) -> Option<Vec<u8>> {
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

/// An error about a URL that may hold a secret: only what surely is none is shown.
pub(crate) fn malformed(url: &str, why: impl Into<String>) -> Error {
    Error::Url {
        url: shown(url),
        why: why.into(),
    }
}

/// Says which option is not known, unless it looks as if it could be a secret that was put where names belong.
fn unknown_option(option: &str, known: &[&str]) -> String {
    let is_name =
        option.len() <= OPTION_SHOWN_BYTES && option.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let name = if is_name {
        format!("`{option}`")
    } else {
        "an option".to_owned()
    };
    let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    match known.is_empty() {
        true => format!("{name} after `?` is not known; this kind of place has no options"),
        false => format!("{name} after `?` is not known; known are {}", known.join(", ")),
    }
}

/// The URL without what may be secret: no options, no user.
pub(crate) fn shown(url: &str) -> String {
    let start = url.split_once(['?', '#']).map_or(url, |(start, _)| start);
    match start.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://{rest}"),
            None => start.to_string(),
        },
        None => start.to_string(),
    }
}

/// A URL that was found to hold no secret, without `/` at the end of its path.
fn shown_whole(url: &str) -> String {
    match url.split_once('?') {
        Some((start, options)) => format!("{}?{options}", start.trim_end_matches('/')),
        None => url.trim_end_matches('/').to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded() {
        let url = PlaceUrl::parse_open("sftp://me@host:2222/a%20b/c/?key=/home/me/.ssh/id&known_hosts=add").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.user.as_deref()),
            ("host", Some(2222), Some("me"))
        );
        assert_eq!((url.path.as_str(), url.base().as_str()), ("a b/c", "a b/c/"));
        assert_eq!(url.option("key").as_deref(), Some("/home/me/.ssh/id"));
        assert_eq!(
            url.text,
            "sftp://me@host:2222/a%20b/c?key=/home/me/.ssh/id&known_hosts=add"
        );
        let url = PlaceUrl::parse_open("s3://Bucket").unwrap();
        assert_eq!((url.host.as_str(), url.base().as_str()), ("Bucket", ""));
    }

    #[test]
    fn secrets_are_refused_and_not_shown() {
        for url in [
            "webdav://me:hunter2@host/x",
            "webdav://me:hunter2@host",
            "s3://bucket?secret_access_key=hunter2",
            "s3://bucket?access_key_id=hunter2",
            "opendal+azblob://container/x?account_key=hunter2",
            "opendal+b2://x?applicationKey=hunter2",
            "s3://bucket/x?region=a#hunter2",
        ] {
            let error = PlaceUrl::parse_open(url).unwrap_err();
            assert!(matches!(error, Error::Url { .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let url = PlaceUrl::parse_open("opendal+azblob://c/x?account_key=$AZURE_KEY").unwrap();
        assert_eq!(url.option("account_key").as_deref(), Some("$AZURE_KEY"));
    }

    #[test]
    fn an_unknown_option_is_named_unless_it_may_be_a_secret() {
        let said = |url: &str, known: &[&str]| PlaceUrl::parse(url, known).unwrap_err().to_string();
        let text = said("s3://b?regoin=x", &["endpoint", "region"]);
        assert!(
            text.contains("`regoin` after") && text.contains("`endpoint`, `region`"),
            "{text}"
        );
        for secret in ["AKIAHUNTER2", "hunter2hunter"] {
            let text = said(&format!("s3://b?{secret}=x"), &["region"]);
            assert!(text.contains("an option after") && !text.contains(secret), "{text}");
        }
        assert!(said("webdav://h/x?a=b", &[]).contains("no options"));
    }

    #[test]
    fn malformed_urls_are_refused() {
        for url in [
            "s3://b?regoin=x",
            "s3://b?region=a&region=b",
            "s3://b/a%2f..%2fb",
            "s3://b/%zz",
            "s3://b/a//b",
        ] {
            assert!(
                matches!(PlaceUrl::parse(url, &["region"]), Err(Error::Url { .. })),
                "{url}"
            );
        }
    }
}
