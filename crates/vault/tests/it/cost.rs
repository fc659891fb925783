//! What operations cost: the calls that they make to the place.

use std::sync::Arc;

use drystone_store::record::Call;
use drystone_store::{Memory, Op, Record};

use drystone_vault::GcOptions;

use crate::support::{Fixture, back_up, files, ingest, noise};

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
            "get drystone",
            "get keys",
            "get place",
            "list keys",
            "list keys",
            "list places"
        ]
    );
    vault.index().unwrap();
    // No epoch of gc: the first page is the empty one.
    assert_eq!(shown(&store.take()), ["list epochs", "list packs", "list packs"]);
    vault.index().unwrap();
    vault.reader().unwrap();
    assert_eq!(shown(&store.take()), [""; 0]);
}

#[test]
fn opening_with_a_cold_cache_reads_the_tail_of_each_pack_once() {
    let (fixture, store) = recorded();
    let vault = fixture.elsewhere().open(store.clone()).unwrap();
    store.take();
    vault.index().unwrap();
    let calls = store.take();
    assert_eq!(
        shown(&calls),
        ["get packs", "get packs", "list epochs", "list packs", "list packs"]
    );
    assert!(calls.iter().map(|call| call.bytes).sum::<u64>() <= 2 * (64 << 10));
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
    assert_eq!(epochs.count(), 2 + 1, "the first of them when the index was opened");
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
        ["get packs", "get packs", "get packs", "get packs", "get roots"]
    );
    files(&vault, &id).unwrap();
    assert_eq!(shown(&store.take()), ["get roots"], "frames are kept");
}

#[test]
fn a_run_that_takes_in_nothing_costs_three_requests() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    vault.index().unwrap();
    store.take();
    ingest(&vault).finish().unwrap();
    assert_eq!(shown(&store.take()), ["delete writers", "list epochs", "put writers"]);
}

#[test]
fn gc_reads_trees_and_what_it_copies_and_lists_everything_else() {
    let (fixture, store) = recorded();
    let vault = fixture.open(store.clone()).unwrap();
    vault.index().unwrap();
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
    assert!(count(Op::List, "") <= 24, "{calls:?}");
}
