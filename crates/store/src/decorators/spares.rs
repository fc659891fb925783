//! A decorator that shows the spare copies at a place as if they were the originals.
//!
//! - Every name stands for its spare copy of one number; what has no spare copies is not there and cannot be stored.
//! - Errors name the spare copy.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

/// The spare copies of one number at another store.
#[derive(Debug)]
pub struct Spares {
    inner: Arc<dyn Store>,
    number: u8,
}

impl Spares {
    /// The spare copies of this number, from 1, at `inner`.
    pub fn new(inner: Arc<dyn Store>, number: u8) -> Self {
        Self { inner, number }
    }

    fn name(&self, name: &Name) -> Result<Name> {
        if name.has_spares() {
            return Ok(name.spare(self.number));
        }
        let (name, place) = (name.to_string(), self.place().to_owned());
        Err(Error::NotFound { name, place })
    }
}

#[async_trait]
impl Store for Spares {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.inner.put(&self.name(name)?, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.inner.get(&self.name(name)?, range).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.inner.stat(&self.name(name)?).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let (prefix, after) = (prefix.spare(self.number), after.map(|after| after.spare(self.number)));
        let listed = self.inner.list(&prefix, after.as_ref(), limit).await?;
        let original = |Listed { name, size }| Listed {
            name: Name::original(&name),
            size,
        };
        Ok(listed.into_iter().map(original).collect())
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.inner.delete(&self.name(name)?).await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
