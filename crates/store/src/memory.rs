//! A store in memory: for tests, and as the base of the decorators that simulate faults.
//!
//! - Keeps the same promises as a real place, except that nothing outlives the process.
//! - `clone` copies the objects: the copy is a place of its own.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Store, Traits};

/// A store in memory.
#[derive(Debug)]
pub struct Memory {
    place: String,
    objects: RwLock<BTreeMap<Name, Bytes>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::named("memory")
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that calls itself so.
    pub fn named(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            objects: RwLock::default(),
        }
    }

    /// All objects with their bytes, ordered by name; the bytes are shared, not copied.
    pub fn contents(&self) -> BTreeMap<Name, Bytes> {
        self.objects.read().clone()
    }

    /// Sets the bytes of an object whatever was there before and however large: the way to damage one in a test.
    pub fn overwrite(&self, name: &Name, bytes: Bytes) {
        self.objects.write().insert(name.clone(), bytes);
    }

    /// Removes an object: the way to lose one in a test.
    pub fn remove(&self, name: &Name) {
        self.delete_now(name);
    }

    /// `put`, without waiting.
    pub(crate) fn put_now(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        name.check_size(&self.place, bytes.len() as u64)?;
        let mut objects = self.objects.write();
        match objects.get(name) {
            Some(found) if found.len() == bytes.len() || !name.is_replaced_by_size() => Ok(Put::Existed),
            _ => {
                objects.insert(name.clone(), bytes);
                Ok(Put::Created)
            }
        }
    }

    /// `delete`, without waiting.
    pub(crate) fn delete_now(&self, name: &Name) {
        self.objects.write().remove(name);
    }

    fn find(&self, name: &Name) -> Result<Bytes> {
        let missing = || Error::NotFound {
            name: name.to_string(),
            place: self.place.clone(),
        };
        self.objects.read().get(name).cloned().ok_or_else(missing)
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self {
            place: self.place.clone(),
            objects: RwLock::new(self.contents()),
        }
    }
}

#[async_trait]
impl Store for Memory {
    fn place(&self) -> &str {
        &self.place
    }

    fn traits(&self) -> Traits {
        Traits {
            durable_on_return: true,
            ordered_list: true,
            stale_list: None,
            max_object_bytes: None,
            exclusive_create: true,
            slow: false,
            finite: false,
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.put_now(name, bytes)
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let bytes = self.find(name)?;
        let (offset, len) = range.resolve(name, &self.place, bytes.len() as u64)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(bytes.slice(start..start + len))
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        Ok(self.find(name)?.len() as u64)
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.objects.read();
        let covered = objects
            .range::<Name, _>((from, Bound::Unbounded))
            .filter(|(name, _)| prefix.covers(name));
        Ok(covered
            .take(limit)
            .map(|(name, bytes)| Listed {
                name: name.clone(),
                size: bytes.len() as u64,
            })
            .collect())
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.delete_now(name);
        Ok(())
    }
}
