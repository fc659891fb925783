//! Processes that are killed, and processes that work side by side, in one directory.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use drystone_index::{Index, Options};

use crate::{
    child,
    make::{chunk, pack, pack_id, span},
};

/// The chunks that pack `number` holds where a test needs no others: some of its own, some shared with its neighbours.
pub(crate) fn chunks_of(number: u64) -> impl Iterator<Item = u64> {
    number * 20..number * 20 + 30
}

/// Small enough for a spill every few packs and a merge every few dozen.
fn small() -> Options {
    Options { memory_bytes: 32 << 10 }
}

/// Every pack that is known must be there with all its chunks. Returns how many are.
fn check_known(dir: &Path) -> usize {
    let index = Index::open(dir, small()).unwrap();
    assert_eq!(index.stats().dropped_runs, 0, "a killed process leaves no damaged runs");
    let known = index.packs();
    for info in &known {
        let number = info.pack_bytes - 1000;
        assert_eq!(info.pack, pack_id(number));
        for at in chunks_of(number) {
            let found = index.get_where(&chunk(at), &|other| other.pack == info.pack).unwrap();
            assert_eq!(
                found,
                Some(span(number, at).at(info.pack)),
                "chunk {at} of pack {number}"
            );
        }
    }
    let leftovers = std::fs::read_dir(dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("draft"));
    assert_eq!(leftovers.count(), 0, "drafts of the dead are removed");
    known.len()
}

#[test]
#[ignore = "started by killed_processes_leave_whole_packs"]
fn endless_child() {
    let Some((dir, first)) = child::started_with() else {
        return;
    };
    let index = Index::open(&dir, small()).unwrap();
    for number in first.. {
        index.insert(pack(number, chunks_of(number))).unwrap();
        match number % 7 {
            3 => index.flush().unwrap(),
            6 => index.merge().unwrap(),
            _ => {}
        }
        println!("{number}");
    }
}

#[test]
fn killed_processes_leave_whole_packs() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = 0;
    for round in 0..25u64 {
        let mut child = child::start("crash::endless_child", dir.path(), first);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let numbers = lines.filter_map(|line| line.trim().parse::<u64>().ok());
        first = 1 + numbers.take(5 + (round * 13 % 40) as usize).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let known = check_known(dir.path());
        assert!(known as u64 + 20 >= first / 2, "{known} of {first} packs are known");
    }
    let index = Index::open(dir.path(), small()).unwrap();
    let before = index.packs().len();
    index.merge().unwrap();
    assert_eq!(index.packs().len(), before);
    assert_eq!(check_known(dir.path()), before);
}

#[test]
#[ignore = "started by processes_share_a_directory"]
fn sharing_child() {
    let Some((dir, first)) = child::started_with() else {
        return;
    };
    let index = Index::open(&dir, small()).unwrap();
    for number in first..first + 60 {
        index.insert(pack(number, chunks_of(number))).unwrap();
        match number % 5 {
            1 => index.flush().unwrap(),
            2 => index.refresh().unwrap(),
            4 => index.merge().unwrap(),
            _ => {}
        }
        for known in index.packs() {
            let at = chunks_of(known.pack_bytes - 1000).next().unwrap();
            assert!(
                index
                    .get_where(&chunk(at), &|other| other.pack == known.pack)
                    .unwrap()
                    .is_some()
            );
        }
    }
    index.flush().unwrap();
}

#[test]
fn processes_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..4)
        .map(|place| child::start("crash::sharing_child", dir.path(), place * 1000))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(check_known(dir.path()), 4 * 60);
}
