//! Reading at random what is damaged or made up: an error that names the object, for what it concerns alone.

use std::sync::Arc;
use std::time::Duration;

use drystone_format::ChunkId;
use drystone_format::limits::RECIPE_DEPTH_MAX;
use drystone_format::recipe::{Part, Recipe};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Delay, Fail, Memory, Name, Op, Prefix, Store};
use drystone_vault::{Error, FrameSize, Reader};
use parking_lot::Mutex;

use crate::random::{Stretch, chunks_of, store_files};
use crate::spread_world::{URLS, World};
use crate::support::{Fixture, noise};

/// Flips a bit of an object.
fn flip(store: &Memory, name: &Name, at: usize) {
    let mut bytes = store.contents()[name].to_vec();
    bytes[at] ^= 1;
    store.overwrite(name, bytes.into());
}

#[test]
fn a_damaged_frame_costs_its_range_and_no_other() {
    for is_far in [false, true] {
        let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = fixture.create(memory.clone()).unwrap();
        let files = [vec![Stretch::Bytes(noise(1, 1 << 20))]];
        let (recipe, model) = store_files(&vault, FrameSize::new(64 << 10), &files).remove(0);
        let reader = vault.reader().unwrap();
        let chunks = chunks_of(&reader, &recipe);
        let frame_of = |id: &ChunkId| reader.frame_of(id).unwrap().unwrap();
        let hurt = frame_of(&chunks[chunks.len() / 2].1);
        let name = Name::pack(&hurt.pack);
        flip(&memory, &name, hurt.offset as usize + 100);
        let store: Arc<dyn Store> = match is_far {
            true => Arc::new(Delay::new(memory.clone(), Duration::ZERO)),
            false => memory.clone(),
        };
        let vault = fixture.elsewhere().open(store).unwrap();
        let again = vault.reader().unwrap();
        let file = again.file(&recipe).unwrap();
        let mut lost = 0;
        for (start, id, bytes) in &chunks {
            let mut out = vec![0; *bytes as usize];
            match file.read_at(*start, &mut out) {
                Ok(count) => {
                    assert_ne!(frame_of(id), hurt);
                    assert_eq!(&out[..count], &model[*start as usize..][..*bytes as usize]);
                }
                Err(error) => {
                    assert_eq!(frame_of(id), hurt);
                    assert!(
                        error.is_damage() && error.to_string().contains(name.as_str()),
                        "{error}"
                    );
                    lost += 1;
                }
            }
        }
        assert!((5..60).contains(&lost), "{lost} of {}", chunks.len());
        let mut all = vec![0; model.len()];
        assert!(
            file.read_at(0, &mut all).is_err(),
            "a range with damage in it is an error"
        );
        let ids: Vec<ChunkId> = chunks.iter().map(|(_, id, _)| *id).collect();
        let failed = Mutex::new(0);
        let count = |at: usize, chunk: drystone_vault::Result<drystone_vault::ChunkBytes>| {
            assert_eq!(chunk.is_err(), frame_of(&ids[at]) == hurt);
            *failed.lock() += usize::from(chunk.is_err());
        };
        again.chunks(&ids, &count).unwrap();
        assert_eq!(failed.into_inner(), lost);
    }
}

/// What `chunks` gives for all of these, which must be right.
fn assert_all(reader: &Reader, chunks: &[(u64, ChunkId, u64)], model: &[u8]) {
    let ids: Vec<ChunkId> = chunks.iter().map(|(_, id, _)| *id).collect();
    let each = |at: usize, chunk: drystone_vault::Result<drystone_vault::ChunkBytes>| {
        let (start, _, bytes) = chunks[at];
        assert_eq!(&*chunk.unwrap(), &model[start as usize..][..bytes as usize]);
    };
    reader.chunks(&ids, &each).unwrap();
}

#[test]
fn what_was_fetched_wrong_or_not_at_all_is_asked_for_again() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(memory.clone()).unwrap();
    let files = [vec![Stretch::Bytes(noise(1, 1 << 20))]];
    let (recipe, model) = store_files(&vault, FrameSize::new(64 << 10), &files).remove(0);
    let chunks = chunks_of(&vault.reader().unwrap(), &recipe);
    let faults = [
        Fault::error(Op::Get, Failure::Unavailable),
        Fault::short_get(1),
        Fault::short_get(100_000),
        Fault::altered_get(),
    ];
    for fault in faults {
        // A range, and the end of the pack.
        for nth in [1, 2] {
            let fail = Arc::new(Fail::new(memory.clone()));
            let far = Arc::new(Delay::new(fail.clone(), Duration::ZERO));
            let vault = fixture.open(far).unwrap();
            let reader = vault.reader().unwrap();
            fail.add(fault.clone().only(Prefix::Packs).nth(nth));
            assert_all(&reader, &chunks[..100], &model);
            assert_eq!(vault.loss_epoch().unwrap(), 0, "nothing is taken for damaged");
        }
    }
}

#[test]
fn shards_that_are_wrong_or_gone_cost_nothing() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &URLS, (2, 3));
    let files = [vec![Stretch::Bytes(noise(1, 3 << 20))]];
    let (recipe, model) = store_files(&vault, FrameSize::RANDOM, &files).remove(0);
    let chunks = chunks_of(&vault.reader().unwrap(), &recipe);
    let assert_whole = |world: &World| {
        let seen: Vec<&str> = world.urls();
        for url in &seen {
            world.show(url, |memory| Arc::new(Delay::new(memory, Duration::ZERO)));
        }
        let vault = world.open(&fixture.elsewhere(), &seen).unwrap();
        let reader = vault.reader().unwrap();
        assert_all(&reader, &chunks, &model);
        let file = vault.reader().unwrap().file(&recipe).unwrap();
        let mut all = vec![0; model.len()];
        assert_eq!(file.read_at(0, &mut all).unwrap(), model.len());
        assert_eq!(all, model);
    };
    assert_whole(&world);
    let damaged = world.copy();
    let store = damaged.store("mem://b");
    for (name, bytes) in store.contents() {
        if Prefix::Shards.covers(&name) {
            flip(&store, &name, bytes.len() / 2);
        }
    }
    assert_whole(&damaged);
    let gone = world.copy();
    gone.take("mem://a");
    assert_whole(&gone);
}

#[test]
fn recipes_that_lie_are_errors() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(memory).unwrap();
    let files = [vec![Stretch::Bytes(noise(1, 400_000))]];
    let (sound, model) = store_files(&vault, FrameSize::new(64 << 10), &files).remove(0);
    assert_eq!(sound.depth, 1);
    let reader = vault.reader().unwrap();
    let Part::Chunk { id: node, bytes } = sound.parts[0] else {
        panic!()
    };
    let recipe = |size_bytes, depth, parts: &[Part]| Recipe {
        size_bytes,
        depth,
        parts: parts.to_vec(),
    };
    let hole = |bytes| Part::Hole(bytes);
    let chunk = |id, bytes| Part::Chunk { id, bytes };
    // What contradicts itself is refused at once.
    for refused in [
        recipe(0, 0, &[hole(u64::MAX), hole(1)]),
        recipe(10, 0, &[hole(9)]),
        recipe(10, 0, &[]),
        recipe(bytes, RECIPE_DEPTH_MAX + 1, &[chunk(node, bytes)]),
        recipe(bytes + 5, 1, &[hole(5), chunk(node, bytes)]),
    ] {
        let error = reader.file(&refused).err().unwrap();
        assert!(matches!(error, Error::Format(_)), "{error}");
    }
    // What is wrong further down is met by who reads it.
    let missing = ChunkId([7; 32]);
    for (lie, what) in [
        (recipe(bytes + 1, 1, &[chunk(node, bytes + 1)]), "recipe node"),
        (recipe(bytes - 1, 1, &[chunk(node, bytes - 1)]), "recipe node"),
        (recipe(u64::MAX, 1, &[chunk(node, u64::MAX)]), "recipe node"),
        (recipe(bytes, RECIPE_DEPTH_MAX, &[chunk(node, bytes)]), "recipe node"),
        (recipe(bytes, 0, &[chunk(node, bytes)]), "its recipe says"),
        (recipe(u64::MAX, 0, &[chunk(node, u64::MAX)]), "its recipe says"),
        (recipe(1, 0, &[chunk(missing, 1)]), "chunk 0707"),
        (recipe(1 << 60, 3, &[chunk(missing, 1 << 60)]), "chunk 0707"),
    ] {
        let file = reader.file(&lie).unwrap();
        for offset in [0, file.len() / 2, file.len() - 1] {
            let error = file.read_at(offset, &mut [0; 100_000]).unwrap_err();
            assert!(error.is_damage() && error.to_string().contains(what), "{error}");
        }
    }
    // A lie elsewhere in the file does not matter here.
    let mixed = [sound.parts.as_slice(), &[chunk(missing, 1000)]].concat();
    let file = reader.file(&recipe(sound.size_bytes + 1000, 1, &mixed)).unwrap();
    let mut out = vec![0; model.len()];
    assert_eq!(file.read_at(0, &mut out).unwrap(), model.len());
    assert_eq!(out, model);
    assert!(file.read_at(sound.size_bytes, &mut [0; 1]).is_err());
    // The largest file there can be.
    let file = reader.file(&recipe(u64::MAX, 0, &[hole(u64::MAX)])).unwrap();
    let mut out = [1; 100];
    assert_eq!(file.read_at(u64::MAX - 50, &mut out).unwrap(), 50);
    assert_eq!(file.read_at(u64::MAX, &mut out).unwrap(), 0);
    assert_eq!((&out[..50], &out[50..]), (&[0; 50][..], &[1; 50][..]));
}
