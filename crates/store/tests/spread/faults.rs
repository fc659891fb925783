//! Any n - k places may do what they like, before and while objects are stored: nothing is lost, and it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::{PlaceId, SlotId};
use drystone_store::crash::{Cut, InFlight};
use drystone_store::fail::{Failure, Fault};
use drystone_store::spread::{Access, Verify};
use drystone_store::{Crash, Error, Memory, Name, Op, Prefix, Range, Store};
use tokio::task::JoinSet;

use super::{World, choices, from, objects, pack, shard, wipe};

/// What may be wrong with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    /// It does not answer.
    Silent,
    /// Every call fails.
    Broken,
    /// It says that it has nothing, but lists it.
    Denying,
    /// It lost everything.
    Wiped,
    /// Its objects are cut short.
    Truncated,
    /// It answers with altered bytes.
    Altering,
    /// It answers with fewer bytes than asked for.
    Short,
    /// It takes nothing more.
    Full,
    /// It stores only a part, and fails.
    Tearing,
    /// It does what it is asked, but says that it failed.
    Denied,
}

const WHEN_READING: [Ill; 7] = [
    Ill::Silent,
    Ill::Broken,
    Ill::Denying,
    Ill::Wiped,
    Ill::Truncated,
    Ill::Altering,
    Ill::Short,
];
const WHEN_STORING: [Ill; 6] = [
    Ill::Silent,
    Ill::Broken,
    Ill::Full,
    Ill::Tearing,
    Ill::Denied,
    Ill::Altering,
];

impl World {
    fn befall(&self, place: usize, ill: Ill) {
        let (fail, memory) = (&self.fails[place], &self.memories[place]);
        let every = |failure| {
            for op in [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete] {
                fail.add(Fault::error(op, failure));
            }
        };
        match ill {
            Ill::Silent => every(Failure::Unavailable),
            Ill::Broken => every(Failure::Io),
            Ill::Denying => {
                fail.add(Fault::error(Op::Get, Failure::NotFound));
                fail.add(Fault::error(Op::Stat, Failure::NotFound));
            }
            Ill::Wiped => wipe(memory),
            Ill::Truncated => {
                for (name, bytes) in memory.contents() {
                    // What is judged small objects by here is their beginning.
                    let is_shard = name.as_str().starts_with("shards/");
                    let rest = if is_shard {
                        bytes.slice(..bytes.len() - 9)
                    } else {
                        Bytes::from_static(b"bad")
                    };
                    memory.overwrite(&name, rest);
                }
            }
            Ill::Altering => fail.add(Fault::altered_get().only(Prefix::Shards)),
            Ill::Short => fail.add(Fault::short_get(1).only(Prefix::Shards)),
            Ill::Full => fail.add(Fault::error(Op::Put, Failure::Full)),
            Ill::Tearing => fail.add(Fault::torn_put(11)),
            Ill::Denied => fail.add(Fault::lost_reply(Op::Put)),
        }
    }
}

/// A world of its own with the same objects.
fn copy_of(world: &World) -> World {
    let memories = world
        .memories
        .iter()
        .map(|memory| Arc::new(Memory::clone(memory)))
        .collect();
    World::over(world.needed, world.total, memories)
}

#[tokio::test]
async fn whatever_befalls_any_places_that_may_be_lost_everything_is_read() {
    for (needed, total) in [(1, 2), (2, 3), (4, 6)] {
        let world = World::new(needed, total, total.into());
        let objects = objects();
        world.put_all(&objects).await;
        for ill_places in choices(total.into(), (total - needed).into()) {
            for ill in WHEN_READING {
                let world = copy_of(&world);
                ill_places.iter().for_each(|place| world.befall(*place, ill));
                let what = format!("{needed}/{total}, {ill:?} {ill_places:?}");
                world.assert_whole(&objects, &what).await;
                let troubles = world.spread.troubles();
                for (place, troubles) in troubles.places.iter().enumerate() {
                    assert!(
                        ill_places.contains(&place) || troubles.is_none(),
                        "{what}: {troubles:?}"
                    );
                }
                assert!(!troubles.is_none(), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn whatever_befalls_any_places_that_may_be_lost_everything_is_stored_and_rebalanced_later() {
    for (needed, total) in [(1, 2), (2, 3), (4, 6)] {
        let objects = objects();
        for ill_places in choices(total.into(), (total - needed).into()) {
            for ill in WHEN_STORING {
                let world = World::new(needed, total, total.into());
                ill_places.iter().for_each(|place| world.befall(*place, ill));
                let what = format!("{needed}/{total}, {ill:?} {ill_places:?}");
                world.put_all(&objects).await;
                world.assert_whole(&objects, &what).await;
                let troubles = world.spread.troubles();
                if ill != Ill::Altering {
                    let owed = (objects.len() * ill_places.len()) as u64;
                    assert_eq!(
                        (troubles.owed(), troubles.thin.count),
                        (owed, objects.len() as u64),
                        "{what}"
                    );
                }

                // The places are well again: everything owed is paid, and others may go.
                let world = world.reopened(&[]);
                for rebalanced in world.rebalance(Verify::All).await {
                    assert!(
                        rebalanced.owed.is_empty() && !rebalanced.is_lost,
                        "{what}: {rebalanced:?}"
                    );
                }
                for rebalanced in world.rebalance(Verify::All).await {
                    assert_eq!((rebalanced.writes, rebalanced.removed), (0, 0), "{what}");
                }
                let others = (0..usize::from(total)).filter(|place| !ill_places.contains(place));
                let gone: Vec<usize> = others.take((total - needed).into()).collect();
                world.reopened(&gone).assert_whole(&objects, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn one_place_more_than_may_be_lost_is_an_error_that_names_them() {
    for (needed, total) in [(1, 2), (2, 3), (4, 6)] {
        let world = World::new(needed, total, total.into());
        let objects = objects();
        world.put_all(&objects).await;
        let gone: Vec<usize> = (0..=usize::from(total - needed)).collect();
        let world = world.reopened(&gone);
        let mut expected: Vec<String> = gone.iter().map(|place| format!("place {place}: ")).collect();
        for (name, bytes) in objects.iter().filter(|(name, _)| name.as_str().starts_with("packs/")) {
            let error = world.spread.get(name, Range::All).await.unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(name.as_str()) && expected.iter().all(|place| text.contains(place)),
                "{text}"
            );
            assert!(!error.is_not_found());
            let other = pack(77, bytes.len());
            let put = world.spread.put(&other.0, other.1).await;
            assert!(put.is_err());
        }
        let listed = world
            .spread
            .list(&Prefix::Packs, None, 10)
            .await
            .unwrap_err()
            .to_string();
        assert!(expected.drain(..).all(|place| listed.contains(&place)), "{listed}");
        let name = Name::key(&SlotId([9; 16]));
        assert!(!world.spread.get(&name, Range::All).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn whatever_befalls_any_places_that_may_be_lost_objects_are_deleted_at_the_others() {
    for (needed, total) in [(1, 2), (2, 3), (4, 6)] {
        let world = World::new(needed, total, total.into());
        let objects = objects();
        world.put_all(&objects).await;
        for ill_places in choices(total.into(), (total - needed).into()) {
            for ill in [Ill::Silent, Ill::Broken, Ill::Wiped, Ill::Truncated] {
                let world = copy_of(&world);
                ill_places.iter().for_each(|place| world.befall(*place, ill));
                let what = format!("{needed}/{total}, {ill:?} {ill_places:?}");
                for (name, _) in &objects {
                    world.spread.delete(name).await.unwrap();
                    assert!(
                        world.spread.get(name, Range::All).await.unwrap_err().is_not_found(),
                        "{what}: {name}"
                    );
                }
                assert_eq!(world.spread.list(&Prefix::All, None, 10).await.unwrap(), [], "{what}");
                let undeleted = |place: &usize| world.spread.troubles().places[*place].undeleted.count;
                let is_reached = matches!(ill, Ill::Wiped | Ill::Truncated);
                let expected = if is_reached { 0 } else { objects.len() as u64 };
                assert!(ill_places.iter().all(|place| undeleted(place) == expected), "{what}");
                let is_empty = |place: usize| world.memories[place].contents().is_empty();
                assert!(
                    (0..total.into()).all(|place| is_empty(place) || ill_places.contains(&place)),
                    "{what}"
                );
            }
        }
    }
    // One more and it is an error.
    let world = World::new(2, 3, 3).reopened(&[0, 1]);
    assert!(matches!(
        world.spread.delete(&pack(1, 1).0).await,
        Err(Error::TooFew { .. })
    ));
    assert!(matches!(
        world.spread.delete(&Name::header()).await,
        Err(Error::TooFew { .. })
    ));
}

#[tokio::test]
async fn a_loss_is_told_from_places_that_are_away() {
    let world = World::new(2, 3, 3);
    let (name, bytes) = pack(1, 1000);
    world.spread.put(&name, bytes).await.unwrap();
    let homes = world.homes(&name);
    let get = async |world: &World| world.spread.get(&name, Range::All).await.unwrap_err();
    let away = world.reopened(&homes[..2]);
    assert!(matches!(get(&away).await, Error::TooFew { needed: 2, .. }));
    wipe(&world.memories[homes[0]]);
    assert!(matches!(get(&world.reopened(&homes[1..2])).await, Error::TooFew { .. }));
    world.memories[homes[1]].overwrite(&shard(&name, 2, 1), "short".into());
    assert!(matches!(get(&world.reopened(&[])).await, Error::Lost { .. }));
    wipe(&world.memories[homes[1]]);
    assert!(matches!(get(&world.reopened(&[])).await, Error::Lost { .. }));
    wipe(&world.memories[homes[2]]);
    assert!(get(&world.reopened(&[])).await.is_not_found());
}

#[tokio::test]
async fn what_is_nowhere_is_not_found_even_if_places_are_away() {
    let world = World::new(2, 3, 3);
    world.put_all(&objects()).await;
    let (missing, _) = pack(99, 1000);
    for gone in [vec![], vec![0], vec![1], vec![2]] {
        let world = world.reopened(&gone);
        for name in [missing.clone(), Name::key(&SlotId([9; 16]))] {
            for range in [Range::All, Range::Last(1), from(0, 1)] {
                let error = world.spread.get(&name, range).await.unwrap_err();
                assert!(error.is_not_found(), "{error}");
            }
            assert!(world.spread.stat(&name).await.unwrap_err().is_not_found());
            world.spread.delete(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_shard_more_than_needed_is_stored_well_and_no_more_is_thin() {
    let objects = objects();
    for (gone, thin) in [(vec![], 0), (vec![3], 0), (vec![1, 2], objects.len() as u64)] {
        let world = World::new(4, 6, 6).reopened(&gone);
        world.put_all(&objects).await;
        let troubles = world.spread.troubles();
        assert_eq!(
            (troubles.owed(), troubles.thin.count),
            ((gone.len() * objects.len()) as u64, thin)
        );
        assert_eq!(
            troubles.places.iter().filter(|place| place.absent.is_some()).count(),
            gone.len()
        );
    }
    // Two places of 3/5 hold three and two shards: without the first of them nothing can be stored.
    let world = World::new(3, 5, 2);
    let stored = [world.reopened(&[0]), world.reopened(&[1])];
    let (name, bytes) = pack(1, 5000);
    let mut outcomes = Vec::new();
    for world in &stored {
        outcomes.push(world.spread.put(&name, bytes.clone()).await.is_ok());
    }
    outcomes.sort_unstable();
    assert_eq!(outcomes, [false, true]);
}

#[tokio::test]
async fn a_power_cut_everywhere_at_any_moment_keeps_what_was_acknowledged() {
    let objects = objects();
    for after_changes in 0..=objects.len() as u64 {
        for in_flight in [InFlight::Lost, InFlight::Kept, InFlight::Mixed(0b0110)] {
            let cut = Cut {
                after_changes,
                in_flight,
            };
            let crashes: Vec<Arc<Crash>> = (0..3).map(|_| Arc::new(Crash::new(Memory::new(), Some(cut)))).collect();
            let world = World::with(2, 3, (0..3).map(|_| Arc::default()).collect(), |options| {
                for (place, crash) in options.places.iter_mut().zip(&crashes) {
                    place.access = Access::Present(crash.clone());
                }
            });
            let mut acknowledged = Vec::new();
            for (name, bytes) in &objects {
                if world.spread.put(name, bytes.clone()).await.is_ok() {
                    acknowledged.push((name.clone(), bytes.clone()));
                }
            }
            assert_eq!(acknowledged.len() as u64, after_changes);
            let world = World::over(2, 3, crashes.iter().map(|crash| Arc::new(crash.reopen())).collect());
            for gone in 0..3 {
                world.reopened(&[gone]).assert_readable(&acknowledged).await;
            }
            // What was not acknowledged can be stored now, whatever is left of it.
            world.put_all(&objects).await;
            world.rebalance(Verify::Trust).await;
            for gone in 0..3 {
                world.reopened(&[gone]).assert_whole(&objects, "stored again").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_do_not_mind_a_place_that_comes_and_goes() {
    let world = Arc::new(World::with(2, 3, (0..3).map(|_| Arc::default()).collect(), |options| {
        options.rest = Duration::from_micros(50);
    }));
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            for n in 0..25 {
                let (name, bytes) = pack(task << 8 | n, 3000 + n as usize);
                world.spread.put(&name, bytes.clone()).await.unwrap();
                assert!(world.spread.get(&name, Range::All).await.unwrap() == bytes);
                world.spread.list(&Prefix::Packs, None, 10).await.unwrap();
            }
        });
    }
    while !tasks.is_empty() {
        world.befall(1, Ill::Silent);
        tokio::task::yield_now().await;
        world.fails[1].clear();
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    world.rebalance(Verify::All).await;
    assert_eq!(world.spread.list(&Prefix::Packs, None, 1000).await.unwrap().len(), 200);
    assert!(
        world
            .holdings()
            .await
            .iter()
            .all(|held| world.spread.plan_rebalance(held).is_balanced())
    );
}

#[tokio::test]
async fn a_place_that_was_full_is_forgiven_alone_and_only_that() {
    let world = World::new(2, 3, 3);
    world.befall(0, Ill::Full);
    world.befall(1, Ill::Denied);
    let (name, bytes) = pack(1, 5000);
    let _ = world.spread.put(&name, bytes).await;
    let failures = || -> Vec<u64> {
        let places = world.spread.troubles().places.into_iter();
        places.map(|place| place.failures).collect()
    };
    let before = failures();
    assert!(before[0] > 0 && before[1] > 0 && before[2] == 0, "{before:?}");
    for place in [1, 2] {
        world.spread.forgive_full(&PlaceId([place; 16]));
    }
    assert_eq!(failures(), before);
    world.spread.forgive_full(&PlaceId([0; 16]));
    assert_eq!(failures(), [0, before[1], 0]);
    assert_eq!(world.spread.troubles().places[0].owed.count, 0);
    let error = Error::Unavailable {
        name: "place".to_owned(),
        place: "c".to_owned(),
        reason: "found so".to_owned(),
    };
    world.spread.note_failure(&PlaceId([2; 16]), &error);
    assert_eq!(failures(), [0, before[1], 1]);
}
