//! Backed up and restored: everything that a file has comes back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use drystone_backup::{
    BackupOptions, BackupReport, Filters, Look, Mode, Names, OneFileSystem, OwnDirs, Parent, RestoreReport, Selection,
    backup, restore,
};
use drystone_format::codec::Compression;
use drystone_vault::{Cancel, Progress};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, lsetxattr, mknodat, utimensat};

use crate::compare::{assert_same, listing};
use crate::vaults::{Fixture, noise, options};

fn sources(source: &Path) -> BackupOptions {
    BackupOptions {
        sources: vec![source.to_owned()],
        filters: Filters::default(),
        own: OwnDirs::default(),
        one_file_system: OneFileSystem::Cross,
        compression: Compression::DEFAULT,
        host: "host".to_owned(),
        user: "user".to_owned(),
        program: "test".to_owned(),
        tags: Vec::new(),
        names: Arc::new(Names::of_system()),
        parent: Parent::Cached,
        look: Look::default(),
        mode: Mode::Store,
        threads: 2,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    }
}

pub(crate) fn take(fixture: &Fixture, source: &Path) -> BackupReport {
    let report = backup(&fixture.vault, &sources(source)).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:?}");
    report
}

/// Restores what was taken of `source`.
pub(crate) fn give(fixture: &Fixture, report: &BackupReport, source: &Path, target: &Path) -> RestoreReport {
    let snapshot = fixture.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    let reader = fixture.vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, source.as_os_str().as_bytes()).unwrap();
    let report = restore(&fixture.vault, &selection, &options(target)).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(report.not_set.is_empty(), "{:?}", report.not_set);
    report
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(seconds, nanos),
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with one of everything that this user can make.
pub(crate) fn make_everything(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/sub/empty")).unwrap();
    fs::write(at("plain"), noise(1, 300_000)).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("zeros"), vec![0; 500_000]).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.write_all_at(&noise(2, 70_000), 8 << 20).unwrap();
    sparse.set_len(32 << 20).unwrap();
    fs::File::create(at("all-hole")).unwrap().set_len(5 << 20).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe not utf-8 \n\x01")), "raw").unwrap();
    for name in ["dir/hard1", "dir/sub/hard2", "hard3"] {
        fs::hard_link(at("plain"), at(name)).unwrap();
    }
    symlink("plain", at("link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff/nowhere"), at("dir/dangling")).unwrap();
    fs::hard_link(at("link"), at("link-too")).unwrap();
    mknodat(CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    mknodat(
        CWD,
        at("socket"),
        rustix::fs::FileType::Socket,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    lsetxattr(at("plain"), "user.note", b"\0\xff", XattrFlags::empty()).unwrap();
    lsetxattr(at("dir/sub"), "user.empty", b"", XattrFlags::empty()).unwrap();
    let long: Vec<u8> = noise(3, 3000);
    lsetxattr(at("empty"), "user.long", &long, XattrFlags::empty()).unwrap();
    if rustix::process::geteuid().is_root() {
        let device = |name, kind, number| {
            mknodat(CWD, at(name), kind, rustix::fs::Mode::RUSR, number).unwrap();
        };
        device("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        device(
            "disk",
            rustix::fs::FileType::BlockDevice,
            rustix::fs::makedev(259, 300_000),
        );
        std::os::unix::fs::lchown(at("zeros"), Some(1), Some(54_321)).unwrap();
        std::os::unix::fs::lchown(at("link"), Some(12_345), Some(2)).unwrap();
        std::os::unix::fs::lchown(at("dir/sub"), Some(12_345), Some(54_321)).unwrap();
        lsetxattr(at("dir/dangling"), "trusted.t", b"t", XattrFlags::empty()).unwrap();
        // cap_net_raw, permitted and effective (capabilities(7), version 2).
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lsetxattr(at("zeros"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    } else {
        eprintln!("LEFT OUT: devices, other owners, capabilities; they need root");
    }
    let acl = |args: &[&str]| Command::new("setfacl").args(args).arg(at("dir")).status();
    if !acl(&["-m", "u:1234:rw,d:g:4321:r"]).is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: POSIX ACLs; there is no setfacl, or no ACLs on this file system");
    }
    for (name, mode) in [
        ("zeros", 0o6755),
        // Only root can back up what nobody may read.
        (
            "empty",
            if rustix::process::geteuid().is_root() {
                0o000
            } else {
                0o400
            },
        ),
        ("dir/sub/empty", 0o1777),
        ("dir/sub", 0o2550),
    ] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_time(&at("link"), 1_000_000_000, 1);
    set_time(&at("empty"), -1_000_000, 999_999_999);
    set_time(&at("fifo"), 4_000_000_000, 123);
    set_time(&at("dir/sub/empty"), 0, 0);
    set_time(&at("dir"), 1_234_567_890, 987_654_321);
}

#[test]
fn one_of_everything_comes_back() {
    let (fixture, source) = (Fixture::new(), tempfile::tempdir().unwrap());
    let target = tempfile::tempdir().unwrap();
    make_everything(source.path());
    let expected = listing(source.path());
    assert!(expected.len() > 16);
    let report = take(&fixture, source.path());
    let to = target.path().join("new");
    give(&fixture, &report, source.path(), &to);
    assert_same(&expected, &listing(&to));
    let again = give(&fixture, &report, source.path(), &to);
    assert_eq!(again.written_bytes, 0);
    assert_same(&expected, &listing(&to));
}

#[test]
fn a_target_with_default_acls_or_set_group_id_leaves_no_trace() {
    let (fixture, source) = (Fixture::new(), tempfile::tempdir().unwrap());
    let target = tempfile::tempdir().unwrap();
    make_everything(source.path());
    let report = take(&fixture, source.path());
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o2777)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(target.path(), None, Some(777)).unwrap();
    }
    let _ = Command::new("setfacl")
        .args(["-m", "d:u:99:rwx"])
        .arg(target.path())
        .status();
    let snapshot = fixture.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    // The whole snapshot, so that the target itself keeps its ACL.
    let done = fixture.restore(&snapshot, &options(target.path()));
    assert!(done.problems.is_empty());
    // The directories above the source belong to root, which another user cannot restore.
    assert!(done.not_set.is_empty() || !rustix::process::geteuid().is_root());
    let inside = target.path().join(source.path().strip_prefix("/").unwrap());
    assert_same(&listing(source.path()), &listing(&inside));
}

/// Something that happens to a tree.
#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u64, usize),
    Patch(u8, u16),
    Cut(u8, u16),
    Remove(u8),
    Link(u8, u8),
    Symlink(u8, u8),
    Mode(u8, u16),
    Attribute(u8, u8),
    Time(u8, u32),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let name = 0..12u8;
    let edit = prop_oneof![
        4 => (name.clone(), any::<u64>(), prop_oneof![0..200usize, 0..60_000usize]).prop_map(|(a, b, c)| Edit::Write(a, b, c)),
        2 => (name.clone(), any::<u16>()).prop_map(|(a, b)| Edit::Patch(a, b)),
        1 => (name.clone(), any::<u16>()).prop_map(|(a, b)| Edit::Cut(a, b)),
        1 => name.clone().prop_map(Edit::Remove),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Edit::Link(a, b)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Edit::Symlink(a, b)),
        1 => (name.clone(), 0o400..0o1000u16).prop_map(|(a, b)| Edit::Mode(a, b)),
        1 => (name.clone(), any::<u8>()).prop_map(|(a, b)| Edit::Attribute(a, b)),
        1 => (name, any::<u32>()).prop_map(|(a, b)| Edit::Time(a, b)),
    ];
    proptest::collection::vec(edit, 1..12)
}

fn apply(root: &Path, edit: &Edit) {
    let at = |number: u8| root.join(format!("d{}/f{number}", number % 3));
    let file = |number: u8| fs::OpenOptions::new().read(true).write(true).open(at(number));
    // What an edit needs may not be there; then nothing happens.
    match edit {
        Edit::Write(name, seed, size) => {
            let _ = fs::remove_file(at(*name));
            fs::write(at(*name), noise(*seed, *size)).unwrap();
        }
        Edit::Patch(name, offset) => drop(file(*name).map(|file| file.write_all_at(b"patch", (*offset).into()))),
        Edit::Cut(name, size) => drop(file(*name).map(|file| file.set_len((*size).into()))),
        Edit::Remove(name) => drop(fs::remove_file(at(*name))),
        Edit::Link(from, to) => drop(fs::hard_link(at(*from), at(*to))),
        Edit::Symlink(name, to) => drop(symlink(at(*to), at(*name))),
        Edit::Mode(name, mode) => {
            drop(file(*name).map(|file| file.set_permissions(fs::Permissions::from_mode(u32::from(*mode) | 0o600))))
        }
        Edit::Attribute(name, value) => {
            drop(file(*name).map(|file| rustix::fs::fsetxattr(file, "user.value", &[*value], XattrFlags::empty())));
        }
        Edit::Time(name, nanos) => {
            if at(*name).symlink_metadata().is_ok() {
                set_time(&at(*name), 1_600_000_000, i64::from(*nanos % 1_000_000_000));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn edits_are_restored_over_what_was_there(rounds in proptest::collection::vec(edits(), 1..6)) {
        let (fixture, source) = (Fixture::new(), tempfile::tempdir().unwrap());
        let target = tempfile::tempdir().unwrap();
        for name in ["d0", "d1", "d2"] {
            fs::create_dir(source.path().join(name)).unwrap();
        }
        for round in rounds {
            round.iter().for_each(|edit| apply(source.path(), edit));
            let report = take(&fixture, source.path());
            let expected = listing(source.path());
            let fresh = tempfile::tempdir().unwrap();
            give(&fixture, &report, source.path(), fresh.path());
            assert_same(&expected, &listing(fresh.path()));
            // In place what is not in the snapshot stays, and is removed here for the comparison.
            give(&fixture, &report, source.path(), target.path());
            for path in listing(target.path()).into_keys().filter(|path| !expected.contains_key(path)) {
                fs::remove_file(target.path().join(path)).unwrap();
            }
            give(&fixture, &report, source.path(), target.path());
            assert_same(&expected, &listing(target.path()));
        }
    }
}

/// More extended attributes than are stored: the first are, and drystone's limit is named rather than one of the kernel.
#[test]
fn attributes_beyond_the_limit_are_named() {
    let Ok(source) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("LEFT OUT: no tmpfs at /dev/shm for many extended attributes");
        return;
    };
    let (file, value) = (source.path().join("f"), vec![7; 60_000]);
    fs::write(&file, "x").unwrap();
    for number in 0..20 {
        let name = format!("user.{number:02}");
        if rustix::fs::setxattr(&file, name, &value, rustix::fs::XattrFlags::empty()).is_err() {
            eprintln!("LEFT OUT: tmpfs without large extended attributes");
            return;
        }
    }
    let fixture = Fixture::new();
    let report = drystone_backup::backup(&fixture.vault, &sources(source.path())).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.len() == 1 && problems[0].contains("1048576 bytes"),
        "{problems:?}"
    );
    let snapshot = fixture.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    let reader = fixture.vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, file.as_os_str().as_bytes()).unwrap();
    let entry = selection.entry().unwrap();
    assert_eq!(entry.xattrs.len(), 17);
    assert_eq!(entry.xattrs[16].0, b"user.16");
    assert!(entry.flaw().is_some());
}

/// A time that the file system of the target cannot hold is said, by a restore and by a drill, and is no damage.
#[test]
fn times_that_the_target_cannot_hold_are_said() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let far = drystone_format::tree::Time {
        seconds: 1 << 40,
        nanos: 7,
    };
    let snapshot = fixture.put(|putter| {
        let mut file = crate::vaults::entry("far", putter.file(b"x"));
        file.mtime = far;
        let near = crate::vaults::entry("near", putter.file(b"x"));
        putter.dir(vec![file, near])
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    assert!(report.problems.is_empty());
    let is_exact = fs::metadata(target.path().join("far")).unwrap().mtime() == far.seconds;
    let said: Vec<String> = report.not_set.iter().map(ToString::to_string).collect();
    assert_eq!(said.is_empty(), is_exact, "{said:?}");
    if is_exact {
        eprintln!(
            "LEFT OUT: the file system of {} holds any time",
            target.path().display()
        );
    } else {
        assert!(
            said[0].contains("modification time of 1 entry, first of far"),
            "{said:?}"
        );
    }
    let options = drystone_backup::DrillOptions {
        share: drystone_backup::Share::ALL,
        seed: 1,
        into: target.path().join("scratch"),
        keep: drystone_backup::Keep::Remove,
        source: None,
        within: None,
        threads: 2,
        progress: Default::default(),
        cancel: Default::default(),
    };
    let drilled = drystone_backup::drill(&fixture.vault, &snapshot, &options).unwrap();
    assert_eq!((drilled.problems.count(), drilled.files), (0, 2));
    assert_eq!(drilled.not_set.is_empty(), is_exact);
}
