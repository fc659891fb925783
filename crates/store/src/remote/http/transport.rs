//! How requests to other machines travel: one HTTP client with limits in time, and refusals that tell what they are.
//!
//! - A connection must stand within ten seconds, and an answer begin within fifteen. An upload is given up after sixty seconds in
//!   which no byte moved: a slow line is no reason to give up, however long a body takes. What an answer may take stands in
//!   `answer.rs`.
//! - No redirect is followed: what a request carries is meant for the host that the user named.
//! - Whether an answer is a refusal is decided in `failure.rs`.
//! - No credential is ever part of an error.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use opendal::raw::Operation;
use opendal::{Buffer, Error, HttpBody, HttpTransport, Result};
use parking_lot::Mutex;
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::time::Instant;

use crate::remote::http::answer::{Body, count_request, pieces};
use crate::remote::http::failure::{is_refusal, refusal, refused, stalled, unreachable};
use crate::remote::http::swift::Login;
use crate::remote::limits::{ANSWER_LIMIT, CONNECT_LIMIT, IDLE_LIMIT};

/// Bodies of requests up to this length get no more time than requests without.
const SMALL_BYTES: usize = 64 << 10;
/// Bytes of a body handed on at once: the grain in which its progress is seen.
const PIECE_BYTES: usize = 64 << 10;
/// The way to one place.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Client,
    login: Option<Login>,
}

impl Transport {
    /// A client of its own; with a login, each request carries its token and goes to the address it names.
    pub(crate) fn new(login: Option<Login>) -> reqwest::Result<Self> {
        // A second provider is refused, which is fine: then the process has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(Policy::none())
            .user_agent(concat!("drystone/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, login })
    }

    async fn send(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        count_request()?;
        let (mut parts, body) = request.into_parts();
        let is_read = parts.extensions.get::<Operation>() == Some(&Operation::Read);
        if parts.method.as_str() == "MOVE" {
            // What is there already stays: without this, servers remove the target first, and readers miss it.
            parts.headers.insert("overwrite", HeaderValue::from_static("F"));
        }
        let is_head = parts.method == http::Method::HEAD;
        // Swift accepts, and drops, an upload that lost a race for its name against another.
        let may_be_lost = self.login.is_some() && parts.method == http::Method::PUT;
        let limit = if body.len() > SMALL_BYTES {
            IDLE_LIMIT
        } else {
            ANSWER_LIMIT
        };
        let progress = Arc::new(Progress::default());
        let mut request = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers);
        if !body.is_empty() {
            request = request.body(reqwest::Body::wrap(Upload {
                rest: body.to_bytes(),
                progress: Arc::clone(&progress),
            }));
        }
        let answer = tokio::select! {
            answer = request.send() => answer.map_err(unreachable)?,
            () = progress.stalled(limit) => return Err(stalled()),
        };
        if is_refusal(answer.status()) || may_be_lost && answer.status() == StatusCode::ACCEPTED {
            return Err(refused(answer).await);
        }
        let body = if is_read && answer.status().is_success() {
            Body::Object
        } else {
            Body::Words
        };
        Ok(translate(answer, is_head, body))
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let Some(login) = &self.login else {
            return self.send(request).await;
        };
        let session = login.session(&self.client, None).await?;
        match self.send(session.address(request.clone())?).await {
            Err(error) if is_unauthorized(&error) => {
                let session = login.session(&self.client, Some(&session)).await?;
                self.send(session.address(request)?).await
            }
            answer => answer,
        }
    }
}

/// Whether the token or password was not accepted.
fn is_unauthorized(error: &Error) -> bool {
    refusal(error).is_some_and(|refused| refused.status == StatusCode::UNAUTHORIZED)
}

/// The answer as OpenDAL takes it; the length that a HEAD tells is not that of its body.
fn translate(answer: reqwest::Response, is_head: bool, body: Body) -> Response<HttpBody> {
    let mut translated = Response::new(());
    *translated.status_mut() = answer.status();
    *translated.headers_mut() = answer.headers().clone();
    // The client leaves encoded bodies as they are, so the length is that of what is read here.
    let size = answer
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .filter(|_| !is_head);
    translated.map(|()| HttpBody::new(Box::pin(pieces(answer, body)), size))
}

/// When a byte of a request was last taken by the connection.
#[derive(Debug)]
struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Progress {
    fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Ends when nothing has moved for too long.
    async fn stalled(&self, limit: Duration) {
        loop {
            let end = *self.0.lock() + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// The body of a request, in pieces whose taking is noted.
#[derive(Debug)]
struct Upload {
    rest: Bytes,
    progress: Arc<Progress>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.progress.touch();
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(http_body::Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_goes_on_and_one_that_stands_still_ends() {
        let progress = Arc::new(Progress::default());
        let mut upload = Upload {
            rest: Bytes::from(vec![7; 3 * PIECE_BYTES + 1]),
            progress: Arc::clone(&progress),
        };
        let started = Instant::now();
        let mut stalled = Box::pin(progress.stalled(IDLE_LIMIT));
        let mut sent = 0;
        while !upload.is_end_stream() {
            assert!((&mut stalled).now_or_never().is_none(), "given up after {sent} bytes");
            let piece = std::future::poll_fn(|context| Pin::new(&mut upload).poll_frame(context)).await;
            sent += piece.unwrap().unwrap().into_data().unwrap().len();
            tokio::time::advance(IDLE_LIMIT - Duration::from_secs(1)).await;
        }
        assert_eq!(sent, 3 * PIECE_BYTES + 1);
        stalled.await;
        assert!(started.elapsed() < 5 * IDLE_LIMIT, "{:?}", started.elapsed());
    }
}
