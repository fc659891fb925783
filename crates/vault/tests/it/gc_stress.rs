//! Real processes at once: backups, gc and forget, killed at random. What was reported must be whole.
//!
//! - On one directory, and on a vault spread over three of which one at a time goes away and comes back.
//! - `DRYSTONE_STRESS_SECONDS` says how long (20 by default), `DRYSTONE_STRESS_SEED` repeats the choices of a run.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_store::{Local, Store};
use drystone_vault::{Connect, Error, GcOptions, Reach, RepairOptions, Unlock, Vault};

use crate::spread_world::{create_over, new_place};
use crate::support::{Fixture, add_key, back_up, check, context_in, files, lines, noise};

const DIR: &str = "DRYSTONE_STRESS_DIR";
const ARGUMENTS: &str = "DRYSTONE_STRESS_ARGUMENTS";
/// Contents that files are chosen from: few, so that backups rely on each other's packs.
const CONTENTS: u64 = 14;
const MACHINES: u64 = 3;

/// A small generator (xorshift), so that a seed repeats the choices.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }
}

/// The directories of a spread vault.
const PLACES: [&str; 3] = ["place0", "place1", "place2"];
/// Where the one that is away lies.
const AWAY: &str = "away";

/// What the vault lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lies {
    InOnePlace,
    InThree,
}

/// Directories by their paths.
struct Directories;

impl Connect for Directories {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        Ok(Arc::new(Local::open(Path::new(url))?))
    }
}

impl Lies {
    fn of(dir: &Path) -> Self {
        if dir.join("vault").exists() {
            Self::InOnePlace
        } else {
            Self::InThree
        }
    }

    fn reach(self, dir: &Path) -> drystone_vault::Result<Reach> {
        let vault = dir.join("vault");
        let dirs = match self {
            Self::InOnePlace => vec![vault],
            Self::InThree => PLACES.iter().map(|place| dir.join(place)).collect(),
        };
        let urls: Vec<String> = dirs.iter().map(|dir| dir.to_str().unwrap().to_owned()).collect();
        Ok(Reach::open(&urls, Arc::new(Directories))?)
    }

    /// Whether a run may fail so: places that go while it runs may be one more than it can do without.
    fn may_fail(self, error: &Error) -> bool {
        use drystone_store::Error as Store;
        let is_away = match error {
            Error::Absent { .. } | Error::TooFewPlaces { .. } => true,
            Error::Store(error) => matches!(error, Store::TooFew { .. } | Store::NoPlace { .. }),
            _ => false,
        };
        self == Self::InThree && is_away
    }
}

fn source(contents: &[u64]) -> Vec<(String, Vec<u8>)> {
    let file = |content: &u64| {
        (
            format!("{content:02}"),
            noise(*content + 1, 20_000 + 3000 * *content as usize),
        )
    };
    contents.iter().map(file).collect()
}

pub(crate) fn open(dir: &Path, machine: u64) -> Vault {
    let key = std::fs::read_to_string(dir.join(format!("key{machine}"))).unwrap();
    let unlock = Unlock::key_file(&key, "test", None).unwrap();
    let mut tries = 0;
    loop {
        let opened = Lies::of(dir)
            .reach(dir)
            .and_then(|reach| Vault::open(reach, context_in(&dir.join(format!("cache{machine}"))), &unlock));
        match opened {
            Ok(vault) => return vault,
            Err(error) if Lies::of(dir).may_fail(&error) && tries < 100 => tries += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

fn back_up_some(vault: &Vault, lies: Lies, choices: &mut Choices) {
    let contents: Vec<u64> = (0..CONTENTS).filter(|_| choices.below(3) == 0).collect();
    let source = source(&contents);
    let borrowed: Vec<(&str, &[u8])> = source
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    match back_up(vault, &borrowed) {
        Ok((id, _)) => {
            let contents: Vec<String> = contents.iter().map(ToString::to_string).collect();
            println!("reported {id} {}", contents.join(" "));
        }
        Err(Error::GivenUp { .. }) => println!("given up"),
        Err(error) if lies.may_fail(&error) => println!("stopped"),
        Err(error) => panic!("{error}"),
    }
}

fn forget_some(vault: &Vault, lies: Lies, choices: &mut Choices) {
    let ids = match vault.snapshot_ids() {
        Err(error) if lies.may_fail(&error) => return,
        ids => ids.unwrap(),
    };
    let chosen: Vec<RootId> = ids.into_iter().filter(|_| choices.below(4) == 0).collect();
    for id in &chosen {
        println!("forgetting {id}");
    }
    match vault.forget(&chosen) {
        Err(error) if lies.may_fail(&error) => println!("stopped"),
        outcome => outcome.unwrap(),
    }
}

fn collect(vault: &Vault, lies: Lies) {
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    match vault.gc(&options) {
        Ok(report) if vault.absent_places().iter().any(Option::is_some) => println!("without {}", report.deleted_packs),
        Ok(report) => println!("deleted {}", report.deleted_packs),
        // Another has forgotten the snapshot meanwhile, or deleted what this one was about to read: the next run sees it.
        Err(Error::Unmarked { .. } | Error::GivenUp { .. }) => println!("stopped"),
        Err(error) if lies.may_fail(&error) => println!("stopped"),
        Err(error) => panic!("{error}"),
    }
}

/// The directory and the numbers that a child was started with.
pub(crate) fn arguments() -> Option<(PathBuf, Vec<u64>)> {
    let dir = env::var_os(DIR).map(PathBuf::from)?;
    let arguments = env::var(ARGUMENTS).unwrap();
    let numbers = arguments.split(' ').map(|number| number.parse().unwrap());
    Some((dir, numbers.collect()))
}

#[test]
#[ignore = "started by the stress test"]
fn child() {
    let Some((dir, numbers)) = arguments() else { return };
    let (machine, mut choices) = (numbers[0], Choices(numbers[1]));
    for _ in 0..4 {
        let (vault, lies) = (open(&dir, machine), Lies::of(&dir));
        match choices.below(5) {
            0 => forget_some(&vault, lies, &mut choices),
            1 => collect(&vault, lies),
            _ => back_up_some(&vault, lies, &mut choices),
        }
    }
}

/// A child that does not outlive the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path, machine: u64, seed: u64, lines: &Sender<String>) -> Running {
    start_test("gc_stress::child", (dir, format!("{machine} {seed}")), lines)
}

/// Runs an ignored test in a process of its own.
pub(crate) fn start_test(test: &str, (dir, arguments): (&Path, String), lines: &Sender<String>) -> Running {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ARGUMENTS, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (output, lines) = (child.stdout.take().unwrap(), lines.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    Running(child)
}

/// Lets children come and go until the time is up; how many of them failed by themselves.
fn run(dir: &Path, seconds: u64, choices: &mut Choices, lines: &Sender<String>) -> u64 {
    let (start_time, mut running, mut failures) = (Instant::now(), Vec::new(), 0);
    let (mut away, mut moves_at) = (None, Instant::now());
    while start_time.elapsed() < Duration::from_secs(seconds) {
        if Lies::of(dir) == Lies::InThree && Instant::now() > moves_at {
            moves_at = Instant::now() + Duration::from_millis(choices.below(2000));
            away = match away {
                Some(place) => bring_back(dir, place),
                None => take_away(dir, PLACES[choices.below(3) as usize]),
            };
        }
        while running.len() < 4 {
            let (machine, seed) = (choices.below(MACHINES), choices.below(u64::MAX) | 1);
            let lives = Duration::from_millis(choices.below(1500));
            let is_killed = choices.below(2) == 0;
            running.push((
                start(dir, machine, seed, lines),
                is_killed.then(|| Instant::now() + lives),
            ));
        }
        running.retain_mut(|(child, deadline)| match child.0.try_wait().unwrap() {
            Some(status) => {
                failures += u64::from(!status.success());
                false
            }
            None => deadline.is_none_or(|deadline| Instant::now() < deadline),
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Some(place) = away {
        bring_back(dir, place);
    }
    failures
}

fn take_away(dir: &Path, place: &'static str) -> Option<&'static str> {
    std::fs::rename(dir.join(place), dir.join(AWAY)).unwrap();
    Some(place)
}

fn bring_back(dir: &Path, place: &'static str) -> Option<&'static str> {
    std::fs::rename(dir.join(AWAY), dir.join(place)).unwrap();
    None
}

/// What was reported and never asked to be forgotten, and how much else was said.
fn reported(said: &Receiver<String>) -> (BTreeMap<RootId, Vec<u64>>, BTreeMap<String, u64>) {
    let (mut kept, mut forgotten, mut counts) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for line in said.try_iter() {
        // The harness prints the name of the test in front of the first line.
        let words = [
            "reported ",
            "forgetting ",
            "deleted ",
            "without ",
            "given up",
            "stopped",
        ];
        let Some(at) = words.iter().find_map(|word| line.find(word)) else {
            continue;
        };
        let mut words = line[at..].split(' ');
        let word = words.next().unwrap();
        *counts.entry(word.to_owned()).or_default() += 1;
        let id = words.next().and_then(RootId::from_hex);
        match (word, id) {
            ("reported", Some(id)) => {
                kept.insert(id, words.filter_map(|content| content.parse().ok()).collect());
            }
            ("forgetting", Some(id)) => forgotten.push(id),
            _ => {}
        }
    }
    kept.retain(|id, _| !forgotten.contains(id));
    (kept, counts)
}

#[test]
fn what_was_reported_survives_killed_backups_gcs_and_forgets() {
    let counts = assert_survival(Lies::InOnePlace);
    assert!(!counts.contains_key("without"));
}

#[test]
fn what_was_reported_survives_them_and_places_that_come_and_go() {
    assert_survival(Lies::InThree);
}

/// Gives each machine a cache and a key; two of them share one.
pub(crate) fn furnish(dir: &Path, fixture: &Fixture, vault: &Vault) {
    for machine in 0..MACHINES {
        std::fs::create_dir(dir.join(format!("cache{machine}"))).unwrap();
        let key = match machine {
            0 | 1 => fixture.key.clone(),
            _ => add_key(vault, Role::Owner).key,
        };
        std::fs::write(dir.join(format!("key{machine}")), key).unwrap();
    }
}

/// How long to go on, in seconds, and the seed of the choices.
pub(crate) fn settings() -> (u64, u64) {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("DRYSTONE_STRESS_SEED").unwrap_or(now) | 1;
    println!("DRYSTONE_STRESS_SEED={seed}");
    (number("DRYSTONE_STRESS_SECONDS").unwrap_or(20), seed)
}

fn assert_survival(lies: Lies) -> BTreeMap<String, u64> {
    let (seconds, seed) = settings();
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new();
    let create = |name: &str| Arc::new(Local::create(&dir.path().join(name)).unwrap()) as Arc<dyn Store>;
    let vault = match lies {
        Lies::InOnePlace => fixture.create(create("vault")).unwrap(),
        Lies::InThree => {
            let places = PLACES.map(|place| new_place(dir.path().join(place).to_str().unwrap(), create(place)));
            create_over(&fixture, places.into(), (2, 3))
        }
    };
    furnish(dir.path(), &fixture, &vault);
    drop(vault);
    let (sender, said) = channel();
    let mut choices = Choices(seed);
    let failures = run(dir.path(), seconds, &mut choices, &sender);
    if lies == Lies::InThree {
        // However few of the gcs were without a place by chance: this one is.
        let (place, away) = (dir.path().join(PLACES[2]), dir.path().join("away"));
        std::fs::rename(&place, &away).unwrap();
        let vault = open(dir.path(), 1);
        assert!(vault.absent_places().iter().any(Option::is_some));
        collect(&vault, lies);
        drop(vault);
        std::fs::rename(&away, &place).unwrap();
    }
    let vault = open(dir.path(), 0);
    if lies == Lies::InThree {
        vault.repair(&RepairOptions::default()).unwrap();
    }
    for _ in 0..4 {
        collect(&vault, lies);
    }
    let (kept, counts) = reported(&said);
    println!("{counts:?}, {} snapshots left, {failures} children failed", kept.len());
    assert!(
        counts.get("reported").is_some_and(|count| *count > seconds / 4),
        "{counts:?}"
    );
    for machine in 0..MACHINES {
        let vault = open(dir.path(), machine);
        for (id, contents) in &kept {
            assert!(
                files(&vault, id).unwrap() == source(contents),
                "seed {seed}: {id} on {machine}"
            );
        }
        assert_eq!(lines(&check(&vault).problems), "", "seed {seed}");
    }
    assert_eq!(failures, 0, "seed {seed}: a child failed");
    counts
}
