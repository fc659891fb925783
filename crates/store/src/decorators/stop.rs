//! The wish to stop, and a decorator that ends calls soon after it was told.
//!
//! - A call that is under way, or begins, when the wish is told may take until [`GRACE`] is over: what a sound place does at
//!   once, such as ending a registration, is still done.
//! - After that every call is [`Error::Stopped`] at once, whatever a place does or does not answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

/// How long calls may go on after the wish to stop.
pub const GRACE: Duration = Duration::from_millis(700);

/// A wish to stop, which all copies share.
#[derive(Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<Option<Instant>>>,
}

impl Default for Stop {
    fn default() -> Self {
        let (asked, _) = watch::channel(None);
        Self { asked: Arc::new(asked) }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_asked()).finish()
    }
}

impl Stop {
    /// Asks all calls to end within [`GRACE`].
    pub fn ask(&self) {
        self.asked.send_modify(|asked| {
            asked.get_or_insert_with(Instant::now);
        });
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// Ends when the grace after the wish is over; never without a wish.
    async fn is_due(&self) {
        let mut asked = self.asked.subscribe();
        let at = asked.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        match at {
            Some(at) => tokio::time::sleep_until(at + GRACE).await,
            // The sender is kept by `self`, so this does not happen.
            None => std::future::pending().await,
        }
    }

    /// The outcome of a call at `place`, or [`Error::Stopped`] once the grace after the wish is over.
    pub async fn limit<T>(&self, place: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.is_due() => Err(Error::Stopped { place: place.to_string() }),
            outcome = call => outcome,
        }
    }
}

/// Ends the calls to another store after the wish to stop.
#[derive(Debug)]
pub struct Stoppable {
    inner: Arc<dyn Store>,
    stop: Stop,
}

impl Stoppable {
    /// Ends calls to `inner` when `stop` asks for it.
    pub fn new(inner: Arc<dyn Store>, stop: Stop) -> Self {
        Self { inner, stop }
    }

    async fn limit<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.stop.limit(self.inner.place(), call).await
    }
}

#[async_trait]
impl Store for Stoppable {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.limit(self.inner.put(name, bytes)).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.limit(self.inner.get(name, range)).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.limit(self.inner.stat(name)).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.limit(self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.limit(self.inner.delete(name)).await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.limit(self.inner.space()).await
    }
}
