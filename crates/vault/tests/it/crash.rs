//! The crash matrix: power cut after every change of a session, and a full disk at every put (I1, I2).

use std::sync::Arc;

use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_store::crash::{Cut, InFlight};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Crash, Fail, Memory, Op, Store};
use drystone_vault::{Error, NewLock, NewSlot, Vault};

use crate::support::{Fixture, back_up, check, files, lines, noise, watched};

type Files = Vec<(&'static str, Vec<u8>)>;

fn source(number: u64) -> Files {
    vec![
        (if number == 0 { "a" } else { "b" }, noise(2 + number, 90_000)),
        ("common", noise(1, 60_000)),
    ]
}

fn back_up_files(vault: &Vault, files: &Files) -> drystone_vault::Result<(RootId, drystone_vault::Finished)> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    back_up(vault, &files)
}

/// Creates a vault, adds a key, and backs up twice; what was acknowledged until it failed.
fn session(fixture: &Fixture, store: Arc<dyn Store>) -> (Vec<(RootId, u64)>, drystone_vault::Result<()>) {
    let mut published = Vec::new();
    let mut run = || {
        let vault = fixture.create(store.clone())?;
        vault.add_key(&NewSlot {
            lock: NewLock::Recipient(fixture.recipient.clone()),
            label: "second".to_owned(),
            role: Role::Owner,
        })?;
        for number in [0, 1] {
            let vault = fixture.open(store.clone())?;
            published.push((back_up_files(&vault, &source(number))?.0, number));
        }
        Ok(())
    };
    let outcome = run();
    (published, outcome)
}

/// What is left after a cut is a vault in which everything published is whole, and which takes the next backup.
fn assert_goes_on(fixture: &Fixture, left: Memory, published: &[(RootId, u64)], case: &str) {
    let (before, left) = (left.contents(), Arc::new(left));
    let data_packs = before.values().filter(|object| object.len() > 50_000).count();
    let vault = match fixture.open(left.clone()) {
        Err(Error::NoVault { .. }) => {
            assert!(before.is_empty(), "{case}: {before:?}");
            fixture.create(left.clone()).unwrap()
        }
        opened => opened.unwrap_or_else(|error| panic!("{case}: {error}")),
    };
    if !vault.warnings().is_empty() {
        assert!(
            !before.contains_key(&drystone_store::Name::header()),
            "{case}: {:?}",
            vault.warnings()
        );
        vault.repair_header().unwrap();
        // The header comes last: the configuration may be missing as well.
        if vault.in_force().is_none() {
            vault.resolve_config(None).unwrap();
        }
    }
    let vault = fixture.open(left).unwrap();
    assert!(vault.warnings().is_empty(), "{case}");
    let (listed, problems) = vault.snapshots().unwrap();
    assert!(problems.is_empty(), "{case}");
    for (id, number) in published {
        assert!(
            listed.iter().any(|(found, _)| found == id),
            "{case}: acknowledged and gone"
        );
        assert_files(&vault, id, &source(*number), case);
    }
    for (id, _) in &listed {
        let found = files(&vault, id).unwrap_or_else(|error| panic!("{case}: published and not whole: {error}"));
        let number = u64::from(found.iter().any(|(name, _)| name == "b"));
        assert_files(&vault, id, &source(number), case);
    }
    let (id, finished) = back_up_files(&vault, &source(1)).unwrap();
    assert_files(&vault, &id, &source(1), case);
    assert!(
        data_packs == 0 || finished.new_bytes < 150_000,
        "{case}: nothing is reused: {finished:?}"
    );
    assert_eq!(lines(&check(&vault).problems), "", "{case}");
}

fn assert_files(vault: &Vault, id: &RootId, expected: &Files, case: &str) {
    let expected = expected.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    assert!(files(vault, id).unwrap().into_iter().eq(expected), "{case}");
}

#[test]
fn power_is_cut_after_every_change() {
    let whole = Arc::new(Crash::new(Memory::new(), None));
    let (published, outcome) = session(&Fixture::new(), whole.clone());
    outcome.unwrap();
    // A presence comes and goes with each backup; the configuration lies there twice.
    assert_eq!((published.len(), whole.changes()), (2, 9 + 4));
    for after_changes in 0..whole.changes() {
        for in_flight in [InFlight::Lost, InFlight::Kept] {
            let case = format!("cut after {after_changes}, in flight {in_flight:?}");
            let cut = Cut {
                after_changes,
                in_flight,
            };
            let (fixture, store) = (Fixture::new(), Arc::new(Crash::new(Memory::new(), Some(cut))));
            let (fixture, published) = watched({
                let store = store.clone();
                move || {
                    let (published, outcome) = session(&fixture, store);
                    // That its presence stays is no reason for a run to fail.
                    match outcome {
                        Ok(()) => assert_eq!((published.len(), after_changes), (2, 12)),
                        Err(error) => assert!(error.to_string().contains("the power was cut"), "{error}"),
                    }
                    (fixture, published)
                }
            });
            assert!(store.is_down());
            assert_goes_on(&fixture.elsewhere(), store.reopen(), &published, &case);
            assert_goes_on(&fixture, store.reopen(), &published, &case);
        }
    }
}

#[test]
fn the_disk_is_full_at_every_put() {
    // The first put is the presence.
    for nth in 2..=3 {
        let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
        fixture.create(memory.clone()).unwrap();
        let before = memory.contents().len();
        let store = Arc::new(Fail::new(memory.clone()));
        store.add(Fault::error(Op::Put, Failure::Full).nth(nth));
        let vault = fixture.open(store.clone()).unwrap();
        let error = back_up_files(&vault, &source(0)).unwrap_err();
        assert!(error.to_string().contains("no space is left"), "put {nth}: {error}");
        assert!(!error.is_damage());
        assert!(vault.snapshot_ids().unwrap().is_empty());
        // The pack, and the presence of a run whose root may still arrive.
        assert!(memory.contents().len() <= before + 2);
        let left = memory.contents().values().map(bytes::Bytes::len).sum::<usize>();
        let (id, finished) = back_up_files(&vault, &source(0)).unwrap();
        assert_eq!(finished.packs, 3 - nth, "put {nth}: {finished:?}");
        assert_eq!(finished.new_bytes < 150_000, left > 100_000, "put {nth}: {finished:?}");
        assert_files(&vault, &id, &source(0), "full");
        assert_eq!(lines(&check(&vault).problems), "");
    }
}

/// A place that fills up under a run that keeps every queue full: who waits is told, and told why.
#[test]
fn a_run_over_a_full_disk_ends_with_the_reason() {
    for nth in [2, 3] {
        let big = noise(nth, 36 << 20);
        let (fixture, store) = (Fixture::new(), Arc::new(Fail::new(Arc::new(Memory::new()))));
        let vault = fixture.create(store.clone()).unwrap();
        store.add(Fault::error(Op::Put, Failure::Full).nth(nth));
        let error = watched(move || back_up(&vault, &[("big", &big)]).unwrap_err());
        assert!(
            matches!(error, Error::Store(drystone_store::Error::Full { .. })),
            "{error}"
        );
    }
}
