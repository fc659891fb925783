//! What is taken: every kind of file with all its attributes, however deep and however many.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use drystone_format::recipe::Part;
use drystone_format::tree::{Entry, Kind, Marks, Time};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, makedev, mkdirat, mknodat, openat, setxattr,
};

use crate::backup_world::World;
use crate::vaults::noise;

fn assert_attributes(path: &Path, entry: &Entry) {
    let meta = fs::symlink_metadata(path).unwrap();
    assert_eq!(entry.mode, meta.mode() & 0o7777, "{path:?}");
    assert_eq!((entry.uid, entry.gid), (meta.uid(), meta.gid()), "{path:?}");
    let mtime = Time {
        seconds: meta.mtime(),
        nanos: meta.mtime_nsec() as u32,
    };
    assert_eq!(entry.mtime, mtime, "{path:?}");
    assert_eq!(entry.marks, Marks::default(), "{path:?}");
    let link = (meta.nlink() > 1 && !meta.is_dir()).then(|| (meta.dev(), meta.ino()));
    assert_eq!(entry.hard_link, link, "{path:?}");
}

#[test]
fn every_kind_of_file_is_taken_with_its_attributes() {
    let world = World::new();
    world.write("empty", "");
    world.write("small", "small");
    world.write("large", noise(1, 3 << 20));
    world.write("dir/inner", "inner");
    fs::create_dir(world.path("hollow")).unwrap();
    fs::hard_link(world.path("small"), world.path("dir/again")).unwrap();
    symlink("../no/where", world.path("link")).unwrap();
    fs::write(world.path(OsStr::from_bytes(b"not \xff\xfe utf-8\n")), "name").unwrap();
    fs::set_permissions(world.path("small"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(world.path("hollow"), fs::Permissions::from_mode(0o1777)).unwrap();
    let stamp = Timespec {
        tv_sec: -86_400,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    rustix::fs::futimens(File::open(world.path("empty")).unwrap(), &times).unwrap();
    mknodat(CWD, world.path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    let device = makedev(7, 300);
    let has_device = mknodat(
        CWD,
        world.path("device"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        device,
    );
    if let Err(error) = has_device {
        eprintln!("LEFT OUT: devices: {error}");
    }

    let report = world.backup();
    let table = world.table(&report);
    let files = if has_device.is_ok() { 10 } else { 9 };
    assert_eq!((report.totals.files, report.counts.new), (files, files));
    assert_eq!(report.totals.bytes, 5 + (3 << 20) + 5 + 5 + 4);
    for (path, entry) in &table {
        assert_attributes(&world.path(OsStr::from_bytes(path)), entry);
    }
    let get = |name: &str| &table[name.as_bytes()];
    assert_eq!(world.content(get("large")), noise(1, 3 << 20));
    assert_eq!(world.content(get("small")), b"small");
    assert_eq!(get("dir/again").hard_link, get("small").hard_link);
    assert_eq!(get("link").kind, Kind::Symlink(b"../no/where".to_vec()));
    assert_eq!(get("pipe").kind, Kind::Fifo);
    assert_eq!(get("socket").kind, Kind::Socket);
    assert_eq!(get("empty").mtime.seconds, -86_400);
    assert_eq!(world.content(&table[b"not \xff\xfe utf-8\n".as_slice()]), b"name");
    if has_device.is_ok() {
        assert_eq!(get("device").kind, Kind::CharDevice { major: 7, minor: 300 });
    }
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            (get("small").user.as_str(), get("small").group.as_str()),
            ("root", "root")
        );
    }
    let snapshot = world.vault.snapshot(&report.snapshot.unwrap()).unwrap();
    assert_eq!(snapshot.paths, [world.dir().as_os_str().as_bytes()]);
    assert_eq!((snapshot.host.as_str(), snapshot.user.as_str()), ("host", "user"));
    assert_eq!(snapshot.totals, report.totals);

    // What was not changed is not read again, and the tree is the same.
    let again = world.backup();
    assert_eq!(
        (again.counts.unchanged, again.counts.new, again.counts.changed),
        (files, 0, 0)
    );
    assert_eq!(world.table(&again), table);
    assert_eq!(
        world.vault.snapshot(&again.snapshot.unwrap()).unwrap().parent,
        report.snapshot
    );
}

#[test]
fn holes_stay_holes() {
    let world = World::new();
    let file = File::create(world.path("sparse")).unwrap();
    file.write_all_at(&noise(1, 10_000), 1 << 20).unwrap();
    file.write_all_at(b"end", 5 << 20).unwrap();
    file.set_len(8 << 20).unwrap();
    File::create(world.path("hollow")).unwrap().set_len(1 << 40).unwrap();
    world.write("zeros", vec![0; 100_000]);
    let report = world.backup();
    let table = world.table(&report);
    let mut expected = vec![0; 8 << 20];
    expected[1 << 20..][..10_000].copy_from_slice(&noise(1, 10_000));
    expected[5 << 20..][..3].copy_from_slice(b"end");
    assert_eq!(world.content(&table[b"sparse".as_slice()]), expected);
    let reader = world.vault.reader().unwrap();
    let parts: Vec<Part> = reader
        .parts(table[b"sparse".as_slice()].recipe().unwrap())
        .collect::<Result<_, _>>()
        .unwrap();
    let holes: u64 = parts
        .iter()
        .filter(|part| matches!(part, Part::Hole(_)))
        .map(Part::bytes)
        .sum();
    if holes == 0 {
        eprintln!("LEFT OUT: sparse files: the file system here has no holes");
        return;
    }
    assert!(holes > 7 << 20, "{parts:?}");
    assert_eq!(
        table[b"hollow".as_slice()].recipe().unwrap().parts,
        [Part::Hole(1 << 40)]
    );
    assert_eq!(
        table[b"zeros".as_slice()].recipe().unwrap().parts,
        [Part::Zeros(100_000)]
    );
}

#[test]
fn extended_attributes_and_acls_are_taken() {
    let world = World::new();
    world.write("file", "x");
    fs::create_dir(world.path("dir")).unwrap();
    for (name, key, value) in [
        ("file", "user.b", &b"two"[..]),
        ("file", "user.a", b""),
        ("dir", "user.d", b"\0\xff"),
    ] {
        if let Err(error) = setxattr(world.path(name), key, value, XattrFlags::empty()) {
            eprintln!("LEFT OUT: extended attributes: {error}");
            return;
        }
    }
    let mut expected = vec![
        (b"user.a".to_vec(), b"".to_vec()),
        (b"user.b".to_vec(), b"two".to_vec()),
    ];
    let acl = Command::new("setfacl")
        .args(["-m", "u:12345:r"])
        .arg(world.path("file"))
        .status();
    let has_acl = acl.is_ok_and(|status| status.success());
    if !has_acl {
        eprintln!("LEFT OUT: ACLs: no setfacl, or a file system without them");
    }
    symlink("file", world.path("link")).unwrap();
    let trusted = rustix::fs::lsetxattr(world.path("link"), "trusted.t", b"root", XattrFlags::empty());
    if let Err(error) = trusted {
        eprintln!("LEFT OUT: attributes of links: {error}");
    }
    let report = world.backup();
    let table = world.table(&report);
    let mut found = table[b"file".as_slice()].xattrs.clone();
    if has_acl {
        let acl = found.remove(0);
        assert_eq!(acl.0, b"system.posix_acl_access");
        assert!(acl.1.len() > 20);
    }
    found.retain(|(name, _)| !name.starts_with(b"security."));
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        table[b"dir".as_slice()]
            .xattrs
            .contains(&(b"user.d".to_vec(), b"\0\xff".to_vec()))
    );
    if trusted.is_ok() {
        assert!(
            table[b"link".as_slice()]
                .xattrs
                .contains(&(b"trusted.t".to_vec(), b"root".to_vec()))
        );
    }
    // A new attribute changes the ctime: no stale cache.
    setxattr(world.path("file"), "user.c", b"three", XattrFlags::empty()).unwrap();
    let table = world.table(&world.backup());
    assert!(
        table[b"file".as_slice()]
            .xattrs
            .contains(&(b"user.c".to_vec(), b"three".to_vec()))
    );
}

/// Directories `name`, each in the one before; the last one.
fn chain(world: &World, name: &str, depth: usize) -> std::os::fd::OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = openat(CWD, world.dir(), flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = openat(&dir, name, flags, Mode::empty()).unwrap();
    }
    dir
}

#[test]
fn paths_longer_than_the_kernel_takes_are_no_problem() {
    for (name, depth) in [("d".repeat(200), 60), ("e".to_owned(), 3000)] {
        let world = World::new();
        let deepest = chain(&world, &name, depth);
        let file = openat(&deepest, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        File::from(file).write_all_at(b"deep", 0).unwrap();
        // Something to come back to in every directory on the way.
        world.write("z", "last");
        let report = world.backup();
        assert_eq!((report.totals.files, report.counts.new), (2, 2));
        let table = world.table(&report);
        let path = [format!("{name}/").repeat(depth).as_bytes(), b"file"].concat();
        assert_eq!(world.content(&table[&path]), b"deep");
        assert!(path.len() > 4096);
        assert_eq!(world.backup().counts.unchanged, 2);
        // The library that removes temporary directories needs descriptors for all levels.
        let removed = Command::new("rm")
            .arg("-rf")
            .arg(world.dir().join(&name))
            .status()
            .unwrap();
        assert!(removed.success());
    }
}

fn many(count: usize) {
    let world = World::new();
    let dir = chain(&world, "many", 1);
    for number in 0..count {
        let name = format!("file number {number:07}");
        drop(openat(&dir, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap());
    }
    let first = world.backup();
    assert_eq!(first.counts.new, count as u64);
    let again = world.backup();
    assert_eq!(
        (again.counts.unchanged, again.totals.files),
        (count as u64, count as u64)
    );
    assert_eq!(world.tree(&again), world.tree(&first));
    // One in the middle changes, one goes, one comes.
    world.write(&format!("many/file number {:07}", count / 2), "x");
    fs::remove_file(world.path(format!("many/file number {:07}", count / 3))).unwrap();
    world.write("many/file number 0000000a", "");
    let changed = world.backup();
    assert_eq!(changed.counts.unchanged, count as u64 - 2);
    assert_eq!((changed.counts.changed, changed.counts.new), (1, 1));
    let last = world.backup();
    assert_eq!(
        (last.counts.unchanged, last.counts.changed, last.counts.new),
        (count as u64, 0, 0)
    );
    assert_eq!(world.tree(&last), world.tree(&changed));
    assert_eq!(world.names(&last).len(), count + 1);
}

#[test]
fn a_directory_of_20_000_entries() {
    many(20_000);
}

#[test]
#[ignore = "takes minutes unoptimised: cargo test --release -p drystone-backup -- --ignored million"]
fn a_directory_of_a_million_entries() {
    many(1_000_000);
}
