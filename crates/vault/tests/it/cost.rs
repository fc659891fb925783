//! What operations cost: the calls that they make to the place.

use std::sync::Arc;

use drystone_store::record::Call;
use drystone_store::{Memory, Op, Record};

use drystone_format::keys::Role;
use drystone_vault::{Cancel, FrameSize, GcOptions, IngestOptions, Progress};

use crate::support::{Fixture, add_key, back_up, content, files, ingest, noise, secrets};

/// The calls as `op what`, where what is the first part of the name.
fn shown(calls: &[Call]) -> Vec<String> {
    let mut shown: Vec<String> = calls
        .iter()
        .map(|call| {
            let kind = call.name.split('/').next().unwrap();
            format!("{:?} {kind}", call.op).to_lowercase()
        })
        .collect();
    shown.sort();
    shown
}

fn recorded() -> (Fixture, Arc<Record>) {
    let (fixture, store) = (Fixture::new(), Arc::new(Record::new(Arc::new(Memory::new()))));
    let vault = fixture.create(store.clone()).unwrap();
    let big = noise(1, 300_000);
    back_up(&vault, &[("big", &big), ("small", b"a few bytes")]).unwrap();
    store.take();
    (fixture, store)
}

#[test]
fn opening_with_a_warm_cache_costs_header_keys_and_one_listing() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    // Each listing ends with an empty page, since a short one says nothing.
    assert_eq!(
        shown(&store.take()),
        [
            "get config",
            "get drystone",
            "get keys",
            "list config",
            "list config",
            "list keys",
            "list keys"
        ]
    );
    vault.loss_epoch().unwrap();
    // No epoch of gc: the first page is the empty one.
    assert_eq!(shown(&store.take()), ["list epochs", "list packs", "list packs"]);
    vault.loss_epoch().unwrap();
    vault.reader().unwrap();
    assert_eq!(shown(&store.take()), [""; 0]);
}

#[test]
fn opening_with_a_cold_cache_reads_the_tail_of_each_pack_once() {
    let (fixture, store) = recorded();
    let vault = fixture.elsewhere().open(store.clone()).unwrap();
    store.take();
    vault.loss_epoch().unwrap();
    let calls = store.take();
    assert_eq!(shown(&calls), ["get packs", "list epochs", "list packs", "list packs"]);
    assert!(calls.iter().map(|call| call.bytes).sum::<u64>() <= 65 << 10);
}

#[test]
fn an_unchanged_backup_stores_one_root() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    let big = noise(1, 300_000);
    back_up(&vault, &[("big", &big), ("small", b"a few bytes")]).unwrap();
    let calls = store.take();
    let written: Vec<&Call> = calls
        .iter()
        .filter(|call| !matches!(call.op, Op::Get | Op::List))
        .collect();
    // Registers, publishes, leaves: the root and two small requests.
    let kinds: Vec<(Op, &str)> = written
        .iter()
        .map(|call| (call.op, call.name.split('/').next().unwrap()))
        .collect();
    assert_eq!(
        kinds,
        [(Op::Put, "writers"), (Op::Put, "roots"), (Op::Delete, "writers")]
    );
    assert!(written[0].bytes < 400 && written[1].bytes < 2000, "{written:?}");
    // Before anything is relied upon, and before the snapshot is reported.
    let epochs = calls.iter().filter(|call| call.name.starts_with("epochs/"));
    assert_eq!(epochs.count(), 3 + 1, "the first of them when the index was opened");
    assert!(
        !calls
            .iter()
            .any(|call| call.op == Op::Get && call.name.starts_with("packs/"))
    );
}

#[test]
fn a_small_file_costs_an_end_and_a_range_of_each_pack() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    let id = vault.snapshot_ids().unwrap()[0];
    let reader = vault.reader().unwrap();
    store.take();
    let tree = vault.snapshot(&id).unwrap().tree;
    let small = reader
        .tree(&tree)
        .map(Result::unwrap)
        .find(|entry| entry.name == b"small");
    crate::support::content(&reader, small.unwrap().recipe().unwrap()).unwrap();
    assert_eq!(
        shown(&store.take()),
        ["get packs", "get packs", "get packs", "get roots"],
        "the end of the one pack, and a frame of each kind"
    );
    files(&vault, &id).unwrap();
    assert_eq!(shown(&store.take()), ["get roots"], "frames are kept");
}

#[test]
fn a_run_that_takes_in_nothing_registers_and_leaves() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    vault.loss_epoch().unwrap();
    store.take();
    ingest(&vault).finish().unwrap();
    assert_eq!(
        shown(&store.take()),
        [
            "delete writers",
            "list config",
            "list config",
            "list epochs",
            "put writers"
        ]
    );
}

#[test]
fn gc_reads_trees_and_what_it_copies_and_lists_everything_else() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    vault.loss_epoch().unwrap();
    store.take();
    // The first run puts a ledger, since there is none.
    vault.gc(&GcOptions::default()).unwrap();
    let puts = store.take().into_iter().filter(|call| call.op == Op::Put);
    let puts: Vec<String> = puts.map(|call| call.name[..6].to_owned()).collect();
    assert_eq!(puts, ["writer", "ledger"]);
    let vault = fixture.open(store.clone()).unwrap();
    vault.loss_epoch().unwrap();
    store.take();
    vault.gc(&GcOptions::default()).unwrap();
    let calls = store.take();
    let count = |op: Op, kind: &str| {
        let found = calls.iter().filter(|call| call.op == op && call.name.starts_with(kind));
        found.count()
    };
    // Nothing to do: its presence comes and goes, the tree is read once, packs are listed in four places (two pages each).
    assert_eq!((count(Op::Put, ""), count(Op::Delete, "")), (1, 1), "{calls:?}");
    assert_eq!(
        (count(Op::Get, "roots/"), count(Op::Get, "packs/")),
        (1, 2),
        "{calls:?}"
    );
    assert!(count(Op::List, "packs/") <= 8, "{calls:?}");
    assert_eq!(count(Op::Get, "ledger/"), 1, "{calls:?}");
    assert!(count(Op::List, "ledger/") <= 6, "{calls:?}");
    assert!(count(Op::List, "") <= 30, "{calls:?}");
}

/// The packs of the calls that were made since the last look, each with its size.
fn packs_put(store: &Record) -> Vec<u64> {
    let calls = store.take();
    let puts = calls
        .iter()
        .filter(|call| call.op == Op::Put && call.name.starts_with("packs/"));
    puts.map(|call| call.bytes).collect()
}

#[test]
fn a_small_backup_puts_one_pack_of_a_size_that_says_little() {
    let (fixture, store) = (Fixture::new(), Arc::new(Record::new(Arc::new(Memory::new()))));
    let vault = fixture.create(store.clone()).unwrap();
    for (seed, (bytes, size)) in (1..).zip([
        (1, 64 << 10),
        (40_000, 64 << 10),
        (70_000, 128 << 10),
        (900_000, 1 << 20),
    ]) {
        store.take();
        let file = noise(seed, bytes);
        let (id, finished) = back_up(&vault, &[("file", &file), ("other", b"few bytes")]).unwrap();
        assert_eq!(packs_put(&store), [size], "{bytes} bytes");
        assert_eq!((finished.packs, finished.stored_bytes), (1, size));
        assert!(files(&vault, &id).unwrap().contains(&("file".to_owned(), file)));
    }
    let stats = vault.stats().unwrap();
    assert_eq!((stats.data_packs, stats.meta_packs, stats.mixed_packs), (0, 0, 4));
    // What is more than one pack up to 1 MiB goes to packs of its kind.
    back_up(&vault, &[("large", &noise(9, 1_200_000))]).unwrap();
    let stats = vault.stats().unwrap();
    assert_eq!((stats.data_packs, stats.meta_packs, stats.mixed_packs), (1, 1, 4));
}

#[test]
fn a_run_keeps_the_tails_of_its_packs_for_its_root() {
    let store = Arc::new(Memory::new());
    let fixture = Fixture::new();
    fixture.create(store.clone()).unwrap();
    let vault = fixture.open(store.clone()).unwrap();
    let secrets = secrets(&fixture, &store);
    let (_, finished) = back_up(&vault, &[("file", &noise(1, 2_000_000))]).unwrap();
    let part = finished.index_part().unwrap();
    assert_eq!(part.packs().len() as u64, finished.packs);
    let mut numbers = Vec::new();
    for pack in part.packs() {
        let tail = pack.open(&secrets, &secrets.certificate.writer).unwrap();
        numbers.push((tail.preamble.registration_id(), tail.preamble.number));
        let name = drystone_store::Name::pack(&pack.id);
        assert_eq!(store.contents()[&name].len() as u64, pack.bytes);
    }
    numbers.sort_unstable();
    let registration = numbers[0].0;
    assert_eq!(
        numbers,
        [(registration, 0), (registration, 1)],
        "one registration, numbered without gaps"
    );
    let (_, empty) = back_up(&vault, &[("file", &noise(1, 2_000_000))]).unwrap();
    assert_eq!(empty.index_part().unwrap().packs().len(), 0);
    let writer = add_key(&vault, Role::Writer);
    let (_, by_writer) = back_up(&writer.open(store).unwrap(), &[("file", &noise(2, 100))]).unwrap();
    let part = by_writer.index_part().unwrap();
    assert!(
        part.packs()
            .all(|pack| pack.open(&secrets, &secrets.certificate.writer).is_err())
    );
}

#[test]
fn a_large_vault_makes_large_packs() {
    let (fixture, store) = (Fixture::new(), Arc::new(Record::new(Arc::new(Memory::new()))));
    let vault = fixture.create(store.clone()).unwrap();
    let stored = |vault_bytes, seed| {
        let options = IngestOptions {
            compression: drystone_format::codec::Compression::new(drystone_format::codec::Codec::None, None).unwrap(),
            frames: FrameSize::default(),
            progress: Arc::new(Progress::default()),
            cancel: Cancel::default(),
        };
        store.take();
        let ingest = vault.ingest_sized(vault_bytes, options).unwrap();
        let mut lane = ingest.lane();
        let file = noise(seed, 40 << 20);
        let mut stream = lane.content();
        stream.write(&file).unwrap();
        let recipe = stream.finish().unwrap();
        lane.finish().unwrap();
        ingest.finish().unwrap();
        assert_eq!(content(&vault.reader().unwrap(), &recipe).unwrap(), file);
        let mut mib: Vec<u64> = packs_put(&store).iter().map(|bytes| bytes >> 20).collect();
        mib.sort_unstable();
        mib.into_iter().filter(|mib| *mib > 1).collect::<Vec<u64>>()
    };
    // Packs end with the frame of 2 MiB in which they are full.
    assert_eq!(stored(0, 1), [4, 18, 18]);
    assert_eq!(stored(100 << 30, 2), [6, 34]);
    assert_eq!(stored(1 << 40, 3), [40]);
}
