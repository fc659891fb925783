//! Copying snapshots between vaults: nothing is lost, nothing is copied twice, damage is named, an interrupted copy goes on.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drystone_backup::{CopyMode, CopyOptions, CopyReport, Depth, List, Selection, copy, restore};
use drystone_format::RootId;
use drystone_format::chunker::Sizes;
use drystone_format::codec::Compression;
use drystone_format::keys::Role;
use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootState};
use drystone_format::snapshot::{Origin, Snapshot};
use drystone_format::tree::{Entry, Kind, Marks};
use drystone_store::fail::{Fail, Failure as Fails, Fault};
use drystone_store::{Name, Op, Store};
use drystone_vault::{Cancel, FrameSize, IngestOptions, NewLock, NewSlot, Progress, Unlock, Vault, generate_key_file};

use crate::compare::{assert_same, listing};
use crate::round_trip::{make_everything, take};
use crate::vaults::{Fixture, noise, options};

fn how() -> CopyOptions {
    CopyOptions {
        compression: Compression::DEFAULT,
        mode: CopyMode::Store,
        threads: 3,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    }
}

/// A vault that cuts its chunks in another way.
fn other() -> Fixture {
    Fixture::sized(Sizes::new(4 << 10, 28 << 10).unwrap())
}

/// Copies all snapshots.
fn all(from: &Fixture, to: &Fixture) -> CopyReport {
    let ids = from.vault.snapshot_ids().unwrap();
    copy(&from.vault, &to.vault, &ids, &how()).unwrap()
}

fn problems(report: &CopyReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn clean(report: &CopyReport) {
    assert_eq!(problems(report), Vec::<String>::new());
}

/// What the only copy of `id` in `to` is.
fn only_copy(report: &CopyReport, to: &Fixture, id: RootId) -> Snapshot {
    assert_eq!(report.copied.len(), 1);
    assert_eq!(report.copied[0].0, id);
    to.vault.snapshot(&report.copied[0].1.unwrap()).unwrap()
}

/// Everything in a snapshot, without recipes, which differ between vaults; sizes and holes are in the second part.
fn entries(vault: &Vault, snapshot: &Snapshot) -> Vec<(Vec<u8>, Entry, u64)> {
    let reader = vault.reader().unwrap();
    let list = List::new(&reader, &Selection::whole(snapshot), Depth::All);
    list.map(|listed| {
        let mut listed = listed.unwrap();
        let mut bytes = 0;
        listed.entry.kind = match listed.entry.kind {
            Kind::File(recipe) => {
                bytes = recipe.size_bytes;
                Kind::File(Recipe::default())
            }
            Kind::Dir(_) => Kind::Dir(Recipe::default()),
            other => other,
        };
        (listed.path, listed.entry, bytes)
    })
    .collect()
}

/// Restores what was taken of `source` and compares it with it.
#[track_caller]
fn assert_restores(to: &Fixture, snapshot: &Snapshot, source: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let target = tempfile::tempdir().unwrap();
    let into = target.path().join("new");
    let reader = to.vault.reader().unwrap();
    let selection = Selection::find(&reader, snapshot, source.as_os_str().as_bytes()).unwrap();
    let report = restore(&to.vault, &selection, &options(&into)).unwrap();
    assert!(report.problems.is_empty());
    assert_same(&listing(source), &listing(&into));
}

#[test]
fn a_copy_with_other_keys_and_chunk_sizes_restores_the_same() {
    let (from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    make_everything(source.path());
    fs::write(source.path().join("large"), noise(9, 3 << 20)).unwrap();
    let id = take(&from, source.path()).snapshot.unwrap();
    let report = all(&from, &to);
    clean(&report);
    let (original, copied) = (from.vault.snapshot(&id).unwrap(), only_copy(&report, &to, id));
    assert_eq!(entries(&from.vault, &original), entries(&to.vault, &copied));
    let origin = Origin {
        vault: from.vault.id(),
        snapshot: id,
        lost: 0,
    };
    let expected = Snapshot {
        tree: copied.tree.clone(),
        origin: Some(origin),
        ..original
    };
    assert_eq!(copied, expected);
    assert_restores(&to, &copied, source.path());
    assert!(report.stored.new_bytes > 3 << 20 && report.read_bytes >= 3 << 20);
}

#[test]
fn a_copy_says_which_roots_it_leaves() {
    let (mut from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("a"), noise(1, 100_000)).unwrap();
    let id = take(&from, source.path()).snapshot.unwrap();
    assert!(all(&from, &to).left_roots.is_empty());
    from.vault = from.vault.admit_roots(RootKind::TEST).unwrap();
    assert!(all(&from, &to).left_roots.is_empty(), "admitted, and there is none");
    let tree = from.vault.snapshot(&id).unwrap().tree;
    let options = IngestOptions {
        frames: FrameSize::default(),
        compression: Compression::DEFAULT,
        progress: Arc::default(),
        cancel: Cancel::default(),
    };
    let run = from.vault.ingest(options).unwrap().finish().unwrap();
    let kept = TestRoot(vec![Kept::Tree(tree)]).encode();
    from.vault
        .publish_root(RootKind::TEST, &kept, &run, RootState::Last)
        .unwrap();
    let report = all(&from, &to);
    assert_eq!(report.left_roots, [(RootKind::TEST, 1)].into());
    assert_eq!((report.skipped, report.copied.len()), (1, 0));
}

#[test]
fn what_was_copied_is_not_copied_again_wherever_it_went() {
    let (one, two, three) = (Fixture::new(), other(), Fixture::new());
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), noise(1, 100_000)).unwrap();
    let first = take(&one, source.path()).snapshot.unwrap();
    let mut second = one.vault.snapshot(&first).unwrap();
    second.started.seconds += 1;
    second.parent = Some(first);
    one.publish(&second);
    let dry = CopyOptions {
        mode: CopyMode::DryRun,
        ..how()
    };
    let report = copy(&one.vault, &two.vault, &[first], &dry).unwrap();
    assert_eq!((report.copied.as_slice(), report.skipped), (&[(first, None)][..], 0));
    assert_eq!(two.vault.snapshot_ids().unwrap(), []);
    assert_eq!(all(&one, &two).copied.len(), 2);
    let (copies, _) = two.vault.snapshots().unwrap();
    assert_eq!(
        copies[1].1.parent,
        Some(copies[0].0),
        "the second names the copy of the first"
    );
    for (from, to, copied, skipped) in [
        (&one, &two, 0, 2),
        (&two, &one, 0, 2),
        (&two, &three, 2, 0),
        (&one, &three, 0, 2),
        (&three, &one, 0, 2),
    ] {
        let report = all(from, to);
        clean(&report);
        assert_eq!((report.copied.len(), report.skipped), (copied, skipped));
    }
    assert!(copy(&one.vault, &one.vault, &[first], &how()).is_err());
}

#[test]
fn a_later_copy_reads_what_has_changed_and_next_to_nothing_else() {
    let (mut from, mut to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    for dir in 0..40 {
        let dir = source.path().join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..10 {
            fs::write(dir.join(format!("f{file}")), noise(file, 20_000)).unwrap();
        }
        fs::write(dir.join("own"), noise(dir.as_os_str().len() as u64 + 100, 50_000)).unwrap();
    }
    // Of many chunks, so that its recipe stands in chunks of its own.
    fs::write(source.path().join("d7/long"), noise(78, 3 << 20)).unwrap();
    take(&from, source.path());
    from.reopen();
    let first = all(&from, &to);
    clean(&first);
    let (gets, bytes) = (from.calls.count(Op::Get), from.calls.bytes(Op::Get));
    fs::write(source.path().join("d7/f3"), noise(77, 30_000)).unwrap();
    take(&from, source.path());
    from.reopen();
    to.reopen();
    let report = all(&from, &to);
    clean(&report);
    assert_eq!((report.copied.len(), report.skipped), (1, 1));
    assert_eq!(
        report.read_bytes, 30_000,
        "of the changed directory the other files are known too"
    );
    assert!(
        from.calls.bytes(Op::Get) * 4 < bytes,
        "{} of {bytes}",
        from.calls.bytes(Op::Get)
    );
    assert!(from.calls.count(Op::Get) < gets + 10);
    assert!(report.stored.new_bytes < 60_000, "{:?}", report.stored);
    let copied = to.vault.snapshot(&report.copied[0].1.unwrap()).unwrap();
    assert_restores(&to, &copied, source.path());
    from.reopen();
    let again = all(&from, &to);
    assert_eq!((again.copied.len(), again.read_bytes, again.stored.packs), (0, 0, 0));
    let is_data = |call: &drystone_store::record::Call| call.op == Op::Get && call.name.starts_with("packs/");
    assert!(!from.calls.take().iter().any(is_data), "no pack is opened");
}

/// The largest objects of a vault: packs of data.
fn largest(fixture: &Fixture) -> Name {
    let contents = fixture.store.contents();
    let packs = contents.iter().filter(|(name, _)| name.as_str().starts_with("packs/"));
    packs.max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone()
}

#[test]
fn the_memo_is_not_trusted_when_the_target_has_lost_something() {
    use drystone_store::Store;
    let (from, mut to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("same")).unwrap();
    fs::write(source.path().join("same/a"), noise(1, 300_000)).unwrap();
    take(&from, source.path());
    all(&from, &to);
    let lost = largest(&to);
    crate::vaults::runtime().block_on(to.store.delete(&lost)).unwrap();
    to.reopen();
    fs::write(source.path().join("new"), b"x").unwrap();
    let id = take(&from, source.path()).snapshot.unwrap();
    let report = copy(&from.vault, &to.vault, &[id], &how()).unwrap();
    clean(&report);
    assert_eq!(report.read_bytes, 300_001);
    assert_restores(&to, &only_copy(&report, &to, id), source.path());
}

#[test]
fn damage_costs_what_it_hit_is_named_and_is_copied_when_it_is_mended() {
    let (mut from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    for name in ["a", "b", "c"] {
        fs::write(source.path().join(name), noise(u64::from(name.as_bytes()[0]), 3 << 20)).unwrap();
    }
    let id = take(&from, source.path()).snapshot.unwrap();
    let pack = largest(&from);
    let whole = from.store.contents()[&pack].clone();
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    from.store.overwrite(&pack, Bytes::from(bytes));
    from.reopen();
    let report = all(&from, &to);
    let found = problems(&report);
    assert!(!found.is_empty() && found.len() < 3, "{found:?}");
    assert!(
        found[0].starts_with(&format!("{}:/", id.short())) && found[0].contains("hole"),
        "{found:?}"
    );
    let copied = only_copy(&report, &to, id);
    assert_eq!(copied.origin.unwrap().lost, found.len() as u64);
    assert_eq!(copied.totals.problems, found.len() as u64);
    let marked = |snapshot: &Snapshot| {
        let all = entries(&to.vault, snapshot).into_iter();
        all.filter(|(_, entry, _)| entry.marks.has(Marks::INCOMPLETE)).count()
    };
    assert_eq!(marked(&copied), found.len());
    for (_, entry, bytes) in entries(&to.vault, &copied) {
        assert!(!matches!(entry.kind, Kind::File(_)) || bytes == 3 << 20 || entry.name.len() > 1);
    }
    // The same again brings the same problems, and no second copy that is no better.
    let again = all(&from, &to);
    assert_eq!((problems(&again), again.copied.len(), again.skipped), (found, 0, 1));
    from.store.overwrite(&pack, whole);
    from.reopen();
    let mended = all(&from, &to);
    clean(&mended);
    let copied = only_copy(&mended, &to, id);
    assert_eq!((copied.origin.unwrap().lost, marked(&copied)), (0, 0));
    assert_restores(&to, &copied, source.path());
    assert_eq!(all(&from, &to).skipped, 1);
}

#[test]
fn a_lost_directory_is_named_and_the_rest_is_copied() {
    let (from, to) = (Fixture::new(), other());
    let snapshot = from.put(|putter| {
        let file = putter.file(&noise(1, 50_000));
        let fine = putter.dir(vec![crate::vaults::entry("x", file)]);
        let broken = putter.raw_dir(&[b"no entry".to_vec()]);
        putter.dir(vec![
            crate::vaults::entry("broken", Kind::Dir(broken)),
            crate::vaults::entry("fine", Kind::Dir(fine)),
        ])
    });
    let id = from.publish(&snapshot);
    let report = all(&from, &to);
    let found = problems(&report);
    assert!(found.len() == 1 && found[0].contains("/broken"), "{found:?}");
    let copied = only_copy(&report, &to, id);
    let entries = entries(&to.vault, &copied);
    let names: Vec<&[u8]> = entries.iter().map(|(path, ..)| path.as_slice()).collect();
    assert_eq!(names, [&b"/broken"[..], b"/fine", b"/fine/x"]);
    assert!(entries[0].1.marks.has(Marks::INCOMPLETE) && !entries[1].1.marks.has(Marks::INCOMPLETE));
}

#[test]
fn an_interrupted_copy_publishes_nothing_half_and_goes_on() {
    const FILES: u64 = 56;
    let (from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    for number in 0..FILES {
        fs::write(source.path().join(format!("f{number}")), noise(number + 1, 1 << 20)).unwrap();
    }
    let small = from.put(|putter| {
        let file = putter.file(b"small");
        putter.dir(vec![crate::vaults::entry("x", file)])
    });
    let small = from.publish(&small);
    let id = take(&from, source.path()).snapshot.unwrap();
    // The second pack of the second snapshot takes long, so that the copy cannot end before it is interrupted.
    let slow = Arc::new(Fail::new(to.store.clone()));
    let delay = Fault::delay(Op::Put, Duration::from_secs(2));
    slow.add(delay.only(drystone_store::Prefix::Packs).nth(4));
    let (vault, options) = (to.open(slow), how());
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Ends by itself if nothing is ever stored.
            let start = Instant::now();
            while load(&options.progress.stored_bytes) < 1 << 20 && start.elapsed().as_secs() < 30 {
                std::thread::yield_now();
            }
            options.cancel.cancel();
        });
        copy(&from.vault, &vault, &[small, id], &options)
    });
    assert!(matches!(
        stopped,
        Err(drystone_backup::Error::Vault(drystone_vault::Error::Interrupted))
    ));
    // What was complete is there, and nothing else.
    let (published, _) = vault.snapshots().unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1.origin.unwrap().snapshot, small);
    let read = load(&options.progress.bytes);
    assert!(read > 14 << 20 && read < FILES << 20, "{read}");
    let report = copy(&from.vault, &vault, &[id], &how()).unwrap();
    clean(&report);
    // Of the files that were complete nothing is read again, of the others what was stored is used.
    assert!(
        report.read_bytes <= (FILES << 20) - read + (4 << 20),
        "{read} {report:?}"
    );
    assert!(report.stored.new_bytes <= report.read_bytes + (1 << 20), "{report:?}");
    assert_restores(&to, &only_copy(&report, &to, id), source.path());
}

#[test]
fn many_snapshots_share_what_is_the_same() {
    let (from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("same")).unwrap();
    fs::write(source.path().join("same/a"), noise(1, 500_000)).unwrap();
    for round in 0..8u64 {
        fs::write(source.path().join("changes"), noise(round + 10, 10_000)).unwrap();
        take(&from, source.path());
    }
    let report = all(&from, &to);
    clean(&report);
    assert_eq!(report.copied.len(), 8);
    assert_eq!(report.read_bytes, 500_000 + 8 * 10_000);
    // A pack of data and one of trees for each.
    assert!(report.stored.packs <= 16, "{:?}", report.stored);
    let (last, _) = to.vault.snapshots().unwrap();
    assert_eq!(last.len(), 8);
}

#[test]
fn a_place_that_fails_ends_the_copy_with_its_error_and_the_next_completes_it() {
    let (from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    for number in 0..24 {
        fs::write(source.path().join(format!("f{number}")), noise(number + 1, 1 << 20)).unwrap();
    }
    let id = take(&from, source.path()).snapshot.unwrap();
    let packs = || drystone_store::Prefix::Packs;
    let faults = [
        (false, Fault::error(Op::Put, Fails::Full).only(packs())),
        (false, Fault::error(Op::Put, Fails::Full).only(packs()).nth(2)),
        (true, Fault::error(Op::Get, Fails::Denied).only(packs()).nth(7)),
    ];
    for (in_source, fault) in faults {
        let failing = |fixture: &Fixture| Arc::new(Fail::new(fixture.store.clone()));
        let (source_store, target_store) = (failing(&from), failing(&to));
        let vaults = (from.open(source_store.clone()), to.open(target_store.clone()));
        let store = if in_source { source_store } else { target_store };
        store.add(fault);
        let failed = copy(&vaults.0, &vaults.1, &[id], &how());
        let error = match failed {
            Err(drystone_backup::Error::Vault(drystone_vault::Error::Store(error))) => error.to_string(),
            other => format!("{other:?}"),
        };
        assert!(error.contains("packs/"), "{error}");
        assert_eq!(error.contains("no space is left"), !in_source, "{error}");
        assert_eq!(to.vault.snapshot_ids().unwrap(), []);
    }
    let to_again = to.open(to.store.clone());
    let report = copy(&from.vault, &to_again, &[id], &how()).unwrap();
    clean(&report);
    assert_restores(&to, &only_copy(&report, &to, id), source.path());
}

/// A writer of the target says that it holds copies of everything: they are made all the same.
#[test]
fn a_copy_that_a_writer_only_claims_is_made() {
    let (from, to, source) = (Fixture::new(), other(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("file"), noise(3, 100_000)).unwrap();
    let id = take(&from, source.path()).snapshot.unwrap();
    let key = generate_key_file();
    let slot = NewSlot {
        lock: NewLock::Recipient(key.recipient),
        label: "writer".to_owned(),
        role: Role::Writer,
    };
    to.vault.add_key(&slot).unwrap();
    let unlock = Unlock::key_file(&key.content, "writer", None).unwrap();
    let writer = Vault::open(to.store.clone() as Arc<dyn Store>, to.vault.context().clone(), &unlock).unwrap();
    let how = how();
    let options = IngestOptions {
        compression: how.compression,
        frames: FrameSize::default(),
        progress: how.progress.clone(),
        cancel: how.cancel.clone(),
    };
    let stored = writer.ingest(options).unwrap();
    let mut lane = stored.lane();
    let tree = stored.tree().finish(&mut lane).unwrap();
    lane.finish().unwrap();
    let claim = Snapshot {
        tree,
        origin: Some(Origin {
            vault: from.vault.id(),
            snapshot: id,
            lost: 0,
        }),
        ..from.vault.snapshot(&id).unwrap()
    };
    writer.publish(&claim, &stored.finish().unwrap()).unwrap();
    let report = all(&from, &to);
    clean(&report);
    assert_restores(&to, &only_copy(&report, &to, id), source.path());
    assert_eq!(all(&from, &to).skipped, 1);
}
