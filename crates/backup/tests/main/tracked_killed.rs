//! Runs that are killed while they write down what they saw: the next one is right, and says when it has to look at everything.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drystone_backup::backup;

use crate::backup_world::{World, assert_clean};
use crate::disk::Disk;
use crate::tracked::{on_disk, run, run_as, why};
use crate::vaults::noise;

const DIRS: u64 = 600;
const KILLS: u32 = 16;
/// So many if none was in time: on a busy machine the killer may sleep while the run writes all of it.
const KILLS_MAX: u32 = 10 * KILLS;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test of its own: what the next one kills.
#[test]
#[ignore = "is run by a test that kills it"]
fn a_run_to_be_killed() {
    let home = std::env::var_os("DRYSTONE_TEST_HOME").unwrap();
    let source = std::env::var_os("DRYSTONE_TEST_SOURCE").unwrap();
    let mut world = World::over(source.into());
    world.reopen_at(home.as_ref());
    assert_clean(&backup(&world.vault, &world.options()).unwrap());
}

/// The process of a run, which ends with this.
struct Run(Child);

impl Run {
    fn start(world: &World, home: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "tracked_killed::a_run_to_be_killed"])
            .env("DRYSTONE_TEST_HOME", home)
            .env("DRYSTONE_TEST_SOURCE", world.dir())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits until the run has published its snapshot.
    fn published(&mut self, home: &Path, before: usize) {
        let begun = Instant::now();
        while snapshots(home) == before {
            assert!(self.0.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Snapshots in the vault on disk.
fn snapshots(home: &Path) -> usize {
    let names = fs::read_dir(home.join("vault/roots/snapshot"));
    let is_whole = |name: &fs::DirEntry| !name.file_name().to_string_lossy().contains('.');
    names.map_or(0, |names| names.flatten().filter(is_whole).count())
}

/// Changes something in every directory, and the large file.
fn change(world: &World, round: u64) {
    for dir in 0..DIRS {
        world.write(&format!("d{dir}/f{}", round % 3), format!("{dir} {round}"));
    }
    let mut large = noise(1, 9 << 20);
    large[round as usize * 100_000] ^= 0xff;
    world.write("large", large);
}

#[test]
fn the_run_after_a_killed_one_is_right_and_says_that_it_looks() {
    let Some((disk, mut world)) = on_disk() else { return };
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    world.move_to(home);
    change(&world, 0);
    run(&world);
    // How long the writing down takes, of a run that nobody kills.
    change(&world, 1);
    let before = snapshots(home);
    let mut whole = Run::start(&world, home);
    whole.published(home, before);
    let begun = Instant::now();
    assert!(whole.0.wait().unwrap().success());
    let takes = begun.elapsed();
    let (mut torn, mut kept) = (0, 0);
    for kill in 0..KILLS_MAX {
        if kill >= KILLS && torn > 0 {
            break;
        }
        change(&world, u64::from(kill) + 2);
        let before = snapshots(home);
        let mut killed = Run::start(&world, home);
        killed.published(home, before);
        let begun = Instant::now();
        while begun.elapsed() < takes * (kill % KILLS) / KILLS {
            std::hint::spin_loop();
        }
        drop(killed);
        if kill % 4 == 1 {
            // The next one is killed too.
            continue;
        }
        world.reopen_at(home);
        let report = run_as(&world, &world.options());
        if why(&report).is_empty() {
            kept += 1;
        } else {
            assert!(
                why(&report)[0].contains("was killed while it did"),
                "{:?}",
                report.distrust
            );
            assert_eq!((report.spared.files, report.spared.unread_bytes), (0, 0));
            torn += 1;
        }
        check(&disk, &world);
    }
    assert!(torn > 0, "no kill was in time: {kept} of {KILLS_MAX} runs asked");
}

/// What was kept is whole again.
fn check(disk: &Disk, world: &World) {
    let report = run(world);
    assert_eq!((why(&report), report.spared.files), (Vec::new(), 3 * DIRS + 1));
    assert_eq!(disk.left_over(), 0);
}
