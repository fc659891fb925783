//! Runs that are torn, cut, zeroed or flipped: noticed, dropped, never believed.

use std::{fs, ops::ControlFlow, path::PathBuf};

use drystone_index::{Error, Index, Options};

use crate::make::{chunk, pack, pack_id, span};

const PACKS: u64 = 3;
const CHUNKS: u64 = 60;

/// A directory with one run of several blocks, its path and its bytes.
fn one_run() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), Options::default()).unwrap();
    for number in 0..PACKS {
        index
            .insert(pack(number, number * CHUNKS..(number + 1) * CHUNKS))
            .unwrap();
    }
    index.flush().unwrap();
    let mut files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let run = files
        .find(|path| path.extension().is_some_and(|suffix| suffix == "run2"))
        .unwrap();
    let bytes = fs::read(&run).unwrap();
    (dir, run, bytes)
}

/// Opens, looks everything up twice and merges. Whatever is found is right, and what is known at the end is whole.
fn check(dir: &tempfile::TempDir, what: &str) -> Index {
    let index = Index::open(dir.path(), Options::default()).unwrap();
    for round in 0..2 {
        for number in 0..PACKS * CHUNKS {
            let right = span(number / CHUNKS, number).at(pack_id(number / CHUNKS));
            let found = index.get(&chunk(number)).unwrap();
            assert!(found.is_none_or(|found| found == right), "{what}");
            let known = index.has_pack(&right.pack).is_some();
            assert!(
                round == 0 || known == found.is_some(),
                "{what}: a known pack lacks a chunk"
            );
        }
    }
    index
}

#[test]
fn flipped_bits_are_noticed_everywhere() {
    let (dir, run, bytes) = one_run();
    for at in (0..bytes.len()).step_by(11).chain(bytes.len() - 120..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&run, &damaged).unwrap();
        let index = check(&dir, &format!("byte {at}"));
        assert_eq!(
            index.stats().dropped_runs,
            1,
            "byte {at} of {} went unnoticed",
            bytes.len()
        );
        assert!(!run.exists() && index.packs().is_empty());
        index.insert(pack(0, 0..CHUNKS)).unwrap();
        assert!(index.contains(&chunk(7)).unwrap(), "the index works on");
    }
    fs::write(&run, &bytes).unwrap();
    assert_eq!(check(&dir, "undamaged").packs().len() as u64, PACKS);
}

#[test]
fn cut_zeroed_and_foreign_files_are_dropped() {
    let (dir, run, bytes) = one_run();
    for length in (0..bytes.len()).step_by(53) {
        fs::write(&run, &bytes[..length]).unwrap();
        assert_eq!(check(&dir, "cut").stats().dropped_runs, 1);
    }
    for at in (0..bytes.len() - 2048).step_by(512) {
        let mut damaged = bytes.clone();
        damaged[at..at + 2048].fill(0);
        fs::write(&run, &damaged).unwrap();
        assert_eq!(check(&dir, "zeroed").stats().dropped_runs, 1, "zeroed at {at}");
    }
    let swapped = [&bytes[2048..4096], &bytes[..2048], &bytes[4096..]].concat();
    fs::write(&run, swapped).unwrap();
    assert_eq!(check(&dir, "blocks in another order").stats().dropped_runs, 1);
    fs::write(&run, [bytes.clone(), vec![0]].concat()).unwrap();
    assert_eq!(check(&dir, "longer").stats().dropped_runs, 1);
    fs::write(&run, "no run at all").unwrap();
    assert_eq!(check(&dir, "foreign").stats().dropped_runs, 1);
    fs::write(dir.path().join("other.run3"), "of a newer version").unwrap();
    fs::write(dir.path().join("notes.txt"), "of somebody").unwrap();
    check(&dir, "others");
    assert!(dir.path().join("other.run3").exists() && dir.path().join("notes.txt").exists());
}

#[test]
fn merging_and_scanning_do_not_spread_damage() {
    let (dir, run, bytes) = one_run();
    for at in [5, 2048 + 40, 3 * 2048 + 2045] {
        fs::write(&run, &bytes).unwrap();
        let index = Index::open(dir.path(), Options::default()).unwrap();
        index.insert(pack(9, 900..1000)).unwrap();
        index.flush().unwrap();
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&run, &damaged).unwrap();
        if at == 5 {
            let outcome = index.scan(&mut |_, _| ControlFlow::Continue(()));
            assert!(matches!(outcome, Err(Error::Damaged { path }) if path == run));
        } else {
            index.merge().unwrap();
        }
        let known: Vec<_> = index.packs().iter().map(|info| info.pack).collect();
        assert_eq!(known, [pack_id(9)], "only the undamaged run is left");
        assert_eq!(Index::open(dir.path(), Options::default()).unwrap().packs().len(), 1);
        Index::clear(dir.path()).unwrap();
    }
}

#[test]
fn a_directory_that_is_none_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Index::open(&file, Options::default()).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}
