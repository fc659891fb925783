//! What a balance moves to where something else lay: the place and the generation in the file's own item are as they were, the bytes are not.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use drystone_extents::items::{FileExtent, tree};
use drystone_extents::{Btrfs, Range};
use rustix::fs::{FallocateFlags, copy_file_range, fallocate};

use crate::disk::Disk;
use crate::image::command;
use crate::tracked::{on_disk, run};
use crate::vaults::noise;

const MIB: u64 = 1 << 20;
/// Extents of the file, and as many of another: the smallest file of which extents are kept.
const PIECES: u64 = 8;
const CHUNKS: usize = 3;

/// Where the chunks of data begin, and where they end.
fn chunks(fs: &Btrfs) -> Vec<(u64, u64)> {
    let range = Range {
        tree: 3,
        from: (256, 228, 0),
        to: (256, 228, u64::MAX),
        min_generation: 0,
    };
    let mut found = Vec::new();
    fs.search(range, |key, item| {
        let number = |at: usize| u64::from_le_bytes(item[at..at + 8].try_into().unwrap());
        if number(24) & 1 != 0 {
            found.push((key.offset, key.offset + number(0)));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// Appends an extent of one MiB.
fn append(file: &File, seed: u64) {
    let len = file.metadata().unwrap().len();
    file.write_all_at(&noise(seed, MIB as usize), len).unwrap();
    file.sync_all().unwrap();
}

fn create(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).open(path).unwrap()
}

fn commit(disk: &Disk) {
    // What was freed can be taken after the second.
    for _ in 0..2 {
        command("sync", &["-f", disk.path("").to_str().unwrap()]);
    }
}

fn extents(fs: &Btrfs, file: &File) -> Vec<FileExtent> {
    let inode = file.metadata().unwrap().ino();
    fs.file_extents(tree::TOP, inode, (0, u64::MAX)).unwrap()
}

/// Frees up to `count` MiB that the filler has of a chunk.
fn free(fs: &Btrfs, filler: &File, (start, end): (u64, u64), count: usize) {
    let within = |extent: &FileExtent| (start..end).contains(&extent.disk_start);
    for extent in extents(fs, filler).into_iter().filter(within).take(count) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(filler, flags, extent.file_offset, extent.len).unwrap();
    }
}

#[test]
fn a_clone_that_was_moved_to_where_the_data_lay_is_read() {
    let Some((disk, world)) = on_disk() else { return };
    let fs = Btrfs::open(&disk.path("")).unwrap();
    // Some chunks of data, full to the last byte.
    let filler = create(&disk.path("filler"));
    for seed in 0.. {
        append(&filler, seed);
        let room: u64 = chunks(&fs).iter().map(|(start, end)| end - start).sum();
        if chunks(&fs).len() >= CHUNKS && room == (seed + 1) * MIB {
            break;
        }
        assert!(seed < 400);
    }
    commit(&disk);
    let all = chunks(&fs);
    let (one, two) = (all[all.len() - 2], all[all.len() - 1]);
    free(&fs, &filler, one, PIECES as usize);
    free(&fs, &filler, two, PIECES as usize);
    commit(&disk);
    // The file in one chunk, the donor in the other, of one generation.
    let (file, donor) = (create(&world.path("large")), create(&disk.path("donor")));
    for seed in 0..PIECES {
        append(&file, 1000 + seed);
    }
    for seed in 0..PIECES {
        append(&donor, 2000 + seed);
    }
    commit(&disk);
    run(&world);
    command("btrfs", &["-q", "subvolume", "sync", disk.path("").to_str().unwrap()]);
    let before = extents(&fs, &file);
    for piece in 0..PIECES {
        let (mut from, mut to) = (piece * MIB, piece * MIB);
        let copied = copy_file_range(&donor, Some(&mut from), &file, Some(&mut to), MIB as usize);
        assert_eq!(copied.unwrap() as u64, MIB);
    }
    free(&fs, &filler, two, usize::MAX);
    commit(&disk);
    let vrange = format!("-dvrange={}..{}", two.0, two.0 + 1);
    command(
        "btrfs",
        &["-q", "balance", "start", &vrange, disk.path("").to_str().unwrap()],
    );
    commit(&disk);
    let after = extents(&fs, &file);
    let same = before.iter().zip(&after).filter(|(before, after)| before == after);
    if same.count() == 0 {
        eprintln!("LEFT OUT: a balance onto the old place: this kernel laid data elsewhere: {before:?} {after:?}");
        return;
    }
    let report = run(&world);
    assert_eq!(report.spared.unread_bytes, 0);
    let content = world.content(&world.table(&report)[b"large".as_slice()]);
    assert_eq!(content, fs::read(world.path("large")).unwrap());
    assert!(content == fs::read(disk.path("donor")).unwrap());
}

/// A balance that moves a file alone costs reading what moved.
#[test]
fn what_a_balance_moved_is_read_when_it_changes() {
    let Some((disk, world)) = on_disk() else { return };
    world.write("large", noise(1, 9 << 20));
    run(&world);
    command(
        "btrfs",
        &["-q", "balance", "start", "-d", disk.path("").to_str().unwrap()],
    );
    // The file did not change, and is not looked at.
    assert_eq!(run(&world).spared.files, 1);
    let file = OpenOptions::new().write(true).open(world.path("large")).unwrap();
    file.write_all_at(&noise(2, 4096), MIB).unwrap();
    assert_eq!(run(&world).spared.unread_bytes, 0);
    file.write_all_at(&noise(3, 4096), MIB).unwrap();
    assert!(run(&world).spared.unread_bytes > 8 << 20);
}
