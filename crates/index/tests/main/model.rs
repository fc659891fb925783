//! Random sequences of operations against a map in memory, with a second user of the same directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use drystone_format::ChunkId;
use drystone_index::{Index, Location, Options, PackEntries};
use proptest::prelude::*;

use crate::make::{pack_id, span};

const PACKS: u64 = 24;
const CHUNKS: u64 = 120;

#[derive(Debug, Clone)]
enum Operation {
    Insert(u64),
    Retain(u32),
    Flush,
    Merge,
    Refresh,
    Reopen,
    OtherMerges,
    OtherInserts(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0..PACKS).prop_map(Operation::Insert),
        2 => any::<u32>().prop_map(Operation::Retain),
        4 => Just(Operation::Flush),
        2 => Just(Operation::Merge),
        1 => Just(Operation::Refresh),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::OtherMerges),
        3 => (0..PACKS).prop_map(Operation::OtherInserts),
    ]
}

/// Ids of which every third begins with the same bytes, as a writer might craft them.
fn chunk(number: u64) -> ChunkId {
    let mut id = crate::make::chunk(number);
    if number.is_multiple_of(3) {
        id.0[..12].fill(0x55);
    }
    id
}

/// Packs overlap widely, and some list a chunk twice.
fn chunks_of(pack: u64) -> Vec<u64> {
    (0..10 + pack * 3)
        .map(|at| (pack * 17 + at * (1 + pack % 5)) % CHUNKS)
        .collect()
}

fn pack(number: u64) -> PackEntries {
    let mut entries = crate::make::pack(number, []);
    entries.chunks = chunks_of(number)
        .into_iter()
        .map(|at| (chunk(at), span(number, at)))
        .collect();
    entries
}

/// What `index` must say if it knows exactly these packs.
fn check(index: &Index, known: &BTreeSet<u64>) -> Result<(), TestCaseError> {
    let listed: BTreeSet<u64> = index.packs().iter().map(|info| info.pack_bytes - 1000).collect();
    prop_assert_eq!(&listed, known);
    let mut right: BTreeMap<ChunkId, BTreeSet<Location>> = BTreeMap::new();
    for number in known {
        for at in chunks_of(*number) {
            right
                .entry(chunk(at))
                .or_default()
                .insert(span(*number, at).at(pack_id(*number)));
        }
    }
    for at in 0..CHUNKS + 30 {
        let id = chunk(at);
        let locations = right.get(&id).cloned().unwrap_or_default();
        let found = index.get(&id).unwrap();
        prop_assert_eq!(found.is_some(), !locations.is_empty());
        prop_assert!(found.is_none_or(|found| locations.contains(&found)));
        let trusted = |number: u64| number % 3 == 1;
        let wanted = known
            .iter()
            .any(|number| trusted(*number) && chunks_of(*number).contains(&at));
        let found = index.get_where(&id, &|info| info.writer == [1; 32]).unwrap();
        prop_assert_eq!(found.is_some(), wanted);
        prop_assert!(found.is_none_or(|found| locations.contains(&found)));
    }
    let chunks: u64 = right.values().map(|locations| locations.len() as u64).sum();
    prop_assert_eq!(index.stats().chunks, chunks);
    prop_assert_eq!(index.stats().dropped_runs, 0);
    Ok(())
}

fn check_scan(index: &Index, known: &BTreeSet<u64>) -> Result<(), TestCaseError> {
    let mut scanned: Vec<(ChunkId, Location)> = Vec::new();
    index
        .scan(&mut |id, location| {
            scanned.push((*id, *location));
            ControlFlow::Continue(())
        })
        .unwrap();
    prop_assert!(scanned.is_sorted_by_key(|(id, _)| *id));
    scanned.sort();
    let mut right: Vec<_> = known
        .iter()
        .flat_map(|number| {
            chunks_of(*number)
                .into_iter()
                .map(|at| (chunk(at), span(*number, at).at(pack_id(*number))))
        })
        .collect();
    right.sort();
    right.dedup();
    prop_assert_eq!(scanned, right);
    Ok(())
}

fn run(memory_bytes: usize, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { memory_bytes };
    let mut index = Index::open(dir.path(), options).unwrap();
    let other = Index::open(dir.path(), options).unwrap();
    let mut known = BTreeSet::new();
    let mut ever = BTreeSet::new();
    for operation in operations {
        match operation {
            Operation::Insert(number) => {
                index.insert(pack(number)).unwrap();
                known.insert(number);
                ever.insert(number);
            }
            Operation::Retain(live) => {
                let is_live = |number: u64| live >> number & 1 == 1;
                let gone = known.iter().filter(|number| !is_live(**number)).count();
                let live_ids: BTreeSet<_> = (0..PACKS).filter(|number| is_live(*number)).map(pack_id).collect();
                prop_assert_eq!(index.retain(&|pack| live_ids.contains(pack)).unwrap(), gone);
                known.retain(|number| is_live(*number));
            }
            Operation::Flush => index.flush().unwrap(),
            Operation::Merge => index.merge().unwrap(),
            Operation::Refresh => index.refresh().unwrap(),
            Operation::Reopen => {
                index.flush().unwrap();
                drop(index);
                index = Index::open(dir.path(), options).unwrap();
            }
            Operation::OtherMerges => other.merge().unwrap(),
            Operation::OtherInserts(number) => {
                other.insert(pack(number)).unwrap();
                other.flush().unwrap();
                ever.insert(number);
            }
        }
        // What the other wrote, and what was forgotten and is still on disk, may come in; nothing that is known may leave.
        let listed: BTreeSet<u64> = index.packs().iter().map(|info| info.pack_bytes - 1000).collect();
        prop_assert!(
            known.is_subset(&listed) && listed.is_subset(&ever),
            "{known:?} {listed:?} {ever:?}"
        );
        known = listed;
        check(&index, &known)?;
        let others: BTreeSet<u64> = other.packs().iter().map(|info| info.pack_bytes - 1000).collect();
        check(&other, &others)?;
    }
    index.flush().unwrap();
    let listed = index.packs().iter().map(|info| info.pack_bytes - 1000).collect();
    check_scan(&index, &listed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_index_agrees_with_a_map(
        memory_bytes in prop_oneof![Just(4 << 10), Just(24 << 10), Just(1 << 20)],
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        run(memory_bytes, operations)?;
    }
}
