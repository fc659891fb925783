//! Places of a test that do most things as a place in memory does them, and a few differently.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_store::{Listed, Memory, Name, Prefix, Put, Range, Result, Store, Traits};

/// What a place does differently: each method that it does not write is that of `inner`.
#[async_trait]
pub(crate) trait Alter: Debug + Send + Sync {
    fn inner(&self) -> &Memory;

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.inner().put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.inner().get(name, range).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.inner().list(prefix, after, limit).await
    }
}

/// The place.
#[derive(Debug)]
pub(crate) struct Altered<T>(pub(crate) T);

#[async_trait]
impl<T: Alter> Store for Altered<T> {
    fn place(&self) -> &str {
        self.0.inner().place()
    }

    fn traits(&self) -> Traits {
        self.0.inner().traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.0.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.0.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.0.inner().stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.0.inner().delete(name).await
    }
}
