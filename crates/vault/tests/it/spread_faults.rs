//! Places that fail, lie, are full, slow or torn, before and in the middle of each operation: with any one of three in
//! trouble everything comes out right or as a clear error, and repair brings everything back (I1, I5, I6).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drystone_format::RootId;
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Listed, Memory, Name, Op, Prefix, Store};
use drystone_vault::{Error, GcOptions, RepairOptions, Vault};

use crate::altered::{Alter, Altered};
use crate::spread_damage::scrub_and_repair;
use crate::spread_world::{Switch, Switched, URLS, World, assert_whole, small_files, store_small, try_store};
use crate::support::{Fixture, back_up, check, files, lines, noise, watched};

/// How long a slow place takes for an answer: so long that nobody who waits for it goes unnoticed.
const SLOW: Duration = Duration::from_secs(20);

const OPS: [Op; 5] = [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing answers.
    Silent,
    /// Everything is refused.
    Denied,
    /// Everything fails on the medium.
    Broken,
    /// Says of everything that it is not there, and of lists that they fail.
    Empty,
    Full,
    ReadOnly,
    /// Every get gives a flipped bit.
    Rotten,
    /// Every get gives less than was asked for.
    Short,
    /// Puts store half an object under its name.
    Torn,
    /// Puts and deletes are done, but nobody is told.
    Mute,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Silent,
    Trouble::Denied,
    Trouble::Broken,
    Trouble::Empty,
    Trouble::Full,
    Trouble::ReadOnly,
    Trouble::Rotten,
    Trouble::Short,
    Trouble::Torn,
    Trouble::Mute,
];

impl Trouble {
    /// Whether nothing can be learned from the place.
    fn is_away(self) -> bool {
        matches!(self, Self::Silent | Self::Denied | Self::Broken | Self::Empty)
    }

    fn faults(self) -> Vec<Fault> {
        let all = |failure| OPS.map(|op| Fault::error(op, failure)).to_vec();
        let changes = |failure| vec![Fault::error(Op::Put, failure), Fault::error(Op::Delete, failure)];
        match self {
            Self::Silent => all(Failure::Unavailable),
            Self::Denied => all(Failure::Denied),
            Self::Broken => all(Failure::Io),
            Self::Empty => vec![
                Fault::error(Op::Get, Failure::NotFound),
                Fault::error(Op::Stat, Failure::NotFound),
                Fault::error(Op::List, Failure::Io),
            ],
            Self::Full => vec![Fault::error(Op::Put, Failure::Full)],
            Self::ReadOnly => changes(Failure::ReadOnly),
            Self::Rotten => vec![Fault::altered_get()],
            Self::Short => vec![Fault::short_get(1)],
            Self::Torn => vec![Fault::torn_put(50)],
            Self::Mute => vec![Fault::lost_reply(Op::Put), Fault::lost_reply(Op::Delete)],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    BackUp,
    Read,
    Check,
    Gc,
}

const WORKS: [Work; 4] = [Work::BackUp, Work::Read, Work::Check, Work::Gc];

/// When the trouble begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// Before the vault is opened.
    Before,
    /// When the vault is open, at this call to the place, from 0.
    AtCall(u64),
}

const BEGINS: [Begin; 3] = [Begin::Before, Begin::AtCall(0), Begin::AtCall(5)];

struct Base {
    urls: &'static [&'static str],
    world: World,
    owner: Fixture,
    ids: [RootId; 2],
}

impl Base {
    /// Two snapshots and garbage, two places being enough.
    fn new(urls: &'static [&'static str]) -> Self {
        let (world, owner) = (World::default(), Fixture::new());
        let vault = world.create(&owner, urls, (2, urls.len() as u8));
        let garbage = back_up(&vault, &[("garbage", &noise(9, 9_000))]).unwrap().0;
        let ids = [store_small(&vault, 1), store_small(&vault, 2)];
        vault.forget(&[garbage]).unwrap();
        Self {
            urls,
            world,
            owner,
            ids,
        }
    }

    fn assert_readable(&self, vault: &Vault, case: &str) {
        for (id, seed) in self.ids.iter().zip([1, 2]) {
            let found = files(vault, id).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(found == small_files(seed), "{case}: wrong bytes");
        }
    }
}

fn base() -> &'static Base {
    static THREE: OnceLock<Base> = OnceLock::new();
    THREE.get_or_init(|| Base::new(&URLS))
}

fn of_four() -> &'static Base {
    static FOUR: OnceLock<Base> = OnceLock::new();
    FOUR.get_or_init(|| Base::new(&["mem://a", "mem://b", "mem://c", "mem://d"]))
}

/// What was published.
fn perform(work: Work, base: &Base, vault: &Vault, urls: &[&str], case: &str) -> Option<RootId> {
    match work {
        Work::BackUp => {
            let id = try_store(vault, &small_files(3)).unwrap_or_else(|error| panic!("{case}: {error}"));
            return Some(id);
        }
        Work::Read => base.assert_readable(vault, case),
        Work::Check => {
            // What unlocking found at a place in trouble is told; of snapshots and files nothing is missing.
            let problems = lines(&check(vault).problems);
            assert!(
                problems.lines().all(|line| urls.iter().any(|url| line.contains(url))),
                "{case}: {problems}"
            );
        }
        Work::Gc => match vault.gc(&GcOptions::default()) {
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("mem://") || matches!(error, Error::Unmarked { .. }),
                    "{case}: {text}"
                );
            }
        },
    }
    None
}

/// These places, no more than can be done without, get into trouble.
fn run(base: &'static Base, urls: &[&'static str], trouble: Trouble, work: Work, begin: Begin) {
    let case = format!("{urls:?} of {} {trouble:?} {begin:?}, {work:?}", base.urls.len());
    let (world, fixture) = (base.world.copy(), base.owner.copy());
    let places = world.failing(urls);
    let all = places.clone();
    let start = move || {
        all.iter()
            .for_each(|place| trouble.faults().into_iter().for_each(|fault| place.add(fault)));
    };
    if begin == Begin::Before {
        start();
    }
    let switch = Switch::new(u64::MAX, |_| true, move |_| start());
    for (url, inner) in urls.iter().zip(places) {
        let switch = switch.clone();
        world.show(url, |_| Arc::new(Switched { inner, switch }));
    }
    let vault = world
        .open(&fixture, base.urls)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    if let Begin::AtCall(calls) = begin {
        switch.arm(calls);
    }
    let published = {
        let (case, urls) = (case.clone(), urls.to_vec());
        watched(move || perform(work, base, &vault, &urls, &case))
    };
    world.unveil();
    if begin == Begin::Before && trouble.is_away() {
        // Two of three are most of them, so gc does its work; two of four are not, so that it does nothing.
        let deletes = work == Work::Gc && base.urls.len() == 3;
        for url in base.urls {
            let (now, before) = (world.store(url).contents(), base.world.store(url).contents());
            let is_kept = |name: &Name| !Prefix::Shards.covers(name) || now.contains_key(name);
            let loses = deletes && !urls.contains(url);
            assert_eq!(!before.keys().all(is_kept), loses, "{case}: {url}");
        }
    }
    let vault = world.open(&fixture, base.urls).unwrap();
    assert_eq!(lines(&scrub_and_repair(&vault).problems), "", "{case}");
    let vault = world.open(&fixture, base.urls).unwrap();
    vault
        .gc(&GcOptions::default())
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_whole(&vault);
    // Whatever these places made of it: without as many others nothing is missing.
    let others = base.urls.iter().filter(|url| !urls.contains(url));
    others.take(urls.len()).for_each(|url| drop(world.take(url)));
    let vault = world.open(&fixture, urls).unwrap();
    base.assert_readable(&vault, &case);
    if let Some(id) = published {
        assert!(files(&vault, &id).unwrap() == small_files(3), "{case}");
    }
}

fn matrix(work: Work) {
    for (number, trouble) in TROUBLES.into_iter().enumerate() {
        for (turn, begin) in BEGINS.into_iter().enumerate() {
            // Each place has its turn.
            run(base(), &[URLS[(number + turn) % 3]], trouble, work, begin);
        }
    }
}

#[test]
fn a_place_in_trouble_in_a_backup() {
    matrix(Work::BackUp);
}

#[test]
fn a_place_in_trouble_while_reading() {
    matrix(Work::Read);
}

#[test]
fn a_place_in_trouble_in_a_check() {
    matrix(Work::Check);
}

#[test]
fn a_place_in_trouble_in_gc() {
    matrix(Work::Gc);
}

/// Every two of four places at once.
#[test]
fn two_places_of_four_in_trouble() {
    let urls = of_four().urls;
    let mut pairs = Vec::new();
    for (at, one) in urls.iter().enumerate() {
        pairs.extend(urls.iter().skip(at + 1).map(|other| [*one, *other]));
    }
    for (number, trouble) in TROUBLES.into_iter().enumerate() {
        for (turn, work) in WORKS.into_iter().enumerate() {
            let begin = BEGINS[(number + turn) % BEGINS.len()];
            run(of_four(), &pairs[(number + turn) % pairs.len()], trouble, work, begin);
        }
    }
}

/// A place that takes ages is not waited for: what others have is read from them.
#[test]
fn a_slow_place_is_read_around() {
    let (world, fixture) = (base().world.copy(), base().owner.copy());
    for url in URLS {
        let vault = {
            let place = world.failing(&[url]).remove(0);
            let vault = world.open(&fixture, &URLS).unwrap();
            place.add(Fault::delay(Op::Get, SLOW));
            vault
        };
        let begun = Instant::now();
        let vault = watched(move || {
            base().assert_readable(&vault, url);
            vault
        });
        assert!(begun.elapsed() < SLOW, "{url} was waited for");
        let troubles = vault.troubles();
        let slow = troubles.places.iter().filter(|place| place.slow > 0);
        assert!(slow.clone().all(|place| place.place == url), "{troubles:?}");
        assert!(
            slow.count() == 1 || url != URLS[0],
            "the first place is asked first: {troubles:?}"
        );
        world.unveil();
    }
}

/// A place whose lists do not show what happened of late.
#[derive(Debug)]
struct Stale {
    now: Arc<Memory>,
    listed: Memory,
}

#[async_trait]
impl Alter for Stale {
    fn inner(&self) -> &Memory {
        &self.now
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        self.listed.list(prefix, after, limit).await
    }
}

/// One place lists what was there before a backup and gc, whoever asks, and does not say that it does.
#[test]
fn lists_of_one_place_may_be_stale() {
    for url in URLS {
        let (world, fixture) = (base().world.copy(), base().owner.copy());
        world.show(url, |now| {
            let listed = now.as_ref().clone();
            Arc::new(Altered(Stale { now, listed }))
        });
        let vault = world.open(&fixture, &URLS).unwrap();
        let id = store_small(&vault, 3);
        vault.gc(&GcOptions::default()).unwrap();
        for machine in [fixture.copy(), fixture.elsewhere()] {
            let vault = world.open(&machine, &URLS).unwrap();
            base().assert_readable(&vault, url);
            assert!(files(&vault, &id).unwrap() == small_files(3), "{url}");
            assert_eq!(lines(&check(&vault).problems), "", "{url}");
            vault.repair(&RepairOptions::default()).unwrap();
        }
        world.unveil();
        let vault = world.open(&fixture, &URLS).unwrap();
        assert_eq!(lines(&scrub_and_repair(&vault).problems), "", "{url}");
        vault.gc(&GcOptions::default()).unwrap();
        assert_whole(&vault);
        base().assert_readable(&vault, url);
        assert!(files(&vault, &id).unwrap() == small_files(3), "{url}");
    }
}

#[test]
#[ignore = "minutes: every place, every trouble, from each of the first calls on"]
fn every_trouble() {
    for url in URLS {
        for trouble in TROUBLES {
            for work in WORKS {
                run(base(), &[url], trouble, work, Begin::Before);
                (0..30).for_each(|at| run(base(), &[url], trouble, work, Begin::AtCall(at)));
            }
        }
    }
}
