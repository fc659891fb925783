//! A hostile vault: objects that a writer with a valid credential, or whoever holds the place, has made up.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::config::Trust;
use drystone_format::id::{ChunkHasher, object_hash};
use drystone_format::keys::{Epoch, Role, Secrets};
use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::notice::seal_verified;
use drystone_format::pack::PackedChunk;
use drystone_format::random::array;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::root::{RootKind, RootName};
use drystone_format::seal::PackKind;
use drystone_format::tree::{Kind as EntryKind, append_encoded};
use drystone_format::{ChunkId, RegistrationId, RootId};
use drystone_store::{Kind, Memory, Name, Prefix};
use drystone_vault::{Error, Vault};

use crate::support::{
    ALONE, Fixture, add_key, back_up, check, content, craft_pack, craft_root, entry, files, ingest, lines, noise,
    plant, random, root_of, scrub, secrets, snapshot,
};

/// A vault of an owner with two writers, one of them hostile.
struct Scene {
    owner: Fixture,
    writer: Fixture,
    store: Arc<Memory>,
    hostile: Secrets,
}

fn scene(trust: Trust) -> Scene {
    let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = owner.create_trusting(store.clone(), trust).unwrap();
    let (writer, hostile) = (add_key(&vault, Role::Writer), add_key(&vault, Role::Writer));
    let hostile = secrets(&hostile, &store);
    Scene {
        owner,
        writer,
        store,
        hostile,
    }
}

/// A pack of one frame with one chunk that claims to be `id`.
fn liar(scene: &Scene, kind: PackKind, id: ChunkId, bytes: &[u8]) -> Name {
    let chunk = PackedChunk {
        id,
        bytes: bytes.len() as u32,
    };
    let pack = craft_pack(&scene.hostile, kind, &[(bytes.to_vec(), vec![chunk])]);
    plant(&scene.store, pack)
}

impl Scene {
    fn id(&self, bytes: &[u8]) -> ChunkId {
        ChunkHasher::new(&self.hostile.dedup_key).id(bytes)
    }

    /// Publishes a snapshot of `tree` as the hostile writer.
    fn publish(&self, secrets: &Secrets, tree: Recipe) -> RootName {
        let (name, root) = craft_root(secrets, array(&mut random()), ALONE, &snapshot(tree).encode());
        self.store.overwrite(&Name::root(&name), root.into());
        name
    }

    /// Publishes a snapshot of one directory with one file of this recipe.
    fn publish_file(&self, recipe: Recipe) -> RootId {
        let mut stream = Vec::new();
        append_encoded(&mut stream, &entry("file", EntryKind::File(recipe)).encode());
        let id = self.id(&stream);
        liar(self, PackKind::Meta, id, &stream);
        self.publish(&self.hostile, Recipe::single(id, stream.len() as u64))
            .hash
    }
}

#[test]
fn a_pack_that_lies_about_its_chunks_is_not_relied_on() {
    let scene = scene(Trust::Verified);
    let wanted = noise(1, 900);
    let poison = liar(&scene, PackKind::Data, scene.id(&wanted), &noise(2, 900));
    // Nobody takes the stranger's word; each stores the chunk, and reads it although the index has both.
    for fixture in [&scene.writer, &scene.owner] {
        let vault = fixture.open(scene.store.clone()).unwrap();
        let (_, finished) = back_up(&vault, &[("file", &wanted)]).unwrap();
        assert!(finished.new_bytes >= 900, "{finished:?}");
    }
    let vault = scene.owner.elsewhere().open(scene.store.clone()).unwrap();
    for id in vault.snapshot_ids().unwrap() {
        assert_eq!(files(&vault, &id).unwrap()[0].1, wanted);
    }
    let report = scrub(&vault);
    assert_eq!(report.problems.count(), 1);
    let found = lines(&report.problems);
    assert!(
        found.contains(poison.as_str()) && found.contains("does not match its name"),
        "{found}"
    );
    let report = check(&vault);
    assert_eq!(lines(&report.problems), "");
    assert!(lines(&report.harmless).contains(poison.as_str()));
    // After the scrub the honest writer's pack is vouched for, the liar's still is not.
    let another = add_key(&vault, Role::Writer).open(scene.store.clone()).unwrap();
    let (_, finished) = back_up(&another, &[("file", &wanted)]).unwrap();
    assert_eq!(finished.new_chunks, 0, "{finished:?}");
}

#[test]
fn where_the_lie_is_all_there_is_it_is_named() {
    let scene = scene(Trust::Everyone);
    let wanted = noise(1, 900);
    let poison = liar(&scene, PackKind::Data, scene.id(&wanted), &noise(2, 900));
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let (id, finished) = back_up(&vault, &[("file", &wanted)]).unwrap();
    assert!(
        finished.new_bytes < 900,
        "a vault that trusts everyone deduplicates: {finished:?}"
    );
    let error = files(&vault, &id).unwrap_err();
    assert!(
        matches!(error, Error::WrongChunk { .. }) && error.to_string().contains(poison.as_str()),
        "{error}"
    );
    let report = check(&vault);
    assert!(
        lines(&report.problems).contains("/file: 900 of 900 bytes"),
        "{}",
        lines(&report.problems)
    );
    assert!(lines(&report.problems).contains(poison.as_str()));
    back_up(&vault, &[("file", &wanted)]).unwrap();
    assert_eq!(files(&vault, &id).unwrap()[0].1, wanted);
    assert_eq!(lines(&check(&vault).problems), "");
}

#[test]
fn a_writer_cannot_vouch_for_packs() {
    let scene = scene(Trust::Verified);
    let wanted = noise(1, 900);
    let poison = liar(&scene, PackKind::Data, scene.id(&wanted), &noise(2, 900));
    let Kind::Pack(pack) = poison.kind() else { panic!() };
    let list = seal_verified(&scene.hostile, &[pack], &mut random()).unwrap();
    let name = Name::verified(&object_hash(&list));
    scene.store.overwrite(&name, list.into());
    let vault = scene.writer.open(scene.store.clone()).unwrap();
    assert!(back_up(&vault, &[("file", &wanted)]).unwrap().1.new_bytes >= 900);
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    assert!(lines(&check(&vault).problems).contains(name.as_str()));
    scrub(&vault);
    assert!(!scene.store.contents().contains_key(&name));
}

#[test]
fn another_writers_packs_are_relied_on_once_an_owner_has_read_them() {
    let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = owner.create(store.clone()).unwrap();
    let (one, other) = (add_key(&vault, Role::Writer), add_key(&vault, Role::Writer));
    let bytes = noise(1, 100_000);
    let new_bytes = |fixture: &Fixture| {
        let vault = fixture.elsewhere().open(store.clone()).unwrap();
        back_up(&vault, &[("file", &bytes)]).unwrap().1.new_bytes
    };
    assert!(new_bytes(&one) > 100_000);
    assert!(new_bytes(&other) > 100_000, "nobody has vouched");
    assert_eq!(new_bytes(&one), 0);
    // Neither a writer's scrub nor a check makes packs reliable.
    scrub(&other.open(store.clone()).unwrap());
    check(&owner.open(store.clone()).unwrap());
    let third = add_key(&vault, Role::Writer);
    let lists = || {
        store
            .contents()
            .keys()
            .filter(|name| Prefix::Verified.covers(name))
            .count()
    };
    assert_eq!(lists(), 0);
    assert_eq!(
        lines(&scrub(&owner.elsewhere().open(store.clone()).unwrap()).problems),
        ""
    );
    assert_eq!((new_bytes(&third), lists()), (0, 1));
    scrub(&owner.elsewhere().open(store.clone()).unwrap());
    assert_eq!(lists(), 1, "the list is published once");
    assert_eq!(lines(&check(&owner.open(store).unwrap()).problems), "");
}

/// What nobody wrote in good faith keeps nothing else from working, and is named.
fn assert_named_and_harmless(scene: &Scene, name: &Name) {
    let vault = scene.owner.elsewhere().open(scene.store.clone()).unwrap();
    let (id, _) = back_up(&vault, &[("file", b"content")]).unwrap();
    assert_eq!(files(&vault, &id).unwrap()[0].1, b"content");
    vault.resolve("latest").unwrap();
    let report = check(&vault);
    let named = lines(&report.problems) + &lines(&report.harmless) + &lines(&scrub(&vault).problems);
    assert!(named.contains(name.as_str()), "{name}: {named}");
    assert!(lines(&vault.repair_index().unwrap().problems).contains(name.as_str()) || !is_pack(name));
}

fn is_pack(name: &Name) -> bool {
    matches!(name.kind(), Kind::Pack(_))
}

#[test]
fn frames_larger_than_the_format_allows() {
    let scene = scene(Trust::Verified);
    let huge = noise(1, 18 << 20);
    let chunk = PackedChunk {
        id: scene.id(b"x"),
        bytes: 100,
    };
    let pack = craft_pack(&scene.hostile, PackKind::Data, &[(huge, vec![chunk])]);
    let name = plant(&scene.store, pack);
    assert_named_and_harmless(&scene, &name);
}

#[test]
fn key_epochs_that_nobody_has() {
    let mut scene = scene(Trust::Verified);
    let current = scene.hostile.current().unwrap().clone();
    scene.hostile.epochs.push(Epoch {
        number: 9999,
        ..current
    });
    let pack = liar(&scene, PackKind::Data, scene.id(b"x"), b"x");
    assert_named_and_harmless(&scene, &pack);
    let root = scene.publish(&scene.hostile, Recipe::default());
    assert_named_and_harmless_root(&scene, &Name::root(&root));
}

fn assert_named_and_harmless_root(scene: &Scene, name: &Name) {
    let vault = scene.owner.elsewhere().open(scene.store.clone()).unwrap();
    back_up(&vault, &[("file", b"content")]).unwrap();
    let (snapshots, problems) = vault.snapshots().unwrap();
    assert!(!snapshots.is_empty());
    assert!(lines(&problems).contains(name.as_str()), "{}", lines(&problems));
    assert!(lines(&check(&vault).problems).contains(name.as_str()));
}

#[test]
fn objects_larger_than_the_format_allows() {
    let scene = scene(Trust::Verified);
    let names = [
        Name::root(&RootName {
            kind: RootKind::SNAPSHOT,
            registration: RegistrationId([4; 16]),
            number: 0,
            hash: RootId([4; 16]),
        }),
        Name::verified(&RootId([4; 16])),
        Name::key(&drystone_format::SlotId([4; 16])),
        Name::pack(&drystone_format::PackId([4; 32])),
    ];
    // Another writer's pack, so that lists are read at all.
    liar(&scene, PackKind::Data, scene.id(b"x"), b"x");
    for name in names {
        scene
            .store
            .overwrite(&name, Bytes::from(vec![0; name.max_bytes() as usize + 1]));
        let vault = scene.owner.elsewhere().open(scene.store.clone()).unwrap();
        let report = check(&vault);
        let named = lines(&report.problems) + &lines(&report.harmless);
        assert!(named.contains(name.as_str()), "{name}: {named}");
        tokio_delete(&scene.store, &name);
    }
    let header = Name::header();
    scene
        .store
        .overwrite(&header, Bytes::from(vec![0; header.max_bytes() as usize + 1]));
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    assert!(vault.warnings()[0].contains("drystone"), "{:?}", vault.warnings());
}

fn tokio_delete(store: &Memory, name: &Name) {
    use drystone_store::Store;
    crate::support::runtime().block_on(store.delete(name)).unwrap();
}

#[test]
fn roots_and_slots_under_another_name() {
    let scene = scene(Trust::Verified);
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let (id, _) = back_up(&vault, &[("file", b"content")]).unwrap();
    let objects = scene.store.contents();
    let own = root_of(&*scene.store, &id);
    let Kind::Root(name) = own.kind() else { panic!() };
    // Under another hash, another number, and in the name of another registration.
    for other in [
        RootName {
            hash: RootId([5; 16]),
            ..name
        },
        RootName { number: 1, ..name },
        RootName {
            registration: RegistrationId([5; 16]),
            ..name
        },
    ] {
        let other = Name::root(&other);
        scene.store.overwrite(&other, objects[&own].clone());
        assert_named_and_harmless_root(&scene, &other);
        assert_eq!(files(&vault, &id).unwrap()[0].1, b"content");
        tokio_delete(&scene.store, &other);
    }
    let slot = Name::key(&drystone_format::SlotId([5; 16]));
    let (_, current) = objects.iter().find(|(name, _)| Prefix::Keys.covers(name)).unwrap();
    scene.store.overwrite(&slot, current.clone());
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let found = lines(&check(&vault).problems);
    assert!(found.contains(slot.as_str()), "{found}");
    assert_eq!(found.matches(slot.as_str()).count(), 1, "{found}");
}

#[test]
fn slots_and_header_of_another_vault_with_the_same_key() {
    for _ in 0..4 {
        let (owner, store, other_store) = (
            Fixture::new(),
            Arc::new(Memory::new()),
            Arc::new(Memory::named("other")),
        );
        let vault = owner.create(store.clone()).unwrap();
        let (id, _) = back_up(&vault, &[("file", b"content")]).unwrap();
        let other = owner.create(other_store.clone()).unwrap();
        let foreign = other_store.contents();
        let slot = foreign.keys().find(|name| Prefix::Keys.covers(name)).unwrap();
        store.overwrite(slot, foreign[slot].clone());
        let opened = owner.open(store.clone()).unwrap();
        assert!(opened.id() == vault.id() && opened.id() != other.id());
        assert_eq!(files(&opened, &id).unwrap()[0].1, b"content");
        assert!(lines(&check(&opened).problems).contains(slot.as_str()));
        tokio_delete(&store, slot);
        store.overwrite(&Name::header(), foreign[&Name::header()].clone());
        let opened = owner.open(store.clone()).unwrap();
        assert_eq!(opened.id(), vault.id());
        assert!(
            opened.warnings()[0].contains("another vault's"),
            "{:?}",
            opened.warnings()
        );
        assert_eq!(files(&opened, &id).unwrap()[0].1, b"content");
    }
}

#[test]
fn a_key_that_an_interrupted_renewal_left_with_two_slots_opens_the_newer() {
    for _ in 0..4 {
        let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = owner.create(store.clone()).unwrap();
        let second = add_key(&vault, Role::Member);
        let before = store.contents();
        let of_second = vault.keys().unwrap().0.into_iter().find(|slot| !slot.current).unwrap();
        vault
            .remove_key(&of_second.id, drystone_vault::NewEpoch::Start)
            .unwrap();
        let (id, _) = back_up(&owner.open(store.clone()).unwrap(), &[("new", b"new")]).unwrap();
        // The outdated slots are back, as if they had never been removed.
        for (name, slot) in before.iter().filter(|(name, _)| Prefix::Keys.covers(name)) {
            store.overwrite(name, slot.clone());
        }
        let opened = owner.elsewhere().open(store.clone()).unwrap();
        assert_eq!(files(&opened, &id).unwrap()[0].1, b"new");
        // Who has only the old secrets is told which object is closed to him.
        let old = second.open(store.clone()).unwrap();
        let error = old.snapshot(&id).unwrap_err();
        assert!(
            error.to_string().contains("epoch 1") && error.to_string().contains("roots/"),
            "{error}"
        );
        let stored = back_up(&old, &[("x", b"x")]).map(drop);
        assert!(matches!(stored, Err(Error::KeyRemoved { .. })), "{stored:?}");
    }
}

#[test]
fn recipes_that_lie_about_lengths() {
    let scene = scene(Trust::Verified);
    let (wanted, other) = (noise(1, 900), noise(2, 100));
    for (id, bytes) in [(scene.id(&wanted), &wanted), (scene.id(&other), &other)] {
        liar(&scene, PackKind::Data, id, bytes);
    }
    let chunk = |bytes: &[u8], length: u64| Part::Chunk {
        id: scene.id(bytes),
        bytes: length,
    };
    for length in [1, 899, 901, 1 << 60] {
        let recipe = Recipe {
            size_bytes: length + 100,
            depth: 0,
            parts: vec![chunk(&wanted, length), chunk(&other, 100)],
        };
        let root = scene.publish_file(recipe.clone());
        let vault = scene.owner.elsewhere().open(scene.store.clone()).unwrap();
        let error = files(&vault, &root).unwrap_err();
        assert!(
            error.is_damage() && error.to_string().contains("its recipe says"),
            "{error}"
        );
        // The piece behind it is where the recipe says.
        let reader = vault.reader().unwrap();
        let mut pieces = reader.content(&recipe);
        assert!(pieces.next_piece().is_err());
        assert_eq!(pieces.next_piece().unwrap().unwrap().offset, length);
        let found = lines(&check(&vault).problems);
        assert!(found.contains("/file: "), "{length}: {found}");
    }
}

#[test]
fn recipes_whose_parts_do_not_cover_the_file() {
    let scene = scene(Trust::Verified);
    let parts = vec![Part::Hole(10)];
    let root = scene.publish_file(Recipe {
        size_bytes: u64::MAX,
        depth: 0,
        parts,
    });
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let error = files(&vault, &root).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("cover"), "{error}");
    assert!(lines(&check(&vault).problems).contains("the rest of this directory cannot be read"));
}

#[test]
fn a_recipe_node_that_is_none() {
    let scene = scene(Trust::Verified);
    let junk = noise(3, 500);
    liar(&scene, PackKind::Meta, scene.id(&junk), &junk);
    let root = scene.publish_file(Recipe {
        size_bytes: 1000,
        depth: 3,
        parts: vec![Part::Chunk {
            id: scene.id(&junk),
            bytes: 1000,
        }],
    });
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    assert!(files(&vault, &root).unwrap_err().is_damage());
    assert!(lines(&check(&vault).problems).contains("/file: "));
}

#[test]
fn a_file_of_an_exbibyte_of_nothing_costs_nothing() {
    let scene = scene(Trust::Verified);
    let recipe = Recipe {
        size_bytes: 1 << 60,
        depth: 0,
        parts: vec![Part::Hole(1 << 59), Part::Zeros(1 << 59)],
    };
    scene.publish_file(recipe.clone());
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
    let mut content = vault.reader().unwrap().content(&recipe);
    let mut bytes = [1; 4096];
    content.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096]);
    content.seek((1 << 60) - 10);
    assert_eq!(content.read(&mut bytes).unwrap(), 10);
}

#[test]
fn a_frame_that_is_shorter_than_its_chunks() {
    let scene = scene(Trust::Verified);
    let (one, two) = (noise(1, 700), noise(2, 700));
    let chunk = |bytes: &[u8]| PackedChunk {
        id: scene.id(bytes),
        bytes: 700,
    };
    let plaintext = [&one[..], &two[..300]].concat();
    let pack = craft_pack(
        &scene.hostile,
        PackKind::Data,
        &[(plaintext, vec![chunk(&one), chunk(&two)])],
    );
    let name = plant(&scene.store, pack);
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let reader = vault.reader().unwrap();
    assert_eq!(&*reader.chunk(&scene.id(&one)).unwrap(), &one[..]);
    let error = reader.chunk(&scene.id(&two)).unwrap_err();
    assert!(
        matches!(error, Error::WrongChunk { .. }) && error.to_string().contains(name.as_str()),
        "{error}"
    );
    assert!(lines(&scrub(&vault).problems).contains(name.as_str()));
}

/// Directories in directories, `depth` of them.
fn nest(vault: &Vault, depth: usize) -> Recipe {
    let ingest = ingest(vault);
    let mut lane = ingest.lane();
    let mut inner = ingest.tree().finish(&mut lane).unwrap();
    for _ in 0..depth {
        let mut tree = ingest.tree();
        tree.push(&mut lane, &entry("d", EntryKind::Dir(inner)).encode())
            .unwrap();
        inner = tree.finish(&mut lane).unwrap();
    }
    lane.finish().unwrap();
    let finished = ingest.finish().unwrap();
    vault.publish(&snapshot(inner.clone()), &finished).unwrap();
    inner
}

#[test]
fn a_nest_deeper_than_the_format_allows() {
    let owner = Fixture::new();
    let vault = owner.create(Arc::new(Memory::new())).unwrap();
    nest(&vault, TREE_DEPTH_MAX - 1);
    let report = check(&vault);
    assert_eq!(
        (lines(&report.problems).as_str(), report.entries),
        ("", TREE_DEPTH_MAX as u64 - 1)
    );
    let vault = owner.create(Arc::new(Memory::named("other"))).unwrap();
    nest(&vault, TREE_DEPTH_MAX + 10);
    let found = check(&vault).problems;
    assert_eq!(found.count(), 1);
    assert!(lines(&found).contains("nested too deeply"));
}

/// Runs the ignored test of this name in a process of its own, which measures its memory.
fn in_a_process(name: &str) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--test-threads=1"])
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

/// Most memory that this process ever had, bytes.
fn peak_memory_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

#[test]
fn a_nest_of_large_directories_stays_within_memory() {
    in_a_process("hostile::large_nest");
}

/// 400 levels, each of which holds a mebibyte before the next is known.
#[test]
#[ignore = "run by a_nest_of_large_directories_stays_within_memory"]
fn large_nest() {
    let scene = scene(Trust::Verified);
    let mut inner = Recipe::default();
    for _ in 0..400 {
        let mut stream = Vec::new();
        append_encoded(&mut stream, &entry("a", EntryKind::Dir(inner)).encode());
        stream.resize(1 << 20, 0);
        let id = scene.id(&stream);
        liar(&scene, PackKind::Meta, id, &stream);
        inner = Recipe::single(id, stream.len() as u64);
    }
    scene.publish(&scene.hostile, inner);
    let vault = scene.owner.open(scene.store.clone()).unwrap();
    let before = peak_memory_bytes();
    let report = check(&vault);
    assert!(lines(&report.problems).contains("nested too deeply"));
    let grown = peak_memory_bytes() - before;
    assert!(grown < 100 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn a_scrub_of_large_packs_stays_within_memory() {
    in_a_process("hostile::large_packs");
}

/// Packs of 60 MiB, and more threads than memory for them.
#[test]
#[ignore = "run by a_scrub_of_large_packs_stays_within_memory"]
fn large_packs() {
    let scene = scene(Trust::Verified);
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(drystone_store::Local::create(dir.path()).unwrap());
    let put = |name: &Name, bytes: Bytes| {
        use drystone_store::Store;
        crate::support::runtime().block_on(local.put(name, bytes)).unwrap();
    };
    for (name, bytes) in scene.store.contents() {
        put(&name, bytes);
    }
    for seed in 0..4 {
        let frames: Vec<_> = (0..15)
            .map(|at| {
                let bytes = noise(seed * 100 + at, 4 << 20);
                let pieces = bytes.chunks(1 << 20);
                let chunks = pieces.map(|piece| PackedChunk {
                    id: scene.id(piece),
                    bytes: piece.len() as u32,
                });
                let chunks = chunks.collect();
                (bytes, chunks)
            })
            .collect();
        let pack = craft_pack(&scene.hostile, PackKind::Data, &frames);
        put(&Name::pack(&pack.id), pack.bytes.into());
    }
    // What crafting took counts as well: the pack and its frames, 120 MiB.
    let context = drystone_vault::Context {
        threads: 8,
        ..scene.owner.context()
    };
    let vault = Vault::open(local, context, &scene.owner.unlock()).unwrap();
    let before = peak_memory_bytes();
    assert_eq!(lines(&scrub(&vault).problems), "");
    let peak = peak_memory_bytes();
    assert!(peak < before.max(200 << 20), "{} MiB", peak >> 20);
    let reader = vault.reader().unwrap();
    let bytes = noise(301, 4 << 20);
    let recipe = Recipe {
        size_bytes: 2 << 20,
        depth: 0,
        parts: bytes
            .chunks(1 << 20)
            .take(2)
            .map(|piece| Part::Chunk {
                id: scene.id(piece),
                bytes: 1 << 20,
            })
            .collect(),
    };
    assert!(content(&reader, &recipe).unwrap() == bytes[..2 << 20]);
}
