//! Several runs, lanes and processes at once, and runs that are stopped.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use drystone_format::codec::Compression;
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Fail, Memory, Op};
use drystone_vault::{Cancel, Error, FillError, FrameSize, Ingest, IngestOptions, Vault};

use crate::support::{Fixture, back_up, check, files, ingest, lines, noise, watched};

/// Backs up overlapping files from a thread for each vault and reads everything back from each.
fn assert_parallel(vaults: Vec<Arc<Vault>>) {
    let both = noise(500, 200_000);
    let start = Barrier::new(vaults.len());
    let results: Vec<_> = std::thread::scope(|scope| {
        let (start, both) = (&start, &both);
        let run = |(number, vault): (usize, &Arc<Vault>)| {
            let vault = vault.clone();
            scope.spawn(move || {
                let own = noise(600 + number as u64, 100_000);
                start.wait();
                let (id, finished) = back_up(&vault, &[("both", both), ("own", &own)]).unwrap();
                (id, own, finished)
            })
        };
        let threads: Vec<_> = vaults.iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for vault in &vaults {
        for (id, own, _) in &results {
            let expected = [("both".to_owned(), both.clone()), ("own".to_owned(), own.clone())];
            // What another instance has stored since this one compared itself with the place is not known to it.
            match files(vault, id) {
                Ok(found) => assert!(found == expected),
                Err(error) => assert!(matches!(error, Error::MissingChunk { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn several_runs_in_one_vault() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = Arc::new(fixture.create(store.clone()).unwrap());
    assert_parallel(vec![vault; 4]);
    assert_clean(&fixture, &store, 4);
}

#[test]
fn several_vaults_with_one_cache() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    fixture.create(store.clone()).unwrap();
    let open = |_| Arc::new(fixture.open(store.clone()).unwrap());
    assert_parallel((0..4).map(open).collect());
    assert_clean(&fixture, &store, 4);
    let epoch = fixture.open(store.clone()).unwrap().loss_epoch().unwrap();
    assert_eq!(fixture.open(store).unwrap().loss_epoch().unwrap(), epoch);
}

#[test]
fn several_vaults_with_a_cache_each() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    fixture.create(store.clone()).unwrap();
    let machines: Vec<Fixture> = (0..4).map(|_| fixture.elsewhere()).collect();
    let open = |machine: &Fixture| Arc::new(machine.open(store.clone()).unwrap());
    assert_parallel(machines.iter().map(open).collect());
    assert_clean(&fixture, &store, 4);
    assert_eq!(fixture.open(store).unwrap().loss_epoch().unwrap(), 0);
}

/// Freshly opened, the vault has that many snapshots, all whole.
fn assert_clean(fixture: &Fixture, store: &Arc<Memory>, snapshots: u64) {
    let vault = fixture.open(store.clone()).unwrap();
    for id in vault.snapshot_ids().unwrap() {
        assert_eq!(files(&vault, &id).unwrap().len(), 2);
    }
    let report = check(&vault);
    assert_eq!((lines(&report.problems).as_str(), report.snapshots), ("", snapshots));
}

#[test]
fn lanes_share_what_they_take_in() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store).unwrap();
    let bytes = noise(7, 2 << 20);
    let ingest = ingest(&vault);
    let recipes: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            let mut lane = ingest.lane();
            let mut content = lane.content();
            content.write(&bytes).unwrap();
            let recipe = content.finish().unwrap();
            lane.finish().unwrap();
            recipe
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let finished = ingest.finish().unwrap();
    assert!(
        (bytes.len() as u64..bytes.len() as u64 * 11 / 10).contains(&finished.new_bytes),
        "{finished:?}"
    );
    assert!(recipes.iter().all(|recipe| *recipe == recipes[0]));
    let reader = vault.reader().unwrap();
    assert!(crate::support::content(&reader, &recipes[3]).unwrap() == bytes);
}

#[test]
fn a_lane_that_is_dropped_keeps_the_run_from_finishing() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store).unwrap();
    let ingest = ingest(&vault);
    let mut lane = ingest.lane();
    let mut content = lane.content();
    content.write(&noise(8, 50_000)).unwrap();
    content.finish().unwrap();
    drop(lane);
    let error = watched(move || ingest.finish().unwrap_err());
    assert!(matches!(error, Error::Unstored { chunks } if chunks > 5), "{error}");
    assert!(vault.snapshot_ids().unwrap().is_empty());
    // The next run does not rely on what was promised.
    let (id, finished) = back_up(&vault, &[("x", &noise(8, 50_000))]).unwrap();
    assert!(finished.new_bytes >= 50_000);
    assert_eq!(files(&vault, &id).unwrap()[0].1, noise(8, 50_000));
}

fn with_cancel(vault: &Vault, cancel: &Cancel) -> Ingest {
    let options = IngestOptions {
        compression: Compression::DEFAULT,
        frames: FrameSize::default(),
        progress: Arc::default(),
        cancel: cancel.clone(),
    };
    vault.ingest(options).unwrap()
}

/// Feeds `lane` without end until it fails.
fn feed(ingest: &Ingest, seed: u64) -> Error {
    let mut lane = ingest.lane();
    let mut content = lane.content();
    let piece = noise(seed, 1 << 20);
    for at in 0u64.. {
        let mut read = |room: &mut [u8]| {
            let count = room.len().min(piece.len());
            room[..count].copy_from_slice(&piece[..count]);
            // So that no chunk comes twice.
            for block in room[..count / 1024 * 1024].chunks_exact_mut(1024) {
                block[..8].copy_from_slice(&at.to_le_bytes());
            }
            Ok(count)
        };
        match content.fill(&mut read) {
            Ok(_) => {}
            Err(FillError::Vault(error)) => return error,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn cancelling_stops_lanes_and_threads() {
    let (fixture, store) = (Fixture::new(), Arc::new(Fail::new(Arc::new(Memory::new()))));
    let vault = fixture.create(store.clone()).unwrap();
    store.add(Fault::delay(Op::Put, Duration::from_millis(20)));
    let (cancel, first) = (Cancel::default(), noise(1, 100_000));
    back_up(&vault, &[("x", &first)]).unwrap();
    let ingest = with_cancel(&vault, &cancel);
    let errors = watched({
        let cancel = cancel.clone();
        move || {
            let errors = std::thread::scope(|scope| {
                let ingest = &ingest;
                // The same bytes in both, so that one of them mostly meets what is known.
                let threads: Vec<_> = (0..3).map(|at| scope.spawn(move || feed(ingest, at / 2))).collect();
                while ingest.new_chunks() == 0 {
                    std::thread::yield_now();
                }
                cancel.cancel();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect::<Vec<_>>()
            });
            let last = ingest.finish().unwrap_err();
            errors.into_iter().chain([last]).collect::<Vec<_>>()
        }
    });
    assert!(
        errors.iter().all(|error| matches!(error, Error::Interrupted)),
        "{errors:?}"
    );
    assert_eq!(vault.snapshot_ids().unwrap().len(), 1);
    let (id, _) = back_up(&vault, &[("y", &first)]).unwrap();
    assert_eq!(files(&vault, &id).unwrap()[0].1, first);
    assert_eq!(lines(&check(&fixture.open(store).unwrap()).problems), "");
}

#[test]
fn lanes_that_wait_are_told_when_the_place_fails() {
    for _ in 0..3 {
        let (fixture, store) = (Fixture::new(), Arc::new(Fail::new(Arc::new(Memory::new()))));
        let vault = fixture.create(store.clone()).unwrap();
        let ingest = with_cancel(&vault, &Cancel::default());
        store.add(Fault::error(Op::Put, Failure::Denied));
        let errors = watched(move || {
            std::thread::scope(|scope| {
                let ingest = &ingest;
                let threads: Vec<_> = (0..3).map(|at| scope.spawn(move || feed(ingest, at))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect::<Vec<_>>()
            })
        });
        let reasons = errors.iter().filter(|error| matches!(error, Error::Store(_))).count();
        let stopped = errors.iter().filter(|error| matches!(error, Error::Stopped)).count();
        assert_eq!((reasons, stopped), (1, 2), "{errors:?}");
    }
}

#[test]
fn an_ingest_that_is_dropped_leaves_no_thread_behind() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store).unwrap();
    let ingest = ingest(&vault);
    let mut lane = ingest.lane();
    watched(move || drop(ingest));
    let mut content = lane.content();
    let error = content.write(&noise(1, 3 << 20)).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
}

#[test]
fn of_two_that_create_a_vault_at_once_one_is_told() {
    for _ in 0..8 {
        let store = Arc::new(Memory::new());
        let fixtures = [Fixture::new(), Fixture::new()];
        let start = Barrier::new(2);
        let created: Vec<bool> = std::thread::scope(|scope| {
            let run = |fixture: &Fixture| {
                start.wait();
                match fixture.create(store.clone()) {
                    Ok(_) => true,
                    Err(Error::VaultExists { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let threads = fixtures.each_ref().map(|fixture| scope.spawn(move || run(fixture)));
            threads.map(|thread| thread.join().unwrap()).to_vec()
        });
        for (fixture, created) in fixtures.iter().zip(&created) {
            assert_eq!(fixture.open(store.clone()).is_ok(), *created);
        }
        assert!(
            created.iter().filter(|created| **created).count() <= 1,
            "two vaults in one place"
        );
    }
}

#[test]
fn a_backup_that_ends_during_a_check_is_not_missed() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let checking = fixture.create(store.clone()).unwrap();
    assert_eq!(checking.stats().unwrap().chunks, 0);
    back_up(&fixture.elsewhere().open(store).unwrap(), &[("x", &noise(1, 100_000))]).unwrap();
    let report = check(&checking);
    assert_eq!((lines(&report.problems).as_str(), report.snapshots), ("", 1));
    assert_eq!(checking.loss_epoch().unwrap(), 0);
}
