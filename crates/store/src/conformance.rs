//! The conformance suite: what every store and every decorator promises, as tests that panic where it is not so.
//!
//! - Each check gets a fresh, empty place.
//! - Needs a tokio runtime, one with several threads for the races to be real.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test suite, compiled for tests only")]

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::id::object_hash;
use drystone_format::{PackId, RegistrationId, RootId, SlotId};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::{Error, Listed, Name, Prefix, Put, Range, RootKind, RootName, ShardId, Store};

/// Rounds of each race: enough for a store that checks before it renames to fail nearly always.
const RACE_ROUNDS: u8 = 20;
/// Rounds at a place that is slow.
const RACE_ROUNDS_SLOW: u8 = 4;
/// Writers of each race.
const RACE_WRITERS: u8 = 8;

/// Runs all checks, each on a place made by `make`.
///
/// # Panics
/// Where the store breaks a promise.
pub async fn suite(make: impl Fn() -> Arc<dyn Store>) {
    objects_come_and_go(&*make()).await;
    ranges(&*make()).await;
    sizes(&*make()).await;
    limits(&*make()).await;
    existing_objects_stay(&*make()).await;
    damaged_packs_are_replaced(&*make()).await;
    what_is_missing(&*make()).await;
    listings(&*make()).await;
    listings_of_nothing(&*make()).await;
    races_leave_one_whole(make()).await;
    many_at_once(make()).await;
}

/// A name of each kind for an object with these bytes, and two in several directories; `n` and the bytes tell them apart.
fn names(n: u8, bytes: &[u8]) -> Vec<Name> {
    let (number, hash, registration) = (n.into(), object_hash(bytes), RegistrationId([n; 16]));
    vec![
        Name::config(number, &hash),
        Name::epoch(number, &hash),
        Name::index(&registration, number, &hash),
        Name::key(&SlotId([n; 16])),
        Name::ledger(number, &hash),
        Name::pack(&PackId([n; 32])),
        Name::pack(&PackId([n | 0x80; 32])),
        root(RootKind::HEAD, n, hash),
        root(RootKind::SNAPSHOT, n, hash),
        Name::verified(&hash),
        Name::writer(&registration, number, &hash),
    ]
}

fn root(kind: RootKind, n: u8, hash: RootId) -> Name {
    Name::root(&RootName {
        kind,
        registration: RegistrationId([n; 16]),
        number: n.into(),
        hash,
    })
}

fn pack(n: u8) -> Name {
    Name::pack(&PackId([n; 32]))
}

/// Bytes that differ from place to place, so that a wrong offset shows.
fn pattern(len: usize) -> Bytes {
    let word = |n: usize| (n as u32).wrapping_mul(0x9e37_79b1).to_le_bytes();
    (0..len.div_ceil(4)).flat_map(word).take(len).collect()
}

async fn objects_come_and_go(store: &dyn Store) {
    assert!(!store.place().is_empty());
    let bytes = Bytes::from_static(b"object");
    let mut all = names(1, &bytes);
    all.push(Name::header());
    for name in &all {
        assert_eq!(store.put(name, bytes.clone()).await.unwrap(), Put::Created, "{name}");
        assert_eq!(store.get(name, Range::All).await.unwrap(), bytes, "{name}");
        assert_eq!(store.stat(name).await.unwrap(), bytes.len() as u64, "{name}");
    }
    for name in &all {
        store.delete(name).await.unwrap();
        assert!(store.get(name, Range::All).await.unwrap_err().is_not_found(), "{name}");
        store.delete(name).await.unwrap();
        assert_eq!(store.put(name, bytes.clone()).await.unwrap(), Put::Created, "{name}");
        assert_eq!(store.get(name, Range::All).await.unwrap(), bytes, "{name}");
    }
}

async fn ranges(store: &dyn Store) {
    let (name, bytes) = (pack(1), pattern(1000));
    store.put(&name, bytes.clone()).await.unwrap();
    for (offset, len) in [(0, 0), (0, 1), (0, 1000), (1, 999), (500, 7), (999, 1), (1000, 0)] {
        let got = store.get(&name, Range::From { offset, len }).await.unwrap();
        assert_eq!(
            got,
            bytes.slice(offset as usize..(offset + len) as usize),
            "{offset}+{len}"
        );
    }
    for len in [0_usize, 1, 999, 1000, 1001, 1 << 40] {
        let got = store.get(&name, Range::Last(len as u64)).await.unwrap();
        assert_eq!(got, bytes.slice(1000_usize.saturating_sub(len)..), "last {len}");
    }
    for (offset, len) in [
        (0, 1001),
        (1000, 1),
        (999, 2),
        (1001, 0),
        (0, 1 << 50),
        (u64::MAX, 1),
        (1, u64::MAX),
    ] {
        match store.get(&name, Range::From { offset, len }).await.unwrap_err() {
            Error::Short {
                name: found,
                size: 1000,
                wanted,
                ..
            } => {
                assert_eq!((found, wanted), (name.to_string(), offset.saturating_add(len)));
            }
            other => panic!("{offset}+{len}: {other}"),
        }
    }
}

async fn sizes(store: &dyn Store) {
    // Those beside whole blocks are for stores that write in aligned blocks: the remainder must not be lost.
    for (n, len) in [
        (1, 1),
        (2, 2),
        (3, 4096),
        (4, 8 << 20),
        (5, (1 << 20) - 1),
        (6, (1 << 20) + 1),
        (7, (9 << 20) + 4097),
    ] {
        let (name, bytes) = (pack(n), pattern(len));
        assert_eq!(store.put(&name, bytes.clone()).await.unwrap(), Put::Created);
        assert_eq!(store.stat(&name).await.unwrap(), len as u64);
        assert!(
            store.get(&name, Range::All).await.unwrap() == bytes,
            "{len} bytes differ"
        );
        assert!(
            store.get(&name, Range::Last(len as u64)).await.unwrap() == bytes,
            "last {len} bytes differ"
        );
        assert_eq!(store.put(&name, bytes).await.unwrap(), Put::Existed);
    }
}

async fn limits(store: &dyn Store) {
    let name = Name::key(&SlotId([1; 16]));
    let limit = name.max_bytes();
    let most = pattern(limit as usize);
    let error = store.put(&name, pattern(limit as usize + 1)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size, limit: found, .. } if size == limit + 1 && found == limit));
    assert!(store.stat(&name).await.unwrap_err().is_not_found());
    assert_eq!(store.put(&name, most.clone()).await.unwrap(), Put::Created);
    assert!(store.get(&name, Range::All).await.unwrap() == most);
}

async fn existing_objects_stay(store: &dyn Store) {
    let hash = object_hash(b"first");
    for name in [
        Name::header(),
        Name::key(&SlotId([1; 16])),
        root(RootKind::SNAPSHOT, 1, hash),
    ] {
        assert_eq!(
            store.put(&name, Bytes::from_static(b"first")).await.unwrap(),
            Put::Created
        );
        for other in ["other", "longer than the first", ""] {
            // A spread tells that it is not what lies there; a place need not know.
            let put = store.put(&name, other.into()).await;
            assert!(
                matches!(put, Ok(Put::Existed) | Err(Error::Taken { .. })),
                "{name}: {put:?}"
            );
        }
        assert_eq!(store.get(&name, Range::All).await.unwrap(), "first", "{name}");
    }
}

async fn damaged_packs_are_replaced(store: &dyn Store) {
    let shard = ShardId {
        pack: PackId([1; 32]),
        needed: 2,
        number: 1,
    };
    let whole = pattern(5000);
    let mut names = vec![pack(1)];
    // A spread has no names for shards.
    if !matches!(store.stat(&Name::shard(&shard)).await, Err(Error::OnePlace { .. })) {
        names.push(Name::shard(&shard));
    }
    for name in &names {
        store.put(name, whole.slice(..1234)).await.unwrap();
        assert_eq!(store.put(name, whole.clone()).await.unwrap(), Put::Created, "{name}");
        assert_eq!(store.get(name, Range::All).await.unwrap(), whole, "{name}");
        assert_eq!(store.put(name, whole.clone()).await.unwrap(), Put::Existed, "{name}");
    }
    let listed = names.into_iter().map(|name| Listed { name, size: 5000 });
    assert_eq!(list(store, Prefix::All, 10).await, listed.collect::<Vec<_>>());
}

async fn what_is_missing(store: &dyn Store) {
    store.put(&pack(1), pattern(10)).await.unwrap();
    let mut missing = names(2, b"missing");
    missing.push(Name::header());
    for name in &missing {
        for range in [Range::All, Range::Last(1), Range::From { offset: 0, len: 0 }] {
            match store.get(name, range).await.unwrap_err() {
                Error::NotFound { name: found, place } => {
                    assert_eq!((found.as_str(), &*place), (name.as_str(), store.place()))
                }
                other => panic!("{name}: {other}"),
            }
        }
        assert!(store.stat(name).await.unwrap_err().is_not_found(), "{name}");
        store.delete(name).await.unwrap();
    }
}

/// All of a prefix, read in pages of `limit`.
async fn list(store: &dyn Store, prefix: Prefix, limit: usize) -> Vec<Listed> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let page = store
            .list(&prefix, all.last().map(|last| &last.name), limit)
            .await
            .unwrap();
        assert!(page.len() <= limit, "{} objects in a page of {limit}", page.len());
        if page.is_empty() {
            return all;
        }
        // A store that repeats itself would never come to an end.
        assert!(
            all.last()
                .is_none_or(|last| page.iter().all(|listed| listed.name > last.name)),
            "{prefix} goes back"
        );
        all.extend(page);
    }
}

async fn listings(store: &dyn Store) {
    let mut expected = vec![Listed {
        name: Name::header(),
        size: 8,
    }];
    let (count, limits) = if store.traits().slow {
        (8, [5, 7, 1000])
    } else {
        (30, [1, 7, 1000])
    };
    for n in (0..count).rev() {
        expected.extend(names(n, &pattern(usize::from(n) + 1)).into_iter().map(|name| Listed {
            name,
            // No pack is empty.
            size: u64::from(n) + 1,
        }));
    }
    for listed in &expected {
        store.put(&listed.name, pattern(listed.size as usize)).await.unwrap();
    }
    expected.sort_by(|one, other| one.name.cmp(&other.name));
    for prefix in [
        Prefix::All,
        Prefix::Keys,
        Prefix::Packs,
        Prefix::Roots(RootKind::SNAPSHOT),
        Prefix::Verified,
        Prefix::Writers,
        Prefix::Epochs,
        Prefix::Config,
    ] {
        let covered: Vec<Listed> = expected
            .iter()
            .filter(|listed| prefix.covers(&listed.name))
            .cloned()
            .collect();
        for limit in limits {
            assert_eq!(
                list(store, prefix, limit).await,
                covered,
                "{prefix} in pages of {limit}"
            );
        }
    }
    // `after` need not exist, nor be covered.
    for after in names(200, b"not there")
        .into_iter()
        .chain(names(7, &pattern(8)))
        .chain([Name::header(), pack(0xff)])
    {
        for prefix in [Prefix::All, Prefix::Packs, Prefix::Keys] {
            let is_listed = |listed: &&Listed| listed.name > after && prefix.covers(&listed.name);
            let rest: Vec<Listed> = expected.iter().filter(is_listed).cloned().collect();
            assert_eq!(
                store.list(&prefix, Some(&after), 1000).await.unwrap(),
                rest,
                "{prefix} after {after}"
            );
        }
    }
    store.delete(&pack(5)).await.unwrap();
    expected.retain(|listed| listed.name != pack(5));
    assert_eq!(list(store, Prefix::All, 50).await, expected);
}

async fn listings_of_nothing(store: &dyn Store) {
    for prefix in [
        Prefix::All,
        Prefix::Keys,
        Prefix::Packs,
        Prefix::Roots(RootKind::SNAPSHOT),
        Prefix::Verified,
        Prefix::Writers,
        Prefix::Epochs,
        Prefix::Config,
    ] {
        assert_eq!(store.list(&prefix, None, 10).await.unwrap(), []);
        assert_eq!(store.list(&prefix, Some(&Name::header()), 10).await.unwrap(), []);
    }
}

async fn races_leave_one_whole(store: Arc<dyn Store>) {
    let rounds = if store.traits().slow {
        RACE_ROUNDS_SLOW
    } else {
        RACE_ROUNDS
    };
    for round in 0..rounds {
        // The bytes differ in length too, except for packs, whose names say what they are.
        for (name, by_hash) in [(Name::key(&SlotId([round; 16])), false), (pack(round), true)] {
            let outcomes = race(&store, &name, by_hash).await;
            let winners: Vec<&Bytes> = outcomes
                .iter()
                .filter(|(put, ..)| *put == Put::Created)
                .map(|(_, bytes, _)| bytes)
                .collect();
            let stays = store.get(&name, Range::All).await.unwrap();
            let written: Vec<&Bytes> = outcomes.iter().map(|(_, bytes, _)| bytes).collect();
            assert!(written.contains(&&stays), "{name}: what stays was never written");
            for (_, _, found) in &outcomes {
                assert!(written.contains(&found), "{name}: torn");
            }
            if store.traits().exclusive_create {
                assert_eq!(winners, [&stays], "winners of {name}");
                for (_, _, found) in &outcomes {
                    assert_eq!(found, &stays, "{name}");
                }
            }
            assert_eq!(list(&*store, Prefix::All, 1000).await.len(), 1, "{name}");
            store.delete(&name).await.unwrap();
        }
    }
}

/// Several puts of one name at once; what each was told, wrote, and found there afterwards.
async fn race(store: &Arc<dyn Store>, name: &Name, by_hash: bool) -> Vec<(Put, Bytes, Bytes)> {
    let barrier = Arc::new(Barrier::new(usize::from(RACE_WRITERS)));
    let mut writers = JoinSet::new();
    for writer in 0..RACE_WRITERS {
        let (store, name, barrier) = (Arc::clone(store), name.clone(), Arc::clone(&barrier));
        let bytes = Bytes::from(if by_hash {
            vec![0; 9999]
        } else {
            vec![writer; 10 + usize::from(writer)]
        });
        writers.spawn(async move {
            barrier.wait().await;
            let put = match store.put(&name, bytes.clone()).await {
                Err(Error::Taken { .. }) => Put::Existed,
                outcome => outcome.unwrap(),
            };
            (put, bytes, store.get(&name, Range::All).await.unwrap())
        });
    }
    writers.join_all().await
}

async fn many_at_once(store: Arc<dyn Store>) {
    let mut writers = JoinSet::new();
    let count: u8 = if store.traits().slow { 16 } else { 64 };
    for n in 0..count {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let bytes = pattern(usize::from(n) * 100 + 1);
            for name in names(n, &bytes) {
                store.put(&name, bytes.clone()).await.unwrap();
                assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
            }
        });
    }
    writers.join_all().await;
    assert_eq!(
        list(&*store, Prefix::All, 100).await.len(),
        usize::from(count) * names(0, b"").len()
    );
}
