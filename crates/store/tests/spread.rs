//! The spread store: every promise of a store, whatever up to n - k of its places do.

mod costs;
mod faults;
mod lies;
mod rebalancing;
mod simulation;
mod spares;
mod suite;
mod timing;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::keys::Secrets;
use drystone_format::shard::ShardKeys;
use drystone_format::{PlaceId, Random, RegistrationId, VaultId, id};
use drystone_store::record::Call;
use drystone_store::spread::{Access, Judge, PackHoldings, Rebalanced, Verify};
use drystone_store::{
    Fail, Kind, Memory, Name, Op, Prefix, Range, Record, RootKind, RootName, ShardId, Spread, SpreadOptions,
    SpreadPlace, Store,
};

/// Longer than any test takes unless time is paused.
const HEDGE_AFTER: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_secs(300);

/// Small objects are sound unless they begin with `bad`.
pub(crate) struct Bad;

impl Judge for Bad {
    fn is_sound(&self, _: &Name, bytes: &[u8]) -> bool {
        !bytes.starts_with(b"bad")
    }
}

/// The same bytes again and again, beginning with this one.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

fn owner(seed: u8) -> Secrets {
    Secrets::generate(&mut Counting(seed), VaultId([seed; 16])).unwrap()
}

fn keys() -> ShardKeys {
    ShardKeys::new(&owner(7))
}

/// A present place, as any other.
fn place(n: u8, store: Arc<dyn Store>) -> SpreadPlace {
    SpreadPlace {
        id: PlaceId([n; 16]),
        access: Access::Present(store),
        weight: NonZeroU32::new(1),
        cold: false,
        append_only: false,
    }
}

fn options(needed: u8, total: u8, places: Vec<SpreadPlace>) -> SpreadOptions {
    SpreadOptions {
        needed,
        total,
        places,
        keys: keys(),
        judge: Arc::new(Bad),
        hedge_after: HEDGE_AFTER,
        rest: REST,
    }
}

/// A spread whose places can be failed, counted and looked into.
struct World {
    needed: u8,
    total: u8,
    memories: Vec<Arc<Memory>>,
    fails: Vec<Arc<Fail>>,
    records: Vec<Arc<Record>>,
    spread: Spread,
}

impl World {
    fn new(needed: u8, total: u8, places: usize) -> Self {
        let memories = (0..places).map(|_| Arc::new(Memory::new())).collect();
        Self::over(needed, total, memories)
    }

    fn over(needed: u8, total: u8, memories: Vec<Arc<Memory>>) -> Self {
        Self::with(needed, total, memories, |_| {})
    }

    fn with(needed: u8, total: u8, memories: Vec<Arc<Memory>>, change: impl FnOnce(&mut SpreadOptions)) -> Self {
        let fail = |memory: &Arc<Memory>| Arc::new(Fail::new(Arc::clone(memory) as Arc<dyn Store>));
        let fails: Vec<Arc<Fail>> = memories.iter().map(fail).collect();
        let record = |fail: &Arc<Fail>| Arc::new(Record::new(Arc::clone(fail) as Arc<dyn Store>));
        let records: Vec<Arc<Record>> = fails.iter().map(record).collect();
        let stores = records.iter().map(|record| Arc::clone(record) as Arc<dyn Store>);
        let places = (0..).zip(stores).map(|(n, store)| place(n, store)).collect();
        let mut options = options(needed, total, places);
        change(&mut options);
        Self {
            needed,
            total,
            memories,
            fails,
            records,
            spread: Spread::new(options).unwrap(),
        }
    }

    /// The same places, opened again: nothing is remembered, and those of `absent` are not there.
    fn reopened(&self, absent: &[usize]) -> Self {
        let memories = self.memories.iter().map(Arc::clone).collect();
        Self::with(self.needed, self.total, memories, |options| {
            for place in absent {
                options.places[*place].access = gone(*place);
            }
        })
    }

    /// Calls of this kind to all places since the last time.
    fn calls(&self, op: Op) -> Vec<Call> {
        let calls = self.records.iter().flat_map(|record| record.take());
        calls.filter(|call| call.op == op).collect()
    }

    /// Everything that places hold of packs.
    async fn holdings(&self) -> Vec<PackHoldings> {
        let mut all: Vec<PackHoldings> = Vec::new();
        loop {
            let after = all.last().map(|last| last.pack);
            let page = self.spread.holdings(after.as_ref(), 7).await.unwrap();
            if page.packs.is_empty() {
                return all;
            }
            all.extend(page.packs);
        }
    }

    /// Settles everything.
    async fn rebalance(&self, verify: Verify) -> Vec<Rebalanced> {
        let mut rebalanced = Vec::new();
        for holdings in self.holdings().await {
            rebalanced.push(self.spread.rebalance(&holdings, verify).await.unwrap());
        }
        self.spread.replicate_small(&Prefix::All).await.unwrap();
        rebalanced
    }

    /// Asserts that every object can be read in every way and is listed with its length.
    async fn assert_whole(&self, objects: &[(Name, Bytes)], what: &str) {
        for (name, bytes) in objects {
            let len = bytes.len() as u64;
            let before = (len / 2).saturating_sub(5);
            let middle = from(before, 10.min(len - before));
            for range in [Range::Last(20), Range::All, from(0, 1), middle, from(len, 0)] {
                let got = self.spread.get(name, range).await;
                assert!(got.is_ok(), "{what}: {name} {range:?}: {}", got.unwrap_err());
                assert!(got.unwrap() == part(bytes, range), "{what}: {name} {range:?} differs");
            }
            assert_eq!(self.spread.stat(name).await.unwrap(), len, "{what}: {name}");
        }
        let mut expected: Vec<(Name, u64)> = objects
            .iter()
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect();
        expected.sort();
        let mut listed: Vec<(Name, u64)> = Vec::new();
        loop {
            let after = listed.last().map(|(name, _)| name.clone());
            let page = self.spread.list(&Prefix::All, after.as_ref(), 3).await;
            assert!(page.is_ok(), "{what}: {}", page.unwrap_err());
            let page = page.unwrap();
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|listed| (listed.name, listed.size)));
        }
        assert_eq!(listed, expected, "{what}");
    }

    async fn assert_readable(&self, objects: &[(Name, Bytes)]) {
        for (name, bytes) in objects {
            assert!(
                self.spread.get(name, Range::All).await.unwrap() == *bytes,
                "{name} differs"
            );
        }
    }

    async fn put_all(&self, objects: &[(Name, Bytes)]) {
        for (name, bytes) in objects {
            self.spread.put(name, bytes.clone()).await.unwrap();
        }
    }

    /// The place of each shard of a pack that is stored as it should be.
    fn homes(&self, pack: &Name) -> Vec<usize> {
        let home = |number| {
            let name = shard(pack, self.needed, number);
            self.memories
                .iter()
                .position(|memory| memory.contents().contains_key(&name))
        };
        (0..self.total).map(|number| home(number).unwrap()).collect()
    }
}

fn gone(n: usize) -> Access {
    Access::Absent {
        place: format!("place {n}"),
        reason: "it is not mounted".to_string(),
    }
}

/// The name of a shard of a pack.
fn shard(pack: &Name, needed: u8, number: u8) -> Name {
    match pack.kind() {
        Kind::Pack(pack) => Name::shard(&ShardId { pack, needed, number }),
        _ => panic!("{pack} is no pack"),
    }
}

/// A pack of which no two parts are alike.
fn pack(n: u64, len: usize) -> (Name, Bytes) {
    let word = |at: u64| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ n).to_le_bytes();
    let bytes: Bytes = (0..len as u64 / 8 + 1).flat_map(word).take(len).collect();
    (Name::pack(&id::pack_id(&bytes)), bytes)
}

fn from(offset: u64, len: u64) -> Range {
    Range::From { offset, len }
}

fn part(bytes: &Bytes, range: Range) -> Bytes {
    match range {
        Range::All => bytes.clone(),
        Range::From { offset, len } => bytes.slice(offset as usize..(offset + len) as usize),
        Range::Last(len) => bytes.slice(bytes.len().saturating_sub(len as usize)..),
    }
}

/// The name of a root with these bytes.
fn root(bytes: &[u8]) -> Name {
    Name::root(&RootName {
        kind: RootKind::SNAPSHOT,
        registration: RegistrationId([7; 16]),
        number: 0,
        hash: id::object_hash(bytes),
    })
}

/// Packs of several lengths and small objects.
fn objects() -> Vec<(Name, Bytes)> {
    let mut objects: Vec<(Name, Bytes)> = [30, 5000, 70_000, 200_001]
        .into_iter()
        .map(|len| pack(len as u64, len))
        .collect();
    for n in 0..3 {
        let bytes = Bytes::from(format!("the root with number {n}"));
        objects.push((root(&bytes), bytes));
    }
    objects.push((Name::header(), "the header of the vault".into()));
    objects
}

/// All ways to choose `count` of `places`.
fn choices(places: usize, count: usize) -> Vec<Vec<usize>> {
    let masks = 0_u32..1 << places;
    masks
        .filter(|mask| mask.count_ones() as usize == count)
        .map(|mask| (0..places).filter(|place| mask >> place & 1 == 1).collect())
        .collect()
}

fn wipe(memory: &Memory) {
    for name in memory.contents().keys() {
        memory.remove(name);
    }
}
