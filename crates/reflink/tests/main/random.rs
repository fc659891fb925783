//! Random trees on Btrfs: whatever was done to files, a run frees what it said, and no byte of any file changes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

use crate::disk::{Disk, estimate, noise, run_all};

const BLOCK: u64 = 4096;
const FILES: u64 = 12;
const CASES: u64 = 4;
const STEPS: u64 = 140;

/// A generator of its own, so that a case is known by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn step(disk: &Disk, dice: &mut Dice, snapshots: &mut u64) {
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
