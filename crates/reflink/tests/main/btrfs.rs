//! Reclaiming on Btrfs: what is freed, what stays as it was, and what a second run finds.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use drystone_extents::{Btrfs, Flow, physical_map, subvolume_of};
use drystone_reflink::{
    BtrfsSpace, Cancel, Candidates, Look, Options, PastRun, Policy, Progress, Rank, Scope, Space, State, Uses,
};

use crate::disk::{Disk, estimate, noise, options, put, run_all, run_noted};
use crate::image::command;

const MIB: usize = 1 << 20;

/// Bytes of data that the file system holds, by its extent tree.
fn taken(disk: &Disk) -> u64 {
    let space = disk.space();
    space.commit().unwrap();
    let mut bytes = 0;
    space
        .fs()
        .extents(0, 0, |extent| {
            bytes += extent.len;
            Flow::Continue(())
        })
        .unwrap();
    bytes
}

#[test]
fn copies_of_all_kinds_are_shared_and_stay_what_they_were() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("a");
    disk.subvolume("b");
    let big = noise(1, 5 * MIB + 1234);
    for name in ["a/big", "b/big", "b/deep/er/big"] {
        disk.write(name, &big);
    }
    for file in 0..200u64 {
        // Of a few bytes (inline) to some blocks, most with a tail.
        let bytes = noise(1000 + file, 100 + file as usize * 171);
        disk.write(&format!("a/small/{file}"), &bytes);
        disk.write(&format!("b/small/{file}"), &bytes);
    }
    fs::hard_link(disk.path("b/big"), disk.path("b/link")).unwrap();
    let sparse = disk.write("a/sparse", b"");
    put(&sparse, 3 * MIB as u64, &big[..MIB]);
    disk.snapshot("b", "snap");
    disk.sync();
    let (before, manifest, promised) = (taken(&disk), disk.manifest(), estimate(&disk.space()));
    let report = run_all(&disk.space());
    assert_eq!(report.outcome.freed_bytes, before - taken(&disk));
    assert_eq!(
        (report.outcome.freed_bytes, report.outcome.predicted_bytes),
        (promised, promised)
    );
    let small: usize = (0..200usize)
        .map(|file| 100 + file * 171)
        .filter(|len| *len > 2048)
        .map(|len| len.next_multiple_of(4096))
        .sum();
    let expected = 2 * big.len().next_multiple_of(4096) + MIB + small;
    assert_eq!(report.outcome.freed_bytes as usize, expected);
    assert_eq!(disk.manifest(), manifest);
    assert_eq!(run_all(&disk.space()).outcome.extents, 0);
    disk.check();
}

#[test]
fn shifted_images_share_what_both_have() {
    let Some(disk) = Disk::btrfs("") else { return };
    let image = noise(2, 64 * MIB);
    disk.write("one", &image);
    disk.sync();
    // A block more in the middle, some zeros, and an end of its own.
    let shifted = [
        &image[..20 * MIB],
        &noise(3, 4096),
        &image[20 * MIB..50 * MIB],
        &vec![0; 4 * MIB],
        &noise(4, 2 * MIB + 7),
    ];
    disk.write("two", &shifted.concat());
    disk.sync();
    disk.write("three", &[&noise(4, 2 * MIB), &image[30 * MIB..][..16 * MIB]].concat());
    let manifest = disk.manifest();
    let report = run_all(&disk.space());
    // All that "two" and "three" have in common with others but for edges, by copying the rest.
    assert!(
        report.outcome.freed_bytes >= (53 + 15) * MIB as u64,
        "{}",
        report.outcome.freed_bytes >> 20
    );
    assert_eq!(report.outcome.freed_bytes, report.outcome.predicted_bytes);
    assert!(report.outcome.rewritten_bytes <= 5 * MIB as u64);
    assert_eq!(disk.manifest(), manifest);
    assert_eq!(run_all(&disk.space()).outcome.extents, 0);
    disk.check();
}

#[test]
fn nothing_is_written_anew_where_that_is_not_wanted() {
    let Some(disk) = Disk::btrfs("") else { return };
    let image = noise(2, 16 * MIB);
    disk.write("one", &image);
    disk.write("two", &[&image[..12 * MIB], &noise(3, 2 * MIB)].concat());
    let run = |policy| {
        let report = run_noted(
            &disk.space(),
            &Options {
                policy,
                ..options(64 << 20)
            },
            None,
        )
        .unwrap();
        (report.outcome.rewritten_bytes, report.outcome.freed_bytes)
    };
    assert_eq!(
        run(Policy {
            whole_only: true,
            ..Policy::default()
        }),
        (0, 0)
    );
    assert_eq!(
        run(Policy {
            never_rewrite: true,
            ..Policy::default()
        }),
        (0, 0)
    );
    assert_eq!(run(Policy::default()), (2 * MIB as u64, 12 * MIB as u64));
}

#[test]
fn what_is_copied_finds_a_place_whatever_the_target_is() {
    let Some(disk) = Disk::btrfs("") else { return };
    let image = noise(2, 8 * MIB);
    for name in ["a", "b"] {
        disk.subvolume(name);
        disk.write(&format!("{name}/one"), &image);
        disk.write(&format!("{name}/two"), &[&image[..6 * MIB], &noise(3, MIB)].concat());
        disk.sync();
        disk.snapshot(name, &format!("{name}-snap"));
        command("chattr", &["+C", disk.path(name).to_str().unwrap()]);
    }
    command("chattr", &["+C", disk.root().to_str().unwrap()]);
    let snapshot = Btrfs::open(&disk.path("a-snap")).unwrap();
    let space = BtrfsSpace::new(snapshot, Scope::default());
    let report = run_all(&space);
    assert_eq!(
        (report.outcome.rewritten_bytes, report.outcome.differing),
        (MIB as u64, 0),
        "{:?}",
        report.outcome
    );
    assert_eq!(report.outcome.freed_bytes, (8 + 6 + 7) * MIB as u64);
}

#[test]
fn every_kind_of_checksum_will_do() {
    for kind in ["xxhash", "sha256", "blake2"] {
        let Some(disk) = Disk::make(&["mkfs.btrfs", "-q", "--csum", kind, "-O", "^no-holes"], 200 << 20, "") else {
            return;
        };
        let image = noise(12, 4 * MIB + 99);
        for name in ["one", "two"] {
            let path = disk.write(name, &image);
            put(&path, 6 * MIB as u64, &vec![0; MIB]);
        }
        disk.sync();
        let (before, manifest) = (taken(&disk), disk.manifest());
        let report = run_all(&disk.space());
        assert!(
            report.outcome.freed_bytes >= 5 * MIB as u64,
            "{kind}: {:?}",
            report.outcome
        );
        assert_eq!(report.outcome.freed_bytes, before - taken(&disk), "{kind}");
        assert_eq!(disk.manifest(), manifest);
        disk.check();
    }
}

#[test]
fn compressed_data_is_shared_as_a_whole() {
    let Some(disk) = Disk::btrfs("compress-force=zstd:3") else {
        return;
    };
    let text: Vec<u8> = (0..400_000u32)
        .flat_map(|line| format!("line {} of it\n", line * 7 % 1000).into_bytes())
        .collect();
    disk.write("one", &text);
    disk.write("two", &text);
    disk.write("longer", &[text.as_slice(), b"and a line more"].concat());
    disk.sync();
    let (before, manifest) = (taken(&disk), disk.manifest());
    assert!(before < text.len() as u64, "it was not compressed");
    let report = run_all(&disk.space());
    assert_eq!(report.outcome.freed_bytes, before - taken(&disk));
    assert!(
        report.outcome.freed_bytes > before * 3 / 5,
        "{} of {before}",
        report.outcome.freed_bytes
    );
    assert_eq!(disk.manifest(), manifest);
    disk.check();
}

#[test]
fn data_without_checksums_is_read_once_and_shared_with_its_like() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("unsummed");
    fs::create_dir(disk.path("inplace")).unwrap();
    command("chattr", &["+C", disk.path("inplace").to_str().unwrap()]);
    let image = noise(1, 6 * MIB + 777);
    for name in ["inplace/one", "inplace/two", "copied"] {
        disk.write(name, &image);
    }
    // Only a part of it is anywhere else, and what is not could not be written anew without checksums.
    disk.write("inplace/half", &[&image[..3 * MIB], &noise(2, MIB)].concat());
    command("fallocate", &["-l", "4M", disk.path("reserved").to_str().unwrap()]);
    disk.sync();
    let (before, manifest) = (taken(&disk), disk.manifest());
    assert_eq!(run_all(&disk.space()).outcome.extents, 0);
    // What was freed, and what was read for it.
    let run = || {
        let space = disk.space().with_unsummed(Some(&cache), &Cancel::default()).unwrap();
        let outcome = run_all(&space).outcome;
        (outcome.freed_bytes, space.read_bytes())
    };
    let whole = image.len().next_multiple_of(4096) as u64;
    let (freed, read) = run();
    assert!(freed == whole && read >= 2 * whole, "{freed}, {read}");
    assert_eq!(before - taken(&disk), whole);
    assert_eq!(disk.manifest(), manifest);
    // Sharing changed the files that were read; then nothing does.
    assert_eq!(run().0, 0);
    assert_eq!(run(), (0, 0));
    put(&disk.path("inplace/half"), 3 * MIB as u64, &image[3 * MIB..4 * MIB]);
    disk.sync();
    assert_eq!(run(), (4 * MIB as u64, 4 * MIB as u64));
    disk.check();
}

#[test]
fn later_runs_look_at_what_is_new_alone() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    let image = noise(5, 32 * MIB);
    disk.subvolume("a");
    disk.write("a/one", &image);
    disk.write("a/two", &[&image[..20 * MIB], &noise(6, 3 * MIB)].concat());
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    let mut run = || run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    let first = run();
    assert!(first.complete && first.outcome.freed_bytes == 20 * MIB as u64 && first.outcome.rewritten_bytes > 0);
    // Neither its own sharing nor what it wrote anew is news, nor is a snapshot.
    disk.snapshot("a", "snap");
    let idle = run();
    assert_eq!((idle.scanned_bytes, idle.outcome.extents), (0, 0));
    // A block changed in place, which leaves the inode as old as it was, and a new copy of something old.
    put(&disk.path("a/one"), 8192, &noise(7, 4096));
    disk.write("a/three", &image[MIB..3 * MIB]);
    let second = run();
    assert_eq!(
        (second.scanned_bytes, second.outcome.freed_bytes),
        (2 * MIB as u64 + 4096, 2 * MIB as u64)
    );
    assert!(state.reset(disk.space().id()).unwrap());
    let again = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert!(again.scanned_bytes > 30 * MIB as u64 && again.outcome.extents == 0);
}

#[test]
fn only_what_is_in_scope_is_touched() {
    let Some(disk) = Disk::btrfs("") else { return };
    for name in ["a", "b", "c"] {
        disk.subvolume(name);
        disk.write(&format!("{name}/one"), &noise(8, 2 * MIB));
    }
    disk.write("c/two", &noise(8, 2 * MIB));
    disk.sync();
    let number = |name| subvolume_of(std::fs::File::open(disk.path(name)).unwrap().as_fd(), name).unwrap();
    use std::os::fd::AsFd;
    let only = |names: &[&'static str]| Scope {
        subvolumes: Some(names.iter().map(|name| number(*name)).collect::<BTreeSet<u64>>()),
        min_file_bytes: 0,
        private_min_bytes: 0,
        excluded: BTreeSet::new(),
    };
    let freed = |scope, policy| {
        run_noted(
            &disk.scoped(scope),
            &Options {
                policy,
                ..options(64 << 20)
            },
            None,
        )
        .unwrap()
        .outcome
        .freed_bytes
            / MIB as u64
    };
    assert_eq!(freed(only(&["a"]), Policy::default()), 0);
    let large = Scope {
        min_file_bytes: 3 * MIB as u64,
        ..Scope::default()
    };
    assert_eq!(freed(large, Policy::default()), 0);
    assert_eq!(
        freed(
            Scope::default(),
            Policy {
                same_subvolume_only: true,
                ..Policy::default()
            }
        ),
        2
    );
    assert_eq!(freed(only(&["a", "b"]), Policy::default()), 2);
    assert_eq!(freed(Scope::default(), Policy::default()), 2);
}

#[test]
fn files_of_different_owners_share_nothing_where_that_is_asked_for() {
    let Some(disk) = Disk::btrfs("") else { return };
    let owned = |name: &str, uid| {
        let path = disk.write(name, &noise(12, 2 * MIB));
        std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        disk.sync();
    };
    owned("alice", 1001);
    owned("bob", 1002);
    let freed = |same_owner_only| {
        let policy = Policy {
            same_owner_only,
            ..Policy::default()
        };
        let options = Options {
            policy,
            ..options(64 << 20)
        };
        let report = run_noted(&disk.space(), &options, None).unwrap();
        report.outcome.freed_bytes / MIB as u64
    };
    assert_eq!(freed(true), 0, "the extents of one show that another has the same");
    owned("bob2", 1002);
    assert_eq!(freed(true), 2, "bob may know what bob has");
    assert_eq!(freed(false), 2);
}

#[test]
fn uses_are_the_same_by_walk_and_by_look_up() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("a");
    let one = disk.write("a/one", &noise(9, 3 * MIB + 99));
    disk.write("two", &noise(9, 3 * MIB + 99));
    // Parts of extents that nobody uses any more, and parts that a snapshot still does.
    put(&one, 40960, &noise(10, 8192));
    disk.snapshot("a", "snap");
    put(&one, 81920, &noise(11, 8192));
    command(
        "cp",
        &[
            "--reflink=always",
            disk.path("two").to_str().unwrap(),
            disk.path("three").to_str().unwrap(),
        ],
    );
    fs::File::options()
        .write(true)
        .open(disk.path("two"))
        .unwrap()
        .set_len(2 * MIB as u64 + 1)
        .unwrap();
    disk.sync();
    let space = disk.space();
    let look = Look {
        since: 0,
        from: Rank::default(),
        memory_bytes: 64 << 20,
    };
    let mut found = Candidates::find(&space, look, &Progress::default(), &Cancel::default()).unwrap();
    assert!(!found.extents().is_empty());
    let extents = found.extents().to_vec();
    let ask = || {
        let mut all: Vec<Uses> = Vec::new();
        let keep = &mut |at, mut uses: Uses| {
            assert_eq!(at, all.len());
            uses.list.sort_by_key(|one| (one.file, one.file_offset));
            all.push(uses);
            Ok(())
        };
        space.uses(&extents, keep).unwrap();
        all
    };
    let looked_up = ask();
    space.prepare(found.extents_mut(), 1 << 20).unwrap();
    assert_eq!(ask(), looked_up);
    assert!(looked_up.iter().any(|uses| uses.list.len() > 2));
}

#[test]
fn little_memory_takes_more_passes_and_frees_the_same() {
    let Some(disk) = Disk::btrfs("") else { return };
    for file in 0..600u64 {
        let bytes = noise(20 + file, 4096 * (1 + file as usize % 40));
        disk.write(&format!("a/{file}"), &bytes);
        disk.write(&format!("b/{file}"), &bytes);
    }
    // Of one length, and some of one content: neither can be told apart by length.
    for file in 0..700u64 {
        let bytes = noise(if file % 10 == 0 { 1 } else { 1000 + file }, 9 * 4096);
        disk.write(&format!("a/same/{file}"), &bytes);
        disk.write(&format!("b/same/{file}"), &bytes);
    }
    let bytes: u64 = (0..600).map(|file| 4096 * (1 + file % 40)).sum();
    let same = (630 + 2 * 70 - 1) * 9 * 4096;
    let manifest = disk.manifest();
    let report = run_noted(&disk.space(), &options(300 << 10), None).unwrap();
    assert!(report.complete && report.passes > 3, "{} passes", report.passes);
    assert_eq!(report.outcome.freed_bytes, bytes + same);
    assert_eq!(disk.manifest(), manifest);
}

#[test]
fn what_lies_in_small_pieces_is_joined_first_if_that_is_wanted() {
    let Some(disk) = Disk::btrfs("") else { return };
    let image = noise(1, MIB);
    for name in ["one", "two", "shared"] {
        let path = disk.write(name, &vec![7; MIB]);
        for step in 0..128 {
            let at = step * 37 % 128 * 8192;
            put(&path, at as u64, &image[at..at + 8192]);
            // Each on its own, and not in order: else they would lie together.
            fs::File::open(&path).unwrap().sync_all().unwrap();
        }
    }
    let pieces = |name: &str| {
        let file = fs::File::open(disk.path(name)).unwrap();
        physical_map(file.as_fd(), (0, u64::MAX)).unwrap().len()
    };
    assert!(pieces("one") > 16, "{}", pieces("one"));
    let (manifest, wanted) = (
        disk.manifest(),
        Options {
            join: true,
            ..options(64 << 20)
        },
    );
    let report = run_noted(&disk.space(), &wanted, None).unwrap();
    assert_eq!((report.complete, taken(&disk)), (true, MIB as u64));
    for name in ["one", "two", "shared"] {
        assert!(pieces(name) < 4, "{name}: {}", pieces(name));
    }
    assert_eq!(disk.manifest(), manifest);
    disk.check();
}

#[test]
fn a_state_of_a_time_to_come_is_not_believed() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    let id = disk.space().id();
    state.see(id, "btrfs", "test").unwrap();
    let run = PastRun {
        scope: "all".into(),
        ..PastRun::default()
    };
    // As of this file system before it was set back, or of another with its identity.
    state.finish(id, &run, Some(1 << 40)).unwrap();
    for name in ["a", "b"] {
        disk.write(name, &noise(1, MIB));
    }
    let report = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert_eq!((report.complete, report.outcome.freed_bytes), (true, MIB as u64));
    assert!(state.generation(id, "all").unwrap() < 1 << 40);
}

#[test]
fn a_file_system_that_was_set_back_and_went_on_is_looked_at_again() {
    let Some(disk) = Disk::make(&["mkfs.btrfs", "-q"], 200 << 20, "") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    let saved = directory.path().join("saved");
    let go_on = |commits| {
        for at in 0..commits {
            disk.write("inline", format!("{at}").as_bytes());
            disk.space().commit().unwrap();
        }
    };
    let mount = || {
        let (image, place) = (disk.image().to_str().unwrap(), disk.root().to_str().unwrap());
        command("mount", &["-oloop", image, place]);
    };
    disk.write("x", &noise(1, MIB));
    disk.unmount();
    fs::copy(disk.image(), &saved).unwrap();
    mount();
    disk.write("y", &noise(1, MIB));
    go_on(10);
    let mut run = || run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert_eq!(run().outcome.freed_bytes, MIB as u64);
    assert_eq!(run().scanned_bytes, 0);
    disk.unmount();
    fs::copy(&saved, disk.image()).unwrap();
    mount();
    for name in ["y", "z"] {
        disk.write(name, &noise(1, MIB));
    }
    go_on(20);
    assert_eq!(run().outcome.freed_bytes, 2 * MIB as u64);
    assert_eq!(run().scanned_bytes, 0);
}

#[test]
fn a_run_can_be_limited_and_taken_up_again() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    for file in 0..40u64 {
        disk.write(&format!("a/{file}"), &noise(file, MIB));
        disk.write(&format!("b/{file}"), &noise(file, MIB));
    }
    let mut limited = options(64 << 20);
    limited.limits.max_bytes = 10 * MIB as u64;
    let mut freed = 0;
    for _ in 0..3 {
        let report = run_noted(&disk.space(), &limited, Some(&mut state)).unwrap();
        assert!(report.outcome.is_cut && !report.complete);
        assert!((10..20).contains(&(report.outcome.freed_bytes >> 20)));
        freed += report.outcome.freed_bytes;
    }
    let rest = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert!(rest.complete && rest.outcome.freed_bytes + freed == 40 * MIB as u64);
    let mut late = options(64 << 20);
    late.limits.is_late = &|| true;
    disk.write("c", &noise(3, MIB));
    let report = run_noted(&disk.space(), &late, Some(&mut state)).unwrap();
    assert!(report.outcome.is_cut && report.outcome.extents == 0, "{report:?}");
    let file = fs::File::open(disk.path("c")).unwrap();
    let mut block = [0; 16];
    file.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, noise(3, 16)[..]);
}
