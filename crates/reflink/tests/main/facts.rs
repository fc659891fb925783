//! What the kernel does when it is asked to share, case by case: the table that everything here is built on.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use drystone_extents::{Shared, dedupe, physical_map};

use crate::disk::{Disk, noise, put};
use crate::image::command;

const BLOCK: u64 = 4096;
const LEN: u64 = 64 * BLOCK;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Shared, and on the same place of the disk in this many bytes.
    Same(u64),
    Differs,
    /// Refused with this error, for the destination or as a whole.
    Refused(i32),
}

/// Bytes of two ranges that lie at the same place.
fn at_same_place(one: (&File, u64), other: (&File, u64), len: u64) -> u64 {
    let map = |(file, from): (&File, u64)| physical_map(file.as_fd(), (from, from + len)).unwrap();
    let place = |pieces: &[drystone_extents::Piece], at: u64| {
        let piece = pieces
            .iter()
            .find(|piece| (piece.file_offset..piece.file_offset + piece.len).contains(&at));
        piece.map(|piece| piece.disk_offset + (at - piece.file_offset))
    };
    let (ours, theirs) = (map(one), map(other));
    let blocks = (0..len.div_ceil(BLOCK)).filter(|at| {
        let (our, their) = (place(&ours, one.1 + at * BLOCK), place(&theirs, other.1 + at * BLOCK));
        our == their && (our.is_some() || ours.is_empty())
    });
    blocks.count() as u64 * BLOCK
}

fn share(from: (&Path, u64), len: u64, to: (&Path, u64)) -> Says {
    let (source, target) = (File::open(from.0).unwrap(), File::open(to.0).unwrap());
    let replies = dedupe(source.as_fd(), from.1, len, &[(target.as_fd(), to.1)]);
    match replies.map(|mut replies| replies.pop().unwrap()) {
        Ok(Shared::Same) => Says::Same(at_same_place((&source, from.1), (&target, to.1), len)),
        Ok(Shared::Differs) => Says::Differs,
        Ok(Shared::Refused(error)) => Says::Refused(error.raw_os_error().unwrap()),
        Err(error) => Says::Refused(error.errno().unwrap()),
    }
}

const EINVAL: Says = Says::Refused(22);
const EPERM: Says = Says::Refused(1);

/// One case: how the files are made, what is asked, and what both kinds of file system say.
struct Case {
    what: &'static str,
    make: fn(&Disk, &Path, &Path),
    ask: (u64, u64, u64),
    btrfs: Says,
    xfs: Says,
}

fn nothing(_: &Disk, _: &Path, _: &Path) {}

fn case(what: &'static str, make: fn(&Disk, &Path, &Path), ask: (u64, u64, u64), both: Says) -> Case {
    Case {
        what,
        make,
        ask,
        btrfs: both,
        xfs: both,
    }
}

/// Two files of equal bytes, with an end that is no whole block.
fn tails(_: &Disk, one: &Path, other: &Path) {
    for path in [one, other] {
        fs::write(path, noise(1, 5000)).unwrap();
    }
}

fn cases() -> Vec<Case> {
    let tail_differs: fn(&Disk, &Path, &Path) = |_, _, other| put(other, LEN - 1, b"x");
    vec![
        case("equal", nothing, (0, LEN, 0), Says::Same(LEN)),
        case("one byte differs", tail_differs, (0, LEN, 0), Says::Differs),
        case(
            "a part of what differs",
            tail_differs,
            (0, LEN - BLOCK, 0),
            Says::Same(LEN - BLOCK),
        ),
        case("ends of files", tails, (0, 5000, 0), Says::Same(8192)),
        case("beyond the end", nothing, (0, LEN + BLOCK, 0), EINVAL),
        case(
            "a length between blocks shares whole ones",
            nothing,
            (0, 5000, 0),
            Says::Same(4096),
        ),
        case("less than a block shares nothing", nothing, (0, 3000, 0), Says::Same(0)),
        case("an offset between blocks", nothing, (512, BLOCK, 512), EINVAL),
        case(
            "a hole for zeros",
            |_, one, other| {
                File::create(one).unwrap().set_len(LEN).unwrap();
                fs::write(other, vec![0; LEN as usize]).unwrap();
            },
            (0, LEN, 0),
            Says::Same(LEN),
        ),
        case(
            "append only",
            |_, _, other| command("chattr", &["+a", other.to_str().unwrap()]),
            (0, LEN, 0),
            Says::Same(LEN),
        ),
        case(
            "immutable",
            |_, _, other| command("chattr", &["+i", other.to_str().unwrap()]),
            (0, LEN, 0),
            EPERM,
        ),
        case(
            "read-only by mode",
            |_, _, other| {
                fs::set_permissions(other, fs::Permissions::from_mode(0o444)).unwrap();
            },
            (0, LEN, 0),
            Says::Same(LEN),
        ),
        Case {
            what: "inline",
            make: |_, one, other| {
                [one, other]
                    .iter()
                    .for_each(|path| fs::write(path, noise(1, 1500)).unwrap())
            },
            ask: (0, 1500, 0),
            btrfs: Says::Same(4096),
            xfs: Says::Same(4096),
        },
        Case {
            what: "swap file",
            make: |disk, _, other| {
                let other = other.to_str().unwrap();
                fs::remove_file(other).unwrap();
                command(
                    "sh",
                    &[
                        "-c",
                        &format!("touch {other}; chattr +C {other} 2>/dev/null; head -c 1M /dev/zero > {other}"),
                    ],
                );
                fs::set_permissions(other, fs::Permissions::from_mode(0o600)).unwrap();
                disk.sync();
                command("mkswap", &[other]);
                command("swapon", &[other]);
            },
            ask: (0, LEN, 0),
            btrfs: EINVAL,
            xfs: Says::Refused(26),
        },
    ]
}

fn check(disk: &Disk, is_btrfs: bool) {
    for (number, case) in cases().iter().enumerate() {
        let one = disk.write(&format!("{number}/one"), &noise(1, LEN as usize));
        let other = disk.write(&format!("{number}/other"), &noise(1, LEN as usize));
        (case.make)(disk, &one, &other);
        let before = other.metadata().unwrap();
        let (from, len, to) = case.ask;
        let says = share((&one, from), len, (&other, to));
        let after = other.metadata().unwrap();
        if case.what == "swap file" {
            command("swapoff", &[other.to_str().unwrap()]);
        }
        if case.what == "immutable" || case.what == "append only" {
            command("chattr", &["-ia", other.to_str().unwrap()]);
        }
        assert_eq!(says, if is_btrfs { case.btrfs } else { case.xfs }, "{}", case.what);
        let times = |about: &fs::Metadata| {
            (
                about.mtime(),
                about.mtime_nsec(),
                about.ctime(),
                about.ctime_nsec(),
                about.atime(),
            )
        };
        assert_eq!(times(&before), times(&after), "{}: times", case.what);
    }
    within_one_file(disk);
    many_destinations(disk);
    others_files(disk);
}

fn within_one_file(disk: &Disk) {
    let twice = disk.write("twice", &noise(2, LEN as usize).repeat(2));
    assert_eq!(share((&twice, 0), LEN, (&twice, LEN)), Says::Same(LEN));
    assert_eq!(share((&twice, 0), LEN, (&twice, BLOCK)), EINVAL);
}

/// One request is a page at most; and files that are open for writing, or dirty, are no obstacle.
fn many_destinations(disk: &Disk) {
    let source = File::open(disk.write("many/source", &noise(3, BLOCK as usize))).unwrap();
    let files: Vec<File> = (0..128)
        .map(|file| {
            let path = disk.write(&format!("many/{file}"), &noise(3, BLOCK as usize));
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        })
        .collect();
    let to: Vec<_> = files.iter().map(|file| (file.as_fd(), 0)).collect();
    assert!(dedupe(source.as_fd(), 0, BLOCK, &to).is_err());
    let replies = dedupe(source.as_fd(), 0, BLOCK, &to[1..]).unwrap();
    assert!(replies.iter().all(|reply| matches!(reply, Shared::Same)), "{replies:?}");
    assert!(
        files[1..]
            .iter()
            .all(|file| at_same_place((&source, 0), (file, 0), BLOCK) == BLOCK)
    );
}

/// Files of another user can be shared into by their owner and by root alone.
fn others_files(disk: &Disk) {
    let one = disk.write("public/one", &noise(4, LEN as usize));
    let other = disk.write("public/other", &noise(4, LEN as usize));
    for path in [
        disk.root(),
        disk.root().parent().unwrap(),
        &disk.path("public"),
        &one,
        &other,
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ask = format!("dedupe {} 0 0 {LEN}", one.display());
    let output = std::process::Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "xfs_io",
            "-r",
            "-c",
            &ask,
        ])
        .arg(&other)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        String::from_utf8_lossy(&said).contains("not permitted"),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn btrfs_does_what_the_table_says() {
    let Some(disk) = Disk::btrfs("") else { return };
    check(&disk, true);
    // No copy on write, on one side and on both.
    for name in ["nocow/a", "nocow/b"] {
        let path = disk.write(name, b"");
        command("chattr", &["+C", path.to_str().unwrap()]);
        fs::write(&path, noise(5, LEN as usize)).unwrap();
    }
    let cow = disk.write("cow", &noise(5, LEN as usize));
    let (a, b) = (disk.path("nocow/a"), disk.path("nocow/b"));
    assert_eq!(share((&cow, 0), LEN, (&a, 0)), EINVAL);
    assert_eq!(share((&a, 0), LEN, (&b, 0)), Says::Same(LEN));
    // Another file system.
    let elsewhere = tempfile::tempdir().unwrap();
    let far = elsewhere.path().join("far");
    fs::write(&far, noise(5, LEN as usize)).unwrap();
    assert_eq!(share((&cow, 0), LEN, (&far, 0)), Says::Refused(18));
    // Another subvolume, and a snapshot that nobody can write.
    disk.subvolume("sub");
    disk.write("sub/file", &noise(5, LEN as usize));
    disk.sync();
    disk.snapshot("sub", "snap");
    assert_eq!(share((&cow, 0), LEN, (&disk.path("sub/file"), 0)), Says::Same(LEN));
    assert_eq!(share((&cow, 0), LEN, (&disk.path("snap/file"), 0)), Says::Same(LEN));
}

#[test]
fn xfs_does_what_the_table_says() {
    let Some(disk) = Disk::xfs() else { return };
    check(&disk, false);
}

#[test]
fn other_file_systems_refuse() {
    let Some(disk) = Disk::make(&["mkfs.ext4", "-q"], 64 << 20, "") else {
        return;
    };
    let one = disk.write("one", &noise(6, LEN as usize));
    let other = disk.write("other", &noise(6, LEN as usize));
    assert_eq!(share((&one, 0), LEN, (&other, 0)), Says::Refused(95));
    let device = OpenOptions::new().read(true).custom_flags(0).open("/dev/null").unwrap();
    assert!(physical_map(device.as_fd(), (0, LEN)).is_err());
}
