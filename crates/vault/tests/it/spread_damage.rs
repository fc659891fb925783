//! The damage matrix of a vault that is 2/3, over three places or all at one: whatever happens to one object at one place,
//! everything can be read, scrub notices it, and repair brings back the very bytes (I6, I8).

use std::sync::OnceLock;

use bytes::Bytes;
use drystone_format::keys::Role;
use drystone_format::{PackId, RootId};
use drystone_store::{Kind, Name, Prefix};
use drystone_vault::{Cancel, GcOptions, Grade, ScrubOptions, ScrubReport, Vault};

use crate::spread_world::{URLS, World, assert_whole, change, repair, small_files, store_small, unsigned};
use crate::support::root_of;
use crate::support::{Fixture, add_key, back_up, check, files, ingest, lines, noise, scrub};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
}

const DAMAGES: [Damage; 3] = [Damage::Delete, Damage::Truncate, Damage::Flip];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    BackUp,
    Check,
    Scrub,
    ScrubAndRepair,
    Repair,
    RepairIndex,
    Gc,
}

/// What meets a damage, one after the other: what changes nothing of it, and what mends it.
const RUNS: [&[Work]; 3] = [
    &[
        Work::Read,
        Work::Check,
        Work::Scrub,
        Work::BackUp,
        Work::RepairIndex,
        Work::Gc,
    ],
    &[Work::ScrubAndRepair],
    &[Work::Repair],
];

/// A vault with garbage, that another machine's run keeps gc from deleting, so that its epoch and their presence lie there.
struct Base {
    urls: &'static [&'static str],
    world: World,
    owner: Fixture,
    ids: [RootId; 2],
}

/// Over three places.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::new(&URLS))
}

/// All at one place.
fn alone() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::new(&URLS[..1]))
}

impl Base {
    fn new(urls: &'static [&'static str]) -> Self {
        let (world, owner) = (World::default(), Fixture::new());
        let vault = world.create(&owner, urls, (2, 3));
        let second = add_key(&vault, Role::Writer);
        let ids = [store_small(&vault, 1), store_small(&vault, 2)];
        let garbage = back_up(&vault, &[("garbage", &noise(9, 9_000))]).unwrap().0;
        let other = world.open(&second, urls).unwrap();
        back_up(&other, &[("w", &noise(8, 3_000))]).unwrap();
        // Reads what a writer has stored, and says so to others.
        assert_eq!(lines(&scrub(&world.open(&owner, urls).unwrap()).problems), "");
        let run = ingest(&other);
        vault.forget(&[garbage]).unwrap();
        let report = vault.gc(&GcOptions::default()).unwrap();
        assert!(report.waiting_packs > 0, "{report:?}");
        let copy = world.copy();
        drop(run);
        Base {
            urls,
            world: copy,
            owner,
            ids,
        }
    }

    /// The one that the owner opens the vault with.
    fn own_key(&self) -> Name {
        let vault = self.world.open(&self.owner.copy(), self.urls).unwrap();
        let slots = vault.keys().unwrap().0;
        Name::key(&slots.iter().find(|slot| slot.current).unwrap().id)
    }
}

pub(crate) fn scrub_and_repair(vault: &Vault) -> ScrubReport {
    let options = ScrubOptions {
        share: 1.0,
        repair: true,
        progress: std::sync::Arc::default(),
        cancel: Cancel::default(),
    };
    vault.scrub(&options).unwrap()
}

/// One object at one place, and what is done to it.
struct Case<'a> {
    base: &'a Base,
    url: &'static str,
    name: &'a Name,
    damage: Damage,
}

impl Case<'_> {
    /// A copy of everything with the damage done.
    fn world(&self) -> World {
        let world = self.base.world.copy();
        let store = world.store(self.url);
        let mut bytes = store.contents()[self.name].to_vec();
        match self.damage {
            Damage::Delete => {
                return {
                    store.remove(self.name);
                    world
                };
            }
            Damage::Truncate => bytes.truncate(bytes.len() / 2),
            Damage::Flip => {
                let at = bytes.len() * 3 / 5;
                bytes[at] ^= 4;
            }
        }
        store.overwrite(self.name, bytes.into());
        world
    }

    /// The damaged place first.
    fn open(&self, world: &World, fixture: &Fixture) -> Vault {
        let other = self.base.urls.iter().copied().find(|url| *url != self.url);
        let urls: Vec<&str> = std::iter::once(self.url).chain(other).collect();
        world.open(fixture, &urls).unwrap()
    }

    fn assert_readable(&self, vault: &Vault, case: &str) {
        for (id, seed) in self.base.ids.iter().zip([1, 2]) {
            assert!(files(vault, id).unwrap() == small_files(seed), "{case}");
        }
    }

    /// Does this with a freshly opened vault; whether something was mended.
    fn meet(&self, work: Work, world: &World, fixture: &Fixture, case: &str) -> bool {
        let vault = self.open(world, fixture);
        match work {
            Work::Read => self.assert_readable(&self.open(world, &fixture.elsewhere()), case),
            Work::BackUp => {
                let id = store_small(&vault, 3);
                assert!(files(&vault, &id).unwrap() == small_files(3), "{case}");
            }
            Work::Check => {
                // What unlocking found at the place that was named first is told, and nothing else.
                let found = lines(&check(&vault).problems);
                let is_told = found.lines().all(|line| line.starts_with(self.name.as_str()));
                assert!(is_told, "{case}: {found}");
            }
            Work::Scrub => assert_eq!(lines(&scrub(&vault).problems), "", "{case}"),
            Work::ScrubAndRepair => {
                let report = scrub_and_repair(&vault);
                assert_eq!(lines(&report.problems), "", "{case}");
                return true;
            }
            Work::Repair => {
                let repaired = repair(&vault);
                assert_eq!(lines(&repaired.problems), "", "{case}");
                return repaired.mended_objects + repaired.mended_packs > 0;
            }
            Work::RepairIndex => assert_eq!(lines(&vault.repair_index().unwrap().problems), "", "{case}"),
            Work::Gc => assert!(vault.gc(&GcOptions::default()).unwrap().waiting_packs > 0, "{case}"),
        }
        false
    }

    fn run(&self, works: &[Work]) {
        let case = format!("{:?} {} at {}, then {works:?}", self.damage, self.name, self.url);
        let (world, fixture) = (self.world(), self.base.owner.copy());
        // A presence means what its name says; nothing in it is relied upon. A ledger goes with the gc that carries it over.
        let is_presence = matches!(self.name.kind(), Kind::Writer(..));
        let is_carried = matches!(self.name.kind(), Kind::Ledger(..)) && works.contains(&Work::Gc);
        let may_go = is_presence || is_carried;
        let before = &self.base.world.store(self.url).contents()[self.name];
        let is_as_before = || {
            let now = world.store(self.url).contents().get(self.name).cloned();
            let fits =
                |now: Bytes| now.len() == before.len() && unsigned(self.name, &now) == unsigned(self.name, before);
            now.is_some_and(fits)
        };
        let mut is_mended = false;
        for work in works {
            is_mended |= self.meet(*work, &world, &fixture, &case);
        }
        self.assert_readable(&self.open(&world, &fixture), &case);
        if !is_mended {
            assert!(world.store(self.url).contents().get(self.name) != Some(before));
            let vault = self.open(&world, &fixture);
            let report = scrub(&vault);
            assert_eq!(lines(&report.problems), "", "{case}");
            assert!(may_go || is_noticed(&vault, &report), "{case}: nobody noticed");
            assert_eq!(lines(&scrub_and_repair(&vault).problems), "", "{case}");
        }
        assert!(may_go || is_as_before(), "{case}: other bytes");
        let vault = self.open(&world, &fixture);
        let report = scrub(&vault);
        let troubles = vault.troubles();
        assert!(!is_noticed(&vault, &report), "{case}: {report:?} {troubles:?}");
        assert_whole(&vault);
        self.assert_readable(&vault, &case);
    }
}

/// Whether a scrub, the only thing that this run has done, found anything that is not as it should be.
fn is_noticed(vault: &Vault, report: &ScrubReport) -> bool {
    report.rotten > 0 || !vault.troubles().is_none()
}

fn names(url: &str, prefix: Prefix) -> Vec<Name> {
    let objects = base().world.store(url).contents();
    objects.into_keys().filter(|name| prefix.covers(name)).collect()
}

fn matrix(url: &'static str, name: &Name) {
    matrix_at(base(), url, name);
}

fn matrix_at(base: &Base, url: &'static str, name: &Name) {
    for damage in DAMAGES {
        let case = Case {
            base,
            url,
            name,
            damage,
        };
        RUNS.into_iter().for_each(|works| case.run(works));
    }
}

fn matrix_of_one(prefix: Prefix) {
    matrix(URLS[1], names(URLS[1], prefix).first().unwrap());
}

#[test]
fn the_header() {
    matrix(URLS[1], &Name::header());
}

#[test]
fn a_key_slot() {
    matrix(URLS[1], &base().own_key());
}

#[test]
fn a_root() {
    matrix(URLS[1], &root_of(&*base().world.store(URLS[1]), &base().ids[0]));
}

#[test]
fn a_list_of_verified_packs() {
    matrix_of_one(Prefix::Verified);
}

#[test]
fn a_presence() {
    matrix_of_one(Prefix::Writers);
}

#[test]
fn an_epoch() {
    matrix_of_one(Prefix::Epochs);
}

#[test]
fn a_list_of_places() {
    matrix_of_one(Prefix::Config);
}

/// The shards of the largest or the smallest pack, with the places where they lie.
fn shards(of_the_largest: bool) -> Vec<(&'static str, Name)> {
    let all: Vec<(&'static str, Name, usize, PackId)> = URLS
        .into_iter()
        .flat_map(|url| {
            base()
                .world
                .store(url)
                .contents()
                .into_iter()
                .filter_map(move |(name, bytes)| match name.kind() {
                    Kind::Shard(shard) => Some((url, name, bytes.len(), shard.pack)),
                    _ => None,
                })
        })
        .collect();
    let key =
        |(_, _, bytes, _): &&(&str, Name, usize, PackId)| if of_the_largest { *bytes } else { usize::MAX - bytes };
    let chosen = all.iter().max_by_key(key).unwrap().3;
    let found = all.into_iter().filter(|(.., pack)| *pack == chosen);
    found.map(|(url, name, ..)| (url, name)).collect()
}

#[test]
fn a_shard_of_data() {
    let shards = shards(true);
    assert_eq!(shards.len(), 3);
    shards.iter().for_each(|(url, name)| matrix(url, name));
}

#[test]
fn a_shard_of_trees() {
    let (url, name) = &shards(false)[0];
    matrix(url, name);
}

/// One object of each kind, and its spare copy.
fn matrix_alone(is_of: impl Fn(&Name) -> bool) {
    let objects = alone().world.store(URLS[0]).contents();
    let mut chosen: Vec<Name> = objects.into_keys().filter(is_of).collect();
    chosen.dedup_by_key(|name| (name.spare_number(), std::mem::discriminant(&name.kind())));
    assert!(!chosen.is_empty());
    chosen.iter().for_each(|name| matrix_at(alone(), URLS[0], name));
}

#[test]
fn originals_at_the_only_place() {
    // Presences have no spare copies: bits of them may rot, since what they say is in their names.
    matrix_alone(|name| name.spare_number() == 0 && !matches!(name.kind(), Kind::Key(_) | Kind::Writer(..)));
    matrix_at(alone(), URLS[0], &alone().own_key());
}

#[test]
fn spare_copies_at_the_only_place() {
    matrix_alone(|name| name.spare_number() > 0);
}

/// A place that does not say which it is counts as absent, whatever else it holds: it is replaced, not trusted.
#[test]
fn the_mark_of_a_place() {
    for damage in DAMAGES {
        let case = Case {
            base: base(),
            url: URLS[1],
            name: &Name::place(),
            damage,
        };
        let (world, fixture) = (case.world(), case.base.owner.copy());
        let vault = case.open(&world, &fixture);
        case.assert_readable(&vault, "mark");
        if !matches!(damage, Damage::Delete) {
            // What is left of a mark, beside the vault's header and where the list expects it, is written anew.
            assert!(vault.absent_places().iter().all(Option::is_none), "{damage:?}");
            assert_eq!(repair(&vault).mended_objects, 1, "{damage:?}");
            assert_eq!(repair(&vault).mended_objects, 0, "{damage:?}");
            let vault = world.open(&fixture, &[URLS[1]]).unwrap();
            assert!(
                vault.absent_places().iter().all(Option::is_none) && vault.notes().is_empty(),
                "{damage:?}"
            );
            continue;
        }
        assert!(vault.absent_places()[1].is_some(), "{damage:?}");
        let findings = vault.doctor().unwrap();
        let is_named = |what: &str, next: &str| what.contains(URLS[1]) && next.contains("place replace");
        assert!(
            findings
                .iter()
                .any(|found| found.grade == Grade::Owed && is_named(&found.what, &found.next)),
            "{damage:?} {findings:?}"
        );
        vault.gc(&GcOptions::default()).unwrap();
        let id = store_small(&vault, 3);
        let old = vault.find_place(URLS[1]).unwrap();
        let vault = vault
            .change_places(change(vec![world.new_place("mem://d")], vec![old], None))
            .unwrap();
        repair(&vault);
        assert_whole(&vault);
        world.take(URLS[0]);
        let vault = world.open(&fixture.elsewhere(), &["mem://d"]).unwrap();
        case.assert_readable(&vault, "without the first place");
        assert!(files(&vault, &id).unwrap() == small_files(3));
    }
}
