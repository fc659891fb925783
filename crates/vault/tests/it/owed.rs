//! What places lack is told by every look, whatever it is, and a look after `repair` finds nothing.

use std::sync::Arc;

use drystone_format::keys::Role;
use drystone_store::{Name, Prefix};
use drystone_vault::{Cancel, GcOptions, Grade, RepairOptions, ScrubOptions, Vault};

use crate::spread_world::{World, assert_whole, store_files};
use crate::support::{Fixture, add_key, check, scrub};

const URLS: [&str; 3] = ["mem://a", "mem://b", "mem://c"];

/// A vault with small objects of all kinds, and the names of those at one of its places.
fn small_objects(world: &World, fixture: &Fixture) -> Vec<Name> {
    let vault = world.create(fixture, &URLS, (2, 3));
    let first = store_files(&vault, 1);
    store_files(&vault, 2);
    add_key(&vault, Role::Writer);
    vault.forget(&[first]).unwrap();
    vault.gc(&GcOptions::default()).unwrap();
    let names = world.store("mem://b").contents().into_keys();
    // A place without its mark is no place: that is told otherwise.
    let is_small =
        |name: &Name| !Prefix::Shards.covers(name) && !Prefix::Writers.covers(name) && *name != Name::place();
    names.filter(is_small).collect()
}

fn assert_told(vault: &Vault, name: &Name) {
    let plan = vault.redundancy().unwrap();
    let lacking: Vec<_> = plan
        .lacking
        .iter()
        .map(|one| (&*one.place, &one.objects.named))
        .collect();
    assert_eq!(lacking, [("mem://b", &vec![name.to_string()])]);
    let findings = vault.doctor().unwrap();
    let is_told = findings.iter().any(|finding| {
        finding.grade == Grade::Owed && finding.what.contains(name.as_str()) && finding.next.contains("drystone repair")
    });
    assert!(is_told, "{name}: {findings:?}");
    assert_eq!(check(vault).redundancy.owed_objects(), 1, "{name}");
}

#[test]
fn a_small_object_that_a_place_lacks_is_told_by_every_look() {
    let (world, fixture) = (World::default(), Fixture::new());
    let names = small_objects(&world, &fixture);
    assert!(names.len() >= 7, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        let store = world.store("mem://b");
        store.remove(name);
        let vault = world.open(&fixture, &["mem://a"]).unwrap();
        assert_told(&vault, name);
        let repaired = match number % 2 {
            0 => {
                assert_eq!(scrub(&vault).missing, 1, "{name}");
                vault.repair(&RepairOptions::default()).unwrap().mended_objects
            }
            _ => {
                let options = ScrubOptions {
                    share: 1.0,
                    repair: true,
                    progress: Arc::default(),
                    cancel: Cancel::default(),
                };
                vault.scrub(&options).unwrap().copied
            }
        };
        assert_eq!(repaired, 1, "{name}");
        let vault = world.open(&fixture, &["mem://a"]).unwrap();
        assert_whole(&vault);
        assert_eq!(vault.redundancy().unwrap().lacking, []);
    }
}

#[test]
fn a_small_object_of_another_length_is_told_too() {
    let (world, fixture) = (World::default(), Fixture::new());
    for name in small_objects(&world, &fixture) {
        let store = world.store("mem://b");
        let bytes = store.contents()[&name].clone();
        store.overwrite(&name, bytes.slice(..bytes.len() - 1));
        let vault = world.open(&fixture, &["mem://a"]).unwrap();
        assert_told(&vault, &name);
        vault.repair(&RepairOptions::default()).unwrap();
        assert_eq!(world.store("mem://b").contents()[&name].len(), bytes.len(), "{name}");
    }
}
