//! What is restored: content, attributes, in place, by choice.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use drystone_backup::{Overwrite, Patterns, RestoreMode, RestoreReport, Selection, Sparse};
use drystone_format::tree::{Entry, Kind, Time};

use crate::vaults::{Fixture, Putter, entry, noise, options};

const KIB: usize = 1024;

fn time(path: &Path) -> Time {
    let meta = fs::symlink_metadata(path).unwrap();
    Time {
        seconds: meta.mtime(),
        nanos: meta.mtime_nsec() as u32,
    }
}

fn clean(report: &RestoreReport) {
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(report.not_set.is_empty(), "{:?}", report.not_set);
}

/// A directory `d` with files of several sizes and `e` in it, `d` last changed at another time.
fn sample(putter: &mut Putter) -> Vec<Entry> {
    let inner = vec![entry("deep", putter.file(b"deep"))];
    let inner = putter.dir(inner);
    let entries = vec![
        entry("empty", putter.file(b"")),
        entry("small", putter.file(b"hello")),
        entry("large", putter.file(&noise(1, 700 * KIB))),
        entry("e", Kind::Dir(inner)),
    ];
    let mut dir = entry("d", Kind::Dir(putter.dir(entries)));
    dir.mtime.seconds += 77;
    vec![dir]
}

fn check_sample(target: &Path) {
    assert_eq!(fs::read(target.join("d/empty")).unwrap(), b"");
    assert_eq!(fs::read(target.join("d/small")).unwrap(), b"hello");
    assert!(fs::read(target.join("d/large")).unwrap() == noise(1, 700 * KIB));
    assert_eq!(fs::read(target.join("d/e/deep")).unwrap(), b"deep");
    let expected = entry("", Kind::Fifo).mtime;
    for name in ["d/empty", "d/small", "d/large", "d/e", "d/e/deep"] {
        assert_eq!(time(&target.join(name)), expected, "{name}");
    }
    assert_eq!(time(&target.join("d")).seconds, expected.seconds + 77);
}

#[test]
fn a_tree_comes_back_and_again_changes_nothing() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = sample(putter);
        putter.dir(entries)
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    clean(&report);
    assert_eq!((report.files, report.dirs, report.unchanged_files), (4, 2, 0));
    assert_eq!(report.bytes, 700 * 1024 + 9);
    assert_eq!(report.written_bytes, report.bytes);
    check_sample(target.path());

    let again = fixture.restore(&snapshot, &options(target.path()));
    clean(&again);
    assert_eq!((again.files, again.unchanged_files, again.written_bytes), (4, 4, 0));
    check_sample(target.path());
}

#[test]
fn in_place_only_what_differs_is_written() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = sample(putter);
        putter.dir(entries)
    });
    fixture.restore(&snapshot, &options(target.path()));
    let large = target.path().join("d/large");
    for damage in [
        |bytes: &mut Vec<u8>| bytes[300 * KIB] ^= 1,
        |bytes: &mut Vec<u8>| bytes.truncate(650 * KIB),
        |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[7; 5000]),
    ] {
        let mut bytes = noise(1, 700 * KIB);
        damage(&mut bytes);
        fs::write(&large, &bytes).unwrap();
        fs::remove_file(target.path().join("d/small")).unwrap();
        let report = fixture.restore(&snapshot, &options(target.path()));
        clean(&report);
        check_sample(target.path());
        assert!(report.written_bytes < 70 * 1024, "{report:?}");
        assert_eq!(report.unchanged_files, 2);
    }
}

#[test]
fn other_types_in_the_way_are_replaced() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let mut entries = sample(putter);
        entries.push(entry("link", Kind::Symlink(b"d/small".to_vec())));
        entries.push(entry("pipe", Kind::Fifo));
        putter.dir(entries)
    });
    let (d, path) = (target.path().join("d"), target.path());
    fs::create_dir_all(d.join("small")).unwrap();
    fs::create_dir_all(d.join("large/full")).unwrap();
    symlink("/etc/passwd", d.join("empty")).unwrap();
    fs::write(d.join("e"), "a file where a directory should be").unwrap();
    fs::write(path.join("link"), "x").unwrap();
    symlink("elsewhere", path.join("pipe")).unwrap();
    let report = fixture.restore(&snapshot, &options(path));
    assert_eq!(report.problems.count(), 1);
    let problem = report.problems.iter().next().unwrap().to_string();
    assert!(
        problem.starts_with("d/large: a directory that is not empty"),
        "{problem}"
    );
    fs::remove_dir_all(d.join("large")).unwrap();
    clean(&fixture.restore(&snapshot, &options(path)));
    check_sample(path);
    assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("d/small"));
    assert!(fs::symlink_metadata(path.join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn never_overwriting_keeps_what_is_there() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = sample(putter);
        putter.dir(entries)
    });
    fs::create_dir(target.path().join("d")).unwrap();
    fs::write(target.path().join("d/small"), "mine").unwrap();
    let mut options = options(target.path());
    options.overwrite = Overwrite::Never;
    let report = fixture.restore(&snapshot, &options);
    clean(&report);
    assert_eq!((report.files, report.kept), (3, 1));
    assert_eq!(fs::read(target.path().join("d/small")).unwrap(), b"mine");
    assert_eq!(fs::read(target.path().join("d/e/deep")).unwrap(), b"deep");
}

#[test]
fn patterns_choose_and_a_dry_run_touches_nothing() {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let entries = sample(putter);
        putter.dir(entries)
    });
    let found = |include: &[&str], exclude: &[&str]| {
        let target = tempfile::tempdir().unwrap();
        let mut options = options(&target.path().join("new"));
        options.include = Patterns::new(include).unwrap();
        options.exclude = Patterns::new(exclude).unwrap();
        options.mode = RestoreMode::DryRun;
        let planned = fixture.restore(&snapshot, &options);
        assert!(!options.target.exists());
        options.mode = RestoreMode::Write;
        let done = fixture.restore(&snapshot, &options);
        assert_eq!((planned.files, planned.bytes), (done.files, done.bytes));
        let mut names = Vec::new();
        let mut dirs = vec![options.target.clone()];
        while let Some(dir) = dirs.pop() {
            for found in fs::read_dir(&dir).unwrap() {
                let path = found.unwrap().path();
                names.push(path.strip_prefix(&options.target).unwrap().display().to_string());
                if path.is_dir() {
                    dirs.push(path);
                }
            }
        }
        names.sort();
        names.join(" ")
    };
    assert_eq!(found(&["deep"], &[]), "d d/e d/e/deep");
    assert_eq!(found(&["/d/e"], &[]), "d d/e d/e/deep");
    assert_eq!(found(&[], &["e/", "large"]), "d d/empty d/small");
    assert_eq!(found(&["d"], &["deep"]), "d d/e d/empty d/large d/small");
    assert_eq!(found(&["nothing"], &[]), "");
}

#[test]
fn a_part_of_a_snapshot_goes_right_into_the_target() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = sample(putter);
        putter.dir(entries)
    });
    let reader = fixture.vault.reader().unwrap();
    let options = options(target.path());
    let restore = |path: &[u8]| {
        let selection = Selection::find(&reader, &snapshot, path).unwrap();
        clean(&drystone_backup::restore(&fixture.vault, &selection, &options).unwrap());
    };
    restore(b"/d/");
    assert_eq!(fs::read(target.path().join("e/deep")).unwrap(), b"deep");
    assert_eq!(time(target.path()).seconds, 1_500_000_077);
    fs::remove_file(target.path().join("small")).unwrap();
    restore(b"d//small");
    assert_eq!(fs::read(target.path().join("small")).unwrap(), b"hello");
}

#[test]
fn holes_stay_holes() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let (head, tail) = (noise(5, 70_000), noise(6, 5));
    let zeros = vec![0; 1 << 20];
    let snapshot = fixture.put(|putter| {
        let entries = vec![
            entry(
                "hole",
                putter.sparse(&[Ok(&head), Err(64 << 20), Ok(&tail), Err(1 << 20)]),
            ),
            entry("zeros", putter.sparse(&[Ok(&zeros), Ok(&head)])),
        ];
        putter.dir(entries)
    });
    let blocks = |name: &str| fs::metadata(target.path().join(name)).unwrap().blocks() * 512;
    let check = || {
        let hole = fs::read(target.path().join("hole")).unwrap();
        assert_eq!(hole.len(), 70_005 + (65 << 20));
        assert!(hole[..70_000] == head && hole[70_000 + (64 << 20)..][..5] == tail);
        assert!(hole[70_000..].iter().filter(|byte| **byte != 0).count() <= 5);
        let data = fs::read(target.path().join("zeros")).unwrap();
        assert!(data[..1 << 20] == zeros && data[1 << 20..] == head);
    };
    let mut options = options(target.path());
    clean(&fixture.restore(&snapshot, &options));
    check();
    if blocks("hole") > 1 << 20 {
        eprintln!("LEFT OUT: the file system of {} has no holes", target.path().display());
        return;
    }
    assert!(blocks("zeros") >= 1 << 20);

    // In place: data where a hole should be goes away, and zeros become holes if that is asked for.
    let mut bytes = fs::read(target.path().join("hole")).unwrap();
    bytes[30 << 20..31 << 20].fill(1);
    fs::write(target.path().join("hole"), bytes).unwrap();
    options.sparse = Sparse::Always;
    clean(&fixture.restore(&snapshot, &options));
    check();
    assert!(blocks("hole") <= 1 << 20, "{}", blocks("hole"));
    assert!(blocks("zeros") < 1 << 20, "{}", blocks("zeros"));
    assert_eq!(fixture.restore(&snapshot, &options).unchanged_files, 2);
}

#[test]
fn all_types_and_attributes_are_set() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("LEFT OUT: devices, owners and trusted attributes need root");
    }
    let snapshot = fixture.put(|putter| {
        let mut modes = entry("modes", putter.file(b"m"));
        modes.mode = 0o4751;
        modes.xattrs = vec![
            (b"user.one".to_vec(), b"1\0\xff".to_vec()),
            (b"user.two".to_vec(), Vec::new()),
        ];
        let mut link = entry("link", Kind::Symlink(b"\xff not there".to_vec()));
        let mut pipe = entry("pipe", Kind::Fifo);
        pipe.mode = 0o606;
        let mut raw = entry("x", putter.file(b"raw"));
        raw.name = b"\xff\xfe\n".to_vec();
        raw.mtime = Time {
            seconds: -5,
            nanos: 999_999_999,
        };
        let inside = vec![raw];
        let mut closed = entry("closed", Kind::Dir(putter.dir(inside)));
        closed.mode = 0o1500;
        closed.xattrs = vec![(b"user.dir".to_vec(), b"d".to_vec())];
        let mut entries = vec![entry("socket", Kind::Socket)];
        if is_root {
            link.xattrs = vec![(b"trusted.link".to_vec(), b"l".to_vec())];
            (link.uid, link.gid, modes.uid, modes.gid) = (4321, 4322, 4323, 4324);
            pipe.xattrs = vec![(b"trusted.pipe".to_vec(), b"p".to_vec())];
            entries.push(entry("null", Kind::CharDevice { major: 1, minor: 3 }));
            entries.push(entry(
                "disk",
                Kind::BlockDevice {
                    major: 259,
                    minor: 70_000,
                },
            ));
        }
        entries.extend([modes, link, pipe, closed]);
        putter.dir(entries)
    });
    for _ in 0..2 {
        clean(&fixture.restore(&snapshot, &options(target.path())));
        let at = |name: &str| target.path().join(name);
        let meta = |name: &str| fs::symlink_metadata(at(name)).unwrap();
        assert_eq!(meta("modes").mode() & 0o7777, 0o4751);
        assert_eq!(meta("pipe").mode() & 0o7777, 0o606);
        assert_eq!(meta("closed").mode() & 0o7777, 0o1500);
        assert!(meta("socket").file_type().is_socket() && meta("pipe").file_type().is_fifo());
        let mut buffer = [0; 64];
        let mut xattr = |name: &str, key: &str| {
            let length = rustix::fs::lgetxattr(at(name), key, &mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        assert_eq!(xattr("modes", "user.one"), b"1\0\xff");
        assert_eq!(xattr("modes", "user.two"), b"");
        assert_eq!(xattr("closed", "user.dir"), b"d");
        if is_root {
            assert_eq!(xattr("link", "trusted.link"), b"l");
            assert_eq!(xattr("pipe", "trusted.pipe"), b"p");
            assert_eq!((meta("link").uid(), meta("link").gid()), (4321, 4322));
            assert_eq!((meta("modes").uid(), meta("modes").gid()), (4323, 4324));
            assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
            assert_eq!(meta("disk").rdev(), rustix::fs::makedev(259, 70_000));
            assert!(meta("disk").file_type().is_block_device());
        }
        assert_eq!(time(&at("link")), time(&at("pipe")));
        let closed = fs::read_dir(at("closed")).unwrap().next().unwrap().unwrap();
        assert_eq!(
            (time(&closed.path()).seconds, time(&closed.path()).nanos),
            (-5, 999_999_999)
        );

        // What a later run has to mend.
        fs::set_permissions(at("modes"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(at("modes"), "n").unwrap();
        rustix::fs::lsetxattr(at("modes"), "user.extra", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::lsetxattr(at("modes"), "user.one", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    }
    clean(&fixture.restore(&snapshot, &options(target.path())));
    let mut list = [0; 256];
    let length = rustix::fs::llistxattr(target.path().join("modes"), &mut list).unwrap();
    assert!(!String::from_utf8_lossy(&list[..length]).contains("user.extra"));
}

#[test]
fn hard_links_are_linked_again() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let (content, other) = (putter.file(&noise(9, 100_000)), putter.file(b"other"));
        let linked = |name: &str, kind: &Kind, number| Entry {
            hard_link: Some((1, number)),
            ..entry(name, kind.clone())
        };
        let mut entries = Vec::new();
        for number in 0..20 {
            let names = vec![
                linked("a", &content, number),
                linked("b", &content, number),
                linked("c", &other, 99),
            ];
            entries.push(entry(&format!("d{number:02}"), Kind::Dir(putter.dir(names))));
            entries.push(linked(&format!("z{number:02}"), &content, number));
        }
        putter.dir(entries)
    });
    let meta = |name: String| fs::metadata(target.path().join(name)).unwrap();
    let check = || {
        for number in 0..20 {
            let a = meta(format!("d{number:02}/a"));
            assert_eq!((a.nlink(), a.len()), (3, 100_000));
            assert_eq!(a.ino(), meta(format!("d{number:02}/b")).ino());
            assert_eq!(a.ino(), meta(format!("z{number:02}")).ino());
            assert_eq!(meta(format!("d{number:02}/c")).nlink(), 20);
            assert_eq!(time(&target.path().join(format!("d{number:02}"))).nanos, 123_456_789);
        }
    };
    clean(&fixture.restore(&snapshot, &options(target.path())));
    check();
    let again = fixture.restore(&snapshot, &options(target.path()));
    assert_eq!(again.written_bytes, 0);
    check();
    // A name that came apart is linked again; a group that differs is replaced as a whole.
    fs::remove_file(target.path().join("d03/b")).unwrap();
    fs::write(target.path().join("d03/b"), "apart").unwrap();
    fs::write(target.path().join("z07"), "changed under all names").unwrap();
    clean(&fixture.restore(&snapshot, &options(target.path())));
    check();
    assert!(fs::read(target.path().join("z07")).unwrap() == noise(9, 100_000));
}

#[test]
fn many_threads_fill_a_large_file_and_a_rerun_completes_it() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let large = noise(11, 40 << 20);
    let snapshot = fixture.put(|putter| {
        let entries = vec![
            entry("large", putter.file(&large)),
            entry(
                "mixed",
                putter.sparse(&[Err(50 << 20), Ok(&large[..3 << 20]), Err(1 << 30)]),
            ),
        ];
        putter.dir(entries)
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    clean(&report);
    assert_eq!((report.files, report.written_bytes), (2, 43 << 20));
    let path = target.path().join("large");
    assert!(fs::read(&path).unwrap() == large);
    let mixed = fs::File::open(target.path().join("mixed")).unwrap();
    assert_eq!(mixed.metadata().unwrap().len(), (53 << 20) + (1 << 30));
    let mut piece = vec![0; 3 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&mixed, &mut piece, 50 << 20).unwrap();
    assert!(piece == large[..3 << 20]);

    // As an interrupted run leaves it: some of it missing, without its time.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 100_000], 17 << 20).unwrap();
    file.set_len(39 << 20).unwrap();
    let report = fixture.restore(&snapshot, &options(target.path()));
    clean(&report);
    assert!(fs::read(&path).unwrap() == large);
    assert!(report.written_bytes < 1300 * 1024, "{report:?}");
    assert_eq!((report.files, report.unchanged_files), (2, 1));
    assert_eq!(time(&path), entry("", Kind::Fifo).mtime);
}

#[test]
fn a_directory_of_many_entries() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(|putter| {
        let entries = (0..20_000)
            .map(|number| {
                entry(
                    &format!("{number:05}"),
                    putter.file(format!("{}", number % 7).as_bytes()),
                )
            })
            .collect();
        putter.dir(entries)
    });
    let report = fixture.restore(&snapshot, &options(target.path()));
    clean(&report);
    assert_eq!(report.files, 20_000);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 20_000);
    assert_eq!(
        fs::read(target.path().join("12345")).unwrap(),
        (12345 % 7).to_string().as_bytes()
    );
}
