//! Objects that cost little to add and much to look at: recipes that state more than anybody has, packs that are none.

use std::sync::Arc;

use drystone_format::ChunkId;
use drystone_format::PackId;
use drystone_format::config::Trust;
use drystone_format::id::ChunkHasher;
use drystone_format::keys::{Role, Secrets};
use drystone_format::limits::RECIPE_NODE_MAX_PARTS;
use drystone_format::pack::PackedChunk;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::seal::PackKind;
use drystone_format::tree::{Kind as EntryKind, append_encoded};
use drystone_store::{Memory, Name, Op, Record, Store};
use drystone_vault::Vault;

use crate::support::{
    ALONE, Fixture, add_key, back_up, check, craft_pack, craft_root, entry, files, lines, noise, plant, scrub, secrets,
    snapshot, watched,
};

/// A vault in memory, its owner, and the secrets of a writer who means no good.
fn scene() -> (Fixture, Arc<Memory>, Secrets) {
    let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = owner.create_trusting(store.clone(), Trust::Verified).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let hostile = secrets(&writer, &store);
    (owner, store, hostile)
}

/// Adds a pack of one chunk with these bytes.
fn add(secrets: &Secrets, store: &Memory, kind: PackKind, bytes: &[u8]) -> ChunkId {
    let id = ChunkHasher::new(&secrets.dedup_key).id(bytes);
    let chunk = PackedChunk {
        id,
        bytes: bytes.len() as u32,
    };
    plant(store, craft_pack(secrets, kind, &[(bytes.to_vec(), vec![chunk])]));
    id
}

/// A node of a recipe with so many equal parts (docs/format.md, "Recipes"), encoded by hand.
fn node(id: ChunkId, bytes: u64) -> Vec<u8> {
    let count = RECIPE_NODE_MAX_PARTS as u16;
    let mut encoded = vec![0x99];
    encoded.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        encoded.extend_from_slice(&[0x82, 0x58, 32]);
        encoded.extend_from_slice(&id.0);
        match u8::try_from(bytes) {
            Ok(small @ 0..24) => encoded.push(small),
            _ => {
                encoded.push(0x1b);
                encoded.extend_from_slice(&bytes.to_be_bytes());
            }
        }
    }
    encoded
}

/// A recipe of `depth` nodes, each of equal parts, over one chunk of `bytes`.
fn tower(secrets: &Secrets, store: &Memory, (leaf, bytes): (ChunkId, u64), depth: u8) -> Recipe {
    let (mut id, mut size_bytes) = (leaf, bytes);
    for _ in 0..depth {
        let encoded = shortest(node(id, size_bytes), id, size_bytes);
        id = add(secrets, store, PackKind::Meta, &encoded);
        size_bytes *= RECIPE_NODE_MAX_PARTS as u64;
    }
    Recipe {
        size_bytes,
        depth,
        parts: vec![Part::Chunk { id, bytes: size_bytes }],
    }
}

/// The same node with its lengths in the shortest form, which the format demands.
fn shortest(encoded: Vec<u8>, id: ChunkId, bytes: u64) -> Vec<u8> {
    let long = bytes.to_be_bytes();
    let short: Vec<u8> = match bytes {
        0..24 => return encoded,
        24..=0xff => vec![0x18, long[7]],
        0x100..=0xffff => [&[0x19], &long[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[0x1a], &long[4..]].concat(),
        _ => return encoded,
    };
    let part = [&[0x82, 0x58, 32], id.0.as_slice(), &short].concat();
    [&encoded[..3], &part.repeat(RECIPE_NODE_MAX_PARTS)].concat()
}

fn publish(secrets: &Secrets, store: &Memory, recipes: &[Recipe]) {
    let mut stream = Vec::new();
    for (number, recipe) in recipes.iter().enumerate() {
        let name = format!("file{number}");
        append_encoded(&mut stream, &entry(&name, EntryKind::File(recipe.clone())).encode());
    }
    let id = add(secrets, store, PackKind::Meta, &stream);
    let payload = snapshot(Recipe::single(id, stream.len() as u64)).encode();
    let (root, sealed) = craft_root(secrets, [9; 16], ALONE, &payload);
    store.overwrite(&Name::root(&root), sealed.into());
}

#[test]
fn a_recipe_costs_check_what_is_stored_of_it_whatever_it_states() {
    let (owner, store, hostile) = scene();
    let leaf = noise(1, 16 << 10);
    let known = (add(&hostile, &store, PackKind::Data, &leaf), leaf.len() as u64);
    let unknown = (ChunkId([7; 32]), 16 << 10);
    let whole = tower(&hostile, &store, known, 4);
    let lost = tower(&hostile, &store, unknown, 4);
    assert_eq!(whole.size_bytes, 16 << 50, "16 PiB");
    publish(&hostile, &store, &[whole, lost.clone(), lost]);
    let record = Arc::new(Record::new(store));
    let vault = owner.elsewhere().open(record.clone() as Arc<dyn Store>).unwrap();
    vault.snapshots().unwrap();
    let report = watched(move || check(&vault));
    assert_eq!(report.entries, 3);
    assert_eq!(report.problems.count(), 2, "{}", lines(&report.problems));
    let found = lines(&report.problems);
    assert!(
        found.contains("/file1: 18014398509481984 of 18014398509481984 bytes"),
        "{found}"
    );
    assert!(record.count(Op::Get) < 100, "{}", record.count(Op::Get));
}

/// Reads of packs since the last call.
fn reads(record: &Record, names: &[Name]) -> usize {
    let calls = record.take();
    let of_these = |name: &str| names.iter().any(|known| known.as_str() == name);
    calls
        .iter()
        .filter(|call| call.op == Op::Get && of_these(&call.name))
        .count()
}

#[test]
fn packs_that_are_none_are_read_once_and_again_only_where_that_may_help() {
    let (owner, store, hostile) = scene();
    let record = Arc::new(Record::new(store.clone()));
    let open = |fixture: &Fixture| -> Vault { fixture.open(record.clone() as Arc<dyn Store>).unwrap() };
    let vault = open(&owner);
    let (root, _) = back_up(&vault, &[("file", &noise(2, 3000))]).unwrap();
    // Bytes that are no pack, and a pack of the writer's of which one byte is wrong.
    let mut names: Vec<Name> = (0..50_u8).map(|n| Name::pack(&PackId([n; 32]))).collect();
    for name in &names {
        store.overwrite(name, "x".into());
    }
    let wanted = noise(3, 900);
    let id = ChunkHasher::new(&hostile.dedup_key).id(&wanted);
    let chunk = PackedChunk {
        id,
        bytes: wanted.len() as u32,
    };
    let rotten = plant(
        &store,
        craft_pack(&hostile, PackKind::Data, &[(wanted.clone(), vec![chunk])]),
    );
    let sound = store.contents()[&rotten].clone();
    let mut bytes = sound.to_vec();
    // In the signature, which stands before the footer (docs/format.md, "Packs").
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    store.overwrite(&rotten, bytes.into());
    names.push(rotten.clone());
    record.take();
    let machine = owner.elsewhere();
    let stats = |vault: &Vault| vault.stats().unwrap();
    stats(&open(&machine));
    assert_eq!(reads(&record, &names), 51);
    for _ in 0..2 {
        let vault = open(&machine);
        stats(&vault);
        assert_eq!(files(&vault, &root).unwrap().len(), 1);
        assert_eq!(reads(&record, &names), 0, "each is read once");
    }
    // `check` looks again and names them; what was mended counts from then on.
    let report = check(&open(&machine));
    assert_eq!(reads(&record, &names), 51);
    assert_eq!(report.harmless.count(), 51, "{}", lines(&report.harmless));
    store.overwrite(&rotten, sound.clone());
    let report = check(&open(&machine));
    assert_eq!(report.harmless.count(), 50, "{}", lines(&report.harmless));
    record.take();
    assert!(scrub(&open(&machine)).problems.count() >= 50);
    assert_eq!(reads(&record, &names[..50]), 50);
    let repaired = open(&machine).repair_index().unwrap();
    assert_eq!(repaired.problems.count(), 50);
    // Another size is another thing.
    stats(&open(&machine));
    record.take();
    store.overwrite(&names[0], "xy".into());
    stats(&open(&machine));
    assert_eq!(reads(&record, &names), 1);
}
