//! What a run takes over from the one before: nothing that is not still true, and not more than is still stored.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drystone_backup::{BackupOptions, Parent, backup};
use drystone_format::keys::Role;
use drystone_store::Kind;
use drystone_store::Store;
use drystone_vault::{CheckOptions, NewLock, NewSlot, Unlock, Vault, generate_key_file};
use proptest::prelude::*;

use crate::backup_world::{ABOVE_BYTES, World, assert_clean};
use crate::vaults::{noise, runtime};

fn counts(world: &World) -> (u64, u64, u64) {
    let counts = world.backup().counts;
    (counts.new, counts.changed, counts.unchanged)
}

#[test]
fn only_what_looks_different_is_read() {
    let world = World::new();
    for name in ["a", "b", "d/c", "d/e/f"] {
        world.write(name, name);
    }
    assert_eq!(counts(&world), (4, 0, 0));
    assert_eq!(counts(&world), (0, 0, 4));
    world.write("d/c", "other");
    world.write("d/g", "new");
    fs::remove_file(world.path("b")).unwrap();
    assert_eq!(counts(&world), (1, 1, 2));
    assert_eq!(counts(&world), (0, 0, 4));
    // Same size, and the mtime is put back: the ctime tells.
    let mtime = fs::metadata(world.path("a")).unwrap().modified().unwrap();
    let ctime = fs::metadata(world.path("a")).unwrap().ctime_nsec();
    while fs::metadata(world.path("a")).unwrap().ctime_nsec() == ctime {
        fs::write(world.path("a"), "z").unwrap();
    }
    fs::File::open(world.path("a")).unwrap().set_modified(mtime).unwrap();
    let report = world.backup();
    assert_eq!(report.counts.changed, 1);
    assert_eq!(world.content(&world.table(&report)[b"a".as_slice()]), b"z");
    // A file moved over another one, and a directory where a file was.
    fs::rename(world.path("a"), world.path("d/c")).unwrap();
    fs::remove_file(world.path("d/g")).unwrap();
    world.write("d/g/h", "below");
    let report = world.backup();
    let table = world.table(&report);
    assert_eq!(world.content(&table[b"d/c".as_slice()]), b"z");
    assert_eq!(world.content(&table[b"d/g/h".as_slice()]), b"below");
    assert_eq!(counts(&world), (0, 0, 3));
}

#[test]
fn what_changed_just_now_is_read_again() {
    let world = World::new();
    world.write("fresh", "1");
    world.set_ahead(0);
    assert_eq!(counts(&world), (1, 0, 0));
    assert_eq!(counts(&world), (1, 0, 0));
    world.set_ahead(10);
    assert_eq!(counts(&world), (1, 0, 0));
    assert_eq!(counts(&world), (0, 0, 1));
}

#[test]
fn a_rescan_reads_everything_and_renews_the_cache() {
    let world = World::new();
    for name in ["a", "b/c", "b/d"] {
        world.write(name, name);
    }
    let first = world.backup();
    let options = BackupOptions {
        parent: Parent::Rescan,
        ..world.options()
    };
    let rescan = backup(&world.vault, &options).unwrap();
    assert_eq!(rescan.counts.new, 3);
    assert!(rescan.totals.new_bytes < ABOVE_BYTES);
    assert_eq!(world.tree(&rescan), world.tree(&first));
    assert_eq!(counts(&world), (0, 0, 3));
}

#[test]
fn what_the_vault_has_lost_is_read_and_stored_again() {
    let mut world = World::new();
    for number in 0..20 {
        world.write(&format!("d{}/f{number}", number % 4), noise(number, 3000));
    }
    world.write("long", noise(99, 600_000));
    let first = world.backup();
    let kept = world.table(&first);
    world.write("d0/added", noise(77, 3000));
    world.backup();
    // Everything of the first run is lost, of the second nothing.
    let after: Vec<_> = world
        .store
        .contents()
        .into_keys()
        .filter(|name| matches!(name.kind(), Kind::Pack(_)))
        .collect();
    let lost = after
        .iter()
        .max_by_key(|name| world.store.contents()[*name].len())
        .unwrap();
    runtime().block_on(world.store.delete(lost)).unwrap();
    world.reopen();
    let report = world.backup();
    assert_eq!(report.counts.new + report.counts.changed, 21, "{:?}", report.counts);
    assert_eq!(report.counts.unchanged, 1);
    let table = world.table(&report);
    for (path, entry) in kept
        .iter()
        .filter(|(_, entry)| !matches!(entry.kind, drystone_format::tree::Kind::Dir(_)))
    {
        assert_eq!(&table[path], entry);
        world.content(&table[path]);
    }
    // What was checked need not be checked again, nor read.
    assert_eq!(counts(&world), (0, 0, 22));
}

#[test]
fn a_cache_that_is_lost_or_damaged_costs_time_only() {
    let mut world = World::new();
    world.write("a/b", "b");
    let first = world.backup();
    let dir = world.context.cache_dir.join(world.vault.id().to_string());
    let own = || world.vault.door_dir("backup").unwrap().join("cache.sqlite");
    for file in [own(), dir.join("state.sqlite")] {
        assert_eq!(counts(&world), (0, 0, 1));
        assert!(file.exists());
        fs::write(&file, noise(1, 20_000)).unwrap();
        let _ = fs::remove_file(beside(&file, "-wal"));
        world.reopen();
        let second = world.backup();
        assert_eq!(world.tree(&second), world.tree(&first));
        assert_eq!(second.counts.new, 1, "{file:?}");
    }
    fs::remove_dir_all(&dir).unwrap();
    world.reopen();
    let third = world.backup();
    assert_eq!(world.tree(&third), world.tree(&first));
    assert!(third.totals.new_bytes < ABOVE_BYTES);
    assert_eq!(counts(&world), (0, 0, 1));
}

#[test]
fn a_writer_key_backs_up_and_caches() {
    let mut world = World::new();
    for number in 0..20 {
        world.write(&format!("d{}/f{number}", number % 4), noise(number, 3000));
    }
    world.backup();
    let key = generate_key_file();
    let slot = NewSlot {
        lock: NewLock::Recipient(key.recipient),
        label: "writer".to_owned(),
        role: Role::Writer,
    };
    world.vault.add_key(&slot).unwrap();
    let unlock = Unlock::key_file(&key.content, "writer", None).unwrap();
    let writer = Vault::open(world.store.clone(), world.context.clone(), &unlock).unwrap();
    world.write("d1/f1", "changed");
    let report = backup(&writer, &world.options()).unwrap();
    assert_clean(&report);
    assert_eq!((report.counts.changed, report.counts.unchanged), (1, 19));
    assert!(report.totals.new_bytes < 20_000, "{:?}", report.totals);
    let again = backup(&writer, &world.options()).unwrap();
    assert_eq!(again.counts.unchanged, 20);
    drop(writer);
    world.reopen();
    assert_eq!(world.content(&world.table(&again)[b"d1/f1".as_slice()]), b"changed");
}

/// A change of a tree.
#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u16),
    Append(u8),
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
    Chmod(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<u8>(), 0u16..9000).prop_map(|(name, bytes)| Edit::Write(name, bytes)),
        2 => any::<u8>().prop_map(Edit::Append),
        2 => any::<u8>().prop_map(Edit::Remove),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Link(from, to)),
        1 => any::<u8>().prop_map(Edit::Chmod),
    ]
}

fn apply(world: &World, edit: &Edit) {
    let name = |number: u8| format!("d{}/e{}/f{}", number % 3, number / 3 % 2, number % 23);
    // Most of them fail where there is no such file; what matters is that both runs see the same.
    match *edit {
        Edit::Write(number, bytes) => world.write(&name(number), noise(u64::from(bytes), usize::from(bytes))),
        Edit::Append(number) => {
            let mut bytes = fs::read(world.path(name(number))).unwrap_or_default();
            bytes.extend_from_slice(b"appended");
            world.write(&name(number), bytes);
        }
        Edit::Remove(number) => {
            let _ = fs::remove_file(world.path(name(number)));
            let _ = fs::remove_dir(world.path(format!("d{}/e{}", number % 3, number / 3 % 2)));
        }
        Edit::Rename(from, to) => drop(fs::rename(world.path(name(from)), world.path(name(to)))),
        Edit::Link(from, to) => drop(fs::hard_link(world.path(name(from)), world.path(name(to)))),
        Edit::Chmod(number) => {
            use std::os::unix::fs::PermissionsExt;
            let mode = 0o400 | u32::from(number);
            let _ = fs::set_permissions(world.path(name(number)), fs::Permissions::from_mode(mode));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn cached_runs_give_the_very_trees_of_full_ones(runs in proptest::collection::vec(proptest::collection::vec(edit(), 0..12), 1..5)) {
        let world = World::new();
        for edits in &runs {
            edits.iter().for_each(|edit| apply(&world, edit));
            let cached = world.backup();
            let rescan = BackupOptions { parent: Parent::Rescan, host: "another".to_owned(), ..world.options() };
            let rescan = backup(&world.vault, &rescan).unwrap();
            prop_assert_eq!(world.tree(&cached), world.tree(&rescan));
            prop_assert!(rescan.totals.new_bytes < ABOVE_BYTES);
        }
    }
}

#[test]
fn a_loss_is_noticed_though_the_index_was_lost_too() {
    let mut world = World::new();
    world.write("a/b", noise(1, 50_000));
    world.backup();
    let dir = world.context.cache_dir.join(world.vault.id().to_string());
    fs::remove_dir_all(dir.join("index")).unwrap();
    let packs = world.store.contents().into_keys();
    for pack in packs.filter(|name| matches!(name.kind(), Kind::Pack(_))) {
        runtime().block_on(world.store.delete(&pack)).unwrap();
    }
    world.reopen();
    let report = world.backup();
    assert_eq!(
        world.content(&world.table(&report)[b"a/b".as_slice()]),
        noise(1, 50_000)
    );
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Every pack is lost.
fn lose_packs(world: &World) {
    let packs = world.store.contents().into_keys();
    for pack in packs.filter(|name| matches!(name.kind(), Kind::Pack(_))) {
        runtime().block_on(world.store.delete(&pack)).unwrap();
    }
}

/// What a machine keeps of a vault lies in several files. Whichever of them are lost, what the others say must not make a backup rely on chunks
/// that are gone: the loss epoch of a state that was begun anew counts up to numbers that were there before.
#[test]
fn what_the_file_cache_says_counts_for_nothing_without_the_state_that_it_belongs_to() {
    let removals: [&[&str]; 5] = [
        &["state.sqlite"],
        &["state.sqlite", "index"],
        &["doors"],
        &["doors", "index"],
        &[],
    ];
    for (removed, losses) in removals
        .into_iter()
        .flat_map(|removed| [(removed, 0), (removed, 1), (removed, 2)])
    {
        let case = format!("{removed:?} after {losses} losses");
        let mut world = World::new();
        for number in 0..6 {
            world.write(&format!("d{}/f{number}", number % 2), noise(number, 3000));
        }
        world.backup();
        for _ in 0..losses {
            lose_packs(&world);
            world.reopen();
            assert_eq!(counts(&world), (0, 6, 0), "{case}");
        }
        let dir = world.context.cache_dir.join(world.vault.id().to_string());
        for name in removed {
            match name.ends_with("sqlite") {
                true => ["", "-wal", "-shm"]
                    .iter()
                    .for_each(|end| fs::remove_file(beside(&dir.join(name), end)).unwrap()),
                false => fs::remove_dir_all(dir.join(name)).unwrap(),
            }
        }
        lose_packs(&world);
        world.reopen();
        world.vault.forget(&world.vault.snapshot_ids().unwrap()).unwrap();
        let report = world.backup();
        assert_eq!(report.counts.unchanged, 0, "{case}");
        let check = world.vault.check(&CheckOptions::default()).unwrap();
        assert_eq!(check.problems.count(), 0, "{case}");
        let table = world.table(&report);
        for number in 0..6 {
            let path = format!("d{}/f{number}", number % 2);
            assert!(world.content(&table[path.as_bytes()]) == noise(number, 3000), "{case}");
        }
    }
}
