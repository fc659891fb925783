//! Restoring from a place far away: what comes is the same, in few requests, and little where little is wanted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drystone_backup::{Error, Patterns, RestoreReport, Selection, restore};
use drystone_format::chunker::Sizes;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Entry, Kind};
use drystone_store::record::Call;
use drystone_store::{Delay, Name, Op, Record, Store};
use drystone_vault::{Cancel, Vault};

use crate::vaults::{Fixture, Putter, entry, noise, options};

const MIB: usize = 1 << 20;

/// Paths and what is there.
type Files = BTreeMap<String, Vec<u8>>;

/// Many small files in several directories, and a large one.
fn sources() -> Files {
    let small = (0..400u64).map(|at| {
        let bytes = 2000 + (at as usize * 7919) % 60_000;
        (format!("d{:02}/f{at:03}", at / 20), noise(at, bytes))
    });
    let mut files: Files = small.collect();
    files.insert("large".to_owned(), noise(1000, 40 * MIB));
    files
}

/// A vault with chunks of usual size: tails are as long as they usually are.
fn world() -> Fixture {
    Fixture::sized(Sizes::new(16 << 10, 48 << 10).unwrap())
}

fn put(putter: &mut Putter, files: &Files) -> drystone_format::recipe::Recipe {
    let mut dirs: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    let mut top = Vec::new();
    for (path, bytes) in files {
        let file = putter.file(bytes);
        match path.split_once('/') {
            Some((dir, name)) => dirs.entry(dir).or_default().push(entry(name, file)),
            None => top.push(entry(path, file)),
        }
    }
    for (name, entries) in dirs {
        top.push(entry(name, Kind::Dir(putter.dir(entries))));
    }
    putter.dir(top)
}

/// The same vault from afar, on another machine's memory.
fn far(fixture: &Fixture, memory_bytes: usize) -> (Vault, Arc<Record>) {
    let store = Arc::new(Delay::new(fixture.store.clone(), Duration::ZERO));
    let record = Arc::new(Record::new(store));
    let vault = fixture.open_within(record.clone(), memory_bytes);
    vault.loss_epoch().unwrap();
    record.take();
    (vault, record)
}

/// Gets of packs, and their bytes.
fn pack_gets(record: &Record) -> (usize, u64) {
    let is_get = |call: &Call| call.op == Op::Get && call.name.starts_with("packs/");
    let gets: Vec<Call> = record.take().into_iter().filter(is_get).collect();
    (gets.len(), gets.iter().map(|call| call.bytes).sum())
}

fn restored(vault: &Vault, snapshot: &Snapshot, target: &Path) -> RestoreReport {
    restore(vault, &Selection::whole(snapshot), &options(target)).unwrap()
}

fn assert_there(target: &Path, files: &Files) {
    for (path, bytes) in files {
        assert!(fs::read(target.join(path)).unwrap() == *bytes, "{path}");
    }
}

fn packs(vault: &Vault) -> (usize, u64) {
    let stats = vault.stats().unwrap();
    let packs = stats.data_packs + stats.meta_packs + stats.mixed_packs;
    (packs as usize, stats.data_bytes + stats.meta_bytes + stats.mixed_bytes)
}

#[test]
fn a_whole_restore_takes_two_requests_a_pack_and_reads_nothing_twice() {
    let (fixture, files) = (world(), sources());
    let snapshot = fixture.put(|putter| put(putter, &files));
    let target = tempfile::tempdir().unwrap();
    let (vault, record) = far(&fixture, 64 * MIB);
    let report = restored(&vault, &snapshot, target.path());
    assert_eq!((report.problems.count(), report.files), (0, files.len() as u64));
    assert_there(target.path(), &files);
    let ((gets, bytes), (packs, stored)) = (pack_gets(&record), packs(&vault));
    assert!(packs >= 4, "{packs}");
    assert!(gets <= 2 * packs, "{gets} for {packs} packs");
    assert!(bytes <= stored + stored / 50, "{bytes} of {stored}");
    assert!(
        vault.reader().unwrap().held_bytes() <= 32 << 20,
        "what was fetched is let go of"
    );
    // What is there is compared, and not fetched.
    let again = restored(&vault, &snapshot, target.path());
    assert_eq!((again.unchanged_files, again.written_bytes), (files.len() as u64, 0));
    assert!(pack_gets(&record).1 < 2 << 20, "trees at most");
}

#[test]
fn one_small_file_out_of_many_costs_its_frame() {
    let (fixture, files) = (world(), sources());
    let snapshot = fixture.put(|putter| put(putter, &files));
    let target = tempfile::tempdir().unwrap();
    let (vault, record) = far(&fixture, 64 * MIB);
    let reader = vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, b"/d07/f150").unwrap();
    let report = restore(&vault, &selection, &options(target.path())).unwrap();
    assert_eq!((report.problems.count(), report.files), (0, 1));
    assert!(fs::read(target.path().join("f150")).unwrap() == files["d07/f150"]);
    let (gets, bytes) = pack_gets(&record);
    // Two ends, two trees, one frame of at most 2 MiB, which may lie in two.
    assert!(gets <= 7 && bytes <= 4_500_000, "{gets} gets of {bytes} bytes");
    // And one directory out of many, by a pattern: the trees are read to find it.
    let mut chosen = options(target.path());
    chosen.include = Patterns::new(["d03"]).unwrap();
    let report = restore(&vault, &Selection::whole(&snapshot), &chosen).unwrap();
    assert_eq!((report.problems.count(), report.files), (0, 20));
    let (gets, bytes) = pack_gets(&record);
    assert!(gets <= 8 && bytes <= 4_500_000, "{gets} gets of {bytes} bytes");
}

#[test]
fn what_was_backed_up_bit_by_bit_comes_in_few_requests_too() {
    let (fixture, mut files) = (world(), sources());
    fixture.put(|putter| put(putter, &files));
    for round in 0..3u64 {
        for at in (0..400u64).filter(|at| at % 10 == round) {
            files.insert(
                format!("d{:02}/f{at:03}", at / 20),
                noise(5000 + 1000 * round + at, 9000),
            );
        }
        fixture.put(|putter| put(putter, &files));
    }
    let snapshot = fixture.put(|putter| put(putter, &files));
    let target = tempfile::tempdir().unwrap();
    let (vault, record) = far(&fixture, 64 * MIB);
    let report = restored(&vault, &snapshot, target.path());
    assert_eq!(report.problems.count(), 0);
    assert_there(target.path(), &files);
    let ((gets, bytes), (packs, stored)) = (pack_gets(&record), packs(&vault));
    assert!(gets <= 3 * packs, "{gets} for {packs} packs");
    assert!(bytes <= stored, "{bytes} of {stored}");
}

#[test]
fn with_little_memory_it_takes_more_requests_and_still_all_of_it_comes() {
    let (fixture, files) = (world(), sources());
    let snapshot = fixture.put(|putter| put(putter, &files));
    for memory_bytes in [12 * MIB, 24 * MIB] {
        let target = tempfile::tempdir().unwrap();
        let (vault, record) = far(&fixture, memory_bytes);
        let report = restored(&vault, &snapshot, target.path());
        assert_eq!(report.problems.count(), 0);
        assert_there(target.path(), &files);
        let (gets, bytes) = pack_gets(&record);
        let (_, stored) = packs(&vault);
        assert!(
            gets < 300 && bytes <= stored * 3 / 2,
            "{gets} gets of {bytes} bytes, {stored} stored"
        );
    }
}

#[test]
fn damage_costs_the_files_that_it_is_in() {
    let (fixture, mut files) = (world(), sources());
    let snapshot = fixture.put(|putter| put(putter, &files));
    let (vault, _) = far(&fixture, 64 * MIB);
    let reader = vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, b"/d07/f150").unwrap();
    let Some(drystone_format::recipe::Part::Chunk { id, .. }) =
        selection.entry().unwrap().recipe().unwrap().parts.first()
    else {
        unreachable!("a chunk")
    };
    let frame = reader.frame_of(id).unwrap().unwrap();
    let name = Name::pack(&frame.pack);
    let mut bytes = fixture.store.contents()[&name].to_vec();
    bytes[frame.offset as usize + 50] ^= 1;
    fixture.store.overwrite(&name, bytes.into());
    let target = tempfile::tempdir().unwrap();
    let report = restored(&vault, &snapshot, target.path());
    let lost: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(lost.iter().any(|lost| lost.contains("d07/f150")), "{lost:?}");
    let count = report.problems.count();
    assert!((1..150).contains(&count), "{count}");
    files.retain(|path, _| target.path().join(path).exists());
    assert_eq!(files.len() as u64, 401 - count);
    assert_there(target.path(), &files);
}

#[test]
fn it_can_be_stopped() {
    let (fixture, files) = (world(), sources());
    let snapshot = fixture.put(|putter| put(putter, &files));
    let target = tempfile::tempdir().unwrap();
    let store = Arc::new(Delay::new(fixture.store.clone(), Duration::from_millis(3)));
    let vault = fixture.open(store as Arc<dyn Store>);
    let mut stopped = options(target.path());
    stopped.cancel = Cancel::default();
    let cancel = stopped.cancel.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while fs::read_dir(target.path()).unwrap().next().is_none() {
                std::thread::yield_now();
            }
            cancel.cancel();
        });
        let error = restore(&vault, &Selection::whole(&snapshot), &stopped).unwrap_err();
        assert!(
            matches!(error, Error::Vault(drystone_vault::Error::Interrupted)),
            "{error}"
        );
    });
}
