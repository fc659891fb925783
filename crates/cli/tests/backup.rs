//! `backup`: first use, reuse, what cannot be read, filters, standard input, interruption.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::dedup::Mounted;
use crate::image::{command, may_mount};
use crate::runner::{Home, files_below, noise};

/// How long a condition is polled for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn last(home: &Home, args: &[&str]) -> Value {
    let run = home.run(["backup", "--json"].iter().chain(args)).ok();
    run.json().pop().unwrap()
}

#[test]
fn the_first_backup_makes_a_vault_and_says_how_to_open_it() {
    let home = Home::new();
    home.write("src/a.txt", b"hello\n");
    home.run(["backup", "missing"]).code(1).says(&["missing", "next:"]);
    assert!(!home.vault().exists(), "nothing was there to back up");
    let ran = home
        .run(["backup", "src"])
        .ok()
        .says(&["no recovery code yet", "drystone key recovery", "keys/"]);
    assert!(
        ran.out().starts_with("snapshot ") && ran.out().contains("saved: 1 file, 6 B"),
        "{}",
        ran.out()
    );
    let again = home.run(["backup", "src"]).ok();
    assert!(!again.err().contains("recovery"), "{}", again.err());
    let json = Home::new();
    json.write("src/a.txt", b"hello\n");
    let lines = json.run(["backup", "src", "--json"]).ok().json();
    assert_eq!(
        (&lines[0]["type"], &lines[1]["type"]),
        (&"created".into(), &"backup".into())
    );
    // Nobody sees a terminal, so a code would only be in a log.
    assert!(lines[0]["recovery_code"].is_null(), "{}", lines[0]);
    let code = json.run(["key", "recovery", "--json"]).ok().object();
    let code = code["recovery_code"].as_str().unwrap();
    fs::remove_dir_all(json.path("home/.config")).unwrap();
    json.run_with(
        ["cat", &format!("latest:{}", json.path("src/a.txt").display())],
        &[("DRYSTONE_PASSPHRASE", code)],
    )
    .ok();
}

#[test]
fn a_place_that_lost_its_vault_gets_no_new_one_behind_its_owners_back() {
    let home = Home::new();
    home.write("src/a.txt", b"x");
    home.run(["init", "--vault", "./v", "--key-file", "my.key"]).ok();
    fs::remove_dir_all(home.path("v")).unwrap();
    home.run(["backup", "src", "--vault", "v", "--key-file", "my.key"])
        .code(10)
        .says(&["seen vault", "is the disk mounted?", "next:", "--accept-new-vault"]);
    assert!(!home.path("v").exists());
    home.write("full/letter", b"x");
    home.run(["backup", "src", "--vault", "full"])
        .code(10)
        .says(&["full", "no vault here"]);
    home.run(["backup", "src", "--vault", "./new", "--dry-run"]).code(10);
    assert!(!home.path("new").exists());
}

#[test]
fn an_unchanged_tree_costs_nothing_and_a_changed_one_its_change() {
    let home = Home::backed_up();
    let same = last(&home, &["src"]);
    // The directories above may have changed: other tests work beside this one's.
    let new_bytes = |result: &Value| result["new_bytes"].as_u64().unwrap();
    assert!(new_bytes(&same) < 1000 && same["files"] == 3, "{same}");
    // Not the beginning of a file that is there already: that would share its chunks.
    let new: Vec<u8> = noise(50_000).into_iter().rev().collect();
    home.write("src/new.bin", &new);
    let dry = last(&home, &["src", "--dry-run"]);
    assert_eq!((&dry["snapshot"], &dry["dry_run"]), (&Value::Null, &true.into()));
    let changed = last(&home, &["src"]);
    let count = |key: &str| changed[key].as_u64().unwrap();
    assert_eq!(
        count("new_files") + count("changed_files") + count("unchanged_files"),
        count("files"),
        "{changed}"
    );
    assert!(new_bytes(&changed) >= 50_000);
    let rescanned = last(&home, &["src", "--rescan"]);
    assert!(new_bytes(&rescanned) < 1000, "{rescanned}");
    assert_eq!(home.run(["snapshots", "--json"]).ok().json().len(), 4 + 1);
}

/// On Btrfs a run asks what changed, and `--walk` looks: that is all the difference.
#[test]
fn a_walk_gives_what_asking_gives_and_spares_nothing() {
    let home = Home::new();
    let Some(_disk) = Mounted::new(&home) else { return };
    let mut large = noise(9 << 20);
    home.write("mount/src/large.bin", &large);
    for file in 0..30 {
        home.write(&format!("mount/src/d{}/f{file}", file % 3), &noise(100 + file));
    }
    let spared =
        |result: &Value| ["spared_dirs", "spared_files", "unread_bytes"].map(|key| result[key].as_u64().unwrap());
    assert_eq!(spared(&last(&home, &["mount/src"])), [0; 3], "it was never asked");
    assert_eq!(spared(&last(&home, &["mount/src"])), [4, 31, 0]);
    for round in 0..2_u8 {
        large[5 << 20] = !round;
        home.write("mount/src/d0/f0", &[round; 7]);
        let file = OpenOptions::new().write(true).open(home.path("mount/src/large.bin"));
        file.unwrap().write_all_at(&large[5 << 20..][..1], 5 << 20).unwrap();
        let both: &[&[&str]; 2] = &[&["mount/src"], &["mount/src", "--walk"]];
        let runs = both.map(|args| last(&home, args));
        let [asked, walked] = runs.each_ref().map(spared);
        assert!(asked[0] == 2 && asked[1] == 20 && asked[2] > 8 << 20, "{asked:?}");
        assert_eq!(walked, [0; 3]);
        let tree = runs.each_ref().map(|run| {
            let id = run["snapshot"].as_str().unwrap();
            let tree = format!("{id}:{}", home.path("mount/src").display());
            home.run(["dump", &tree]).ok().bytes().to_vec()
        });
        assert!(tree[0].len() > large.len() && tree[0] == tree[1]);
        for key in ["files", "dirs", "bytes"] {
            assert_eq!(runs[0][key], runs[1][key]);
        }
        assert!(runs[1]["new_bytes"].as_u64().unwrap() < 1000, "{}", runs[1]);
    }
}

#[test]
fn filters_and_profile_say_what_is_left_out() {
    let home = Home::new();
    for name in [
        "src/keep.txt",
        "src/drop.o",
        "src/keep.o",
        "src/cache/x",
        "src/secret/x",
        "src/secret/.nobackup",
    ] {
        home.write(name, name.as_bytes());
    }
    home.write(
        "src/cache/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55\n",
    );
    home.write("rules", b"# objects\n*.o\n");
    let args = [
        "src",
        "--exclude-file",
        "rules",
        "--include",
        "keep.o",
        "--exclude-caches",
        "--exclude-if-present",
        ".nobackup",
    ];
    last(&home, &args);
    let listed = home.run(["ls", "-R", "latest"]).ok().out();
    for (name, kept) in [
        ("keep.txt", true),
        ("keep.o", true),
        ("drop.o", false),
        ("cache/x", false),
        ("secret/x", false),
    ] {
        assert_eq!(listed.contains(name), kept, "{name} in\n{listed}");
    }
    let config =
        "[profile.default]\npaths = ['../../../src']\nexclude = ['*.txt']\ntag = ['nightly']\nhost = 'elsewhere'\n";
    home.write("home/.config/drystone/config.toml", config.as_bytes());
    last(&home, &["--tag", "second"]);
    let snapshot = home.run(["snapshots", "--json", "--latest", "1"]).ok().json().remove(0);
    assert_eq!(snapshot["host"], "elsewhere");
    assert_eq!(snapshot["tags"], serde_json::json!(["nightly", "second"]));
    let listed = home.run(["ls", "-R", "latest"]).ok().out();
    assert!(listed.contains("drop.o") && !listed.contains("keep.txt"), "{listed}");
}

#[test]
fn the_vault_never_backs_up_itself() {
    let home = Home::new();
    home.write("home/a.txt", b"x");
    last(&home, &["home"]);
    last(&home, &["home"]);
    let listed = home.run(["ls", "-R", "latest"]).ok().out();
    assert!(
        listed.contains("a.txt") && !listed.contains("packs") && !listed.contains("state.sqlite"),
        "{listed}"
    );
}

/// A directory that is mounted at another one, if this user may do that.
pub(crate) struct Bound(PathBuf);

impl Bound {
    pub(crate) fn new(dir: &Path, at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.arg("--bind").args([dir, &at]).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("LEFT OUT: a bind mount, since this user cannot make one");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn files_from_names_what_is_backed_up() {
    let home = Home::backed_up();
    home.write("list", b"src/a.txt\nsrc/dir/b.txt\n");
    let result = last(&home, &["--files-from", "list"]);
    assert_eq!(result["files"], 2, "{result}");
}

#[test]
fn standard_input_becomes_a_file() {
    let home = Home::new();
    let mut child = home
        .command(["backup", "--stdin", "--name", "db.sql"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&noise(1_000_000)).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(home.run(["cat", "latest:db.sql"]).ok().bytes() == noise(1_000_000));
    home.run(["backup", "--stdin"]).code(2).says(&["--name"]);
    home.run(["backup", "--name", "x"]).code(2).says(&["--stdin"]);
}

#[test]
fn tags_are_separated_by_commas() {
    let home = Home::backed_up();
    home.write(
        "home/.config/drystone/config.toml",
        b"[profile.default]\ntag = ['p,q']\n",
    );
    last(&home, &["src", "--tag", "a,b", "--tag", "c"]);
    let find = |tags: &str| home.run(["snapshots", "--json", "--tag", tags]).ok().json();
    assert_eq!(find("b,c,q")[0]["tags"], serde_json::json!(["p", "q", "a", "b", "c"]));
    assert_eq!(find("b,d").len(), 1);
    for (flag, value) in [("--tag", ""), ("--tag", "a,,b"), ("--host", "")] {
        home.run(["backup", "src", flag, value]).code(2).says(&[flag]);
    }
}

#[test]
fn what_cannot_be_read_is_listed_and_the_rest_is_saved() {
    let home = Home::backed_up();
    let ran = home.run(["backup", "src", "nowhere"]).code(3).says(&["nowhere"]);
    assert!(ran.out().contains("1 problem"), "{}", ran.out());
    let result = home.run(["backup", "src", "nowhere", "--json"]).code(3).object();
    assert_eq!(
        (&result["exit"], &result["problem_count"]),
        (&"incomplete".into(), &1.into())
    );
    assert!(
        result["problems"][0]["path"].as_str().unwrap().ends_with("nowhere"),
        "{result}"
    );
}

#[test]
fn a_writer_backs_up_and_reads_nothing() {
    let home = Home::backed_up();
    home.run(["key", "add", "--writer", "--generate", "w.key"]).ok();
    home.write("src/more.txt", b"more\n");
    let ran = home
        .run(["backup", "src", "--key-file", "w.key", "--json"])
        .ok()
        .object();
    let id = ran["snapshot"].as_str().unwrap().to_owned();
    for verb in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["cat", "latest:x"],
        &["restore", "latest", "--target", "t"],
    ] {
        home.run(verb.iter().copied().chain(["--key-file", "w.key"]))
            .code(12)
            .says(&["writer key", "next:"]);
    }
    // The latest is the owner's own, since a writer's key may be stolen.
    home.run(["ls", "latest"]).ok().says(&["something newer", "latest@"]);
    home.run(["restore", &id, "--target", "t"]).ok();
    let restored = home
        .path("t")
        .join(home.path("src/more.txt").strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored).unwrap(), b"more\n");
}

/// Bytes of a source that takes a few packs.
const BIG_BYTES: usize = 90 << 20;
/// At least so much of it is stored once a pack has appeared: most of a pack of 32 MiB.
const STORED_BYTES: u64 = 20 << 20;

/// Packs in the vault.
fn packs(home: &Home) -> usize {
    let is_pack = |path: &&PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    files_below(&home.vault()).iter().filter(is_pack).count()
}

/// Starts a backup whose source does not end, and waits until some of it is stored.
fn endless_backup(home: &Home) -> (Child, ChildStdin) {
    home.write("big.bin", &noise(BIG_BYTES));
    home.run(["init"]).ok();
    let mut child = home
        .command(["backup", "--stdin", "--name", "x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    to.write_all(&home.read("big.bin")).unwrap();
    let start = Instant::now();
    while packs(home) == 0 {
        assert!(start.elapsed() < PATIENCE, "no pack appears");
        std::thread::yield_now();
    }
    (child, to)
}

fn check_reuse(home: &Home) {
    home.run(["check"]).ok();
    let result = last(home, &["big.bin"]);
    let (bytes, new) = (result["bytes"].as_u64().unwrap(), result["new_bytes"].as_u64().unwrap());
    assert!(new <= bytes - STORED_BYTES, "{new} of {bytes} bytes were stored again");
    home.run(["scrub"]).ok();
}

#[test]
fn an_interrupted_backup_ends_in_order_and_is_reused() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = Home::new();
        // Its standard input stays open, and silent: it must not wait for it.
        let (mut child, input) = endless_backup(&home);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{status:?}");
        drop(input);
        check_reuse(&home);
    }
}

#[test]
fn a_killed_backup_leaves_a_sound_vault_and_is_reused() {
    let home = Home::new();
    let (mut child, _input) = endless_backup(&home);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    check_reuse(&home);
}

/// A small file system in memory, if this user may mount one.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(home: &Home, options: &str) -> Option<Self> {
        let dir = home.path("disk");
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&dir)
            .stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("LEFT OUT: a full disk, since this user cannot mount one");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The power goes as soon as the backup has reported: the file system keeps what was synced, and nothing else.
#[test]
fn what_was_reported_outlives_a_power_cut() {
    if !may_mount("a power cut", &["xfs_io"]) {
        return;
    }
    let home = Home::new();
    let Some(disk) = Mounted::with(&home, "mkfs.xfs") else {
        return;
    };
    let (image, mount) = (home.path("image"), disk.mount.to_str().unwrap());
    home.write("src/large", &noise(3 << 20));
    home.write("src/small", b"few bytes");
    home.run(["init", "--vault", "./mount/v"]).ok();
    for run in 0..2 {
        home.write("src/changing", format!("run {run}").as_bytes());
        home.run(["backup", "src", "--vault", "mount/v"]).ok();
        // Throws away what is in memory only, the log of the file system included.
        command("xfs_io", &["-x", "-c", "shutdown", mount]);
        command("umount", &[mount]);
        command("mount", &["-oloop", image.to_str().unwrap(), mount]);
        home.run(["check", "--vault", "mount/v"]).ok();
    }
    home.run(["restore", "latest", "--target", "back", "--vault", "mount/v"])
        .ok();
    let source = home.path("src");
    for name in ["large", "small", "changing"] {
        let back = PathBuf::from(format!("back{}", source.join(name).display()));
        assert_eq!(
            home.read(back.to_str().unwrap()),
            home.read(&format!("src/{name}")),
            "{name}"
        );
    }
}

#[test]
fn a_full_disk_stops_the_backup_and_nothing_else() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(&home, "size=60m") else {
        return;
    };
    home.write("small.bin", &noise(1 << 20)[7..]);
    home.write("big.bin", &noise(BIG_BYTES));
    let place = disk.0.join("vault").to_str().unwrap().to_owned();
    let vault = ["--vault", &place];
    home.run(["init"].into_iter().chain(vault)).ok();
    home.run(["backup", "small.bin"].into_iter().chain(vault)).ok();
    home.run(["backup", "big.bin"].into_iter().chain(vault))
        .code(1)
        .says(&["no space", "next:"]);
    home.run(["check"].into_iter().chain(vault)).ok();
    home.run(["restore", "latest", "--target", "t"].into_iter().chain(vault))
        .ok();
    let grown = Command::new("mount")
        .args(["-o", "remount,size=200m"])
        .arg(&disk.0)
        .status()
        .unwrap();
    assert!(grown.success());
    home.run(["backup", "big.bin"].into_iter().chain(vault)).ok();
    home.run(["scrub"].into_iter().chain(vault)).ok();
}

#[test]
fn two_backups_at_once_both_succeed() {
    let home = Home::new();
    home.run(["init"]).ok();
    home.write("one/a.bin", &noise(3 << 20));
    home.write("two/b.bin", &noise(4 << 20));
    let run = |name: &str| home.command(["backup", name]).spawn().unwrap();
    let (mut one, mut two) = (run("one"), run("two"));
    assert!(one.wait().unwrap().success() && two.wait().unwrap().success());
    home.run(["check"]).ok();
    assert_eq!(home.run(["snapshots", "--json"]).ok().json().len(), 2 + 1);
}

#[test]
fn progress_is_shown_as_it_is_asked_for() {
    let home = Home::new();
    home.write("src/a.bin", &noise(40 << 20));
    let run = home
        .run(["backup", "src", "--progress", "json", "--progress-interval", "0.01"])
        .ok();
    let lines: Vec<&str> = run
        .err()
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| line.to_owned().leak() as &str)
        .collect();
    assert!(!lines.is_empty(), "{}", run.err());
    for line in crate::runner::json_lines(&lines.join("\n")) {
        assert_eq!((&line["type"], &line["verb"]), (&"progress".into(), &"backup".into()));
    }
    let plain = home
        .run(["backup", "src", "--rescan", "--progress-interval", "0.01"])
        .ok();
    assert!(
        plain
            .err()
            .lines()
            .any(|line| line.contains("files") || line.contains("file,")),
        "{}",
        plain.err()
    );
    let quiet = home
        .run(["backup", "src", "--rescan", "--quiet", "--progress-interval", "0.01"])
        .ok();
    assert_eq!(quiet.err(), "");
}
