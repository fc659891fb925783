//! Places of the world: what the attacker may change there, and what honest clients did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_store::{Listed, Memory, Name, Prefix, Put, Range, Store, Traits};
use drystone_vault::Connect;
use parking_lot::Mutex;

use crate::attack::world::Objects;

/// Most calls of one step to one place; what needs more has got into a loop.
const CALLS_MAX: u64 = 100_000;

/// A place: its objects, which of them it leaves out of listings, and what honest clients did there.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) url: String,
    pub(crate) objects: Memory,
    pub(crate) hidden: Mutex<BTreeSet<Name>>,
    /// What honest clients have put and not removed.
    pub(crate) truth: Mutex<Objects>,
    /// What they have put since it was last asked.
    pub(crate) written: Mutex<Vec<(Name, Bytes)>>,
    /// What the attacker has put here in the middle of a step.
    pub(crate) sprung: Mutex<Objects>,
    /// Changes that the attacker has made ready, and after how many more calls they happen.
    ambush: Mutex<Option<(u64, Changes)>>,
    calls: AtomicU64,
}

/// New bytes of objects; `None` for those that go.
pub(crate) type Changes = Vec<(Name, Option<Bytes>)>;

impl Spot {
    pub(crate) fn new(url: &str, objects: Memory) -> Arc<Self> {
        Arc::new(Self {
            url: url.to_owned(),
            truth: Mutex::new(objects.contents()),
            objects,
            hidden: Mutex::default(),
            written: Mutex::default(),
            sprung: Mutex::default(),
            ambush: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    /// Makes changes that happen after so many more calls.
    pub(crate) fn lie_in_wait(&self, calls: u64, changes: Changes) {
        *self.ambush.lock() = Some((calls, changes));
    }

    fn spring(&self) {
        let mut ambush = self.ambush.lock();
        match ambush.as_mut() {
            Some((calls, _)) if *calls > 0 => *calls -= 1,
            Some(_) => {
                for (name, bytes) in ambush.take().into_iter().flat_map(|(_, changes)| changes) {
                    match bytes {
                        Some(bytes) => {
                            self.sprung.lock().insert(name.clone(), bytes.clone());
                            self.objects.overwrite(&name, bytes);
                        }
                        None => self.objects.remove(&name),
                    }
                }
            }
            None => {}
        }
    }

    /// Everything that lies here becomes this.
    pub(crate) fn replace(&self, with: &Objects) {
        for name in self.objects.contents().keys() {
            self.objects.remove(name);
        }
        for (name, bytes) in with {
            self.objects.overwrite(name, bytes.clone());
        }
    }

    fn count(&self) -> drystone_store::Result<()> {
        self.spring();
        if self.calls.fetch_add(1, Ordering::Relaxed) < CALLS_MAX {
            return Ok(());
        }
        Err(drystone_store::Error::NoPlace {
            place: self.url.clone(),
            advice: "too many calls",
        })
    }

    /// Whether more calls came than any step should need; counts anew.
    pub(crate) fn is_overrun(&self) -> bool {
        self.calls.swap(0, Ordering::Relaxed) >= CALLS_MAX
    }
}

#[async_trait]
impl Store for Spot {
    fn place(&self) -> &str {
        &self.url
    }

    fn traits(&self) -> Traits {
        self.objects.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        self.count()?;
        let put = self.objects.put(name, bytes.clone()).await?;
        if put == Put::Created {
            self.truth.lock().insert(name.clone(), bytes.clone());
            self.written.lock().push((name.clone(), bytes));
        }
        Ok(put)
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        self.count()?;
        self.objects.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> drystone_store::Result<u64> {
        self.count()?;
        self.objects.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        self.count()?;
        let mut after = after.cloned();
        loop {
            let page = self.objects.list(prefix, after.as_ref(), limit).await?;
            let Some(last) = page.last().map(|listed| listed.name.clone()) else {
                return Ok(page);
            };
            let hidden = self.hidden.lock().clone();
            let shown: Vec<Listed> = page.into_iter().filter(|one| !hidden.contains(&one.name)).collect();
            if !shown.is_empty() {
                return Ok(shown);
            }
            after = Some(last);
        }
    }

    async fn delete(&self, name: &Name) -> drystone_store::Result<()> {
        self.count()?;
        self.truth.lock().remove(name);
        self.objects.delete(name).await
    }
}

/// All places that can be reached by their URLs.
pub(crate) struct Net(pub(crate) BTreeMap<String, Arc<Spot>>);

impl Connect for Net {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        let spot = self.0.get(url).cloned().map(|spot| spot as Arc<dyn Store>);
        spot.ok_or_else(|| drystone_store::Error::NoPlace {
            place: url.to_owned(),
            advice: "gone",
        })
    }
}
