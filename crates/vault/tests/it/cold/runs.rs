//! Index runs: what gc leaves for machines that read from afar, and that reading from afar gives nothing but what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drystone_format::RootId;
use drystone_format::id::object_hash;
use drystone_format::index_part::Numbered as Of;
use drystone_format::index_run::{IndexRun, RunChunk, RunPack, Verified};
use drystone_format::keys::{Role, Secrets};
use drystone_format::ledger::{Ledger, Numbered, Sightings, seal_ledger};
use drystone_format::pack::{Tail, tail_bytes};
use drystone_format::seal::PackKind;
use drystone_format::{ChunkId, PackId, RegistrationId};
use drystone_store::{Delay, Kind, Memory, Name, Op, Prefix, Record};
use drystone_vault::{GcOptions, GcReport, Vault};

use super::{Far, far};
use crate::spread_world::{URLS, World};
use crate::support::{Fixture, add_key, back_up, check, files, lines, noise, random, secrets, stated};

/// A gc that leaves packs as they are and lists every one.
fn options() -> GcOptions {
    GcOptions {
        max_rewrite_bytes: 0,
        index_from_packs: 1,
        silence: Duration::ZERO,
        ..GcOptions::default()
    }
}

fn gc(vault: &Vault) -> GcReport {
    let report = vault.gc(&options()).unwrap();
    assert_eq!(lines(&report.problems), "");
    report
}

fn content(seed: u64) -> Vec<u8> {
    noise(seed, 5_000)
}

fn add(vault: &Vault, seed: u64) -> RootId {
    let bytes = content(seed);
    back_up(vault, &[("file", &bytes), ("shared", &noise(1000, 3_000))])
        .unwrap()
        .0
}

fn expected(seed: u64) -> Vec<(String, Vec<u8>)> {
    vec![
        ("file".to_owned(), content(seed)),
        ("shared".to_owned(), noise(1000, 3_000)),
    ]
}

/// A vault far away with these snapshots, and the runs of a gc.
fn indexed(seeds: std::ops::Range<u64>) -> (Far, Vault, Vec<RootId>) {
    let (far, vault) = far(Duration::ZERO);
    let ids = seeds.map(|seed| add(&vault, seed)).collect();
    gc(&vault);
    (far, vault, ids)
}

/// The pieces that lie there.
fn pieces(objects: &Memory) -> BTreeMap<Numbered, Vec<u8>> {
    let pieces = objects
        .contents()
        .into_iter()
        .filter_map(|(name, bytes)| match name.kind() {
            Kind::Index(registration, number, hash) => {
                let numbered = Numbered {
                    registration,
                    number,
                    hash,
                };
                Some((numbered, bytes.to_vec()))
            }
            _ => None,
        });
    pieces.collect()
}

fn in_force(far: &Far) -> BTreeSet<Numbered> {
    stated(&far.secrets(), &far.objects).runs.heads.clone()
}

/// Calls as counts of operation and first part of the name.
fn calls(store: &Record) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in store.take() {
        let kind = call.name.split('/').next().unwrap();
        *counts
            .entry(format!("{:?} {kind}", call.op).to_lowercase())
            .or_default() += 1;
    }
    counts
}

/// Reads snapshots on a new machine; returns the calls from when it was opened.
fn read_afar(far: &Far, ids: &[(u64, RootId)]) -> BTreeMap<String, usize> {
    let vault = far.open(&far.fixture.elsewhere());
    vault.snapshots().unwrap();
    far.store.take();
    for (seed, id) in ids {
        assert_eq!(files(&vault, id).unwrap(), expected(*seed), "{seed}");
    }
    let calls = calls(&far.store);
    let fresh = far.open(&far.fixture.elsewhere());
    assert_eq!(vault.loss_epoch().unwrap(), fresh.loss_epoch().unwrap());
    calls
}

fn has(calls: &BTreeMap<String, usize>, what: &str) -> bool {
    calls.contains_key(what)
}

#[test]
fn a_file_is_read_without_a_list_of_packs() {
    let (far, _, ids) = indexed(0..10);
    let named = in_force(&far);
    assert_eq!(pieces(&far.objects).into_keys().collect::<BTreeSet<_>>(), named);
    let parity: Vec<u64> = named.iter().map(|piece| piece.number % 2).collect();
    assert_eq!(
        (parity.len(), parity.iter().sum::<u64>()),
        (2, 1),
        "one of metadata, one of file data"
    );
    let calls = read_afar(&far, &[(7, ids[7])]);
    assert!(!has(&calls, "list packs"), "{calls:?}");
    // The directories, in whose ends these small runs lie whole; frames of two or three packs, and the tails of those that are hit often.
    assert_eq!(calls["get index"], 2, "{calls:?}");
    assert!(calls["get packs"] <= 8 && !has(&calls, "get ends"), "{calls:?}");
}

#[test]
fn what_is_newer_than_the_runs_is_read_without_a_list_too() {
    let (far, vault, mut ids) = indexed(0..5);
    ids.extend((5..8).map(|seed| add(&vault, seed)));
    let all: Vec<(u64, RootId)> = (0..).zip(ids).collect();
    let calls = read_afar(&far, &all);
    assert!(!has(&calls, "list packs"), "{calls:?}");
}

#[test]
fn who_writes_checks_or_reads_much_goes_by_the_packs() {
    let (far, _, ids) = indexed(0..5);
    let vault = far.open(&far.fixture.elsewhere());
    let reader = vault.reader().unwrap();
    let tree = vault.snapshot(&ids[0]).unwrap().tree;
    far.store.take();
    assert_eq!(reader.tree(&tree).count(), 2);
    assert!(!has(&calls(&far.store), "list packs"));
    // The same reader goes on after that.
    assert_eq!(lines(&check(&vault).problems), "");
    assert!(has(&calls(&far.store), "list packs"));
    assert_eq!(reader.tree(&tree).count(), 2);
    assert_eq!(files(&vault, &ids[3]).unwrap(), expected(3));
    let vault = far.open(&far.fixture.elsewhere());
    vault.reader().unwrap();
    let (_, finished) = back_up(&vault, &[("file", &content(2))]).unwrap();
    assert!(finished.new_bytes < 5_000, "what is there is not stored again");
}

#[test]
fn a_chunk_that_no_run_knows_is_looked_for_in_the_packs() {
    let (far, vault, ids) = indexed(0..3);
    let hidden = content(77);
    let id = vault.hasher().id(&hidden[..0]);
    let reader = far.open(&far.fixture.elsewhere()).reader().unwrap();
    far.store.take();
    assert!(reader.chunk(&id).is_err());
    assert!(has(&calls(&far.store), "list packs"));
    drop(ids);
}

#[test]
fn a_gc_with_nothing_new_writes_nothing_and_reads_no_run() {
    let (far, vault, _) = indexed(0..5);
    far.store.take();
    gc(&vault);
    let calls = far.store.take();
    let of_index = |op: Op| {
        calls
            .iter()
            .filter(|call| call.op == op && call.name.starts_with("index/"))
            .count()
    };
    assert_eq!((of_index(Op::Put), of_index(Op::Get), of_index(Op::Delete)), (0, 0, 0));
    // Another machine reads which packs they list, once.
    let machine = far.fixture.elsewhere();
    far.open(&machine).loss_epoch().unwrap();
    far.store.take();
    gc(&far.open(&machine));
    assert_eq!(far.gets("index/"), 2);
    gc(&far.open(&machine));
    assert_eq!(far.gets("index/"), 0);
}

#[test]
fn runs_are_merged_and_those_before_go_one_gc_later() {
    let (far, vault, mut ids) = indexed(0..3);
    for round in 0..6 {
        ids.extend((0..3).map(|at| add(&vault, 3 + round * 3 + at)));
        let before = in_force(&far);
        gc(&vault);
        let (now, there) = (in_force(&far), pieces(&far.objects));
        assert!(now.is_subset(&there.keys().copied().collect()));
        for class in 0..2 {
            assert!(now.iter().filter(|piece| piece.number % 2 == class).count() <= 4);
        }
        // Who holds the ledger before this one finds what it names.
        assert!(before.iter().all(|piece| there.contains_key(piece)), "round {round}");
    }
    let all: Vec<(u64, RootId)> = (0..).zip(ids.iter().copied()).collect();
    let calls = read_afar(&far, &all);
    assert!(!has(&calls, "list packs"), "{calls:?}");
    gc(&vault);
    assert_eq!(
        pieces(&far.objects).into_keys().collect::<BTreeSet<_>>(),
        in_force(&far)
    );
    assert_eq!(lines(&check(&vault).problems), "");
}

#[test]
fn what_is_collected_leaves_the_runs() {
    let (far, vault, ids) = indexed(0..8);
    vault.forget(&ids[..6]).unwrap();
    let report = gc(&vault);
    assert!(report.deleted_packs > 0);
    // Also what was copied elsewhere.
    vault
        .gc(&GcOptions {
            max_rewrite_bytes: u64::MAX,
            max_unused: 0.0,
            ..options()
        })
        .unwrap();
    let secrets = far.secrets();
    let there: BTreeSet<PackId> = far
        .objects
        .contents()
        .into_keys()
        .filter_map(|name| match name.kind() {
            Kind::Pack(pack) => Some(pack),
            _ => None,
        })
        .collect();
    let mut listed = BTreeSet::new();
    for (piece, bytes) in pieces(&far.objects) {
        if in_force(&far).contains(&piece) {
            listed.extend(
                IndexRun::open(&secrets, &bytes)
                    .unwrap()
                    .packs
                    .iter()
                    .map(|pack| pack.id),
            );
        }
    }
    assert_eq!(listed, there);
    let calls = read_afar(&far, &[(6, ids[6]), (7, ids[7])]);
    assert!(!has(&calls, "list packs"), "{calls:?}");
    vault.forget(&ids[6..]).unwrap();
    gc(&vault);
    assert!(in_force(&far).is_empty(), "no pack, no run");
}

#[test]
fn damaged_and_missing_pieces_cost_a_look_at_the_packs() {
    let (far, _, ids) = indexed(0..4);
    let sound = pieces(&far.objects);
    let of_data = sound.iter().find(|(piece, _)| piece.number % 2 == 1).unwrap();
    let name = Name::index(&of_data.0.registration, of_data.0.number, &of_data.0.hash);
    let bytes = of_data.1;
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let flips: [usize; 6] = [
        0,
        20,
        bytes.len() / 2,
        bytes.len() - 300,
        bytes.len() - 100,
        bytes.len() - 20,
    ];
    let mut damages: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new())];
    let mut damaged = |damage: Damage<'_>| {
        let mut bytes = bytes.clone();
        damage(&mut bytes);
        damages.push(Some(bytes));
    };
    for at in flips {
        damaged(&|bytes| bytes[at] ^= 1);
    }
    damaged(&|bytes| bytes.truncate(bytes.len() - 1));
    damaged(&|bytes| bytes.truncate(50));
    for (number, damage) in damages.into_iter().enumerate() {
        match damage {
            Some(bytes) => far.objects.overwrite(&name, bytes.into()),
            None => far.objects.remove(&name),
        }
        read_afar(&far, &[(1, ids[1]), (3, ids[3])]);
        // A gc on another machine writes it anew.
        let machine = far.fixture.elsewhere();
        if number % 3 == 0 {
            gc(&far.open(&machine));
            let now = in_force(&far);
            if !now.contains(of_data.0) {
                let calls = read_afar(&far, &[(1, ids[1])]);
                assert!(!has(&calls, "list packs"), "{calls:?}");
                return;
            }
        }
    }
}

/// Runs that a test makes: an owner's word, right or wrong.
struct ByHand {
    far: Far,
    owner: Secrets,
    ids: Vec<RootId>,
    packs: Vec<RunPack>,
    chunks: Vec<RunChunk>,
}

/// What an honest run says of all packs of a vault of some snapshots.
fn by_hand() -> ByHand {
    let (far, vault) = far(Duration::ZERO);
    let ids = (0..4).map(|seed| add(&vault, seed)).collect();
    let (owner, mut packs, mut chunks) = (far.secrets(), Vec::new(), Vec::new());
    for (name, bytes) in far.objects.contents() {
        let Kind::Pack(id) = name.kind() else { continue };
        let size = bytes.len() as u64;
        let tail = &bytes[bytes.len() - tail_bytes(&bytes, size).unwrap()..];
        let tail = Tail::open(tail, size, &owner).unwrap();
        for (frame, info) in (0..).zip(&tail.frames) {
            let mut chunk_offset = 0;
            for chunk in &info.chunks {
                chunks.push(RunChunk {
                    id: chunk.id,
                    pack: packs.len() as u32,
                    frame,
                    frame_offset: info.offset,
                    frame_bytes: info.bytes,
                    chunk_offset,
                    chunk_bytes: chunk.bytes,
                });
                chunk_offset += chunk.bytes;
            }
        }
        packs.push(RunPack::new(id, size, &tail, Verified::No));
    }
    chunks.sort();
    ByHand {
        far,
        owner,
        ids,
        packs,
        chunks,
    }
}

impl ByHand {
    /// Puts a run that `signer` made, and a ledger of the owner that names it.
    fn put(&self, run: &IndexRun) {
        let of = Of {
            registration: [5; 16],
            number: 1,
        };
        let object = run.seal(&self.owner, &of, &mut random()).unwrap();
        let piece = Numbered {
            registration: RegistrationId::derive(&self.owner.vault, &self.owner.certificate.writer, &of.registration),
            number: of.number,
            hash: object_hash(&object),
        };
        let name = Name::index(&piece.registration, piece.number, &piece.hash);
        self.far.objects.overwrite(&name, object.into());
        self.state(piece);
    }

    fn state(&self, piece: Numbered) {
        let mut ledger = Ledger {
            number: 1,
            ..Ledger::default()
        };
        ledger.runs.heads.insert(piece);
        let object = seal_ledger(&self.owner, &ledger, &Sightings::default(), &mut random()).unwrap();
        let name = Name::ledger(1, &object_hash(&object));
        self.far.objects.overwrite(&name, object.into());
    }

    fn read(&self) -> BTreeMap<String, usize> {
        let all: Vec<(u64, RootId)> = (0..).zip(self.ids.iter().copied()).collect();
        // Without what roots say of their packs.
        let parts: Vec<Name> = self
            .far
            .objects
            .contents()
            .into_keys()
            .filter(|name| Prefix::AllRoots.covers(name))
            .collect();
        assert_eq!(parts.len(), all.len());
        read_afar(&self.far, &all)
    }
}

#[test]
fn what_a_run_says_wrongly_costs_requests_and_changes_nothing() {
    type Lie = fn(&mut Vec<RunPack>, &mut Vec<RunChunk>);
    let lies: [(&str, Lie); 7] = [
        ("nothing", |_, _| {}),
        ("another length", |_, chunks| {
            chunks.iter_mut().for_each(|chunk| chunk.chunk_bytes += 1);
        }),
        ("another place in the frame", |_, chunks| {
            chunks.iter_mut().for_each(|chunk| chunk.chunk_offset += 1);
        }),
        ("another frame", |_, chunks| {
            chunks.iter_mut().for_each(|chunk| chunk.frame_offset += 1);
        }),
        ("another pack", |packs, chunks| {
            let count = packs.len() as u32;
            chunks
                .iter_mut()
                .for_each(|chunk| chunk.pack = (chunk.pack + 1) % count);
        }),
        ("a pack that is not there", |packs, _| {
            packs.iter_mut().for_each(|pack| pack.id = PackId([9; 32]));
        }),
        ("another key", |packs, _| {
            let last = packs.len() - 1;
            let wrapped = packs[last].wrapped_key.clone();
            packs.iter_mut().for_each(|pack| pack.wrapped_key.clone_from(&wrapped));
        }),
    ];
    for (what, lie) in lies {
        let mut scene = by_hand();
        lie(&mut scene.packs, &mut scene.chunks);
        scene.chunks.sort();
        scene.put(&IndexRun {
            packs: scene.packs.clone(),
            chunks: scene.chunks.clone(),
        });
        scene.read();
        // What is stored now relies on nothing that it says.
        let vault = scene.far.open(&scene.far.fixture.elsewhere());
        vault.reader().unwrap();
        let claimed = vault.hasher().id(b"never stored");
        assert!(!vault.contains(&claimed).unwrap(), "{what}");
        assert_eq!(lines(&check(&vault).problems), "", "{what}");
    }
}

#[test]
fn a_run_that_claims_what_nobody_stored_makes_nobody_rely_on_it() {
    let scene = by_hand();
    let vault = scene.far.again();
    let bytes = noise(4242, 900);
    let claimed: ChunkId = vault.hasher().id(&bytes);
    let mut chunks = scene.chunks.clone();
    chunks.push(RunChunk {
        id: claimed,
        ..chunks[0]
    });
    chunks.sort();
    scene.put(&IndexRun {
        packs: scene.packs.clone(),
        chunks,
    });
    let vault = scene.far.open(&scene.far.fixture.elsewhere());
    let reader = vault.reader().unwrap();
    assert!(reader.chunk(&claimed).is_err());
    assert!(!vault.contains(&claimed).unwrap());
    let (id, _) = back_up(&vault, &[("claimed", &bytes)]).unwrap();
    assert_eq!(files(&vault, &id).unwrap(), [("claimed".to_owned(), bytes)]);
}

/// A writer has the index key, and can put objects; it signs for nobody else.
#[test]
fn an_object_that_no_owner_signed_is_no_run() {
    let scene = by_hand();
    let fixture = add_key(&scene.far.again(), Role::Writer);
    let writer = secrets(&fixture, &scene.far.objects);
    let run = IndexRun {
        packs: scene.packs.clone(),
        chunks: scene.chunks.clone(),
    };
    let of = Of {
        registration: [5; 16],
        number: 1,
    };
    assert!(run.seal(&writer, &of, &mut random()).is_err());
    // An owner's run under another name, which a ledger of a careless owner has.
    let object = run.seal(&scene.owner, &of, &mut random()).unwrap();
    let moved = Numbered {
        registration: RegistrationId([1; 16]),
        number: 1,
        hash: object_hash(&object),
    };
    scene
        .far
        .objects
        .overwrite(&Name::index(&moved.registration, 1, &moved.hash), object.into());
    scene.state(moved);
    let calls = scene.read();
    assert!(has(&calls, "list packs"), "{calls:?}");
    // gc removes what no ledger names when it meets it again.
    let vault = scene.far.again();
    scene.far.objects.overwrite(
        &Name::index(&RegistrationId([2; 16]), 3, &RootId([3; 16])),
        b"anything".as_slice().into(),
    );
    gc(&vault);
    assert!(
        pieces(&scene.far.objects)
            .keys()
            .any(|piece| piece.registration.0 == [2; 16])
    );
    gc(&vault);
    assert_eq!(
        pieces(&scene.far.objects).into_keys().collect::<BTreeSet<_>>(),
        in_force(&scene.far)
    );
}

#[test]
fn a_pack_that_is_gone_behind_the_runs_back_is_no_loss_where_another_holds_the_same() {
    let (far, vault) = far(Duration::ZERO);
    // Two machines store the same at once, each in a pack of its own.
    let other = far.open(&far.fixture.elsewhere());
    let runs = [&vault, &other].map(crate::support::ingest);
    let stored: Vec<_> = runs
        .into_iter()
        .zip([&vault, &other])
        .map(|(run, vault)| {
            let (mut lane, mut tree) = (run.lane(), run.tree());
            let mut file = lane.content();
            file.write(&content(1)).unwrap();
            let recipe = file.finish().unwrap();
            let entry = crate::support::entry("file", drystone_format::tree::Kind::File(recipe));
            tree.push(&mut lane, &entry.encode()).unwrap();
            let tree = tree.finish(&mut lane).unwrap();
            lane.finish().unwrap();
            (tree, run.finish().unwrap(), vault)
        })
        .collect();
    let ids: Vec<RootId> = stored
        .into_iter()
        .map(|(tree, finished, vault)| vault.publish(&crate::support::snapshot(tree), &finished).unwrap())
        .collect();
    vault
        .gc(&GcOptions {
            max_unused: 1.0,
            ..options()
        })
        .unwrap();
    let packs: Vec<Name> = far
        .objects
        .contents()
        .into_keys()
        .filter(|name| Prefix::Packs.covers(name))
        .collect();
    for gone in &packs {
        let bytes = far.objects.contents()[gone].clone();
        far.objects.remove(gone);
        if packs.len() > 1 {
            let vault = far.open(&far.fixture.elsewhere());
            for id in &ids {
                assert_eq!(files(&vault, id).unwrap(), [("file".to_owned(), content(1))]);
            }
            assert_eq!(
                vault.loss_epoch().unwrap(),
                0,
                "nothing is marked that was never there for this machine"
            );
        }
        far.objects.overwrite(gone, bytes);
    }
}

#[test]
fn a_key_that_only_reads_reads_from_afar_and_one_that_only_writes_as_before() {
    let (far, vault, ids) = indexed(0..3);
    let reader = add_key(&vault, Role::Reader);
    let opened = far.open(&reader);
    far.store.take();
    assert_eq!(files(&opened, &ids[1]).unwrap(), expected(1));
    assert!(!has(&calls(&far.store), "list packs"));
    let writer = far.open(&add_key(&vault, Role::Writer));
    far.store.take();
    let reader = writer.reader().unwrap();
    assert!(has(&calls(&far.store), "list packs"));
    assert!(reader.chunk(&vault.hasher().id(&[])).is_err());
}

#[test]
fn many_threads_read_from_afar_at_once() {
    let (far, _, ids) = indexed(0..12);
    let vault = far.open(&far.fixture.elsewhere());
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let (vault, ids) = (&vault, &ids);
            scope.spawn(move || {
                for at in 0..12 {
                    let seed = (at + thread * 5) % 12;
                    assert_eq!(files(vault, &ids[seed as usize]).unwrap(), expected(seed));
                }
            });
        }
    });
}

#[test]
fn runs_lie_at_every_place_and_are_read_where_one_answers() {
    let (world, fixture) = (World::default(), Fixture::new());
    world.create(&fixture, &URLS, (2, 3));
    let records: Vec<Arc<Record>> = URLS
        .iter()
        .map(|url| {
            let record = Arc::new(Record::new(Arc::new(Delay::new(world.store(url), Duration::ZERO))));
            world.show(url, |_| record.clone());
            record
        })
        .collect();
    let vault = world.open(&fixture, &URLS).unwrap();
    let ids: Vec<RootId> = (0..4).map(|seed| add(&vault, seed)).collect();
    gc(&vault);
    let names: BTreeSet<Numbered> = pieces(&world.store(URLS[0])).into_keys().collect();
    assert_eq!(names.len(), 2);
    for url in URLS {
        assert_eq!(
            pieces(&world.store(url)).into_keys().collect::<BTreeSet<_>>(),
            names,
            "{url}"
        );
    }
    let kept = world.take(URLS[0]);
    let vault = world.open(&fixture.elsewhere(), &URLS[1..]).unwrap();
    records.iter().for_each(|record| drop(record.take()));
    assert_eq!(files(&vault, &ids[2]).unwrap(), expected(2));
    let lists = records.iter().flat_map(|record| record.take());
    assert!(
        lists
            .into_iter()
            .all(|call| !(call.op == Op::List && call.name.starts_with("packs")))
    );
    drop(kept);
}

#[test]
fn metadata_and_file_data_stand_in_runs_of_their_own() {
    let (far, vault) = far(Duration::ZERO);
    let big = noise(9, 1_500_000);
    let (id, _) = back_up(&vault, &[("big", &big), ("small", b"few bytes")]).unwrap();
    add(&vault, 3);
    gc(&vault);
    let secrets = far.secrets();
    let meta: BTreeSet<ChunkId> = {
        let tree = vault.snapshot(&id).unwrap().tree;
        tree.parts
            .iter()
            .filter_map(|part| match part {
                drystone_format::recipe::Part::Chunk { id, .. } => Some(*id),
                _ => None,
            })
            .collect()
    };
    for (piece, bytes) in pieces(&far.objects) {
        let run = IndexRun::open(&secrets, &bytes).unwrap();
        let listed: BTreeSet<ChunkId> = run.chunks.iter().map(|chunk| chunk.id).collect();
        let (is_meta, other) = match piece.number % 2 {
            0 => (true, PackKind::Data),
            _ => (false, PackKind::Meta),
        };
        assert_eq!(meta.is_subset(&listed), is_meta);
        assert!(run.packs.iter().all(|pack| pack.kind != other));
        assert!(run.packs.iter().any(|pack| pack.kind == PackKind::Mixed));
    }
    let vault = far.open(&far.fixture.elsewhere());
    assert!(files(&vault, &id).unwrap().contains(&("big".to_owned(), big)));
}

#[test]
fn a_near_place_has_no_runs() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    add(&vault, 1);
    gc(&vault);
    assert!(pieces(&store).is_empty());
}
