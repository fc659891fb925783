//! The door as a process of its own over three directories: killed at random, stopped (SIGSTOP) until gc has given it up, without a place.
//!
//! - The door writes down each commit once it is acknowledged; the parent plays the same commits and so knows what must be there.
//! - A door that starts again goes on after the last commit that was acknowledged. What it had published beyond is a snapshot of nobody.
//! - `DRYSTONE_WEEK_ROUNDS` says how often something happens, at least once each.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use drystone_format::RootId;
use drystone_store::{Local, Store};
use drystone_vault::{Connect, Vault};
use rustix::process::{Pid, Signal, kill_process};

use super::door::{Door, History, Machine, Ticking};
use super::files::{Files, choices};
use super::{owner, seed, tell, whole};
use crate::gc_stress::{Choices, Running, arguments, furnish, start_test};
use crate::spread_world::{create_over, new_place};
use crate::support::{Fixture, context_in};

const PLACES: [&str; 3] = ["place0", "place1", "place2"];
/// Where the door writes down the number and the root of each commit that was acknowledged, one a line.
const ACKNOWLEDGED: &str = "acknowledged";
/// Looks of gc at a door that is stopped. The third gives it up.
const LOOKS_MAX: u32 = 6;
/// A door that acknowledges nothing for so long hangs. A door without a parent ends by itself after that.
const PATIENCE: Duration = Duration::from_secs(180);

/// Directories by their paths.
struct Directories;

impl Connect for Directories {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        Ok(Arc::new(Local::open(Path::new(url))?))
    }
}

fn urls(dir: &Path) -> Vec<String> {
    let path = |place: &&str| dir.join(place).to_str().unwrap().to_owned();
    PLACES.iter().map(path).collect()
}

fn machine(dir: &Path, number: u64, clock: &Arc<Ticking>) -> Machine {
    let mut context = context_in(&dir.join(format!("cache{number}")));
    context.clock = clock.clone();
    Machine {
        connect: Arc::new(Directories),
        urls: urls(dir),
        context,
        key: fs::read_to_string(dir.join(format!("key{number}"))).unwrap(),
    }
}

/// Every commit that was acknowledged by now.
fn acknowledged(dir: &Path) -> Vec<(u64, RootId)> {
    let text = fs::read_to_string(dir.join(ACKNOWLEDGED)).unwrap();
    let commit = |line: &str| {
        let (number, root) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), RootId::from_hex(root).unwrap())
    };
    // The last line may be under way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(commit).collect()
}

#[test]
#[ignore = "started by the test of processes"]
fn child() {
    let Some((dir, numbers)) = arguments() else { return };
    let clock = Arc::new(Ticking::default());
    let last = acknowledged(&dir).pop();
    let mut door = Door::open(&machine(&dir, 0, &clock), clock, numbers[0], last);
    let mut log = OpenOptions::new().append(true).open(dir.join(ACKNOWLEDGED)).unwrap();
    let born = Instant::now();
    while born.elapsed() < 2 * PATIENCE {
        let number = door.number;
        let root = door.commit();
        log.write_all(format!("{number} {root}\n").as_bytes()).unwrap();
        door.history.clear();
    }
}

/// What the parent knows of the door.
struct Watch {
    dir: PathBuf,
    seed: u64,
    clock: Arc<Ticking>,
    owner: Machine,
    said: Sender<String>,
    running: Option<Running>,
    number: u64,
    files: Files,
    history: History,
    forgotten: BTreeSet<RootId>,
    given_up: u64,
}

impl Watch {
    fn start(&mut self) {
        let arguments = self.seed.to_string();
        self.running = Some(start_test("week::processes::child", (&self.dir, arguments), &self.said));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.running.as_ref().unwrap().0), signal).unwrap();
    }

    /// Plays the commits that were acknowledged since the last time.
    fn catch_up(&mut self) {
        for (number, root) in acknowledged(&self.dir) {
            if number < self.number {
                continue;
            }
            assert_eq!(number, self.number);
            let changes = self.files.changes(self.seed, number);
            self.files.apply(&changes);
            self.history.insert(root, self.files.clone());
            self.number += 1;
        }
        self.history.retain(|root, _| !self.forgotten.contains(root));
        self.clock.set(self.number);
    }

    /// Waits until the door has acknowledged so many more commits.
    fn wait_for(&mut self, commits: u64) {
        let (until, start) = (self.number + commits, Instant::now());
        while self.number < until {
            let ended = self.running.as_mut().unwrap().0.try_wait().unwrap();
            assert!(ended.is_none(), "seed {}: the door ended: {ended:?}", self.seed);
            assert!(start.elapsed() < PATIENCE, "seed {}: the door hangs", self.seed);
            std::thread::sleep(Duration::from_millis(5));
            self.catch_up();
        }
    }

    /// Forgets and collects; returns how many writers were given up.
    fn collect(&mut self) -> u64 {
        let (forgotten, report) = owner::forget_and_collect(&self.owner.open(), Duration::ZERO);
        self.forgotten.extend(forgotten);
        self.catch_up();
        tell(|| {
            format!(
                "commit {}: deleted {} of {} packs, {} given up",
                self.number,
                report.deleted_packs,
                report.packs,
                report.given_up.len()
            )
        });
        report.given_up.len() as u64
    }

    /// Stops the door until gc has given it up. Then it goes on by itself.
    fn stop(&mut self) {
        self.signal(Signal::STOP);
        let mut given_up = 0;
        for _ in 0..LOOKS_MAX {
            given_up += self.collect();
            if given_up > 0 {
                break;
            }
        }
        assert!(given_up > 0, "seed {}: the door was not given up", self.seed);
        self.given_up += given_up;
        self.assert_kept("stopped");
        self.signal(Signal::CONT);
        self.wait_for(10);
        self.collect();
    }

    /// Takes a directory away for a while, and collects meanwhile.
    fn lose_place(&mut self, choices: &mut Choices) {
        let place = self.dir.join(PLACES[choices.below(3) as usize]);
        let away = self.dir.join("away");
        fs::rename(&place, &away).unwrap();
        self.wait_for(2 + choices.below(10));
        self.collect();
        self.wait_for(2 + choices.below(10));
        fs::rename(&away, &place).unwrap();
        self.wait_for(2);
    }

    fn kill(&mut self, choices: &mut Choices) {
        std::thread::sleep(Duration::from_millis(choices.below(100)));
        self.running = None;
        self.catch_up();
    }

    /// Everything that was acknowledged and not forgotten reads back, with this cache and without any.
    fn assert_kept(&self, what: &str) {
        let what = format!("seed {}, {what} before commit {}", self.seed, self.number);
        let vault = self.owner.open();
        whole::assert_all(&what, &vault, vault.reader().unwrap(), &self.history);
        owner::assert_kept(&self.owner, &what, &self.history);
    }
}

fn create(dir: &Path, fixture: &Fixture) -> Vault {
    let create = |url: &String| Arc::new(Local::create(Path::new(url)).unwrap()) as Arc<dyn Store>;
    let urls = urls(dir);
    let places = urls.iter().map(|url| new_place(url, create(url)));
    create_over(fixture, places.collect(), (2, 3))
}

#[test]
fn what_a_door_acknowledges_survives_kills_and_stops() {
    let (seed, dir, fixture) = (seed(), tempfile::tempdir().unwrap(), Fixture::new());
    let vault = create(dir.path(), &fixture);
    furnish(dir.path(), &fixture, &vault);
    drop(vault);
    File::create(dir.path().join(ACKNOWLEDGED)).unwrap();
    let clock = Arc::new(Ticking::default());
    let mut watch = Watch {
        dir: dir.path().to_owned(),
        seed,
        owner: machine(dir.path(), 2, &clock),
        clock,
        // What the child prints of itself says nothing.
        said: channel().0,
        running: None,
        number: 0,
        files: Files::default(),
        history: History::new(),
        forgotten: BTreeSet::new(),
        given_up: 0,
    };
    let rounds = env::var("DRYSTONE_WEEK_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let mut choices = choices(seed, u64::MAX);
    for round in 0..rounds.unwrap_or(3_u64).max(3) {
        watch.start();
        watch.wait_for(8 + choices.below(25));
        watch.collect();
        match round % 3 {
            0 => watch.stop(),
            1 => watch.lose_place(&mut choices),
            _ => {}
        }
        watch.kill(&mut choices);
        watch.assert_kept("killed");
        owner::assert_sound(&watch.owner, &format!("seed {seed}, round {round}"));
    }
    println!(
        "{} commits acknowledged, {} writers given up",
        watch.number, watch.given_up
    );
}
