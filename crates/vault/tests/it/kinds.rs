//! Roots of other kinds than snapshots: what they name lives, what they miss is told, places share them, owners forget them.

use std::sync::Arc;
use std::time::Duration;

use drystone_format::RootId;
use drystone_format::config::Config;
use drystone_format::id::object_hash;
use drystone_format::keys::Role;
use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootState};
use drystone_store::{Kind, Memory, Name, Prefix};
use drystone_vault::{Error, GcOptions, GcReport, NewEpoch, Vault};

use crate::spread_world::{URLS, World, repair, store_small};
use crate::support::{
    ALONE, Fixture, Link, add_key, back_up, begin, check, content, craft_root, files, ingest, lines, noise, options,
    random, root_of, secrets, snapshot, stated,
};

fn gc(vault: &Vault) -> GcReport {
    vault
        .gc(&GcOptions {
            silence: Duration::ZERO,
            ..GcOptions::default()
        })
        .unwrap()
}

/// A vault in memory in which roots of the kind `test` count.
fn admitted() -> (Arc<Memory>, Fixture, Vault) {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let vault = vault.admit_roots(RootKind::TEST).unwrap();
    (store, fixture, vault)
}

fn payload(kept: &[Kept]) -> Vec<u8> {
    TestRoot(kept.to_vec()).encode()
}

/// Publishes a root that keeps a stream of these bytes and a directory with one file of them.
fn publish(vault: &Vault, seed: u64) -> (RootId, Recipe, Recipe) {
    let (bytes, other) = (noise(seed, 40_000), noise(seed + 1000, 30_000));
    let (ingest, tree) = begin(vault, [("file", other.as_slice())]).unwrap();
    let mut lane = ingest.lane();
    let mut stream = lane.content();
    stream.write(&bytes).unwrap();
    let stream = stream.finish().unwrap();
    lane.finish().unwrap();
    let finished = ingest.finish().unwrap();
    let kept = [Kept::Stream(stream.clone()), Kept::Tree(tree.clone())];
    let id = vault
        .publish_root(RootKind::TEST, &payload(&kept), &finished, RootState::Last)
        .unwrap();
    (id, stream, tree)
}

fn assert_readable(vault: &Vault, seed: u64, stream: &Recipe, tree: &Recipe) {
    let reader = vault.reader().unwrap();
    assert_eq!(content(&reader, stream).unwrap(), noise(seed, 40_000));
    let entry = reader.tree(tree).next().unwrap().unwrap();
    let file = content(&reader, entry.recipe().unwrap()).unwrap();
    assert_eq!(file, noise(seed + 1000, 30_000));
}

#[test]
fn what_a_root_of_another_kind_names_lives_as_long_as_the_root() {
    let (store, fixture, vault) = admitted();
    let (shot, _) = back_up(&vault, &[("a", &noise(7, 50_000))]).unwrap();
    let (id, stream, tree) = publish(&vault, 1);
    let (found, problems) = vault.roots(RootKind::TEST).unwrap();
    assert_eq!(lines(&problems), "");
    let kept = [Kept::Stream(stream.clone()), Kept::Tree(tree.clone())];
    assert_eq!((found.len(), found[0].name.hash), (1, id));
    assert_eq!((&found[0].payload, found[0].role), (&payload(&kept), Role::Owner));
    assert_eq!(vault.snapshot_ids().unwrap(), [shot], "no snapshot");
    vault.forget(&[shot]).unwrap();
    let report = gc(&vault);
    assert_eq!((report.snapshots, report.other_roots), (0, 1), "{report:?}");
    assert_eq!(report.deleted_packs, 1, "{report:?}");
    assert_eq!(lines(&report.problems), "");
    assert_readable(&fixture.elsewhere().open(store.clone()).unwrap(), 1, &stream, &tree);
    // A ledger states it by its kind.
    let live = stated(&secrets(&fixture, &store), &store).live.clone();
    let words: Vec<&str> = live.values().map(|live| live.kind.as_str()).collect();
    assert_eq!(words, ["test"]);
    assert!(vault.roots(RootKind::TEST).unwrap().0[0].stated.is_some());
    // Forgotten, it is gone with all that it kept.
    vault.forget(&[id]).unwrap();
    assert!(vault.roots(RootKind::TEST).unwrap().0.is_empty());
    assert_eq!(gc(&vault).deleted_packs, 1);
    assert!(store.contents().keys().all(|name| !Prefix::Packs.covers(name)));
    assert!(check(&vault).problems.is_empty());
}

#[test]
fn a_root_of_another_kind_protects_what_a_snapshot_shares_with_it() {
    let (_, _, vault) = admitted();
    let (id, stream, tree) = publish(&vault, 1);
    // The same bytes again: the snapshot relies on the packs of the other root.
    let (shot, finished) = back_up(&vault, &[("file", &noise(1001, 30_000))]).unwrap();
    assert_eq!(finished.packs, 0);
    vault.forget(&[id]).unwrap();
    gc(&vault);
    assert_eq!(
        files(&vault, &shot).unwrap(),
        [("file".to_owned(), noise(1001, 30_000))]
    );
    vault.forget(&[shot]).unwrap();
    gc(&vault);
    let reader = vault.reader().unwrap();
    assert!(matches!(content(&reader, &stream), Err(Error::MissingChunk { .. })));
    assert!(matches!(
        reader.tree(&tree).next().unwrap(),
        Err(Error::MissingChunk { .. })
    ));
}

#[test]
fn one_run_publishes_roots_of_several_kinds() {
    let (_, _, vault) = admitted();
    let bytes = noise(3, 20_000);
    let (first, tree) = begin(&vault, [("file", bytes.as_slice())]).unwrap();
    let first = first.finish().unwrap();
    let shot = vault.publish_open(&snapshot(tree.clone()), &first).unwrap();
    let second = vault.ingest_on(&first, options()).unwrap().finish().unwrap();
    let kept = payload(&[Kept::Tree(tree)]);
    vault
        .publish_root(RootKind::TEST, &kept, &second, RootState::Last)
        .unwrap();
    let found = vault.roots(RootKind::TEST).unwrap().0;
    assert_eq!(found[0].name.number, 1);
    let report = gc(&vault);
    assert_eq!((report.snapshots, report.other_roots), (1, 1), "{report:?}");
    assert_eq!(lines(&report.problems), "");
    assert_eq!(files(&vault, &shot).unwrap(), [("file".to_owned(), bytes)]);
}

#[test]
fn check_names_what_a_root_of_another_kind_misses() {
    let (store, fixture, vault) = admitted();
    let (id, ..) = publish(&vault, 1);
    let report = check(&vault);
    assert_eq!((report.snapshots, report.other_roots), (0, 1));
    assert!(report.problems.is_empty() && report.entries == 1, "{report:?}");
    let packs: Vec<Name> = store
        .contents()
        .into_keys()
        .filter(|name| Prefix::Packs.covers(name))
        .collect();
    packs.iter().for_each(|pack| store.remove(pack));
    let vault = fixture.open(store).unwrap();
    let report = check(&vault);
    let said = lines(&report.problems);
    assert!(said.contains(&format!("test {}:", id.short())), "{said}");
    let hit: Vec<(RootKind, RootId)> = report
        .other_hit
        .iter()
        .map(|(root, _)| (root.kind, root.hash))
        .collect();
    assert_eq!((hit, report.hit.len()), (vec![(RootKind::TEST, id)], 0));
    let findings = vault.doctor().unwrap();
    assert!(
        findings.iter().any(|finding| finding.what.contains(&id.short())),
        "{findings:?}"
    );
}

#[test]
fn a_root_of_another_kind_that_cannot_be_read_stops_gc_and_one_that_is_gone_too() {
    let (store, fixture, vault) = admitted();
    let (id, ..) = publish(&vault, 1);
    let (shot, _) = back_up(&vault, &[("a", &noise(7, 50_000))]).unwrap();
    let name = root_of(&*store, &id);
    let sound = store.contents()[&name].clone();
    let mut flipped = sound.to_vec();
    flipped[100] ^= 1;
    store.overwrite(&name, flipped.into());
    let told = |vault: &Vault| lines(&vault.roots(RootKind::TEST).unwrap().1);
    let elsewhere = fixture.elsewhere().open(store.clone()).unwrap();
    for vault in [&vault, &elsewhere] {
        assert!(vault.gc(&GcOptions::default()).is_err());
        assert!(lines(&check(vault).problems).contains(name.as_str()));
        assert_eq!(files(vault, &shot).unwrap().len(), 1, "the snapshot is read");
    }
    assert!(told(&elsewhere).contains(name.as_str()));
    store.remove(&name);
    let error = vault.gc(&GcOptions::default()).unwrap_err();
    assert!(matches!(error, Error::MissingRoots { .. }), "{error}");
    assert!(told(&vault).contains(name.as_str()));
    assert!(lines(&check(&vault).problems).contains(name.as_str()));
    // Given up, it stops nothing.
    vault.forget(&[id]).unwrap();
    assert_eq!(gc(&vault).deleted_packs, 1);
    assert_eq!(told(&vault), "");
    store.overwrite(&name, sound);
    assert!(
        vault.roots(RootKind::TEST).unwrap().0.is_empty(),
        "forgotten is for ever"
    );
}

#[test]
fn repair_brings_roots_of_every_kind_to_every_place() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world
        .create(&fixture, &URLS, (2, 3))
        .admit_roots(RootKind::TEST)
        .unwrap();
    let (id, stream, tree) = publish(&vault, 1);
    store_small(&vault, 1);
    let name = root_of(&*world.store(URLS[0]), &id);
    let sound = world.store(URLS[1]).contents()[&name].clone();
    world.store(URLS[0]).remove(&name);
    world.store(URLS[2]).overwrite(&name, b"altered".as_slice().into());
    let vault = world.open(&fixture, &URLS).unwrap();
    assert!(vault.redundancy().unwrap().owed_objects() > 0);
    repair(&vault);
    for url in URLS {
        assert_eq!(world.store(url).contents()[&name], sound, "{url}");
    }
    world.take(URLS[1]);
    let vault = world.open(&fixture.elsewhere(), &[URLS[0], URLS[2]]).unwrap();
    assert_eq!(vault.roots(RootKind::TEST).unwrap().0.len(), 1);
    assert_readable(&vault, 1, &stream, &tree);
}

#[test]
fn a_kind_that_is_known_and_not_listed_counts_for_nobody() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let finished = ingest(&vault).finish().unwrap();
    let refused = vault.publish_root(RootKind::TEST, &payload(&[]), &finished, RootState::Last);
    assert!(matches!(refused, Err(Error::UnlistedRoots { .. })));
    drop(finished);
    let (shot, _) = back_up(&vault, &[("a", &noise(7, 50_000))]).unwrap();
    let kept = [Kept::Tree(vault.snapshot(&shot).unwrap().tree)];
    let link = Link {
        kind: RootKind::TEST,
        ..ALONE
    };
    let (root, object) = craft_root(&secrets(&fixture, &store), [4; 16], link, &payload(&kept));
    store.overwrite(&Name::root(&root), object.into());
    assert!(lines(&check(&vault).problems).contains(Name::root(&root).as_str()));
    vault.forget(&[shot]).unwrap();
    let report = gc(&vault);
    assert_eq!((report.other_roots, report.deleted_packs), (0, 1), "{report:?}");
    assert!(lines(&report.problems).contains(Name::root(&root).as_str()));
}

#[test]
fn a_kind_that_is_listed_and_not_known_is_named_by_check_and_cannot_be_published_or_admitted() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    store_small(&vault, 1);
    let config = Config {
        number: 2,
        replaces: vec![vault.in_force().unwrap().signed.hash],
        root_kinds: vec!["head".to_owned(), "snapshot".to_owned()],
        ..vault.config().clone()
    };
    let object = config.seal(&secrets(&fixture, &store), &mut random()).unwrap();
    store.overwrite(&Name::config(2, &object_hash(&object)), object.into());
    let vault = fixture.open(store).unwrap();
    let report = check(&vault);
    assert_eq!(report.unknown_kinds, ["head"]);
    assert!(report.problems.is_empty());
    let finished = ingest(&vault).finish().unwrap();
    let refused = vault.publish_root(RootKind::HEAD, b"", &finished, RootState::Last);
    assert!(matches!(refused, Err(Error::UnlistedRoots { .. })));
    assert!(matches!(
        vault.admit_roots(RootKind::HEAD),
        Err(Error::UnlistedRoots { .. })
    ));
}

#[test]
fn a_payload_that_cannot_be_read_back_is_not_published() {
    let (store, _, vault) = admitted();
    let finished = ingest(&vault).finish().unwrap();
    let refused = vault.publish_root(RootKind::TEST, b"\xff", &finished, RootState::Last);
    assert!(refused.is_err());
    assert!(
        store
            .contents()
            .keys()
            .all(|name| !matches!(name.kind(), Kind::Root(_)))
    );
    vault
        .publish_root(RootKind::TEST, &payload(&[]), &finished, RootState::Last)
        .unwrap();
}

#[test]
fn a_root_of_another_kind_goes_on_counting_when_its_signer_is_removed() {
    let (store, _, vault) = admitted();
    let member = add_key(&vault, Role::Member);
    let (id, stream, tree) = publish(&member.open(store.clone()).unwrap(), 1);
    let slot = vault
        .keys()
        .unwrap()
        .0
        .into_iter()
        .find(|slot| slot.role == Role::Member);
    vault.remove_key(&slot.unwrap().id, NewEpoch::Keep).unwrap();
    let (found, problems) = vault.roots(RootKind::TEST).unwrap();
    assert_eq!((found.len(), lines(&problems)), (1, String::new()));
    assert_eq!(found[0].name.hash, id);
    gc(&vault);
    assert_readable(&vault, 1, &stream, &tree);
}
