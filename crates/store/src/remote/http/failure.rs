//! Why a request over HTTP failed: refused, stalled, or without an answer.
//!
//! - An answer that some caller treats in its own way (denied, full, busy) becomes a [`Refused`], whatever the service makes of it.
//! - No credential, and no address that may hold a signature, is part of an error.

use std::time::Duration;

use http::{StatusCode, header};
use opendal::{Error, ErrorKind};
use thiserror::Error;

/// Most bytes of a refusal that are read and shown.
const REASON_MAX_BYTES: usize = 1 << 10;
/// Time that the text of a refusal may take.
const REASON_LIMIT: Duration = Duration::from_secs(5);

/// An answer that refuses the request.
#[derive(Debug, Error)]
#[error("{status}: {reason}")]
pub(crate) struct Refused {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// What the server says about it, shortened.
    pub(crate) reason: String,
}

/// The error of this type that an error came from.
pub(crate) fn cause<E: std::error::Error + 'static>(error: &Error) -> Option<&E> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

/// The refusal that an error came from.
pub(crate) fn refusal(error: &Error) -> Option<&Refused> {
    cause(error)
}

/// What went wrong, without the addresses and headers that OpenDAL adds.
pub(crate) fn reason(error: &Error) -> String {
    let mut text = error.message().to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Whether an answer is a refusal; the services know what others mean.
pub(crate) fn is_refusal(status: StatusCode) -> bool {
    is_redirect(status)
        || status.is_server_error()
        || matches!(status.as_u16(), 401 | 403 | 408 | 409 | 413 | 416 | 423 | 425 | 429)
}

/// Whether an answer sends the client elsewhere; 304 is about a cache.
fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// The error for an answer that is a refusal.
pub(crate) async fn refused(answer: reqwest::Response) -> Error {
    let status = answer.status();
    let target = answer.headers().get(header::LOCATION).filter(|_| is_redirect(status));
    let target = target.map(|target| host_of(&String::from_utf8_lossy(target.as_bytes())));
    let said = reason_of(answer).await;
    let reason = match target {
        Some(host) => {
            format!("the server sends requests on to {host}; nothing was sent there. Name that address if it is right")
        }
        None => said,
    };
    Error::new(ErrorKind::Unexpected, "refused").set_source(Refused { status, reason })
}

/// The host that an address names, without what may be secret in it.
fn host_of(address: &str) -> String {
    match url::Url::parse(address) {
        Ok(url) => url.host_str().unwrap_or("an address without a host").to_string(),
        Err(_) => "another path of the same host".to_string(),
    }
}

/// The beginning of a body, on one line; what does not come soon is not waited for.
async fn reason_of(mut answer: reqwest::Response) -> String {
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(piece)) = answer.chunk().await {
            text.extend(piece.iter().take(REASON_MAX_BYTES - text.len()));
            if text.len() == REASON_MAX_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(REASON_LIMIT, read).await;
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The error for a request that met no answer. Its text names no address, since that may hold a signature.
pub(crate) fn unreachable(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        return stalled();
    }
    Error::new(ErrorKind::Unexpected, "no answer")
        .with_temporary(!error.is_builder())
        .set_source(error.without_url())
}

/// A server sends nothing, or next to nothing.
#[derive(Debug, Error)]
#[error("it sends nothing, or next to nothing")]
struct Stalled;

/// The error for a body that comes too slowly, or not at all.
pub(crate) fn stalled() -> Error {
    Error::new(ErrorKind::Unexpected, "given up")
        .set_temporary()
        .set_source(Stalled)
}

/// Whether an error is of a server that hangs.
pub(crate) fn is_stalled(error: &Error) -> bool {
    cause::<Stalled>(error).is_some()
}
