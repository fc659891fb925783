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
    random: AtomicU64,
    /// Until when the place is left alone, and what it did.
    rest: Mutex<Option<(Instant, String)>>,
}

impl Retry {
    /// Repeats calls to `inner` as `policy` says. Delays are tokio's time.
    pub fn new(inner: Arc<dyn Store>, policy: Policy) -> Self {
        Self {
            inner,
            policy,
            random: AtomicU64::new(policy.seed),
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
        let mut calls = 1;
        loop {
            match call().await {
                Err(Error::Silent { .. }) if calls < self.policy.attempts.min(CALLS_IF_SILENT) => calls += 1,
                Err(error @ Error::Silent { .. }) => return (Err(error), calls),
                Err(error) if error.is_transient() && calls < self.policy.attempts => {
                    tokio::time::sleep(self.delay(calls)).await;
                    calls += 1;
                }
                outcome => return (outcome, calls),
            }
        }
    }

    fn delay(&self, calls: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(calls - 1);
        let delay = self
            .policy
            .first_delay
            .saturating_mul(doubled)
            .min(self.policy.max_delay);
        delay.mul_f64(0.5 + 0.5 * self.next_random())
    }

    /// A number from 0 to 1 (SplitMix64, Steele et al. 2014).
    fn next_random(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ bits >> 31) as f64 / u64::MAX as f64
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
