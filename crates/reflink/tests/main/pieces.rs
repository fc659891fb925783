//! Files that were written in place, piece by piece, and their copies; and many runs, each after a change, against one at the end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::dice::Dice;
use crate::disk::{Disk, noise, options, run_all, run_noted};
use crate::either::Either;
use crate::image::command;
use crate::random::step;
use crate::xfs::walked;

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;

/// Blocks of a file, so many of all, by chance.
fn some_blocks(dice: &mut Dice, of: u64, count: usize) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    while blocks.len() < count {
        blocks.insert(dice.roll(of));
    }
    blocks
}

/// Writes blocks of `bytes` where they belong in a file, each on its own.
fn write_in_place(path: &Path, bytes: &[u8], blocks: &BTreeSet<u64>) {
    let file = File::options().write(true).open(path).unwrap();
    for block in blocks {
        let at = *block as usize * BLOCK;
        file.write_all_at(&bytes[at..at + BLOCK], at as u64).unwrap();
    }
    file.sync_all().unwrap();
}

/// What a file is after blocks of it were written anew.
fn changed(mut bytes: Vec<u8>, blocks: &BTreeSet<u64>, seed: u64) -> Vec<u8> {
    for block in blocks {
        let at = *block as usize * BLOCK;
        bytes[at..at + BLOCK].copy_from_slice(&noise(seed + block, BLOCK));
    }
    bytes
}

#[test]
fn a_copy_of_what_was_written_in_place_is_freed_as_a_whole_one_is() {
    const LEN: usize = 32 * MIB;
    let blocks = (LEN / BLOCK) as u64;
    for (case, count, has_snapshot, is_other_way) in [
        (1, 500, false, false),
        (2, 2000, false, false),
        (3, 500, true, false),
        (4, 500, false, true),
    ] {
        let Some(disk) = Disk::btrfs("") else { return };
        let mut dice = Dice(case);
        disk.subvolume("a");
        let (first, written) = (noise(case, LEN), some_blocks(&mut dice, blocks, count));
        let bytes = changed(first.clone(), &written, 1 << 20);
        let image = disk.write("a/image", &first);
        disk.sync();
        if has_snapshot {
            disk.snapshot("a", "snap");
        }
        write_in_place(&image, &bytes, &written);
        if is_other_way {
            // The copy came to be what it is in place as well, by other writes.
            let others = some_blocks(&mut dice, blocks, count);
            let copy = disk.write("a/copy", &changed(bytes.clone(), &others, 2 << 20));
            disk.sync();
            write_in_place(&copy, &bytes, &others);
        } else {
            disk.write("a/copy", &bytes);
        }
        let manifest = disk.manifest();
        let outcome = run_all(&disk.space()).outcome;
        assert!(
            outcome.freed_bytes >= LEN as u64,
            "case {case}: {} MiB",
            outcome.freed_bytes >> 20
        );
        assert_eq!(outcome.freed_bytes, outcome.predicted_bytes, "case {case}");
        assert_eq!(disk.manifest(), manifest, "case {case}");
        assert_eq!(run_all(&disk.space()).outcome.extents, 0, "case {case}");
        disk.check();
    }
}

#[test]
fn a_copy_of_a_clone_that_was_written_in_place_is_freed_on_xfs() {
    const LEN: usize = 32 * MIB;
    for is_clone in [false, true] {
        let Some(disk) = Disk::xfs() else { return };
        let (first, written) = (noise(1, LEN), some_blocks(&mut Dice(1), (LEN / BLOCK) as u64, 500));
        let bytes = changed(first.clone(), &written, 1 << 20);
        let (origin, image) = (disk.write("origin", &first), disk.path("image"));
        command(
            "cp",
            &["--reflink=always", origin.to_str().unwrap(), image.to_str().unwrap()],
        );
        if !is_clone {
            fs::remove_file(origin).unwrap();
        }
        write_in_place(&image, &bytes, &written);
        disk.write("copy", &bytes);
        let manifest = disk.manifest();
        let outcome = run_all(&walked(&disk, None)).outcome;
        assert_eq!(outcome.freed_bytes, LEN as u64, "{outcome:?}");
        assert_eq!(disk.manifest(), manifest);
        assert_eq!(run_all(&walked(&disk, None)).outcome.extents, 0);
    }
}

#[test]
fn what_was_there_before_goes_if_something_new_holds_it() {
    for is_btrfs in [true, false] {
        let Some(either) = Either::new(is_btrfs) else { return };
        let (disk, mut state) = (&either.disk, either.state());
        let mut run = || run_noted(&*either.space(), &options(64 << 20), Some(&mut state)).unwrap();
        let bytes = noise(1, 60 * MIB);
        disk.write("old", &bytes[..20 * MIB]);
        assert!(run().complete);
        // Written in many pieces, each of its own: a copy of it lies in one.
        let torrent = disk.write("torrent", b"");
        let file = File::options().write(true).open(&torrent).unwrap();
        for piece in 0..128u64 {
            let at = (piece * 37 % 128) as usize * 4 * BLOCK;
            file.write_all_at(&bytes[30 * MIB + at..][..4 * BLOCK], at as u64)
                .unwrap();
            file.sync_data().unwrap();
        }
        assert_eq!(run().outcome.freed_bytes, 0);
        disk.write("new", &bytes);
        let manifest = disk.manifest();
        let outcome = run().outcome;
        assert_eq!(outcome.freed_bytes, (22 * MIB) as u64, "{is_btrfs}: {outcome:?}");
        assert_eq!(disk.manifest(), manifest);
        assert_eq!(run_all(&*either.space()).outcome.extents, 0);
    }
}

#[test]
fn runs_after_each_change_free_what_one_run_frees() {
    for case in 300..308u64 {
        let is_btrfs = case.is_multiple_of(2);
        let Some(either) = Either::new(is_btrfs) else { return };
        let disk = &either.disk;
        if is_btrfs {
            disk.subvolume("a");
            disk.subvolume("b");
        } else {
            fs::create_dir(disk.path("a")).unwrap();
            fs::create_dir(disk.path("b")).unwrap();
        }
        let mut state = either.state();
        let (mut dice, mut snapshots) = (Dice(case), if is_btrfs { 0 } else { 3 });
        for turn in 0..8 {
            for _ in 0..25 {
                step(disk, &mut dice, &mut snapshots);
            }
            disk.sync();
            let manifest = disk.manifest();
            let report = run_noted(&*either.space(), &options(64 << 20), Some(&mut state)).unwrap();
            assert!(report.complete, "case {case}, turn {turn}: {report:?}");
            assert_eq!(disk.manifest(), manifest, "case {case}, turn {turn}");
            let left = run_noted(&*either.space(), &options(64 << 20), None).unwrap().outcome;
            assert_eq!(left.freed_bytes, 0, "case {case}, turn {turn}: {left:?}");
        }
    }
}
