//! Every bit of every object of a tiny vault, flipped one at a time: at one place it is detected and costs at most the
//! files that it hits; where the vault is spread, even at one place, it costs nothing and is mended (I6, I8).

use std::sync::OnceLock;

use bytes::Bytes;
use drystone_store::{Kind, Memory, Name};

use crate::damage::{Damage, Files, World};
use crate::spread_damage::scrub_and_repair;
use crate::spread_world::{self, URLS, assert_whole, unsigned};
use crate::support::{Fixture, back_up, check, files, lines, noise, scrub};

/// Bits of which one is flipped in the runs of every day: a prime, so that all positions within a byte have their turn.
const STRIDE: usize = 401;

/// Of objects with padding one bit in so many, a prime, as most of them are padding.
const PADDED: usize = 31;

/// Every `stride`th bit of all objects, taken as one string.
fn bits(store: &Memory, stride: usize) -> Vec<(Name, usize)> {
    let objects = store.contents().into_iter();
    let all = objects.flat_map(|(name, bytes)| {
        let step = if bytes.len() > 16 << 10 { PADDED } else { 1 };
        (0..bytes.len() * 8).step_by(step).map(move |bit| (name.clone(), bit))
    });
    all.step_by(stride).collect()
}

/// A tiny vault at one place.
fn one_place() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let file = |name: &str, seed| (name.to_owned(), noise(seed, 150));
        let (a, b): (Files, Files) = (vec![file("a", 1), file("c", 2)], vec![file("b", 3)]);
        World::new(&a, &b, &noise(4, 100))
    })
}

fn flip_at_one_place(stride: usize) {
    let world = one_place();
    for (name, bit) in bits(&world.store, stride) {
        let damage = Damage::Bit(bit);
        let (fixture, store) = world.damaged(&name, damage);
        let mut is_noticed = false;
        // A key slot that is damaged opens nothing: then the other owner's does.
        let vault = match fixture.open(store.clone()) {
            Ok(vault) => vault,
            Err(error) => {
                assert!(matches!(name.kind(), Kind::Key(_)), "{damage:?} {name}: {error}");
                is_noticed = true;
                world.second().open(store).unwrap()
            }
        };
        is_noticed |= !world.read_all(&vault, &name, damage).is_empty();
        let said = format!(
            "{}{}{}",
            vault.warnings().join("\n"),
            lines(&check(&vault).problems),
            lines(&scrub(&vault).problems)
        );
        is_noticed |= said.contains(name.as_str());
        assert!(is_noticed, "{damage:?} {name}: nobody noticed; {said}");
    }
}

struct Spread {
    urls: &'static [&'static str],
    world: spread_world::World,
    owner: Fixture,
    id: drystone_format::RootId,
}

fn tiny_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("a", noise(1, 150)), ("b", noise(2, 100))]
}

/// A tiny vault, 2 of 3 over these places.
fn spread(urls: &'static [&'static str]) -> Spread {
    let (world, owner) = (spread_world::World::default(), Fixture::new());
    let vault = world.create(&owner, urls, (2, 3));
    let content = tiny_files();
    let borrowed: Vec<(&str, &[u8])> = content.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
    let id = back_up(&vault, &borrowed).unwrap().0;
    Spread { urls, world, owner, id }
}

fn flip_in_a_spread(spread: &Spread, stride: usize) {
    let Spread { urls, world, owner, id } = spread;
    let expected: Vec<(String, Vec<u8>)> = tiny_files()
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    for url in *urls {
        let sound = world.store(url).contents();
        for (name, bit) in bits(&world.store(url), stride) {
            let case = format!("bit {bit} of {name} at {url}");
            let (world, fixture) = (world.copy(), owner.copy());
            let mut bytes = sound[&name].to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            world.store(url).overwrite(&name, bytes.into());
            let vault = world
                .open(&fixture, urls)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(files(&vault, id).unwrap() == expected, "{case}");
            let report = scrub_and_repair(&vault);
            assert_eq!(lines(&report.problems), "", "{case}");
            assert!(
                report.rotten > 0 && report.rotten == report.mended,
                "{case}: {report:?}"
            );
            let now = world.store(url).contents();
            let is_same = |(one, other): ((&Name, &Bytes), (&Name, &Bytes))| {
                one.0 == other.0 && unsigned(one.0, one.1) == unsigned(other.0, other.1)
            };
            assert!(
                now.len() == sound.len() && now.iter().zip(&sound).all(is_same),
                "{case}"
            );
        }
    }
    assert_whole(&world.open(owner, urls).unwrap());
}

#[test]
fn a_flipped_bit_at_one_place_costs_at_most_the_files_that_it_hits() {
    flip_at_one_place(STRIDE);
}

#[test]
fn a_flipped_bit_at_one_of_three_places_costs_nothing() {
    flip_in_a_spread(&spread(&URLS), STRIDE);
}

#[test]
fn a_flipped_bit_at_the_only_place_of_a_spread_costs_nothing() {
    flip_in_a_spread(&spread(&URLS[..1]), STRIDE);
}

#[test]
#[ignore = "half an hour: every single bit, and one in 31 of packs"]
fn every_bit_at_one_place() {
    flip_at_one_place(1);
}

#[test]
#[ignore = "half an hour: every single bit, and one in 31 of packs"]
fn every_bit_at_one_of_three_places() {
    flip_in_a_spread(&spread(&URLS), 1);
}

#[test]
#[ignore = "half an hour: every single bit, and one in 31 of packs"]
fn every_bit_at_the_only_place_of_a_spread() {
    flip_in_a_spread(&spread(&URLS[..1]), 1);
}
