//! A decorator that records every call: for tests that assert what an operation costs.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Listed, Name, Op, Prefix, Put, Range, Result, Space, Store, Traits};

/// One call to a store, successful or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// The object's name, or the prefix of a listing.
    pub name: String,
    /// Bytes of the object given or returned; 0 for the other operations and for failures of a get.
    pub bytes: u64,
}

/// Records the calls to another store.
#[derive(Debug)]
pub struct Record {
    inner: Arc<dyn Store>,
    calls: Mutex<Vec<Call>>,
}

impl Record {
    /// Records the calls to `inner`, beginning with none.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// The calls since the last `take`, in the order in which they ended; recording starts again with none.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// How many calls of this kind there were since the last `take`.
    pub fn count(&self, op: Op) -> usize {
        self.calls.lock().iter().filter(|call| call.op == op).count()
    }

    /// How many bytes the calls of this kind moved since the last `take`.
    pub fn bytes(&self, op: Op) -> u64 {
        self.calls
            .lock()
            .iter()
            .filter(|call| call.op == op)
            .map(|call| call.bytes)
            .sum()
    }

    fn add(&self, op: Op, name: &impl ToString, bytes: usize) {
        self.calls.lock().push(Call {
            op,
            name: name.to_string(),
            bytes: bytes as u64,
        });
    }
}

#[async_trait]
impl Store for Record {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let len = bytes.len();
        let outcome = self.inner.put(name, bytes).await;
        self.add(Op::Put, name, len);
        outcome
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let outcome = self.inner.get(name, range).await;
        self.add(Op::Get, name, outcome.as_ref().map_or(0, Bytes::len));
        outcome
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        let outcome = self.inner.stat(name).await;
        self.add(Op::Stat, name, 0);
        outcome
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let outcome = self.inner.list(prefix, after, limit).await;
        self.add(Op::List, prefix, 0);
        outcome
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let outcome = self.inner.delete(name).await;
        self.add(Op::Delete, name, 0);
        outcome
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
