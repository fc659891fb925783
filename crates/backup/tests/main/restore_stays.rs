//! What was there and is to stay: directories keep their attributes, names of files that are kept stay together.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use drystone_backup::{Error, Overwrite, RestoreOptions, RestoreReport, Selection, Special, backup_stream, restore};
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::Cancel;

use crate::backup_world::World;
use crate::vaults::{Fixture, Putter, entry, noise, options, run_as_another_user};

fn problems(report: &RestoreReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

fn never(target: &Path) -> RestoreOptions {
    RestoreOptions {
        overwrite: Overwrite::Never,
        ..options(target)
    }
}

/// Mode and time of directories.
fn looks(dirs: &[PathBuf]) -> Vec<(u32, i64, i64)> {
    let look = |dir: &PathBuf| {
        let meta = fs::metadata(dir).unwrap();
        (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec())
    };
    dirs.iter().map(look).collect()
}

/// `a/b/file` and `a/large`.
fn tree(putter: &mut Putter) -> Vec<Entry> {
    let inner = vec![entry("file", putter.file(b"new"))];
    let inner = vec![
        entry("b", Kind::Dir(putter.dir(inner))),
        entry("large", putter.file(&noise(1, 40 << 20))),
    ];
    vec![entry("a", Kind::Dir(putter.dir(inner)))]
}

#[test]
fn directories_that_are_there_stay_as_they_are_if_nothing_is_overwritten() {
    let target = tempfile::tempdir().unwrap();
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o777)).unwrap();
    check_never(target.path());
    let mut child = Command::new(std::env::current_exe().unwrap());
    let test = "restore_stays::as_another_user";
    child
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(TARGET, target.path());
    run_as_another_user(&mut child, "restoring into directories that may not be written to");
}

const TARGET: &str = "DRYSTONE_TEST_TARGET_STAYS";

#[test]
#[ignore = "run by directories_that_are_there_stay_as_they_are_if_nothing_is_overwritten"]
fn as_another_user() {
    let base = PathBuf::from(std::env::var_os(TARGET).unwrap());
    check_never(&base);
    check_target(&base.join("own"));
}

fn check_never(base: &Path) {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let entries = tree(putter);
        putter.dir(entries)
    });
    let reader = fixture.vault.reader().unwrap();
    let top = Selection::find(&reader, &snapshot, b"/a").unwrap();
    for mode in [0o555, 0o000, 0o311, 0o750] {
        let target = base.join(format!("{}-{mode:o}", rustix::process::geteuid().as_raw()));
        let dirs = [target.join("a/b"), target.join("a"), target.clone()];
        fs::create_dir_all(&dirs[0]).unwrap();
        for dir in &dirs {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        }
        let set = |dir: &PathBuf, mode: u32| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        let open = |is_open: bool| match is_open {
            true => dirs.iter().rev().for_each(|dir| set(dir, 0o700)),
            false => dirs.iter().for_each(|dir| set(dir, mode)),
        };
        let look = || {
            // From the outside in; root sees all of it anyway.
            let found = looks(&dirs[2..]);
            fs::set_permissions(&dirs[2], fs::Permissions::from_mode(0o700)).unwrap();
            let found = [found, looks(&dirs[1..2])].concat();
            fs::set_permissions(&dirs[1], fs::Permissions::from_mode(0o700)).unwrap();
            let found = [found, looks(&dirs[..1])].concat();
            fs::set_permissions(&dirs[1], fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&dirs[2], fs::Permissions::from_mode(mode)).unwrap();
            found
        };
        let before = look();
        // Stopped at once, stopped somewhere, and to its end.
        let stopped = never(&target);
        stopped.cancel.cancel();
        let ended = restore(&fixture.vault, &Selection::whole(&snapshot), &stopped);
        assert!(matches!(ended, Err(Error::Vault(drystone_vault::Error::Interrupted))));
        assert_eq!(look(), before, "{mode:o}");
        let stopping = never(&target);
        std::thread::scope(|scope| {
            scope.spawn(|| stop_when_written(&stopping));
            let _ = restore(&fixture.vault, &Selection::whole(&snapshot), &stopping);
        });
        assert_eq!(look(), before, "{mode:o}");
        let report = fixture.restore(&snapshot, &never(&target));
        assert_eq!(problems(&report), Vec::<String>::new(), "{mode:o}");
        assert_eq!(look(), before, "{mode:o}");
        open(true);
        assert_eq!(fs::read(target.join("a/b/file")).unwrap(), b"new");
        open(false);
        // The same where the target itself is what was stored.
        let alone = restore(&fixture.vault, &top, &never(&dirs[1]));
        if rustix::process::geteuid().is_root() {
            assert_eq!(problems(&alone.unwrap()), Vec::<String>::new());
        }
        assert_eq!(look(), before, "{mode:o}");
        open(true);
        fs::remove_dir_all(&target).unwrap();
    }
}

fn stop_when_written(options: &RestoreOptions) {
    for _ in 0..3000 {
        if options.progress.bytes.load(std::sync::atomic::Ordering::Relaxed) > 1 << 20 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    options.cancel.cancel();
}

/// A stream's snapshot, restored over directories of another mode.
#[test]
fn directories_that_lead_to_a_stream_give_their_attributes_to_nobody() {
    let world = World::new();
    let mut input: &[u8] = b"dumped";
    let report = backup_stream(&world.vault, b"/var/backups/shop.sql", &mut input, &world.options()).unwrap();
    let snapshot = world.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let dirs = [
        target.path().join("var/backups"),
        target.path().join("var"),
        target.path().to_owned(),
    ];
    fs::create_dir_all(&dirs[0]).unwrap();
    for dir in &dirs {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o2775)).unwrap();
    }
    let before = looks(&dirs);
    let again = |target: &Path, selection: &Selection| {
        let report = restore(&world.vault, selection, &options(target)).unwrap();
        assert_eq!(problems(&report), Vec::<String>::new());
        assert!(report.incomplete.is_empty());
    };
    again(target.path(), &Selection::whole(&snapshot));
    assert_eq!(fs::read(dirs[0].join("shop.sql")).unwrap(), b"dumped");
    assert_eq!(looks(&dirs), before);
    let reader = world.vault.reader().unwrap();
    again(&dirs[1], &Selection::find(&reader, &snapshot, b"/var").unwrap());
    assert_eq!(looks(&dirs), before);
    let new = tempfile::tempdir().unwrap();
    again(&new.path().join("new"), &Selection::whole(&snapshot));
    assert_eq!(looks(&[new.path().join("new/var")])[0].0, 0o700);
    // Nor are they in a tar, whose unpacking would do the same.
    let (progress, cancel, mut out) = (Default::default(), Cancel::default(), Vec::new());
    let watch = drystone_backup::Watch {
        progress: &progress,
        cancel: &cancel,
    };
    let dumped = drystone_backup::dump_tar(&reader, &Selection::whole(&snapshot), &mut out, watch).unwrap();
    assert_eq!(dumped.entries, 1);
}

/// `a` is there, `b` and `c` are missing: they become names of `a` if it is what was stored, and a pair of their own if not.
#[test]
fn the_names_of_a_file_that_is_kept_stay_together() {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let content = putter.file(&noise(1, 100_000));
        let linked = |name: &str| Entry {
            hard_link: Some((1, 1)),
            ..entry(name, content.clone())
        };
        putter.dir(vec![linked("a"), linked("b"), linked("c")])
    });
    for (is_changed, links) in [(false, [3, 3, 3]), (true, [1, 2, 2])] {
        let target = tempfile::tempdir().unwrap();
        fixture.restore(&snapshot, &options(target.path()));
        fs::remove_file(target.path().join("b")).unwrap();
        fs::remove_file(target.path().join("c")).unwrap();
        if is_changed {
            fs::write(target.path().join("a"), "mine").unwrap();
        }
        let before = fs::metadata(target.path().join("a")).unwrap();
        let report = fixture.restore(&snapshot, &never(target.path()));
        assert_eq!(problems(&report), Vec::<String>::new());
        assert_eq!((report.kept, report.files), (1, 2));
        let found = ["a", "b", "c"].map(|name| fs::metadata(target.path().join(name)).unwrap());
        assert_eq!(found.each_ref().map(MetadataExt::nlink), links);
        assert_eq!(found[1].ino(), found[2].ino());
        assert_eq!(
            (found[0].mode(), found[0].mtime(), found[0].len()),
            (before.mode(), before.mtime(), before.len())
        );
        assert_eq!(
            report.not_set.iter().any(|kind| kind.what.contains("hard link")),
            is_changed
        );
    }
}

#[test]
fn devices_that_are_left_out_are_not_called_kept() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| putter.dir(vec![entry("null", Kind::CharDevice { major: 1, minor: 3 })]));
    let options = RestoreOptions {
        special: Special::LeaveOut,
        ..options(target.path())
    };
    let report = fixture.restore(&snapshot, &options);
    assert_eq!((report.kept, report.left_out, report.files), (0, 1, 0));
}

/// A target that is a link, into a directory that may not be written to.
#[test]
fn a_target_gets_its_mode_back() {
    let base = tempfile::tempdir().unwrap();
    check_target(&base.path().join("own"));
}

fn check_target(base: &Path) {
    fs::create_dir(base).unwrap();
    let fixture = Fixture::new();
    let snapshot: Snapshot = fixture.put(|putter| {
        let file = entry("file", putter.file(b"new"));
        putter.dir(vec![file])
    });
    let target = base.join("t");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o555)).unwrap();
    std::os::unix::fs::symlink("t", base.join("link")).unwrap();
    let report = fixture.restore(&snapshot, &options(&base.join("link")));
    assert_eq!(problems(&report), Vec::<String>::new());
    assert_eq!(looks(&[target])[0].0, 0o555);
}
