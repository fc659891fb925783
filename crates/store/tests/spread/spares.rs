//! Spare copies of small objects, where there are fewer places than copies.

use drystone_format::RegistrationId;
use drystone_format::id::object_hash;
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Error, Name, Op, Prefix, Put, Range, RootKind, Store};

use super::World;

fn root() -> Name {
    super::root(b"x")
}

fn names(world: &World, place: usize) -> Vec<Name> {
    world.memories[place].contents().into_keys().collect()
}

#[tokio::test]
async fn there_are_as_many_as_may_be_lost_and_one_more() {
    for (needed, total, places, spares) in [
        (2, 3, 1, 1),
        (2, 4, 1, 2),
        (2, 3, 2, 0),
        (3, 5, 2, 1),
        (1, 1, 1, 0),
        (4, 6, 2, 1),
    ] {
        let world = World::new(needed, total, places);
        assert_eq!(world.spread.spares_per_place(), spares);
        world.spread.put(&root(), "x".into()).await.unwrap();
        world
            .spread
            .put(
                &Name::writer(&RegistrationId([2; 16]), 0, &object_hash(b"w")),
                "w".into(),
            )
            .await
            .unwrap();
        let expected: Vec<Name> = (0..=spares).map(|number| root().spare(number)).collect();
        for place in 0..places {
            let mut found = names(&world, place);
            assert!(found.pop().is_some_and(|writer| !writer.has_spares()));
            assert_eq!(found, expected);
        }
        let listed = world.spread.list(&Prefix::All, None, 10).await.unwrap();
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(world.spread.list(&Prefix::Spares, None, 10).await.unwrap().is_empty());
        assert!(matches!(
            world.spread.get(&root().spare(1), Range::All).await,
            Err(Error::OnePlace { .. })
        ));
    }
}

#[tokio::test]
async fn originals_come_first_and_go_last_and_are_what_is_read() {
    let world = World::new(2, 4, 1);
    let order = |op| -> Vec<String> { world.calls(op).into_iter().map(|call| call.name).collect() };
    let copies = |numbers: [u8; 3]| numbers.map(|number| root().spare(number).to_string());
    assert_eq!(world.spread.put(&root(), "x".into()).await.unwrap(), Put::Created);
    assert_eq!(order(Op::Put), copies([0, 1, 2]));
    world.spread.get(&root(), Range::All).await.unwrap();
    assert_eq!(order(Op::Get), [root().to_string()]);
    world.spread.delete(&root()).await.unwrap();
    let deleted = order(Op::Delete);
    assert_eq!(deleted.last(), Some(&root().to_string()));
    assert_eq!((deleted.len(), names(&world, 0)), (3, Vec::new()));
}

#[tokio::test]
async fn any_sound_copy_is_read_listed_and_mended_from() {
    let world = World::new(2, 4, 1);
    world.spread.put(&root(), "x".into()).await.unwrap();
    let whole = world.memories[0].contents();
    for sound in 0..3 {
        for number in (0..3).filter(|number| *number != sound) {
            let name = root().spare(number);
            if number == 1 {
                world.memories[0].remove(&name);
            } else {
                world.memories[0].overwrite(&name, "bad".into());
            }
        }
        let again = world.reopened(&[]);
        assert_eq!(again.spread.get(&root(), Range::All).await.unwrap(), "x");
        let listed = again
            .spread
            .list(&Prefix::Roots(RootKind::SNAPSHOT), None, 10)
            .await
            .unwrap();
        assert_eq!((listed.len(), listed[0].size), (1, 1));
        let found = again.spread.verify_small(&Prefix::All).await.unwrap();
        let bad = (0..3).filter(|number| *number != sound && *number != 1);
        let bad: Vec<String> = bad.map(|number| root().spare(number).to_string()).collect();
        assert_eq!((&found.rotten.named, found.unsound.count), (&bad, 0));
        let mended = again.spread.replicate_small(&Prefix::All).await.unwrap();
        let rotten = bad.len() as u64;
        assert_eq!((mended.replaced, mended.copied), (rotten, 2 - rotten));
        assert_eq!(world.memories[0].contents(), whole);
    }
    for number in 0..3 {
        world.memories[0].overwrite(&root().spare(number), "bad".into());
    }
    let lost = world.reopened(&[]).spread.get(&root(), Range::All).await;
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn of_two_that_put_different_bytes_one_gets_all_copies() {
    let world = World::new(2, 3, 1);
    let other = world.reopened(&[]);
    // The second puts its original before the first has put its spare copy.
    world.fails[0].add(Fault::error(Op::Put, Failure::Unavailable).nth(2));
    world.spread.put(&Name::header(), "one".into()).await.unwrap();
    assert_eq!(world.spread.troubles().owed(), 1);
    assert_eq!(names(&world, 0), [Name::header()]);
    let put = other.spread.put(&Name::header(), "two".into()).await;
    assert!(matches!(put, Err(Error::Taken { .. })), "{put:?}");
    assert_eq!(names(&world, 0), [Name::header()]);
    // Who goes on with what was cut short completes it.
    let again = world.reopened(&[]);
    assert_eq!(
        again.spread.put(&Name::header(), "one".into()).await.unwrap(),
        Put::Existed
    );
    assert_eq!(names(&world, 0), [Name::header(), Name::header().spare(1)]);
    assert_eq!(again.memories[0].contents()[&Name::header().spare(1)], "one");
}

#[tokio::test]
async fn the_only_place_can_be_left_for_another() {
    let world = World::new(2, 3, 2);
    world.spread.put(&root(), "x".into()).await.unwrap();
    world.memories[1].remove(&root());
    let leaving = World::with(2, 3, world.memories.clone(), |options| options.places[0].weight = None);
    let rebalanced = leaving.spread.replicate_small(&Prefix::All).await.unwrap();
    assert_eq!((rebalanced.copied, rebalanced.unsound.count), (2, 0));
    assert_eq!(names(&world, 1), [root(), root().spare(1)]);
    assert_eq!(names(&world, 0), [root()]);
}

#[tokio::test]
async fn what_is_not_needed_any_more_is_dropped() {
    let world = World::new(2, 5, 1);
    world.spread.put(&root(), "x".into()).await.unwrap();
    assert_eq!(names(&world, 0).len(), 4);
    let fewer = World::over(2, 4, world.memories.clone());
    assert_eq!(fewer.spread.drop_spares().await.unwrap(), 1);
    assert_eq!(names(&world, 0), [root(), root().spare(1), root().spare(2)]);
    assert_eq!(fewer.spread.drop_spares().await.unwrap(), 0);
    let kept = World::with(2, 2, world.memories.clone(), |options| {
        options.places[0].append_only = true
    });
    assert_eq!(kept.spread.drop_spares().await.unwrap(), 0);
}
