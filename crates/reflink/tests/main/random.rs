//! Random trees: whatever was done to files, a run frees what it said, and no byte of any file changes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use drystone_extents::{Btrfs, Layout, changed_ranges, shared_starts, subvolume};

use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

use crate::dice::Dice;
use crate::disk::{Disk, estimate, noise, run_all};
use crate::image::command;
use crate::xfs::walked;

const BLOCK: u64 = 4096;
const FILES: u64 = 12;
const CASES: u64 = 4;
const STEPS: u64 = 140;

pub fn step(disk: &Disk, dice: &mut Dice, snapshots: &mut u64) {
    let name = |file: u64| disk.path(&format!("{}/{file}", if file.is_multiple_of(2) { "a" } else { "b" }));
    let path = name(dice.roll(FILES));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap();
    let at = dice.roll(300) * BLOCK;
    match dice.roll(12) {
        // Data of which there are few kinds, in pieces of blocks, so that much is equal, shifted and in part.
        0..=4 => file
            .write_all_at(
                &noise(dice.roll(4), 400 * BLOCK as usize)[(dice.roll(200) * BLOCK) as usize..]
                    [..(1 + dice.roll(150)) as usize * BLOCK as usize],
                at,
            )
            .unwrap(),
        5 => file
            .write_all_at(
                &noise(dice.roll(1 << 20), 1 + dice.roll(3 * BLOCK) as usize),
                at + dice.roll(BLOCK),
            )
            .unwrap(),
        6 => file
            .write_all_at(&vec![0; (dice.roll(80) * BLOCK) as usize], at)
            .unwrap(),
        7 => file.set_len(dice.roll(300 * BLOCK)).unwrap(),
        8 => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, at, (1 + dice.roll(40)) * BLOCK).unwrap();
        }
        9 => fallocate(&file, FallocateFlags::empty(), at, (1 + dice.roll(60)) * BLOCK).unwrap(),
        10 => {
            let other = name(dice.roll(FILES));
            if other != path && other.exists() {
                file.set_len(0).unwrap();
                ioctl_ficlone(&file, File::open(other).unwrap()).unwrap();
            }
        }
        _ if *snapshots < 3 => {
            *snapshots += 1;
            disk.snapshot("a", &format!("snap{snapshots}"));
        }
        _ => fs::remove_file(&path).unwrap(),
    }
    if dice.roll(9) == 0 {
        disk.sync();
    }
}

#[test]
fn no_byte_changes_and_what_was_promised_is_freed() {
    for case in 0..CASES {
        let options = if case.is_multiple_of(3) { "compress=zstd" } else { "" };
        let Some(disk) = Disk::btrfs(options) else { return };
        disk.subvolume("a");
        disk.subvolume("b");
        let (mut dice, mut snapshots) = (Dice(case), 0);
        for _ in 0..STEPS {
            step(&disk, &mut dice, &mut snapshots);
        }
        disk.sync();
        let manifest = disk.manifest();
        let promised = estimate(&disk.space());
        let report = run_all(&disk.space());
        assert_eq!(disk.manifest(), manifest, "case {case}");
        assert_eq!(report.outcome.differing, 0, "case {case}: {:?}", report.outcome);
        assert_eq!(
            report.outcome.freed_bytes, report.outcome.predicted_bytes,
            "case {case}: {:?}",
            report.outcome
        );
        assert!(
            promised > 0 && report.outcome.freed_bytes >= promised,
            "case {case}: {promised} promised, {:?}",
            report.outcome
        );
        assert_eq!(
            run_all(&disk.space()).outcome.extents,
            0,
            "case {case}: something was left"
        );
        disk.check();
    }
}

#[test]
fn a_map_of_xfs_stays_true_whatever_is_done_between_runs() {
    for case in 200..200 + CASES {
        let Some(disk) = Disk::xfs() else { return };
        fs::create_dir(disk.path("a")).unwrap();
        fs::create_dir(disk.path("b")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let (mut dice, mut none) = (Dice(case), 3);
        let mut freed_bytes = 0;
        for turn in 0..8 {
            for _ in 0..STEPS / 4 {
                step(&disk, &mut dice, &mut none);
            }
            disk.sync();
            let manifest = disk.manifest();
            let outcome = run_all(&walked(&disk, Some(&cache))).outcome;
            assert_eq!(disk.manifest(), manifest, "case {case}, turn {turn}");
            // Nothing was going on, so that what differs was taken for what it is not.
            assert_eq!(outcome.differing, 0, "case {case}, turn {turn}: {outcome:?}");
            assert_eq!(
                outcome.freed_bytes, outcome.predicted_bytes,
                "case {case}, turn {turn}: {outcome:?}"
            );
            freed_bytes += outcome.freed_bytes;
        }
        assert!(freed_bytes > 0);
        // And to who knows nothing of it.
        let again = run_all(&walked(&disk, None)).outcome;
        assert_eq!(again.differing, 0, "case {case}: {again:?}");
        command("xfs_repair", &["-n", disk.unmount().to_str().unwrap()]);
    }
}

/// Every file of a snapshot, with its layout and bytes, by inode.
fn layouts(fs: &Btrfs, subvolume: u64, directory: &Path) -> BTreeMap<u64, (Layout, Vec<u8>)> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| {
        let about = path.metadata().unwrap();
        let extents = fs.file_extents(subvolume, about.ino(), (0, u64::MAX)).unwrap();
        (
            about.ino(),
            (
                Layout {
                    len: about.len(),
                    extents,
                },
                fs::read(path).unwrap(),
            ),
        )
    };
    files.map(of).collect()
}

/// What may have changed since a file lay as in `was`, up to a generation.
fn changed(fs: &Btrfs, (was, generation): (&Layout, u64), is: &Layout) -> Vec<(u64, u64)> {
    let same = fs.made_by(&shared_starts(was, is), generation).unwrap();
    changed_ranges(was, is, |start| same.contains(&start))
}

#[test]
fn what_a_snapshot_lacks_of_a_later_one_is_told_from_where_files_lie() {
    for case in 100..100 + CASES {
        let options = if case.is_multiple_of(2) { "compress=zstd" } else { "" };
        let Some(disk) = Disk::btrfs(options) else { return };
        disk.subvolume("a");
        disk.subvolume("b");
        let (mut dice, mut none) = (Dice(case), 3);
        let mut before: BTreeMap<u64, (Layout, Vec<u8>)> = BTreeMap::new();
        let (mut told, mut all, mut generation) = (0, 0, 0);
        for turn in 0..8 {
            for _ in 0..STEPS / 4 {
                step(&disk, &mut dice, &mut none);
            }
            disk.sync();
            let name = format!("snap{turn}");
            disk.snapshot("a", &name);
            let fs = Btrfs::open(disk.root()).unwrap();
            let snapshot = subvolume(File::open(disk.path(&name)).unwrap().as_fd(), &name).unwrap();
            let after = layouts(&fs, snapshot.id, &disk.path(&name));
            for (inode, (is, new)) in &after {
                let Some((was, old)) = before.get(inode) else { continue };
                let mut bytes: Vec<u8> = old.clone();
                bytes.resize(new.len(), 0);
                for (from, len) in changed(&fs, (was, generation), is) {
                    let range = from as usize..(from + len) as usize;
                    bytes[range.clone()].copy_from_slice(&new[range]);
                    told += len;
                }
                assert!(
                    bytes == *new,
                    "case {case}, turn {turn}: inode {inode} changed where it was not told"
                );
                all += is.len;
            }
            (before, generation) = (after, snapshot.made);
            // What is kept is where files lay; the places are free for others.
            command(
                "btrfs",
                &["-q", "subvolume", "delete", "-C", disk.path(&name).to_str().unwrap()],
            );
            // Sharing moves data, and changes nothing.
            run_all(&disk.space());
        }
        assert!(told < all * 3 / 4, "case {case}: {told} of {all} bytes were told");
    }
}

#[test]
fn other_data_at_the_same_place_is_told_by_its_generation() {
    let Some(disk) = Disk::make(&["mkfs.btrfs", "-q"], 130 << 20, "") else {
        return;
    };
    let fs = Btrfs::open(disk.root()).unwrap();
    let write = |seed| {
        let path = disk.write("file", &noise(seed, 1 << 20));
        let generation = fs.commit().unwrap();
        let extents = fs
            .file_extents(5, path.metadata().unwrap().ino(), (0, u64::MAX))
            .unwrap();
        (Layout { len: 1 << 20, extents }, generation)
    };
    let start = |layout: &Layout| layout.extents[0].disk_start;
    let (before, first) = write(0);
    let again = (1..200).map(write).find(|(after, _)| start(after) == start(&before));
    let (again, second) = again.expect("the place was not taken again");
    assert_eq!(changed(&fs, (&before, first), &again), [(0, 1 << 20)]);
    assert_eq!(changed(&fs, (&again, second), &again), []);
    // Even if the file's own items were the same.
    assert_eq!(changed(&fs, (&again, first), &again), [(0, 1 << 20)]);
}
