//! A decorator that limits how many requests are in flight and how fast bytes move.
//!
//! - A request is passed on whole once all bytes before it are paid for by the time since.
//! - The bytes of a get are known when it ends: gets that begin before may exceed the rate, which later ones make up for.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::{Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

/// What to limit; `None` for no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Requests in flight at once.
    pub requests: Option<NonZeroUsize>,
    /// Bytes of puts, per second.
    pub put_bytes_per_s: Option<NonZeroU64>,
    /// Bytes of gets, per second.
    pub get_bytes_per_s: Option<NonZeroU64>,
}

/// Limits the requests to another store. Time is tokio's.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    requests: Option<Semaphore>,
    puts: Option<Rate>,
    gets: Option<Rate>,
}

impl Limit {
    /// Limits the requests to `inner`.
    pub fn new(inner: Arc<dyn Store>, limits: Limits) -> Self {
        let semaphore = |count: NonZeroUsize| Semaphore::new(count.get().min(Semaphore::MAX_PERMITS));
        Self {
            inner,
            requests: limits.requests.map(semaphore),
            puts: limits.put_bytes_per_s.map(Rate::new),
            gets: limits.get_bytes_per_s.map(Rate::new),
        }
    }

    /// Waits until a request may begin; it may run while the answer lives.
    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        match &self.requests {
            // The semaphore is never closed, so there is no error to report.
            Some(requests) => requests.acquire().await.ok(),
            None => None,
        }
    }
}

/// Bytes per second, as the time at which all bytes so far are paid for.
#[derive(Debug)]
struct Rate {
    bytes_per_s: NonZeroU64,
    paid_at: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(bytes_per_s: NonZeroU64) -> Self {
        Self {
            bytes_per_s,
            paid_at: Mutex::default(),
        }
    }

    /// Adds the cost of `bytes` and says when the bytes before them are paid for.
    fn charge(&self, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s.get() as f64);
        let mut paid_at = self.paid_at.lock();
        let now = Instant::now();
        let start = paid_at.map_or(now, |at| at.max(now));
        *paid_at = Some(start.checked_add(cost).unwrap_or(start));
        start
    }

    /// Waits until all bytes before these are paid for.
    async fn wait(&self, bytes: u64) {
        tokio::time::sleep_until(self.charge(bytes)).await;
    }
}

#[async_trait]
impl Store for Limit {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let _permit = self.enter().await;
        if let Some(rate) = &self.puts {
            rate.wait(bytes.len() as u64).await;
        }
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let _permit = self.enter().await;
        let Some(rate) = &self.gets else {
            return self.inner.get(name, range).await;
        };
        // The bytes are charged when they are known, so that a request for too many does not block those after it.
        rate.wait(0).await;
        let bytes = self.inner.get(name, range).await?;
        rate.charge(bytes.len() as u64);
        Ok(bytes)
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        let _permit = self.enter().await;
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let _permit = self.enter().await;
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let _permit = self.enter().await;
        self.inner.delete(name).await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
