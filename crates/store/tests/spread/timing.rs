//! Slow and silent places: nobody waits for them longer, or more often, than there is reason to.

use std::sync::Arc;
use std::time::Duration;

use drystone_store::fail::{Failure, Fault};
use drystone_store::spread::Access;
use drystone_store::{Fail, Memory, Name, Op, Range, Store};
use tokio::time::Instant;

use super::{HEDGE_AFTER, REST, World, from, pack, part};

const SLOW: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_slow_place_is_overtaken_once_and_asked_last_then() {
    for (needed, total) in [(1, 2), (2, 3), (4, 6)] {
        let world = World::new(needed, total, total.into());
        let (name, bytes) = pack(1, 100_000);
        world.spread.put(&name, bytes.clone()).await.unwrap();
        world.spread.put(&Name::header(), "head".into()).await.unwrap();
        let slow = world.homes(&name)[0];
        let world = world.reopened(&[]);
        world.fails[slow].add(Fault::delay(Op::Get, SLOW));
        world.spread.set_sizes(Arc::new(|_| Some(100_000)));
        let started = Instant::now();
        let range = from(100, 1000);
        assert_eq!(world.spread.get(&name, range).await.unwrap(), part(&bytes, range));
        assert_eq!(started.elapsed(), HEDGE_AFTER, "{needed}/{total}");
        assert_eq!(world.spread.troubles().places[slow].slow, 1);

        let started = Instant::now();
        for range in [range, Range::All, Range::Last(5)] {
            assert_eq!(world.spread.get(&name, range).await.unwrap(), part(&bytes, range));
        }
        assert_eq!(world.spread.get(&Name::header(), Range::All).await.unwrap(), "head");
        assert_eq!(started.elapsed(), Duration::ZERO, "{needed}/{total}");

        // Later it is given another chance.
        world.fails[slow].clear();
        tokio::time::advance(REST).await;
        world.records[slow].take();
        world.spread.get(&name, range).await.unwrap();
        assert_eq!(world.records[slow].count(Op::Get), 1);
        assert!(world.spread.troubles().is_none(), "slowness alone is no trouble");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_place_is_overtaken_for_small_objects() {
    let world = World::new(2, 3, 3);
    world.spread.put(&Name::header(), "head".into()).await.unwrap();
    world.fails[0].add(Fault::delay(Op::Get, SLOW));
    let started = Instant::now();
    assert_eq!(world.spread.get(&Name::header(), Range::All).await.unwrap(), "head");
    assert_eq!(started.elapsed(), HEDGE_AFTER);
}

#[tokio::test(start_paused = true)]
async fn more_bytes_are_given_more_time() {
    let world = World::new(1, 2, 2);
    let (name, bytes) = pack(1, 3 << 20);
    world.spread.put(&name, bytes.clone()).await.unwrap();
    let place = world.homes(&name)[0];
    world.fails[place].add(Fault::delay(Op::Get, 4 * HEDGE_AFTER - Duration::from_secs(1)));
    assert_eq!(world.spread.get(&name, Range::All).await.unwrap(), bytes);
    assert_eq!(world.spread.troubles().places[place].slow, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_place_costs_one_wait() {
    let inner = Arc::new(Fail::new(Arc::new(Memory::new())));
    let silent = Arc::new(Fail::new(inner.clone()));
    for op in [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete] {
        inner.add(Fault::error(op, Failure::Unavailable));
        silent.add(Fault::delay(op, Duration::from_secs(30)));
    }
    let world = World::with(2, 3, (0..3).map(|_| Arc::default()).collect(), |options| {
        options.places[1].access = Access::Present(silent.clone());
    });
    let objects = super::objects();
    let started = Instant::now();
    world.put_all(&objects).await;
    world.assert_whole(&objects, "one is silent").await;
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert_eq!(world.spread.troubles().places[1].failures, 1);

    // It is well again, and found to be so without anyone saying it.
    inner.clear();
    silent.clear();
    tokio::time::advance(REST).await;
    let (name, bytes) = pack(9, 1000);
    world.spread.put(&name, bytes).await.unwrap();
    assert_eq!(world.spread.troubles().owed(), objects.len() as u64);
    assert!(
        silent.stat(&super::shard(&name, 2, 0)).await.is_ok()
            || silent
                .list(&drystone_store::Prefix::Shards, None, 9)
                .await
                .unwrap()
                .len()
                == 1
    );
}

#[tokio::test(start_paused = true)]
async fn places_that_rest_are_asked_if_nobody_else_can_help() {
    let world = World::new(2, 3, 3);
    let mut objects = super::objects();
    objects.retain(|(name, _)| *name != Name::header());
    world.put_all(&objects).await;
    // Two places fail at the same moment, and are well again.
    for place in [0, 1] {
        world.fails[place].add(Fault::error(Op::Put, Failure::Unavailable).nth(1));
    }
    assert!(world.spread.put(&Name::header(), "head".into()).await.is_err());
    let (name, bytes) = pack(8, 5000);
    world.spread.put(&name, bytes.clone()).await.unwrap();
    world.spread.put(&Name::header(), "head".into()).await.unwrap();
    let objects: Vec<_> = objects
        .into_iter()
        .chain([(name, bytes), (Name::header(), "head".into())])
        .collect();
    world.assert_whole(&objects, "well again").await;
}

#[tokio::test(start_paused = true)]
async fn the_others_go_on_without_a_place_that_hangs_and_it_is_named() {
    for op in [Op::Put, Op::List, Op::Delete] {
        let world = World::new(2, 3, 3);
        let (name, bytes) = pack(1, 100_000);
        world.spread.put(&name, bytes.clone()).await.unwrap();
        world.spread.put(&Name::header(), "head".into()).await.unwrap();
        let hangs = world.homes(&name)[0];
        world.fails[hangs].add(Fault::delay(op, 100 * SLOW));
        let started = Instant::now();
        match op {
            Op::Put => {
                let (other, bytes) = pack(2, 100_000);
                world.spread.put(&other, bytes).await.unwrap();
                world
                    .spread
                    .put(&Name::key(&drystone_format::SlotId([1; 16])), "key".into())
                    .await
                    .unwrap();
            }
            Op::List => {
                let prefix = drystone_store::Prefix::Packs;
                assert_eq!(world.spread.list(&prefix, None, 10).await.unwrap().len(), 1);
                assert_eq!(world.spread.list(&prefix, None, 10).await.unwrap().len(), 1);
            }
            _ => world.spread.delete(&Name::header()).await.unwrap(),
        }
        assert!(started.elapsed() <= 11 * HEDGE_AFTER, "{op:?}: {:?}", started.elapsed());
        let troubles = &world.spread.troubles().places[hangs];
        assert!(
            troubles.unanswered > 0 && troubles.first_failure.is_some(),
            "{op:?}: {troubles:?}"
        );
        assert!(troubles.is_silent());
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_stays_silent_is_asked_less_and_less() {
    let world = World::new(2, 3, 3);
    world.fails[0].add(Fault::error(Op::Stat, Failure::Unavailable));
    world.fails[0].add(Fault::error(Op::List, Failure::Unavailable));
    let mut asked = 0;
    for _ in 0..64 {
        world
            .spread
            .list(&drystone_store::Prefix::Keys, None, 10)
            .await
            .unwrap();
        asked += world.records[0].count(Op::List);
        world.records[0].take();
        tokio::time::advance(REST).await;
    }
    assert!((2..12).contains(&asked), "{asked}");
}
