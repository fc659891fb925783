//! Names that nobody can take or replace, and writers that publish many roots: what a place and a stolen writer key do together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::keys::{Role, Secrets};
use drystone_format::ledger::Ledger;
use drystone_format::presence::{Presence, WriterState};
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName, RootState};
use drystone_format::{RegistrationId, RootId};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Kind, Memory, Name, Op, Prefix, Put, Store};
use drystone_vault::protocol::Gaps;
use drystone_vault::{Error, GcOptions, GcReport, Vault};

use crate::altered::{Alter, Altered};
use crate::gc::{gc, names};
use crate::spread_world::{URLS, World, repair, small_files, store_small};
use crate::support::{
    ALONE, Fixture, Link, add_key, back_up, check, craft_presence, craft_root, files, ingest, lines, noise, root_of,
    scrub, secrets, snapshot, stated,
};

/// Gives every silent writer up.
fn at_once() -> GcOptions {
    GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    }
}

/// S2: at one place of three a root is replaced by one that a stolen writer key has signed.
#[test]
fn a_place_and_a_writer_key_replace_no_root() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let writer = add_key(&vault, Role::Writer);
    let id = store_small(&vault, 1);
    let stolen = secrets(&writer, &world.store(URLS[0]));
    let name = root_of(&*world.store(URLS[0]), &id);
    let Kind::Root(root) = name.kind() else { panic!() };
    let (forged_name, forged) = craft_root(&stolen, [1; 16], ALONE, &snapshot(Recipe::default()).encode());
    // Under the name of the true one; and as a root of the same registration and number, which its signer is not.
    let beside = Name::root(&RootName {
        hash: forged_name.hash,
        ..root
    });
    world.store(URLS[0]).overwrite(&name, forged.clone().into());
    world.store(URLS[0]).overwrite(&beside, forged.into());
    let packs = || URLS.map(|url| names(&world.store(url), Prefix::Shards));
    let before = packs();
    let vault = world.open(&fixture.elsewhere(), &URLS).unwrap();
    let said = lines(&check(&vault).problems) + &vault.warnings().join("");
    assert!(said.contains(beside.as_str()), "{said}");
    assert_eq!(files(&vault, &id).unwrap(), small_files(1));
    let report = vault.gc(&GcOptions::default()).unwrap();
    assert_eq!((report.snapshots, report.deleted_packs), (1, 0), "{report:?}");
    assert!(lines(&report.problems).contains(beside.as_str()));
    assert_eq!(packs(), before);
    let report = scrub(&vault);
    assert_eq!(report.rotten, 1);
    assert!(lines(&report.problems).contains(beside.as_str()));
    let told = &vault.troubles().places[0].unsound;
    assert!(
        told.named.contains(&name.to_string()),
        "told as damage at that place: {told:?}"
    );
    repair(&vault);
    assert_eq!(
        world.store(URLS[0]).contents()[&name],
        world.store(URLS[1]).contents()[&name]
    );
    assert!(
        !world.store(URLS[1]).contents().contains_key(&beside),
        "what counts for nobody is not carried on"
    );
    scrub(&vault);
    assert_eq!(files(&vault, &id).unwrap(), small_files(1));
}

/// Puts other bytes under each name that is meant, just before somebody stores an object there.
#[derive(Debug)]
struct Thief {
    place: Arc<Memory>,
    taken: Prefix,
}

#[async_trait]
impl Alter for Thief {
    fn inner(&self) -> &Memory {
        &self.place
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        if self.taken.covers(name) && !self.place.contents().contains_key(name) {
            self.place.overwrite(name, Bytes::from_static(b"x"));
        }
        self.place.put(name, bytes).await
    }
}

/// S3: who takes the name first makes the put fail; no run reports what is not there.
#[test]
fn a_name_that_somebody_else_took_is_an_error() {
    for taken in [Prefix::AllRoots, Prefix::Writers] {
        let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
        fixture.create(store.clone()).unwrap();
        let thief = Altered(Thief {
            place: store.clone(),
            taken,
        });
        let vault = fixture.open(Arc::new(thief)).unwrap();
        let error = back_up(&vault, &[("file", b"content")]).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::Store(drystone_store::Error::Taken { name, place })
                if name.starts_with(&taken.to_string()) && place == "memory"),
            "{error}"
        );
    }
}

/// The same at one place of three: it does not hold the object, the others do.
#[test]
fn one_place_that_takes_names_is_told_and_does_without() {
    let (world, fixture) = (World::default(), Fixture::new());
    world.create(&fixture, &URLS, (2, 3));
    for url in &URLS[..1] {
        world.show(url, |place| {
            let taken = Prefix::AllRoots;
            Arc::new(Altered(Thief { place, taken }))
        });
    }
    let vault = world.open(&fixture, &URLS).unwrap();
    let id = store_small(&vault, 1);
    let name = root_of(&*world.store(URLS[1]), &id);
    assert_eq!(world.store(URLS[0]).contents()[&name], b"x".as_slice());
    let said = format!("{:?}", vault.troubles().places);
    assert!(said.contains(name.as_str()), "{said}");
    assert_eq!(files(&vault, &id).unwrap(), small_files(1));
    // Where two of three do it, too few hold it.
    world.show(URLS[1], |place| {
        let taken = Prefix::AllRoots;
        Arc::new(Altered(Thief { place, taken }))
    });
    let vault = world.open(&fixture, &URLS).unwrap();
    let error = back_up(&vault, &[("file", b"more")]).map(drop).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Store(_)) && said.contains("mem://a"), "{said}");
}

/// Nothing that a run puts before its root tells the root's name.
#[test]
fn a_run_does_not_announce_the_name_of_its_root() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let run = ingest(&vault);
    let before = store.contents();
    assert_eq!(names(&store, Prefix::Writers).len(), 1);
    drop(run);
    let (id, _) = back_up(&vault, &[("file", b"content")]).unwrap();
    let is_told = |(name, bytes): (&Name, &Bytes)| {
        name.as_str().contains(&id.to_string()) || bytes.windows(16).any(|part| part == id.0)
    };
    assert!(!before.iter().any(is_told));
}

/// A writer by hand, which publishes whatever roots it likes.
struct Hand {
    secrets: Secrets,
    nonce: [u8; 16],
    payload: Vec<u8>,
}

impl Hand {
    fn root(
        &self,
        number: u64,
        previous: Option<RootId>,
        state: RootState,
        epochs: &BTreeSet<(u64, RootId)>,
    ) -> (RootName, Bytes) {
        let link = Link {
            number,
            previous,
            state,
            epochs,
            ..ALONE
        };
        let (name, object) = craft_root(&self.secrets, self.nonce, link, &self.payload);
        (name, object.into())
    }

    fn id(&self) -> RegistrationId {
        Presence {
            nonce: self.nonce,
            ..Presence::default()
        }
        .registration(&self.secrets)
    }
}

struct Scene {
    fixture: Fixture,
    store: Arc<Memory>,
    vault: Vault,
    hand: Hand,
}

/// A vault with a snapshot, garbage that an epoch will condemn, and a writer by hand.
fn scene() -> Scene {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let (kept, _) = back_up(&vault, &[("kept", &noise(1, 60_000))]).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let hand = Hand {
        secrets: secrets(&writer, &store),
        nonce: [9; 16],
        payload: vault.snapshot(&kept).unwrap().encode(),
    };
    let (garbage, _) = back_up(&vault, &[("gone", &noise(2, 60_000))]).unwrap();
    vault.forget(&[garbage]).unwrap();
    Scene {
        fixture,
        store,
        vault,
        hand,
    }
}

impl Scene {
    fn put(&self, (name, object): &(RootName, Bytes)) {
        self.store.overwrite(&Name::root(name), object.clone());
    }

    fn epochs(&self) -> BTreeSet<(u64, RootId)> {
        let found = names(&self.store, Prefix::Epochs).into_iter();
        found
            .filter_map(|name| match name.kind() {
                Kind::Epoch(number, hash) => Some((number, hash)),
                _ => None,
            })
            .collect()
    }

    fn gc(&self) -> GcReport {
        self.vault.gc(&GcOptions::default()).unwrap()
    }

    /// What the newest ledgers state together.
    fn stated(&self) -> Arc<Ledger> {
        stated(&secrets(&self.fixture, &self.store), &self.store)
    }

    /// How many roots of the hand's registration count.
    fn end(&self) -> Option<u64> {
        self.stated().bounds[&self.hand.id()].end
    }
}

/// A registration with many roots holds up what its newest statement does not know, and nothing else.
#[test]
fn a_writer_with_many_roots_is_judged_by_what_it_has_stated() {
    let scene = scene();
    let none = BTreeSet::new();
    let first = scene.hand.root(0, None, RootState::Open, &none);
    scene.put(&first);
    let report = scene.gc();
    assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
    assert_eq!(report.waiting_for, [scene.hand.id()]);
    // The next root says that it has read the epochs; but it says so of what follows a root that is not here.
    let second = scene.hand.root(1, Some(first.0.hash), RootState::Open, &scene.epochs());
    let third = scene
        .hand
        .root(2, Some(second.0.hash), RootState::Open, &scene.epochs());
    scene.put(&third);
    let report = scene.gc();
    assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
    assert!(
        lines(&report.problems).contains("root number 1"),
        "{}",
        lines(&report.problems)
    );
    scene.put(&second);
    let report = scene.gc();
    assert_eq!(
        (report.waiting_packs, report.deleted_packs, report.snapshots),
        (0, 1, 4),
        "{report:?}"
    );
    assert_eq!(lines(&report.problems), "");
    // A root that was forgotten is no gap, as long as anything of the registration is left.
    scene.vault.forget(&[second.0.hash]).unwrap();
    let (garbage, _) = back_up(&scene.vault, &[("gone", &noise(3, 60_000))]).unwrap();
    scene.vault.forget(&[garbage]).unwrap();
    scene.gc();
    assert!(scene.stated().forgets(&second.0.numbered()));
    let last = scene.hand.root(3, Some(third.0.hash), RootState::Last, &none);
    scene.put(&last);
    let report = scene.gc();
    assert_eq!((report.waiting_packs, report.deleted_packs), (0, 1), "{report:?}");
}

/// A writer that is given up keeps the roots that it has published, and loses those that come later.
#[test]
fn a_cut_spares_what_was_published_before_it() {
    let scene = scene();
    let none = BTreeSet::new();
    let first = scene.hand.root(0, None, RootState::Open, &none);
    scene.put(&first);
    let reports = [0; 3].map(|_| scene.vault.gc(&at_once()).unwrap());
    assert_eq!(reports[2].given_up, [scene.hand.id()]);
    assert_eq!(
        reports.iter().map(|report| report.deleted_packs).sum::<u64>(),
        1,
        "{reports:?}"
    );
    assert_eq!(scene.end(), Some(1));
    let late = scene.hand.root(1, Some(first.0.hash), RootState::Last, &none);
    scene.put(&late);
    let ids = scene.vault.snapshot_ids().unwrap();
    assert!(ids.contains(&first.0.hash) && !ids.contains(&late.0.hash));
    // It is removed, and the cut stands for ever.
    scene.gc();
    assert!(!scene.store.contents().contains_key(&Name::root(&late.0)));
    let (garbage, _) = back_up(&scene.vault, &[("gone", &noise(3, 60_000))]).unwrap();
    scene.vault.forget(&[garbage]).unwrap();
    (0..3).for_each(|_| drop(gc(&scene.vault)));
    assert_eq!(scene.end(), Some(1));
    assert!(files(&scene.vault, &first.0.hash).is_ok());
}

/// A place hides a root, its writer is silent: gc waits until the root is back, or an owner says that it is lost.
#[test]
fn what_a_hidden_root_may_need_is_kept_until_an_owner_gives_it_up() {
    let scene = scene();
    let none = BTreeSet::new();
    let hidden = scene.hand.root(0, None, RootState::Open, &none);
    let last = scene.hand.root(1, Some(hidden.0.hash), RootState::Last, &none);
    scene.put(&last);
    for _ in 0..4 {
        let report = scene.vault.gc(&at_once()).unwrap();
        assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
        let said = lines(&report.problems);
        assert!(
            said.contains("root number 0") && said.contains("--without-missing"),
            "{said}"
        );
    }
    let report = scene.vault.gc(&GcOptions {
        gaps: Gaps::Accept,
        ..at_once()
    });
    assert_eq!(report.unwrap().deleted_packs, 1);
}

/// Two roots of one registration and number: the key was used twice. Both live, and both are told.
#[test]
fn two_roots_of_one_number_both_live_and_are_told() {
    let scene = scene();
    let one = scene.hand.root(0, None, RootState::Last, &BTreeSet::new());
    let two = scene.hand.root(0, None, RootState::Last, &BTreeSet::new());
    assert_ne!(one.0.hash, two.0.hash);
    scene.put(&one);
    scene.put(&two);
    let (snapshots, problems) = scene.vault.snapshots().unwrap();
    assert_eq!((snapshots.len(), problems.count()), (3, 2), "{}", lines(&problems));
    let report = scene.gc();
    for said in [&problems, &report.problems, &check(&scene.vault).problems] {
        for (name, _) in [&one, &two] {
            assert!(lines(said).contains(Name::root(name).as_str()), "{}", lines(said));
        }
    }
    assert_eq!(report.snapshots, 3);
}

/// A kind that is not in use counts for nobody, is told, and stops nothing.
#[test]
fn an_unlisted_kind_is_told_and_counts_for_nobody() {
    let scene = scene();
    let link = Link {
        kind: RootKind::from_word("novel").unwrap(),
        ..ALONE
    };
    let (name, object) = craft_root(&scene.hand.secrets, [4; 16], link, b"anything");
    scene.store.overwrite(&Name::root(&name), object.into());
    let name = Name::root(&name);
    let said = lines(&check(&scene.vault).problems);
    assert!(said.contains(name.as_str()), "{said}");
    let report = scene.gc();
    assert_eq!((report.snapshots, report.deleted_packs), (1, 1), "{report:?}");
    assert!(lines(&report.problems).contains(name.as_str()));
    assert_eq!(scene.vault.snapshot_ids().unwrap().len(), 1);
}

/// Old presences that are put again say nothing new: a replayed one is its writer's own word, and true for ever.
#[test]
fn replayed_and_foreign_presences_free_nothing() {
    let scene = scene();
    let other = add_key(&scene.vault, Role::Owner).open(scene.store.clone()).unwrap();
    let run = ingest(&other);
    let own = names(&scene.store, Prefix::Writers).into_iter().next().unwrap();
    let Kind::Writer(id, ..) = own.kind() else { panic!() };
    let replayed = scene.store.contents()[&own].clone();
    let over = Presence {
        nonce: [3; 16],
        state: WriterState::Over,
        ..Presence::default()
    };
    // The word of another registration, signed as it should be, says nothing about this one.
    let (name, object) = craft_presence(&scene.hand.secrets, &over);
    scene.store.overwrite(&name, object.clone().into());
    let Kind::Writer(_, beat, hash) = name.kind() else {
        panic!()
    };
    let moved = Name::writer(&id, beat, &hash);
    scene.store.overwrite(&moved, object.into());
    let report = scene.gc();
    assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
    assert_eq!(report.waiting_for, [id]);
    assert!(lines(&report.problems).contains(moved.as_str()));
    drop(run);
    scene.store.overwrite(&own, replayed);
    // Put again after the run has ended, it holds gc up until it is found to be silent, and no longer.
    let reports = [0; 4].map(|_| scene.vault.gc(&at_once()).unwrap());
    assert_eq!(
        reports.iter().map(|report| report.deleted_packs).sum::<u64>(),
        1,
        "{reports:?}"
    );
}

/// The program's own writers may publish several roots too, and end without a last one.
#[test]
fn a_run_goes_on_after_a_root_and_ends_without_a_last_one() {
    let scene = scene();
    let other = add_key(&scene.vault, Role::Owner).open(scene.store.clone()).unwrap();
    let store = |number: u64| {
        let tree = scene
            .vault
            .snapshot(&scene.vault.snapshot_ids().unwrap()[0])
            .unwrap()
            .tree;
        let mut shot = snapshot(tree);
        shot.tags = vec![number.to_string()];
        shot
    };
    let begun = ingest(&other).finish().unwrap();
    let first = other.publish_open(&store(0), &begun).unwrap();
    let finished = other.ingest_on(&begun, crate::support::options());
    let finished = finished.unwrap().finish().unwrap();
    let second = other.publish_open(&store(1), &finished).unwrap();
    let numbers: Vec<u64> = [first, second]
        .iter()
        .map(|id| match root_of(&*scene.store, id).kind() {
            Kind::Root(root) => root.number,
            _ => panic!(),
        })
        .collect();
    assert_eq!(numbers, [0, 1]);
    let report = scene.gc();
    assert_eq!(
        (report.waiting_packs, report.deleted_packs),
        (1, 0),
        "at work: {report:?}"
    );
    drop((begun, finished));
    // Its last presence says that it is over; gc writes a cut before it removes that.
    let report = scene.gc();
    assert_eq!((report.waiting_packs, report.deleted_packs), (0, 1), "{report:?}");
    assert!(names(&scene.store, Prefix::Writers).is_empty());
    let ends = scene
        .stated()
        .bounds
        .values()
        .filter_map(|bounds| bounds.end)
        .collect::<Vec<_>>();
    assert_eq!(ends, [2]);
    assert_eq!(scene.vault.snapshot_ids().unwrap().len(), 3);
    assert_eq!(scene.gc().waiting_packs, 0);
}

/// What a run under way has stored since its last root is left alone; what its roots were made of is judged like everybody's.
#[test]
fn packs_of_a_run_under_way_are_left_alone_until_a_root_covers_them() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let store_some = |run: drystone_vault::Ingest, number: u64| {
        let mut lane = run.lane();
        let mut content = lane.content();
        content.write(&noise(number, 100_000)).unwrap();
        let recipe = content.finish().unwrap();
        let entry = crate::support::entry("a", drystone_format::tree::Kind::File(recipe));
        let mut tree = run.tree();
        tree.push(&mut lane, &entry.encode()).unwrap();
        let tree = tree.finish(&mut lane).unwrap();
        lane.finish().unwrap();
        (run.finish().unwrap(), snapshot(tree))
    };
    let go_on = |run: &drystone_vault::Finished, number: u64| {
        let next = vault.ingest_on(run, crate::support::options()).unwrap();
        store_some(next, number)
    };
    let (begun, shot) = store_some(ingest(&vault), 1);
    let first = vault.publish_open(&shot, &begun).unwrap();
    let (begun, shot) = go_on(&begun, 2);
    let kept = vault.publish_open(&shot, &begun).unwrap();
    let (next, shot) = go_on(&begun, 3);
    vault.forget(&[first]).unwrap();
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let report = gc(&owner);
    assert_eq!((report.condemned_packs, report.spared_packs), (1, 1), "{report:?}");
    let last = vault.publish(&shot, &next).unwrap();
    drop((begun, next));
    let report = gc(&owner);
    assert_eq!((report.deleted_packs, report.spared_packs), (1, 0), "{report:?}");
    for (id, number) in [(kept, 2), (last, 3)] {
        assert_eq!(files(&owner, &id).unwrap()[0].1, noise(number, 100_000));
    }
}

/// A thief of a writer's key says in its name that it is over, by a presence or by a last root, while it is at work: nothing that it stored goes before
/// it is told, and what it reports is there.
#[test]
fn a_thief_who_says_that_a_run_is_over_costs_no_snapshot() {
    for by_root in [false, true] {
        let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = fixture.create(store.clone()).unwrap();
        let writer = add_key(&vault, Role::Writer);
        let writing = writer.open(store.clone()).unwrap();
        let stolen = secrets(&writer, &store);
        let run = ingest(&writing);
        let mut lane = run.lane();
        let mut content = lane.content();
        content.write(&noise(7, 100_000)).unwrap();
        content.finish().unwrap();
        let tree = run.tree().finish(&mut lane).unwrap();
        lane.finish().unwrap();
        let stored = run.finish().unwrap();
        let presence = names(&store, Prefix::Writers).pop_first().unwrap();
        let Kind::Writer(id, beat, hash) = presence.kind() else {
            panic!()
        };
        let read = Presence::verify(&stolen, (&id, beat, &hash), &store.contents()[&presence]).unwrap();
        let nonce = read.0.nonce;
        if by_root {
            let (name, object) = craft_root(&stolen, nonce, ALONE, &snapshot(Recipe::default()).encode());
            store.overwrite(&Name::root(&name), object.into());
        } else {
            let over = Presence {
                nonce,
                beat: 9,
                state: WriterState::Over,
                ..Presence::default()
            };
            let (name, object) = craft_presence(&stolen, &over);
            store.overwrite(&name, object.into());
        }
        for _ in 0..3 {
            vault.gc(&GcOptions::default()).unwrap();
        }
        let published = writing.publish(&snapshot(tree), &stored).map(drop);
        assert!(matches!(published, Err(Error::GivenUp { .. })), "{published:?}");
        // It registers anew, and keeps what it reports.
        let (reported, _) = back_up(&writing, &[("a", &noise(7, 100_000))]).unwrap();
        vault.gc(&GcOptions::default()).unwrap();
        assert_eq!(files(&vault, &reported).unwrap()[0].1, noise(7, 100_000));
        assert_eq!(lines(&check(&vault).problems), "");
    }
}

/// A2: a run that cannot read the epoch that gives it up must not report its snapshot.
#[test]
fn a_run_that_cannot_read_an_epoch_does_not_report() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let elsewhere = fixture.elsewhere();
    let fails = world.failing(&URLS[..1]);
    let other = world.open(&elsewhere, &URLS).unwrap();
    let run = ingest(&other);
    // Given up by a gc that did without b, as it may.
    for _ in 0..3 {
        vault.gc(&at_once()).unwrap();
    }
    for name in names(&world.store(URLS[1]), Prefix::Epochs) {
        world.store(URLS[1]).remove(&name);
    }
    world.take(URLS[2]);
    let mut lane = run.lane();
    let tree = run.tree().finish(&mut lane).unwrap();
    lane.finish().unwrap();
    let finished = run.finish().unwrap();
    fails[0].add(Fault::error(Op::Get, Failure::Unavailable).only(Prefix::Epochs));
    let published = other.publish(&snapshot(tree), &finished);
    assert!(published.is_err(), "{published:?}");
}
