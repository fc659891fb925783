//! Ledgers in the engine: what owners state is missed where it is gone, and forgotten wherever it comes back.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::keys::Role;
use drystone_format::root::RootState;
use drystone_format::{RegistrationId, RootId};
use drystone_store::{Kind, Listed, Memory, Name, Prefix, Store};
use drystone_vault::{Error, GcOptions, NewEpoch, Vault};

use crate::altered::{Alter, Altered};
use crate::gc::{gc, names, remove_root};
use crate::spread_world::{URLS, World, repair, store_small};
use crate::support::{
    ALONE, Fixture, Link, add_key, back_up, check, craft_root, files, ingest, lines, noise, options, root_of, runtime,
    secrets, snapshot, stated,
};

const FILE: &[(&str, &[u8])] = &[("file", b"content")];

fn world() -> (Fixture, Arc<Memory>, Vault) {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    (fixture, store, vault)
}

/// Stores other content than any other number.
fn store_one(vault: &Vault, number: u64) -> RootId {
    back_up(vault, &[("file", &noise(number, 50_000))]).unwrap().0
}

fn registration(store: &Memory, id: &RootId) -> RegistrationId {
    match root_of(store, id).kind() {
        Kind::Root(root) => root.registration,
        _ => panic!(),
    }
}

fn only_ledger(store: &Memory) -> Name {
    let all = names(store, Prefix::Ledger);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

/// S8 on a machine that has never seen the vault: what a ledger states and no place has is missed aloud, until an owner forgets it.
#[test]
fn a_fresh_machine_misses_what_owners_have_stated() {
    let (fixture, store, vault) = world();
    let [kept, lost] = [1, 2].map(|number| store_one(&vault, number));
    gc(&vault);
    let name = root_of(&*store, &lost);
    remove_root(&*store, &lost);
    let fresh = fixture.elsewhere().open(store.clone()).unwrap();
    assert!(lines(&fresh.snapshots().unwrap().1).contains(name.as_str()));
    assert!(lines(&check(&fresh).problems).contains(name.as_str()));
    assert!(matches!(fresh.resolve("latest"), Err(Error::LatestUnknown { .. })));
    let refused = fresh.gc(&GcOptions::default()).map(drop);
    assert!(
        matches!(refused, Err(Error::MissingRoots { count: 1, .. })),
        "{refused:?}"
    );
    // It is named by the digits of its id, as the message says.
    let id = fresh.resolve_id(&lost.to_string()[..8]).unwrap();
    fresh.forget(&[id]).unwrap();
    gc(&fresh);
    assert_eq!(fresh.snapshot_ids().unwrap(), [kept]);
    assert_eq!(lines(&check(&vault).problems), "");
}

/// What was forgotten stays so, wherever it comes back from and whoever looks; its registration costs 16 bytes in the end.
#[test]
fn forgotten_wins_for_ever_and_takes_little_room() {
    let (fixture, store, vault) = world();
    let [kept, gone] = [1, 2].map(|number| store_one(&vault, number));
    gc(&vault);
    let (name, dead) = (root_of(&*store, &gone), registration(&store, &gone));
    let object = store.contents()[&name].clone();
    vault.forget(&[gone]).unwrap();
    let stated = || stated(&secrets(&fixture, &store), &store);
    assert_eq!(stated().forgotten.len(), 1);
    for _ in 0..3 {
        gc(&vault);
        assert_eq!(names(&store, Prefix::Ledger).len(), 1);
        assert!(names(&store, Prefix::Epochs).len() <= 2);
    }
    assert_eq!((stated().forgotten.len(), &stated().dead), (0, &[dead].into()));
    store.overwrite(&name, object);
    let fresh = fixture.elsewhere().open(store.clone()).unwrap();
    assert_eq!(fresh.snapshot_ids().unwrap(), [kept]);
    gc(&fresh);
    assert!(!store.contents().contains_key(&name), "gc removes it again");
}

/// Nobody knows what a ledger states that no place gives back: it is told, gc refuses, and an owner may give it up by its name.
#[test]
fn a_lost_ledger_stops_gc_until_it_is_given_up() {
    let (fixture, store, vault) = world();
    let kept = store_one(&vault, 1);
    let gone = store_one(&vault, 2);
    vault.forget(&[gone]).unwrap();
    gc(&vault);
    let ledger = only_ledger(&store);
    let object = store.contents()[&ledger].clone();
    let mut flipped = object.to_vec();
    flipped[40] ^= 1;
    let damages: [Option<Bytes>; 3] = [None, Some(object.slice(..100)), Some(flipped.into())];
    for damage in damages {
        let (fixture, store) = (fixture.copy(), Arc::new((*store).clone()));
        match &damage {
            Some(bytes) => store.overwrite(&ledger, bytes.clone()),
            None => store.remove(&ledger),
        }
        // A machine that has read it misses it; one that has not sees that a damaged one is there.
        let machines = [Some(fixture.copy()), damage.is_some().then(|| fixture.elsewhere())];
        for machine in machines.iter().flatten() {
            let vault = machine.open(store.clone()).unwrap();
            for said in [lines(&vault.snapshots().unwrap().1), lines(&check(&vault).problems)] {
                assert!(
                    said.contains(ledger.as_str()) && said.contains("resolve --ledger"),
                    "{said}"
                );
            }
            assert!(matches!(vault.resolve("latest"), Err(Error::LatestUnknown { .. })));
            let refused = vault.gc(&GcOptions::default()).map(drop);
            assert!(matches!(refused, Err(Error::UnknownLedger { .. })), "{refused:?}");
            // Backups go on, and so does restoring by name.
            store_one(&vault, 3);
            assert_eq!(files(&vault, &kept).unwrap()[0].1, noise(1, 50_000));
        }
        let vault = fixture.open(store.clone()).unwrap();
        assert!(matches!(vault.give_up_ledger("9-ff"), Err(Error::NoLedger { .. })));
        let (_, text) = ledger.as_str().split_once('/').unwrap();
        assert_eq!(vault.give_up_ledger(text).unwrap(), ledger.as_str());
        for machine in [fixture.copy(), fixture.elsewhere()] {
            let vault = machine.open(store.clone()).unwrap();
            assert_eq!(lines(&check(&vault).problems), "");
            gc(&vault);
            assert!(files(&vault, &kept).is_ok());
        }
    }
    // Given back, it counts again.
    let vault = fixture.open(store.clone()).unwrap();
    assert_eq!(
        (lines(&check(&vault).problems), vault.snapshot_ids().unwrap()),
        (String::new(), vec![kept])
    );
}

/// Junk under a name of the right form stops gc; taken away again, it stops nothing more, also for a vault that stays open.
#[test]
fn junk_among_the_ledgers_is_named_and_goes_with_its_removal() {
    let (_, store, vault) = world();
    let id = store_one(&vault, 1);
    gc(&vault);
    let junk = Name::ledger(99, &RootId([9; 16]));
    store.overwrite(&junk, Bytes::from_static(b"junk"));
    assert!(lines(&vault.snapshots().unwrap().1).contains(junk.as_str()));
    assert!(matches!(
        vault.gc(&GcOptions::default()),
        Err(Error::UnknownLedger { .. })
    ));
    store.remove(&junk);
    assert_eq!(lines(&vault.snapshots().unwrap().1), "");
    gc(&vault);
    assert_eq!(vault.snapshot_ids().unwrap(), [id]);
}

/// A place that shows what it had weeks ago: the ledger that is named as a predecessor says nothing any more.
#[test]
fn a_place_that_is_rolled_back_neither_revives_nor_hides() {
    let (fixture, places) = (Fixture::new(), World::default());
    let vault = places.create(&fixture, &URLS, (2, 3));
    let [old, kept] = [1, 2].map(|number| store_small(&vault, number));
    gc(&vault);
    let before = places.store(URLS[0]).contents();
    vault.forget(&[old]).unwrap();
    let new = store_small(&vault, 3);
    gc(&vault);
    let now = places.store(URLS[0]);
    now.contents().keys().for_each(|name| now.remove(name));
    before
        .iter()
        .for_each(|(name, object)| now.overwrite(name, object.clone()));
    for machine in [fixture.copy(), fixture.elsewhere()] {
        let vault = places.open(&machine, &URLS).unwrap();
        let mut ids = vault.snapshot_ids().unwrap();
        let mut expected = vec![kept, new];
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected);
        assert_eq!(lines(&vault.snapshots().unwrap().1), "");
    }
    let vault = places.open(&fixture, &URLS).unwrap();
    repair(&vault);
    gc(&vault);
    let ledger = |url: &str| names(&places.store(url), Prefix::Ledger);
    assert!(ledger(URLS[0]) == ledger(URLS[1]) && ledger(URLS[0]).len() == 1);
}

/// The only place shows what it had weeks ago: who has seen the ledger since is told; a machine without memory cannot know.
#[test]
fn an_older_ledger_is_told_by_who_has_seen_the_newer_one() {
    let (fixture, store, vault) = world();
    let [old, kept] = [1, 2].map(|number| store_one(&vault, number));
    gc(&vault);
    let before = store.contents();
    vault.forget(&[old]).unwrap();
    let newest = names(&store, Prefix::Ledger).pop_last().unwrap();
    store.contents().keys().for_each(|name| store.remove(name));
    before
        .iter()
        .for_each(|(name, object)| store.overwrite(name, object.clone()));
    let vault = fixture.open(store.clone()).unwrap();
    let said = lines(&vault.snapshots().unwrap().1);
    assert!(said.contains(newest.as_str()) && said.contains("rolled back"), "{said}");
    assert!(matches!(
        vault.gc(&GcOptions::default()),
        Err(Error::UnknownLedger { .. })
    ));
    let mut accepting = fixture.context();
    accepting.accept.older = true;
    let vault = Vault::open(store as Arc<dyn Store>, accepting, &fixture.unlock()).unwrap();
    let mut ids = vault.snapshot_ids().unwrap();
    ids.sort();
    let mut expected = vec![old, kept];
    expected.sort();
    assert_eq!((ids, lines(&check(&vault).problems)), (expected, String::new()));
}

/// R2: what a removed key signs afterwards counts for nobody; what it had published before goes on counting.
#[test]
fn a_removed_key_adds_no_root_and_loses_none() {
    for role in [Role::Writer, Role::Member] {
        let (fixture, store, vault) = world();
        let own = store_one(&vault, 1);
        let writer = add_key(&vault, role);
        let honest = store_one(&writer.open(store.clone()).unwrap(), 2);
        let stolen = secrets(&writer, &store);
        let (keys, _) = vault.keys().unwrap();
        let slot = keys.iter().find(|key| key.role == role).unwrap().id;
        vault.remove_key(&slot, NewEpoch::Start).unwrap();
        let payload = vault.snapshot(&honest).unwrap().encode();
        let (late, object) = craft_root(&stolen, [9; 16], ALONE, &payload);
        store.overwrite(&Name::root(&late), object.into());
        let mut expected = vec![own, honest];
        expected.sort();
        for machine in [fixture.copy(), fixture.elsewhere()] {
            let vault = machine.open(store.clone()).unwrap();
            let mut ids = vault.snapshot_ids().unwrap();
            ids.sort();
            assert_eq!(ids, expected, "{role:?}");
            // It stops nothing, and is told where everything is looked at.
            assert_eq!(lines(&vault.snapshots().unwrap().1), "");
            assert!(vault.resolve("latest").is_ok());
            let report = vault.gc(&GcOptions::default()).unwrap();
            for said in [lines(&report.problems), lines(&check(&vault).problems)] {
                assert!(said.contains(Name::root(&late).as_str()), "{said}");
            }
            assert_eq!(files(&vault, &honest).unwrap()[0].1, noise(2, 50_000));
        }
    }
}

/// A thief of a writer's key publishes a number first, an owner forgets that, gc closes the range: the writer is told, and loses nothing.
#[test]
fn a_writer_is_told_when_a_thief_has_run_ahead_of_it() {
    let (fixture, store, vault) = world();
    let writer = add_key(&vault, Role::Writer);
    let writing = writer.open(store.clone()).unwrap();
    let shot = || snapshot(drystone_format::recipe::Recipe::default());
    let begun = ingest(&writing).finish().unwrap();
    let first = writing.publish_open(&shot(), &begun).unwrap();
    let Kind::Root(root) = root_of(&*store, &first).kind() else {
        panic!()
    };
    let next = writing.ingest_on(&begun, options()).unwrap().finish().unwrap();
    let link = Link {
        number: 1,
        previous: Some(first),
        state: RootState::Open,
        ..ALONE
    };
    // The nonce of a registration is no secret: its presence tells it.
    let nonce = nonce(&writer, &store, &root.registration);
    let (forged, object) = craft_root(&secrets(&writer, &store), nonce, link, &shot().encode());
    assert_eq!(forged.registration, root.registration);
    store.overwrite(&Name::root(&forged), object.into());
    gc(&vault);
    vault.forget(&[forged.hash]).unwrap();
    gc(&vault);
    let floor = stated(&secrets(&fixture, &store), &store).bounds[&root.registration].floor;
    assert_eq!(floor, 2, "the first is live, the second forgotten");
    let refused = writing.publish_open(&shot(), &next).map(drop);
    assert!(matches!(refused, Err(Error::GivenUp { .. })), "{refused:?}");
    // It registers anew, and what it reports is there.
    let again = ingest(&writing).finish().unwrap();
    let reported = writing.publish(&shot(), &again).unwrap();
    drop((begun, next));
    (0..3).for_each(|_| drop(gc(&vault)));
    let ids = fixture.elsewhere().open(store).unwrap().snapshot_ids().unwrap();
    assert!(
        ids.contains(&first) && ids.contains(&reported) && ids.len() == 2,
        "{ids:?}"
    );
}

fn nonce(writer: &Fixture, store: &Memory, registration: &RegistrationId) -> [u8; 16] {
    let presences = names(store, Prefix::Writers).into_iter();
    let found = presences.filter_map(|name| match name.kind() {
        Kind::Writer(id, beat, hash) if id == *registration => {
            let object = &store.contents()[&name];
            let says = (&id, beat, &hash);
            let read = drystone_format::presence::Presence::verify(&secrets(writer, store), says, object);
            Some(read.unwrap().0.nonce)
        }
        _ => None,
    });
    found.last().unwrap()
}

/// A list that does not show a root yet, or a place that hides it there: gc asks for what is stated by its name.
#[derive(Debug)]
struct Lagging {
    place: Arc<Memory>,
    hidden: Name,
}

#[async_trait]
impl Alter for Lagging {
    fn inner(&self) -> &Memory {
        &self.place
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        let mut listed = self.place.list(prefix, after, limit).await?;
        listed.retain(|listed| listed.name != self.hidden);
        Ok(listed)
    }
}

#[test]
fn what_is_stated_and_not_listed_is_asked_for_by_its_name() {
    let (fixture, store, vault) = world();
    let id = store_one(&vault, 1);
    gc(&vault);
    let lagging = Arc::new(Altered(Lagging {
        hidden: root_of(&*store, &id),
        place: store.clone(),
    }));
    let vault = fixture.elsewhere().open(lagging).unwrap();
    assert_eq!(vault.snapshot_ids().unwrap(), [id]);
    assert_eq!(gc(&vault).snapshots, 1);
    assert_eq!(lines(&check(&vault).problems), "");
    assert_eq!(files(&vault, &id).unwrap()[0].1, noise(1, 50_000));
}

/// An owner who finds many snapshots that no ledger states puts one; others cannot, and do not try.
#[test]
fn many_unstated_snapshots_are_stated_by_whoever_finds_them() {
    let (fixture, store, vault) = world();
    let member = add_key(&vault, Role::Member).open(store.clone()).unwrap();
    for number in 0..31 {
        back_up(&vault, FILE)
            .map(drop)
            .unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    vault.snapshots().unwrap();
    assert!(names(&store, Prefix::Ledger).is_empty());
    back_up(&vault, FILE).unwrap();
    member.snapshots().unwrap();
    assert!(names(&store, Prefix::Ledger).is_empty());
    vault.snapshots().unwrap();
    assert_eq!(stated(&secrets(&fixture, &store), &store).live.len(), 32);
    let before = only_ledger(&store);
    vault.snapshots().unwrap();
    assert_eq!(only_ledger(&store), before);
}

/// Two owners who know nothing of each other's ledgers: both count, and the next one carries both over.
#[test]
fn ledgers_of_two_owners_are_joined() {
    let (fixture, store, vault) = world();
    let [one, two, kept] = [1, 2, 3].map(|number| store_one(&vault, number));
    gc(&vault);
    let before = store.contents();
    let apart = Arc::new((*store).clone());
    vault.forget(&[one]).unwrap();
    let other = add_key(&vault, Role::Owner);
    let elsewhere = fixture.elsewhere().open(apart.clone()).unwrap();
    elsewhere.forget(&[two]).unwrap();
    for (name, object) in apart.contents() {
        if !before.contains_key(&name) {
            store.overwrite(&name, object);
        }
    }
    assert_eq!(names(&store, Prefix::Ledger).len(), 3);
    for machine in [&fixture, &other] {
        assert_eq!(machine.open(store.clone()).unwrap().snapshot_ids().unwrap(), [kept]);
    }
    gc(&other.open(store.clone()).unwrap());
    let ledger = stated(&secrets(&fixture, &store), &store);
    assert!(names(&store, Prefix::Ledger).len() == 1 && ledger.live.len() == 1);
    assert_eq!(vault.snapshot_ids().unwrap(), [kept]);
}

/// A machine that has never seen the vault misses the configuration that owners have stated.
#[test]
fn a_fresh_machine_misses_the_configuration_in_force() {
    let (fixture, store, vault) = world();
    store_one(&vault, 1);
    add_key(&vault, Role::Writer);
    let (keys, _) = vault.keys().unwrap();
    let slot = keys.iter().find(|key| key.role == Role::Writer).unwrap().id;
    vault.remove_key(&slot, NewEpoch::Keep).unwrap();
    let newest = names(&store, Prefix::Config).pop_last().unwrap();
    let copies: Vec<Name> = store.contents().into_keys().collect();
    let hidden = copies
        .into_iter()
        .filter(|name| name.as_str().ends_with(newest.as_str()));
    hidden.for_each(|name| store.remove(&name));
    let fresh = fixture.elsewhere().open(store.clone()).unwrap();
    assert!(lines(&check(&fresh).problems).contains(newest.as_str()));
    let refused = fresh.gc(&GcOptions::default()).map(drop);
    assert!(matches!(refused, Err(Error::UncertainConfig { .. })), "{refused:?}");
    fresh.resolve_config(None).unwrap();
    let fresh = fixture.elsewhere().open(store).unwrap();
    assert_eq!(lines(&check(&fresh).problems), "");
    gc(&fresh);
}

/// A place that keeps everything keeps old ledgers too: they say nothing any more, and what they stated as live stays forgotten.
#[test]
fn ledgers_that_cannot_be_removed_do_no_harm() {
    use drystone_store::Fail;
    use drystone_store::fail::{Failure, Fault};
    let (fixture, store, vault) = world();
    let [gone, kept] = [1, 2].map(|number| store_one(&vault, number));
    gc(&vault);
    let keeps = Fail::new(store.clone());
    keeps.add(Fault::error(drystone_store::Op::Delete, Failure::Denied));
    let only_adds = fixture.open(Arc::new(keeps)).unwrap();
    // The root cannot be removed; it is forgotten all the same.
    assert!(only_adds.forget(&[gone]).is_err());
    assert_eq!(names(&store, Prefix::Ledger).len(), 2);
    for machine in [fixture.copy(), fixture.elsewhere()] {
        assert_eq!(machine.open(store.clone()).unwrap().snapshot_ids().unwrap(), [kept]);
    }
    let read = runtime().block_on(store.list(&Prefix::Ledger, None, 9)).unwrap();
    assert_eq!(read.len(), 2);
}
