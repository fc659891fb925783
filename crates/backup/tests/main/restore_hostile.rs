//! What a restore meets that is not as it should be: attacks, damage, depth, other users, full disks, a wish to stop.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use drystone_backup::{Error, Owner, RestoreOptions, RestoreReport, Selection, Special};
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind};
use drystone_store::Name;

use crate::vaults::{Fixture, entry, noise, options, run_as_another_user};

fn problems(report: &RestoreReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn links_in_the_target_lead_nowhere() {
    let (fixture, outside) = (Fixture::new(), tempfile::tempdir().unwrap());
    let target = tempfile::tempdir().unwrap();
    let snapshot = fixture.put(|putter| {
        let inner = vec![entry("passwd", putter.file(b"evil"))];
        let inner = putter.dir(inner);
        let entries = vec![
            entry("dir", Kind::Dir(inner)),
            entry("file", putter.file(b"evil")),
            entry("hard", putter.file(b"evil")),
            entry("same", putter.file(b"evil")),
            entry("good", putter.file(b"good")),
        ];
        putter.dir(entries)
    });
    fs::write(outside.path().join("victim"), "victim").unwrap();
    fs::write(outside.path().join("passwd"), "victim").unwrap();
    symlink(outside.path(), target.path().join("dir")).unwrap();
    symlink(outside.path().join("victim"), target.path().join("file")).unwrap();
    fs::hard_link(outside.path().join("victim"), target.path().join("hard")).unwrap();
    // The content is right already, but the other name must not get the entry's time and mode either.
    fs::write(outside.path().join("equal"), "evil").unwrap();
    fs::set_permissions(outside.path().join("equal"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(outside.path().join("equal"), target.path().join("same")).unwrap();
    let before = fs::metadata(outside.path().join("victim")).unwrap();

    let report = fixture.restore(&snapshot, &options(target.path()));
    let problems = problems(&report);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("dir: a symbolic link"), "{problems:?}");
    for name in ["victim", "passwd"] {
        assert_eq!(fs::read(outside.path().join(name)).unwrap(), b"victim");
    }
    let after = fs::metadata(outside.path().join("victim")).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
    let equal = fs::metadata(outside.path().join("equal")).unwrap();
    assert!(equal.mode() & 0o777 == 0o600 && equal.mtime() != entry("", Kind::Fifo).mtime.seconds);
    for name in ["file", "hard", "same"] {
        let meta = fs::symlink_metadata(target.path().join(name)).unwrap();
        assert!(meta.is_file() && meta.nlink() == 1, "{name}");
        assert_eq!(fs::read(target.path().join(name)).unwrap(), b"evil");
    }
}

#[test]
fn hostile_trees_stay_inside() {
    let (fixture, base) = (Fixture::new(), tempfile::tempdir().unwrap());
    let target = base.path().join("target");
    for name in ["../climbed", "/tmp/drystone-climbed", "..", "."] {
        let snapshot = fixture.put(|putter| {
            let good = entry("!good", putter.file(b"good")).encode();
            let evil = entry(name, putter.file(b"evil")).encode();
            putter.raw_dir(&[good, evil])
        });
        let report = fixture.restore(&snapshot, &options(&target));
        assert_eq!(report.problems.count(), 1, "{name}");
        assert_eq!(fs::read(target.join("!good")).unwrap(), b"good");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "{name}");
        assert!(!Path::new("/tmp/drystone-climbed").exists());
    }
}

#[test]
fn a_hard_link_to_another_type_is_a_file_of_its_own() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let link = Some((1, 2));
        let pointing = Entry {
            hard_link: link,
            ..entry("a", Kind::Symlink(b"/etc/hostname".to_vec()))
        };
        let file = Entry {
            hard_link: link,
            ..entry("b", putter.file(b"content"))
        };
        let through = vec![entry("inner", putter.file(b"x"))];
        let through = entry("c", Kind::Dir(putter.dir(through)));
        putter.dir(vec![pointing, file, through])
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    assert!(report.problems.is_empty());
    assert_eq!(fs::read(target.path().join("b")).unwrap(), b"content");
    assert_eq!(fs::metadata(target.path().join("b")).unwrap().nlink(), 1);
}

#[test]
fn one_name_that_is_link_and_directory_is_refused() {
    // The classic: first a symbolic link, then a directory of the same name to write through it.
    let (fixture, outside) = (Fixture::new(), tempfile::tempdir().unwrap());
    let target = tempfile::tempdir().unwrap();
    let snapshot = fixture.put(|putter| {
        let away = entry("x", Kind::Symlink(outside.path().to_str().unwrap().into())).encode();
        let inner = vec![entry("evil", putter.file(b"evil"))];
        let dir = entry("x", Kind::Dir(putter.dir(inner))).encode();
        putter.raw_dir(&[away, dir])
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    assert_eq!(report.problems.count(), 1);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn damage_costs_only_the_files_it_is_in() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    // Every put is a run of its own, so each file's chunks lie in packs of their own.
    let mut entries = Vec::new();
    let mut packs: Vec<Vec<Name>> = Vec::new();
    let pack_names = || -> Vec<Name> {
        let all = fixture.store.contents().into_keys();
        all.filter(|name| name.as_str().starts_with("packs/")).collect()
    };
    for (name, size) in [("small", 3000), ("large", 34 << 20), ("good", 200_000), ("there", 9000)] {
        let known: Vec<Name> = packs.concat();
        fixture.put(|putter| {
            entries.push(entry(name, putter.file(&noise(size as u64, size))));
            Recipe::default()
        });
        packs.push(pack_names().into_iter().filter(|name| !known.contains(name)).collect());
    }
    let snapshot = fixture.put(|putter| putter.dir(entries));
    for (at, hit) in [(0, 0), (1, packs[1].len() / 2), (3, 0)] {
        let name = &packs[at][hit];
        let mut bytes = fixture.store.contents()[name].to_vec();
        bytes.iter_mut().skip(20).step_by(97).for_each(|byte| *byte ^= 1);
        fixture.store.overwrite(name, Bytes::from(bytes));
    }
    fs::write(target.path().join("there"), noise(1, 9000)).unwrap();
    let report = fixture.restore(&snapshot, &options(target.path()));
    let mut names: Vec<String> = problems(&report)
        .iter()
        .map(|text| text.split(':').next().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["large", "small", "there"], "{:?}", problems(&report));
    assert!(!target.path().join("small").exists() && !target.path().join("large").exists());
    assert!(fs::read(target.path().join("good")).unwrap() == noise(200_000, 200_000));
    assert!(fs::read(target.path().join("there")).unwrap() == noise(1, 9000));
    assert_eq!(report.files, 1);
}

#[test]
fn what_is_there_already_is_not_read_from_the_vault() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let mut entries = Vec::new();
    fixture.put(|putter| {
        entries.push(entry("a", putter.file(&noise(1, 100_000))));
        entries.push(entry("b", putter.file(b"small")));
        Recipe::default()
    });
    let data: Vec<Name> = fixture.store.contents().into_keys().collect();
    let snapshot = fixture.put(|putter| putter.dir(entries));
    fs::write(target.path().join("a"), noise(1, 100_000)).unwrap();
    fs::write(target.path().join("b"), "small").unwrap();
    for name in data.iter().filter(|name| name.as_str().starts_with("packs/")) {
        fixture.store.overwrite(name, Bytes::from_static(b"gone"));
    }
    let report = fixture.restore(&snapshot, &options(target.path()));
    assert_eq!((report.problems.count(), report.unchanged_files), (0, 2));
}

#[test]
fn deeper_than_a_path_can_be() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    const DEPTH: usize = 1000;
    let snapshot = fixture.put(|putter| {
        let bottom = vec![entry("file", putter.file(b"bottom"))];
        let mut tree = putter.dir(bottom);
        for level in 0..DEPTH {
            let after = entry("z", putter.file(format!("{level}").as_bytes()));
            tree = putter.dir(vec![entry("long-directory-name", Kind::Dir(tree)), after]);
        }
        tree
    });
    for _ in 0..2 {
        let report = fixture.restore(&snapshot, &options(target.path()));
        assert!(report.problems.is_empty(), "{:?}", problems(&report));
        assert_eq!((report.files as usize, report.dirs as usize), (DEPTH + 1, DEPTH));
    }
    let find = Command::new("find")
        .current_dir(target.path())
        .args(["-type", "f"])
        .output()
        .unwrap();
    assert_eq!(find.stdout.iter().filter(|byte| **byte == b'\n').count(), DEPTH + 1);
    // The library of the temporary directory cannot remove what is this deep.
    assert!(
        Command::new("rm")
            .arg("-rf")
            .arg(target.path())
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_wish_to_stop_is_heeded() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = vec![entry("a", putter.file(b"x"))];
        putter.dir(entries)
    });
    let options = options(target.path());
    options.cancel.cancel();
    let error = drystone_backup::restore(&fixture.vault, &Selection::whole(&snapshot), &options).unwrap_err();
    assert!(matches!(error, Error::Vault(drystone_vault::Error::Interrupted)));
}

#[test]
fn a_full_disk_ends_the_run_and_says_so() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(target.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("LEFT OUT: a full disk; mounting a tmpfs needs root");
        return;
    }
    let snapshot = fixture.put(|putter| {
        let entries = (0..40)
            .map(|number| entry(&format!("{number:02}"), putter.file(&noise(number + 1, 100_000))))
            .collect();
        putter.dir(entries)
    });
    let result = drystone_backup::restore(&fixture.vault, &Selection::whole(&snapshot), &options(target.path()));
    // A process that another test starts has all descriptors of this one until it runs its program.
    let unmount = || Command::new("umount").arg(target.path()).output().unwrap();
    let is_unmounted = (0..100).any(|_| {
        let is_done = unmount().status.success();
        if !is_done {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        is_done
    });
    assert!(is_unmounted);
    match result.unwrap_err() {
        Error::Write { path, source, .. } => {
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            assert_eq!(path.len(), 2);
        }
        other => panic!("{other}"),
    }
}

/// Where the test as another user restores to.
const TARGET: &str = "DRYSTONE_TEST_TARGET";

#[test]
fn another_user_sets_what_can_be_set_and_says_what_not() {
    let target = tempfile::tempdir().unwrap();
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "restore_hostile::as_another_user",
            "--ignored",
            "--nocapture",
        ])
        .env(TARGET, target.path());
    run_as_another_user(&mut child, "restoring");
}

#[test]
#[ignore = "run by another_user_sets_what_can_be_set_and_says_what_not"]
fn as_another_user() {
    let target = std::path::PathBuf::from(std::env::var_os(TARGET).unwrap()).join("new");
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let mut foreign = entry("foreign", putter.file(b"f"));
        (foreign.uid, foreign.gid, foreign.mode) = (12, 34, 0o6755);
        let mut own = entry("own", putter.file(b"o"));
        own.mode = 0o4711;
        let mut kept = entry("readable", putter.file(b"r"));
        kept.mode = 0o400;
        kept.xattrs = vec![
            (b"trusted.no".to_vec(), b"1".to_vec()),
            (b"user.yes".to_vec(), b"1".to_vec()),
        ];
        let null = entry("null", Kind::CharDevice { major: 1, minor: 3 });
        let inner = vec![kept];
        let mut closed = entry("closed", Kind::Dir(putter.dir(inner)));
        closed.mode = 0o055;
        putter.dir(vec![foreign, own, null, closed])
    });
    for _ in 0..2 {
        let report = fixture.restore(&snapshot, &options(&target));
        let problems = problems(&report);
        assert!(
            problems.len() == 1 && problems[0].starts_with("null: cannot make the device"),
            "{problems:?}"
        );
        assert_eq!(report.kept, 0);
        let not_set: Vec<String> = report.not_set.iter().map(ToString::to_string).collect();
        for what in [
            "owner of 1 entry",
            "group of 1 entry",
            "set-id bit of 1",
            "trusted.no of 1",
        ] {
            assert!(not_set.iter().any(|text| text.contains(what)), "{what}: {not_set:?}");
        }
        let mode = |name: &str| fs::metadata(target.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("foreign"), mode("own"), mode("closed")), (0o755, 0o4711, 0o055));
        fs::set_permissions(target.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(mode("closed/readable"), 0o400);
        let mut buffer = [0; 8];
        let yes = rustix::fs::getxattr(target.join("closed/readable"), "user.yes", &mut buffer);
        assert_eq!(yes, Ok(1));
        fs::set_permissions(target.join("closed"), fs::Permissions::from_mode(0o055)).unwrap();
    }
}

#[test]
fn nothing_special_is_restored_where_that_is_asked_for() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let is_root = rustix::process::geteuid().is_root();
    // cap_setuid, permitted and effective (capabilities(7), version 2).
    let capability = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let snapshot = fixture.put(|putter| {
        let mut set_id = entry("set-id", putter.file(b"s"));
        set_id.mode = 0o6755;
        let mut capable = entry("capable", putter.file(b"c"));
        capable.xattrs = vec![(b"security.capability".to_vec(), capability.to_vec())];
        let null = entry("null", Kind::CharDevice { major: 1, minor: 3 });
        let disk = entry("disk", Kind::BlockDevice { major: 8, minor: 0 });
        let pipe = entry("pipe", Kind::Fifo);
        putter.dir(vec![set_id, capable, null, disk, pipe])
    });
    let has_capability = || {
        let mut buffer = [0; 64];
        rustix::fs::getxattr(target.path().join("capable"), "security.capability", &mut buffer).is_ok()
    };
    let mode = || fs::metadata(target.path().join("set-id")).unwrap().mode() & 0o7777;
    if is_root {
        // What an earlier restore gave goes again.
        fixture.restore(&snapshot, &options(target.path()));
        assert!(has_capability() && mode() == 0o6755);
        fs::remove_file(target.path().join("null")).unwrap();
        fs::remove_file(target.path().join("disk")).unwrap();
    }
    for _ in 0..2 {
        let without = RestoreOptions {
            special: Special::LeaveOut,
            ..options(target.path())
        };
        let report = fixture.restore(&snapshot, &without);
        assert!(report.problems.is_empty(), "{:?}", problems(&report));
        assert!(!has_capability() && mode() == 0o755);
        for name in ["null", "disk"] {
            assert!(!target.path().join(name).exists(), "{name}");
        }
        assert!(target.path().join("pipe").exists());
        let not_set: Vec<String> = report.not_set.iter().map(ToString::to_string).collect();
        for what in [
            "set-id bit of 1 entry",
            "file capability of 1 entry",
            "the device itself of 2 entries",
        ] {
            let told = not_set
                .iter()
                .any(|text| text.contains(what) && text.contains("--no-special"));
            assert!(told, "{what}: {not_set:?}");
        }
    }
}

#[test]
fn nobody_gets_capabilities_that_were_given_to_the_file_of_another() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("LEFT OUT: capabilities of another's file; they need root");
        return;
    }
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let capability = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let snapshot = fixture.put(|putter| {
        let xattrs = vec![(b"security.capability".to_vec(), capability.to_vec())];
        let mut foreign = entry("foreign", putter.file(b"f"));
        (foreign.uid, foreign.xattrs) = (1234, xattrs.clone());
        let mut own = entry("own", putter.file(b"o"));
        own.xattrs = xattrs;
        putter.dir(vec![foreign, own])
    });
    for _ in 0..2 {
        let own = RestoreOptions {
            owner: Owner::Own,
            ..options(target.path())
        };
        let report = fixture.restore(&snapshot, &own);
        let has = |name: &str| {
            let mut buffer = [0; 64];
            rustix::fs::getxattr(target.path().join(name), "security.capability", &mut buffer).is_ok()
        };
        assert!(!has("foreign") && has("own"));
        let told = |text: String| text.contains("file capability of 1 entry") && text.contains("another owner");
        assert!(
            report.not_set.iter().any(|not_set| told(not_set.to_string())),
            "{:?}",
            report.not_set
        );
    }
}
