//! Single files, what changed in a subvolume, and what names mean.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command;

use drystone_extents::{Btrfs, Change, Flow, Snapshot, mount_of, mounts, subvolume};
use drystone_reflink::{Cancel, Fate, IsRoot, Known, Progress, Reads, find_targets, join_extents, share_file};

use crate::disk::{Disk, estimate, noise, put, run_all};
use crate::image::command;

const MIB: usize = 1 << 20;

#[test]
fn named_files_come_to_share_if_they_are_equal() {
    for disk in [Disk::btrfs(""), Disk::xfs()].into_iter().flatten() {
        let bytes = noise(1, 3 * MIB + 77);
        let one = disk.write("one", &bytes);
        let same = disk.write("same", &bytes);
        let longer = disk.write("longer", &[bytes.as_slice(), b"x"].concat());
        let other = disk.write("other", &bytes);
        put(&other, 2 * MIB as u64, b"other");
        let manifest = disk.manifest();
        let share = |to: &std::path::Path| share_file(&one, to, &Progress::default(), &Cancel::default()).unwrap();
        assert_eq!(share(&same), Fate::Shared(3 * MIB as u64 + 4096));
        assert_eq!(share(&same), Fate::Shared(0));
        assert_eq!(share(&longer), Fate::OtherSize(bytes.len() as u64 + 1));
        assert_eq!(share(&other), Fate::Differs(0));
        assert!(matches!(share(&disk.path("none")), Fate::Failed(why) if why.contains("none")));
        assert!(matches!(share(disk.root()), Fate::Failed(why) if why.contains("regular")));
        assert_eq!(disk.manifest(), manifest);
    }
}

#[test]
fn named_files_are_called_equal_only_if_they_are() {
    for disk in [Disk::btrfs(""), Disk::xfs()].into_iter().flatten() {
        let bytes = noise(1, MIB);
        let one = disk.write("one", &bytes);
        let share = |from: &std::path::Path, to: &std::path::Path| {
            share_file(from, to, &Progress::default(), &Cancel::default()).unwrap()
        };
        // Nothing of these lies on the disk at a place of its own, and yet it is not what the other has.
        let hole = disk.write("hole", b"");
        fs::File::options()
            .write(true)
            .open(&hole)
            .unwrap()
            .set_len(MIB as u64)
            .unwrap();
        let reserved = disk.write("reserved", b"");
        command("fallocate", &["-l", "1M", reserved.to_str().unwrap()]);
        let punched = disk.path("punched");
        command(
            "cp",
            &["--reflink=always", one.to_str().unwrap(), punched.to_str().unwrap()],
        );
        command(
            "fallocate",
            &["-p", "-o", "64K", "-l", "64K", punched.to_str().unwrap()],
        );
        let few = [("a", 1), ("b", 1), ("c", 2)].map(|(name, seed)| disk.write(name, &noise(seed, 1500)));
        let empty = [disk.write("empty", b""), disk.write("empty too", b"")];
        disk.sync();
        let manifest = disk.manifest();
        for (from, to) in [
            (&one, &hole),
            (&hole, &one),
            (&one, &reserved),
            (&one, &punched),
            (&punched, &one),
        ] {
            let fate = share(from, to);
            assert!(
                matches!(fate, Fate::Differs(_)),
                "{} and {}: {fate:?}",
                from.display(),
                to.display()
            );
        }
        assert_eq!(share(&few[0], &few[2]), Fate::Differs(0));
        assert!(matches!(share(&few[0], &few[1]), Fate::Equal | Fate::Shared(4096)));
        assert!(matches!(share(&hole, &reserved), Fate::Equal | Fate::Shared(_)));
        assert_eq!(share(&empty[0], &empty[1]), Fate::Shared(0));
        assert_eq!(share(&one, &one), Fate::Shared(0));
        assert_eq!(disk.manifest(), manifest);
    }
    // Parts of one compressed extent are told as being at one place, whichever they are.
    let Some(disk) = Disk::btrfs("compress-force=zstd:3") else {
        return;
    };
    let text: Vec<u8> = (0..65536u32).map(|at| (at / 4096) as u8).collect();
    let one = disk.write("one", &text);
    disk.sync();
    let part = |name: &str, at: u64| {
        let path = disk.write(name, b"");
        let range = format!("reflink {} {at} 0 8192", one.display());
        command("xfs_io", &["-c", &range, path.to_str().unwrap()]);
        path
    };
    let (low, high) = (part("low", 0), part("high", 16384));
    let fate = share_file(&low, &high, &Progress::default(), &Cancel::default()).unwrap();
    assert_eq!(fate, Fate::Differs(0));
}

#[test]
fn extents_of_a_file_can_be_joined() {
    let Some(disk) = Disk::btrfs("") else { return };
    let path = disk.write("file", b"");
    for at in (0..64u64).rev() {
        put(&path, at * 4096, &noise(at, 4096));
        disk.sync();
    }
    let pieces = || {
        drystone_extents::physical_map(fs::File::open(&path).unwrap().as_fd(), (0, MIB as u64))
            .unwrap()
            .len()
    };
    let (before, bytes) = (pieces(), fs::read(&path).unwrap());
    join_extents(&path).unwrap();
    assert!(before > 32 && pieces() < 4, "{before} pieces, then {}", pieces());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_changed_since_a_generation_is_known() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("a");
    for file in 0..3000u64 {
        disk.write(&format!("a/{}/{file}", file % 7), &noise(file, 5000));
    }
    let big = disk.write("a/big", &noise(1, 8 * MIB));
    let fs = Btrfs::open(disk.root()).unwrap();
    let since = fs.commit().unwrap() + 1;
    let number = subvolume(fs::File::open(disk.path("a")).unwrap().as_fd(), "a").unwrap();
    assert!(!number.read_only && number.generation < since && number.uuid != [0; 16]);
    let changes = || {
        let mut found: Vec<(String, Change)> = Vec::new();
        fs.commit().unwrap();
        fs.changes(number.id, since, |change| {
            let path = fs.directory_path(number.id, change.inode).unwrap();
            found.push((String::from_utf8(path).unwrap(), change));
            Flow::Continue(())
        })
        .unwrap();
        found
    };
    assert_eq!(changes(), []);
    put(&big, MIB as u64, &noise(2, 8192));
    put(&big, 3 * MIB as u64, &noise(2, 100));
    disk.write("a/3/new", &noise(3, 9000));
    fs::set_permissions(disk.path("a/5/5"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let found = changes();
    let of = |name: &str| {
        found
            .iter()
            .find(|(path, _)| path.trim_end_matches('/') == name)
            .map(|(_, change)| change)
    };
    assert_eq!(of("big").unwrap().written, [(MIB as u64, 8192), (3 * MIB as u64, 4096)]);
    assert_eq!(
        (of("3/new").unwrap().written.as_slice(), of("3/new").unwrap().about.size),
        ([(0, 12288)].as_slice(), 9000)
    );
    assert_eq!(of("5/5").unwrap().written, []);
    assert!(of("3").is_some_and(|change| !change.about.is_file()));
    assert!(found.len() <= 5, "{found:?}");
}

#[test]
fn a_snapshot_of_ones_own_goes_when_it_is_dropped() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("a");
    disk.write("a/file", b"as it was");
    let (source, directory) = (
        fs::File::open(disk.path("a")).unwrap(),
        fs::File::open(disk.root()).unwrap(),
    );
    let snapshot = Snapshot::create(source.as_fd(), directory.into(), b".drystone-1").unwrap();
    disk.write("a/file", b"as it is");
    let about = subvolume(snapshot.root(), "snapshot").unwrap();
    let origin = subvolume(source.as_fd(), "a").unwrap();
    assert!(about.read_only && about.parent_uuid == origin.uuid && about.id != origin.id);
    assert_eq!(fs::read(disk.path(".drystone-1/file")).unwrap(), b"as it was");
    drop(snapshot);
    assert!(!disk.path(".drystone-1").exists());
}

/// A loop device, detached at the end.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        // A failed test may leave it busy; the kernel detaches it then with its last user.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn targets_are_found_by_path_device_and_uuid_mounted_or_not() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("a");
    disk.subvolume("a/inner");
    disk.subvolume("b");
    for name in ["a/one", "a/inner/two", "b/three"] {
        disk.write(name, &noise(4, MIB));
    }
    disk.sync();
    let known = Known {
        reads: Reads::Needed,
        min_file_bytes: 0,
        private_min_bytes: 0,
        exclude: &[],
        cache_dir: None,
    };
    let find = |names: &[String]| find_targets(names, IsRoot(true)).unwrap().targets;
    let path = |name: &str| disk.path(name).display().to_string();
    let promised = |names: &[String]| {
        let targets = find(names);
        assert_eq!(targets.len(), 1, "{targets:?}");
        let space = targets[0]
            .open(known, &Progress::default(), &Cancel::default())
            .unwrap();
        estimate(&*space) / MIB as u64
    };
    let device = mount_of(&mounts().unwrap(), disk.root())
        .unwrap()
        .source
        .display()
        .to_string();
    let id = find(&[path("")])[0].id;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    assert_eq!(promised(&[format!("vol:{}", path("a"))]), 0);
    assert_eq!(promised(&[path("a")]), 1);
    assert_eq!(promised(&[path("a"), path("b")]), 2);
    for name in [path(""), device, uuid.clone(), format!("UUID={uuid}")] {
        assert_eq!(promised(&[name]), 2);
    }
    let without = |exclude: &[std::path::PathBuf]| {
        let known = Known { exclude, ..known };
        let space = find(&[path("")])[0]
            .open(known, &Progress::default(), &Cancel::default())
            .unwrap();
        estimate(&*space) / MIB as u64
    };
    assert_eq!(without(&[disk.path("b/three")]), 1);
    assert_eq!(without(&[disk.path("b"), disk.path("a/inner")]), 0);
    assert_eq!((without(&[disk.path("a")]), without(&["/proc".into()])), (0, 2));
    let scope = || find(&[path("a")])[0].scope(known);
    let before = scope();
    disk.snapshot("b", "a/later");
    assert_eq!(scope(), before);
    assert!(find(&[]).iter().any(|target| target.id == id));
    let image = disk.unmount();
    let output = Command::new("losetup")
        .args(["-f", "--show"])
        .arg(image)
        .output()
        .unwrap();
    let device = Loop(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    assert_eq!(promised(std::slice::from_ref(&device.0)), 2);
    let target = &find(std::slice::from_ref(&device.0))[0];
    let space = target.open(known, &Progress::default(), &Cancel::default()).unwrap();
    assert_eq!(run_all(&*space).outcome.freed_bytes, 2 * MIB as u64);
}
