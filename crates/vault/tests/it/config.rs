//! The configuration: which one is in force, what is doubtful, what refuses then, and how a vault grows by features.

use std::sync::Arc;
use std::time::Duration;

use drystone_format::config::{Config, Features};
use drystone_format::id::object_hash;
use drystone_format::keys::{Role, Secrets};
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::notice::{NoticeKind, seal_notice_as};
use drystone_format::{RootId, chunker::Sizes};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Memory, Name, Op, Prefix};
use drystone_vault::{
    Cancel, Error, GcOptions, InForce, NewEpoch, PlaceChange, RepairOptions, ScrubOptions, Signed, Vault, differences,
    in_force,
};

use crate::spread_world::{URLS, World, change, repair, some_files, store_files, store_small, try_store};
use crate::support::{Fixture, add_key, check, files, lines, random, scrub, secrets};

fn config(number: u64, replaces: &[u8]) -> Signed {
    let config = Config {
        number,
        made: Default::default(),
        replaces: replaces.iter().map(|byte| RootId([*byte; 16])).collect(),
        features: Features::default(),
        data_sizes: Sizes::DATA,
        meta_sizes: Sizes::META,
        trust: drystone_format::config::Trust::Verified,
        spread: (1, 1),
        places: Vec::new(),
        root_kinds: vec!["snapshot".to_owned()],
        removed: Vec::new(),
        unknown: Vec::new(),
    };
    let hash = RootId([u8::try_from(number).unwrap() * 16 + u8::try_from(replaces.len()).unwrap(); 16]);
    Signed { hash, config }
}

#[test]
fn in_force_is_the_one_that_no_other_replaces() {
    let of = |hash: u8, number, replaces: &[u8]| Signed {
        hash: RootId([hash; 16]),
        ..config(number, replaces)
    };
    let (one, two, three) = (of(1, 1, &[]), of(2, 2, &[1]), of(3, 3, &[1, 2]));
    let chosen = |configs: &[Signed], named| {
        let InForce { signed, rivals } = in_force(configs, named).unwrap();
        (
            signed.hash.0[0],
            rivals.iter().map(|rival| rival.hash.0[0]).collect::<Vec<_>>(),
        )
    };
    assert_eq!(in_force(&[], None), None);
    for configs in [[&one, &two, &three], [&three, &one, &two], [&two, &three, &one]] {
        assert_eq!(chosen(&configs.map(Clone::clone), None), (3, vec![]));
    }
    // A gap (an old one that is gone) changes nothing; neither does a greater number that is replaced.
    assert_eq!(chosen(&[one.clone(), three.clone()], None), (3, vec![]));
    assert_eq!(chosen(&[of(9, 7, &[]), of(2, 2, &[9])], None), (2, vec![]));
    // Both sides of a split: the greater number, then the greater hash, and the other is named.
    let (left, right) = (of(4, 2, &[1]), of(5, 2, &[1]));
    assert_eq!(chosen(&[one.clone(), left.clone(), right.clone()], None), (5, vec![4]));
    assert_eq!(chosen(&[left.clone(), three.clone()], None), (3, vec![4]));
    // The ledger decides, unless what it names is replaced.
    assert_eq!(chosen(&[left.clone(), right.clone()], Some(left.hash)), (4, vec![5]));
    assert_eq!(chosen(&[one.clone(), two.clone()], Some(one.hash)), (2, vec![]));
    assert_eq!(
        chosen(&[left, right, of(6, 3, &[1, 4, 5])], Some(one.hash)),
        (6, vec![])
    );
}

fn gc(vault: &Vault) -> drystone_vault::Result<()> {
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    vault.gc(&options).map(drop)
}

/// Whether an operation was refused since it is not certain what is in force.
fn is_refused<T>(outcome: drystone_vault::Result<T>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Error::UncertainConfig { why, .. }) => !why.is_empty(),
        Err(error) => panic!("{error}"),
    }
}

fn names(world: &World, url: &str) -> Vec<Name> {
    let objects = world.store(url).contents();
    objects.into_keys().filter(|name| Prefix::Config.covers(name)).collect()
}

/// Two owners, each of whom sees one half of the vault, change the places at once.
fn split() -> (World, Fixture, RootId) {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (1, 3));
    let id = store_files(&vault, 1);
    let b = world.take("mem://b");
    let c = world.take("mem://c");
    let first = world.open(&fixture, &["mem://a"]).unwrap();
    first
        .change_places(change(vec![world.new_place("mem://d")], vec![], None))
        .unwrap();
    let (a, d) = (world.take("mem://a"), world.take("mem://d"));
    world.bring("mem://b", b);
    world.bring("mem://c", c);
    let second = world.open(&fixture.elsewhere(), &["mem://b"]).unwrap();
    second
        .change_places(change(vec![world.new_place("mem://e")], vec![], Some((2, 3))))
        .unwrap();
    world.bring("mem://a", a);
    world.bring("mem://d", d);
    (world, fixture, id)
}

#[test]
fn two_owners_who_change_it_at_once_are_told_and_one_of_them_chooses() {
    let (world, fixture, id) = split();
    for machine in [fixture.elsewhere(), fixture.elsewhere()] {
        let vault = world.open(&machine, &["mem://a", "mem://b"]).unwrap();
        let InForce { signed, rivals } = vault.in_force().unwrap();
        let warnings = vault.warnings().join("\n");
        for one in std::iter::once(&signed).chain(&rivals) {
            assert!(warnings.contains(&one.hash.short()), "{warnings}");
        }
        assert!(
            warnings.contains("mem://d") && warnings.contains("mem://e"),
            "{warnings}"
        );
        assert!(warnings.contains("1/3") && warnings.contains("2/3"), "{warnings}");
        let doctor = vault.doctor().unwrap();
        assert!(
            doctor
                .iter()
                .any(|finding| finding.what.contains(&rivals[0].hash.short()))
        );
        // Everything can be read and backed up; nothing is changed and nothing is collected.
        assert_eq!(files(&vault, &id).unwrap(), some_files(1));
        store_small(&vault, 7);
        assert!(is_refused(gc(&vault)));
        assert!(is_refused(vault.resolve_config(None)));
        assert!(is_refused(vault.change_places(change(vec![], vec![], Some((1, 2))))));
    }
    let vault = world.open(&fixture, &["mem://a", "mem://b"]).unwrap();
    let rival = vault.in_force().unwrap().rivals[0].clone();
    assert!(matches!(vault.resolve_config(Some("00")), Err(Error::NoConfig { .. })));
    vault.resolve_config(Some(&rival.hash.to_string()[..12])).unwrap();
    let vault = world.open(&fixture, &["mem://a", "mem://b"]).unwrap();
    let InForce { signed, rivals } = vault.in_force().unwrap();
    assert!(
        rivals.is_empty() && vault.warnings().is_empty(),
        "{:?}",
        vault.warnings()
    );
    assert_eq!(differences(&signed.config, &rival.config), ["nothing but the time"]);
    repair(&vault);
    gc(&vault).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn a_change_on_a_stale_view_is_refused() {
    let (world, fixture) = (World::default(), Fixture::new());
    world.create(&fixture, &["mem://a", "mem://b"], (1, 2));
    let stale = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    let other = world.open(&fixture, &["mem://a"]).unwrap();
    other
        .change_places(change(vec![world.new_place("mem://c")], vec![], None))
        .unwrap();
    let refused = stale.change_places(change(vec![world.new_place("mem://d")], vec![], None));
    assert!(matches!(refused.map(drop), Err(Error::ConfigMoved { .. })));
    let vault = world.open(&fixture, &["mem://a"]).unwrap();
    assert_eq!(vault.places().len(), 3);
    assert!(vault.warnings().is_empty());
}

/// A vault over three places whose configuration was changed once.
fn changed() -> (World, Fixture, RootId, Name) {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let id = store_files(&vault, 1);
    vault
        .change_places(change(vec![world.new_place("mem://d")], vec![], None))
        .unwrap();
    let newest = names(&world, "mem://a").into_iter().max().unwrap();
    assert!(newest.as_str().starts_with("config/2-"), "{newest}");
    (world, fixture, id, newest)
}

/// Reading goes on, changes and gc refuse, also on a machine that knows nothing, until an owner decides.
fn assert_doubtful(world: &World, fixture: &Fixture, (id, urls): (RootId, &[&str]), name: &Name, word: &str) {
    for machine in [fixture.elsewhere(), fixture.elsewhere()] {
        let vault = world.open(&machine, urls).unwrap();
        let warnings = vault.warnings().join("\n");
        assert!(
            warnings.contains(name.as_str()) && warnings.contains(word),
            "{warnings}"
        );
        assert_eq!(vault.config().number, 1);
        assert_eq!(files(&vault, &id).unwrap(), some_files(1));
        assert!(is_refused(gc(&vault)), "{word}");
        assert!(
            vault
                .doctor()
                .unwrap()
                .iter()
                .any(|found| found.what.contains(name.as_str()))
        );
        assert!(is_refused(vault.change_places(change(vec![], vec![], Some((1, 3))))));
    }
}

#[test]
fn a_configuration_that_is_damaged_everywhere_is_not_passed_over_in_silence() {
    let (world, fixture, id, newest) = changed();
    for url in ["mem://a", "mem://b", "mem://c", "mem://d"] {
        let store = world.store(url);
        let mut bytes = store.contents()[&newest].to_vec();
        bytes[100] ^= 1;
        store.overwrite(&newest, bytes.into());
    }
    assert_doubtful(
        &world,
        &fixture,
        (id, &["mem://a"]),
        &newest,
        "other bytes than its name",
    );
    // An owner decides that the old one it is.
    let vault = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    vault.resolve_config(None).unwrap();
    let vault = world.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    assert!(vault.warnings().is_empty(), "{:?}", vault.warnings());
    assert_eq!((vault.config().number, vault.places().len()), (2, 3));
    gc(&vault).unwrap();
    // One sound copy of the lost one comes back: it is replaced, and moves nobody.
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
}

#[test]
fn a_configuration_that_is_out_of_reach_is_not_passed_over_in_silence() {
    let (world, fixture, id, newest) = changed();
    // The only place that has it lists it, and does not give it out.
    URLS.iter().for_each(|url| world.store(url).remove(&newest));
    let fails = world.failing(&["mem://d"]);
    fails[0].add(Fault::error(Op::Get, Failure::Unavailable).only(Prefix::Config));
    assert_doubtful(&world, &fixture, (id, &["mem://a", "mem://d"]), &newest, "may be older");
}

#[test]
fn an_older_configuration_than_this_machine_has_used_is_told() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let id = store_files(&vault, 1);
    let before = world.copy();
    vault
        .change_places(change(vec![world.new_place("mem://d")], vec![], None))
        .unwrap();
    let refused = before.open(&fixture, &["mem://a"]).map(drop);
    assert!(
        matches!(refused, Err(Error::OlderConfiguration { known: 2, found: 1, .. })),
        "{refused:?}"
    );
    // A machine that has never seen it takes it for what it is.
    let vault = before.open(&fixture.elsewhere(), &["mem://a"]).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
    // The real one is back: nothing is told.
    assert!(world.open(&fixture, &["mem://a"]).unwrap().warnings().is_empty());
}

#[test]
fn what_no_owner_signed_counts_for_nobody_and_stops_nobody() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let id = store_files(&vault, 1);
    let writer = add_key(&vault, Role::Writer);
    let as_writer: Secrets = secrets(&writer, &world.store("mem://a"));
    let forged = |version, payload: Vec<u8>| {
        seal_notice_as(version, &as_writer, NoticeKind::Config, payload, &mut random()).unwrap()
    };
    let config = Config {
        number: 9,
        spread: (1, 1),
        ..vault.config().clone()
    };
    let objects = [
        forged(FORMAT_VERSION, config.encode().unwrap()),
        forged(FORMAT_VERSION + 1, vec![1]),
        b"no notice at all".to_vec(),
    ];
    for (number, object) in (7..).zip(objects) {
        for url in URLS {
            let name = Name::config(number, &object_hash(&object));
            world.store(url).overwrite(&name, object.clone().into());
        }
    }
    let vault = world.open(&fixture.elsewhere(), &["mem://b"]).unwrap();
    assert_eq!((vault.config().number, vault.config().spread), (1, (2, 3)));
    assert_eq!(vault.warnings().len(), 3, "{:?}", vault.warnings());
    assert!(
        vault
            .warnings()
            .iter()
            .all(|warning| warning.contains("counts for nobody"))
    );
    assert_eq!(files(&vault, &id).unwrap(), some_files(1));
    gc(&vault).unwrap();
    vault
        .change_places(change(vec![world.new_place("mem://d")], vec![], None))
        .unwrap();
}

#[test]
fn a_configuration_of_a_newer_version_is_called_newer_only_in_an_owners_word() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let owner = secrets(&fixture, &store);
    let payload = vault.config().encode().unwrap();
    let object = seal_notice_as(FORMAT_VERSION + 1, &owner, NoticeKind::Config, payload, &mut random()).unwrap();
    let name = Name::config(2, &object_hash(&object));
    store.overwrite(&name, object.into());
    let error = fixture.open(store).map(drop).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { object, source: drystone_format::Error::Version { .. }, .. } if *object == name.to_string()),
        "{error}"
    );
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn a_vault_at_one_place_keeps_a_spare_copy_and_is_readable_without_any() {
    let fixture = Fixture::new();
    let store = Arc::new(Memory::new());
    let vault = fixture.create(store.clone()).unwrap();
    let id = store_small(&vault, 1);
    let name = store
        .contents()
        .into_keys()
        .find(|name| Prefix::Config.covers(name))
        .unwrap();
    let copies = [name.clone(), name.spare(1)];
    for (lost, damage) in copies.iter().flat_map(|copy| [(copy, false), (copy, true)]) {
        let world = Arc::new(store.as_ref().clone());
        match damage {
            true => world.overwrite(lost, vec![7; 50].into()),
            false => world.remove(lost),
        }
        let vault = fixture.open(world.clone()).unwrap();
        assert_eq!(vault.config(), self::config_of(&fixture, &store), "{lost}");
        let found = scrub(&vault);
        assert!(lines(&found.problems).contains(lost.as_str()), "{lost}");
        assert!(
            vault
                .doctor()
                .unwrap()
                .iter()
                .any(|finding| finding.what.contains(lost.as_str()))
        );
        assert_eq!(vault.repair(&RepairOptions::default()).unwrap().mended_objects, 1);
        assert_eq!(world.contents(), store.contents(), "{lost}");
    }
    // With both gone: reading goes on, storing does not, and an owner makes a new one.
    copies.iter().for_each(|copy| store.remove(copy));
    let vault = fixture.elsewhere().open(store.clone()).unwrap();
    assert!(vault.warnings().iter().any(|warning| warning.contains("vault resolve")));
    assert_eq!(vault.in_force(), None);
    assert_eq!(files(&vault, &id).unwrap(), crate::spread_world::small_files(1));
    assert!(is_refused(try_store(&vault, &some_files(2))));
    assert!(is_refused(gc(&vault)));
    assert!(is_refused(vault.forget(&[id])));
    vault.resolve_config(None).unwrap();
    let vault = fixture.elsewhere().open(store).unwrap();
    assert!(vault.warnings().is_empty(), "{:?}", vault.warnings());
    store_small(&vault, 2);
    gc(&vault).unwrap();
}

fn config_of<'a>(fixture: &Fixture, store: &Arc<Memory>) -> &'a Config {
    Box::leak(Box::new(fixture.open(store.clone()).unwrap().config().clone()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A vault with a snapshot, a second key and a feature of this class that the program does not know.
fn with_feature(class: &str) -> (Arc<Memory>, Fixture, RootId) {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let id = store_small(&vault, 1);
    add_key(&vault, Role::Member);
    let mut features = Features::default();
    match class {
        "read" => features.read = words(&["telepathy"]),
        "write" => features.write = words(&["telepathy"]),
        _ => features.collect = words(&["telepathy"]),
    }
    vault.upgrade(&features).unwrap();
    (store, fixture, id)
}

/// What an operation came to: refused for the feature, or done.
fn lacks<T>(outcome: drystone_vault::Result<T>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(error @ Error::Feature { .. }) => {
            let text = error.to_string();
            assert!(text.contains("telepathy") && text.contains("newer"), "{text}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_feature_that_is_needed_to_read_closes_the_vault() {
    let (store, fixture, _) = with_feature("read");
    assert!(lacks(fixture.open(store.clone())));
    assert!(lacks(fixture.elsewhere().open(store)));
}

#[test]
fn features_refuse_what_they_are_needed_for_and_nothing_else() {
    type Deed = fn(&Vault, RootId) -> drystone_vault::Result<()>;
    let key = |vault: &Vault| {
        vault
            .keys()
            .unwrap()
            .0
            .into_iter()
            .find(|slot| !slot.current)
            .unwrap()
            .id
    };
    let deeds: [(&str, &str, Deed); 14] = [
        ("snapshots", "", |vault, _| vault.snapshots().map(drop)),
        ("files", "", |vault, id| files(vault, &id).map(drop)),
        ("check", "", |vault, _| {
            assert_eq!(lines(&check(vault).problems), "");
            Ok(())
        }),
        ("scrub", "", |vault, _| vault.scrub(&scrubbing(false)).map(drop)),
        ("doctor", "", |vault, _| vault.doctor().map(drop)),
        ("stats", "", |vault, _| vault.stats().map(drop)),
        ("redundancy", "", |vault, _| vault.redundancy().map(drop)),
        ("backup", "write", |vault, _| try_store(vault, &some_files(2)).map(drop)),
        ("scrub --repair", "write", |vault, _| {
            vault.scrub(&scrubbing(true)).map(drop)
        }),
        ("repair", "write", |vault, _| {
            vault.repair(&RepairOptions::default()).map(drop)
        }),
        ("repair header", "write", |vault, _| vault.repair_header()),
        ("resolve", "write", |vault, _| vault.resolve_config(None).map(drop)),
        ("forget", "write collect", |vault, id| vault.forget(&[id])),
        ("gc", "write collect", |vault, _| gc(vault)),
    ];
    for class in ["write", "collect"] {
        for (deed, classes, run) in deeds {
            let (store, fixture, id) = with_feature(class);
            let before = store.contents();
            let vault = fixture.open(store.clone()).unwrap();
            let refused = lacks(run(&vault, id));
            assert_eq!(refused, classes.contains(class), "{deed} lacks a feature to {class}");
            if refused {
                assert_eq!(store.contents(), before, "{deed} changed something and refused");
            }
        }
        let (store, fixture, _) = with_feature(class);
        let vault = fixture.open(store.clone()).unwrap();
        let remove = vault.remove_key(&key(&vault), NewEpoch::Start);
        assert_eq!(lacks(remove), class == "write", "key remove");
        let vault = fixture.open(store).unwrap();
        let more = vault.change_places(PlaceChange {
            add: vec![World::default().new_place("mem://z")],
            remove: vec![],
            spread: None,
        });
        assert_eq!(lacks(more), class == "write", "place add");
    }
}

fn scrubbing(repair: bool) -> ScrubOptions {
    ScrubOptions {
        share: 1.0,
        repair,
        progress: Arc::default(),
        cancel: Cancel::default(),
    }
}

#[test]
fn a_program_that_knows_a_feature_uses_the_vault_as_before() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let id = store_small(&vault, 1);
    assert!(vault.upgrades().is_empty(), "tests are not offered to people");
    let test = Features {
        read: words(&["test"]),
        ..Features::default()
    };
    let vault = vault.upgrade(&test).unwrap();
    assert_eq!((vault.config().number, &vault.config().features), (2, &test));
    // What is on stays on through other changes.
    let vault = vault.upgrade(&Features::default()).unwrap();
    assert_eq!(vault.config().features, test);
    let vault = fixture.open(store).unwrap();
    store_small(&vault, 2);
    gc(&vault).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), crate::spread_world::small_files(1));
}

#[test]
fn a_writer_switches_nothing_on() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let is_refused = |outcome: drystone_vault::Result<()>| {
        matches!(outcome, Err(Error::Format(drystone_format::Error::WriterKey { .. })))
    };
    let open = || writer.open(store.clone()).unwrap();
    assert!(is_refused(open().upgrade(&Features::default()).map(drop)));
    assert!(is_refused(open().resolve_config(None).map(drop)));
}

#[test]
fn a_listed_kind_of_roots_that_is_not_known_stops_gc_and_nothing_else() {
    let (store, fixture) = (Arc::new(Memory::new()), Fixture::new());
    let vault = fixture.create(store.clone()).unwrap();
    let id = store_small(&vault, 1);
    let owner = secrets(&fixture, &store);
    let hash = vault.in_force().unwrap().signed.hash;
    let config = Config {
        number: 2,
        replaces: vec![hash],
        root_kinds: words(&["dream", "snapshot"]),
        ..vault.config().clone()
    };
    let object = config.seal(&owner, &mut random()).unwrap();
    store.overwrite(&Name::config(2, &object_hash(&object)), object.into());
    let vault = fixture.open(store).unwrap();
    assert!(vault.config().lists("dream"));
    let error = gc(&vault).unwrap_err();
    assert!(
        matches!(&error, Error::UnknownRoots { kind, .. } if kind == "dream"),
        "{error}"
    );
    assert_eq!(files(&vault, &id).unwrap(), crate::spread_world::small_files(1));
    store_small(&vault, 2);
    vault.forget(&[id]).unwrap();
    assert!(
        vault
            .doctor()
            .unwrap()
            .iter()
            .any(|finding| finding.what.contains("dream"))
    );
}
