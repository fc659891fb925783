//! A randomised attacker: seeded traces of what a writer, a place, both together, a removed owner or two places of five may do,
//! against the sentences of docs/threat-model.md as assertions. docs/decisions/0019-attacker.md says what it has found.
//!
//! - `trace.rs` draws traces from seeds, `moves.rs` and `honest.rs` perform them, `oracle.rs` judges, `hunt.rs` makes small.
//! - All that knows the format is in `world.rs` and `forge.rs`; `spot.rs` is a place.
//! - Attacks are moves on objects and things that keys can sign, never whole recipes for an attack.

mod forge;
mod honest;
mod hunt;
mod moves;
mod oracle;
mod regressions;
mod spot;
mod trace;
mod world;

use std::time::{Duration, Instant};

use crate::attack::hunt::{Hunt, run};
use crate::attack::trace::{Act, Client, Content, SETTINGS, Setting, Trace, Under, Verb};
use crate::attack::world::World;
use crate::support::files;

/// Seeds of the test that always runs.
const SEEDS: u64 = 40;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Without an attacker nothing is broken and nothing is told.
#[test]
fn an_honest_world_breaks_no_promise() {
    for (setting, Setting { name, .. }) in SETTINGS.iter().enumerate() {
        let steps = Vec::new();
        assert_eq!(run(&Trace { setting, steps }), None, "{name}");
    }
}

/// What keys can seal is made, and a root of a writer's is one that counts: otherwise nothing that is forged would test anything.
#[test]
fn what_the_attacker_seals_is_no_garbage() {
    let named = |wanted| SETTINGS.iter().position(|setting| setting.name == wanted).unwrap();
    let root = Content::Root {
        forges_host: true,
        hours: 1,
        has_file: true,
    };
    for name in [
        "a writer and one place of three",
        "a former owner and one place of three",
    ] {
        let mut world = World::of(named(name), &SETTINGS);
        world.honest(Client::Desk, Verb::Begin(1), 8).unwrap();
        // A former owner does not know the key epoch of all packs.
        let by_writer = [Content::Pack, Content::Shard, Content::Verified, Content::Header];
        let by_all = [
            root,
            Content::Presence,
            Content::Epoch,
            Content::Ledger,
            Content::Places(1),
        ];
        let by_writer = by_writer.into_iter().filter(|_| name.starts_with("a writer"));
        for content in by_writer.chain(by_all) {
            for under in [Under::Fresh, Under::Existing(3)] {
                assert_ne!(world.forge(content, under), Vec::new(), "{name}: {content:?} {under:?}");
            }
        }
        let is_owner = name.starts_with("a former owner");
        assert_eq!(
            world.forge(Content::Slots(1), Under::Fresh).is_empty(),
            !is_owner,
            "{name}"
        );
        world.attack(1, Act::Put(root, Under::Fresh));
        let vault = world.open(Client::Home, 8).unwrap();
        let (listed, problems) = vault.snapshots().unwrap();
        assert_eq!((listed.len(), problems.count()), (world.acked.len() + 1, 0), "{name}");
        let (id, _) = listed
            .iter()
            .find(|(id, _)| world.acked.iter().all(|acked| acked.id != *id))
            .unwrap();
        assert_eq!(files(&vault, id).unwrap().len(), 1, "{name}");
    }
}

/// A few traces, the same ones every time; `DRYSTONE_ATTACK_SEED` runs one other.
#[test]
fn a_few_attacks_find_nothing_new() {
    let (first, count) = variable("DRYSTONE_ATTACK_SEED").map_or((0, SEEDS), |seed| (seed, 1));
    let (mut hunt, start) = (Hunt::default(), Instant::now());
    for seed in first..first + count {
        hunt.try_seed(seed, start);
    }
    assert_eq!(hunt.unexpected(), Vec::<&String>::new(), "{}", hunt.table());
}

/// The long run: all known findings are found, and no others.
#[test]
#[ignore = "long; DRYSTONE_ATTACK_SECONDS says how long, 600 by default"]
fn a_long_attack() {
    let limit = Duration::from_secs(variable("DRYSTONE_ATTACK_SECONDS").unwrap_or(600));
    let first = variable("DRYSTONE_ATTACK_SEED").unwrap_or(0);
    let (mut hunt, start) = (Hunt::default(), Instant::now());
    for seed in first.. {
        if start.elapsed() > limit {
            break;
        }
        hunt.try_seed(seed, start);
    }
    println!("{}", hunt.table());
    assert_eq!(hunt.lacking(), Vec::<&str>::new(), "not found");
    assert_eq!(hunt.unexpected(), Vec::<&String>::new());
}
