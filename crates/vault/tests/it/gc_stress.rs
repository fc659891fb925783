//! Real processes at once on one directory: backups, gc and forget, killed at random. What was reported must be whole.
//!
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
use drystone_vault::{Error, GcOptions, Unlock, Vault};

use crate::support::{Fixture, add_key, back_up, check, context_in, files, lines, noise};

const DIR: &str = "DRYSTONE_STRESS_DIR";
const ARGUMENTS: &str = "DRYSTONE_STRESS_ARGUMENTS";
/// Contents that files are chosen from: few, so that backups rely on each other's packs.
const CONTENTS: u64 = 14;
const MACHINES: u64 = 3;

/// A small generator (xorshift), so that a seed repeats the choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
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

fn open(dir: &Path, machine: u64) -> Vault {
    let key = std::fs::read_to_string(dir.join(format!("key{machine}"))).unwrap();
    let unlock = Unlock::key_file(&key, "test", None).unwrap();
    let store: Arc<dyn Store> = Arc::new(Local::open(&dir.join("vault")).unwrap());
    Vault::open(store, context_in(&dir.join(format!("cache{machine}"))), &unlock).unwrap()
}

fn back_up_some(vault: &Vault, choices: &mut Choices) {
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
        Err(error) => panic!("{error}"),
    }
}

fn forget_some(vault: &Vault, choices: &mut Choices) {
    let ids = vault.snapshot_ids().unwrap();
    let chosen: Vec<RootId> = ids.into_iter().filter(|_| choices.below(4) == 0).collect();
    for id in &chosen {
        println!("forgetting {id}");
    }
    vault.forget(&chosen).unwrap();
}

fn collect(vault: &Vault) {
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    match vault.gc(&options) {
        Ok(report) => println!("deleted {}", report.deleted_packs),
        // Another has forgotten the snapshot meanwhile, or deleted what this one was about to read: the next run sees it.
        Err(Error::Unmarked { .. } | Error::GivenUp { .. }) => println!("stopped"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
#[ignore = "started by the stress test"]
fn child() {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let arguments = env::var(ARGUMENTS).unwrap();
    let numbers: Vec<u64> = arguments.split(' ').map(|number| number.parse().unwrap()).collect();
    let (machine, mut choices) = (numbers[0], Choices(numbers[1]));
    for _ in 0..4 {
        let vault = open(&dir, machine);
        match choices.below(5) {
            0 => forget_some(&vault, &mut choices),
            1 => collect(&vault),
            _ => back_up_some(&vault, &mut choices),
        }
    }
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path, machine: u64, seed: u64, lines: &Sender<String>) -> Running {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "gc_stress::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(ARGUMENTS, format!("{machine} {seed}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
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
    while start_time.elapsed() < Duration::from_secs(seconds) {
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
    failures
}

/// What was reported and never asked to be forgotten, and how much else was said.
fn reported(said: &Receiver<String>) -> (BTreeMap<RootId, Vec<u64>>, BTreeMap<String, u64>) {
    let (mut kept, mut forgotten, mut counts) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for line in said.try_iter() {
        // The harness prints the name of the test in front of the first line.
        let Some(at) = ["reported ", "forgetting ", "deleted ", "given up", "stopped"]
            .iter()
            .find_map(|word| line.find(word))
        else {
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
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("DRYSTONE_STRESS_SECONDS").unwrap_or(20);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("DRYSTONE_STRESS_SEED").unwrap_or(now) | 1;
    println!("DRYSTONE_STRESS_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("vault");
    let fixture = Fixture::new();
    let vault = fixture.create(Arc::new(Local::create(&place).unwrap())).unwrap();
    for machine in 0..MACHINES {
        std::fs::create_dir(dir.path().join(format!("cache{machine}"))).unwrap();
        // Two machines share a key.
        let key = match machine {
            0 | 1 => fixture.key.clone(),
            _ => add_key(&vault, Role::Owner).key,
        };
        std::fs::write(dir.path().join(format!("key{machine}")), key).unwrap();
    }
    drop(vault);
    let (sender, said) = channel();
    let mut choices = Choices(seed);
    let failures = run(dir.path(), seconds, &mut choices, &sender);
    let vault = open(dir.path(), 0);
    for _ in 0..4 {
        collect(&vault);
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
}
