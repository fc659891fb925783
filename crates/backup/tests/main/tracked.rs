//! Backups on Btrfs that ask what changed: they give what looking at every file gives, and look again where they cannot be certain.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use drystone_backup::{BackupOptions, BackupReport, FiltersBuilder, Look, OneFileSystem, Parent, backup};
use drystone_format::recipe::Recipe;
use drystone_store::Store;

use crate::backup_world::{World, assert_clean};
use crate::disk::Disk;
use crate::image::command;
use crate::vaults::runtime;

/// A file system, and a world that backs up `src` on it.
pub(crate) fn on_disk() -> Option<(Disk, World)> {
    let disk = Disk::new()?;
    fs::create_dir(disk.path("src")).unwrap();
    let world = World::over(disk.path("src"));
    Some((disk, world))
}

/// The whole tree that a report's snapshot names.
fn root(world: &World, report: &BackupReport) -> Recipe {
    world.vault.snapshot(&report.snapshot.unwrap()).unwrap().tree
}

/// What looking at and reading every file gives, of another host, so that nothing is cached for the runs that are tested.
pub(crate) fn walk(world: &World, options: &BackupOptions) -> BackupReport {
    let options = BackupOptions {
        look: Look::Files,
        parent: Parent::Rescan,
        host: "walker".to_owned(),
        ..options.clone()
    };
    backup(&world.vault, &options).unwrap()
}

/// A run that must give what the walk gives.
pub(crate) fn run_as(world: &World, options: &BackupOptions) -> BackupReport {
    let report = backup(&world.vault, options).unwrap();
    assert_clean(&report);
    let walked = walk(world, options);
    if root(world, &report) != root(world, &walked) {
        let (got, wanted) = (world.everything(&report), world.everything(&walked));
        for path in got.keys().chain(wanted.keys()) {
            let below = path.starts_with(options.sources[0].as_os_str().as_encoded_bytes());
            assert!(
                !below || got.get(path) == wanted.get(path),
                "{}: {:?} {:?}",
                String::from_utf8_lossy(path),
                got.get(path),
                wanted.get(path)
            );
        }
    }
    let sizes = |report: &BackupReport| {
        let totals = report.totals;
        (totals.files, totals.dirs, totals.bytes)
    };
    assert_eq!(sizes(&report), sizes(&walked));
    report
}

pub(crate) fn run(world: &World) -> BackupReport {
    run_as(world, &world.options())
}

/// Something done to the tree.
type Change<'a> = Box<dyn Fn() + 'a>;

/// Why a run did not trust what is kept.
pub(crate) fn why(report: &BackupReport) -> Vec<&str> {
    report.distrust.iter().map(|distrust| distrust.why.as_str()).collect()
}

fn fill(world: &World) {
    for dir in 0..10 {
        for file in 0..10 {
            world.write(&format!("d{dir}/e/f{file}"), format!("{dir} {file}"));
        }
    }
}

#[test]
fn an_unchanged_tree_is_not_looked_at() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    let first = run(&world);
    assert_eq!((first.spared.dirs, first.counts.new), (0, 100));
    assert_eq!(why(&first), Vec::<&str>::new());
    let second = run(&world);
    assert_eq!(
        (second.spared.dirs, second.spared.files, second.counts.unchanged),
        (21, 100, 100)
    );
    assert_eq!(world.tree(&first), world.tree(&second));
    assert_eq!(disk.left_over(), 0);
    // Nothing of it is in a backup of everything, nor open to anybody.
    let whole = BackupOptions {
        sources: vec![disk.path("")],
        ..world.options()
    };
    let report = run_as(&world, &whole);
    assert!(
        !world
            .everything(&report)
            .keys()
            .any(|path| path.ends_with(b".drystone-backup"))
    );
    let mode = fs::metadata(disk.path(".drystone-backup"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(run_as(&world, &whole).spared.files, 100);
}

#[test]
fn every_kind_of_change_is_seen() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    world.write("d9/big", vec![7; 1 << 20]);
    fs::hard_link(world.path("d1/e/f1"), world.path("d2/linked")).unwrap();
    run(&world);
    let path = |name: &str| world.path(name);
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("nothing", Box::new(|| {})),
        ("written", Box::new(|| fs::write(path("d0/e/f0"), "other").unwrap())),
        ("same size", Box::new(|| fs::write(path("d0/e/f0"), "rehto").unwrap())),
        ("new", Box::new(|| fs::write(path("d0/e/new"), "x").unwrap())),
        ("removed", Box::new(|| fs::remove_file(path("d0/e/f1")).unwrap())),
        (
            "renamed",
            Box::new(|| fs::rename(path("d0/e/f2"), path("d0/e/g2")).unwrap()),
        ),
        (
            "moved",
            Box::new(|| fs::rename(path("d0/e/f3"), path("d1/e/g3")).unwrap()),
        ),
        (
            "dir moved",
            Box::new(|| fs::rename(path("d3/e"), path("d4/moved")).unwrap()),
        ),
        (
            "dir moved back",
            Box::new(|| fs::rename(path("d4/moved"), path("d3/e")).unwrap()),
        ),
        (
            "swapped",
            Box::new(|| {
                fs::rename(path("d5"), path("t")).unwrap();
                fs::rename(path("d6"), path("d5")).unwrap();
                fs::rename(path("t"), path("d6")).unwrap();
            }),
        ),
        ("dir removed", Box::new(|| fs::remove_dir_all(path("d7")).unwrap())),
        (
            "mode",
            Box::new(|| fs::set_permissions(path("d8/e"), PermissionsExt::from_mode(0o700)).unwrap()),
        ),
        (
            "link",
            Box::new(|| fs::hard_link(path("d8/e/f1"), path("d9/second")).unwrap()),
        ),
        ("unlink", Box::new(|| fs::remove_file(path("d9/second")).unwrap())),
        (
            "linked",
            Box::new(|| fs::write(path("d2/linked"), "by its other name").unwrap()),
        ),
        ("symlink", Box::new(|| symlink("d8/e", path("d0/link")).unwrap())),
        (
            "xattr",
            Box::new(|| {
                rustix::fs::setxattr(path("d8/e/f4"), "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
            }),
        ),
        (
            "dir xattr",
            Box::new(|| {
                rustix::fs::setxattr(path("d8"), "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
            }),
        ),
        (
            "clone",
            Box::new(|| {
                let (from, to) = (path("d9/big"), path("d1/e/clone"));
                command(
                    "cp",
                    &["--reflink=always", from.to_str().unwrap(), to.to_str().unwrap()],
                );
            }),
        ),
        (
            "attributes",
            Box::new(|| command("chattr", &["+A", path("d9/big").to_str().unwrap()])),
        ),
        (
            "nested",
            Box::new(|| {
                disk.subvolume("src/d9/nested");
                fs::write(path("d9/nested/x"), "x").unwrap();
            }),
        ),
        ("in nested", Box::new(|| fs::write(path("d9/nested/x"), "y").unwrap())),
        ("nothing again", Box::new(|| {})),
    ];
    for (what, change) in changes {
        change();
        let report = run(&world);
        assert!(report.spared.files > 40, "{what}: {:?}", report.spared);
        assert!(
            report.counts.new + report.counts.changed < 25,
            "{what}: {:?}",
            report.counts
        );
    }
    assert_eq!(disk.left_over(), 0);
}

/// A directory that changes while it is not part of the source must not be taken for what it was.
#[test]
fn what_changed_elsewhere_is_not_taken_over() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    run(&world);
    fs::rename(world.path("d1"), disk.path("outside")).unwrap();
    fs::write(disk.path("outside/e/f1"), "changed outside").unwrap();
    run(&world);
    fs::rename(disk.path("outside"), world.path("d1")).unwrap();
    let report = run(&world);
    assert_eq!(
        world.content(&world.table(&report)[b"d1/e/f1".as_slice()]),
        b"changed outside"
    );
    // Excluded for a run, and changed before it.
    let mut builder = FiltersBuilder::default();
    builder.exclude("d2/").unwrap();
    let without = BackupOptions {
        filters: builder.build().unwrap(),
        ..world.options()
    };
    fs::write(world.path("d2/e/f1"), "changed while excluded").unwrap();
    let report = run_as(&world, &without);
    assert_eq!(why(&report).len(), 1);
    let report = run(&world);
    assert_eq!(
        world.content(&world.table(&report)[b"d2/e/f1".as_slice()]),
        b"changed while excluded"
    );
}

#[test]
fn what_is_mounted_or_nested_below_is_read_where_it_is() {
    let Some((mut disk, world)) = on_disk() else { return };
    fill(&world);
    disk.subvolume("src/d1/nested");
    disk.subvolume("src/d1/nested/deeper");
    world.write("d1/nested/x", "in a nested one");
    world.write("d1/nested/deeper/x", "in a deeper one");
    world.write("d2/on/hidden", "below the mount");
    run(&world);
    disk.mount_on(&["-t", "tmpfs", "none"], &world.path("d2/on"));
    world.write("d2/on/seen", "mounted");
    let report = run(&world);
    assert!(world.names(&report).contains(&"d2/on/seen".to_owned()));
    assert!(report.spared.files >= 80, "{:?}", report.spared);
    world.write("d2/on/seen", "changed where no snapshot reaches");
    world.write("d1/nested/deeper/x", "changed deep below");
    run(&world);
    let stay = BackupOptions {
        one_file_system: OneFileSystem::Stay,
        ..world.options()
    };
    run_as(&world, &stay);
    let report = run_as(&world, &stay);
    assert!(!world.names(&report).contains(&"d2/on/seen".to_owned()));
    disk.unmount();
    let report = run(&world);
    assert!(world.names(&report).contains(&"d2/on/hidden".to_owned()));
    // A file that is mounted on a file.
    world.write("plain", "below");
    fs::write(disk.path("over"), "above").unwrap();
    run(&world);
    let over = disk.path("over");
    disk.mount_on(&["--bind", over.to_str().unwrap()], &world.path("plain"));
    let report = run(&world);
    assert_eq!(world.content(&world.table(&report)[b"plain".as_slice()]), b"above");
    assert_eq!(disk.left_over(), 0);
}

#[test]
fn sources_may_overlap_and_be_reached_through_links() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    symlink(disk.path("src"), disk.path("way")).unwrap();
    symlink("../d5", world.path("d4/across")).unwrap();
    let mut builder = FiltersBuilder::default();
    builder.exclude("d4/").unwrap();
    let options = BackupOptions {
        sources: vec![
            world.path(""),
            disk.path("way/d1"),
            world.path("d2/e"),
            world.path("d4/across/e"),
        ],
        filters: builder.build().unwrap(),
        ..world.options()
    };
    run_as(&world, &options);
    let second = run_as(&world, &options);
    assert!(second.spared.files >= 80, "{:?}", second.spared);
    world.write("d1/e/f1", "changed");
    world.write("d2/e/f1", "changed");
    world.write("d5/e/f1", "changed");
    run_as(&world, &options);
}

#[test]
fn what_cannot_be_trusted_is_looked_at_with_a_word() {
    let Some((mut disk, mut world)) = on_disk() else { return };
    disk.subvolume("src/v");
    world.write("v/x", "1");
    fill(&world);
    run(&world);
    assert!(run(&world).spared.files > 0);
    // Other options.
    let stay = BackupOptions {
        one_file_system: OneFileSystem::Stay,
        ..world.options()
    };
    assert!(why(&run_as(&world, &stay))[0].contains("other options"));
    assert!(run_as(&world, &stay).spared.files > 0);
    run(&world);
    // A subvolume that was made anew under the same name.
    command(
        "btrfs",
        &["-q", "subvolume", "delete", world.path("v").to_str().unwrap()],
    );
    disk.subvolume("src/v");
    world.write("v/x", "2");
    let report = run(&world);
    assert!(why(&report)[0].contains("was not there"), "{:?}", report.distrust);
    assert!(report.spared.files >= 100);
    // The vault lost something.
    let names = world.store.contents().into_keys();
    let packs = names.filter(|name| matches!(name.kind(), drystone_store::Kind::Pack(_)));
    for pack in packs {
        runtime().block_on(world.store.delete(&pack)).unwrap();
    }
    world.reopen();
    let report = backup(&world.vault, &world.options()).unwrap();
    assert!(why(&report)[0].contains("has lost"), "{:?}", report.distrust);
    assert_eq!(report.spared.files, 0);
    assert!(run(&world).spared.files > 0);
    // The file system as it was before: a copy of an older state, which has gone on since.
    disk.unmount();
    let old = disk.image().with_extension("old");
    fs::copy(disk.image(), &old).unwrap();
    disk.mount("mount", "loop");
    run(&world);
    disk.unmount();
    fs::rename(&old, disk.image()).unwrap();
    disk.mount("mount", "loop");
    world.write("d1/e/f1", "in the older state");
    for round in 0..40 {
        world.write("d1/e/f2", format!("{round}"));
        command("sync", &["-f", world.path("").to_str().unwrap()]);
    }
    let report = run(&world);
    assert!(why(&report)[0].contains("set back"), "{:?}", report.distrust);
    assert!(run(&world).spared.files > 0);
}

#[test]
fn what_cannot_be_read_is_tried_again() {
    let Some((_disk, world)) = on_disk() else { return };
    fill(&world);
    // An entry that cannot be kept makes its directory one that is looked at again.
    let path = world.path("d3/e/f3");
    for number in 0..100 {
        let name = format!("user.{number}");
        rustix::fs::setxattr(&path, &*name, &vec![7; 12_000], rustix::fs::XattrFlags::empty()).unwrap();
    }
    for _ in 0..2 {
        let report = backup(&world.vault, &world.options()).unwrap();
        assert_eq!(report.problems.count(), 1, "{:?}", report.problems);
    }
    for number in 0..100 {
        rustix::fs::removexattr(&path, &*format!("user.{number}")).unwrap();
    }
    run(&world);
    assert_eq!(run(&world).counts.unchanged, 100);
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    run(&world);
    let left: PathBuf = disk.path(".drystone-backup/left");
    let source = disk.path("");
    command(
        "btrfs",
        &[
            "-q",
            "subvolume",
            "snapshot",
            "-r",
            source.to_str().unwrap(),
            left.to_str().unwrap(),
        ],
    );
    assert_eq!(disk.left_over(), 1);
    run(&world);
    assert_eq!(disk.left_over(), 0);
}

/// The snapshot's own device number is in nothing that is stored, and a new one of the subvolume is noticed.
#[test]
fn device_numbers_are_those_of_the_subvolume() {
    let Some((mut disk, world)) = on_disk() else { return };
    fill(&world);
    fs::hard_link(world.path("d1/e/f1"), world.path("d2/linked")).unwrap();
    let device = fs::metadata(world.path("")).unwrap().dev();
    let report = run(&world);
    let entry = &world.table(&report)[b"d2/linked".as_slice()];
    assert_eq!(entry.hard_link.unwrap().0, device);
    // Another file system takes the number while this one is away.
    disk.unmount();
    let other = tempfile::tempdir().unwrap();
    disk.mount_on(&["-t", "tmpfs", "none"], other.path());
    disk.mount("mount", "loop");
    let report = run(&world);
    assert!(report.spared.files >= 70, "{:?}", report.spared);
}

#[test]
fn what_gc_removed_is_stored_again() {
    let Some((_disk, world)) = on_disk() else { return };
    fill(&world);
    run(&world);
    let all = world.vault.snapshot_ids().unwrap();
    world.vault.forget(&all).unwrap();
    let report = world.vault.gc(&drystone_vault::GcOptions::default()).unwrap();
    assert!(report.deleted_packs > 0, "{report:?}");
    let report = run(&world);
    assert!(why(&report)[0].contains("removed something"), "{:?}", report.distrust);
    assert_eq!(world.content(&world.table(&report)[b"d1/e/f1".as_slice()]), b"1 1");
    assert_eq!(run(&world).spared.files, 100);
}

#[test]
fn of_two_runs_at_once_nothing_false_is_kept() {
    let Some((disk, world)) = on_disk() else { return };
    fill(&world);
    run(&world);
    for round in 0..6 {
        world.write(&format!("d{round}/e/f1"), format!("before {round}"));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_clean(&backup(&world.vault, &world.options()).unwrap()));
            }
            world.write(&format!("d{round}/e/f2"), format!("meanwhile {round}"));
            fs::rename(
                world.path(format!("d{round}/e/f3")),
                world.path(format!("d9/e/g{round}")),
            )
            .unwrap();
        });
        run(&world);
    }
    assert!(run(&world).spared.files >= 100);
    assert_eq!(disk.left_over(), 0);
}
