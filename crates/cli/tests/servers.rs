//! A vault spread over a disk and real servers, from the first `init` to the third place that dies.
//!
//! - The servers are those of `drystone_store::testing::servers`; what is not installed leaves the test out aloud, or fails it if `CI=true`.

use std::fs;
use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

use drystone_store::testing::servers::{S3, Sftp, Swift, WebDav};
use serde_json::Value;

use crate::runner::{Home, Ran, files_below, noise};

/// What opens the servers; the S3 server checks nothing.
const CREDENTIALS: [(&str, &str); 6] = [
    ("AWS_ACCESS_KEY_ID", "someone"),
    ("AWS_SECRET_ACCESS_KEY", "something"),
    ("ST_USER", "test:tester"),
    ("ST_KEY", "testing"),
    ("DRYSTONE_WEBDAV_USER", "tester"),
    ("DRYSTONE_WEBDAV_PASSWORD", "testing"),
];

/// The server, or nothing after saying so aloud; a failure where nothing may be left out.
fn need<T>(started: Result<T, String>) -> Option<T> {
    started
        .inspect_err(|missing| {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci, "{missing}");
            eprintln!("LEFT OUT: a test with a real server: {missing}");
        })
        .ok()
}

/// A home whose vault lies at several places.
struct World {
    home: Home,
    /// What `--vault` is given.
    vault: String,
    env: Vec<(&'static str, &'static str)>,
}

impl World {
    /// Makes the vault and a small tree in `src`.
    fn new(places: &[&str], spread: &str) -> Self {
        let home = Home::new();
        home.write("src/a.txt", b"first file\n");
        home.write("src/dir/b.bin", &noise(600_000));
        let world = Self {
            home,
            vault: places.join(","),
            env: CREDENTIALS.to_vec(),
        };
        let mut args = vec!["init", "--spread", spread];
        places.iter().for_each(|place| args.extend(["--place", place]));
        world.home.run_with(args, &world.env).ok();
        world
    }

    fn run(&self, args: &[&str]) -> Ran {
        let vault = ["--vault", self.vault.as_str()];
        self.home.run_with(args.iter().chain(&vault), &self.env)
    }

    /// Restores the latest snapshot, and compares every file.
    #[track_caller]
    fn restores(&self, target: &str) {
        self.run(&["restore", "latest", "--target", target]).ok();
        let source = self.home.path("src");
        let back = self.home.path(target).join(source.strip_prefix("/").unwrap());
        let files = files_below(&source);
        assert_eq!(files_below(&back).len(), files.len());
        for file in files {
            let twin = back.join(file.strip_prefix(&source).unwrap());
            assert!(
                fs::read(&file).unwrap() == fs::read(&twin).unwrap(),
                "{}",
                file.display()
            );
        }
    }

    /// Which places are there, in the order of the list.
    #[track_caller]
    fn there(&self) -> Vec<bool> {
        let list = self.run(&["place", "list", "--json"]).ok().object();
        let places = list["places"].as_array().unwrap();
        places.iter().map(|place| place["there"] == true).collect()
    }
}

/// The words of a finding that is owed.
fn owed(doctor: &Value) -> Vec<String> {
    let findings = doctor["findings"].as_array().unwrap();
    let owed = findings.iter().filter(|finding| finding["grade"] == "owed");
    owed.map(|finding| format!("{} -> {}", finding["what"], finding["next"]))
        .collect()
}

#[test]
fn any_two_of_four_places_are_enough_and_a_dead_one_is_replaced() {
    let (Some(mut s3), Some(mut sftp), Some(mut webdav)) =
        (need(S3::start()), need(Sftp::start()), need(WebDav::start()))
    else {
        return;
    };
    let swift = std::thread::spawn(Swift::start);
    let (s3_url, sftp_url, webdav_url) = (s3.url("vault"), sftp.url("vault"), webdav.url("vault"));
    let disk = tempfile::tempdir().unwrap();
    let disk_url = disk.path().join("vault").to_str().unwrap().to_owned();
    let mut world = World::new(&[&disk_url, &s3_url, &sftp_url, &webdav_url], "2/4");
    world.run(&["backup", "src"]).ok();
    assert_eq!(world.there(), [true; 4]);
    world.run(&["check"]).ok();

    // One dies: all goes on, and is owed.
    s3.stop().unwrap();
    world.home.write("src/more.bin", &noise(200_000));
    let backup = world
        .run(&["backup", "src"])
        .code(3)
        .says(&[&s3_url, "not there", "drystone repair"]);
    assert!(!backup.err().contains("writers/"), "{}", backup.err());
    world.restores("one-dead");
    assert_eq!(world.there(), [true, false, true, true]);
    world.run(&["check"]).code(3);
    let doctor = world.run(&["doctor", "--json"]).code(3).object();
    let owed = owed(&doctor).join("\n");
    assert!(
        owed.contains(&s3_url) && owed.contains("place replace") && owed.contains("drystone repair"),
        "{owed}"
    );

    // Two are dead: what is there can still be read.
    webdav.stop().unwrap();
    world.restores("two-dead");

    // One comes back with what it had; the other, which has lost everything, is replaced.
    webdav.start_again().unwrap();
    s3.start_again().unwrap();
    assert_eq!(
        world.there(),
        [true, false, true, true],
        "an empty bucket is not a place of the vault"
    );
    let Some(swift) = need(swift.join().unwrap()) else {
        return;
    };
    world.run(&["place", "replace", &s3_url, &swift.url("vault")]).ok();
    world.vault = format!("{disk_url},{webdav_url}");
    world.run(&["repair"]).ok();
    world.run(&["check"]).ok();
    let doctor = world.run(&["doctor", "--json"]).ok().object();
    assert!(self::owed(&doctor).is_empty(), "{doctor}");

    // With three of the new four dead nothing can be done, and nothing is lost.
    sftp.stop().unwrap();
    webdav.stop().unwrap();
    fs::rename(&disk_url, disk.path().join("away")).unwrap();
    world.vault = swift.url("vault");
    for args in [
        &["backup", "src"][..],
        &["restore", "latest", "--target", "x"],
        &["doctor"],
    ] {
        let says = [
            "1 of 4 can be used",
            "it takes 2",
            &disk_url,
            &sftp_url,
            &webdav_url,
            "next: make enough of them available",
        ];
        world.run(args).code(1).says(&says);
    }
    sftp.start_again().unwrap();
    world.restores("swift-and-sftp");
    webdav.start_again().unwrap();
    fs::rename(disk.path().join("away"), &disk_url).unwrap();
    world.run(&["backup", "src"]).ok();
    world.run(&["scrub"]).ok();
}

#[test]
fn a_place_that_refuses_is_absent_and_says_what_to_set() {
    let (Some(sftp), Some(webdav)) = (need(Sftp::start()), need(WebDav::start())) else {
        return;
    };
    let disk = tempfile::tempdir().unwrap();
    let disk_url = disk.path().join("vault").to_str().unwrap().to_owned();
    let (sftp_url, webdav_url) = (sftp.url("vault"), webdav.url("vault"));
    let mut world = World::new(&[&disk_url, &sftp_url, &webdav_url], "2/3");
    world.vault = disk_url.clone();
    world.run(&["backup", "src"]).ok();

    world.env.retain(|(name, _)| *name != "DRYSTONE_WEBDAV_PASSWORD");
    let unset = world.run(&["place", "list"]).ok().out();
    assert!(
        unset.contains("NOT THERE: permission denied") && unset.contains("DRYSTONE_WEBDAV_PASSWORD"),
        "{unset}"
    );
    world.env.push(("DRYSTONE_WEBDAV_PASSWORD", "wrong-secret"));
    let wrong = world
        .run(&["backup", "src"])
        .code(3)
        .says(&[&webdav_url, "DRYSTONE_WEBDAV_PASSWORD"]);
    assert!(!wrong.err().contains("wrong-secret"), "{}", wrong.err());
    world.restores("without-webdav");

    // No key that the SSH server knows, either: too few, and each place says why.
    let key = sftp_url.split_once("?key=").unwrap().1.split_once('&').unwrap().0;
    let (right_key, wrong_key) = (
        fs::read(key).unwrap(),
        fs::read(key.replace("/key", "/other-key")).unwrap(),
    );
    fs::write(key, &wrong_key).unwrap();
    world.run(&["restore", "latest", "--target", "x"]).code(1).says(&[
        "1 of 3 can be used",
        &sftp_url,
        &webdav_url,
        "DRYSTONE_WEBDAV_PASSWORD",
        "key",
    ]);
    assert!(!world.home.path("x").exists());

    // With both right again what is owed to WebDAV is paid, and then that and the disk are enough.
    world.env = CREDENTIALS.to_vec();
    fs::write(key, &right_key).unwrap();
    world.run(&["repair"]).code(4);
    world.run(&["check"]).ok();
    fs::write(key, &wrong_key).unwrap();
    world.restores("without-sftp");
}

/// A program that does not outlive a failed test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done`, but not for ever.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "{what}: does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_dies_during_a_backup_costs_it_nothing_but_time() {
    let (Some(s3), Some(mut sftp)) = (need(S3::start()), need(Sftp::start())) else {
        return;
    };
    let disk = tempfile::tempdir().unwrap();
    let disk_url = disk.path().join("vault").to_str().unwrap().to_owned();
    let sftp_url = sftp.url("vault");
    let mut world = World::new(&[&disk_url, &s3.url("vault"), &sftp_url], "2/3");
    world.vault = disk_url.clone();
    // So slow that the server dies in the middle of a pack.
    world.run(&["place", "set", &sftp_url, "--up-limit", "500k"]).ok();
    world.home.write("src/big.bin", &noise(6_000_000));
    let mut command = world.home.command(["backup", "src", "--vault", disk_url.as_str()]);
    let mut backup = Running(command.envs(world.env.iter().copied()).spawn().unwrap());
    let stored = sftp.files().join("vault/shards");
    wait_until("shards reach the disk", || {
        let shards = disk.path().join("vault/shards");
        shards.is_dir() && !files_below(&shards).is_empty()
    });
    sftp.stop().unwrap();
    wait_until("the backup ends", || backup.0.try_wait().unwrap().is_some());
    assert_eq!(backup.0.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    backup.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("sftp://") && said.contains("owed"), "{said}");
    world.restores("while-it-is-dead");

    sftp.start_again().unwrap();
    world.run(&["place", "set", &sftp_url, "--up-limit", "0"]).ok();
    world.run(&["check"]).ok();
    assert!(!files_below(&stored).is_empty());
    fs::rename(&disk_url, disk.path().join("away")).unwrap();
    world.vault = sftp_url;
    world.restores("without-the-disk");
}
