//! What goes on meanwhile, and what ends a run early: writers, kills, files that refuse, a full file system.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drystone_reflink::{Cancel, Error, Limits, Note, Options, Progress, Space, State, run};

use crate::disk::{Disk, hash, noise, options, put, run_all, run_noted};
use crate::either::Either;
use crate::image::command;

const MIB: usize = 1 << 20;

/// Tells writers to end, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_that_are_written_meanwhile_have_what_was_written() {
    let Some(disk) = Disk::btrfs("") else { return };
    let image = noise(1, 8 * MIB);
    for name in ["still", "a", "b", "c"] {
        disk.write(name, &image);
    }
    disk.sync();
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let writers: Vec<_> = ["a", "b"]
            .into_iter()
            .enumerate()
            .map(|(seed, name)| {
                let (stop, path, image, mut own) = (&stop, disk.path(name), &image, image.clone());
                scope.spawn(move || {
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    let mut turn = seed as u64;
                    while !stop.load(Ordering::Relaxed) {
                        turn += 2;
                        // Now a change, now what was there, so that ranges become equal again.
                        let at = (turn as usize * 7919 * 512) % (own.len() - 5000);
                        let bytes = if turn.is_multiple_of(3) {
                            image[at..at + 5000].to_vec()
                        } else {
                            noise(turn, 5000)
                        };
                        file.write_all_at(&bytes, at as u64).unwrap();
                        own[at..at + 5000].copy_from_slice(&bytes);
                    }
                    own
                })
            })
            .collect();
        for _ in 0..4 {
            let report = run_noted(&disk.space(), &options(64 << 20), None).unwrap();
            assert!(report.outcome.problems.is_empty(), "{:?}", report.outcome.problems);
        }
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect::<Vec<_>>()
    });
    for (name, bytes) in ["a", "b"].into_iter().zip(written) {
        assert!(fs::read(disk.path(name)).unwrap() == bytes, "{name} lost a write");
    }
    assert_eq!(
        (hash(&disk.path("c")), hash(&disk.path("still"))),
        (hash(&disk.path("still")), hash(&disk.path("c")))
    );
    assert!(fs::read(disk.path("c")).unwrap() == image);
    disk.check();
}

/// Not a test of its own: what the next one kills.
#[test]
#[ignore = "is run by a test that kills it"]
fn a_run_to_be_killed() {
    let mount = std::env::var_os("DRYSTONE_TEST_MOUNT").unwrap();
    let fs = drystone_extents::Btrfs::open(mount.as_ref()).unwrap();
    let space = drystone_reflink::BtrfsSpace::new(fs, drystone_reflink::Scope::default());
    run_noted(&space, &options(64 << 20), None).unwrap();
}

#[test]
fn a_killed_run_leaves_nothing_but_less_to_do() {
    let Some(disk) = Disk::btrfs("") else { return };
    for file in 0..60u64 {
        let bytes = noise(file, MIB + 77);
        disk.write(&format!("a/{file}"), &bytes);
        disk.write(
            &format!("b/{file}"),
            &[bytes.as_slice(), &noise(1000 + file, 300 << 10)].concat(),
        );
    }
    disk.sync();
    let manifest = disk.manifest();
    let mut delay = Duration::from_millis(5);
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "faults::a_run_to_be_killed"])
            .env("DRYSTONE_TEST_MOUNT", disk.root())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + delay;
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        delay *= 2;
        assert_eq!(disk.manifest(), manifest);
    }
    run_all(&disk.space());
    assert_eq!(run_all(&disk.space()).outcome.extents, 0);
    assert_eq!(disk.manifest(), manifest);
    disk.check();
}

#[test]
fn a_file_that_refuses_is_a_problem_and_nothing_more() {
    let Some(disk) = Disk::btrfs("") else { return };
    let bytes = noise(3, 2 * MIB);
    for name in ["one", "two", "fixed"] {
        disk.write(name, &bytes);
    }
    disk.sync();
    // The oldest stays; so one that goes cannot be changed.
    let fixed = disk.path("fixed");
    command("chattr", &["+i", fixed.to_str().unwrap()]);
    let report = run_noted(&disk.space(), &options(64 << 20), None).unwrap();
    command("chattr", &["-i", fixed.to_str().unwrap()]);
    let outcome = report.outcome;
    assert!(
        outcome.problem_count == 1 && outcome.problems[0].why.contains("permitted"),
        "{outcome:?}"
    );
    assert_eq!(outcome.freed_bytes, 2 * MIB as u64);
    assert!(fs::read(&fixed).unwrap() == bytes);
}

#[test]
fn what_refused_or_changed_meanwhile_is_tried_again_by_the_next_run() {
    for is_btrfs in [true, false] {
        let Some(either) = Either::new(is_btrfs) else { return };
        let (disk, mut state) = (&either.disk, either.state());
        let bytes = noise(3, 4 * MIB);
        for name in ["a", "b", "fixed"] {
            disk.write(name, &bytes);
        }
        disk.sync();
        let fixed = disk.path("fixed");
        command("chattr", &["+i", fixed.to_str().unwrap()]);
        let mut run = |limits| {
            let options = Options {
                limits,
                ..options(64 << 20)
            };
            run_noted(&*either.space(), &options, Some(&mut state)).unwrap()
        };
        let usual = options(64 << 20).limits;
        let freed: u64 = [4, 0].map(|_| run(usual)).map(|report| {
            assert!(!report.complete && report.outcome.problem_count == 1, "{report:?}");
            assert!(report.outcome.predicted_bytes <= 8 * MIB as u64, "{report:?}");
            report.outcome.freed_bytes
        })[0];
        command("chattr", &["-i", fixed.to_str().unwrap()]);
        let report = run(usual);
        assert_eq!(
            (report.complete, report.outcome.freed_bytes + freed),
            (true, 8 * MIB as u64)
        );
        // One block changes while each pass of a run is carried out: the rest of the file is for the run after it.
        disk.write("busy", &bytes);
        disk.sync();
        let count = std::sync::atomic::AtomicU64::new(0);
        let is_late = || {
            let turn = count.fetch_add(1, Ordering::Relaxed);
            put(&disk.path("busy"), 2 * MIB as u64, &turn.to_le_bytes());
            false
        };
        let report = run(Limits {
            is_late: &is_late,
            ..usual
        });
        assert!(count.load(Ordering::Relaxed) > 0);
        let left = run(usual);
        assert!(left.complete, "{left:?}");
        let freed = report.outcome.freed_bytes + left.outcome.freed_bytes;
        assert!(freed >= 3 * MIB as u64, "{report:?}, then {left:?}");
        assert!(fs::read(disk.path("a")).unwrap() == bytes);
    }
}

#[test]
fn what_an_incomplete_run_leaves_is_owed_even_if_nothing_new_is_left() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    for name in ["a", "b"] {
        disk.write(name, &noise(4, MIB));
    }
    let mut run = |limited: bool| {
        let mut options = options(64 << 20);
        options.limits.max_bytes = if limited { 0 } else { u64::MAX };
        options.incremental = !limited;
        run_noted(&disk.space(), &options, Some(&mut state)).unwrap()
    };
    assert!(run(false).complete);
    assert_eq!(run(false).scanned_bytes, 0);
    let new = disk.write("new", &noise(4, MIB));
    let cut = run(true);
    assert!(cut.outcome.is_cut && !cut.complete, "{cut:?}");
    // With it all that was new is gone.
    fs::remove_file(new).unwrap();
    disk.sync();
    let report = run(false);
    assert!(report.complete && report.scanned_bytes > 0, "{report:?}");
    assert_eq!(run(false).scanned_bytes, 0);
}

#[test]
fn what_the_disk_no_longer_gives_is_named_and_the_rest_is_shared() {
    let Some(disk) = Disk::make(&["mkfs.btrfs", "-q"], 200 << 20, "") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    let bytes = noise(9, 4 * MIB);
    for name in ["x", "y", "z"] {
        disk.write(name, &bytes);
        disk.sync();
    }
    let image = disk.unmount().to_owned();
    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let wanted = &bytes[3 * MIB..][..4096];
    let mut block = vec![0; 4096];
    let mut blocks = (0..(200 << 20) / 4096u64).map(|at| at * 4096);
    let found = blocks.find(|at| {
        file.read_exact_at(&mut block, *at).unwrap();
        block == wanted
    });
    file.write_all_at(b"damaged", found.unwrap()).unwrap();
    drop(file);
    command(
        "mount",
        &["-oloop", image.to_str().unwrap(), disk.root().to_str().unwrap()],
    );
    let is_bad = |name: &&str| fs::read(disk.path(name)).is_err();
    let bad: Vec<&str> = ["x", "y", "z"].into_iter().filter(is_bad).collect();
    assert_eq!(bad.len(), 1);
    for freed in [4 * MIB as u64, 0] {
        let space = disk.space();
        let report = run_noted(&space, &options(64 << 20), Some(&mut state)).unwrap();
        let outcome = report.outcome;
        assert_eq!((report.complete, outcome.freed_bytes), (false, freed), "{outcome:?}");
        assert_eq!((outcome.problem_count, outcome.unreadable.len()), (1, 1), "{outcome:?}");
        assert_eq!(space.path(outcome.problems[0].file).unwrap(), bad[0].as_bytes());
    }
    for name in ["x", "y", "z"].into_iter().filter(|name| *name != bad[0]) {
        assert!(fs::read(disk.path(name)).unwrap() == bytes);
    }
}

#[test]
fn what_is_being_sent_is_left_for_a_later_run() {
    let Some(disk) = Disk::btrfs("") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    let bytes = noise(5, 4 * MIB);
    disk.subvolume("first");
    disk.write("first/one", &bytes);
    disk.sync();
    disk.subvolume("second");
    disk.write("second/two", &bytes);
    disk.snapshot("second", "sent");
    fs::remove_file(disk.path("second/two")).unwrap();
    disk.sync();
    // Nobody takes more than the beginning of what it writes, so that it goes on until it is killed.
    let mut sender = Command::new("btrfs")
        .args(["-q", "send"])
        .arg(disk.path("sent"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sender.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let report = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    let outcome = report.outcome;
    assert_eq!((outcome.freed_bytes, report.complete), (0, false));
    assert!(outcome.problems[0].why.contains("busy"), "{outcome:?}");
    sender.kill().unwrap();
    sender.wait().unwrap();
    let report = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert_eq!((report.outcome.freed_bytes, report.complete), (4 * MIB as u64, true));
}

#[test]
fn files_that_shrink_or_go_meanwhile_are_no_problem() {
    let Some(disk) = Disk::btrfs("") else { return };
    let bytes = noise(6, 4 * MIB);
    disk.write("stays", &bytes);
    for file in 0..40 {
        disk.write(&format!("{file}"), &bytes);
    }
    disk.sync();
    let space = disk.space();
    let progress = Progress::default();
    // What was planned with is gone before the first bytes are shared.
    let options = Options {
        limits: Limits {
            is_late: &|| {
                for file in 0..20 {
                    File::options()
                        .write(true)
                        .open(disk.path(&format!("{file}")))
                        .unwrap()
                        .set_len(5000)
                        .unwrap();
                    let _ = fs::remove_file(disk.path(&format!("{}", file + 20)));
                }
                disk.sync();
                false
            },
            ..options(64 << 20).limits
        },
        ..options(64 << 20)
    };
    let note = Note {
        state: None,
        scope: "",
        started_s: 0,
        elapsed_ms: &|| 0,
    };
    let outcome = run(&space, &options, note, &progress, &Cancel::default())
        .unwrap()
        .outcome;
    assert!(outcome.problem_count == 0 && outcome.differing > 0, "{outcome:?}");
    assert!(fs::read(disk.path("stays")).unwrap() == bytes);
}

#[test]
fn a_full_file_system_still_gives_back_what_needs_no_room() {
    let Some(disk) = Disk::make(&["mkfs.btrfs", "-q"], 160 << 20, "") else {
        return;
    };
    let bytes = noise(4, 8 * MIB);
    for name in ["one", "two"] {
        disk.write(name, &bytes);
    }
    disk.write("three", &[&bytes[..6 * MIB], &noise(5, MIB)].concat());
    disk.sync();
    let filler = File::create(disk.path("filler")).unwrap();
    let mut at = 0;
    for len in [MIB, 4096] {
        while filler.write_all_at(&noise(at, len), at).is_ok() {
            at += len as u64;
        }
    }
    let before = hash(&disk.path("three"));
    let report = run_noted(&disk.space(), &options(64 << 20), None).unwrap();
    assert!(report.outcome.freed_bytes >= 8 * MIB as u64, "{:?}", report.outcome);
    assert_eq!(hash(&disk.path("three")), before);
}

#[test]
fn where_there_is_no_room_for_metadata_a_run_ends_soon_and_is_not_complete() {
    const SNAPSHOTS: u32 = 6;
    let Some(disk) = Disk::make(&["mkfs.btrfs", "-q", "-m", "single"], 120 << 20, "commit=1") else {
        return;
    };
    disk.subvolume("a");
    disk.subvolume("b");
    let bytes = noise(7, 16384);
    // Each of its own, but for one other: to share them changes many leaves, which each snapshot has to have for itself.
    for file in 0..1200u64 {
        let bytes = [&file.to_le_bytes()[..], &bytes].concat();
        disk.write(&format!("a/{file:05}{}", "x".repeat(200)), &bytes);
        disk.write(&format!("b/{file:05}{}", "x".repeat(200)), &bytes);
    }
    disk.sync();
    for snapshot in 0..SNAPSHOTS {
        disk.snapshot("a", &format!("a{snapshot}"));
        disk.snapshot("b", &format!("b{snapshot}"));
    }
    // All space is given to data or metadata, so that the latter cannot grow; names live in it.
    disk.subvolume("names");
    let filler = File::create(disk.path("filler")).unwrap();
    let mut at = 0;
    while filler.write_all_at(&noise(at, MIB), at).is_ok() {
        at += MIB as u64;
    }
    disk.sync();
    let mut file = 0u64;
    while File::create(disk.path(&format!("names/{file:06}{}", "x".repeat(240)))).is_ok() {
        file += 1;
    }
    disk.sync();
    let manifest = disk.manifest();
    let directory = tempfile::tempdir().unwrap();
    let mut state = State::open(&directory.path().join("state")).unwrap();
    state.see(disk.space().id(), "btrfs", "test").unwrap();
    let report = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
    assert_eq!(disk.manifest(), manifest);
    let outcome = report.outcome;
    assert!(!report.complete && outcome.is_owed, "{outcome:?}");
    assert!(outcome.problem_count > 0 && outcome.problem_count < 100, "{outcome:?}");
    assert!(
        outcome.problems.iter().all(|one| one.why.contains("no room")),
        "{outcome:?}"
    );
    // With room again, the next run does what is left.
    fs::remove_file(disk.path("filler")).unwrap();
    let taken = (0..SNAPSHOTS).flat_map(|snapshot| [format!("a{snapshot}"), format!("b{snapshot}")]);
    for subvolume in taken.chain(["names".to_owned()]) {
        let path = disk.path(&subvolume);
        command("btrfs", &["-q", "subvolume", "delete", path.to_str().unwrap()]);
    }
    let top = disk.path("");
    command("btrfs", &["-q", "subvolume", "sync", top.to_str().unwrap()]);
    // The kernel gives the room back piece by piece, with its commits.
    let (mut is_complete, mut freed_bytes) = (false, 0);
    for _ in 0..20 {
        disk.sync();
        let report = run_noted(&disk.space(), &options(64 << 20), Some(&mut state)).unwrap();
        freed_bytes += report.outcome.freed_bytes;
        is_complete = report.complete;
        if is_complete {
            break;
        }
    }
    assert!(is_complete && freed_bytes > 0, "{freed_bytes}");
    assert_eq!(
        run_noted(&disk.space(), &options(64 << 20), None)
            .unwrap()
            .outcome
            .extents,
        0
    );
}

#[test]
fn a_read_only_file_system_says_so() {
    let Some(disk) = Disk::btrfs("") else { return };
    for name in ["one", "two"] {
        disk.write(name, &noise(6, MIB));
    }
    disk.sync();
    let space = disk.space();
    command("mount", &["-o", "remount,ro", disk.root().to_str().unwrap()]);
    let failed = run_noted(
        &space,
        &Options {
            flush: false,
            ..options(64 << 20)
        },
        None,
    )
    .unwrap_err();
    assert!(failed.to_string().contains("Read-only"), "{failed}");
}

#[test]
fn a_wish_to_stop_is_heard() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.write("one", &noise(7, MIB));
    let cancel = Cancel::default();
    cancel.cancel();
    let note = Note {
        state: None,
        scope: "all",
        started_s: 0,
        elapsed_ms: &|| 0,
    };
    let space = disk.space();
    assert_eq!(space.block_bytes(), 4096);
    let stopped = run(&space, &options(64 << 20), note, &Progress::default(), &cancel);
    assert!(matches!(stopped, Err(Error::Interrupted)));
}
