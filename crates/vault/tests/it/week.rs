//! A week of a door: a thousand small commits an hour by a handle that stays open, with random reads and edits, while gc runs, owners change
//! keys and places, places are away, and the door is started again, stopped and killed.
//!
//! - What the door acknowledged, and nobody forgot, reads back byte for byte after every event: through the handle, and on a machine that has
//!   never seen the vault.
//! - Time is simulated: 3.6 s pass with each commit. A run of hundreds of commits meets every event; the whole week is ignored by default.
//! - `DRYSTONE_WEEK_SEED` repeats the choices of a run, `DRYSTONE_WEEK_COMMITS` says how long the whole one is, `DRYSTONE_WEEK_TELLS` has it tell
//!   what happens.

mod door;
mod files;
mod found;
mod owner;
mod processes;
mod whole;

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drystone_format::RootId;
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Fail, Op};
use drystone_vault::{GcReport, Vault};

use crate::gc_stress::Choices;
use crate::spread_world::{World, change, repair};
use crate::support::{Fixture, begin, check, lines, snapshot};
use door::{Door, History, Machine, Ticking};
use files::{Change, choices, seen};

/// Commits of a week.
const WEEK: u64 = 7 * 24 * 1000;

/// Packs that an open handle may leave to the next gc.
const FRESH: u64 = 8;
/// Small packs that gc leaves alone, since copying does not make them fewer.
const UNFOLDED: u64 = 2;

/// What happens to the vault beside commits and gc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    KeyChange,
    PlaceLost,
    PlaceReplaced,
    Restart,
    CacheLost,
    SlowCommit,
}

const EVENTS: [Event; 6] = [
    Event::KeyChange,
    Event::PlaceLost,
    Event::PlaceReplaced,
    Event::Restart,
    Event::CacheLost,
    Event::SlowCommit,
];

/// How long a run is, and how often something happens, in commits.
#[derive(Debug, Clone, Copy)]
struct Pace {
    commits: u64,
    gc: u64,
    event: u64,
}

/// The seed of a run.
fn seed() -> u64 {
    let given = env::var("DRYSTONE_WEEK_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = given.unwrap_or(now) | 1;
    println!("DRYSTONE_WEEK_SEED={seed}");
    seed
}

/// Resident memory of this process, MiB.
fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages / 256
}

/// Tells how a run goes on, if that is asked for.
fn tell(what: impl FnOnce() -> String) {
    if env::var_os("DRYSTONE_WEEK_TELLS").is_some() {
        println!("{}", what());
    }
}

/// The door over three places in memory, of which one may be away, and the owner's machine.
struct Week {
    seed: u64,
    pace: Pace,
    world: World,
    door_cache: Fixture,
    machine: Machine,
    owner: Machine,
    _owner_cache: Fixture,
    door: Door,
    /// Places that were ever there.
    places: u64,
    fails: Vec<(String, Arc<Fail>)>,
    events: Vec<Event>,
    collected: u64,
    start: Instant,
}

/// A machine with this fixture's key and cache, whose time passes with the commits.
fn machine(world: &World, fixture: &Fixture, clock: &Arc<Ticking>, urls: &[String]) -> Machine {
    let mut context = fixture.context();
    context.clock = clock.clone();
    Machine {
        connect: Arc::new(world.clone()),
        urls: urls.to_vec(),
        context,
        key: fixture.key.clone(),
    }
}

impl Week {
    fn new(seed: u64, pace: Pace) -> Self {
        let (world, door_cache) = (World::default(), Fixture::new());
        let urls: Vec<String> = (0..3).map(|place| format!("mem://{place}")).collect();
        let borrowed: Vec<&str> = urls.iter().map(|url| &**url).collect();
        drop(world.create(&door_cache, &borrowed, (2, 3)));
        let fails = urls.iter().cloned().zip(world.failing(&borrowed)).collect();
        let (clock, owner_cache) = (Arc::new(Ticking::default()), door_cache.elsewhere());
        let of_door = machine(&world, &door_cache, &clock, &urls);
        Self {
            seed,
            pace,
            owner: machine(&world, &owner_cache, &clock, &urls),
            door: Door::open(&of_door, clock, seed, None),
            world,
            door_cache,
            machine: of_door,
            _owner_cache: owner_cache,
            places: 3,
            fails,
            events: Vec::new(),
            collected: 0,
            start: Instant::now(),
        }
    }

    /// Does something beside the commits of the door.
    fn beside<T: Send>(&mut self, event: impl FnOnce(&Machine) -> T + Send) -> T {
        let owner = self.owner.clone();
        std::thread::scope(|scope| {
            let event = scope.spawn(move || event(&owner));
            while !event.is_finished() {
                self.door.commit();
            }
            event.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn commits(&mut self, count: u64) {
        for _ in 0..count {
            self.door.commit();
        }
    }

    /// Forgets and collects beside commits. Every other time gc waits for nobody.
    fn gc(&mut self) {
        let silence = Duration::from_secs(900 * (self.collected % 2));
        let collected = self.beside(|owner| owner::forget_and_collect(&owner.open(), silence));
        self.note_collected(&collected);
    }

    fn note_collected(&mut self, (forgotten, report): &(Vec<RootId>, GcReport)) {
        for root in forgotten {
            self.door.history.remove(root);
        }
        self.collected += 1;
        tell(|| {
            format!(
                "commit {}: forgot {}, deleted {} of {} packs, {} wait for {:?}, {} given up, {} MiB, after {:.0} s",
                self.door.number,
                forgotten.len(),
                report.deleted_packs,
                report.packs,
                report.waiting_packs,
                report.waiting_for,
                report.given_up.len(),
                resident_mib(),
                self.start.elapsed().as_secs_f64(),
            )
        });
    }

    fn event(&mut self, event: Event, choices: &mut Choices) {
        tell(|| format!("commit {}: {event:?}", self.door.number));
        match event {
            Event::KeyChange => self.beside(|owner| owner::change_keys(&owner.open())),
            Event::PlaceLost => self.lose_place(choices),
            Event::PlaceReplaced => self.replace_place(choices),
            Event::Restart => self.door.reopen(&self.machine),
            Event::SlowCommit => self.commit_slowly(),
            Event::CacheLost => {
                self.door.close();
                self.door_cache = self.door_cache.elsewhere();
                self.machine.context.cache_dir = self.door_cache.cache.path().to_owned();
                self.machine.context.known_dir = self.door_cache.cache.path().join("known");
                self.door.reopen(&self.machine);
            }
        }
        self.commits(3);
        self.assert_kept(&format!(
            "seed {}, {event:?} before commit {}",
            self.seed, self.door.number
        ));
    }

    /// A file is deleted, all snapshots that have it are forgotten, and a commit that is under way through two runs of gc stores it again.
    fn commit_slowly(&mut self) {
        let Some((name, gone)) = self.door.files().0.iter().next() else {
            return;
        };
        let (name, gone) = (*name, gone.clone());
        self.door
            .commit_changes(&BTreeMap::from([(name, Change::Delete)]))
            .unwrap();
        // Whoever opened this commit knows all that was condemned before.
        self.commits(2);
        let with_it = self
            .door
            .history
            .iter()
            .filter(|(_, files)| files.0.values().any(|bytes| *bytes == gone));
        let with_it: Vec<RootId> = with_it.map(|(root, _)| *root).collect();
        let owner = self.owner.clone();
        owner.open().forget(&with_it).unwrap();
        self.door.history.retain(|root, _| !with_it.contains(root));
        let mut collected = Vec::new();
        self.door.commit_slowly(gone, || {
            let silence = Duration::from_secs(900);
            collected = (0..2)
                .map(|_| owner::forget_and_collect(&owner.open(), silence))
                .collect();
        });
        collected.iter().for_each(|one| self.note_collected(one));
    }

    /// A place fails all calls for a while, and gc runs meanwhile.
    fn lose_place(&mut self, choices: &mut Choices) {
        let (_, place) = &self.fails[choices.below(3) as usize];
        let place = place.clone();
        for op in [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete] {
            place.add(Fault::error(op, Failure::Unavailable));
        }
        self.commits(2 + choices.below(30));
        self.gc();
        self.commits(2 + choices.below(30));
        place.clear();
        self.door.handle().refresh().unwrap();
        self.commits(2);
    }

    /// Another place comes, everything moves there, and one that was there goes for good.
    fn replace_place(&mut self, choices: &mut Choices) {
        let at = choices.below(3) as usize;
        let old = self.fails[at].0.clone();
        let url = format!("mem://{}", self.places);
        self.places += 1;
        let (place, named) = (self.world.new_place(&url), old.clone());
        let fail = self.world.failing(&[&url]).remove(0);
        self.beside(move |owner| {
            let vault = owner.open();
            let id = vault.find_place(&named).unwrap();
            let mut vault = vault
                .change_places(change(vec![place], vec![id], Some((2, 3))))
                .unwrap();
            // The door may store at the place that goes until it has looked.
            while vault.places().len() > 3 {
                repair(&vault);
                vault = vault.drop_left_places().unwrap();
            }
        });
        self.world.take(&old);
        self.fails[at] = (url, fail);
        let urls: Vec<String> = self.fails.iter().map(|(url, _)| url.clone()).collect();
        (self.machine.urls, self.owner.urls) = (urls.clone(), urls);
    }

    /// What was acknowledged and not forgotten reads back, and nothing is wrong.
    fn assert_kept(&self, what: &str) {
        let handle = self.door.handle();
        let vault = handle.vault();
        whole::assert_all(
            &format!("{what}, the handle"),
            &vault,
            handle.reader().unwrap(),
            &self.door.history,
        );
        owner::assert_kept(&self.owner, what, &self.door.history);
        owner::assert_sound(&self.owner, what);
    }

    /// Everything that happens, in an order that the seed says.
    fn run(&mut self) {
        let mut last_event = 0;
        while self.door.number < self.pace.commits || self.events.len() < EVENTS.len() {
            self.door.commit();
            let number = self.door.number;
            if number.is_multiple_of(self.pace.gc) {
                self.gc();
            }
            let mut choices = choices(self.seed.rotate_left(7), number);
            if choices.below(self.pace.event) == 0 || number > last_event + 2 * self.pace.event {
                last_event = number;
                let event = self.next_event(&mut choices);
                self.event(event, &mut choices);
                self.events.push(event);
            }
        }
    }

    /// One of those that have been least often.
    fn next_event(&self, choices: &mut Choices) -> Event {
        let count = |event: &Event| self.events.iter().filter(|one| *one == event).count();
        let least = EVENTS.iter().map(count).min().unwrap_or(0);
        let due: Vec<Event> = EVENTS.into_iter().filter(|event| count(event) == least).collect();
        due[choices.below(due.len() as u64) as usize]
    }

    /// The packs that are left are hardly more than those of one backup of the same files: while the handle is open, and once it is closed.
    fn assert_few_packs(&mut self) {
        let of_backup = packs_of_backup(&self.door.history);
        // A writer whose place was given up is given up itself after the third look.
        for _ in 0..5 {
            self.commits(2);
            self.collect_alone();
        }
        self.commits(2);
        self.collect_alone();
        let open = owner::packs(&self.owner.open());
        self.door.close();
        self.collect_alone();
        self.collect_alone();
        let closed = owner::packs(&self.owner.open());
        println!("{open} packs, {closed} once the handle is closed, of one backup {of_backup}");
        // The packs of the last commits, and what was condemned and copied since the handle has looked.
        assert!(5 * open <= 6 * of_backup + 5 * FRESH, "seed {}", self.seed);
        assert!(5 * closed <= 6 * of_backup + 5 * UNFOLDED, "seed {}", self.seed);
        self.door.reopen(&self.machine);
    }

    /// Forgets and collects while the door does nothing.
    fn collect_alone(&mut self) {
        let collected = owner::forget_and_collect(&self.owner.open(), Duration::ZERO);
        self.note_collected(&collected);
    }
}

/// The packs of a new vault with the same files in one backup.
fn packs_of_backup(history: &History) -> u64 {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault: Vault = world.create(&fixture, &["mem://a", "mem://b", "mem://c"], (2, 3));
    let named = history.iter().flat_map(|(root, files)| {
        let name = move |file: &u64| format!("{root}-{file:04}");
        files.0.iter().map(move |(file, bytes)| (name(file), seen(bytes)))
    });
    let mut all: Vec<(String, Vec<u8>)> = named.collect();
    all.sort();
    let (ingest, tree) = begin(&vault, all.iter().map(|(name, bytes)| (&**name, &**bytes))).unwrap();
    vault.publish(&snapshot(tree), &ingest.finish().unwrap()).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
    owner::packs(&vault)
}

fn run(pace: Pace) {
    let seed = seed();
    let mut week = Week::new(seed, pace);
    week.run();
    week.assert_kept(&format!("seed {seed}, at the end"));
    week.assert_few_packs();
    week.assert_kept(&format!("seed {seed}, after the last gc"));
    let (door, seconds) = (&week.door, week.start.elapsed().as_secs_f64());
    println!(
        "{} commits in {seconds:.0} s, {} done again, {} reads, {} events, {} runs of gc, {} snapshots and {} files left, {} MiB",
        door.number,
        door.again,
        door.reads(),
        week.events.len(),
        week.collected,
        door.history.len(),
        door.files().0.len(),
        resident_mib()
    );
    week.door.close();
}

#[test]
fn what_a_door_acknowledges_in_hours_is_kept() {
    run(Pace {
        commits: 240,
        gc: 60,
        event: 20,
    });
}

#[test]
#[ignore = "takes minutes: cargo test --release -p drystone-vault --test it -- --ignored week::what_a_door_acknowledges_in_a_week"]
fn what_a_door_acknowledges_in_a_week_is_kept() {
    let commits = env::var("DRYSTONE_WEEK_COMMITS")
        .ok()
        .and_then(|commits| commits.parse().ok());
    run(Pace {
        commits: commits.unwrap_or(WEEK),
        gc: 1000,
        event: 4000,
    });
}
