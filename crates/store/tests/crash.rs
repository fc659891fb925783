//! The crash store: a cut at every change, and every fate of what is in flight.

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_store::crash::{Cut, InFlight};
use drystone_store::{Crash, Memory, Range, Store};
use tokio::task::JoinSet;

use crate::pack;

#[tokio::test]
async fn one_after_the_other_exactly_the_answered_and_the_chosen_remain() {
    for after_changes in 0..6 {
        for (in_flight, kept) in [
            (InFlight::Lost, 0),
            (InFlight::Kept, 1),
            (InFlight::Mixed(2), 0),
            (InFlight::Mixed(1), 1),
        ] {
            let store = Crash::new(
                Memory::new(),
                Some(Cut {
                    after_changes,
                    in_flight,
                }),
            );
            let mut answered = 0;
            for n in 0..5 {
                let (name, bytes) = pack(n, 100);
                match store.put(&name, bytes).await {
                    Ok(_) => answered += 1,
                    Err(error) => assert!(error.is_transient()),
                }
            }
            assert_eq!(
                (answered, store.changes()),
                (after_changes.min(5), after_changes.min(5))
            );
            assert_eq!(store.is_down(), after_changes < 5);
            let left = store.reopen();
            assert_eq!(
                left.contents().len() as u64,
                (after_changes + kept).min(5),
                "{in_flight:?}"
            );
            for n in 0..answered {
                let (name, bytes) = pack(n, 100);
                assert_eq!(left.get(&name, Range::All).await.unwrap(), bytes);
            }
        }
    }
}

#[tokio::test]
async fn a_delete_in_flight_is_done_or_undone() {
    for (in_flight, left) in [(InFlight::Lost, 1), (InFlight::Kept, 0)] {
        let store = Crash::new(
            Memory::new(),
            Some(Cut {
                after_changes: 1,
                in_flight,
            }),
        );
        let (name, bytes) = pack(1, 100);
        store.put(&name, bytes).await.unwrap();
        store.delete(&name).await.unwrap_err();
        store.get(&name, Range::All).await.unwrap_err();
        assert_eq!(store.reopen().contents().len(), left);
    }
}

#[tokio::test]
async fn several_in_flight_remain_in_any_combination() {
    let mut seen = BTreeSet::new();
    for bits in 0..8 {
        let store = Arc::new(Crash::new(
            Memory::new(),
            Some(Cut {
                after_changes: 0,
                in_flight: InFlight::Mixed(bits),
            }),
        ));
        let mut writers = JoinSet::new();
        for n in 0..3 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let (name, bytes) = pack(n, 100);
                store.put(&name, bytes).await.unwrap_err();
            });
        }
        writers.join_all().await;
        seen.insert(
            store
                .reopen()
                .contents()
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(seen.len(), 8, "all subsets of three puts: {seen:?}");
}
