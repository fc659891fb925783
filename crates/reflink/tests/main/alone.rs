//! What is left alone: swap files, what is excluded, small private files of other users, what is mounted inside, what lies too deep.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use drystone_reflink::{
    Cancel, Fate, IsRoot, Known, Progress, Reads, Space, Walk, WalkedSpace, find_targets, share_file,
};

use crate::disk::{Disk, noise, options, run_all, run_noted};
use crate::image::command;
use crate::xfs::{about, walked};

const MIB: usize = 1 << 20;

/// What a run of the command line would look at.
fn target(disk: &Disk, exclude: &[PathBuf], private_min_bytes: u64) -> Box<dyn Space> {
    disk.sync();
    let targets = find_targets(&[disk.root().display().to_string()], IsRoot(true))
        .unwrap()
        .targets;
    let known = Known {
        min_file_bytes: 0,
        private_min_bytes,
        exclude,
        cache_dir: None,
        reads: Reads::Needed,
    };
    targets[0]
        .open(known, &Progress::default(), &Cancel::default())
        .unwrap()
}

fn both() -> Vec<Disk> {
    [Disk::btrfs(""), Disk::xfs()].into_iter().flatten().collect()
}

#[test]
fn swap_files_stay_what_they_are_in_use_or_not() {
    for disk in both() {
        let swap = ["swap", "other", "image"].map(|name| disk.path(name));
        for path in &swap {
            fs::write(path, b"").unwrap();
            // No attribute of XFS.
            let _ = std::process::Command::new("chattr").arg("+C").arg(path).output();
            command(
                "dd",
                &[
                    "if=/dev/zero",
                    &format!("of={}", path.display()),
                    "bs=1M",
                    "count=8",
                    "status=none",
                ],
            );
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            command("mkswap", &[path.to_str().unwrap()]);
        }
        let zeros = disk.write("zeros", &vec![0; 4 * MIB]);
        command(
            "cp",
            &[
                "--reflink=auto",
                swap[2].to_str().unwrap(),
                disk.path("copy of image").to_str().unwrap(),
            ],
        );
        for name in ["one", "two"] {
            disk.write(name, &noise(1, MIB));
        }
        let freed = run_all(&*target(&disk, &[], 0)).outcome.freed_bytes;
        assert!(freed >= MIB as u64, "{freed}");
        for path in &swap[..2] {
            command("swapon", &[path.to_str().unwrap()]);
            command("swapoff", &[path.to_str().unwrap()]);
        }
        let share = |from: &Path, to: &Path| share_file(from, to, &Progress::default(), &Cancel::default());
        assert!(share(&swap[0], &zeros).unwrap_err().to_string().contains("swap"));
        assert!(matches!(share(&zeros, &swap[0]).unwrap(), Fate::Failed(why) if why.contains("swap")));
    }
}

#[test]
fn what_is_excluded_is_left_alone_however_deep_and_by_whichever_name() {
    for disk in both() {
        let bytes = noise(1, MIB);
        // Its path is longer than the kernel tells.
        let mut deep = disk.path("ex");
        for _ in 0..15 {
            deep.push("x".repeat(250));
        }
        fs::create_dir_all(&deep).unwrap();
        let long = "y".repeat(120);
        fs::write(deep.join("one"), &bytes).unwrap();
        fs::write(deep.join("two"), &bytes).unwrap();
        command(
            "sh",
            &[
                "-c",
                &format!(
                    "cd '{}' && mkdir {long} {long}/{long} && cd {long}/{long} && cp ../../one . && ln one linked",
                    deep.display()
                ),
            ],
        );
        disk.write("outside", &noise(2, MIB));
        disk.write("ex/linked", &noise(2, MIB));
        fs::hard_link(disk.path("ex/linked"), disk.path("a name outside")).unwrap();
        let freed = |exclude: &[PathBuf]| run_all(&*target(&disk, exclude, 0)).outcome.freed_bytes;
        let manifest = disk.manifest();
        assert_eq!(freed(&[disk.path("ex")]), 0);
        assert!(target_fails(&disk, &disk.path("no such")));
        // By another way to it.
        let other = tempfile::tempdir().unwrap();
        command(
            "mount",
            &["--bind", disk.root().to_str().unwrap(), other.path().to_str().unwrap()],
        );
        let freed_by_other = freed(&[other.path().join("ex")]);
        command("umount", &[other.path().to_str().unwrap()]);
        assert_eq!(freed_by_other, 0);
        assert!(freed(&[]) >= 2 * MIB as u64);
        assert_eq!(disk.manifest(), manifest);
    }
}

fn target_fails(disk: &Disk, exclude: &Path) -> bool {
    let targets = find_targets(&[disk.root().display().to_string()], IsRoot(true))
        .unwrap()
        .targets;
    let exclude = [exclude.to_owned()];
    let known = Known {
        min_file_bytes: 0,
        private_min_bytes: 0,
        exclude: &exclude,
        cache_dir: None,
        reads: Reads::Needed,
    };
    targets[0]
        .open(known, &Progress::default(), &Cancel::default())
        .is_err()
}

#[test]
fn small_private_files_share_with_those_of_their_owner_alone() {
    for disk in both() {
        let owned = |name: &str, seed, uid, mode| {
            let path = disk.write(name, &noise(seed, 40 << 10));
            chown(&path, Some(uid), None).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            disk.sync();
        };
        owned("pin", 1, 1001, 0o600);
        owned("guess", 1, 1002, 0o644);
        owned("pin copied", 1, 1001, 0o640);
        for (name, uid) in [("public", 1001), ("public too", 1002)] {
            owned(name, 2, uid, 0o644);
        }
        let run = |private_min_bytes| {
            let report = run_noted(&*target(&disk, &[], private_min_bytes), &options(64 << 20), None).unwrap();
            (report.outcome.freed_bytes >> 10, report.guarded)
        };
        let (freed, guarded) = run(64 << 10);
        assert!(
            freed == 80 && guarded > 0,
            "{freed}, {guarded}: the private two, and the public two"
        );
        assert_eq!(run(64 << 10).0, 0);
        assert_eq!(run(40 << 10), (40, 0), "they are as large as that");
    }
}

#[test]
fn a_mount_inside_is_not_entered_and_hides_nothing_else() {
    let Some(disk) = Disk::xfs() else { return };
    // Met first, as the order of a directory goes.
    for name in ["aaa", "data", "zzz"] {
        fs::create_dir(disk.path(name)).unwrap();
    }
    for name in ["data/x", "data/y"] {
        disk.write(name, &noise(1, MIB));
    }
    disk.write("file", b"covered");
    for (from, to) in [("data", "aaa"), ("data", "zzz"), ("data/x", "file")] {
        command(
            "mount",
            &[
                "--bind",
                disk.path(from).to_str().unwrap(),
                disk.path(to).to_str().unwrap(),
            ],
        );
    }
    let space = walked(&disk, None);
    let (unreadable, freed) = (space.unreadable(), run_all(&space).outcome.freed_bytes);
    drop(space);
    for name in ["aaa", "zzz", "file"] {
        command("umount", &[disk.path(name).to_str().unwrap()]);
    }
    assert_eq!((unreadable, freed), (0, MIB as u64));
}

#[test]
fn what_lies_too_deep_is_counted_and_named() {
    let Some(disk) = Disk::xfs() else { return };
    let mut deep = disk.path("");
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    for name in ["one", "two"] {
        fs::write(deep.join(name), noise(1, MIB)).unwrap();
    }
    let space = walked(&disk, None);
    assert_eq!(space.unreadable(), 1);
    let unread = space.unread();
    assert!(
        unread[0].path.starts_with(b"d/d/d") && unread[0].why.contains("deep"),
        "{unread:?}"
    );
}

#[test]
fn what_an_estimate_did_not_look_at_is_counted() {
    let Some(disk) = Disk::btrfs("nodatasum") else { return };
    for name in ["one", "two"] {
        disk.write(name, &noise(1, 5 * MIB));
    }
    command("fallocate", &["-l", "4M", disk.path("reserved").to_str().unwrap()]);
    disk.sync();
    let space = disk.space();
    assert_eq!(run_all(&space).outcome.freed_bytes, 0);
    assert_eq!(space.unlooked_bytes(), 10 * MIB as u64);
    let space = disk.space().with_unsummed(None, &Cancel::default()).unwrap();
    assert_eq!(
        (run_all(&space).outcome.freed_bytes, space.unlooked_bytes()),
        (5 * MIB as u64, 0)
    );
}

#[test]
fn an_extent_of_very_many_references_is_still_a_source() {
    let Some(disk) = Disk::btrfs("") else { return };
    const PIECES: u64 = 17_000;
    let one = disk.write("one", &noise(1, 64 << 10));
    let many = disk.write("many", b"");
    disk.sync();
    let script: String = (0..PIECES)
        .map(|at| format!("reflink {} 0 {} 65536\n", one.display(), at << 16))
        .collect();
    let path = disk.path("script");
    fs::write(&path, script).unwrap();
    command(
        "sh",
        &[
            "-c",
            &format!("xfs_io {} < {} > /dev/null", many.display(), path.display()),
        ],
    );
    fs::remove_file(path).unwrap();
    // Others, so that uses are looked up one by one.
    for file in 0..200u64 {
        disk.write(&format!("others/{file}"), &noise(100 + file, 8192));
    }
    disk.write("copy", &noise(1, 64 << 10));
    disk.sync();
    assert!(fs::metadata(&many).unwrap().len() == PIECES << 16 && fs::metadata(&one).unwrap().blocks() > 0);
    assert_eq!(run_all(&disk.space()).outcome.freed_bytes, 64 << 10);
}

#[test]
fn a_walk_leaves_alone_what_is_excluded_by_inode() {
    let Some(disk) = Disk::xfs() else { return };
    for name in ["a/one", "b/one"] {
        disk.write(name, &noise(1, MIB));
    }
    disk.sync();
    let root = fs::File::open(disk.root()).unwrap();
    let excluded = BTreeSet::from([fs::metadata(disk.path("b")).unwrap().ino()]);
    let walk = Walk {
        root: root.as_fd(),
        excluded: &excluded,
        ..about(&root)
    };
    let space = WalkedSpace::open(walk, &Progress::default(), &Cancel::default()).unwrap();
    assert_eq!((space.read_bytes, run_all(&space).outcome.freed_bytes), (MIB as u64, 0));
}
