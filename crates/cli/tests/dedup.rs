//! `dedup`: what it prints and how it ends, on Btrfs and XFS file systems in files (which takes root), and where there are none.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image::{self, command, let_go, may_mount};
use crate::runner::{Home, Ran, noise};

/// A mounted Btrfs file system, taken down at the end.
pub(crate) struct Mounted {
    pub(crate) mount: PathBuf,
}

impl Mounted {
    pub(crate) fn new(home: &Home) -> Option<Self> {
        Self::with(home, "mkfs.btrfs")
    }

    /// `None`, with a word, where nothing can be mounted; where continuous integration says that it can, it must.
    pub(crate) fn with(home: &Home, make: &str) -> Option<Self> {
        if !may_mount("a file system", &[make]) {
            return None;
        }
        let (image, mount) = (home.path("image"), home.path("mount"));
        image::make(&[make, "-q"], &image, 300 << 20);
        fs::create_dir(&mount).unwrap();
        command("mount", &["-oloop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        Some(Self { mount })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let_go(&self.mount);
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
    home.run(["dedup", "run", place, "--no-rewrite", "--size-cutoff", "9000"])
        .ok();
    let shown_text = home.run(["dedup", "show"]).ok().out();
    for scope in [": all\n", ": all, from 9000 bytes, without copies\n"] {
        assert!(shown_text.contains(scope), "{scope} is missing in\n{shown_text}");
    }
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
    let names = home.run(["dedup", "find-new", "-0", place, "0"]).ok().out();
    assert!(
        names.split_terminator('\0').all(|name| !name.is_empty()) && names.starts_with(".\0"),
        "{names:?}"
    );
    assert!(
        home.run(["dedup", "find-new", "-0", place, &next])
            .ok()
            .out()
            .contains("dir/new\0")
    );
    assert_eq!(
        home.run(["dedup", "size-lookup", "70000", place]).ok().out(),
        format!("{place}/dir/new\n")
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

#[test]
fn small_private_files_are_shared_within_each_owner_and_that_is_said() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    for (name, owner) in [("mount/pin", 0), ("mount/guess", NOBODY)] {
        home.write(name, &noise(40 << 10));
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        chown(home.path(name), Some(owner), None).unwrap();
    }
    let place = disk.mount.to_str().unwrap();
    let run = home.run(["dedup", place, "--flush"]).ok();
    assert!(run.out().contains("not shared between users"), "{}", run.out());
    let arguments = ["dedup", place, "--all", "--json", "--private-size-cutoff", "0"];
    assert_eq!(home.run(arguments).ok().object()["freed_bytes"], 40 << 10);
    let help = home.run(["dedup", "--help"]).ok().out();
    for said in ["--same-owner", "somebody has the same data", "--private-size-cutoff"] {
        assert!(help.contains(said), "{help}");
    }
}

#[test]
fn nothing_is_taken_that_nobody_named() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    for name in ["mount/one", "mount/two"] {
        home.write(name, &noise(1 << 20));
    }
    let place = disk.mount.to_str().unwrap();
    for verb in [
        vec!["dedup"],
        vec!["dedup", "run", "--max-time", "1h"],
        vec!["dedup", "watch"],
    ] {
        home.run(verb)
            .code(2)
            .says(&["no target is named", place, "--all-mounted"]);
    }
    home.run(["dedup", "--all-mounted", place]).code(2);
    // At a terminal it asks, and takes nothing if the answer is no.
    let binary = env!("CARGO_BIN_EXE_drystone");
    let mut asked = Command::new("script");
    asked.args(["-qec", &format!("{binary} dedup"), "/dev/null"]);
    asked
        .env_clear()
        .env("HOME", home.path("home"))
        .env("PATH", std::env::var_os("PATH").unwrap());
    let child = asked
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mut child) = child {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"n\n").unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(
            said.contains("[y/N]") && said.contains(place) && said.contains("nobody agreed"),
            "{said}"
        );
        assert_eq!(ended.status.code(), Some(1), "{said}");
    }
    // One that is missing is said, and the other treated.
    let run = home
        .run(["dedup", place, "/no/such/place", "--flush", "--json"])
        .code(1)
        .json();
    assert!(run.iter().any(|line| line["freed_bytes"] == 1 << 20), "{run:?}");
}

#[test]
fn a_file_that_refuses_is_named_by_each_run_until_it_does_not() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    for name in ["mount/one", "mount/two"] {
        home.write(name, &noise(1 << 20));
    }
    let place = disk.mount.to_str().unwrap();
    for name in ["one", "two"] {
        command("chattr", &["+i", disk.mount.join(name).to_str().unwrap()]);
    }
    for _ in 0..2 {
        let run = home.run(["dedup", place, "--json", "--flush"]).code(3).object();
        assert_eq!(
            (&run["complete"], &run["predicted_bytes"]),
            (&false.into(), &(1 << 20).into()),
            "{run}"
        );
        let path = run["problems"][0]["path"].as_str().unwrap();
        assert!(fs::metadata(path).is_ok(), "{path}");
    }
    for name in ["one", "two"] {
        command("chattr", &["-i", disk.mount.join(name).to_str().unwrap()]);
    }
    assert_eq!(
        home.run(["dedup", place, "--json"]).ok().object()["freed_bytes"],
        1 << 20
    );
    assert!(home.run(["dedup", place]).ok().out().contains("nothing new"));
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

/// Somebody who is not root.
const NOBODY: u32 = 65534;

/// Runs the binary as nobody, in a home that they may read and write.
fn as_nobody(home: &Home, args: &[&str]) -> Ran {
    let program = home.path("drystone");
    if !program.exists() {
        // Not by this process: a child of another test would hold it open for writing, and it could not be run.
        command("cp", &[env!("CARGO_BIN_EXE_drystone"), program.to_str().unwrap()]);
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        chown(home.path("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().env("HOME", home.path("home"));
    command.current_dir(home.path("")).stdin(Stdio::null());
    home.ran(command.uid(NOBODY).gid(NOBODY))
}

fn give_to_nobody(home: &Home, name: &str, mode: u32) {
    let path = home.path(name);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[test]
fn without_root_ones_own_files_are_shared() {
    for make in ["mkfs.btrfs", "mkfs.xfs"] {
        let home = Home::new();
        let Some(disk) = Mounted::with(&home, make) else { return };
        let bytes = noise(3 << 20);
        for (name, mode) in [("own/one", 0o644), ("own/two", 0o444), ("own/deep/three", 0o600)] {
            home.write(&format!("mount/{name}"), &bytes);
            give_to_nobody(&home, &format!("mount/{name}"), mode);
        }
        give_to_nobody(&home, "mount/own/deep", 0o755);
        give_to_nobody(&home, "mount/own", 0o755);
        home.write("mount/own/secret", &bytes);
        fs::set_permissions(home.path("mount/own/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let estimate = as_nobody(&home, &["dedup", "estimate", "mount/own", "--json"])
            .code(3)
            .object();
        assert_eq!(estimate["predicted_bytes"], 6 << 20, "{make}");
        let run = as_nobody(&home, &["dedup", "mount/own", "--json"]).code(3).object();
        assert_eq!(
            (&run["freed_bytes"], &run["complete"], &run["unreadable"]),
            (&(6 << 20).into(), &true.into(), &1.into()),
            "{make}"
        );
        assert!(
            run["problems"][0]["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("mount/own/secret")),
            "{run}"
        );
        let again = as_nobody(&home, &["dedup", "run", "mount/own"]).code(3);
        let said = "1 file could not be read";
        assert!(
            again.out().contains("nothing new") && again.out().contains(said),
            "{make}: {}",
            again.out()
        );
        home.write("mount/own/four", &bytes);
        give_to_nobody(&home, "mount/own/four", 0o644);
        let run = as_nobody(&home, &["dedup", "mount/own", "--json"]).code(3).object();
        assert_eq!(run["freed_bytes"], 3 << 20, "{make}");
        // Somebody else's, who lets it be read: the kernel does not let it be changed, in any way.
        fs::set_permissions(home.path("mount/own/secret"), fs::Permissions::from_mode(0o644)).unwrap();
        let run = as_nobody(&home, &["dedup", "mount/own", "--json"]).object();
        assert!(
            run["freed_bytes"].as_u64().is_some_and(|bytes| bytes == 0),
            "{make}: {run}"
        );
        assert_eq!(run["exit"], "incomplete", "{make}: {run}");
        for name in ["one", "two", "deep/three", "secret"] {
            assert!(home.read(&format!("mount/own/{name}")) == bytes, "{make}: {name}");
        }
        drop(disk);
    }
}

#[test]
fn what_takes_root_says_so() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    let place = disk.mount.to_str().unwrap();
    as_nobody(&home, &["dedup", "find-new", place]).code(1).says(&["root"]);
    let image = home.path("other");
    image::make(&["mkfs.btrfs", "-q"], &image, 200 << 20);
    let attached = Command::new("losetup")
        .args(["-f", "--show"])
        .arg(&image)
        .output()
        .unwrap();
    let device = Attached(String::from_utf8(attached.stdout).unwrap().trim().to_owned());
    as_nobody(&home, &["dedup", &device.0])
        .code(1)
        .says(&[&device.0, "only root may mount"]);
    // Root may: it is mounted for this run alone.
    assert!(home.run(["dedup", &device.0]).ok().out().contains(&device.0));
}

/// A loop device, given back at the end.
struct Attached(String);

impl Drop for Attached {
    fn drop(&mut self) {
        // A mount that goes with the last descriptor may still hold it; then it goes with that.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_read_only_file_system_and_a_foreign_state_are_told() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    let place = disk.mount.to_str().unwrap();
    let bytes = noise(1 << 20);
    for name in ["mount/one", "mount/two"] {
        home.write(name, &bytes);
    }
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", how]).arg(&disk.mount).status();
        assert!(done.unwrap().success(), "{how}");
    };
    remount("remount,ro");
    home.run(["dedup", place, "--json"]).code(1).says(&["ead-only"]);
    let estimate = home.run(["dedup", "estimate", place, "--json"]).ok().object();
    assert_eq!(estimate["predicted_bytes"], 1 << 20);
    remount("remount,rw");
    // Nothing of the run that failed was noted as done.
    let run = home.run(["dedup", place, "--json"]).ok().object();
    assert_eq!(run["freed_bytes"], 1 << 20);
    let made = Command::new("sqlite3")
        .arg(home.path("foreign"))
        .arg("CREATE TABLE mine (a)")
        .status();
    if made.is_ok_and(|status| status.success()) {
        let before = home.read("foreign");
        home.run(["dedup", place, "--state", "foreign"])
            .code(1)
            .says(&["foreign", "--state"]);
        assert!(home.read("foreign") == before);
    }
}

#[test]
fn a_file_system_that_is_gone_is_still_shown() {
    let home = Home::new();
    let Some(disk) = Mounted::new(&home) else { return };
    home.run(["dedup", disk.mount.to_str().unwrap()]).ok();
    let shown = || home.run(["dedup", "show", "--json"]).ok().object();
    assert_eq!(shown()["present"], true);
    // Another test may be looking at all mounts just now.
    let limit = Instant::now() + Duration::from_secs(10);
    while !Command::new("umount").arg(&disk.mount).status().unwrap().success() {
        assert!(Instant::now() < limit, "it stays busy");
    }
    assert_eq!(shown()["present"], false);
    assert!(home.run(["dedup", "show"]).ok().out().contains("not there now"));
}
