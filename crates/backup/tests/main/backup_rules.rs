//! What is taken and what is left out: sources, filters, markers, file systems, standard input.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use drystone_backup::{
    BackupOptions, Error, FiltersBuilder, Marker, Mode, OneFileSystem, Parent, backup, backup_stream,
};
use drystone_format::tree::Kind;

use crate::backup_world::{World, assert_clean, problems};
use crate::vaults::noise;

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# a cache";

fn world() -> World {
    let world = World::new();
    for name in [
        "a.o",
        "a.c",
        "src/b.o",
        "src/keep.o",
        "src/b.c",
        "target/x",
        "target/debug/y",
        "src/target/z",
    ] {
        world.write(name, name);
    }
    world
}

fn filtered(world: &World, build: impl FnOnce(&mut FiltersBuilder)) -> Vec<String> {
    let mut filters = FiltersBuilder::default();
    build(&mut filters);
    let options = BackupOptions {
        filters: filters.build().unwrap(),
        ..world.options()
    };
    let report = backup(&world.vault, &options).unwrap();
    assert_clean(&report);
    world.names(&report)
}

#[test]
fn patterns_choose() {
    let world = world();
    let names = filtered(&world, |filters| {
        filters.exclude("*.o").unwrap().include("keep.o").unwrap();
        filters.exclude("target/").unwrap();
    });
    assert_eq!(names, ["a.c", "src", "src/b.c", "src/keep.o"]);
    let absolute = format!("{}/target", world.dir().display());
    let names = filtered(&world, |filters| {
        filters
            .exclude_lines("f", &format!("# mine\n\n{absolute}\nsrc/*.c\n"))
            .unwrap();
    });
    assert_eq!(
        names,
        [
            "a.c",
            "a.o",
            "src",
            "src/b.o",
            "src/keep.o",
            "src/target",
            "src/target/z"
        ]
    );
    // A source is taken whatever the patterns say.
    let name = world.dir().file_name().unwrap().to_str().unwrap().to_owned();
    let names = filtered(&world, |filters| {
        filters.exclude(&name).unwrap().exclude("src").unwrap();
    });
    assert_eq!(
        names,
        ["a.c", "a.o", "target", "target/debug", "target/debug/y", "target/x"]
    );
}

#[test]
fn marked_directories_keep_the_marker_only() {
    let world = world();
    world.write("target/CACHEDIR.TAG", TAG);
    world.write(
        "src/CACHEDIR.TAG",
        "Signature: something else, and long enough to be compared",
    );
    world.write("src/target/.nobackup", "");
    let names = filtered(&world, |filters| {
        filters.exclude_if_present(Marker::cache());
    });
    assert!(names.contains(&"target/CACHEDIR.TAG".to_owned()) && names.contains(&"src/target/z".to_owned()));
    assert!(
        !names.iter().any(|name| name == "target/x" || name == "target/debug"),
        "{names:?}"
    );
    let marker = Marker::parse(".nobackup").unwrap();
    let names = filtered(&world, |filters| {
        filters.exclude_if_present(marker);
    });
    assert!(names.contains(&"src/target/.nobackup".to_owned()) && names.contains(&"target/x".to_owned()));
    assert!(!names.contains(&"src/target/z".to_owned()));
}

#[test]
fn sources_unite_and_keep_their_places() {
    let world = world();
    symlink("src", world.path("link")).unwrap();
    let sources = |names: &[&str]| BackupOptions {
        sources: names.iter().map(|name| world.path(name)).collect(),
        ..world.options()
    };
    // A link on the way is followed, the last one is not; the same place twice is one.
    let report = backup(&world.vault, &sources(&["link/b.c", "a.c", "src", "src/target", "a.c"])).unwrap();
    assert_clean(&report);
    let table = world.table(&report);
    assert!(matches!(table[b"link".as_slice()].kind, Kind::Dir(_)));
    let expected = [
        "a.c",
        "link",
        "link/b.c",
        "src",
        "src/b.c",
        "src/b.o",
        "src/keep.o",
        "src/target",
        "src/target/z",
    ];
    assert_eq!(world.names(&report), expected);
    // Files that are sources themselves are cached too.
    let again = backup(&world.vault, &sources(&["link/b.c", "a.c", "src", "src/target", "a.c"])).unwrap();
    assert_eq!((again.counts.unchanged, again.counts.new), (6, 0));
    let report = backup(&world.vault, &sources(&["link"])).unwrap();
    assert!(matches!(
        world.table(&report)[b"link".as_slice()].kind,
        Kind::Symlink(_)
    ));
    // The directories that lead to a source have their attributes.
    let everything = world.everything(&report);
    let parent = &everything[world.dir().as_os_str().as_bytes()];
    let meta = fs::symlink_metadata(world.dir()).unwrap();
    assert_eq!((parent.mode, parent.uid), (meta.mode() & 0o7777, meta.uid()));

    let report = backup(&world.vault, &sources(&["a.c", "none", "a.c/no"])).unwrap();
    assert_eq!(world.names(&report), ["a.c"]);
    assert_eq!(report.totals.problems, 2, "{:?}", problems(&report));
    let missing = backup(&world.vault, &sources(&["none"]));
    assert!(matches!(missing, Err(Error::Source { .. })));
}

/// Deeper than directories stay open: what is behind a link does not lead back through `..`.
#[test]
fn a_deep_tree_behind_a_link_is_whole() {
    let world = World::new();
    let deep: String = (0..300).map(|level| format!("d{level}/")).collect();
    world.write(&format!("real/{deep}file"), "deep");
    world.write("real/last", "last");
    symlink("real", world.path("link")).unwrap();
    for source in ["link/", "link/d0"] {
        let options = BackupOptions {
            sources: vec![world.path(source), world.path("real/last")],
            ..world.options()
        };
        let report = backup(&world.vault, &options).unwrap();
        assert_clean(&report);
        assert!(world.names(&report).contains(&format!("link/{deep}file")));
    }
}

#[test]
fn a_source_in_what_is_left_out_is_taken() {
    let world = world();
    let mut filters = FiltersBuilder::default();
    filters.exclude("src").unwrap();
    let options = BackupOptions {
        filters: filters.build().unwrap(),
        sources: vec![world.dir().to_owned(), world.path("src/target")],
        ..world.options()
    };
    let report = backup(&world.vault, &options).unwrap();
    assert_clean(&report);
    let names = world.names(&report);
    assert!(
        names.contains(&"src/target/z".to_owned()) && !names.contains(&"src/b.c".to_owned()),
        "{names:?}"
    );
}

#[test]
fn many_sources_share_a_place_in_the_cache() {
    let world = World::new();
    let names: Vec<String> = (0..100).map(|number| format!("{:02}/f{number}", number % 30)).collect();
    names.iter().for_each(|name| world.write(name, name));
    world.write("00/other", "not asked for");
    let options = BackupOptions {
        sources: names.iter().map(|name| world.path(name)).collect(),
        ..world.options()
    };
    let first = backup(&world.vault, &options).unwrap();
    assert_eq!(
        (first.counts.new, first.totals.dirs),
        (100, 30 + world.dir().components().count() as u64 - 1)
    );
    let again = backup(&world.vault, &options).unwrap();
    assert_eq!((again.counts.unchanged, again.counts.new), (100, 0));
}

#[test]
fn other_file_systems_are_left_out_when_asked() {
    let world = world();
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(world.path("src")).status();
    if !mount(&["-t", "tmpfs", "drystone-test"]).is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: one file system: no right to mount");
        return;
    }
    fs::write(world.path("src/other"), "on another file system").unwrap();
    let run = |sources: Vec<PathBuf>| {
        let options = BackupOptions {
            one_file_system: OneFileSystem::Stay,
            sources,
            ..world.options()
        };
        world.names(&backup(&world.vault, &options).unwrap())
    };
    let (stays, named) = (
        run(vec![world.dir().to_owned()]),
        run(vec![world.dir().to_owned(), world.path("src")]),
    );
    let crosses = world.names(&world.backup());
    assert!(
        Command::new("umount")
            .arg(world.path("src"))
            .status()
            .unwrap()
            .success()
    );
    assert!(stays.contains(&"src".to_owned()) && stays.contains(&"target/x".to_owned()));
    assert!(!stays.contains(&"src/other".to_owned()));
    assert!(named.contains(&"src/other".to_owned()) && crosses.contains(&"src/other".to_owned()));
}

/// A file system that is mounted for a test, if this user may do that.
struct Mount(PathBuf);

impl Mount {
    fn new(kind: &str, at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "drystone-test"]).arg(&at);
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("LEFT OUT: a file system of the kernel: no right to mount");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_the_kernel_makes_up_is_left_out_unless_it_is_named() {
    let world = world();
    let (Some(_proc), Some(_disk)) = (
        Mount::new("proc", world.path("proc")),
        Mount::new("tmpfs", world.path("disk")),
    ) else {
        return;
    };
    world.write("disk/file", "on a disk");
    let run = |sources: &[&str]| {
        let options = BackupOptions {
            sources: sources.iter().map(|name| world.path(name)).collect(),
            ..world.options()
        };
        let report = backup(&world.vault, &options).unwrap();
        assert_clean(&report);
        (world.names(&report), report.left_out)
    };
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let proc = world.path("proc").as_os_str().as_bytes().to_vec();
    let (names, left_out) = run(&[""]);
    assert_eq!(left_out, [proc.as_slice()]);
    assert!(has(&names, "proc") && has(&names, "disk/file"));
    assert!(!names.iter().any(|name| name.starts_with("proc/")));
    // What is named is taken.
    let (names, left_out) = run(&["", "proc/version"]);
    assert_eq!(left_out, [proc.as_slice()]);
    assert!(has(&names, "proc/version") && !has(&names, "proc/cpuinfo"));
    let (names, left_out) = run(&["proc/tty"]);
    assert_eq!(left_out, [b""; 0]);
    assert!(has(&names, "proc/tty/drivers"));
}

#[test]
fn a_dry_run_stores_nothing_and_counts_what_it_would() {
    let world = world();
    let options = BackupOptions {
        mode: Mode::DryRun,
        ..world.options()
    };
    let before = world.store.contents().len();
    let dry = backup(&world.vault, &options).unwrap();
    assert_eq!((dry.snapshot, dry.counts.new, dry.totals.files), (None, 8, 8));
    assert_eq!(world.store.contents().len(), before);
    let real = world.backup();
    assert_eq!(
        (real.totals.files, real.totals.dirs, real.totals.bytes),
        (dry.totals.files, dry.totals.dirs, dry.totals.bytes)
    );
    assert_eq!(backup(&world.vault, &options).unwrap().counts.unchanged, 8);
    let rescan = BackupOptions {
        parent: Parent::Rescan,
        ..options
    };
    assert_eq!(backup(&world.vault, &rescan).unwrap().counts.new, 8);
}

#[test]
fn standard_input_becomes_a_file() {
    let world = World::new();
    let data = noise(3, 2_500_000);
    let report = backup_stream(&world.vault, b"db/dump.sql", &mut data.as_slice(), &world.options()).unwrap();
    let table = world.everything(&report);
    assert_eq!(table.keys().collect::<Vec<_>>(), [&b"/db"[..], b"/db/dump.sql"]);
    assert_eq!(world.content(&table[b"/db/dump.sql".as_slice()]), data);
    let snapshot = world.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    assert_eq!(snapshot.paths, [b"/db/dump.sql"]);
    let dry = BackupOptions {
        mode: Mode::DryRun,
        ..world.options()
    };
    let stored = world.store.contents().len();
    let report = backup_stream(&world.vault, b"db/other", &mut noise(4, 2_500_000).as_slice(), &dry).unwrap();
    assert_eq!(
        (report.snapshot, report.totals.files, report.totals.bytes),
        (None, 1, 2_500_000)
    );
    assert_eq!(world.store.contents().len(), stored);
    for bad in [&b""[..], b"/", b"a/../b"] {
        let result = backup_stream(&world.vault, bad, &mut data.as_slice(), &world.options());
        assert!(matches!(result, Err(Error::Source { .. })));
    }
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken"))
        }
    }
    let result = backup_stream(&world.vault, b"x", &mut Broken, &world.options());
    assert!(matches!(result, Err(Error::Stream { .. })));
    assert_eq!(world.vault.snapshot_ids().unwrap().len(), 1);
}
