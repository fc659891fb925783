//! Drills: what is restored is compared byte for byte, what is wrong is named, and the scratch directory is gone.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use drystone_backup::{
    BackupReport, DrillOptions, DrillReport, Drilled, Error, Keep, LastDrills, Share, drill, last_drills, record_drill,
};
use drystone_format::RootId;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::snapshot::Totals;
use drystone_format::tree::{Kind, Time};
use drystone_store::Name;
use drystone_vault::{Cancel, Progress};

use crate::backup_world::World;
use crate::round_trip::make_everything;
use crate::vaults::{Fixture, entry, noise};

struct Drill {
    world: World,
    snapshot: RootId,
    into: tempfile::TempDir,
}

impl Drill {
    /// Of what is in the directory of this world now.
    fn of(world: World) -> Self {
        let BackupReport { snapshot, .. } = world.backup();
        Self {
            world,
            snapshot: snapshot.unwrap(),
            into: tempfile::tempdir().unwrap(),
        }
    }

    fn options(&self) -> DrillOptions {
        DrillOptions {
            share: Share::ALL,
            seed: 1,
            into: self.into.path().join("scratch"),
            keep: Keep::Remove,
            source: Some("/".into()),
            within: None,
            threads: 3,
            progress: Arc::new(Progress::default()),
            cancel: Cancel::default(),
        }
    }

    fn run(&self, options: &DrillOptions) -> Result<DrillReport, Error> {
        let snapshot = self.world.vault.snapshot(&self.snapshot).unwrap();
        let report = drill(&self.world.vault, &snapshot, options);
        if options.keep == Keep::Remove && self.into.path().join("scratch").exists() {
            assert_eq!(fs::read_dir(self.into.path().join("scratch")).unwrap().count(), 0);
        }
        report
    }
}

fn problems(report: &DrillReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn all_of_everything_is_restored_and_equal() {
    let world = World::new();
    make_everything(world.dir());
    let files = fs::read_dir(world.dir()).unwrap().count() as u64;
    let drill = Drill::of(world);
    let report = drill.run(&drill.options()).unwrap();
    assert_eq!(problems(&report), Vec::<String>::new());
    assert!(report.files >= files && report.chunks > 40, "{report:?}");
    assert!(report.not_set.is_empty() || !rustix::process::geteuid().is_root());
    assert_eq!((report.same_files, report.changed_files), (report.files, 0));
    let elsewhere = DrillOptions {
        source: None,
        ..drill.options()
    };
    let report = drill.run(&elsewhere).unwrap();
    assert_eq!((problems(&report).len(), report.same_files), (0, 0));
}

#[test]
fn a_share_is_drawn_by_a_seed_with_the_largest_and_some_small_files() {
    let world = World::new();
    for number in 0..400 {
        world.write(&format!("d{}/f{number}", number % 7), noise(number + 1, 70_000));
    }
    for number in 0..40 {
        world.write(&format!("small/{number}"), noise(number + 1000, 100));
    }
    world.write("largest", noise(5, 300_000));
    let drill = Drill::of(world);
    let run = |seed| {
        let options = DrillOptions {
            share: Share::new(0.1).unwrap(),
            seed,
            keep: Keep::Keep,
            ..drill.options()
        };
        let report = drill.run(&options).unwrap();
        assert_eq!(problems(&report), Vec::<String>::new());
        let kept = report.kept.clone().unwrap();
        let restored = kept.join(drill.world.dir().strip_prefix("/").unwrap());
        let mut names: Vec<PathBuf> = crate::compare::listing(&restored).into_keys().collect();
        names.retain(|name| restored.join(name).is_file());
        (report, names)
    };
    let (first, names) = run(1);
    assert!(names.contains(&"largest".into()));
    assert!(names.iter().filter(|name| name.starts_with("small")).count() >= 8);
    let total = 400 * 70_000 + 300_000;
    assert!(first.bytes > total / 25 && first.bytes < total / 5, "{}", first.bytes);
    assert_eq!(first.files, names.len() as u64);
    assert_eq!(run(1).1, names);
    assert_ne!(run(2).1, names);
    assert!(
        [0.0, -1.0, 1.1, f64::NAN]
            .into_iter()
            .all(|share| Share::new(share).is_none())
    );
}

#[test]
fn a_flipped_byte_in_a_pack_is_found_and_named() {
    let world = World::new();
    world.write("fine", b"fine");
    world.write("hit", noise(1, 200_000));
    let drill = Drill::of(world);
    let contents = drill.world.store.contents();
    let packs = contents.iter().filter(|(name, _)| name.as_str().starts_with("packs/"));
    let (name, bytes): (&Name, _) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    drill.world.store.overwrite(name, Bytes::from(bytes));
    let report = drill.run(&drill.options()).unwrap();
    let found = problems(&report);
    assert!(found.iter().any(|problem| problem.contains("/hit: ")), "{found:?}");
    assert_eq!(found.len() as u64, report.problems.count(), "each is named once");
    let mut once: Vec<_> = report.problems.iter().map(|problem| problem.path.clone()).collect();
    once.dedup();
    assert_eq!(once.len(), found.len());
}

/// Writes over a byte of a file and gives it the time that it had.
fn rot(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"!", 100_000).unwrap();
    file.set_modified(before).unwrap();
}

#[test]
fn a_source_that_differs_unnoticed_is_named_and_one_that_was_edited_is_not() {
    let world = World::new();
    for name in ["rotten", "edited", "longer", "gone", "same"] {
        world.write(name, noise(name.len() as u64, 150_000));
    }
    let drill = Drill::of(world);
    rot(&drill.world.path("rotten"));
    let edited = fs::OpenOptions::new()
        .write(true)
        .open(drill.world.path("edited"))
        .unwrap();
    edited.write_all_at(b"!", 5).unwrap();
    edited
        .set_modified(SystemTime::now() + std::time::Duration::from_secs(60))
        .unwrap();
    drill.world.write("longer", b"shorter");
    fs::remove_file(drill.world.path("gone")).unwrap();
    let report = drill.run(&drill.options()).unwrap();
    let found = problems(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("rotten: ") && found[0].contains("byte 100000"),
        "{found:?}"
    );
    assert_eq!((report.same_files, report.changed_files), (1, 3));
}

#[test]
fn attributes_of_an_untouched_source_must_be_equal() {
    let world = World::new();
    world.write("a", noise(1, 1000));
    let drill = Drill::of(world);
    // To the clock of the backup this happened before it, as if the backup had recorded the wrong mode.
    fs::set_permissions(drill.world.path("a"), fs::Permissions::from_mode(0o741)).unwrap();
    let found = problems(&drill.run(&drill.options()).unwrap());
    assert!(found.len() == 1 && found[0].contains("another mode"), "{found:?}");
}

#[test]
fn a_drill_without_room_or_that_is_interrupted_leaves_nothing() {
    let world = World::new();
    world.write("a", noise(1, 300_000));
    let drill = Drill::of(world);
    let cancelled = drill.options();
    cancelled.cancel.cancel();
    fs::create_dir(&cancelled.into).unwrap();
    let stopped = drill.run(&cancelled);
    assert!(matches!(stopped, Err(Error::Vault(drystone_vault::Error::Interrupted))));
    let of_size = |part: fn(u64) -> Part| {
        let recipe = Recipe {
            size_bytes: 1 << 42,
            depth: 0,
            parts: vec![part(1 << 42)],
        };
        let fixture = Fixture::new();
        let snapshot = fixture.put(|putter| putter.dir(vec![entry("huge", Kind::File(recipe))]));
        (fixture, snapshot)
    };
    let options = DrillOptions {
        source: None,
        ..drill.options()
    };
    let (fixture, snapshot) = of_size(Part::Zeros);
    let refused = drystone_backup::drill(&fixture.vault, &snapshot, &options);
    assert!(matches!(refused, Err(Error::NoRoom { needed_bytes, .. }) if needed_bytes > 1 << 42));
    let (fixture, snapshot) = of_size(Part::Hole);
    let report = drystone_backup::drill(&fixture.vault, &snapshot, &options).unwrap();
    assert_eq!(
        (problems(&report).len(), report.bytes),
        (0, 1 << 42),
        "a hole takes no room"
    );
    assert_eq!(fs::read_dir(&options.into).unwrap().count(), 0);
}

#[test]
fn results_are_remembered() {
    let mut world = World::new();
    assert_eq!(last_drills(&world.vault).unwrap(), LastDrills::default());
    let sound = Drilled {
        at: Time {
            seconds: 1_700_000_000,
            nanos: 1,
        },
        snapshot: RootId([3; 16]),
        snapshots: 2,
        files: 1204,
        bytes: 2_100_000_000,
        problems: 0,
        seconds: 61,
    };
    record_drill(&world.vault, &sound).unwrap();
    let failed = Drilled {
        problems: 2,
        at: Time {
            seconds: 1_800_000_000,
            nanos: 0,
        },
        ..sound
    };
    record_drill(&world.vault, &failed).unwrap();
    world.reopen();
    let expected = LastDrills {
        last: Some(failed),
        last_sound: Some(sound),
    };
    assert_eq!(last_drills(&world.vault).unwrap(), expected);
}

#[test]
fn a_drill_that_is_stopped_while_it_restores_leaves_nothing() {
    let world = World::new();
    for number in 0..16 {
        world.write(&format!("f{number}"), noise(number + 1, 1 << 20));
    }
    let drill = Drill::of(world);
    let options = drill.options();
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Ends by itself if the drill fails before.
            let start = std::time::Instant::now();
            let bytes = &options.progress.bytes;
            while bytes.load(std::sync::atomic::Ordering::Relaxed) == 0 && start.elapsed().as_secs() < 30 {
                std::thread::yield_now();
            }
            options.cancel.cancel();
        });
        drill.run(&options)
    });
    // On a busy machine it may be over before it is stopped; what is left behind, nothing, is looked at by `run`.
    assert!(matches!(
        stopped,
        Ok(_) | Err(Error::Vault(drystone_vault::Error::Interrupted))
    ));
}

/// Another writer's snapshot that holds more than it states, and may have no end, is not restored at all.
#[test]
fn what_holds_more_than_it_states_is_left() {
    let world = World::new();
    world.write("file", noise(1, 1000));
    let sparse = fs::File::create(world.path("sparse")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    let drill = Drill::of(world);
    let stated = drill.world.vault.snapshot(&drill.snapshot).unwrap().totals;
    let within = |bytes: u64| DrillOptions {
        within: Some(Totals { bytes, ..stated }),
        source: None,
        ..drill.options()
    };
    let left = drill.run(&within(1000));
    assert!(matches!(left, Err(Error::MoreThanStated { .. })), "{left:?}");
    assert!(!drill.into.path().join("scratch").exists());
    let done = drill.run(&within(stated.bytes)).unwrap();
    assert!(done.problems.is_empty());
}
