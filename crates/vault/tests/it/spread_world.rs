//! Places in memory that a vault is spread over, for tests: taken away, brought back, damaged, failing, cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::chunker::Sizes;
use drystone_format::config::Trust;
use drystone_format::keys::Role;
use drystone_format::{PlaceId, RootId};
use drystone_store::{Fail, Listed, Memory, Name, Op, Prefix, Put, Range, Store, Traits};
use drystone_vault::{
    Connect, CreateOptions, NewLock, NewPlace, NewSlot, PlaceChange, PlaceUse, Reach, RepairOptions, Vault,
};
use parking_lot::Mutex;

use crate::support::{Fixture, back_up, check, lines, noise};

/// The places that most tests spread over.
pub(crate) const URLS: [&str; 3] = ["mem://a", "mem://b", "mem://c"];

/// Places in memory that can be taken away, brought back and swapped.
#[derive(Clone, Default)]
pub(crate) struct World {
    stores: Arc<Mutex<BTreeMap<String, Spot>>>,
}

/// What lies at a place, and the store through which it is seen.
#[derive(Clone)]
struct Spot {
    objects: Arc<Memory>,
    seen: Arc<dyn Store>,
}

impl Connect for World {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        match self.stores.lock().get(url) {
            Some(spot) => Ok(spot.seen.clone()),
            None => Err(drystone_store::Error::NoPlace {
                place: url.to_owned(),
                advice: "gone",
            }),
        }
    }
}

impl World {
    /// A copy of everything that lies anywhere, seen as it is.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::default();
        for (url, spot) in self.stores.lock().iter() {
            copy.bring(url, Arc::new(spot.objects.as_ref().clone()));
        }
        copy
    }

    /// The URLs of all places.
    pub(crate) fn urls(&self) -> Vec<&'static str> {
        let known = ["mem://a", "mem://b", "mem://c", "mem://d"];
        let stores = self.stores.lock();
        known.into_iter().filter(|url| stores.contains_key(*url)).collect()
    }

    /// Sees a place through another store.
    pub(crate) fn show(&self, url: &str, through: impl FnOnce(Arc<Memory>) -> Arc<dyn Store>) {
        let mut stores = self.stores.lock();
        let spot = stores.get_mut(url).unwrap();
        spot.seen = through(spot.objects.clone());
    }

    /// Sees these places through stores that can be told to fail.
    pub(crate) fn failing(&self, urls: &[&str]) -> Vec<Arc<Fail>> {
        let through = |url: &&str| {
            let fail = Arc::new(Fail::new(self.store(url)));
            self.show(url, |_| fail.clone());
            fail
        };
        urls.iter().map(through).collect()
    }

    /// Sees every place as it is.
    pub(crate) fn unveil(&self) {
        for spot in self.stores.lock().values_mut() {
            spot.seen = spot.objects.clone();
        }
    }

    pub(crate) fn add(&self, url: &str) -> Arc<Memory> {
        let store = Arc::new(Memory::named(url));
        self.bring(url, store.clone());
        store
    }

    pub(crate) fn store(&self, url: &str) -> Arc<Memory> {
        self.stores.lock()[url].objects.clone()
    }

    pub(crate) fn take(&self, url: &str) -> Arc<Memory> {
        self.stores.lock().remove(url).unwrap().objects
    }

    pub(crate) fn bring(&self, url: &str, store: Arc<Memory>) {
        let spot = Spot {
            objects: store.clone(),
            seen: store,
        };
        self.stores.lock().insert(url.to_owned(), spot);
    }

    pub(crate) fn create(&self, fixture: &Fixture, urls: &[&str], (needed, total): (u8, u8)) -> Vault {
        let places = urls.iter().map(|url| self.new_place(url));
        create_over(fixture, places.collect(), (needed, total))
    }

    pub(crate) fn open(&self, fixture: &Fixture, urls: &[&str]) -> drystone_vault::Result<Vault> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let reach = Reach::open(&urls, Arc::new(self.clone()))?;
        Vault::open(reach, fixture.context(), &fixture.unlock())
    }

    pub(crate) fn new_place(&self, url: &str) -> NewPlace {
        new_place(url, self.add(url))
    }
}

/// An object without what says who made it, if it is a shard: one that is made anew is signed by whoever did that.
pub(crate) fn unsigned(name: &Name, bytes: &Bytes) -> Bytes {
    if !Prefix::Shards.covers(name) {
        return bytes.clone();
    }
    let footer = bytes.len() - drystone_format::shard::FOOTER_BYTES;
    let (made, tag) = (footer..bytes.len() - 34, bytes.len() - 24..bytes.len() - 8);
    let kept = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !made.contains(at) && !tag.contains(at));
    kept.map(|(_, byte)| *byte).collect()
}

/// A place that is used as most are.
pub(crate) fn new_place(url: &str, store: Arc<dyn Store>) -> NewPlace {
    NewPlace {
        store,
        url: url.to_owned(),
        used: PlaceUse::default(),
    }
}

/// A new vault over these places.
pub(crate) fn create_over(fixture: &Fixture, places: Vec<NewPlace>, spread: (u8, u8)) -> Vault {
    let options = CreateOptions {
        data_sizes: Sizes::new(1 << 10, 7 << 10).unwrap(),
        meta_sizes: Sizes::new(256, 1792).unwrap(),
        trust: Trust::Verified,
        slots: vec![NewSlot {
            lock: NewLock::Recipient(fixture.recipient.clone()),
            label: "test".to_owned(),
            role: Role::Owner,
        }],
    };
    Vault::create_spread(places, spread, fixture.context(), &options).unwrap()
}

pub(crate) fn repair(vault: &Vault) -> drystone_vault::Repaired {
    vault.repair(&RepairOptions::default()).unwrap()
}

pub(crate) fn some_files(seed: u64) -> Vec<(String, Vec<u8>)> {
    let file = |number| (format!("file{number}"), noise(seed * 100 + number, 20_000));
    (0..5).map(file).collect()
}

pub(crate) fn store_files(vault: &Vault, seed: u64) -> RootId {
    try_store(vault, &some_files(seed)).unwrap()
}

/// Files for tests with many cases.
pub(crate) fn small_files(seed: u64) -> Vec<(String, Vec<u8>)> {
    let file = |number| (format!("file{number}"), noise(seed * 100 + number, 3_000));
    (0..3).map(file).collect()
}

pub(crate) fn store_small(vault: &Vault, seed: u64) -> RootId {
    try_store(vault, &small_files(seed)).unwrap()
}

pub(crate) fn try_store(vault: &Vault, content: &[(String, Vec<u8>)]) -> drystone_vault::Result<RootId> {
    let borrowed: Vec<(&str, &[u8])> = content.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    Ok(back_up(vault, &borrowed)?.0)
}

pub(crate) fn assert_whole(vault: &Vault) {
    let plan = vault.redundancy().unwrap();
    assert_eq!((plan.owed_packs, plan.lost_packs), (0, 0), "{plan:?}");
    assert_eq!((plan.unreached_packs, plan.leftover_packs), (0, 0), "{plan:?}");
    assert!(plan.packs > 0);
    let report = check(vault);
    assert!(report.problems.is_empty(), "{}", lines(&report.problems));
}

pub(crate) fn change(add: Vec<NewPlace>, remove: Vec<PlaceId>, spread: Option<(u8, u8)>) -> PlaceChange {
    PlaceChange { add, remove, spread }
}

/// Does something once, at a chosen one of the calls that it counts, whichever places they are to.
pub(crate) struct Switch {
    at: AtomicU64,
    counted: AtomicU64,
    counts: fn(Op) -> bool,
    act: Box<dyn Fn(&Fail) + Send + Sync>,
}

impl Switch {
    /// Calls `act` with the place that is about to get the call number `at`, from 0, of those that `counts` means.
    pub(crate) fn new(at: u64, counts: fn(Op) -> bool, act: impl Fn(&Fail) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            at: AtomicU64::new(at),
            counted: AtomicU64::new(0),
            counts,
            act: Box::new(act),
        })
    }

    /// Calls so far.
    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::SeqCst)
    }

    /// Acts at this call from now on, from 0, instead.
    pub(crate) fn arm(&self, calls: u64) {
        self.at.store(self.counted() + calls, Ordering::SeqCst);
    }

    fn pass(&self, op: Op, place: &Fail) {
        if (self.counts)(op) && self.counted.fetch_add(1, Ordering::SeqCst) == self.at.load(Ordering::SeqCst) {
            (self.act)(place);
        }
    }
}

/// A place at which every call passes a switch first.
pub(crate) struct Switched {
    pub(crate) inner: Arc<Fail>,
    pub(crate) switch: Arc<Switch>,
}

impl std::fmt::Debug for Switched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Switched({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Switched {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        self.switch.pass(Op::Put, &self.inner);
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        self.switch.pass(Op::Get, &self.inner);
        self.inner.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> drystone_store::Result<u64> {
        self.switch.pass(Op::Stat, &self.inner);
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        self.switch.pass(Op::List, &self.inner);
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> drystone_store::Result<()> {
        self.switch.pass(Op::Delete, &self.inner);
        self.inner.delete(name).await
    }
}
