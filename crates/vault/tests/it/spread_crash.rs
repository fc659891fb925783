//! The crash matrix of a vault over three places, or with all shards at one: power cut after every change, at one place or at all of them, in a
//! backup, a change of places, a repair and gc; then any two places are enough for everything published (I1, I2, I5).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use drystone_format::RootId;
use drystone_store::crash::{Cut, InFlight};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Crash, Fail, Kind, Name, Op, Store};
use drystone_vault::{Connect, Error, GcOptions, RepairOptions, Vault};

use crate::spread_world::{
    Switch, Switched, URLS, World, assert_whole, change, new_place, repair, small_files, store_small, try_store,
};
use crate::support::{Fixture, back_up, files, noise, watched};

const NEW: &str = "mem://d";

/// What is under way when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    BackUp,
    /// Adds a place and lets another one leave.
    Replace,
    /// Pays what a place lacks, and replaces what is rotten.
    Repair,
    Gc,
}

/// What a run had published when it ended.
type Published = Vec<(RootId, u64)>;

struct Base {
    urls: &'static [&'static str],
    world: World,
    owner: Fixture,
    published: Published,
}

/// Two snapshots; garbage; a place that lacks what was stored last.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::new(&URLS))
}

/// The same with all shards, and spare copies of the rest, at one place.
fn alone() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::new(&URLS[..1]))
}

impl Base {
    fn new(urls: &'static [&'static str]) -> Self {
        let (world, owner) = (World::default(), Fixture::new());
        let vault = world.create(&owner, urls, (2, 3));
        let garbage = back_up(&vault, &[("garbage", &noise(9, 9_000))]).unwrap().0;
        let published = vec![(store_small(&vault, 1), 1), (store_small(&vault, 2), 2)];
        vault.forget(&[garbage]).unwrap();
        Base {
            urls,
            world,
            owner,
            published,
        }
    }

    fn work(&self, work: Work, world: &World, fixture: &Fixture) -> drystone_vault::Result<Published> {
        let vault = world.open(fixture, self.urls)?;
        match work {
            Work::BackUp => Ok(vec![(try_store(&vault, &small_files(3))?, 3)]),
            Work::Replace => {
                let old = vault.find_place(URLS[0])?;
                let new = new_place(NEW, world.connect(NEW)?);
                let vault = vault.change_places(change(vec![new], vec![old], None))?;
                vault.repair(&RepairOptions::default())?;
                vault.drop_left_places()?;
                Ok(Vec::new())
            }
            Work::Repair => {
                vault.repair(&RepairOptions::default())?;
                Ok(Vec::new())
            }
            Work::Gc => {
                vault.gc(&GcOptions::default())?;
                Ok(Vec::new())
            }
        }
    }

    /// As it is before this work.
    fn prepared(&self, work: Work) -> World {
        let world = self.world.copy();
        match work {
            Work::Replace => drop(world.add(NEW)),
            Work::Repair => self.damage(&world),
            Work::BackUp | Work::Gc => {}
        }
        world
    }

    /// Everything at the second of several places; at a single one, one copy or shard of each object.
    fn damage(&self, world: &World) {
        let url = self.urls.get(1).copied().unwrap_or(URLS[0]);
        let (store, is_alone) = (world.store(url), self.urls.len() == 1);
        for (number, (name, bytes)) in store.contents().into_iter().enumerate() {
            let is_chosen = match name.kind() {
                Kind::Place => false,
                _ if !is_alone => true,
                Kind::Shard(shard) => shard.number == shard.pack.0[0] % 3,
                _ => name.as_str().bytes().next_back().map(|last| last % 2) == Some(name.spare_number()),
            };
            if is_chosen && number % 2 == 0 {
                store.remove(&name);
            } else if is_chosen {
                store.overwrite(&name, bytes.slice(..bytes.len() / 2));
            }
        }
    }
}

fn is_change(op: Op) -> bool {
    matches!(op, Op::Put | Op::Delete)
}

/// After a cut: what was published is whole from any two of the places that the list in force names, and work goes on.
fn assert_goes_on(
    base: &Base,
    (world, fixture): (&World, &Fixture),
    published: &Published,
    (under_way, case): (Work, &str),
) {
    world.unveil();
    let readable = |vault: &Vault, what: &str| {
        for (id, seed) in published {
            let found = files(vault, id).unwrap_or_else(|error| panic!("{case}, {what}: {error}"));
            assert!(found == small_files(*seed), "{case}, {what}");
        }
    };
    let opened = match world.open(fixture, base.urls) {
        // This machine knows a newer list than the place that is being left: it asks for another one.
        Err(Error::OlderConfiguration { .. }) => world.open(fixture, &world.urls()),
        opened => opened,
    };
    let vault = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
    readable(&vault, "reopened");
    // What is done again comes to its end.
    let more = base.work(under_way, world, fixture);
    let is_done = under_way == Work::Replace && more.is_err();
    assert!(more.is_ok() || is_done, "{case}: {more:?}");
    let vault = world.open(fixture, &world.urls()).unwrap();
    repair(&vault);
    let vault = vault.drop_left_places().unwrap();
    clear_remains(&vault, case);
    assert_whole(&vault);
    let places: Vec<String> = vault.places().iter().map(|entry| entry.url.clone()).collect();
    assert_eq!(places.len(), base.urls.len(), "{case}: {places:?}");
    assert_eq!(
        under_way == Work::Replace,
        places.iter().any(|url| url == NEW),
        "{case}"
    );
    if let [only] = &*places {
        return assert_spared(world, fixture, only, published, case);
    }
    for gone in &places {
        let store = world.take(gone);
        let left = places.iter().find(|url| *url != gone).unwrap();
        readable(&world.open(fixture, &[left]).unwrap(), &format!("without {gone}"));
        world.bring(gone, store);
    }
}

/// At the only place any one file of each object may be lost.
fn assert_spared(world: &World, fixture: &Fixture, url: &str, published: &Published, case: &str) {
    let store = world.store(url);
    let originals = |name: &Name| match name.kind() {
        Kind::Shard(shard) => shard.number == 0,
        _ => name.spare_number() == 0 && name.has_spares(),
    };
    for name in store.contents().into_keys().filter(originals) {
        store.remove(&name);
    }
    let vault = world.open(&fixture.elsewhere(), &[url]);
    let vault = vault.unwrap_or_else(|error| panic!("{case}, without originals: {error}"));
    for (id, seed) in published {
        let found = files(&vault, id).unwrap_or_else(|error| {
            let problems = crate::support::lines(&crate::support::check(&vault).problems);
            panic!("{case}, without originals: {error} {problems} {:?}", vault.redundancy())
        });
        assert!(found == small_files(*seed), "{case}, without originals");
    }
}

/// Until gc has given up the run that died, and with it what is left of a pack that nobody was told of.
fn clear_remains(vault: &Vault, case: &str) {
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    for _ in 0..4 {
        if vault.redundancy().unwrap().leftover_packs == 0 {
            return;
        }
        vault.gc(&options).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

/// Whether what is in flight at a cut is kept: the cases to try at each.
type Fates = fn(u64) -> Vec<bool>;

const IN_TURN: Fates = |after| vec![after % 2 == 1];
/// Every other cut, where there are many.
const SOME: Fates = |after| {
    if after % 2 == 0 {
        vec![after % 4 == 0]
    } else {
        Vec::new()
    }
};
const BOTH: Fates = |_| vec![false, true];

/// Cuts the power of all places at once, after every change of `under_way`.
fn cut_all(base: &'static Base, under_way: Work, fates: Fates) {
    let mut after = 0;
    loop {
        for is_kept in fates(after) {
            let (world, fixture) = (base.prepared(under_way), base.owner.copy());
            let urls: Vec<&str> = world.urls();
            let places = world.failing(&urls);
            let all = places.clone();
            let switch = Switch::new(after, is_change, move |caller: &Fail| {
                if is_kept {
                    caller.add(Fault::lost_reply(Op::Put).nth(1));
                    caller.add(Fault::lost_reply(Op::Delete).nth(1));
                }
                all.iter().for_each(|place| power_off(place));
            });
            for (url, inner) in urls.iter().zip(places) {
                let switch = switch.clone();
                world.show(url, |_| Arc::new(Switched { inner, switch }));
            }
            let case = format!("{under_way:?}: all places cut after {after} changes, in flight kept: {is_kept}");
            let (world, fixture, outcome) = watched(move || {
                let outcome = base.work(under_way, &world, &fixture);
                (world, fixture, outcome)
            });
            if switch.counted() <= after {
                outcome.unwrap();
                assert!(after > 3, "{case}");
                return;
            }
            let published = [base.published.clone(), outcome.unwrap_or_default()].concat();
            assert_goes_on(base, (&world, &fixture), &published, (under_way, &case));
        }
        after += 1;
    }
}

fn power_off(place: &Fail) {
    for op in [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete] {
        place.add(Fault::error(op, Failure::Unavailable));
    }
}

/// Cuts the power of one place after every change that it gets; the others go on.
fn cut_one(base: &'static Base, under_way: Work, url: &'static str, fates: Fates) {
    let mut after_changes = 0;
    loop {
        for is_kept in fates(after_changes) {
            let in_flight = if is_kept { InFlight::Kept } else { InFlight::Lost };
            let (world, fixture) = (base.prepared(under_way), base.owner.copy());
            let cut = Cut {
                after_changes,
                in_flight,
            };
            let crash = Arc::new(Crash::new(world.store(url).as_ref().clone(), Some(cut)));
            let seen: Arc<dyn Store> = crash.clone();
            world.show(url, |_| seen);
            let case = format!("{under_way:?}: {url} cut after {after_changes} changes, in flight {in_flight:?}");
            let (world, fixture, outcome) = watched(move || {
                let outcome = base.work(under_way, &world, &fixture);
                (world, fixture, outcome)
            });
            if !crash.is_down() {
                outcome.unwrap();
                return;
            }
            world.bring(url, Arc::new(crash.reopen()));
            // Two places are enough for anything but gc, which needs them all.
            assert!(outcome.is_ok() || under_way != Work::BackUp, "{case}: {outcome:?}");
            let published = [base.published.clone(), outcome.unwrap_or_default()].concat();
            assert_goes_on(base, (&world, &fixture), &published, (under_way, &case));
        }
        after_changes += 1;
    }
}

#[test]
fn all_places_lose_power_in_a_backup() {
    cut_all(base(), Work::BackUp, IN_TURN);
}

#[test]
fn all_places_lose_power_while_a_place_is_replaced() {
    cut_all(base(), Work::Replace, IN_TURN);
}

#[test]
fn all_places_lose_power_in_a_repair() {
    cut_all(base(), Work::Repair, IN_TURN);
}

#[test]
fn all_places_lose_power_in_gc() {
    cut_all(base(), Work::Gc, IN_TURN);
}

#[test]
fn the_only_place_loses_power() {
    for (under_way, fates) in [
        (Work::BackUp, IN_TURN),
        (Work::Replace, SOME),
        (Work::Repair, SOME),
        (Work::Gc, SOME),
    ] {
        cut_all(alone(), under_way, fates);
    }
}

#[test]
fn one_place_loses_power() {
    cut_one(base(), Work::BackUp, URLS[0], BOTH);
    cut_one(base(), Work::Gc, URLS[2], SOME);
    cut_one(base(), Work::Repair, URLS[1], SOME);
    cut_one(base(), Work::Replace, NEW, SOME);
    cut_one(base(), Work::Replace, URLS[0], SOME);
}

#[test]
#[ignore = "more than 30 s: every fate of what is in flight, at every place"]
fn every_cut() {
    for under_way in [Work::BackUp, Work::Replace, Work::Repair, Work::Gc] {
        cut_all(base(), under_way, BOTH);
        cut_all(alone(), under_way, BOTH);
        URLS.into_iter().for_each(|url| cut_one(base(), under_way, url, BOTH));
    }
    cut_one(base(), Work::Replace, NEW, BOTH);
}
