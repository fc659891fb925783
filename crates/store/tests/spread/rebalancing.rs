//! Rebalancing: what is lost, owed, rotten or in the wrong place ends where it should be, at the stated cost.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::limits::SHARD_BLOCK_BYTES;
use drystone_store::crash::{Cut, InFlight};
use drystone_store::fail::{Failure, Fault};
use drystone_store::spread::{Access, Rebalanced, Verify};
use drystone_store::{Crash, Error, Kind, Memory, Name, Op, Prefix, Put, Range, RootKind, Spread, Store};

use super::{World, from, objects, options, pack, place, root};

fn packs() -> Vec<(Name, Bytes)> {
    (0..20).map(|n| pack(n, 50_000 + n as usize)).collect()
}

fn total(rebalanced: &[Rebalanced], of: impl Fn(&Rebalanced) -> u64) -> u64 {
    rebalanced.iter().map(of).sum()
}

/// Bytes of shards at all places.
fn stored(world: &World) -> u64 {
    let contents = world.memories.iter().flat_map(|memory| memory.contents());
    contents.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[tokio::test]
async fn a_lost_place_costs_k_shards_of_a_pack_and_nothing_costs_nothing() {
    for (needed, total_shards) in [(1, 2), (2, 3), (4, 6)] {
        let world = World::new(needed, total_shards, total_shards.into());
        let objects = packs();
        world.put_all(&objects).await;
        let whole = stored(&world);
        super::wipe(&world.memories[1]);
        let world = world.reopened(&[]);
        world.spread.set_sizes(Arc::new(|_| None));
        let plans: Vec<_> = world
            .holdings()
            .await
            .iter()
            .map(|held| world.spread.plan_rebalance(held))
            .collect();
        let rebalanced = world.rebalance(Verify::Trust).await;
        let read = total(&rebalanced, |rebalanced| rebalanced.read_bytes);
        assert!(
            read <= whole * u64::from(needed) / u64::from(total_shards) + 1000,
            "{read} of {whole}"
        );
        assert_eq!(
            total(&rebalanced, |rebalanced| rebalanced.reads),
            20 * u64::from(needed)
        );
        assert_eq!(total(&rebalanced, |rebalanced| rebalanced.writes), 20);
        for (plan, rebalanced) in plans.iter().zip(&rebalanced) {
            let planned: u64 = plan.reads.iter().map(|read| read.bytes).sum();
            assert_eq!((planned, plan.writes.len()), (rebalanced.read_bytes, 1));
            let planned: u64 = plan.writes.iter().map(|write| write.bytes).sum();
            assert!(
                planned.abs_diff(rebalanced.written_bytes) < u64::from(needed) + 1,
                "{plan:?} {rebalanced:?}"
            );
        }
        assert_eq!(stored(&world), whole);
        let idle = world.rebalance(Verify::Trust).await;
        assert_eq!(
            total(&idle, |rebalanced| rebalanced.reads
                + rebalanced.writes
                + rebalanced.removed),
            0
        );
        assert!(
            world
                .holdings()
                .await
                .iter()
                .all(|held| world.spread.plan_rebalance(held).is_balanced())
        );
        world.reopened(&[0]).assert_whole(&objects, "repaired").await;
    }
}

#[tokio::test]
async fn an_added_place_gets_copies_and_one_that_leaves_is_emptied() {
    let world = World::new(2, 3, 3);
    let objects = packs();
    world.put_all(&objects).await;
    let mut memories = world.memories.clone();
    memories.push(Arc::new(Memory::new()));
    let grown = World::over(2, 3, memories.clone());
    grown.assert_whole(&objects, "before moving").await;
    let rebalanced = grown.rebalance(Verify::Trust).await;
    let moved = total(&rebalanced, |rebalanced| rebalanced.writes);
    assert!(moved > 5 && moved < 40, "{moved}");
    assert_eq!(
        total(&rebalanced, |rebalanced| rebalanced.reads),
        moved,
        "a moved shard is one read"
    );
    assert_eq!(total(&rebalanced, |rebalanced| rebalanced.removed), moved);
    let grown = grown.reopened(&[]);
    grown.assert_whole(&objects, "after moving").await;
    assert!(grown.spread.troubles().is_none());

    let leaving = World::with(2, 3, memories, |options| options.places[0].weight = None);
    leaving.rebalance(Verify::Trust).await;
    assert!(leaving.memories[0].contents().is_empty());
    leaving.assert_whole(&objects, "after leaving").await;
}

#[tokio::test]
async fn another_k_cuts_packs_anew_and_another_n_only_adds() {
    let world = World::new(2, 3, 6);
    let objects = packs();
    world.put_all(&objects).await;
    for (needed, total_shards, reads, writes) in [(2, 5, 2, 2), (4, 6, 2, 6), (1, 2, 4, 2), (1, 2, 0, 0)] {
        let world = World::over(needed, total_shards, world.memories.clone());
        world.assert_whole(&objects, "of another k").await;
        let rebalanced = world.rebalance(Verify::Trust).await;
        // Another n may move shards besides.
        assert!(total(&rebalanced, |rebalanced| rebalanced.writes) >= writes * 20);
        assert!(total(&rebalanced, |rebalanced| rebalanced.reads) >= reads * 20);
        assert!(total(&rebalanced, |rebalanced| rebalanced.reads) <= (reads + 1) * 20);
        let count: usize = world.memories.iter().map(|memory| memory.contents().len()).sum();
        assert_eq!(count, 20 * usize::from(total_shards));
        world.reopened(&[]).assert_whole(&objects, "cut anew").await;
    }
}

#[tokio::test]
async fn a_vault_that_was_not_spread_is_read_as_it_is_and_spread_by_rebalancing() {
    let old = Arc::new(Memory::new());
    let objects = objects();
    for (name, bytes) in &objects {
        old.put(name, bytes.clone()).await.unwrap();
    }
    let world = World::over(2, 3, vec![old, Arc::new(Memory::new()), Arc::new(Memory::new())]);
    world.assert_whole(&objects, "whole packs").await;
    // Once found, a whole pack is one get again.
    let (name, bytes) = &objects[2];
    world.records.iter().for_each(|record| drop(record.take()));
    assert_eq!(world.spread.get(name, from(5, 7)).await.unwrap(), bytes.slice(5..12));
    assert_eq!(world.calls(Op::Get).len(), 1);

    let rebalanced = world.rebalance(Verify::Trust).await;
    assert!(
        rebalanced
            .iter()
            .all(|rebalanced| (rebalanced.reads, rebalanced.writes, rebalanced.removed) == (1, 3, 1))
    );
    for gone in [0, 1, 2] {
        world.reopened(&[gone]).assert_whole(&objects, "spread now").await;
    }
}

#[tokio::test]
async fn a_whole_pack_that_is_rotten_is_not_spread() {
    let old = Arc::new(Memory::new());
    let (name, bytes) = pack(1, 5000);
    old.put(&name, bytes).await.unwrap();
    old.overwrite(&name, vec![1; 5000].into());
    let world = World::over(1, 2, vec![old, Arc::new(Memory::new())]);
    assert!(matches!(
        world.spread.get(&name, Range::All).await,
        Err(Error::Lost { .. })
    ));
    let rebalanced = world.rebalance(Verify::Trust).await;
    assert!(rebalanced[0].is_lost);
    assert_eq!(rebalanced[0].rotten, [(0, name.clone())]);
    assert!(
        world.memories[0].contents().contains_key(&name),
        "what cannot be replaced is left for others to judge"
    );
}

#[tokio::test]
async fn every_flipped_bit_of_every_shard_is_detected_read_around_and_rebalanced() {
    for (needed, total_shards) in [(1, 2), (2, 3)] {
        let world = World::new(needed, total_shards, total_shards.into());
        let objects = vec![pack(1, 61)];
        world.put_all(&objects).await;
        let before: Vec<_> = world.memories.iter().map(|memory| memory.contents()).collect();
        for (place, contents) in before.iter().enumerate() {
            let (name, sound) = contents.first_key_value().unwrap();
            for bit in 0..sound.len() * 8 {
                let mut flipped = sound.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                world.memories[place].overwrite(name, flipped.into());
                let world = world.reopened(&[]);
                let read = world.spread.get(&objects[0].0, Range::All).await;
                assert!(read.unwrap() == objects[0].1, "{place}, bit {bit}");
                let rebalanced = world.rebalance(Verify::All).await;
                assert_eq!(rebalanced[0].rotten, [(place, name.clone())], "bit {bit}");
                assert_eq!(rebalanced[0].writes, 1);
                assert!(world.spread.troubles().places[place].unsound.count > 0);
                assert_eq!(world.memories[place].contents(), *contents, "bit {bit}");
            }
        }
    }
}

#[tokio::test]
async fn every_length_of_a_cut_shard_is_noticed_without_reading_it() {
    let world = World::new(2, 3, 3);
    let objects = vec![pack(1, SHARD_BLOCK_BYTES * 2 + 11)];
    world.put_all(&objects).await;
    for place in 0..3 {
        let (name, sound) = world.memories[place].contents().pop_first().unwrap();
        for len in (0..sound.len()).step_by(501).chain([sound.len() - 1]) {
            world.memories[place].overwrite(&name, sound.slice(..len));
            let world = world.reopened(&[]);
            let rebalanced = world.rebalance(Verify::Trust).await;
            assert_eq!(rebalanced[0].rotten, [(place, name.clone())], "{len}");
            assert_eq!(world.memories[place].contents()[&name], sound, "{len}");
        }
    }
}

#[tokio::test]
async fn a_place_that_comes_back_stale_is_rebalanced_small_objects_too() {
    let world = World::new(2, 3, 3);
    let (early, late) = (objects(), pack(5, 3000));
    world.put_all(&early).await;
    let without = world.reopened(&[2]);
    let root = root(b"a later root");
    let late = [late, (root, Bytes::from_static(b"a later root"))];
    without.put_all(&late).await;
    assert_eq!(
        (without.spread.troubles().owed(), without.spread.troubles().thin.count),
        (2, 2)
    );

    let world = world.reopened(&[]);
    let all: Vec<(Name, Bytes)> = early.into_iter().chain(late).collect();
    world.assert_whole(&all, "one is stale").await;
    world.rebalance(Verify::Trust).await;
    for gone in [0, 1] {
        world.reopened(&[gone]).assert_whole(&all, "rebalanced").await;
    }
    let again = world.spread.replicate_small(&Prefix::All).await.unwrap();
    assert_eq!((again.copied, again.replaced, again.objects), (0, 0, 5));
}

#[tokio::test]
async fn unsound_and_missing_copies_are_replaced_and_differing_ones_named() {
    let world = World::new(2, 3, 3);
    let name = |n| Name::key(&drystone_format::SlotId([n; 16]));
    for n in 0..4 {
        world.spread.put(&name(n), format!("key {n}").into()).await.unwrap();
    }
    world.memories[0].overwrite(&name(0), "bad".into());
    world.memories[1].remove(&name(1));
    world.memories[2].overwrite(&name(2), "key 2, but another".into());
    world
        .memories
        .iter()
        .for_each(|memory| memory.overwrite(&name(3), "bad".into()));
    assert_eq!(world.spread.get(&name(0), Range::All).await.unwrap(), "key 0");
    assert!(matches!(
        world.spread.get(&name(3), Range::All).await,
        Err(Error::Lost { .. })
    ));
    let rebalanced = world.spread.replicate_small(&Prefix::Keys).await.unwrap();
    assert_eq!((rebalanced.objects, rebalanced.replaced, rebalanced.copied), (4, 1, 1));
    assert_eq!(rebalanced.differing.named, [name(2).to_string()]);
    assert_eq!(rebalanced.unsound.named, [name(3).to_string()]);
    assert_eq!(world.memories[0].contents()[&name(0)], "key 0");
    assert_eq!(world.memories[1].contents()[&name(1)], "key 1");
}

#[tokio::test]
async fn what_a_confirming_list_shows_every_later_list_shows_whichever_place_is_away() {
    let world = World::new(2, 3, 3);
    assert!(world.spread.is_quorate());
    let name = |n: u8| root(format!("root {n}").as_bytes());
    for n in 0..3 {
        world.spread.put(&name(n), format!("root {n}").into()).await.unwrap();
    }
    // Puts that were cut off; of the second nobody has what was stored.
    for (n, left) in [(0, 2), (1, 0)] {
        let others = world.memories.iter().enumerate().filter(|(place, _)| *place != left);
        others.for_each(|(_, memory)| memory.remove(&name(n)));
    }
    world.memories[0].overwrite(&name(1), "bad".into());
    let roots = Prefix::Roots(RootKind::SNAPSHOT);
    let listed = world.spread.list_confirmed(roots, None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    for away in 0..3 {
        let listed = world.reopened(&[away]).spread.list(&roots, None, 10).await.unwrap();
        assert!(listed.iter().any(|listed| listed.name == name(0)), "without {away}");
    }
    assert!(!world.memories[1].contents().contains_key(&name(1)));
    assert!(!World::new(1, 2, 2).spread.is_quorate());
    assert!(World::new(4, 6, 6).spread.is_quorate());
}

#[tokio::test]
async fn what_a_medium_cannot_read_is_written_anew() {
    let world = World::new(2, 3, 3);
    let objects = objects();
    world.put_all(&objects).await;
    let (name, _) = &objects[3];
    let place = world.homes(name)[0];
    let held = world
        .holdings()
        .await
        .into_iter()
        .find(|held| Name::pack(&held.pack) == *name)
        .unwrap();
    world.fails[place].add(Fault::error(Op::Get, Failure::Io).nth(1));
    let rebalanced = world.spread.rebalance(&held, Verify::All).await.unwrap();
    assert_eq!(rebalanced.rotten, [(place, super::shard(name, 2, 0))]);
    assert_eq!((rebalanced.writes, rebalanced.owed.len()), (1, 0));
    world.fails[place].clear();
    world.fails[place].add(Fault::error(Op::Get, Failure::Io).nth(1));
    let rebalanced = world
        .spread
        .replicate_small(&Prefix::Roots(RootKind::SNAPSHOT))
        .await
        .unwrap();
    assert_eq!((rebalanced.replaced, rebalanced.objects), (1, 3));
    world.reopened(&[]).assert_whole(&objects, "written anew").await;
}

#[tokio::test]
async fn rebalancing_can_be_cut_off_anywhere_and_started_again() {
    let objects = vec![pack(1, 40_000), pack(2, 33)];
    // From 2/3 on three places to 3/5 on the last five of six.
    let first = World::new(2, 3, 3);
    first.put_all(&objects).await;
    for after_changes in 0.. {
        let mut is_down = false;
        // Which places still do what they were told last.
        for kept in [0..0, 0..6, 0..3, 3..6] {
            let crash = |n: usize| {
                let memory = first
                    .memories
                    .get(n)
                    .map_or_else(Memory::new, |memory| Memory::clone(memory));
                let in_flight = if kept.contains(&n) {
                    InFlight::Kept
                } else {
                    InFlight::Lost
                };
                Arc::new(Crash::new(
                    memory,
                    Some(Cut {
                        after_changes,
                        in_flight,
                    }),
                ))
            };
            let crashes: Vec<Arc<Crash>> = (0..6).map(crash).collect();
            let world = World::with(3, 5, (0..6).map(|_| Arc::default()).collect(), |options| {
                options.places[0].weight = None;
                for (place, crash) in options.places.iter_mut().zip(&crashes) {
                    place.access = Access::Present(crash.clone());
                }
            });
            for holdings in world.holdings().await {
                world.spread.rebalance(&holdings, Verify::Trust).await.unwrap();
            }
            is_down |= crashes.iter().any(|crash| crash.is_down());

            let left = crashes.iter().map(|crash| Arc::new(crash.reopen())).collect();
            let world = World::with(3, 5, left, |options| options.places[0].weight = None);
            world.assert_readable(&objects).await;
            world.rebalance(Verify::All).await;
            let rebalanced = world.rebalance(Verify::All).await;
            assert_eq!(
                total(&rebalanced, |rebalanced| rebalanced.writes + rebalanced.removed),
                0
            );
            for gone in super::choices(6, 2) {
                world.reopened(&gone).assert_readable(&objects).await;
            }
        }
        if !is_down {
            assert!(after_changes > 2, "{after_changes} changes cannot be all");
            break;
        }
    }
}

#[tokio::test]
async fn nothing_is_removed_from_a_place_that_is_only_added_to() {
    let world = World::with(2, 3, (0..3).map(|_| Arc::default()).collect(), |options| {
        options.places[1].append_only = true;
    });
    let objects = objects();
    world.put_all(&objects).await;
    let before = world.memories[1].contents();
    let (name, sound) = before
        .iter()
        .find(|(name, _)| matches!(name.kind(), Kind::Shard(_)))
        .unwrap();
    let mut flipped = sound.to_vec();
    flipped[3] ^= 1;
    world.memories[1].overwrite(name, flipped.clone().into());
    let rebalanced = world.rebalance(Verify::All).await;
    assert_eq!(
        rebalanced.iter().map(|rebalanced| rebalanced.owed.len()).sum::<usize>(),
        1
    );
    assert_eq!(
        world.memories[1].contents()[name],
        flipped,
        "it cannot be replaced there"
    );
    for (name, _) in &objects {
        world.spread.delete(name).await.unwrap();
    }
    assert_eq!(world.memories[1].contents().len(), before.len());
    assert!(world.memories[0].contents().is_empty() && world.memories[2].contents().is_empty());
    assert_eq!(world.calls(Op::Delete).len(), 2 * objects.len());
}

#[tokio::test]
async fn a_full_place_is_stood_in_for_where_there_are_more_places_than_shards() {
    let world = World::new(2, 3, 4);
    let objects = packs();
    world.fails[0].add(drystone_store::fail::Fault::error(
        Op::Put,
        drystone_store::fail::Failure::Full,
    ));
    world.put_all(&objects).await;
    assert_eq!(
        (world.spread.troubles().owed(), world.spread.troubles().thin.count),
        (0, 0)
    );
    for gone in 0..4 {
        world.reopened(&[gone]).assert_readable(&objects).await;
    }
    // There is space again: what stood in goes home.
    let world = world.reopened(&[]);
    let rebalanced = world.rebalance(Verify::Trust).await;
    assert!(total(&rebalanced, |rebalanced| rebalanced.writes) > 5);
    assert!(
        world
            .holdings()
            .await
            .iter()
            .all(|held| world.spread.plan_rebalance(held).is_balanced())
    );
}

#[tokio::test]
async fn a_place_with_shards_of_another_vault_is_named_and_rebalanced() {
    let ours = World::new(2, 3, 3);
    let objects = packs();
    ours.put_all(&objects).await;
    let theirs = World::with(2, 3, (0..3).map(|_| Arc::default()).collect(), |options| {
        options.keys = drystone_format::shard::ShardKeys::new(&super::owner(8));
    });
    theirs.put_all(&objects).await;
    let memories = vec![
        ours.memories[0].clone(),
        theirs.memories[1].clone(),
        ours.memories[2].clone(),
    ];
    let mixed = World::over(2, 3, memories);
    mixed.assert_readable(&objects).await;
    let troubles = mixed.spread.troubles();
    assert!(troubles.places[1].unsound.count > 0 && troubles.places[0].is_none() && troubles.places[2].is_none());
    assert_eq!(troubles.places[1].unsound.named.len(), 8, "only the first are named");
    let rebalanced = mixed.rebalance(Verify::All).await;
    assert_eq!(total(&rebalanced, |rebalanced| rebalanced.rotten.len() as u64), 20);
    assert_eq!(mixed.memories[1].contents(), ours.memories[1].contents());
}

#[tokio::test]
async fn a_spread_that_cannot_be_is_refused() {
    let places = |count: u8| {
        (0..count)
            .map(|n| place(n, Arc::new(Memory::new())))
            .collect::<Vec<_>>()
    };
    let twice = vec![place(1, Arc::new(Memory::new())), place(1, Arc::new(Memory::new()))];
    let mut leaving = places(1);
    leaving[0].weight = None;
    for (needed, total, places) in [
        (0, 3, places(3)),
        (4, 3, places(3)),
        (1, 1, vec![]),
        (1, 2, twice),
        (1, 1, leaving),
    ] {
        let error = Spread::new(options(needed, total, places)).unwrap_err().to_string();
        assert!(error.contains(&format!("{needed}/{total}")), "{error}");
    }
    let world = World::new(2, 3, 3);
    for name in [Name::place(), super::shard(&pack(1, 1).0, 2, 0)] {
        assert!(world.spread.put(&name, Bytes::new()).await.is_err());
        assert!(world.spread.get(&name, Range::All).await.is_err());
        assert!(world.spread.stat(&name).await.is_err());
        assert!(world.spread.delete(&name).await.is_err());
    }
    assert_eq!(
        world.spread.put(&Name::header(), "x".into()).await.unwrap(),
        Put::Created
    );
    let heavy = NonZeroU32::new(u32::MAX);
    let world = World::with(255, 255, vec![Arc::default()], |options| {
        options.places[0].weight = heavy
    });
    world.put_all(&[pack(1, 1000)]).await;
    world.assert_readable(&[pack(1, 1000)]).await;
}
