//! Runs that look while another machine stores: what is newer than a listing is neither missing nor garbage.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_format::root::RootKind;
use drystone_store::{Listed, Memory, Name, Prefix, Put, Result, Store};
use drystone_vault::{Error, GcOptions, NewEpoch};

use crate::altered::{Alter, Altered};
use crate::pins::slot_of;
use crate::spread_world::{change, new_place, repair};
use crate::support::{Fixture, add_key, back_up, begin, check, files, lines, noise, snapshot};

/// A call before which something happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    List,
    Put,
}

/// A place at which something happens when a list is asked for, or an object put.
struct Beside {
    memory: Memory,
    before: (Before, Prefix),
    once: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

#[async_trait]
impl Alter for Beside {
    fn inner(&self) -> &Memory {
        &self.memory
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.happen(self.before.0 == Before::Put && self.before.1.covers(name));
        self.memory.put(name, bytes).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.happen(self.before == (Before::List, *prefix));
        self.memory.list(prefix, after, limit).await
    }
}

impl Beside {
    fn happen(&self, is_now: bool) {
        let once = is_now.then(|| self.once.lock().unwrap().take()).flatten();
        if let Some(once) = once {
            std::thread::spawn(once).join().unwrap();
        }
    }
}

fn beside(before: Before, prefix: Prefix) -> Arc<Altered<Beside>> {
    Arc::new(Altered(Beside {
        memory: Memory::named("mem://a"),
        before: (before, prefix),
        once: Mutex::default(),
    }))
}

/// When the list is asked for the next time, another machine makes a backup.
fn back_up_beside(store: &Arc<Altered<Beside>>, fixture: &Fixture, seed: u64) {
    let (elsewhere, other) = (fixture.elsewhere(), store.clone());
    *store.0.once.lock().unwrap() = Some(Box::new(move || {
        let vault = elsewhere.open(other).unwrap();
        back_up(&vault, &[("beside", &noise(seed, 100_000))]).unwrap();
    }));
}

#[test]
fn gc_goes_on_beside_a_backup_that_ends_after_the_packs_were_listed() {
    for prefix in [
        Prefix::Writers,
        Prefix::AllRoots,
        Prefix::Epochs,
        Prefix::Ledger,
        Prefix::Packs,
    ] {
        let (fixture, store) = (Fixture::new(), beside(Before::List, prefix));
        let vault = fixture.create(store.clone()).unwrap();
        let (first, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
        let (second, _) = back_up(&vault, &[("b", &noise(2, 100_000))]).unwrap();
        vault.forget(&[first]).unwrap();
        back_up_beside(&store, &fixture, 3);
        let report = vault.gc(&GcOptions::default()).unwrap();
        assert_eq!(
            (lines(&report.problems).as_str(), report.snapshots),
            ("", 2),
            "{prefix}"
        );
        let vault = fixture.elsewhere().open(store.clone()).unwrap();
        let report = check(&vault);
        assert_eq!(
            (lines(&report.problems).as_str(), report.snapshots),
            ("", 2),
            "{prefix}"
        );
        assert_eq!(files(&vault, &second).unwrap()[0].1, noise(2, 100_000));
    }
}

#[test]
fn a_snapshot_that_is_newer_than_the_list_of_packs_is_read() {
    let (fixture, store) = (Fixture::new(), beside(Before::List, Prefix::Writers));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = fixture.elsewhere().open(store).unwrap();
    let (newer, _) = back_up(&other, &[("b", &noise(2, 100_000))]).unwrap();
    assert_eq!(files(&vault, &newer).unwrap()[0].1, noise(2, 100_000));
}

/// Each moment of the removal of a key: a whole backup with that key ends there, and is reported.
#[test]
fn what_a_key_has_reported_while_it_was_removed_goes_on_counting() {
    for (before, prefix) in [
        (Before::Put, Prefix::Ledger),
        (Before::Put, Prefix::Config),
        (Before::Put, Prefix::Epochs),
        (Before::List, Prefix::Writers),
        (Before::List, Prefix::AllRoots),
    ] {
        let (fixture, store) = (Fixture::new(), beside(before, prefix));
        let vault = fixture.create(store.clone()).unwrap();
        let member = add_key(&vault, Role::Member);
        back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
        let reported: Arc<Mutex<Option<drystone_vault::Result<RootId>>>> = Arc::default();
        let (other, place) = (reported.clone(), store.clone());
        *store.0.once.lock().unwrap() = Some(Box::new(move || {
            let vault = member.open(place).unwrap();
            let backup = back_up(&vault, &[("b", &noise(2, 100_000))]);
            *other.lock().unwrap() = Some(backup.map(|(id, _)| id));
        }));
        let id = slot_of(&vault, |key| key.role == Role::Member);
        vault.remove_key(&id, NewEpoch::Start).unwrap();
        let vault = fixture.elsewhere().open(store.clone()).unwrap();
        for _ in 0..2 {
            vault.gc(&GcOptions::default()).unwrap();
        }
        match reported.lock().unwrap().take().unwrap() {
            Ok(id) => assert_eq!(files(&vault, &id).unwrap()[0].1, noise(2, 100_000), "{prefix}"),
            Err(Error::GivenUp { .. } | Error::KeyRemoved { .. }) => {}
            Err(error) => panic!("{prefix}: {error}"),
        }
        assert_eq!(lines(&check(&vault).problems), "", "{prefix}");
    }
}

/// The root lies at the old place alone: nobody copies it any more.
#[test]
fn a_run_whose_root_comes_too_late_to_its_place_reports_nothing() {
    let (fixture, store) = (Fixture::new(), beside(Before::Put, Prefix::Roots(RootKind::SNAPSHOT)));
    let vault = fixture.create(store.clone()).unwrap();
    let (run, tree) = begin(&vault, [("a", &noise(1, 100_000)[..])]).unwrap();
    let finished = run.finish().unwrap();
    let (owner, place) = (fixture.elsewhere(), store.clone());
    *store.0.once.lock().unwrap() = Some(Box::new(move || {
        let vault = owner.open(place).unwrap();
        let new = new_place("mem://b", Arc::new(Memory::named("mem://b")));
        let vault = vault.change_places(change(vec![new], vec![], Some((1, 2)))).unwrap();
        let old = vault.find_place("mem://a").unwrap();
        let vault = vault.change_places(change(vec![], vec![old], Some((1, 1)))).unwrap();
        repair(&vault);
        vault.drop_left_places().unwrap();
    }));
    let error = vault.publish(&snapshot(tree), &finished).unwrap_err();
    assert!(
        matches!(&error, Error::PlacesMoved { place } if place == "mem://a"),
        "{error}"
    );
}
