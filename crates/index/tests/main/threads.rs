//! Many threads on one index.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use drystone_index::{Index, Options};

use crate::{
    crash::chunks_of,
    make::{chunk, pack, pack_id, span},
};

#[test]
fn what_one_thread_inserted_the_others_find_while_runs_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), Options { memory_bytes: 64 << 10 }).unwrap();
    let inserted = [const { AtomicU64::new(0) }; 2];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (index, inserted, done) = (&index, &inserted, &done);
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                scope.spawn(move || {
                    for number in 0..300 {
                        let number = writer * 10_000 + number;
                        index.insert(pack(number, chunks_of(number))).unwrap();
                        inserted[writer as usize].store(number + 1, Ordering::Release);
                    }
                })
            })
            .collect();
        for reader in 0..2u64 {
            scope.spawn(move || {
                let mut looked_up = 0u64;
                while !done.load(Ordering::Relaxed) {
                    let writer = looked_up % 2;
                    let end = inserted[writer as usize].load(Ordering::Acquire);
                    if let Some(count) = end.checked_sub(writer * 10_000).filter(|count| *count > 0) {
                        let number = writer * 10_000 + (looked_up * 7 + reader) % count;
                        let at = chunks_of(number).nth((looked_up % 30) as usize).unwrap();
                        let found = index
                            .get_where(&chunk(at), &|info| info.pack == pack_id(number))
                            .unwrap();
                        assert_eq!(found, Some(span(number, at).at(pack_id(number))), "pack {number}");
                    }
                    looked_up += 1;
                }
            });
        }
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                index.merge().unwrap();
                index.refresh().unwrap();
                index.flush().unwrap();
            }
        });
        let outcomes: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    assert_eq!(index.packs().len(), 600);
    assert_eq!(index.stats().dropped_runs, 0);
}
