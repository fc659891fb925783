//! A place without room: what fails says so, and what frees space still works.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use crate::image::{command, let_go, may_mount};
use crate::runner::{Home, noise};

/// A small file system of its own, in memory.
struct Disk(PathBuf);

impl Disk {
    fn new(home: &Home, name: &str, options: &str) -> Self {
        let path = home.path(name);
        fs::create_dir(&path).unwrap();
        command("mount", &["-t", "tmpfs", "-o", options, "none", path.to_str().unwrap()]);
        Self(path)
    }

    /// Fills it to the last byte, as another program would.
    fn fill(&self) {
        let mut other = File::create(self.0.join("other")).unwrap();
        while other.write_all(&[7; 4096]).is_ok() {}
    }

    fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bavail * found.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let_go(&self.0);
    }
}

#[test]
fn a_full_disk_is_told_by_the_doctor_and_emptied_by_forget_and_gc() {
    if !may_mount("full disks", &[]) {
        return;
    }
    let home = Home::new();
    let disk = Disk::new(&home, "disk", "size=12m");
    let vault = [("DRYSTONE_VAULT", "disk/vault")];
    home.run_with(["init", "--vault", "disk/vault"], &[]).ok();
    home.write("src/old", &noise(2_000_000));
    home.run_with(["backup", "src"], &vault).ok();
    fs::remove_file(home.path("src/old")).unwrap();
    home.write("src/new", &noise(3_000_000)[2_000_000..]);
    home.run_with(["backup", "src"], &vault).ok();
    disk.fill();
    assert_eq!(disk.free_bytes(), 0);
    let found = home.run_with(["doctor"], &vault).code(3);
    assert!(found.out().contains("disk/vault: no space is left"), "{}", found.out());
    home.write("src/newer", &noise(4_000_000)[3_000_000..]);
    home.run_with(["backup", "src"], &vault)
        .code(1)
        .says(&["no space is left"]);
    home.run_with(["forget", "--keep-last", "1"], &vault).ok();
    home.run_with(["gc"], &vault).ok();
    assert!(disk.free_bytes() > 1_000_000);
    home.run_with(["backup", "src"], &vault).ok();
    home.run_with(["check"], &vault).ok();
    home.run_with(["doctor"], &vault).ok();
}

#[test]
fn one_full_disk_of_three_keeps_gc_from_nothing() {
    if !may_mount("full disks", &[]) {
        return;
    }
    let home = Home::new();
    let disk = Disk::new(&home, "disk", "size=12m");
    let vault = [("DRYSTONE_VAULT", "a,b,disk/vault")];
    let init = [
        "init",
        "--spread",
        "2/3",
        "--place",
        "a",
        "--place",
        "b",
        "--place",
        "disk/vault",
    ];
    home.run(init).ok();
    home.write("src/old", &noise(2_000_000));
    home.run_with(["backup", "src"], &vault).ok();
    home.write("src/old", &noise(4_000_000)[2_000_000..]);
    home.run_with(["backup", "src"], &vault).ok();
    disk.fill();
    let found = home.run_with(["doctor"], &vault).code(3);
    assert!(found.out().contains("disk/vault: no space is left"), "{}", found.out());
    // Two of three places have what is forgotten; the third is owed it.
    home.run_with(["forget", "--keep-last", "1"], &vault);
    home.run_with(["gc"], &vault);
    assert!(disk.free_bytes() > 500_000, "{}", disk.free_bytes());
    let repaired = home.run_with(["repair"], &vault).exit();
    assert!([0, 4].contains(&repaired), "{repaired}");
    home.run_with(["check"], &vault).ok();
    home.run_with(["doctor"], &vault).ok();
}

#[test]
fn a_place_that_takes_nothing_is_told_by_the_doctor() {
    if !may_mount("places that take nothing", &[]) {
        return;
    }
    let home = Home::new();
    let disk = Disk::new(&home, "disk", "size=12m");
    home.run(["init", "--vault", "disk/vault"]).ok();
    let path = disk.0.to_str().unwrap();
    command("mount", &["-o", "remount,ro", path]);
    let found = home.run(["--vault", "disk/vault", "doctor"]).code(3);
    assert!(found.out().contains("nothing can be stored"), "{}", found.out());
    command("mount", &["-o", "remount,rw", path]);
    home.run(["--vault", "disk/vault", "doctor"]).ok();
}
