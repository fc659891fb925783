//! How much, and how slowly, a server may answer: budgets that keep a hostile one from taking memory or time.
//!
//! - Every body that is not the content of an object has at most [`ANSWER_MAX_BYTES`]; who reads an object counts its bytes.
//! - One listing takes at most [`LISTING_REQUESTS`] requests and [`LISTING_MAX_BYTES`], however its pages are cut.
//! - While somebody waits for a body, it must come at [`FLOOR_BYTES_PER_S`] on average, after a grace of ten seconds; no wait
//!   for a single piece is longer than [`ANSWER_LIMIT`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use opendal::{Buffer, Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};

use crate::remote::http::failure::{cause, stalled, unreachable};
use crate::remote::limits::{ANSWER_LIMIT, Excess};

/// Most bytes of a body that is not the content of an object: a listing of some 100,000 entries.
pub(crate) const ANSWER_MAX_BYTES: u64 = 64 << 20;
/// Most bytes of all pages of one listing.
pub(crate) const LISTING_MAX_BYTES: u64 = 512 << 20;
/// Most requests of one listing.
pub(crate) const LISTING_REQUESTS: u64 = 1024;
/// Slowest average at which a body may come.
const FLOOR_BYTES_PER_S: u64 = 1 << 10;
/// Time that a body may take before its average counts.
const FLOOR_GRACE: Duration = Duration::from_secs(10);

impl From<Excess> for Error {
    fn from(excess: Excess) -> Self {
        Error::new(ErrorKind::Unexpected, "refused").set_source(excess)
    }
}

/// The excess that an error came from.
pub(crate) fn excess(error: &Error) -> Option<&Excess> {
    cause(error)
}

/// What one listing has taken so far.
#[derive(Debug, Default)]
struct Taken {
    requests: AtomicU64,
    bytes: AtomicU64,
}

tokio::task_local! {
    static LISTING: Arc<Taken>;
}

/// Runs a listing, all of whose requests share one budget.
pub(crate) async fn listing<T>(work: impl Future<Output = T>) -> T {
    LISTING.scope(Arc::default(), work).await
}

/// Counts a request against the listing that it belongs to, if any.
pub(crate) fn count_request() -> Result<()> {
    let made = LISTING.try_with(|taken| taken.requests.fetch_add(1, Ordering::Relaxed));
    match made {
        Ok(made) if made >= LISTING_REQUESTS => Err(Excess {
            limit: LISTING_REQUESTS,
            what: "pages",
        }
        .into()),
        _ => Ok(()),
    }
}

/// Whose bytes a body has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Those of an object; the reader knows how many it wants.
    Object,
    /// Whatever the service says about objects.
    Words,
}

/// What has come of one body.
struct Meter {
    body: Body,
    bytes: u64,
    waited: Duration,
    listing: Option<Arc<Taken>>,
}

impl Meter {
    fn new(body: Body) -> Self {
        Self {
            body,
            bytes: 0,
            waited: Duration::ZERO,
            listing: LISTING.try_with(Arc::clone).ok(),
        }
    }

    /// How long the next piece may take.
    fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.bytes / FLOOR_BYTES_PER_S);
        (FLOOR_GRACE + earned).saturating_sub(self.waited).min(ANSWER_LIMIT)
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        if self.body == Body::Object {
            return Ok(());
        }
        let listed = self.listing.as_ref();
        let of_listing = listed.map_or(0, |taken| taken.bytes.fetch_add(bytes as u64, Ordering::Relaxed));
        for (found, limit) in [(self.bytes, ANSWER_MAX_BYTES), (of_listing, LISTING_MAX_BYTES)] {
            if found > limit {
                return Err(Excess { limit, what: "bytes" }.into());
            }
        }
        Ok(())
    }
}

/// The body of an answer, within all budgets.
pub(crate) fn pieces(answer: reqwest::Response, body: Body) -> impl Stream<Item = Result<Buffer>> + Send + Sync {
    let begun = (Box::pin(answer.bytes_stream()), Meter::new(body));
    stream::try_unfold(begun, |(mut rest, mut meter)| async move {
        loop {
            let asked = Instant::now();
            let next = timeout(meter.patience(), rest.next()).await;
            meter.waited += asked.elapsed();
            match next {
                Err(_) => return Err(stalled()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(unreachable(error)),
                // An empty piece would be taken for the end.
                Ok(Some(Ok(piece))) if piece.is_empty() => {}
                Ok(Some(Ok(piece))) => {
                    meter.charge(piece.len())?;
                    return Ok(Some((Buffer::from(piece), (rest, meter))));
                }
            }
        }
    })
}

/// The whole body of an answer that is not the content of an object.
pub(crate) async fn words(answer: reqwest::Response) -> Result<Vec<u8>> {
    let mut pieces = Box::pin(pieces(answer, Body::Words));
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece?.to_bytes());
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use tokio::time::sleep;

    use super::*;
    use crate::remote::http::failure::is_stalled;

    fn answer(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> reqwest::Response {
        http::Response::new(reqwest::Body::wrap_stream(pieces)).into()
    }

    /// A body of `count` pieces of so many bytes, each of which comes after so many seconds.
    fn slow(count: u64, bytes: usize, seconds: u64) -> reqwest::Response {
        answer(stream::iter(0..count).then(move |_| async move {
            sleep(Duration::from_secs(seconds)).await;
            Ok(Bytes::from(vec![7; bytes]))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_or_hangs_is_given_up_in_seconds() {
        for (bytes, seconds) in [(1, 1), (1, 9), (1, 20), (100, 1), (1 << 20, 1 << 20)] {
            let started = Instant::now();
            let error = words(slow(u64::MAX, bytes, seconds)).await.unwrap_err();
            assert!(is_stalled(&error), "{error}");
            assert!(started.elapsed() <= Duration::from_secs(15), "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_comes_to_its_end_and_the_readers_own_time_does_not_count() {
        assert_eq!(words(slow(1000, 2 << 10, 1)).await.unwrap().len(), 2_048_000);
        let mut body = Box::pin(pieces(slow(100, 2 << 10, 1), Body::Object));
        let mut count = 0;
        while let Some(piece) = body.next().await {
            count += piece.unwrap().len();
            sleep(Duration::from_secs(600)).await;
        }
        assert_eq!(count, 204_800);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_object_has_an_end() {
        let most = usize::try_from(ANSWER_MAX_BYTES).unwrap();
        let error = words(slow(u64::MAX, 1 << 20, 0)).await.unwrap_err();
        assert_eq!(excess(&error).unwrap().limit, ANSWER_MAX_BYTES);
        assert_eq!(words(slow(64, 1 << 20, 0)).await.unwrap().len(), most);
        // Pages of a listing have one together.
        let pages = listing(async {
            for page in 0.. {
                if let Err(error) = words(slow(60, 1 << 20, 0)).await {
                    return (page, error);
                }
            }
            panic!("no end")
        });
        let (pages, error) = pages.await;
        assert_eq!((pages, excess(&error).unwrap().limit), (8, LISTING_MAX_BYTES));
        let asked = listing(async { (0..).find(|_| count_request().is_err()) });
        assert_eq!(asked.await, Some(1024));
    }
}
