//! How many requests each operation costs.

use std::sync::Arc;

use drystone_format::limits::SHARD_BLOCK_BYTES;
use drystone_store::{Memory, Name, Op, Prefix, Put, Range, Store};

use super::{World, from, pack, part};

const PACK_BYTES: usize = 1_000_003;

#[tokio::test]
async fn a_put_is_one_put_for_each_shard_and_a_normal_read_one_get() {
    for (needed, total, places) in [(1, 2, 2), (2, 3, 3), (4, 6, 6), (2, 3, 1), (3, 5, 2), (2, 3, 5)] {
        let world = World::new(needed, total, places);
        let (name, bytes) = pack(1, PACK_BYTES);
        assert_eq!(world.spread.put(&name, bytes.clone()).await.unwrap(), Put::Created);
        let puts = world.calls(Op::Put);
        assert_eq!(puts.len(), usize::from(total));
        let stored: u64 = puts.iter().map(|call| call.bytes).sum();
        let least = PACK_BYTES as u64 * u64::from(total) / u64::from(needed);
        assert!(stored < least + least / 500 + 1000, "{stored} for {least}");

        for range in [from(10, 100), from(123_456, 1), Range::Last(300)] {
            assert_eq!(world.spread.get(&name, range).await.unwrap(), part(&bytes, range));
            let gets = world.calls(Op::Get);
            assert_eq!(gets.len(), 1, "{range:?}");
            assert!(gets[0].bytes <= 2 * (SHARD_BLOCK_BYTES as u64 + 16), "{range:?}");
        }
        assert_eq!(world.spread.get(&name, Range::All).await.unwrap(), bytes);
        assert_eq!(world.calls(Op::Get).len(), usize::from(needed));
        let border = PACK_BYTES as u64 / u64::from(needed) - 5;
        let range = from(border, 5 + u64::from(needed > 1) * 5);
        assert_eq!(world.spread.get(&name, range).await.unwrap(), part(&bytes, range));
        assert_eq!(world.calls(Op::Get).len(), if needed > 1 { 2 } else { 1 });
        assert!(world.spread.troubles().is_none());
    }
}

#[tokio::test]
async fn a_cold_place_is_read_only_when_the_others_do_not_answer() {
    let memories = (0..3).map(|_| Arc::new(Memory::new())).collect();
    let world = World::with(1, 3, memories, |options| options.places[1].cold = true);
    for n in 0..12 {
        let (name, bytes) = pack(n, 1000);
        world.spread.put(&name, bytes.clone()).await.unwrap();
        assert_eq!(world.spread.get(&name, Range::All).await.unwrap(), bytes);
    }
    let gets: Vec<usize> = world.records.iter().map(|record| record.count(Op::Get)).collect();
    assert!(gets[0] > 0 && gets[1] == 0 && gets[2] > 0, "{gets:?}");
}

#[tokio::test]
async fn the_end_of_an_unknown_pack_is_one_get_and_its_length_is_known_then() {
    let world = World::new(2, 3, 3);
    let (name, bytes) = pack(1, PACK_BYTES);
    world.spread.put(&name, bytes.clone()).await.unwrap();
    for len in [1, 16_384, 65_536, 100_000] {
        let world = world.reopened(&[]);
        assert_eq!(
            world.spread.get(&name, Range::Last(len)).await.unwrap(),
            part(&bytes, Range::Last(len))
        );
        assert_eq!(world.calls(Op::Get).len(), 1, "{len}");
        assert_eq!(world.spread.get(&name, from(0, 10)).await.unwrap(), bytes.slice(..10));
        assert_eq!(world.calls(Op::Get).len(), 1);
    }
    // More than the last shard has: its footer, then one range of each.
    let again = world.reopened(&[]);
    assert_eq!(
        again.spread.get(&name, Range::Last(600_000)).await.unwrap(),
        part(&bytes, Range::Last(600_000))
    );
    assert_eq!(again.calls(Op::Get).len(), 3);

    // A range of a pack that nothing is known about costs a footer more, and none if there is a hint.
    let again = world.reopened(&[]);
    again.spread.get(&name, from(0, 10)).await.unwrap();
    assert_eq!(again.calls(Op::Get).len(), 2);
    let hinted = world.reopened(&[]);
    hinted.spread.set_sizes(Arc::new(|_| Some(PACK_BYTES as u64)));
    hinted.spread.get(&name, from(0, 10)).await.unwrap();
    assert_eq!(hinted.calls(Op::Get).len(), 1);
}

#[tokio::test]
async fn a_degraded_read_is_one_get_of_the_range_for_each_needed_shard() {
    for (needed, total) in [(2, 3), (4, 6), (10, 14)] {
        let world = World::new(needed, total, usize::from(total));
        let (name, bytes) = pack(1, PACK_BYTES);
        world.spread.put(&name, bytes.clone()).await.unwrap();
        let lost = world.homes(&name)[0];
        let world = world.reopened(&[lost]);
        world.spread.set_sizes(Arc::new(|_| Some(PACK_BYTES as u64)));
        let range = from(20_000, 5000);
        assert_eq!(world.spread.get(&name, range).await.unwrap(), part(&bytes, range));
        let gets = world.calls(Op::Get);
        assert_eq!(gets.len(), usize::from(needed));
        assert!(
            gets.iter().all(|call| call.bytes == SHARD_BLOCK_BYTES as u64 + 16),
            "{gets:?}"
        );
        assert!(world.spread.get(&name, Range::All).await.unwrap() == bytes);
        assert_eq!(
            world.calls(Op::Get).len(),
            usize::from(needed),
            "a whole pack takes no more"
        );
    }
}

#[tokio::test]
async fn a_listing_that_fits_a_page_is_three_lists_of_each_place() {
    let world = World::new(2, 3, 3);
    let mut names: Vec<Name> = Vec::new();
    for n in 0..20 {
        let (name, bytes) = pack(n, 1000);
        world.spread.put(&name, bytes).await.unwrap();
        names.push(name);
    }
    names.sort();
    let world = world.reopened(&[]);
    let listed = world.spread.list(&Prefix::Packs, None, 100).await.unwrap();
    assert!(listed.iter().all(|listed| listed.size == 1000));
    assert_eq!(listed.into_iter().map(|listed| listed.name).collect::<Vec<_>>(), names);
    assert_eq!((world.calls(Op::List).len(), world.calls(Op::Get).len()), (9, 0));
}

#[tokio::test]
async fn small_objects_are_put_everywhere_and_read_once() {
    let world = World::new(2, 3, 4);
    world.spread.put(&Name::header(), "head".into()).await.unwrap();
    assert_eq!(world.calls(Op::Put).len(), 4);
    assert_eq!(world.spread.get(&Name::header(), Range::All).await.unwrap(), "head");
    assert_eq!(world.calls(Op::Get).len(), 1);
}
