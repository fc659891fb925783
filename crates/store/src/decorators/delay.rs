//! A decorator that answers later: a place over a network, as far as that is a matter of round trips.
//!
//! - Every call takes so much longer, in tokio's time, however many there are at once: a line without limit of bandwidth.
//! - The place says that it is slow, so its callers ask for many things at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

/// Delays the calls to another store.
#[derive(Debug)]
pub struct Delay {
    inner: Arc<dyn Store>,
    round_trip: Duration,
}

impl Delay {
    /// Delays every call to `inner` by a round trip, which may be nothing.
    pub fn new(inner: Arc<dyn Store>, round_trip: Duration) -> Self {
        Self { inner, round_trip }
    }

    async fn wait(&self) {
        if !self.round_trip.is_zero() {
            tokio::time::sleep(self.round_trip).await;
        }
    }
}

#[async_trait]
impl Store for Delay {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        Traits {
            slow: true,
            ..self.inner.traits()
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.wait().await;
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.wait().await;
        self.inner.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.wait().await;
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.wait().await;
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.wait().await;
        self.inner.delete(name).await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
