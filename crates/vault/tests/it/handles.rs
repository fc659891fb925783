//! Handles that stay open while owners change keys and places.

use std::sync::Arc;
use std::time::Duration;

use drystone_format::keys::Role;
use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_format::{ChunkId, RootId};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Memory, Op, Prefix};
use drystone_vault::{Commit, Error, GcOptions, Handle, NewEpoch, Reach, Vault, WriterOptions};

use crate::pins::slot_of;
use crate::spread_world::{World, change, repair};
use crate::support::{Fixture, add_key, back_up, check, files, lines, noise, secrets};

const BYTES: usize = 900;

fn handle(world: &World, fixture: &Fixture, url: &str) -> Handle {
    let reach = Reach::open(&[url.to_owned()], Arc::new(world.clone())).unwrap();
    Handle::open(reach, fixture.context(), &fixture.unlock(), WriterOptions::default()).unwrap()
}

/// A new vault with the kind of roots for these tests.
fn create(world: &World, fixture: &Fixture, urls: &[&str], spread: (u8, u8)) -> Vault {
    world.create(fixture, urls, spread).admit_roots(RootKind::TEST).unwrap()
}

fn publish(commit: Commit, id: ChunkId) -> drystone_vault::Result<RootId> {
    let kept = Kept::Stream(Recipe::single(id, BYTES as u64));
    commit.publish(RootKind::TEST, &TestRoot(vec![kept]).encode())
}

fn commit(handle: &Handle, seed: u64) -> drystone_vault::Result<ChunkId> {
    let commit = handle.commit()?;
    let (id, _) = commit.put(&noise(seed, BYTES))?;
    publish(commit, id).map(|_| id)
}

fn assert_kept(world: &World, fixture: &Fixture, urls: &[&str], chunks: &[(ChunkId, u64)]) {
    let vault = world.open(&fixture.elsewhere(), urls).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
    for (id, seed) in chunks {
        assert_eq!(&*vault.reader().unwrap().chunk(id).unwrap(), &noise(*seed, BYTES)[..]);
    }
}

/// Replaces one place by another and drops the old one, as `place replace` and `repair` do.
fn replace(world: &World, fixture: &Fixture, (old, new): (&str, &str), spread: (u8, u8)) {
    let owner = world.open(&fixture.elsewhere(), &[old]).unwrap();
    let id = owner.find_place(old).unwrap();
    let owner = owner
        .change_places(change(vec![world.new_place(new)], vec![id], Some(spread)))
        .unwrap();
    repair(&owner);
    owner.drop_left_places().unwrap();
    world.take(old);
}

#[test]
fn a_commit_whose_place_is_given_up_is_kept_at_the_new_ones() {
    for spread in [(1, 2), (2, 3)] {
        let (world, fixture) = (World::default(), Fixture::new());
        let urls = ["mem://a", "mem://b", "mem://c"];
        let urls = &urls[..usize::from(spread.1)];
        drop(create(&world, &fixture, urls, spread));
        let handle = handle(&world, &fixture, "mem://a");
        let first = commit(&handle, 1).unwrap();
        // Under way while the place goes: a chunk that is durable by then, and one that is not.
        let under_way = handle.commit().unwrap();
        let (durable, ticket) = under_way.put(&noise(2, BYTES)).unwrap();
        under_way.wait(&ticket).unwrap();
        let (open, _) = under_way.put(&noise(3, BYTES)).unwrap();
        replace(&world, &fixture, ("mem://b", "mem://d"), spread);
        let kept = [durable, open].map(|id| Kept::Stream(Recipe::single(id, BYTES as u64)));
        under_way
            .publish(RootKind::TEST, &TestRoot(kept.into()).encode())
            .unwrap();
        let later = commit(&handle, 4).unwrap();
        assert!(
            world
                .store("mem://d")
                .contents()
                .keys()
                .any(|name| Prefix::Shards.covers(name))
        );
        let kept = [(first, 1), (durable, 2), (open, 3), (later, 4)];
        repair(&world.open(&fixture, &["mem://d"]).unwrap());
        assert_kept(&world, &fixture, &["mem://d"], &kept);
        assert_eq!(&*handle.chunk(&durable).unwrap(), &noise(2, BYTES)[..]);
    }
}

#[test]
fn a_handle_stores_at_places_that_come_and_reads_what_others_have_kept() {
    let (world, fixture) = (World::default(), Fixture::new());
    drop(create(&world, &fixture, &["mem://a", "mem://b"], (1, 2)));
    let handle = handle(&world, &fixture, "mem://a");
    let first = commit(&handle, 1).unwrap();
    let owner = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    let owner = owner
        .change_places(change(vec![world.new_place("mem://c")], vec![], Some((1, 3))))
        .unwrap();
    repair(&owner);
    let (root, _) = back_up(&owner, &[("other", &noise(9, 5000))]).unwrap();
    assert_eq!(files(&handle.vault(), &root).unwrap()[0].1, noise(9, 5000));
    handle.refresh().unwrap();
    let second = commit(&handle, 2).unwrap();
    for url in ["mem://a", "mem://b"] {
        world.take(url);
    }
    let alone = world.open(&fixture.elsewhere(), &["mem://c"]).unwrap();
    for (id, seed) in [(first, 1), (second, 2)] {
        assert_eq!(&*alone.reader().unwrap().chunk(&id).unwrap(), &noise(seed, BYTES)[..]);
    }
}

#[test]
fn what_a_place_failed_to_do_is_forgotten_when_it_is_back() {
    let (world, fixture) = (World::default(), Fixture::new());
    drop(create(&world, &fixture, &["mem://a", "mem://b", "mem://c"], (2, 3)));
    let away = world.take("mem://c");
    let handle = handle(&world, &fixture, "mem://a");
    commit(&handle, 1).unwrap();
    assert!(handle.vault().absent_places().iter().any(Option::is_some));
    world.bring("mem://c", away.clone());
    handle.refresh().unwrap();
    assert!(handle.vault().absent_places().iter().all(Option::is_none));
    let before = away.contents().len();
    commit(&handle, 2).unwrap();
    assert!(away.contents().len() > before);
}

#[test]
fn a_pack_that_was_gone_for_a_while_is_read_anew() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, &[("file", &noise(1, BYTES))]).unwrap();
    let id = vault.hasher().id(&noise(1, BYTES));
    assert!(vault.contains(&id).unwrap());
    let epoch = vault.loss_epoch().unwrap();
    let packs = || {
        store
            .contents()
            .into_iter()
            .filter(|(name, _)| Prefix::Packs.covers(name))
    };
    let kept: Vec<_> = packs().collect();
    for round in 1..4 {
        kept.iter().for_each(|(name, _)| store.remove(name));
        // Brings the index in step with the place.
        drop(check(&vault));
        assert!(!vault.contains(&id).unwrap());
        // What was known to be stored before is asked for again.
        assert_eq!(vault.loss_epoch().unwrap(), epoch + round);
        kept.iter()
            .for_each(|(name, bytes)| store.overwrite(name, bytes.clone()));
        drop(check(&vault));
        assert!(vault.contains(&id).unwrap());
        assert_eq!(&*vault.reader().unwrap().chunk(&id).unwrap(), &noise(1, BYTES)[..]);
        assert_eq!(vault.loss_epoch().unwrap(), epoch + round);
    }
    // One that comes back cut short does not.
    kept.iter().for_each(|(name, _)| store.remove(name));
    drop(check(&vault));
    kept.iter()
        .for_each(|(name, bytes)| store.overwrite(name, bytes.slice(..bytes.len() - 1)));
    drop(check(&vault));
    assert!(!vault.contains(&id).unwrap());
}

#[test]
fn what_failed_in_one_operation_is_not_held_against_the_next() {
    let (world, fixture) = (World::default(), Fixture::new());
    let urls = ["mem://a", "mem://b"];
    let vault = create(&world, &fixture, &urls, (1, 2));
    drop(vault);
    let fails = world.failing(&urls);
    let vault = world.open(&fixture, &urls).unwrap();
    back_up(&vault, &[("file", &noise(1, 50_000))]).unwrap();
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    fails[1].add(Fault::error(Op::List, Failure::Denied).only(Prefix::Writers));
    let error = vault.gc(&options).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");
    fails[1].clear();
    // In the same open vault.
    vault.gc(&options).unwrap();
    let keys = vault.keys().unwrap().0.len();
    let added = add_key(&vault, Role::Reader);
    drop(added);
    fails[1].add(Fault::error(Op::List, Failure::Denied).only(Prefix::Keys));
    let removed = slot_of(&vault, |key| key.role == Role::Reader);
    let error = vault.remove_key(&removed, NewEpoch::Keep).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");
    fails[1].clear();
    vault.remove_key(&removed, NewEpoch::Keep).unwrap();
    assert_eq!(vault.keys().unwrap().0.len(), keys);
}

#[test]
fn a_handle_seals_in_the_new_key_epoch_once_it_has_looked() {
    let (world, fixture) = (World::default(), Fixture::new());
    let owner = create(&world, &fixture, &["mem://a"], (1, 1));
    let removed = add_key(&owner, Role::Member);
    let handle = handle(&world, &fixture, "mem://a");
    commit(&handle, 1).unwrap();
    let old = secrets(&removed, &world.store("mem://a"));
    let id = slot_of(&owner, |key| key.role == Role::Member);
    owner.remove_key(&id, NewEpoch::Start).unwrap();
    // The first commit looks, the second is sealed after that.
    commit(&handle, 2).unwrap();
    let later = commit(&handle, 3).unwrap();
    let vault = handle.vault();
    let (roots, problems) = vault.roots(RootKind::TEST).unwrap();
    assert_eq!(lines(&problems), "");
    let opens = |root: &drystone_vault::FoundRoot| {
        let name = drystone_store::Name::root(&root.name);
        let object = world.store("mem://a").contents()[&name].clone();
        drystone_format::root::open_root(&old, &root.name, &object).is_ok()
    };
    assert_eq!(
        roots.iter().filter(|root| opens(root)).count(),
        2,
        "the last one is closed to it"
    );
    assert_kept(&world, &fixture, &["mem://a"], &[(later, 3)]);
}

#[test]
fn a_handle_whose_key_is_removed_acknowledges_nothing_more() {
    let (world, fixture) = (World::default(), Fixture::new());
    let owner = create(&world, &fixture, &["mem://a"], (1, 1));
    let member = add_key(&owner, Role::Member);
    let handle = handle(&world, &member, "mem://a");
    let before = commit(&handle, 1).unwrap();
    let under_way = handle.commit().unwrap();
    let (id, _) = under_way.put(&noise(2, BYTES)).unwrap();
    let slot = slot_of(&owner, |key| key.role == Role::Member);
    owner.remove_key(&slot, NewEpoch::Start).unwrap();
    let refused = publish(under_way, id);
    assert!(
        matches!(refused, Err(Error::KeyRemoved { .. } | Error::GivenUp { .. })),
        "{refused:?}"
    );
    assert!(commit(&handle, 3).is_err() && handle.refresh().is_err());
    // What it had acknowledged before counts. The root that it put in vain is there, and told.
    let store: Arc<Memory> = world.store("mem://a");
    let vault = fixture.elsewhere().open(store).unwrap();
    assert_eq!(&*vault.reader().unwrap().chunk(&before).unwrap(), &noise(1, BYTES)[..]);
    assert_eq!(vault.roots(RootKind::TEST).unwrap().0.len(), 1);
    let told = check(&vault).problems;
    assert!(
        told.count() == 1 && lines(&told).contains("was removed"),
        "{}",
        lines(&told)
    );
}
