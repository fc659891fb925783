//! A vault at several places: any k of them are enough, whatever happens to the others and when.

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_format::RootId;
use drystone_format::config::Config;
use drystone_format::id::object_hash;
use drystone_format::keys::Role;
use drystone_format::notice::{NoticeKind, seal_notice};
use drystone_store::{Kind, Memory, Name, Prefix};
use drystone_vault::{Error, GcOptions, Grade, NewEpoch, NewPlace, PlaceUse, Vault};

use crate::spread_world::{
    URLS, World, assert_whole, change, repair, small_files, some_files, store_files, store_small, try_store, unsigned,
};
use crate::support::root_of;
use crate::support::{Fixture, add_key, back_up, begin, check, files, lines, noise, random, scrub, secrets, snapshot};

#[test]
fn any_k_places_and_the_key_are_enough() {
    let (world, fixture) = (World::default(), Fixture::new());
    let urls = ["mem://a", "mem://b", "mem://c"];
    let vault = world.create(&fixture, &urls, (2, 3));
    let id = store_files(&vault, 1);
    assert_whole(&vault);
    drop(vault);
    for gone in urls {
        let store = world.take(gone);
        for named in urls.iter().filter(|url| **url != gone) {
            // Another machine: nothing but one place and the key.
            let vault = world.open(&fixture.elsewhere(), &[named]).unwrap();
            assert_eq!(
                files(&vault, &id).unwrap(),
                some_files(1),
                "without {gone}, from {named}"
            );
            assert_eq!(
                vault.absent_places().iter().filter(|absent| absent.is_some()).count(),
                1
            );
        }
        world.bring(gone, store);
    }
    // With fewer than k places nothing is lost, but nothing can be read: the error names those that are missing.
    let (a, b) = (world.take("mem://a"), world.take("mem://b"));
    let error = world
        .open(&fixture.elsewhere(), &["mem://c"])
        .and_then(|vault| files(&vault, &id).map(drop))
        .unwrap_err()
        .to_string();
    assert!(error.contains("mem://a") && error.contains("mem://b"), "{error}");
    world.bring("mem://a", a);
    world.bring("mem://b", b);
    let vault = world.open(&fixture, &["mem://nowhere", "mem://c"]).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn what_is_stored_while_a_place_is_away_is_owed_and_paid() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let first = store_files(&vault, 1);
    let away = world.take("mem://b");
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    let second = store_files(&vault, 2);
    let troubles = vault.troubles();
    assert!(troubles.owed() > 0 && troubles.thin.count > 0, "{troubles:?}");
    assert!(vault.redundancy().unwrap().owed_packs > 0);
    // It comes back stale, and is brought up to date.
    world.bring("mem://b", away);
    let vault = world.open(&fixture, &["mem://b"]).unwrap();
    assert_eq!(files(&vault, &second).unwrap(), some_files(2));
    let repaired = repair(&vault);
    assert!(repaired.mended_packs > 0 && repaired.mended_objects > 0, "{repaired:?}");
    assert!(repaired.problems.is_empty());
    assert_whole(&vault);
    let again = repair(&vault);
    assert_eq!(
        (again.mended_packs, again.mended_objects, again.written_bytes),
        (0, 0, 0)
    );
    world.take("mem://c");
    let vault = world.open(&fixture.elsewhere(), &["mem://b"]).unwrap();
    for (id, seed) in [(first, 1), (second, 2)] {
        assert_eq!(files(&vault, &id).unwrap(), some_files(seed));
    }
}

#[test]
fn an_empty_mount_point_or_another_disk_is_no_place() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let id = store_files(&vault, 1);
    let real = world.take("mem://b");
    // Empty; another place of this vault; a place of another vault.
    let (other_world, other_fixture) = (World::default(), Fixture::new());
    let other = other_world.create(&other_fixture, &["mem://x", "mem://y"], (1, 2));
    store_files(&other, 9);
    for wrong in [
        Arc::new(Memory::named("mem://b")),
        world.store("mem://c"),
        other_world.store("mem://x"),
    ] {
        let before = wrong.contents();
        world.bring("mem://b", wrong.clone());
        let vault = world.open(&fixture, &["mem://a"]).unwrap();
        assert!(vault.absent_places()[1].is_some());
        store_files(&vault, 2);
        assert_eq!(files(&vault, &id).unwrap(), some_files(1));
        if !Arc::ptr_eq(&wrong, &world.store("mem://c")) {
            assert_eq!(wrong.contents(), before, "something was written to the wrong place");
        }
    }
    world.bring("mem://b", real);
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    repair(&vault);
    assert_whole(&vault);
}

#[test]
fn a_vault_grows_from_one_place_to_many_and_back() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = fixture.create(world.add("mem://a")).unwrap();
    let first = store_files(&vault, 1);
    let whole = |vault: &Vault, count: usize, spread: (u8, u8)| {
        let config = vault.config();
        assert_eq!((config.places.len(), config.spread), (count, spread));
        assert_whole(vault);
        assert_eq!(files(vault, &first).unwrap(), some_files(1));
    };
    // A mirror, by default; the copies that lie there stay as they are.
    let vault = vault
        .change_places(change(vec![world.new_place("mem://b")], vec![], None))
        .unwrap();
    assert_eq!(files(&vault, &first).unwrap(), some_files(1));
    repair(&vault);
    whole(&vault, 2, (1, 2));
    // 2 of 3. Before, while and after packs move, everything can be read, from anywhere.
    let vault = vault
        .change_places(change(vec![world.new_place("mem://c")], vec![], Some((2, 3))))
        .unwrap();
    let elsewhere = world.open(&fixture.elsewhere(), &["mem://c"]).unwrap();
    assert_eq!(files(&elsewhere, &first).unwrap(), some_files(1));
    let second = store_files(&vault, 2);
    repair(&vault);
    whole(&vault, 3, (2, 3));
    assert!(
        !world
            .store("mem://a")
            .contents()
            .iter()
            .any(|(name, _)| Prefix::Packs.covers(name))
    );
    // One more parity shard for each pack: nothing that lies there is written again.
    let vault = vault
        .change_places(change(vec![world.new_place("mem://d")], vec![], Some((2, 4))))
        .unwrap();
    let repaired = repair(&vault);
    let packs = vault.redundancy().unwrap().packs;
    assert_eq!(repaired.mended_packs, packs);
    whole(&vault, 4, (2, 4));
    // Away with the first place: it is emptied, then dropped.
    let gone = vault.find_place("mem://a").unwrap();
    let vault = vault.change_places(change(vec![], vec![gone], Some((2, 3)))).unwrap();
    repair(&vault);
    let vault = vault.drop_left_places().unwrap();
    whole(&vault, 3, (2, 3));
    world.take("mem://a");
    let vault = world.open(&fixture.elsewhere(), &["mem://d"]).unwrap();
    whole(&vault, 3, (2, 3));
    assert_eq!(files(&vault, &second).unwrap(), some_files(2));
}

#[test]
fn a_lost_place_is_replaced_and_may_be_interrupted_at_any_point() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let id = store_files(&vault, 1);
    world.take("mem://b");
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    let old = vault.find_place("mem://b").unwrap();
    let vault = vault
        .change_places(change(vec![world.new_place("mem://e")], vec![old], None))
        .unwrap();
    assert_eq!(vault.places().len(), 3);
    // Interrupted before any pack is there.
    let vault = {
        drop(vault);
        world.open(&fixture, &["mem://e"]).unwrap()
    };
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
    let plan = vault.redundancy().unwrap();
    assert_eq!(plan.owed_packs, plan.packs);
    let repaired = repair(&vault);
    assert_eq!(repaired.mended_packs, plan.packs);
    // k shards are read for one that is written.
    assert!(repaired.read_bytes <= 2 * repaired.written_bytes + 4096, "{repaired:?}");
    let planned: u64 = plan.work.iter().map(|work| work.write_bytes).sum();
    // Lengths of packs are estimated where the place that would tell is gone.
    assert!(
        planned.abs_diff(repaired.written_bytes) <= 2 * plan.packs,
        "{plan:?} {repaired:?}"
    );
    assert_whole(&vault);
    world.take("mem://c");
    let vault = world.open(&fixture.elsewhere(), &["mem://e"]).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn the_newest_list_of_places_is_found_from_a_place_that_was_away() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (1, 3));
    let id = store_files(&vault, 1);
    let away = world.take("mem://c");
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    let old = vault.find_place("mem://b").unwrap();
    let vault = vault
        .change_places(change(vec![world.new_place("mem://d")], vec![old], None))
        .unwrap();
    repair(&vault);
    world.bring("mem://c", away);
    let vault = world.open(&fixture.elsewhere(), &["mem://c"]).unwrap();
    let urls: Vec<&str> = vault.places().iter().map(|entry| entry.url.as_str()).collect();
    assert!(urls.contains(&"mem://d"), "{urls:?}");
    // If the others are not there, the machine that knows better says so.
    for url in ["mem://a", "mem://b", "mem://d"] {
        world.take(url);
    }
    let error = world.open(&fixture, &["mem://c"]).map(drop).unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
    let vault = world.open(&fixture.elsewhere(), &["mem://c"]).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn a_writer_cannot_send_others_to_places_of_his_own() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b"], (1, 2));
    let id = store_files(&vault, 1);
    let writer = add_key(&vault, Role::Writer);
    let as_writer = world.open(&writer, &["mem://a"]).unwrap();
    let error = as_writer
        .change_places(change(vec![world.new_place("mem://evil")], vec![], None))
        .map(drop);
    assert!(
        matches!(error, Err(Error::Format(drystone_format::Error::WriterKey { .. }))),
        "{error:?}"
    );
    // What the writer's key signs, and what nobody signed, is passed over where a configuration would be.
    let mut evil = Config {
        number: 99,
        ..vault.config().clone()
    };
    "mem://evil".clone_into(&mut evil.places[1].url);
    let stolen = secrets(&writer, &world.store("mem://a"));
    let signed = seal_notice(&stolen, NoticeKind::Config, evil.encode().unwrap(), &mut random()).unwrap();
    for forged in [signed, vec![7; 300]] {
        let name = Name::config(99, &object_hash(&forged));
        world.store("mem://a").overwrite(&name, forged.into());
    }
    let vault = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    let urls: Vec<&str> = vault.config().places.iter().map(|entry| entry.url.as_str()).collect();
    assert_eq!(urls, ["mem://a", "mem://b"]);
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn places_that_belong_to_another_vault_are_refused() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b"], (1, 2));
    fixture.create(world.add("mem://other")).unwrap();
    let taken = NewPlace {
        store: world.store("mem://other"),
        url: "mem://other".to_owned(),
        used: PlaceUse::default(),
    };
    assert!(matches!(
        vault.change_places(change(vec![taken], vec![], None)),
        Err(Error::PlaceTaken { .. })
    ));
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    assert_eq!(vault.places().len(), 2);
    assert!(matches!(vault.find_place("mem://other"), Err(Error::NoPlaceOf { .. })));
}

/// Flips one bit of each object in turn at one place: scrub finds it, repair mends it, and no file is ever wrong.
#[test]
fn any_object_may_rot_at_one_place() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let id = store_files(&vault, 1);
    drop(vault);
    let objects: Vec<Name> = world.store("mem://b").contents().into_keys().collect();
    assert!(objects.len() >= 6);
    for (number, name) in objects.iter().enumerate() {
        let store = world.store("mem://b");
        let sound = store.contents().into_iter().find(|(found, _)| found == name).unwrap().1;
        let mut rotten = sound.to_vec();
        let at = number * 7919 % rotten.len();
        rotten[at] ^= 1 << (number % 8);
        store.overwrite(name, rotten.into());
        let vault = world.open(&fixture, &["mem://b", "mem://a"]).unwrap();
        assert_eq!(files(&vault, &id).unwrap(), some_files(1), "{name}");
        let report = scrub(&vault);
        let is_noticed = report.rotten > 0 || report.problems.count() > 0 || !vault.notes().is_empty();
        assert!(is_noticed || !vault.troubles().is_none(), "{name}: nobody noticed");
        repair(&vault);
        let vault = world.open(&fixture, &["mem://b", "mem://a"]).unwrap();
        assert_whole(&vault);
        let mended = store.contents().into_iter().find(|(found, _)| found == name).unwrap().1;
        assert_eq!(unsigned(name, &mended), unsigned(name, &sound), "{name}");
    }
}

#[test]
fn the_doctor_names_what_is_missing_and_what_to_do() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    store_files(&vault, 1);
    let grades =
        |vault: &Vault| -> Vec<Grade> { vault.doctor().unwrap().iter().map(|finding| finding.grade).collect() };
    assert!(
        grades(&vault).iter().all(|grade| *grade == Grade::Risk),
        "{:?}",
        vault.doctor().unwrap()
    );
    world.take("mem://b");
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    let findings = vault.doctor().unwrap();
    assert!(
        findings.iter().any(|finding| finding.grade == Grade::Owed
            && finding.what.contains("mem://b")
            && finding.next.contains("place replace")),
        "{findings:?}"
    );
}

#[test]
fn gc_deletes_whole_packs_while_a_place_is_away_and_what_was_deleted_does_not_come_back() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let (first, second) = (store_files(&vault, 1), store_files(&vault, 2));
    // Two files of which one is needed: the pack that holds both is worth copying, but not while a place is away.
    let mixed = try_store(&vault, &some_files(3)).unwrap();
    let third = try_store(&vault, &some_files(3)[..1]).unwrap();
    // A place goes away, and comes back as it was before anything was forgotten.
    let stale = Arc::new(world.store("mem://b").as_ref().clone());
    let packs = |vault: &Vault| vault.redundancy().unwrap().packs;
    let before = packs(&vault);
    vault.forget(&[first, mixed]).unwrap();
    let away = world.take("mem://b");
    let absent = world.open(&fixture, &["mem://a"]).unwrap();
    let report = absent.gc(&GcOptions::default()).unwrap();
    assert!(report.deleted_packs > 0 && report.uncopied_packs > 0, "{report:?}");
    assert_eq!((report.copied_bytes, report.rewritten_packs), (0, 0), "{report:?}");
    assert_eq!(files(&absent, &second).unwrap(), some_files(2));
    assert_eq!(files(&absent, &third).unwrap(), some_files(3)[..1]);
    let key = absent.keys().unwrap().0[0].id;
    add_key(&absent, Role::Owner);
    assert!(matches!(
        absent.remove_key(&key, NewEpoch::Keep),
        Err(Error::Absent { .. })
    ));
    world.bring("mem://b", away);
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    // What the place that was away still has of deleted packs is no loss.
    assert!(repair(&vault).problems.is_empty());
    let found = vault.redundancy().unwrap();
    assert!(found.lost_packs == 0 && found.leftover_packs > 0, "{found:?}");
    let report = vault.gc(&GcOptions::default()).unwrap();
    assert!(report.rewritten_packs > 0 && report.uncopied_packs == 0, "{report:?}");
    assert!(packs(&vault) < before);
    for url in ["mem://a", "mem://b", "mem://c"] {
        let shards = world
            .store(url)
            .contents()
            .into_keys()
            .filter(|name| Prefix::Shards.covers(name))
            .count();
        assert_eq!(shards as u64, vault.redundancy().unwrap().packs, "{url}");
    }
    world.bring("mem://b", stale);
    let vault = world.open(&fixture, &["mem://b"]).unwrap();
    let ids: BTreeSet<RootId> = vault.snapshot_ids().unwrap().into_iter().collect();
    assert_eq!(ids, BTreeSet::from([second, third]), "a forgotten snapshot came back");
    assert_eq!(files(&vault, &second).unwrap(), some_files(2));
    repair(&vault);
    vault.gc(&GcOptions::default()).unwrap();
    assert_whole(&vault);
    assert_eq!(files(&vault, &second).unwrap(), some_files(2));
}

#[test]
fn gc_needs_a_place_that_every_other_run_knows() {
    let (world, fixture) = (World::default(), Fixture::new());
    // A backup may reach nothing but b, and gc nothing but a.
    let vault = world.create(&fixture, &["mem://a", "mem://b"], (1, 2));
    store_files(&vault, 1);
    world.take("mem://b");
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    let error = vault.gc(&GcOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Absent { place, .. } if place == "mem://b"),
        "{error}"
    );
}

#[test]
fn what_gc_relies_on_is_brought_to_enough_places_first() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let id = store_files(&vault, 1);
    // As a run leaves it that was cut off while it put its root.
    let root = root_of(&*world.store("mem://a"), &id);
    for url in ["mem://b", "mem://c"] {
        world.store(url).remove(&root);
    }
    world
        .open(&fixture, &["mem://a"])
        .unwrap()
        .gc(&GcOptions::default())
        .unwrap();
    world.take("mem://a");
    let vault = world.open(&fixture, &["mem://b"]).unwrap();
    vault.gc(&GcOptions::default()).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

/// The shards of one pack, with the places where they lie.
fn shards_of_a_pack(world: &World) -> Vec<(&'static str, Name)> {
    let objects = URLS.into_iter().flat_map(|url| {
        let names = world.store(url).contents().into_keys();
        names.map(move |name| (url, name))
    });
    let shards: Vec<(&str, Name)> = objects
        .filter(|(_, name)| matches!(name.kind(), Kind::Shard(_)))
        .collect();
    let pack = |name: &Name| match name.kind() {
        Kind::Shard(shard) => Some(shard.pack),
        _ => None,
    };
    let first = pack(&shards[0].1);
    shards.into_iter().filter(|(_, name)| pack(name) == first).collect()
}

/// Too few shards: lost if all places say so, out of reach if one is away, a leftover if the pack never was whole.
#[test]
fn what_is_missing_is_called_lost_only_when_it_is() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    store_small(&vault, 1);
    let away = world.take(URLS[1]);
    store_small(&world.open(&fixture, &URLS).unwrap(), 2);
    world.bring(URLS[1], away);

    let away = world.take(URLS[2]);
    let vault = world.open(&fixture, &URLS[..2]).unwrap();
    let report = check(&vault);
    assert_eq!(lines(&report.problems), "");
    assert!(
        report.out_of_reach.count() > 0 && report.redundancy.unreached_packs > 0,
        "{report:?}"
    );
    assert_eq!((report.redundancy.lost_packs, report.redundancy.leftover_packs), (0, 0));
    assert!(vault.doctor().unwrap().iter().all(|found| found.grade != Grade::Lost));
    world.bring(URLS[2], away);
    let vault = world.open(&fixture, &URLS).unwrap();
    repair(&vault);
    assert_whole(&vault);

    // Of a run that died, one shard.
    let other = world.copy();
    store_small(&other.open(&fixture.copy(), &URLS).unwrap(), 3);
    let (before, after) = (world.store(URLS[0]).contents(), other.store(URLS[0]).contents());
    let is_new = |(name, _): &(&Name, _)| matches!(name.kind(), Kind::Shard(_)) && !before.contains_key(name);
    let (name, bytes) = after.iter().find(is_new).unwrap();
    world.store(URLS[0]).overwrite(name, bytes.clone());
    let vault = world.open(&fixture, &URLS).unwrap();
    let report = check(&vault);
    assert_eq!(
        (lines(&report.problems), report.out_of_reach.count()),
        (String::new(), 0)
    );
    assert_eq!((report.redundancy.lost_packs, report.redundancy.leftover_packs), (0, 1));
    assert!(repair(&vault).problems.is_empty());
    let findings = vault.doctor().unwrap();
    assert!(
        findings.iter().all(|found| found.grade != Grade::Lost)
            && findings.iter().any(|found| found.next.contains("drystone gc")),
        "{findings:?}"
    );
    vault.gc(&GcOptions::default()).unwrap();
    assert_whole(&world.open(&fixture, &URLS).unwrap());

    for (url, name) in shards_of_a_pack(&world).iter().take(2) {
        world.store(url).remove(name);
    }
    for _ in 0..2 {
        let vault = world.open(&fixture, &URLS).unwrap();
        let report = check(&vault);
        assert!(!report.problems.is_empty() && report.out_of_reach.is_empty());
        assert_eq!((report.redundancy.lost_packs, report.redundancy.leftover_packs), (1, 0));
        assert_eq!(vault.doctor().unwrap()[0].grade, Grade::Lost);
    }
}

/// One place more, and spare copies are not needed; one less, and there are none but of what is there.
#[test]
fn spare_copies_come_and_go_with_places() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS[..1], (2, 3));
    let ids = [store_small(&vault, 1), store_small(&vault, 2)];
    let spares = |url: &str| {
        let names = world.store(url).contents().into_keys();
        names.filter(|name| name.spare_number() > 0).count()
    };
    let originals = |url: &str| {
        let names = world.store(url).contents().into_keys();
        names
            .filter(|name| name.spare_number() == 0 && name.has_spares())
            .count()
    };
    assert!(spares(URLS[0]) > 4 && spares(URLS[0]) == originals(URLS[0]));

    let vault = vault
        .change_places(change(vec![world.new_place(URLS[1])], Vec::new(), None))
        .unwrap();
    assert!(spares(URLS[0]) > 0, "until repair");
    vault.forget(&ids[..1]).unwrap();
    let old = vault.find_place(URLS[1]).unwrap();
    let vault = vault.change_places(change(Vec::new(), vec![old], None)).unwrap();
    repair(&vault);
    let vault = vault.drop_left_places().unwrap();
    assert_eq!(
        vault.snapshot_ids().unwrap(),
        ids[1..],
        "what was forgotten does not come back"
    );
    assert_eq!(spares(URLS[0]), originals(URLS[0]));

    let vault = vault
        .change_places(change(vec![world.new_place(URLS[2])], Vec::new(), None))
        .unwrap();
    repair(&vault);
    assert_eq!((spares(URLS[0]), spares(URLS[2])), (0, 0));
    assert!(files(&vault, &ids[1]).unwrap() == small_files(2));
}

/// A vault of the version before has none: repair makes them.
#[test]
fn spare_copies_are_made_where_there_are_none() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS[..1], (2, 4));
    store_small(&vault, 1);
    let store = world.store(URLS[0]);
    let whole = store.contents();
    for name in whole.keys().filter(|name| name.spare_number() > 0) {
        store.remove(name);
    }
    let vault = world.open(&fixture, &URLS[..1]).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
    let repaired = repair(&vault);
    assert!(
        repaired.problems.is_empty() && repaired.mended_objects > 4,
        "{repaired:?}"
    );
    assert_eq!(store.contents(), whole);
    assert_eq!(repair(&vault).mended_objects, 0);
}

#[test]
fn a_run_does_not_report_what_lies_at_a_place_that_was_taken_out_meanwhile() {
    for (is_there, is_replaced) in [(true, true), (true, false), (false, true), (false, false)] {
        let (world, fixture) = (World::default(), Fixture::new());
        let urls = ["mem://a", "mem://b", "mem://c"];
        let vault = world.create(&fixture, &urls, (2, 3));
        let first = store_files(&vault, 1);
        let (run, tree) = begin(&vault, [("x", &noise(9, 300_000)[..])]).unwrap();
        let finished = run.finish().unwrap();
        // Another machine, which may not even see the place.
        let away = (!is_there).then(|| world.take("mem://c"));
        let other = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
        let id = other.find_place("mem://c").unwrap();
        let add = if is_replaced {
            vec![world.new_place("mem://d")]
        } else {
            Vec::new()
        };
        let other = other.change_places(change(add, vec![id], None)).unwrap();
        repair(&other);
        other.drop_left_places().unwrap();
        if let Some(away) = away {
            world.bring("mem://c", away);
        }
        let error = vault.publish(&snapshot(tree), &finished).unwrap_err();
        assert!(
            matches!(&error, Error::PlacesMoved { place } if place == "mem://c"),
            "{error}"
        );
        // Run again, it stores what is missing at the places as they are now.
        world.take("mem://c");
        let vault = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
        let (second, _) = back_up(&vault, &[("x", &noise(9, 300_000)[..])]).unwrap();
        assert_eq!(files(&vault, &second).unwrap()[0].1, noise(9, 300_000));
        assert_eq!(files(&vault, &first).unwrap(), some_files(1));
    }
}

#[test]
fn a_run_goes_on_when_a_place_comes_to_the_vault() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["mem://a", "mem://b"], (1, 2));
    let (run, tree) = begin(&vault, [("x", &noise(9, 300_000)[..])]).unwrap();
    let finished = run.finish().unwrap();
    let other = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    repair(
        &other
            .change_places(change(vec![world.new_place("mem://c")], Vec::new(), Some((1, 3))))
            .unwrap(),
    );
    let id = vault.publish(&snapshot(tree), &finished).unwrap();
    let vault = world.open(&fixture.elsewhere(), &["mem://c"]).unwrap();
    repair(&vault);
    assert_eq!(files(&vault, &id).unwrap()[0].1, noise(9, 300_000));
}
