//! What the index promises, one promise a test.

use std::ops::ControlFlow;

use drystone_index::{Index, Options};

use crate::make::{chunk, pack, pack_id, span};

fn small() -> Options {
    Options { memory_bytes: 64 << 10 }
}

#[test]
fn what_was_inserted_is_found_at_once_and_after_flush_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), small()).unwrap();
    let check = |index: &Index| {
        for number in 0..5000u64 {
            assert_eq!(
                index.get(&chunk(number)).unwrap(),
                Some(span(number / 100, number).at(pack_id(number / 100)))
            );
        }
        for number in 5000..6000 {
            assert!(!index.contains(&chunk(number)).unwrap());
        }
        assert_eq!(index.stats().chunks, 5000);
        assert_eq!(index.packs().len(), 50);
        assert_eq!(index.has_pack(&pack_id(7)).unwrap().chunk_count, 100);
        assert_eq!(index.has_pack(&pack_id(7)).unwrap().pack_bytes, 1007);
    };
    for number in 0..50 {
        index.insert(pack(number, number * 100..number * 100 + 100)).unwrap();
    }
    check(&index);
    index.flush().unwrap();
    check(&index);
    index.merge().unwrap();
    check(&index);
    let again = Index::open(dir.path(), small()).unwrap();
    check(&again);
    let mut seen = Vec::new();
    again
        .scan(&mut |id, location| {
            seen.push((*id, *location));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen.len(), 5000);
    assert!(seen.is_sorted());
}
