//! Random edits on Btrfs: whatever was done to trees and large files, a run that asks what changed gives what reading all gives.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use drystone_backup::backup;
use rustix::fs::{FallocateFlags, XattrFlags, copy_file_range, fallocate, ioctl_ficlone, setxattr};

use crate::backup_world::World;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::image::command;
use crate::tracked::{on_disk, run, run_as};
use crate::vaults::noise;

const BLOCK: u64 = 4096;
const LARGE: u64 = 4;
const LARGE_BYTES: u64 = 9 << 20;

fn bytes(dice: &mut Dice, len: u64) -> Vec<u8> {
    noise(dice.roll(1 << 20), len as usize)
}

fn open(path: &PathBuf) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap()
}

/// Something done to one of the large files.
fn edit(world: &World, dice: &mut Dice) {
    let path = world.path(format!("large/{}", dice.roll(LARGE)));
    let other = world.path(format!("large/{}", dice.roll(LARGE)));
    let file = open(&path);
    let len = file.metadata().unwrap().len();
    let at = dice.roll(len.max(1));
    let block = at / BLOCK * BLOCK;
    let blocks = (1 + dice.roll(60)) * BLOCK;
    match dice.roll(16) {
        0..=3 => file
            .write_all_at(&noise(dice.roll(1 << 20), BLOCK as usize), block)
            .unwrap(),
        4 => file
            .write_all_at(&noise(7, 1 + dice.roll(50_000) as usize), at)
            .unwrap(),
        5 => file.write_all_at(&vec![0; blocks as usize], block).unwrap(),
        6 => fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            block,
            blocks,
        )
        .unwrap(),
        7 => fallocate(
            &file,
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            at,
            blocks,
        )
        .unwrap(),
        8 => fallocate(&file, FallocateFlags::empty(), len, blocks).unwrap(),
        9 => file.set_len(len - dice.roll(100_000).min(len / 10)).unwrap(),
        10 => file.set_len(len + dice.roll(100_000)).unwrap(),
        11 => file
            .write_all_at(&noise(3, 1 + dice.roll(300_000) as usize), len)
            .unwrap(),
        // Cloned, where blocks meet blocks.
        12 | 13 => {
            let (mut from, mut to) = (dice.roll(1000) * BLOCK, block);
            copy_file_range(open(&other), Some(&mut from), &file, Some(&mut to), blocks as usize).unwrap();
        }
        14 => ioctl_ficlone(&file, open(&other)).unwrap_or_default(),
        _ => {
            // Lies elsewhere afterwards, and is the same.
            file.sync_all().unwrap();
            command("btrfs", &["-q", "filesystem", "defragment", path.to_str().unwrap()]);
        }
    }
}

/// Something done to names.
fn shuffle(disk: &Disk, world: &World, dice: &mut Dice) {
    let dir = |dice: &mut Dice| world.path(format!("d{}/e{}", dice.roll(4), dice.roll(3)));
    let (one, two) = (dir(dice), dir(dice));
    let file = |dir: &PathBuf, dice: &mut Dice| dir.join(format!("f{}", dice.roll(6)));
    let (from, to) = (file(&one, dice), file(&two, dice));
    fs::create_dir_all(one.parent().unwrap()).unwrap();
    // What cannot be done, since what it would be done to is not there, is not done.
    let _ = match dice.roll(15) {
        0..=2 => fs::create_dir_all(&one).and_then(|()| fs::write(&from, bytes(dice, 3000))),
        3 => fs::rename(&from, &to),
        4 => fs::remove_file(&from),
        5 => fs::hard_link(&from, &to),
        6 => symlink(&to, &from),
        7 => fs::rename(&one, &two),
        8 => fs::rename(one.parent().unwrap(), two.join("deep")),
        9 => fs::remove_dir_all(&one),
        10 => fs::set_permissions(&from, PermissionsExt::from_mode(0o600 + dice.roll(64) as u32)),
        11 => setxattr(&one, "user.x", &bytes(dice, 9), XattrFlags::empty()).map_err(Into::into),
        12 => fs::rename(&one, disk.path("outside")).or_else(|_| fs::rename(disk.path("outside"), &one)),
        13 => {
            let command = Command::new("btrfs")
                .args(["-q", "subvolume", "create"])
                .arg(one.join("nested"))
                .output();
            command.and_then(|_| fs::write(one.join("nested/x"), bytes(dice, 20)))
        }
        _ => fs::write(&to, {
            let len = dice.0 % 9000;
            bytes(dice, len)
        }),
    };
}

fn case(seed: u64) {
    let Some((disk, world)) = on_disk() else { return };
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    for number in 0..LARGE {
        world.write(&format!("large/{number}"), noise(number, LARGE_BYTES as usize));
    }
    if seed.is_multiple_of(2) {
        command(
            "btrfs",
            &[
                "property",
                "set",
                world.path("large/1").to_str().unwrap(),
                "compression",
                "zstd",
            ],
        );
    }
    run(&world);
    let mut unread_bytes = 0;
    for _ in 0..7 {
        for _ in 0..dice.roll(4) {
            edit(&world, &mut dice);
        }
        for _ in 0..dice.roll(12) {
            shuffle(&disk, &world, &mut dice);
        }
        unread_bytes += run(&world).spared.unread_bytes;
    }
    assert!(unread_bytes > LARGE_BYTES, "{unread_bytes}");
    assert_eq!(disk.left_over(), 0);
}

#[test]
fn random_edits_give_what_reading_all_gives_1() {
    case(1);
}

#[test]
fn random_edits_give_what_reading_all_gives_2() {
    case(2);
}

#[test]
fn random_edits_give_what_reading_all_gives_3() {
    case(3);
}

#[test]
fn of_a_large_file_only_what_changed_is_read() {
    let Some((_disk, world)) = on_disk() else { return };
    world.write("large/0", noise(1, 20 << 20));
    let first = run(&world);
    assert_eq!(first.spared.unread_bytes, 0);
    let file = open(&world.path("large/0"));
    for block in [0, 100, 2000, 2001, 5119] {
        file.write_all_at(&noise(9, BLOCK as usize), block * BLOCK).unwrap();
    }
    let report = run(&world);
    assert_eq!((report.counts.changed, report.counts.new), (1, 0));
    let read = (20 << 20) - report.spared.unread_bytes;
    assert!(read < 200_000, "{read} bytes were read");
    assert_eq!(
        world.content(&world.table(&report)[b"large/0".as_slice()]),
        fs::read(world.path("large/0")).unwrap()
    );
    // A file that is written in place is read whole: where it lies says nothing.
    let path = world.path("large/in place");
    open(&path);
    command("chattr", &["+C", path.to_str().unwrap()]);
    open(&path).write_all_at(&noise(2, 9 << 20), 0).unwrap();
    run(&world);
    open(&path).write_all_at(&noise(9, BLOCK as usize), BLOCK).unwrap();
    assert_eq!(run(&world).spared.unread_bytes, 0);
}

/// A source may be a single file, such as the image of a machine.
#[test]
fn a_large_file_may_be_the_source() {
    let Some((_disk, world)) = on_disk() else { return };
    world.write("image", noise(1, 9 << 20));
    let options = drystone_backup::BackupOptions {
        sources: vec![world.path("image")],
        ..world.options()
    };
    run_as(&world, &options);
    open(&world.path("image"))
        .write_all_at(&noise(9, BLOCK as usize), 8 * BLOCK)
        .unwrap();
    assert!(run_as(&world, &options).spared.unread_bytes > 8 << 20);
    let ino = fs::metadata(world.path("image")).unwrap().ino();
    assert!(ino > 256 && backup(&world.vault, &options).unwrap().counts.unchanged == 1);
}
