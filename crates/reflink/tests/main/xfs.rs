//! Reclaiming on XFS, by reading: what is freed, what is read, and what is remembered.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use drystone_reflink::{Cancel, Progress, Space, State, Walk, WalkedSpace};

use crate::disk::{Disk, estimate, noise, options, put, run_all, run_noted};
use crate::image::command;

const MIB: usize = 1 << 20;

static NOTHING: BTreeSet<u64> = BTreeSet::new();

pub fn walked(disk: &Disk, cache: Option<&Path>) -> WalkedSpace {
    disk.sync();
    let root = fs::File::open(disk.root()).unwrap();
    let about = Walk { cache, ..about(&root) };
    WalkedSpace::open(about, &Progress::default(), &Cancel::default()).unwrap()
}

/// A walk of everything below `root`.
pub fn about(root: &fs::File) -> Walk<'_> {
    Walk {
        root: root.as_fd(),
        name: "test",
        cache: None,
        min_file_bytes: 0,
        private_min_bytes: 0,
        excluded: &NOTHING,
    }
}

/// Bytes that the file system says are free.
fn free(disk: &Disk) -> u64 {
    disk.sync();
    let stat = rustix::fs::statvfs(disk.root()).unwrap();
    stat.f_bfree * stat.f_frsize
}

#[test]
fn copies_and_parts_are_shared_and_stay_what_they_were() {
    let Some(disk) = Disk::xfs() else { return };
    let image = noise(1, 24 * MIB + 1234);
    disk.write("a/one", &image);
    disk.write("b/two", &image);
    disk.write(
        "shifted",
        &[&noise(2, 8192), &image[..20 * MIB], &vec![0; MIB], &noise(3, MIB)].concat(),
    );
    for file in 0..100u64 {
        let bytes = noise(100 + file, 1 + file as usize * 331);
        disk.write(&format!("a/{file}"), &bytes);
        disk.write(&format!("b/{file}"), &bytes);
    }
    fs::hard_link(disk.path("b/two"), disk.path("b/link")).unwrap();
    let (before, manifest) = (free(&disk), disk.manifest());
    let promised = estimate(&walked(&disk, None));
    let report = run_all(&walked(&disk, None));
    assert_eq!(
        (report.outcome.freed_bytes, report.outcome.predicted_bytes),
        (promised, promised)
    );
    let small: usize = (0..100usize).map(|file| (1 + file * 331).next_multiple_of(4096)).sum();
    let expected = image.len().next_multiple_of(4096) + 20 * MIB + MIB + small;
    assert_eq!(report.outcome.freed_bytes as usize, expected);
    // What only one file has need not move: space comes back block by block.
    assert_eq!(report.outcome.rewritten_bytes, 0);
    // What the file system says, but for the metadata of sharing.
    let freed = free(&disk) - before;
    assert!(freed.abs_diff(expected as u64) < MIB as u64, "{freed} of {expected}");
    assert_eq!(disk.manifest(), manifest);
    assert_eq!(run_all(&walked(&disk, None)).outcome.extents, 0);
}

#[test]
fn each_place_is_read_once_and_what_is_unchanged_never_again() {
    let Some(disk) = Disk::xfs() else { return };
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let one = disk.write("one", &noise(5, 8 * MIB));
    for copy in ["clone", "clone2"] {
        command(
            "cp",
            &[
                "--reflink=always",
                one.to_str().unwrap(),
                disk.path(copy).to_str().unwrap(),
            ],
        );
    }
    disk.write("copy", &noise(5, 8 * MIB));
    let space = walked(&disk, Some(&cache));
    assert_eq!(space.read_bytes, 16 * MIB as u64);
    assert_eq!(run_all(&space).outcome.freed_bytes, 8 * MIB as u64);
    drop(space);
    let space = walked(&disk, Some(&cache));
    assert_eq!((space.read_bytes, run_all(&space).outcome.extents), (0, 0));
    drop(space);
    // One block changed in place: what is still shared is known.
    put(&disk.path("clone"), 12288, &noise(6, 4096));
    disk.write("new", &noise(5, 8 * MIB)[MIB..3 * MIB]);
    fs::remove_file(disk.path("copy")).unwrap();
    let space = walked(&disk, Some(&cache));
    assert!(
        space.read_bytes <= 3 * MIB as u64,
        "{} bytes were read",
        space.read_bytes
    );
    let before = disk.manifest();
    assert_eq!(run_all(&space).outcome.freed_bytes, 2 * MIB as u64);
    assert_eq!(disk.manifest(), before);
    drop(space);
    // A cache of somebody else, or none, costs reading alone.
    fs::remove_file(&cache).unwrap();
    let space = walked(&disk, Some(&cache));
    assert!(space.read_bytes >= 8 * MIB as u64);
    assert_eq!(run_all(&space).outcome.extents, 0);
}

#[test]
fn a_file_that_shares_with_itself_is_mapped_once() {
    let Some(disk) = Disk::xfs() else { return };
    let image = noise(11, 8 * MIB);
    // The second half begins in the middle of the first, and both are in one piece of another file.
    disk.write("image", &[&image[..6 * MIB], &image[2 * MIB..]].concat());
    disk.write("copy", &[&image[..], &noise(10, 8 * MIB)].concat());
    let (before, manifest) = (free(&disk), disk.manifest());
    let report = run_all(&walked(&disk, None));
    assert_eq!(report.outcome.freed_bytes, 12 * MIB as u64);
    let freed = free(&disk) - before;
    assert!(freed.abs_diff(12 * MIB as u64) < MIB as u64, "{freed}");
    // Without a map, what is shared is met twice in one file.
    let space = walked(&disk, None);
    assert_eq!(space.read_bytes, 16 * MIB as u64);
    let again = run_all(&space).outcome;
    assert_eq!((again.extents, again.problem_count), (0, 0), "{again:?}");
    assert_eq!(disk.manifest(), manifest);
}

#[test]
fn what_was_overwritten_in_place_is_read_again() {
    let Some(disk) = Disk::xfs() else { return };
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    disk.write("image", &noise(12, 8 * MIB));
    disk.write("part", &noise(12, 8 * MIB)[2 * MIB..4 * MIB]);
    assert_eq!(
        run_all(&walked(&disk, Some(&cache))).outcome.freed_bytes,
        2 * MIB as u64
    );
    // Of the piece in which the image lies, part keeps what it shares; the rest is the image's alone, and so written where it is.
    let new = noise(13, MIB);
    put(&disk.path("image"), 5 * MIB as u64, &new);
    disk.write("new", &new);
    let outcome = run_all(&walked(&disk, Some(&cache))).outcome;
    assert_eq!((outcome.freed_bytes, outcome.differing), (MIB as u64, 0));
    // What was freed may come to be anybody's.
    fs::remove_file(disk.path("image")).unwrap();
    disk.write("other", &noise(14, 6 * MIB));
    disk.write("another", &noise(14, 6 * MIB));
    let manifest = disk.manifest();
    let outcome = run_all(&walked(&disk, Some(&cache))).outcome;
    assert_eq!((outcome.freed_bytes, outcome.differing), (6 * MIB as u64, 0));
    assert_eq!(run_all(&walked(&disk, None)).outcome.extents, 0);
    assert_eq!(disk.manifest(), manifest);
}

#[test]
fn a_file_system_without_reflink_is_not_read_for_nothing() {
    let Some(disk) = Disk::make(&["mkfs.xfs", "-q", "-m", "reflink=0"], 400 << 20, "") else {
        return;
    };
    disk.write("one", &noise(8, MIB));
    let root = fs::File::open(disk.root()).unwrap();
    let refused = WalkedSpace::open(about(&root), &Progress::default(), &Cancel::default()).unwrap_err();
    assert!(refused.to_string().contains("without reflink"), "{refused}");
}

#[test]
fn a_lost_map_is_noticed() {
    let Some(disk) = Disk::xfs() else { return };
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let mut state = State::open(&directory.path().join("state")).unwrap();
    disk.write("one", &noise(8, MIB));
    state.see(walked(&disk, None).id(), "xfs", "test").unwrap();
    let mut run = |cache: &Path| run_noted(&walked(&disk, Some(cache)), &options(64 << 20), Some(&mut state)).unwrap();
    for _ in 0..3 {
        run(&cache);
    }
    assert_eq!(run(&cache).scanned_bytes, 0);
    // Other walks in between must not make what is there look old.
    let other = directory.path().join("other");
    for _ in 0..9 {
        walked(&disk, Some(&other));
    }
    disk.write("two", &noise(8, MIB));
    walked(&disk, Some(&other));
    assert_eq!(run(&other).outcome.freed_bytes, MIB as u64);
}

#[test]
fn a_damaged_map_is_begun_anew() {
    let Some(disk) = Disk::xfs() else { return };
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    for name in ["one", "two"] {
        disk.write(name, &noise(8, MIB));
    }
    fs::write(&cache, noise(1, 20_000)).unwrap();
    assert_eq!(run_all(&walked(&disk, Some(&cache))).outcome.freed_bytes, MIB as u64);
    assert_eq!(walked(&disk, Some(&cache)).read_bytes, 0);
}

#[test]
fn btrfs_can_be_walked_as_well() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.write("one", &noise(7, 4 * MIB + 5));
    disk.write("two", &noise(7, 4 * MIB + 5));
    disk.write("inline", b"few bytes");
    let manifest = disk.manifest();
    let report = run_all(&walked(&disk, None));
    assert_eq!(report.outcome.freed_bytes, 4 * MIB as u64 + 4096);
    assert_eq!(run_all(&disk.space()).outcome.extents, 0);
    assert_eq!(disk.manifest(), manifest);
    disk.check();
}

#[test]
fn compressed_data_is_walked_and_shared_as_a_whole() {
    let Some(disk) = Disk::btrfs("compress-force=zstd:3") else {
        return;
    };
    let text: Vec<u8> = (0..200_000u32)
        .flat_map(|line| format!("line {} of it\n", line.wrapping_mul(2_654_435_761) % 10_000).into_bytes())
        .collect();
    for name in ["one", "two", "deep/three"] {
        disk.write(name, &text);
    }
    disk.write("other", &text[7..]);
    let (before, manifest) = (free(&disk), disk.manifest());
    let report = run_all(&walked(&disk, None));
    // Of the files' bytes: what is not told is how much of the disk they take.
    let bytes = text.len().next_multiple_of(4096) as u64;
    assert_eq!(report.outcome.freed_bytes, 2 * bytes);
    let freed = free(&disk) - before;
    assert!(freed > bytes / 10, "{freed} of {bytes}");
    assert_eq!(disk.manifest(), manifest);
    assert_eq!(run_all(&walked(&disk, None)).outcome.extents, 0);
    disk.check();
}
