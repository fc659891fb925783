//! Processes that keep one vault open, each with many threads that put and get single chunks, beside gc: stopped, killed, started again.
//!
//! - What one of them acknowledged, none ever misses, whichever is asked, and nobody does afterwards.
//! - A process that is stopped for a while (SIGSTOP) is given up by gc; it registers anew and goes on.
//! - `DRYSTONE_STRESS_SECONDS` says how long, `DRYSTONE_STRESS_SEED` repeats the choices of a run.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_store::Local;
use drystone_vault::{Error, GcOptions, Vault, Writer, WriterOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::gc_stress::{Choices, Running, arguments, furnish, open, settings, start_test};
use crate::support::{Fixture, check, lines, noise};

/// Contents that are kept for ever: few, so that processes rely on each other's packs.
const KEPT: u64 = 300;
/// Contents that are forgotten as soon as they are stored.
const PASSING: u64 = 10_000;
const PROCESSES: u64 = 3;
const THREADS: usize = 8;
/// Where each process writes down what it has acknowledged, one number a line.
const ACKNOWLEDGED: &str = "acknowledged";

fn bytes_of(content: u64) -> Vec<u8> {
    noise(content + 1, 200 + (content % 700) as usize)
}

/// Commits one chunk; whether it was acknowledged.
fn commit(writer: &Writer, content: u64) -> bool {
    let bytes = bytes_of(content);
    let kept = || {
        let commit = writer.commit()?;
        let (id, _) = commit.put(&bytes)?;
        let kept = Kept::Stream(Recipe::single(id, bytes.len() as u64));
        commit.publish(RootKind::TEST, &TestRoot(vec![kept]).encode())
    };
    match kept() {
        Ok(root) if content >= PASSING => {
            println!("passing {root}");
            true
        }
        Ok(_) => true,
        // Given up over and over, or what it had stored went with it: the door puts it again later.
        Err(Error::GivenUp { .. } | Error::MissingChunk { .. }) => false,
        Err(error) => panic!("{content}: {error}"),
    }
}

/// Everything that any process has acknowledged by now.
fn acknowledged(dir: &Path) -> BTreeSet<u64> {
    let mut text = String::new();
    File::open(dir.join(ACKNOWLEDGED))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    // The last line may be under way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

fn work(dir: &Path, (vault, writer): (&Vault, &Writer), choices: &mut Choices, is_over: &AtomicBool) {
    let mut log = OpenOptions::new().append(true).open(dir.join(ACKNOWLEDGED)).unwrap();
    let reader = vault.reader().unwrap().following();
    while !is_over.load(Ordering::Relaxed) {
        match choices.below(4) {
            0 => {
                let content = choices.below(KEPT);
                if commit(writer, content) {
                    log.write_all(format!("{content}\n").as_bytes()).unwrap();
                }
            }
            1 => drop(commit(writer, PASSING + choices.below(1000))),
            _ => {
                let known: Vec<u64> = acknowledged(dir).into_iter().collect();
                let Some(content) = known.get(choices.below(known.len().max(1) as u64) as usize) else {
                    continue;
                };
                let bytes = bytes_of(*content);
                let found = reader.chunk(&vault.hasher().id(&bytes));
                assert_eq!(&*found.unwrap_or_else(|error| panic!("{content}: {error}")), &bytes[..]);
            }
        }
    }
}

#[test]
#[ignore = "started by the stress test"]
fn child() {
    let Some((dir, numbers)) = arguments() else { return };
    let (machine, seed, lives) = (numbers[0], numbers[1], Duration::from_millis(numbers[2]));
    let vault = Arc::new(open(&dir, machine));
    let writer = vault.writer(WriterOptions::default()).unwrap();
    let (is_over, born) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (dir, shared, is_over) = (&dir, (&*vault, &writer), &is_over);
            scope.spawn(move || work(dir, shared, &mut Choices((seed + thread * 2) | 1), is_over));
        }
        while born.elapsed() < lives {
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

fn signal(running: &Running, signal: Signal) {
    let _ = kill_process(Pid::from_child(&running.0), signal);
}

/// A process, when it is killed if it is, and until when it is stopped.
pub(crate) struct Peer {
    running: Running,
    killed_at: Option<Instant>,
    stopped_until: Option<Instant>,
}

impl Peer {
    /// Starts `test` as a process of its own, with the arguments of a machine, a seed, and milliseconds to live.
    pub(crate) fn start(
        (test, dir): (&str, &Path),
        machine: u64,
        choices: &mut Choices,
        said: &Sender<String>,
    ) -> Self {
        let (seed, lives) = (choices.below(u64::MAX), 500 + choices.below(4000));
        let is_killed = choices.below(2) == 0;
        let killed_at = is_killed.then(|| Instant::now() + Duration::from_millis(choices.below(4000)));
        let arguments = format!("{machine} {seed} {lives}");
        Self {
            running: start_test(test, (dir, arguments), said),
            killed_at,
            stopped_until: None,
        }
    }

    /// Stops it now and then for some seconds; says whether it is still there, and counts how it ended.
    pub(crate) fn goes_on(&mut self, choices: &mut Choices, failures: &mut u64) -> bool {
        if let Some(status) = self.running.0.try_wait().unwrap() {
            *failures += u64::from(!status.success());
            return false;
        }
        if self.stopped_until.is_some_and(|until| Instant::now() > until) {
            self.stopped_until = None;
            signal(&self.running, Signal::CONT);
        } else if self.stopped_until.is_none() && choices.below(200) == 0 {
            // Long enough for some runs of gc, of which the third gives it up.
            self.stopped_until = Some(Instant::now() + Duration::from_millis(500 + choices.below(5000)));
            signal(&self.running, Signal::STOP);
        }
        self.stopped_until.is_some() || self.killed_at.is_none_or(|at| Instant::now() < at)
    }
}

/// Forgets what has passed, and collects.
pub(crate) fn collect(vault: &Vault, passed: &mut Vec<drystone_format::RootId>) -> (u64, u64) {
    vault.forget(&std::mem::take(passed)).unwrap();
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    match vault.gc(&options) {
        Ok(report) => (report.deleted_packs, report.given_up.len() as u64),
        Err(Error::GivenUp { .. } | Error::Unmarked { .. }) => (0, 0),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_open_processes_acknowledge_is_never_missed() {
    let (seconds, seed) = settings();
    let (dir, fixture, mut choices) = (tempfile::tempdir().unwrap(), Fixture::new(), Choices(seed));
    let store = Arc::new(Local::create(&dir.path().join("vault")).unwrap());
    let vault = fixture.create(store).unwrap().admit_roots(RootKind::TEST).unwrap();
    furnish(dir.path(), &fixture, &vault);
    File::create(dir.path().join(ACKNOWLEDGED)).unwrap();
    let (sender, said) = channel();
    let (mut peers, mut failures, mut passed) = (Vec::new(), 0, Vec::new());
    let (mut deleted, mut given_up, start) = (0, 0, Instant::now());
    let mut next_gc = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        while peers.len() < PROCESSES as usize {
            peers.push(Peer::start(
                ("lasting_stress::child", dir.path()),
                choices.below(PROCESSES),
                &mut choices,
                &sender,
            ));
        }
        peers.retain_mut(|peer| peer.goes_on(&mut choices, &mut failures));
        let roots = said.try_iter().filter_map(|line| {
            let id = line.split("passing ").nth(1)?;
            drystone_format::RootId::from_hex(id)
        });
        passed.extend(roots);
        if Instant::now() >= next_gc {
            let (gone, fenced) = collect(&vault, &mut passed);
            (deleted, given_up) = (deleted + gone, given_up + fenced);
            next_gc = Instant::now() + Duration::from_millis(choices.below(500));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(peers);
    for _ in 0..4 {
        collect(&vault, &mut passed);
    }
    let known = acknowledged(dir.path());
    println!(
        "{} contents acknowledged, {deleted} packs deleted, {given_up} writers given up",
        known.len()
    );
    assert!(known.len() as u64 > seconds && deleted > 0, "seed {seed}");
    // In a short run no process need be stopped for three runs of gc.
    assert!(given_up > 0 || seconds <= 60, "seed {seed}");
    for machine in 0..PROCESSES {
        let vault = open(dir.path(), machine);
        let reader = vault.reader().unwrap();
        for content in &known {
            let bytes = bytes_of(*content);
            let found = reader.chunk(&vault.hasher().id(&bytes));
            assert!(
                found.is_ok_and(|found| *found == bytes[..]),
                "seed {seed}: {content} on {machine}"
            );
        }
        assert_eq!(lines(&check(&vault).problems), "", "seed {seed}");
    }
    assert_eq!(failures, 0, "seed {seed}: a child failed");
}
