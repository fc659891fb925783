//! What each decorator adds.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::{RootId, SlotId};
use drystone_store::fail::{Failure, Fault};
use drystone_store::limit::Limits;
use drystone_store::record::Call;
use drystone_store::retry::Policy;
use drystone_store::{Delay, Error, Fail, Limit, Memory, Name, Op, Prefix, Put, Range, Record, Retry, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::pack;

const POLICY: Policy = Policy {
    attempts: 4,
    first_delay: Duration::from_secs(1),
    max_delay: Duration::from_secs(3),
    seed: 7,
};

fn failing() -> Arc<Fail> {
    Arc::new(Fail::new(Arc::new(Memory::new())))
}

fn key() -> Name {
    Name::key(&SlotId([1; 16]))
}

#[tokio::test]
async fn record_tells_operations_names_and_bytes() {
    let store = Record::new(Arc::new(Memory::new()));
    let (name, bytes) = pack(1, 100);
    store.put(&name, bytes).await.unwrap();
    store.get(&name, Range::Last(30)).await.unwrap();
    store.get(&key(), Range::All).await.unwrap_err();
    store.list(&Prefix::Packs, None, 10).await.unwrap();
    assert_eq!(
        (store.count(Op::Get), store.bytes(Op::Get), store.bytes(Op::Put)),
        (2, 30, 100)
    );
    let call = |op, name: &dyn ToString, bytes| Call {
        op,
        name: name.to_string(),
        bytes,
    };
    let expected = [
        call(Op::Put, &name, 100),
        call(Op::Get, &name, 30),
        call(Op::Get, &key(), 0),
        call(Op::List, &Prefix::Packs, 0),
    ];
    assert_eq!(store.take(), expected);
    assert_eq!(store.take(), []);
}

#[tokio::test(start_paused = true)]
async fn retry_repeats_what_passes_with_growing_delays() {
    let fail = failing();
    let record = Arc::new(Record::new(fail.clone()));
    let store = Retry::new(record.clone(), POLICY);
    for nth in [1, 2, 3] {
        fail.add(Fault::error(Op::Put, Failure::Unavailable).nth(nth));
    }
    let started = Instant::now();
    assert_eq!(store.put(&key(), Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    assert_eq!(record.count(Op::Put), 4);
    // Half to all of 1 + 2 + 3 seconds.
    let waited = started.elapsed();
    assert!(
        (Duration::from_secs(3)..=Duration::from_secs(7)).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_gives_up_in_the_end_and_at_once_on_what_does_not_pass() {
    let fail = failing();
    let record = Arc::new(Record::new(fail.clone()));
    let store = Retry::new(record.clone(), POLICY);
    fail.add(Fault::error(Op::List, Failure::Unavailable));
    assert!(store.list(&Prefix::All, None, 10).await.unwrap_err().is_transient());
    assert_eq!(record.take().len(), 4);
    for failure in [
        Failure::NotFound,
        Failure::Full,
        Failure::Denied,
        Failure::ReadOnly,
        Failure::Io,
    ] {
        fail.clear();
        fail.add(Fault::error(Op::Get, failure));
        assert!(!store.get(&key(), Range::All).await.unwrap_err().is_transient());
        assert_eq!(record.take().len(), 1, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_delays_depend_on_the_seed() {
    let mut waits = Vec::new();
    for seed in [1, 1, 2] {
        let fail = failing();
        fail.add(Fault::error(Op::Stat, Failure::Unavailable));
        let store = Retry::new(fail, Policy { seed, ..POLICY });
        let started = Instant::now();
        store.stat(&key()).await.unwrap_err();
        waits.push(started.elapsed());
    }
    assert_eq!(waits[0], waits[1]);
    assert_ne!(waits[0], waits[2]);
}

#[tokio::test(start_paused = true)]
async fn retry_spreads_calls_that_fail_together() {
    let fail = failing();
    fail.add(Fault::error(Op::Stat, Failure::Unavailable));
    let store = Arc::new(Retry::new(fail, Policy { attempts: 2, ..POLICY }));
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        calls.spawn(async move {
            store.stat(&key()).await.unwrap_err();
            started.elapsed()
        });
    }
    let mut in_each = [0; 10];
    for waited in calls.join_all().await {
        let tenth = waited.saturating_sub(Duration::from_millis(500)).as_millis() / 50;
        in_each[usize::try_from(tenth).unwrap().min(9)] += 1;
    }
    assert!(in_each.iter().all(|count| (8..=36).contains(count)), "{in_each:?}");
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_reply_was_lost_is_still_ours() {
    let fail = failing();
    let store = Retry::new(fail.clone(), POLICY);
    fail.add(Fault::lost_reply(Op::Put).nth(1));
    assert_eq!(
        store.put(&Name::header(), Bytes::from_static(b"ours")).await.unwrap(),
        Put::Created
    );
    fail.add(Fault::error(Op::Put, Failure::Unavailable).nth(1));
    assert_eq!(
        store.put(&Name::header(), Bytes::from_static(b"else")).await.unwrap(),
        Put::Existed
    );
}

#[tokio::test]
async fn a_torn_pack_is_mended_by_the_next_put() {
    let fail = failing();
    let (name, bytes) = pack(1, 1000);
    fail.add(Fault::torn_put(400).nth(1));
    assert!(fail.put(&name, bytes.clone()).await.unwrap_err().is_transient());
    assert_eq!(fail.stat(&name).await.unwrap(), 400);
    assert_eq!(fail.put(&name, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(fail.get(&name, Range::All).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn faults_meet_the_calls_they_are_meant_for() {
    let fail = failing();
    let root = Name::verified(&RootId([1; 16]));
    let (name, bytes) = pack(1, 1000);
    fail.add(Fault::error(Op::Put, Failure::Full).only(Prefix::Packs).nth(2));
    fail.add(Fault::error(Op::List, Failure::Io).only(Prefix::Keys));
    fail.add(Fault::short_get(10).nth(1));
    fail.add(Fault::altered_get().nth(2));
    fail.add(Fault::delay(Op::Delete, Duration::from_secs(5)));
    assert_eq!(fail.put(&name, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(fail.put(&root, bytes.clone()).await.unwrap(), Put::Created);
    assert!(matches!(fail.put(&name, bytes.clone()).await, Err(Error::Full { .. })));
    assert_eq!(fail.put(&name, bytes.clone()).await.unwrap(), Put::Existed);
    assert!(matches!(
        fail.list(&Prefix::Keys, None, 10).await,
        Err(Error::Io { .. })
    ));
    assert_eq!(fail.list(&Prefix::All, None, 10).await.unwrap().len(), 2);
    assert_eq!(fail.get(&name, Range::All).await.unwrap(), bytes.slice(..990));
    let altered = fail.get(&name, Range::All).await.unwrap();
    let differing: u32 = altered
        .iter()
        .zip(&bytes)
        .map(|(one, other)| (one ^ other).count_ones())
        .sum();
    assert_eq!((altered.len(), differing), (1000, 1));
    assert_eq!(fail.get(&name, Range::All).await.unwrap(), bytes);
    let started = Instant::now();
    fail.delete(&name).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn limit_keeps_the_rate_over_all_tasks() {
    let limits = Limits {
        put_bytes_per_s: NonZeroU64::new(1000),
        get_bytes_per_s: NonZeroU64::new(500),
        requests: None,
    };
    let store = Arc::new(Limit::new(Arc::new(Memory::new()), limits));
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for n in 0..11 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let (name, bytes) = pack(n, 1000);
            store.put(&name, bytes).await.unwrap();
        });
    }
    writers.join_all().await;
    // The first goes at once, each other waits for those before it.
    let elapsed = started.elapsed();
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(11)).contains(&elapsed),
        "{elapsed:?}"
    );

    let started = Instant::now();
    let (name, _) = pack(0, 1000);
    for range in [Range::All, Range::From { offset: 0, len: 500 }, Range::Last(1)] {
        store.get(&name, range).await.unwrap();
    }
    let elapsed = started.elapsed();
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(4)).contains(&elapsed),
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn limit_keeps_the_count_of_requests() {
    let fail = failing();
    fail.add(Fault::delay(Op::Stat, Duration::from_secs(1)));
    let limits = Limits {
        requests: NonZeroUsize::new(3),
        ..Limits::default()
    };
    let store = Arc::new(Limit::new(fail, limits));
    let started = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..12 {
        let store = Arc::clone(&store);
        readers.spawn(async move { store.stat(&key()).await.unwrap_err() });
    }
    readers.join_all().await;
    let elapsed = started.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(5)).contains(&elapsed),
        "{elapsed:?}"
    );
}

/// A place that hangs for a minute and then says so, and counts who asked.
#[derive(Debug, Default)]
struct Hangs(std::sync::atomic::AtomicU32);

impl Hangs {
    async fn hang<T>(&self) -> drystone_store::Result<T> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        Err(Error::Silent {
            name: "x".to_string(),
            place: "hangs".to_string(),
            reason: "it sends nothing".to_string(),
        })
    }

    fn calls(&self) -> u32 {
        self.0.swap(0, std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Store for Hangs {
    fn place(&self) -> &str {
        "hangs"
    }

    fn traits(&self) -> drystone_store::Traits {
        Memory::new().traits()
    }

    async fn put(&self, _: &Name, _: Bytes) -> drystone_store::Result<Put> {
        self.hang().await
    }

    async fn get(&self, _: &Name, _: Range) -> drystone_store::Result<Bytes> {
        self.hang().await
    }

    async fn stat(&self, _: &Name) -> drystone_store::Result<u64> {
        self.hang().await
    }

    async fn list(
        &self,
        _: &Prefix,
        _: Option<&Name>,
        _: usize,
    ) -> drystone_store::Result<Vec<drystone_store::Listed>> {
        self.hang().await
    }

    async fn delete(&self, _: &Name) -> drystone_store::Result<()> {
        self.hang().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_costs_two_waits_and_then_rests() {
    let hangs = Arc::new(Hangs::default());
    let store = Retry::new(hangs.clone(), POLICY);
    let name = Name::header();
    assert!(matches!(store.stat(&name).await, Err(Error::Silent { .. })));
    assert_eq!(hangs.calls(), 2);
    assert!(matches!(
        store.list(&Prefix::All, None, 1).await,
        Err(Error::Silent { .. })
    ));
    assert!(matches!(store.put(&name, "x".into()).await, Err(Error::Silent { .. })));
    assert_eq!(hangs.calls(), 0, "it is left alone");
    tokio::time::advance(drystone_store::retry::REST).await;
    assert!(store.delete(&name).await.is_err());
    assert_eq!(hangs.calls(), 2, "it gets another chance");
}

#[tokio::test(start_paused = true)]
async fn the_wish_to_stop_ends_every_call_within_a_second() {
    use drystone_store::stop::GRACE;
    let stop = drystone_store::Stop::default();
    let hangs: Arc<dyn Store> = Arc::new(Retry::new(Arc::new(Hangs::default()), POLICY));
    let store = Arc::new(drystone_store::Stoppable::new(hangs, stop.clone()));
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.get(&Name::header(), Range::All).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    let asked = tokio::time::Instant::now();
    stop.ask();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Stopped { .. })));
    assert_eq!(asked.elapsed(), GRACE);
    assert!(GRACE < Duration::from_secs(1));
    let name = Name::header();
    for outcome in [
        store.put(&name, "x".into()).await.map(drop),
        store.stat(&name).await.map(drop),
        store.list(&Prefix::All, None, 1).await.map(drop),
        store.delete(&name).await,
    ] {
        assert!(matches!(outcome, Err(Error::Stopped { .. })), "{outcome:?}");
    }
    assert_eq!(asked.elapsed(), GRACE, "later calls end at once");
    // What answers at once is still done within the grace.
    let stop = drystone_store::Stop::default();
    let store = drystone_store::Stoppable::new(Arc::new(Memory::new()), stop.clone());
    stop.ask();
    assert_eq!(store.put(&name, "x".into()).await.unwrap(), Put::Created);
}

#[tokio::test(start_paused = true)]
async fn delay_makes_every_call_wait_however_many_there_are_at_once() {
    let round_trip = Duration::from_millis(20);
    let store = Arc::new(Delay::new(Arc::new(Memory::new()), round_trip));
    assert!(store.traits().slow && !Memory::new().traits().slow);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for seed in 0..100 {
        let (store, (name, bytes)) = (store.clone(), pack(seed, 10));
        calls.spawn(async move {
            store.put(&name, bytes.clone()).await.unwrap();
            assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
        });
    }
    calls.join_all().await;
    assert_eq!(store.list(&Prefix::Packs, None, 1000).await.unwrap().len(), 100);
    let took = start.elapsed();
    assert!(took >= 3 * round_trip && took < 4 * round_trip, "{took:?}");
}
