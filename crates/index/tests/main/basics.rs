//! What the index promises, one promise a test.

use std::{fs, ops::ControlFlow, path::Path, process::Command};

use drystone_index::{Error, Index, Options, Span};

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

#[test]
fn a_chunk_in_several_packs_is_found_in_the_one_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), small()).unwrap();
    for number in 0..4 {
        index.insert(pack(number, [1, 2])).unwrap();
        if number == 1 {
            index.flush().unwrap();
        }
    }
    for number in 0..4 {
        let found = index
            .get_where(&chunk(2), &|info| info.pack == pack_id(number))
            .unwrap();
        assert_eq!(found, Some(span(number, 2).at(pack_id(number))));
    }
    assert_eq!(
        index.get_where(&chunk(2), &|info| info.writer == [7; 32]).unwrap(),
        None
    );
}

#[test]
fn forgotten_packs_are_skipped_at_once_and_leave_the_disk_with_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), small()).unwrap();
    for number in 0..10 {
        index.insert(pack(number, number * 10..number * 10 + 10)).unwrap();
    }
    index.flush().unwrap();
    assert_eq!(index.retain(&|pack| *pack != pack_id(3)).unwrap(), 1);
    assert_eq!(
        (index.get(&chunk(35)).unwrap(), index.has_pack(&pack_id(3))),
        (None, None)
    );
    index.merge().unwrap();
    assert_eq!(
        Index::open(dir.path(), small()).unwrap().packs().len(),
        10,
        "one in ten is not worth a rewrite"
    );

    assert!(index.retain(&|pack| *pack > pack_id(0)).unwrap() > 2);
    let left = index.packs().len();
    index.merge().unwrap();
    assert_eq!(Index::open(dir.path(), small()).unwrap().packs().len(), left);
    index.insert(pack(3, 30..40)).unwrap();
    assert!(index.contains(&chunk(35)).unwrap(), "it may come back");
}

/// The run files of a directory.
fn runs(dir: &Path) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "run2"))
        .collect()
}

#[test]
fn what_dead_processes_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), small()).unwrap();
    index.insert(pack(1, 0..50)).unwrap();
    index.insert(pack(2, 50..100)).unwrap();
    index.flush().unwrap();
    index.insert(pack(3, 100..3000)).unwrap();
    index.flush().unwrap();
    drop(index);
    // A merge that died after its run appeared and before it removed what it replaces.
    let smallest = runs(dir.path())
        .into_iter()
        .min_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    fs::copy(&smallest, dir.path().join("1-1.run2")).unwrap();
    let left = ["1-2.run2-draft", "1-3.run1", "1-4.run1-draft"].map(|name| dir.path().join(name));
    for path in &left {
        fs::write(path, "half a run, or one of an earlier layout").unwrap();
    }
    let index = Index::open(dir.path(), small()).unwrap();
    assert_eq!(
        index.stats().dropped_runs,
        0,
        "a run of an earlier layout is not damaged"
    );
    assert!(!left.iter().any(|path| path.exists()));
    assert_eq!((index.stats().runs, index.stats().chunks), (3, 3000));
    index.merge().unwrap();
    assert_eq!(
        (runs(dir.path()).len(), index.stats().runs, index.stats().chunks),
        (2, 2, 3000)
    );
    assert!((0..3000).all(|number| index.contains(&chunk(number)).unwrap()));
}

#[test]
fn other_users_of_the_directory_see_what_was_flushed_and_keep_what_was_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (
        Index::open(dir.path(), small()).unwrap(),
        Index::open(dir.path(), small()).unwrap(),
    );
    one.insert(pack(1, 0..50)).unwrap();
    other.refresh().unwrap();
    assert!(!other.contains(&chunk(7)).unwrap());
    one.flush().unwrap();
    other.refresh().unwrap();
    assert!(other.contains(&chunk(7)).unwrap());
    Index::clear(dir.path()).unwrap();
    assert!(runs(dir.path()).is_empty() && other.contains(&chunk(7)).unwrap());
    other.refresh().unwrap();
    assert!(!other.contains(&chunk(7)).unwrap() && other.packs().is_empty());
}

#[test]
fn entries_that_do_not_fit_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), small()).unwrap();
    let mut entries = pack(1, 0..2);
    entries.chunks.push((
        chunk(9),
        Span {
            frame_bytes: 1 << 24,
            ..span(1, 9)
        },
    ));
    let error = index.insert(entries).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { pack, .. } if pack == pack_id(1)),
        "{error}"
    );
    assert!(index.packs().is_empty() && !index.contains(&chunk(0)).unwrap());
}

#[test]
fn a_full_disk_is_an_error_and_costs_nothing_that_was_inserted() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(dir.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("left out: a full disk (mounting a file system needs root)");
        return;
    }
    let outcome = std::panic::catch_unwind(|| fill_the_disk(dir.path()));
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    outcome.unwrap();
}

fn fill_the_disk(dir: &Path) {
    let index = Index::open(dir, small()).unwrap();
    fs::write(dir.join("ballast"), vec![1; 128 << 10]).unwrap();
    let mut inserted = 0;
    let mut insert = || {
        index
            .insert(pack(inserted, inserted * 100..inserted * 100 + 100))
            .map(|()| inserted += 1)
    };
    let error = (0..1000).find_map(|_| insert().err()).unwrap();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(inserted > 5);
    let all_found = |count: u64| (0..count * 100).all(|number| index.contains(&chunk(number)).unwrap());
    assert!(all_found(inserted) && !index.contains(&chunk(inserted * 100)).unwrap());
    assert!(index.flush().is_err() && all_found(inserted));
    let drafts = fs::read_dir(dir).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|suffix| suffix == "run2-draft")
    });
    assert_eq!(drafts.count(), 0, "what could not be written is removed");
    let merged = index.merge();
    assert!(matches!(merged, Err(Error::Full { .. })), "{merged:?}");
    assert!(all_found(inserted));
    fs::remove_file(dir.join("ballast")).unwrap();
    index
        .insert(pack(inserted, inserted * 100..inserted * 100 + 100))
        .unwrap();
    index.flush().unwrap();
    assert!(all_found(inserted + 1));
    assert_eq!(Index::open(dir, small()).unwrap().packs().len() as u64, inserted + 1);
}
