//! A decorator that repeats calls which failed for a reason that passes.
//!
//! - Only transient errors are repeated, with delays that double up to a limit and vary by a seed.
//! - A call to a place that hangs is repeated once. If it hangs again, all calls fail at once for [`REST`]: a place that hangs
//!   costs one wait, not one for each object.
//! - A put whose reply was lost is still answered `Created` if it made the object.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Error, Kind, Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

/// Calls made in all if each of them hangs.
const CALLS_IF_SILENT: u32 = 2;
/// How long a place that hangs is left alone.
pub const REST: Duration = Duration::from_secs(30);

/// How often and how soon to repeat.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Most calls in all, the first included; 0 counts as 1.
    pub attempts: u32,
    /// Delay before the second call; it doubles for each one after. The actual delay is between half of it and all.
    pub first_delay: Duration,
    /// Longest delay.
    pub max_delay: Duration,
    /// Where the delays vary from: different for each process, so that many do not come back at once.
    pub seed: u64,
}

/// Repeats calls to another store that fail for a reason that passes.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: Policy,
    /// Seed of the next call's delays: calls that fail together do not come back together.
    next_seed: AtomicU64,
    /// Until when the place is left alone, and what it did.
    rest: Mutex<Option<(Instant, String)>>,
}

impl Retry {
    /// Repeats calls to `inner` as `policy` says. Delays are tokio's time.
    pub fn new(inner: Arc<dyn Store>, policy: Policy) -> Self {
        Self {
            inner,
            policy,
            next_seed: AtomicU64::new(policy.seed),
            rest: Mutex::default(),
        }
    }

    /// Why the place is left alone now.
    fn resting(&self, name: &(dyn fmt::Display + Sync)) -> Option<Error> {
        let rest = self.rest.lock();
        let (_, reason) = rest.as_ref().filter(|(until, _)| *until > Instant::now())?;
        Some(Error::Silent {
            name: name.to_string(),
            place: self.inner.place().to_string(),
            reason: reason.clone(),
        })
    }

    /// The outcome of `call` about `name`, unless the place rests, and how many calls it took.
    async fn call<T, F>(&self, name: &(dyn fmt::Display + Sync), call: impl Fn() -> F) -> (Result<T>, u32)
    where
        F: Future<Output = Result<T>>,
    {
        if let Some(error) = self.resting(name) {
            return (Err(error), 0);
        }
        let (outcome, calls) = self.repeat(call).await;
        match &outcome {
            Ok(_) => *self.rest.lock() = None,
            Err(Error::Silent { reason, .. }) => *self.rest.lock() = Some((Instant::now() + REST, reason.clone())),
            Err(_) => {}
        }
        (outcome, calls)
    }

    /// The outcome of `call`, and how many calls it took.
    pub(crate) async fn repeat<T, F>(&self, call: impl Fn() -> F) -> (Result<T>, u32)
    where
        F: Future<Output = Result<T>>,
    {
        let mut delays = self.delays();
        let mut calls = 1;
        loop {
            let outcome = call().await;
            let delay = match &outcome {
                Err(Error::Silent { .. }) if calls < self.policy.attempts.min(CALLS_IF_SILENT) => None,
                Err(Error::Silent { .. }) => return (outcome, calls),
                Err(error) if error.is_transient() && calls < self.policy.attempts => delays.next(),
                _ => return (outcome, calls),
            };
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            calls += 1;
        }
    }

    /// Returns the delays of one call. `backon` draws each from its delay to twice that, so it is given halves.
    fn delays(&self) -> impl Iterator<Item = Duration> {
        let Policy {
            attempts,
            first_delay,
            max_delay,
            ..
        } = self.policy;
        ExponentialBuilder::new()
            .with_min_delay(first_delay.min(max_delay) / 2)
            .with_max_delay(max_delay / 2)
            .with_max_times(attempts as usize)
            .with_jitter()
            .with_jitter_seed(self.next_seed.fetch_add(1, Ordering::Relaxed))
            .build()
    }
}

#[async_trait]
impl Store for Retry {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let (outcome, calls) = self.call(name, || self.inner.put(name, bytes.clone())).await;
        let outcome = outcome?;
        // After a lost reply the object may be our own. For packs and shards, whose names say what they are, it makes no
        // difference.
        if outcome == Put::Existed && calls > 1 && !matches!(name.kind(), Kind::Pack(_) | Kind::Shard(_)) {
            let found = self.get(name, Range::All).await?;
            return Ok(if found == bytes { Put::Created } else { Put::Existed });
        }
        Ok(outcome)
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.call(name, || self.inner.get(name, range)).await.0
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.call(name, || self.inner.stat(name)).await.0
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.call(prefix, || self.inner.list(prefix, after, limit)).await.0
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.call(name, || self.inner.delete(name)).await.0
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
