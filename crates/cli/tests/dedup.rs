//! `dedup`: what it prints and how it ends, on a Btrfs file system in a file (which takes root), and where there is none.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::runner::{Home, noise};

/// A mounted Btrfs file system, taken down at the end.
struct Mounted {
    mount: PathBuf,
}

impl Mounted {
    /// `None`, with a word, where nothing can be mounted; where continuous integration says that it can, it must.
    fn new(home: &Home) -> Option<Self> {
        let may = rustix::process::geteuid().is_root()
            && Path::new("/dev/loop-control").exists()
            && Command::new("mkfs.btrfs")
                .arg("-V")
                .stdout(Stdio::null())
                .status()
                .is_ok();
        assert!(
            may || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "the tests of dedup need root and mkfs.btrfs"
        );
        if !may {
            eprintln!("LEFT OUT: a Btrfs file system: needs root, loop devices and mkfs.btrfs");
            return None;
        }
        let (image, mount) = (home.path("image"), home.path("mount"));
        File::create(&image).unwrap().set_len(300 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        for (program, arguments) in [
            ("mkfs.btrfs", vec!["-q".into(), image.clone()]),
            ("mount", vec!["-oloop".into(), image, mount.clone()]),
        ] {
            assert!(
                Command::new(program)
                    .args(&arguments)
                    .stderr(Stdio::null())
                    .status()
                    .unwrap()
                    .success(),
                "{program}"
            );
        }
        Some(Self { mount })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A failed test may leave it busy; the kernel takes it down then with its last user.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

#[test]
fn duplicates_go_and_what_was_done_is_known() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    let bytes = noise(3 << 20);
    for name in ["mount/one", "mount/two"] {
        home.write(name, &bytes);
    }
    let place = disk.mount.to_str().unwrap();
    let estimate = home
        .run(["dedup", "estimate", place, "--flush", "--json"])
        .ok()
        .object();
    assert_eq!(
        (&estimate["predicted_bytes"], &estimate["freed_bytes"]),
        (&(3 << 20).into(), &serde_json::Value::Null)
    );
    assert_eq!(
        home.run(["dedup", "show", "--json"]).ok().object()["last"],
        serde_json::Value::Null
    );
    let run = home.run(["dedup", place, "--json"]).ok().object();
    assert_eq!(
        (&run["freed_bytes"], &run["complete"], &run["exit"]),
        (&(3 << 20).into(), &true.into(), &"ok".into())
    );
    let shown = home.run(["dedup", "show", "--json"]).ok().object();
    assert_eq!(shown["last"]["freed_bytes"], 3 << 20);
    assert!(home.run(["dedup", "run", place]).ok().out().contains("nothing new"));
    assert!(
        home.run(["dedup", "reset", place])
            .ok()
            .out()
            .contains("reset 1 file system")
    );
    assert!(home.run(["dedup", "scan", place]).ok().out().contains("3.15 MB"));
    assert!(home.run(["dedup", place]).ok().out().contains("freed 0 B"));
    let uuid = shown["uuid"].as_str().unwrap();
    assert!(home.run(["dedup", uuid]).ok().out().contains("nothing new"));
    home.run(["dedup", "forget-fs", uuid]).ok();
    home.run(["dedup", "forget-fs", uuid])
        .code(1)
        .says(&["no such file system", "dedup show"]);
    for name in ["mount/one", "mount/two"] {
        assert!(home.read(name) == bytes);
    }
}

#[test]
fn questions_are_answered_from_the_file_system() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    let place = disk.mount.to_str().unwrap();
    home.write("mount/old", &noise(5000));
    let generation = home.run(["dedup", "generation", "--flush", place]).ok().out();
    let next = (generation.trim().parse::<u64>().unwrap() + 1).to_string();
    home.write("mount/dir/new", &noise(70_000));
    home.run(["dedup", "generation", "--flush", place]).ok();
    let found = home.run(["dedup", "find-new", place, &next, "--json"]).ok().json();
    let new = found.iter().find(|line| line["path"] == "dir/new").unwrap();
    assert_eq!((&new["size"], &new["written_bytes"]), (&70_000.into(), &73_728.into()));
    assert!(found.iter().all(|line| line["path"] != "old"));
    assert!(
        home.run(["dedup", "find-new", "-0", place, &next])
            .ok()
            .out()
            .contains("dir/new\0")
    );
    assert_eq!(
        home.run(["dedup", "size-lookup", "70000", place]).ok().out(),
        "/dir/new\n"
    );
}

#[test]
fn a_watch_runs_until_it_is_stopped() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    for name in ["mount/one", "mount/two"] {
        home.write(name, &noise(1 << 20));
    }
    let arguments = [
        "dedup",
        "watch",
        "--flush",
        "--every",
        "1h",
        "--json",
        disk.mount.to_str().unwrap(),
    ];
    let mut child = Killed(home.command(arguments).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(crate::runner::json_lines(&line)[0]["freed_bytes"], 1 << 20);
    let process = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn named_files_are_shared_if_they_are_equal() {
    let home = Home::new();
    let Some(_disk) = Mounted::new(&home) else { return };
    let bytes = noise(100_000);
    for name in ["one", "two", "other"] {
        home.write(&format!("mount/{name}"), &bytes);
    }
    home.write("mount/other", &noise(99_000));
    let run = home
        .run([
            "dedup",
            "files",
            "mount/one",
            "mount/two",
            "mount/other",
            "mount/none",
            "--json",
        ])
        .code(3)
        .json();
    let outcomes: Vec<_> = run.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["shared", "differs", "failed"]);
    assert_eq!(run[0]["shared_bytes"], 102_400);
    home.run(["dedup", "files", "--defrag", "mount/one", "mount/two"]).ok();
}

#[test]
fn what_cannot_be_done_is_said() {
    let home = Home::new();
    home.run(["dedup", "/no/such/place"])
        .code(1)
        .says(&["/no/such/place", "no such"]);
    home.run(["dedup", "/proc"]).code(1).says(&["/proc", "Btrfs and XFS"]);
    home.run(["dedup", "estimate", "01234567-89ab-cdef-0123-456789abcdef"])
        .code(1)
        .says(&["UUID"]);
    home.run(["dedup", "reset"]).code(2).says(&["named"]);
    home.run(["dedup", "generation", "/proc"]).code(1).says(&["/proc"]);
    home.run(["dedup", "--max-time", "soon"])
        .code(2)
        .says(&["90s, 15m or 2h"]);
    home.write("state", &noise(10_000));
    home.run(["dedup", "show", "--state", "state"])
        .code(1)
        .says(&["state", "--state"]);
    assert!(home.read("state") == noise(10_000));
}
