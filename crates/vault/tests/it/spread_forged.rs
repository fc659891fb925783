//! Forged shards: garbage with right tags, made by who has a writer's key and one place (or as many as may be lost). All
//! that is stored is read right, the place is named, and repair mends it. With the cache and without.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::keys::{Role, Secrets};
use drystone_format::shard::{Maker, Shape, ShardKeys, open_shard, seal_shard};
use drystone_store::spread::{Access, Judge, PlaceTroubles, Spread, SpreadOptions, SpreadPlace};
use drystone_store::{Kind, Memory, Name, Prefix, Range, ShardId, Store};
use drystone_vault::{Grade, Vault};

use crate::altered::{Alter, Altered};
use crate::spread_damage::scrub_and_repair;
use crate::spread_world::{World, assert_whole, repair, small_files, store_small};
use crate::support::{Fixture, add_key, check, files, lines, noise, scrub, secrets};

const FIVE: [&str; 5] = ["mem://a", "mem://b", "mem://c", "mem://d", "mem://e"];

/// A vault with a snapshot by its owner and one by a writer whose key is stolen.
struct Scene {
    world: World,
    urls: &'static [&'static str],
    owner: Fixture,
    writer: Fixture,
    stolen: Secrets,
    /// With the seeds of their files: so many that a read of all of them needs a shard of each place, however they lie.
    ids: Vec<(drystone_format::RootId, u64)>,
}

impl Scene {
    fn new(urls: &'static [&'static str], spread: (u8, u8)) -> Self {
        let (world, owner) = (World::default(), Fixture::new());
        let vault = world.create(&owner, urls, spread);
        let writer = add_key(&vault, Role::Writer);
        let other = world.open(&writer, urls).unwrap();
        let ids = (1..=16).map(|seed| {
            let by = if seed % 2 == 1 { &vault } else { &other };
            (store_small(by, seed), seed)
        });
        let ids = ids.collect();
        let stolen = secrets(&writer, &world.store(urls[0]));
        assert_eq!(stolen.role(), Role::Writer);
        world.open(&owner, urls).unwrap().loss_epoch().unwrap();
        Self {
            world,
            urls,
            owner,
            writer,
            stolen,
            ids,
        }
    }

    fn keys(&self) -> ShardKeys {
        ShardKeys::new(&self.stolen)
    }

    fn open(&self, fixture: &Fixture) -> Vault {
        self.world.open(fixture, self.urls).unwrap()
    }

    /// Changes each shard at a place; gives it the shard, how its pack is cut, and what it holds.
    fn change(&self, url: &str, change: impl Fn(ShardId, Shape, Vec<u8>) -> Vec<(ShardId, Vec<u8>)>) {
        let store = self.world.store(url);
        for (name, bytes) in store.contents() {
            if let Kind::Shard(id) = name.kind() {
                let opened = open_shard(&self.keys(), id.pack, id.needed, id.number, &bytes).unwrap();
                for (id, object) in change(id, opened.shape, opened.payload) {
                    store.overwrite(&Name::shard(&id), object.into());
                }
            }
        }
    }

    /// Puts garbage with right tags, signed with the stolen key, in the place of all shards at a place.
    fn forge(&self, url: &str) {
        let keys = self.keys();
        self.change(url, |id, shape, payload| {
            let garbage = noise(u64::from(id.number) + 77, payload.len());
            vec![(id, seal_shard(&keys, &shape, id.number, &garbage).unwrap())]
        });
    }

    fn assert_readable(&self, vault: &Vault, what: &str) {
        for (id, seed) in &self.ids {
            assert!(files(vault, id).unwrap() == small_files(*seed), "{what}");
        }
    }

    /// Everything reads right on machines that know the vault and on one that does not; the liars alone are named; what they
    /// did is mended.
    fn assert_withstood(&self, liars: &[&str], what: &str) {
        for fixture in [self.owner.copy(), self.owner.elsewhere()] {
            let vault = self.open(&fixture);
            self.assert_readable(&vault, what);
            assert_forgers(&vault, liars, what, false);
            let report = check(&vault);
            assert_eq!(lines(&report.problems), "", "{what}");
        }
        let fixture = self.owner.elsewhere();
        let vault = self.open(&fixture);
        let report = scrub(&vault);
        assert!(report.rotten > 0 && report.mended == 0, "{what}: {report:?}");
        assert_eq!(lines(&report.problems), "", "{what}");
        assert_forgers(&vault, liars, what, true);
        // The next run knows it, and says what to do.
        let vault = self.open(&fixture);
        let findings = vault.doctor().unwrap();
        for liar in liars {
            let is_it = |finding: &drystone_vault::Finding| {
                finding.grade == Grade::Owed && finding.what.contains(liar) && finding.what.contains("forged")
            };
            assert!(findings.iter().any(is_it), "{what}: {findings:?}");
        }
        for mend in [
            |vault: &Vault| drop(scrub_and_repair(vault)),
            |vault: &Vault| drop(repair(vault)),
        ] {
            let (world, fixture) = (self.world.copy(), fixture.copy());
            let open = || world.open(&fixture, self.urls).unwrap();
            mend(&open());
            let vault = open();
            let report = scrub(&vault);
            assert_eq!((report.rotten, lines(&report.problems)), (0, String::new()), "{what}");
            let troubles = vault.troubles();
            assert!(troubles.is_none(), "{what}: {troubles:?}");
            assert_whole(&vault);
            self.assert_readable(&vault, what);
        }
    }
}

/// Asserts that of the places these gave forged shards, and no other; all of them, or some.
fn assert_forgers(vault: &Vault, liars: &[&str], what: &str, all: bool) {
    let troubles = vault.troubles();
    // What does not fit the length that is known of a pack is altered as far as a read can tell.
    let is_bad = |place: &PlaceTroubles| place.forged.count > 0 || (!all && place.unsound.count > 0);
    let forgers = troubles.places.iter().filter(|place| is_bad(place));
    let forgers: Vec<&str> = forgers.map(|place| place.place.as_str()).collect();
    let is_right = forgers.iter().all(|forger| liars.contains(forger));
    assert!(is_right && !forgers.is_empty(), "{what}: {forgers:?} are named");
    assert!(!all || forgers.len() == liars.len(), "{what}: {forgers:?} are named");
}

#[test]
fn garbage_with_right_tags_at_one_place_of_three() {
    for url in &FIVE[..3] {
        let scene = Scene::new(&FIVE[..3], (2, 3));
        scene.forge(url);
        scene.assert_withstood(&[url], url);
    }
}

#[test]
fn garbage_at_two_places_of_five() {
    let scene = Scene::new(&FIVE, (3, 5));
    scene.forge(FIVE[1]);
    scene.forge(FIVE[3]);
    scene.assert_withstood(&[FIVE[1], FIVE[3]], "3/5");
}

#[test]
fn garbage_at_two_of_three_mirrors() {
    let scene = Scene::new(&FIVE[..3], (1, 3));
    scene.forge(FIVE[0]);
    scene.forge(FIVE[2]);
    scene.assert_withstood(&[FIVE[0], FIVE[2]], "1/3");
}

/// A footer that states another length makes everything else look cut short.
#[test]
fn shards_of_another_length() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let keys = scene.keys();
    scene.change(FIVE[0], |id, shape, _| {
        let shape = Shape::new(id.pack, shape.pack_bytes() + 1000, id.needed).unwrap();
        let garbage = noise(5, shape.payload_bytes(id.number) as usize);
        vec![(id, seal_shard(&keys, &shape, id.number, &garbage).unwrap())]
    });
    scene.assert_withstood(&[FIVE[0]], "another length");
}

/// Many inventions beside sound shards: other numbers, other k, other lengths.
#[test]
fn invented_shards_beside_a_forged_one() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let keys = scene.keys();
    scene.change(FIVE[2], |id, shape, _| {
        let forged = |needed: u8, number: u8, more: u64| {
            let shape = Shape::new(id.pack, shape.pack_bytes() + more, needed).unwrap();
            let garbage = noise(number.into(), shape.payload_bytes(number) as usize);
            let id = ShardId { needed, number, ..id };
            (id, seal_shard(&keys, &shape, number, &garbage).unwrap())
        };
        let mut all = vec![forged(id.needed, id.number, 0)];
        all.extend((3..9).map(|number| forged(2, number, 0)));
        all.extend((20..24).map(|number| forged(2, number, 8)));
        all.extend((0..3).map(|number| forged(1, number, 0)));
        all
    });
    scene.assert_withstood(&[FIVE[2]], "inventions");
}

/// A tail that is well-formed and signed with the stolen key, in the place of the real one: what it leaves out must not be
/// missing, on a machine that learns what lies where from it.
#[test]
fn a_forged_tail_is_not_believed() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let keys = scene.keys();
    for url in &FIVE[..3] {
        let world = scene.world.copy();
        let copy = Scene {
            world,
            urls: scene.urls,
            owner: scene.owner.copy(),
            writer: scene.writer.copy(),
            stolen: scene.stolen.clone(),
            ids: scene.ids.clone(),
        };
        copy.change(url, |id, shape, mut payload| {
            let pack = crate::support::craft_pack(&scene.stolen, drystone_format::seal::PackKind::Data, &[]);
            let tail = &pack.bytes[8..];
            if let Some(start) = payload.len().checked_sub(tail.len()) {
                payload[start..].copy_from_slice(tail);
            }
            vec![(id, seal_shard(&keys, &shape, id.number, &payload).unwrap())]
        });
        let vault = copy.open(&copy.owner.elsewhere());
        copy.assert_readable(&vault, url);
        assert_eq!(lines(&check(&vault).problems), "", "{url}");
    }
}

/// Other packs' shards under a wrong name, and those of another vault, fail at their tags: they are altered, not forged.
#[test]
fn shards_of_other_packs_and_vaults_are_not_taken() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let store = scene.world.store(FIVE[1]);
    let shards: Vec<(Name, Bytes)> = store
        .contents()
        .into_iter()
        .filter(|(name, _)| Prefix::Shards.covers(name))
        .collect();
    let (name, own) = &shards[0];
    let Kind::Shard(id) = name.kind() else { unreachable!() };
    let opened = open_shard(&scene.keys(), id.pack, id.needed, id.number, own).unwrap();
    let stranger = Secrets::generate(&mut crate::support::random(), scene.stolen.vault).unwrap();
    let foreign = seal_shard(&ShardKeys::new(&stranger), &opened.shape, id.number, &opened.payload).unwrap();
    let mut old = own.to_vec();
    *old.last_mut().unwrap() = 0;
    for other in [shards[1].1.clone(), foreign.into(), old.into()] {
        store.overwrite(name, other);
        let vault = scene.open(&scene.owner.elsewhere());
        scene.assert_readable(&vault, "foreign");
        let report = scrub(&vault);
        assert_eq!((report.rotten, lines(&report.problems)), (1, String::new()));
        assert!(vault.troubles().places[1].unsound.count > 0);
        scrub_and_repair(&vault);
        let mended = store.contents()[name].clone();
        let mended = open_shard(&scene.keys(), id.pack, id.needed, id.number, &mended).unwrap();
        assert!(mended.payload == opened.payload && matches!(mended.maker, Maker::Owner(_)));
        store.overwrite(name, own.clone());
    }
}

/// A sound shard that the wrong credential signed would hide a forged one among its like: it is made anew.
#[test]
fn a_signature_that_does_not_count_is_mended() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let keys = scene.keys();
    scene.change(FIVE[0], |id, shape, payload| {
        vec![(id, seal_shard(&keys, &shape, id.number, &payload).unwrap())]
    });
    // Those of the writer's own packs are his to sign.
    let vault = scene.open(&scene.owner.elsewhere());
    scene.assert_readable(&vault, "signed by another");
    let report = scrub(&vault);
    assert!(report.rotten > 0, "{report:?}");
    assert_forgers(&vault, &[FIVE[0]], "signed by another", true);
    let report = scrub_and_repair(&vault);
    assert_eq!(report.rotten, report.mended);
    assert_eq!(scrub(&scene.open(&scene.owner.elsewhere())).rotten, 0);
}

/// What a writer may not sign he leaves alone; what is only to be copied he copies, signature included.
#[test]
fn a_writer_mends_his_own_packs_only() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    for name in scene
        .world
        .store(FIVE[1])
        .contents()
        .into_keys()
        .filter(|name| Prefix::Shards.covers(name))
    {
        scene.world.store(FIVE[1]).remove(&name);
    }
    let repaired = repair(&scene.open(&scene.writer));
    assert!(
        repaired.mended_packs > 0 && repaired.problems.count() > 0,
        "{repaired:?}"
    );
    assert!(
        lines(&repaired.problems).contains("owner"),
        "{}",
        lines(&repaired.problems)
    );
    let vault = scene.open(&scene.owner);
    assert!(vault.redundancy().unwrap().owed_packs > 0);
    assert_eq!(scrub(&vault).rotten, 0, "nothing was signed that does not count");
    assert_eq!(lines(&repair(&vault).problems), "");
    assert_whole(&scene.open(&scene.owner));
}

/// What was forged must not get an honest signature: repair makes nothing from it.
#[test]
fn repair_does_not_launder_what_is_forged() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    scene.forge(FIVE[0]);
    let store = scene.world.store(FIVE[1]);
    let before = store.contents();
    let lost: Vec<Name> = before
        .keys()
        .filter(|name| Prefix::Shards.covers(name))
        .take(1)
        .cloned()
        .collect();
    lost.iter().for_each(|name| store.remove(name));
    repair(&scene.open(&scene.owner.elsewhere()));
    let after = store.contents();
    assert!(
        lost.iter()
            .all(|name| after.get(name).is_none_or(|made| *made == before[name]))
    );
}

/// A place that gives whole objects as they are and ranges of them forged.
#[derive(Debug)]
struct TwoFaced {
    sound: Arc<Memory>,
    forged: Memory,
}

#[async_trait]
impl Alter for TwoFaced {
    fn inner(&self) -> &Memory {
        &self.sound
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        match range {
            Range::All => self.sound.get(name, range).await,
            _ => self.forged.get(name, range).await,
        }
    }
}

#[test]
fn a_place_with_two_faces_is_read_around() {
    for url in &FIVE[..3] {
        let scene = Scene::new(&FIVE[..3], (2, 3));
        let sound = Arc::new(Memory::clone(&scene.world.store(url)));
        scene.forge(url);
        let forged = Memory::clone(&scene.world.store(url));
        scene.world.show(url, |_| Arc::new(Altered(TwoFaced { sound, forged })));
        for fixture in [scene.owner.copy(), scene.owner.elsewhere()] {
            scene.assert_readable(&scene.open(&fixture), url);
        }
    }
}

/// Takes every small object for what it should be.
struct Trusting;

impl Judge for Trusting {
    fn is_sound(&self, _: &Name, _: &[u8]) -> bool {
        true
    }
}

/// A pack that its own writer made wrong is damage of that pack: no place is blamed.
#[test]
fn nobody_is_blamed_for_what_a_writer_did() {
    let scene = Scene::new(&FIVE[..3], (2, 3));
    let vault = scene.open(&scene.owner);
    let wrong = crate::support::craft_pack(
        &scene.stolen,
        drystone_format::seal::PackKind::Data,
        &[(
            b"other bytes".to_vec(),
            vec![drystone_format::pack::PackedChunk {
                id: drystone_format::ChunkId([1; 32]),
                bytes: 11,
            }],
        )],
    );
    let pack: PackId = wrong.id;
    let places = vault.places().iter().map(|place| SpreadPlace {
        id: place.id,
        access: Access::Present(scene.world.store(&place.url)),
        weight: NonZeroU32::new(place.weight),
        cold: false,
        append_only: false,
    });
    let spread = Spread::new(SpreadOptions {
        needed: 2,
        total: 3,
        places: places.collect(),
        keys: scene.keys(),
        judge: Arc::new(Trusting),
        hedge_after: Duration::from_secs(2),
        rest: Duration::from_secs(30),
    });
    crate::support::runtime()
        .block_on(spread.unwrap().put(&Name::pack(&pack), wrong.bytes.into()))
        .unwrap();
    let vault = scene.open(&scene.owner.elsewhere());
    let report = scrub(&vault);
    assert_eq!(report.problems.count(), 1, "{}", lines(&report.problems));
    assert!(vault.troubles().places.iter().all(|place| place.unsound.count == 0));
    scene.assert_readable(&vault, "beside a wrong pack");
}
