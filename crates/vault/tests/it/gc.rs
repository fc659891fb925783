//! gc frees what nothing needs, and nothing else (I5): alone, beside runs, after crashes, on damaged vaults.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::RootId;
use drystone_format::epoch::{Epoch, seal_epoch};
use drystone_format::id::object_hash;
use drystone_format::keys::Role;
use drystone_format::ledger::{Ledger, Sightings, seal_ledger};
use drystone_store::crash::{Cut, InFlight};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Crash, Fail, Kind, Memory, Name, Op, Prefix, Put, RootKind, Store};
use drystone_vault::{Error, GcOptions, GcReport, Vault};

use crate::altered::{Alter, Altered};
use crate::support::{
    Fixture, add_key, back_up, begin, check, files, ingest, lines, noise, random, root_of, runtime, secrets, snapshot,
    watched,
};

/// Removes the root object itself, as if it had never been published.
pub(crate) fn remove_root(store: &dyn Store, id: &RootId) {
    runtime().block_on(store.delete(&root_of(store, id))).unwrap();
}

/// A ledger that forgets these roots.
pub(crate) fn forgetting(store: &Memory, ids: &[RootId]) -> Ledger {
    let numbered = |id| match root_of(store, id).kind() {
        Kind::Root(root) => root.numbered(),
        _ => panic!(),
    };
    Ledger {
        number: 7,
        forgotten: ids.iter().map(numbered).collect(),
        ..Ledger::default()
    }
}

pub(crate) fn gc(vault: &Vault) -> GcReport {
    let report = vault.gc(&GcOptions::default()).unwrap();
    assert_eq!(lines(&report.problems), "");
    report
}

pub(crate) fn names(store: &Memory, prefix: Prefix) -> BTreeSet<Name> {
    let covered = |(name, _): (Name, _)| prefix.covers(&name).then_some(name);
    store.contents().into_iter().filter_map(covered).collect()
}

fn stored_bytes(store: &Memory) -> usize {
    let packs = store
        .contents()
        .into_iter()
        .filter(|(name, _)| Prefix::Packs.covers(name));
    packs.map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn what_no_snapshot_needs_is_deleted_and_the_rest_stays() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let (a, b, both) = (noise(1, 200_000), noise(2, 150_000), noise(3, 100_000));
    let (first, _) = back_up(&vault, &[("a", &a), ("both", &both)]).unwrap();
    let (second, _) = back_up(&vault, &[("b", &b), ("both", &both)]).unwrap();
    let before = stored_bytes(&store);
    let report = gc(&vault);
    assert_eq!(
        (report.snapshots, report.deleted_packs, report.condemned_packs),
        (2, 0, 0)
    );
    assert!(names(&store, Prefix::Epochs).is_empty() && names(&store, Prefix::Writers).is_empty());

    vault.forget(&[first]).unwrap();
    let report = gc(&vault);
    assert!(
        report.copied_bytes >= 100_000 && report.copied_bytes < 110_000,
        "{report:?}"
    );
    assert_eq!((report.rewritten_packs, report.waiting_packs), (1, 0), "{report:?}");
    let after = stored_bytes(&store);
    assert!(after < before - 190_000 && after < 400_000, "{before} {after}");
    assert_eq!(files(&vault, &second).unwrap()[1].1, both);
    assert_eq!(lines(&check(&vault).problems), "");
    fixture.open(store.clone()).unwrap().forget(&[first]).unwrap();
    for machine in [fixture.elsewhere(), fixture.copy()] {
        let vault = machine.open(store.clone()).unwrap();
        assert_eq!(files(&vault, &second).unwrap()[0].1, b);
        assert_eq!(lines(&check(&vault).problems), "");
    }
    let report = gc(&vault);
    assert_eq!((report.condemned_packs, report.deleted_packs), (0, 0), "{report:?}");
    vault.forget(&[second]).unwrap();
    gc(&vault);
    assert!(names(&store, Prefix::Packs).is_empty());
    // What is gone is stored again.
    let (third, _) = back_up(&vault, &[("a", &a)]).unwrap();
    assert_eq!(files(&vault, &third).unwrap()[0].1, a);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_go() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let (id, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    vault.forget(&[id]).unwrap();
    let before = store.contents();
    let report = vault
        .gc(&GcOptions {
            dry_run: true,
            ..GcOptions::default()
        })
        .unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs), (1, 0));
    assert!(report.unused_bytes > 100_000);
    assert_eq!(store.contents(), before);
}

#[test]
fn a_running_backup_keeps_what_it_may_rely_on() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    fixture.create(store.clone()).unwrap();
    let vault = fixture.open(store.clone()).unwrap();
    let (old, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = fixture.elsewhere().open(store.clone()).unwrap();
    // Another machine is in the middle of a backup that finds the chunks of `a` stored.
    let run = ingest(&other);
    let mut lane = run.lane();
    let mut content = lane.content();
    content.write(&noise(1, 100_000)).unwrap();
    let recipe = content.finish().unwrap();
    vault.forget(&[old]).unwrap();
    let report = gc(&vault);
    let waits = |report: &GcReport| (report.condemned_packs, report.waiting_packs, report.deleted_packs);
    assert_eq!(waits(&report), (1, 1, 0), "{report:?}");
    assert_eq!(report.waiting_for.len(), 1);
    // The same for packs of another key.
    let owner = add_key(&vault, Role::Owner).open(store.clone()).unwrap();
    let (mine, _) = back_up(&owner, &[("b", &noise(2, 100_000))]).unwrap();
    vault.forget(&[mine]).unwrap();
    let report = gc(&vault);
    assert_eq!(waits(&report), (1, 2, 0), "{report:?}");
    assert_eq!(report.waiting_for.len(), 1);

    let mut tree = run.tree();
    let entry = crate::support::entry("a", drystone_format::tree::Kind::File(recipe));
    tree.push(&mut lane, &entry.encode()).unwrap();
    let tree = tree.finish(&mut lane).unwrap();
    lane.finish().unwrap();
    let finished = run.finish().unwrap();
    let id = other.publish(&snapshot(tree.clone()), &finished).unwrap();
    assert!(matches!(
        other.publish(&snapshot(tree), &finished),
        Err(Error::Published)
    ));
    // What it relied on was condemned: it is copied before it goes.
    let report = gc(&vault);
    assert_eq!((report.deleted_packs, report.waiting_packs), (2, 0), "{report:?}");
    assert_eq!(files(&vault, &id).unwrap()[0].1, noise(1, 100_000));
    assert!(names(&store, Prefix::Writers).is_empty());
}

/// What a run relied on is condemned meanwhile; it publishes, and gc copies what it needs before it deletes.
#[test]
fn what_is_condemned_under_a_run_is_rescued() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Owner);
    let (old, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = writer.open(store.clone()).unwrap();
    let run = ingest(&other);
    let mut lane = run.lane();
    let mut content = lane.content();
    content.write(&noise(1, 100_000)).unwrap();
    let recipe = content.finish().unwrap();
    vault.forget(&[old]).unwrap();
    let report = gc(&vault);
    assert_eq!((report.condemned_packs, report.waiting_packs), (1, 1), "{report:?}");
    let mut tree = run.tree();
    let entry = crate::support::entry("b", drystone_format::tree::Kind::File(recipe));
    tree.push(&mut lane, &entry.encode()).unwrap();
    let tree = tree.finish(&mut lane).unwrap();
    lane.finish().unwrap();
    let finished = run.finish().unwrap();
    assert!(finished.new_bytes < 10_000, "it relies on what is there");
    let id = other.publish(&snapshot(tree), &finished).unwrap();
    let report = gc(&vault);
    assert!(report.copied_bytes >= 100_000, "{report:?}");
    assert_eq!((report.deleted_packs, report.waiting_packs), (1, 0), "{report:?}");
    // Also with an index that does not know of the copy.
    for vault in [&vault, &other, &fixture.elsewhere().open(store).unwrap()] {
        assert_eq!(files(vault, &id).unwrap()[0].1, noise(1, 100_000));
        assert_eq!(lines(&check(vault).problems), "");
    }
}

/// A place that tells when an epoch was put, and goes on when it is answered, as long as somebody listens.
#[derive(Debug)]
struct Ambush {
    inner: Arc<Memory>,
    told: Sender<()>,
    answered: Mutex<Receiver<()>>,
}

#[async_trait]
impl Alter for Ambush {
    fn inner(&self) -> &Memory {
        &self.inner
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        let put = self.inner.put(name, bytes).await?;
        if Prefix::Epochs.covers(name) && self.told.send(()).is_ok() {
            let _ = self.answered.lock().unwrap().recv();
        }
        Ok(put)
    }
}

/// A run publishes after gc has marked and condemned what the run relies on, and before gc deletes it.
#[test]
fn what_is_published_after_the_mark_is_rescued() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Owner);
    let (old, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = writer.open(store.clone()).unwrap();
    let (run, tree) = begin(&other, [("b", noise(1, 100_000).as_slice())]).unwrap();
    let finished = run.finish().unwrap();
    assert!(finished.new_bytes < 10_000, "it relies on what is there");
    vault.forget(&[old]).unwrap();
    let ((told, hears), (answers, answered)) = (channel(), channel());
    let place = Altered(Ambush {
        inner: store.clone(),
        told,
        answered: Mutex::new(answered),
    });
    let collecting = fixture.open(Arc::new(place)).unwrap();
    let publishing = std::thread::spawn(move || {
        hears.recv().unwrap();
        let id = other.publish(&snapshot(tree), &finished).unwrap();
        answers.send(()).unwrap();
        id
    });
    let report = gc(&collecting);
    let id = publishing.join().unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs), (1, 1), "{report:?}");
    let fresh = fixture.elsewhere().open(store).unwrap();
    assert_eq!(files(&fresh, &id).unwrap()[0].1, noise(1, 100_000));
    assert_eq!(lines(&check(&fresh).problems), "");
}

/// A run that is silent for long is given up: it must not report a snapshot whose data may be gone.
#[test]
fn a_silent_run_is_given_up_and_notices() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Owner);
    let (old, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = writer.open(store.clone()).unwrap();
    let run = ingest(&other);
    let mut lane = run.lane();
    let mut content = lane.content();
    content.write(&noise(1, 100_000)).unwrap();
    let recipe = content.finish().unwrap();
    vault.forget(&[old]).unwrap();
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    for looks in 0..2 {
        let report = vault.gc(&options).unwrap();
        assert_eq!(
            (report.waiting_packs, report.given_up.len()),
            (1, 0),
            "{looks}: {report:?}"
        );
    }
    let report = vault.gc(&options).unwrap();
    assert_eq!((report.deleted_packs, report.given_up.len()), (1, 1), "{report:?}");
    let mut tree = run.tree();
    let entry = crate::support::entry("b", drystone_format::tree::Kind::File(recipe));
    tree.push(&mut lane, &entry.encode()).unwrap();
    let tree = tree.finish(&mut lane).unwrap();
    lane.finish().unwrap();
    let finished = run.finish().unwrap();
    let error = other.publish(&snapshot(tree), &finished).unwrap_err();
    assert!(matches!(error, Error::GivenUp { .. }), "{error}");
    // Its root is there and counts for nobody; the next gc removes it.
    assert_eq!(names(&store, Prefix::Roots(RootKind::SNAPSHOT)).len(), 1);
    assert!(vault.snapshot_ids().unwrap().is_empty() && other.snapshot_ids().unwrap().is_empty());
    let (id, _) = back_up(&other, &[("b", &noise(1, 100_000))]).unwrap();
    gc(&vault);
    assert_eq!(names(&store, Prefix::Roots(RootKind::SNAPSHOT)).len(), 1);
    assert_eq!(files(&vault, &id).unwrap()[0].1, noise(1, 100_000));
}

/// Runs of this machine that died need not be waited for.
#[test]
fn a_run_that_died_here_is_given_up_at_once() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    // Of another key: gc spares what the key of a registered run has written.
    let vault = add_key(&fixture.create(store.clone()).unwrap(), Role::Owner);
    let vault = vault.open(store.clone()).unwrap();
    let (old, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    vault.forget(&[old]).unwrap();
    // The power goes before the root of a second run is stored: nobody removes its presence.
    let cut = Cut {
        after_changes: 1,
        in_flight: InFlight::Lost,
    };
    let crash = Arc::new(Crash::new((*store).clone(), Some(cut)));
    let vault = fixture.open(crash.clone()).unwrap();
    back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap_err();
    drop(vault);
    let left = Arc::new(crash.reopen());
    assert_eq!(names(&left, Prefix::Writers).len(), 1);
    let vault = fixture.elsewhere().open(left.clone()).unwrap();
    assert_eq!(gc(&vault).deleted_packs, 0);
    let report = gc(&fixture.open(left.clone()).unwrap());
    assert_eq!((report.given_up.len(), report.deleted_packs), (1, 1), "{report:?}");
    assert!(names(&left, Prefix::Writers).is_empty());
}

#[test]
fn an_unreadable_snapshot_or_tree_stops_it() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let (first, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let (second, _) = back_up(&vault, &[("b", &noise(2, 100_000))]).unwrap();
    vault.forget(&[first]).unwrap();
    let name = root_of(&*store, &second);
    let root = store.contents()[&name].clone();
    store.overwrite(&name, root.slice(..root.len() - 1));
    let packs = names(&store, Prefix::Packs);
    let error = vault.gc(&GcOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Unmarked { object, .. } if *object == name.to_string()),
        "{error}"
    );
    store.overwrite(&name, root);
    for pack in &packs {
        store.overwrite(pack, vec![0; store.contents()[pack].len()].into());
    }
    let error = vault.gc(&GcOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Unmarked { object, .. } if object.starts_with(&second.short())),
        "{error}"
    );
    assert_eq!(names(&store, Prefix::Packs), packs);
    assert!(names(&store, Prefix::Epochs).is_empty());
}

/// Two snapshots of which one goes, with a pack that is half garbage.
fn half_garbage(fixture: &Fixture) -> (Memory, RootId, Vec<u8>) {
    let store = Arc::new(Memory::new());
    // Of another key: gc spares what the key of a registered run has written.
    let vault = add_key(&fixture.create(store.clone()).unwrap(), Role::Owner);
    let vault = vault.open(store.clone()).unwrap();
    let kept = noise(5, 120_000);
    let (first, _) = back_up(&vault, &[("a", &noise(4, 120_000)), ("kept", &kept)]).unwrap();
    let (second, _) = back_up(&vault, &[("kept", &kept)]).unwrap();
    vault.forget(&[first]).unwrap();
    ((*store).clone(), second, kept)
}

#[test]
fn power_is_cut_after_every_change_of_gc() {
    let fixture = Fixture::new();
    let (store, id, kept) = half_garbage(&fixture);
    let whole = Arc::new(Crash::new(store.clone(), None));
    let machine = fixture.copy();
    gc(&machine.open(whole.clone()).unwrap());
    let changes = whole.changes();
    assert!((5..20).contains(&changes), "{changes}");
    for after_changes in 0..changes {
        for in_flight in [InFlight::Lost, InFlight::Kept] {
            let cut = Cut {
                after_changes,
                in_flight,
            };
            let (crash, machine) = (Arc::new(Crash::new(store.clone(), Some(cut))), fixture.copy());
            let outcome = watched({
                let vault = machine.open(crash.clone()).unwrap();
                move || vault.gc(&GcOptions::default()).map(drop)
            });
            let case = format!("cut after {after_changes}, in flight {in_flight:?}: {outcome:?}");
            let left = Arc::new(crash.reopen());
            for machine in [&machine, &fixture.elsewhere()] {
                let vault = machine.open(left.clone()).unwrap();
                assert_eq!(files(&vault, &id).unwrap()[0].1, kept, "{case}");
                assert_eq!(lines(&check(&vault).problems), "", "{case}");
            }
            let vault = machine.open(left.clone()).unwrap();
            let report = gc(&vault);
            assert_eq!(report.waiting_packs, 0, "{case}: {report:?}");
            assert_eq!(files(&vault, &id).unwrap()[0].1, kept, "{case}");
            assert!(stored_bytes(&left) < 200_000, "{case}: {}", stored_bytes(&left));
            assert_eq!(lines(&check(&vault).problems), "", "{case}");
        }
    }
}

#[test]
fn what_comes_back_is_deleted_again_while_its_epoch_stands() {
    let fixture = Fixture::new();
    let (before, id, kept) = half_garbage(&fixture);
    let store = Arc::new(before.clone());
    let vault = fixture.open(store.clone()).unwrap();
    gc(&vault);
    let after = names(&store, Prefix::Packs);
    for (name, bytes) in before.contents() {
        store.overwrite(&name, bytes);
    }
    // Nothing relies on what came back, and it is no damage.
    for machine in [&fixture, &fixture.elsewhere()] {
        let vault = machine.open(store.clone()).unwrap();
        let report = check(&vault);
        assert_eq!(lines(&report.problems) + &lines(&report.harmless), "");
        let (_, finished) = back_up(&vault, &[("a", &noise(4, 120_000))]).unwrap();
        assert!(finished.new_bytes >= 120_000 || machine.cache.path() != fixture.cache.path());
    }
    let report = gc(&fixture.open(store.clone()).unwrap());
    let of_before = names(&before, Prefix::Packs);
    let mut back = of_before.difference(&after);
    assert!(report.deleted_packs > 0 && of_before != after, "{report:?}");
    assert!(back.all(|name| !names(&store, Prefix::Packs).contains(name)));
    assert_eq!(files(&vault, &id).unwrap()[0].1, kept);
}

/// A mixed pack does not say which of its chunks are data: copies go to packs of their kind all the same.
#[test]
fn copies_out_of_mixed_packs_go_to_packs_of_their_kind() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let mut gone = Vec::new();
    let kept: Vec<(RootId, Vec<u8>)> = (0..4)
        .map(|number| {
            let (garbage, file) = (noise(100 + number, 200_000), noise(number, 400_000));
            let names: Vec<String> = (0..40).map(|name| format!("{number}-{name}")).collect();
            let small: Vec<Vec<u8>> = (0..40).map(|name| noise(1000 * number + name, 60)).collect();
            let mut files: Vec<(&str, &[u8])> = names
                .iter()
                .zip(&small)
                .map(|(name, bytes)| (&**name, &**bytes))
                .collect();
            files.push(("a-kept", &file));
            files.sort_unstable();
            gone.push(back_up(&vault, &[("a", &garbage), ("a-kept", &file)]).unwrap().0);
            let (id, _) = back_up(&vault, &files).unwrap();
            (id, file)
        })
        .collect();
    let stats = vault.stats().unwrap();
    assert_eq!((stats.data_packs, stats.meta_packs, stats.mixed_packs), (0, 0, 8));
    vault.forget(&gone).unwrap();
    let options = GcOptions {
        max_unused: 0.0,
        ..GcOptions::default()
    };
    vault.gc(&options).unwrap();
    let stats = vault.stats().unwrap();
    // Those without garbage are small, and folded with the others.
    assert_eq!(
        (stats.data_packs, stats.meta_packs, stats.mixed_packs),
        (1, 1, 0),
        "{stats:?}"
    );
    // The rest goes too, now with trees in it.
    let all: Vec<_> = names(&store, Prefix::Packs).into_iter().collect();
    vault.forget(&[kept[0].0]).unwrap();
    vault.gc(&options).unwrap();
    assert!(
        names(&store, Prefix::Packs)
            .into_iter()
            .any(|name| !all.contains(&name))
    );
    for (id, file) in &kept[1..] {
        let found = files(&vault, id).unwrap();
        assert!(found.len() == 41 && found.iter().any(|(_, bytes)| bytes == file));
    }
    assert_eq!(lines(&check(&vault).problems), "");
    assert_eq!(lines(&crate::support::scrub(&vault).problems), "");
}

#[test]
fn epochs_do_not_pile_up() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    for round in 0..5 {
        let (id, _) = back_up(&vault, &[("a", &noise(round, 50_000))]).unwrap();
        vault.forget(&[id]).unwrap();
        assert_eq!(gc(&vault).deleted_packs, 1);
        assert_eq!(names(&store, Prefix::Epochs).len(), 1);
    }
}

/// An epoch that is damaged is named, and costs at most that garbage lives longer.
#[test]
fn a_damaged_epoch_is_named_and_loses_nothing() {
    let fixture = Fixture::new();
    let (store, id, kept) = half_garbage(&fixture);
    let store = Arc::new(store);
    gc(&fixture.open(store.clone()).unwrap());
    let name = names(&store, Prefix::Epochs).pop_first().unwrap();
    let object = store.contents()[&name].clone();
    let flipped = |at: usize| {
        let mut bytes = object.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let flips = (0..object.len()).step_by(37).map(flipped);
    for damaged in flips.chain([Vec::new(), object[..object.len() / 2].to_vec()]) {
        let store = Arc::new((*store).clone());
        store.overwrite(&name, damaged.into());
        let vault = fixture.elsewhere().open(store.clone()).unwrap();
        assert!(lines(&check(&vault).problems).contains(name.as_str()));
        back_up(&vault, &[("new", b"new")]).unwrap();
        let report = vault.gc(&GcOptions::default()).unwrap();
        assert!(lines(&report.problems).contains(name.as_str()));
        assert_eq!(files(&vault, &id).unwrap()[0].1, kept);
    }
}

/// Only an owner's word condemns.
#[test]
fn forged_epochs_and_ledgers_count_for_nobody_and_are_named() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let (id, _) = back_up(&vault, &[("a", &noise(1, 50_000))]).unwrap();
    let packs = names(&store, Prefix::Packs);
    let condemned = packs.iter().filter_map(|name| match name.kind() {
        Kind::Pack(id) => Some(id),
        _ => None,
    });
    let epoch = Epoch {
        packs: condemned.collect(),
        ..Epoch::default()
    };
    let owner = secrets(&fixture, &store);
    let forged = owner.delegate(&mut random(), Role::Writer).unwrap();
    let object = seal_epoch(&forged, &epoch, &mut random()).unwrap();
    let name = Name::epoch(1, &object_hash(&object));
    store.overwrite(&name, object.into());
    let ledger = forgetting(&store, &[id]);
    let object = seal_ledger(&forged, &ledger, &Sightings::default(), &mut random()).unwrap();
    let ledger = Name::ledger(7, &object_hash(&object));
    store.overwrite(&ledger, object.into());
    for machine in [&fixture, &writer] {
        let vault = machine.open(store.clone()).unwrap();
        assert_eq!(vault.snapshot_ids().unwrap(), [id]);
    }
    let vault = fixture.open(store.clone()).unwrap();
    let (_, finished) = back_up(&vault, &[("a", &noise(1, 50_000))]).unwrap();
    assert_eq!(finished.new_bytes, 0);
    let report = vault.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.deleted_packs, 0);
    for said in [lines(&report.problems), lines(&check(&vault).problems)] {
        assert!(said.contains(name.as_str()) && said.contains(ledger.as_str()), "{said}");
    }
    let writer = writer.open(store).unwrap();
    assert!(matches!(writer.gc(&GcOptions::default()), Err(Error::Format(_))));
}

/// A snapshot that was published since the mark may need what a pack held that is damaged, or that only a later program reads.
#[test]
fn a_pack_that_cannot_be_read_stays_while_anything_that_is_needed_is_missing() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let before = names(&store, Prefix::Packs);
    back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let pack = names(&store, Prefix::Packs).difference(&before).next().unwrap().clone();
    let (other, _) = back_up(&vault, &[("b", &noise(2, 100_000))]).unwrap();
    let sound = store.contents()[&pack].clone();
    store.overwrite(&pack, noise(3, sound.len()).into());
    // Its snapshot needs it: gc stops, or leaves it.
    let again = fixture.elsewhere().open(store.clone()).unwrap();
    let _ = again.gc(&GcOptions::default());
    assert!(store.contents().contains_key(&pack));
    // Nobody needs it any more.
    let again = fixture.elsewhere().open(store.clone()).unwrap();
    let needing = again
        .snapshot_ids()
        .unwrap()
        .into_iter()
        .find(|id| *id != other)
        .unwrap();
    again.forget(&[needing]).unwrap();
    again.gc(&GcOptions::default()).unwrap();
    assert!(!store.contents().contains_key(&pack));
    assert_eq!(lines(&check(&fixture.elsewhere().open(store).unwrap()).problems), "");
}

#[test]
fn a_pack_that_cannot_be_read_stays_while_somebody_is_at_work() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let junk = Name::pack(&drystone_format::PackId([9; 32]));
    store.overwrite(&junk, noise(3, 70_000).into());
    let other = fixture.elsewhere().open(store.clone()).unwrap();
    let running = ingest(&other);
    let vault = fixture.elsewhere().open(store.clone()).unwrap();
    vault.gc(&GcOptions::default()).unwrap();
    assert!(store.contents().contains_key(&junk));
    drop(running);
    vault.gc(&GcOptions::default()).unwrap();
    assert!(!store.contents().contains_key(&junk));
}

#[test]
fn a_presence_that_cannot_be_read_now_stops_gc() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let (garbage, _) = back_up(&vault, &[("a", &noise(1, 50_000))]).unwrap();
    back_up(&vault, &[("b", &noise(2, 50_000))]).unwrap();
    vault.forget(&[garbage]).unwrap();
    let run = ingest(&vault);
    let failing = Arc::new(Fail::new(store.clone()));
    let owner = fixture.elsewhere();
    let vault = owner.open(failing.clone()).unwrap();
    let before = names(&store, Prefix::Packs);
    failing.add(Fault::error(Op::Get, Failure::Denied).only(Prefix::Writers));
    for _ in 0..3 {
        let error = vault.gc(&GcOptions::default()).unwrap_err();
        assert!(
            matches!(error, Error::Store(drystone_store::Error::Denied { .. })),
            "{error}"
        );
    }
    assert_eq!(names(&store, Prefix::Packs), before);
    failing.clear();
    drop(run);
    gc(&vault);
    gc(&vault);
    assert!(names(&store, Prefix::Packs).len() < before.len());
}
