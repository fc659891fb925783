//! The worlds in which the model is checked, and the bugs that are found in them.

use stateright::{Checker, HasDiscoveries, Model};

use super::{Action, Bug, CLEAN, CLOSE, FORGET, GC, Op, REVIVE, STATE, WORLD, World, ledger, root};

const KEPT: &str = "what was reported is kept";
const WINS: &str = "forgotten wins";
const CLOSED: &str = "a range is closed";
const GONE: &str = "garbage goes";

/// Checks a world; how many states it has, and what was found: of the first two that it fails, of the others that it happens.
fn explore(world: World) -> (usize, Vec<&'static str>) {
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let (model, found) = (checker.model(), checker.discoveries());
    for (name, path) in &found {
        if model.bug == Bug::None && [KEPT, WINS].contains(name) {
            println!("{name}:");
            for (state, action) in path.clone().into_vec() {
                match action {
                    Some(Action::Step { at, mask, lie, fences }) => {
                        let op = model.programs[at][state.actors[at].at];
                        println!("  {at} {op:?} {mask:b} {lie:?} {fences}");
                    }
                    Some(action) => println!("  {action:?}"),
                    None => println!("  {state:#?}"),
                }
            }
        }
    }
    (checker.unique_state_count(), found.into_keys().collect())
}

/// A writer that publishes its second root and its third.
const WRITER: &[Op] = &[Op::Register, Op::Publish(1), Op::Look(1), Op::Publish(2), Op::Look(2)];
/// The same, and nothing more than the second.
const SHORT: &[Op] = &[Op::Register, Op::Publish(1), Op::Look(1)];
/// Who stole its key, and is faster.
const THIEF: &[Op] = &[Op::Fork(1)];

/// A writer, a thief of its key, and an owner that forgets what the thief published.
fn thief() -> World {
    let [first, forged, other] = [root(1, 0, 0), root(1, 1, 1), root(2, 0, 0)];
    World {
        actors: vec![vec![SHORT], vec![THIEF], vec![FORGET, GC]],
        forget: vec![first, forged],
        published: vec![other],
        ledgers: vec![ledger(1, &[other], &[first])],
        ended: Some(2),
        ..WORLD
    }
}

/// The thief is at work beside the writer.
fn beside() -> Vec<(&'static str, World)> {
    vec![
        (
            "a writer, a thief of its key, and gc",
            World {
                actors: vec![vec![WRITER], vec![THIEF], vec![FORGET, GC, GC]],
                ..thief()
            },
        ),
        (
            "a writer, a thief of its key, and gc, stale lists",
            World { stale: true, ..thief() },
        ),
        (
            "a writer, a thief of its key, and gc that fences",
            World {
                actors: vec![vec![SHORT], vec![THIEF], vec![FORGET, GC, GC]],
                fences: Some(1),
                ..thief()
            },
        ),
        (
            "a writer, a thief of its key, and two gcs",
            World {
                actors: vec![vec![SHORT], vec![THIEF], vec![FORGET, GC], vec![GC]],
                fences: Some(2),
                ..thief()
            },
        ),
        (
            "a writer, and a thief of its key with one place of three",
            World {
                places: 3,
                least: 2,
                lies: true,
                ..thief()
            },
        ),
        (
            "a writer, a thief of its key, and places that are away",
            World {
                places: 3,
                least: 2,
                away: true,
                ..thief()
            },
        ),
    ]
}

/// The thief was there before the writer, and is forgotten.
fn behind() -> Vec<(&'static str, World)> {
    let [first, forged, other] = [root(1, 0, 0), root(1, 1, 1), root(2, 0, 0)];
    vec![
        (
            "a writer behind a thief of its key, and two gcs",
            World {
                actors: vec![vec![SHORT], vec![GC], vec![GC]],
                ledgers: vec![ledger(1, &[other], &[first, forged])],
                fences: Some(2),
                ..thief()
            },
        ),
        (
            "a writer behind a thief of its key, and two gcs that close",
            World {
                actors: vec![vec![SHORT], vec![CLOSE], vec![CLOSE]],
                ledgers: vec![ledger(1, &[other], &[first, forged])],
                fences: Some(2),
                ..thief()
            },
        ),
        (
            "a writer behind a thief of its key, and one gc after another",
            World {
                actors: vec![vec![SHORT], vec![GC, GC]],
                ledgers: vec![ledger(1, &[other], &[first, forged])],
                fences: Some(2),
                ..thief()
            },
        ),
        (
            "a writer behind a thief of its key, and places that are away",
            World {
                actors: vec![vec![SHORT], vec![FORGET, GC]],
                published: vec![other, forged],
                places: 3,
                least: 2,
                away: true,
                ..thief()
            },
        ),
    ]
}

/// Owners, and places that lie to them.
fn owners() -> Vec<(&'static str, World)> {
    let [first, other] = [root(1, 0, 0), root(2, 0, 0)];
    vec![
        (
            "months without an owner",
            World {
                actors: vec![vec![SHORT], vec![FORGET, GC]],
                published: vec![first, other, root(3, 0, 0)],
                forget: vec![other],
                ..WORLD
            },
        ),
        (
            "months without an owner, and then two gcs",
            World {
                actors: vec![vec![WRITER], vec![FORGET, GC], vec![GC]],
                published: vec![first, other, root(3, 0, 0)],
                forget: vec![other],
                ..WORLD
            },
        ),
        (
            "two owners that forget and revive",
            World {
                actors: vec![vec![FORGET, GC], vec![REVIVE, GC]],
                published: vec![first, other],
                forget: vec![first],
                ..WORLD
            },
        ),
        (
            "two owners that forget and revive, stale lists",
            World {
                actors: vec![vec![FORGET, GC], vec![REVIVE]],
                published: vec![first, other],
                forget: vec![first],
                stale: true,
                ..WORLD
            },
        ),
        (
            "owners that never meet",
            World {
                places: 2,
                least: 1,
                away: true,
                actors: vec![vec![FORGET], vec![STATE], vec![GC]],
                published: vec![first, other],
                forget: vec![first],
                ..WORLD
            },
        ),
        (
            "a writer without a mirror, and gc",
            World {
                places: 2,
                away: true,
                actors: vec![vec![SHORT], vec![GC]],
                published: vec![first],
                ..WORLD
            },
        ),
        (
            "one place of three that lies",
            World {
                places: 3,
                least: 2,
                lies: true,
                actors: vec![vec![FORGET, GC], vec![STATE]],
                published: vec![first, other],
                forget: vec![first],
                ledgers: vec![ledger(1, &[first], &[root(3, 0, 0)])],
                ..WORLD
            },
        ),
        (
            "the only place lies to a machine that remembers",
            World {
                lies: true,
                actors: vec![vec![STATE, GC]],
                published: vec![first, other],
                ledgers: vec![ledger(1, &[first, other], &[])],
                remembered: true,
                ..WORLD
            },
        ),
    ]
}

/// Puts that reach too few places, and places that keep all.
fn broken() -> Vec<(&'static str, World)> {
    let [first, other] = [root(1, 0, 0), root(2, 0, 0)];
    let torn = World {
        places: 3,
        least: 2,
        away: true,
        tears: true,
        actors: vec![vec![FORGET], vec![STATE], vec![GC]],
        published: vec![first, other],
        forget: vec![first],
        ..WORLD
    };
    let append_only = World {
        places: 3,
        least: 2,
        away: true,
        append_only: true,
        actors: vec![vec![FORGET, GC], vec![STATE, GC]],
        published: vec![first, other],
        forget: vec![first],
        ..WORLD
    };
    vec![
        (
            "an append-only place, and places that are away",
            World {
                actors: vec![vec![FORGET], vec![GC]],
                ..append_only.clone()
            },
        ),
        ("an append-only place, places that are away, and two gcs", append_only),
        (
            "puts that reach too few places",
            World {
                actors: vec![vec![FORGET], vec![GC]],
                ..torn.clone()
            },
        ),
        (
            "a put that reaches too few places, and the end of a gc",
            World {
                actors: vec![vec![STATE], vec![CLEAN]],
                published: vec![other],
                ledgers: vec![ledger(1, &[], &[first]), ledger(1, &[other], &[])],
                ..torn.clone()
            },
        ),
        ("puts that reach too few places, and three owners", torn),
    ]
}

fn worlds() -> Vec<(&'static str, World)> {
    [beside(), behind(), owners(), broken()].concat()
}

/// What takes longer than a test may.
const LARGE: [&str; 6] = [
    "a writer, a thief of its key, and places that are away",
    "puts that reach too few places, and three owners",
    "months without an owner, and then two gcs",
    "an append-only place, places that are away, and two gcs",
    "a writer, a thief of its key, and two gcs",
    "a writer behind a thief of its key, and two gcs",
];

/// What must happen somewhere, or the world shows nothing.
fn assert_sound(worlds: impl Iterator<Item = (&'static str, World)>) {
    let (mut total, mut closed, mut gone) = (0, 0, 0);
    for (name, world) in worlds {
        let start = std::time::Instant::now();
        let (states, found) = explore(world.built(Bug::None));
        println!("{name}: {states} states, {:?}, {found:?}", start.elapsed());
        assert!(!found.contains(&KEPT) && !found.contains(&WINS), "{name}: {found:?}");
        total += states;
        closed += usize::from(found.contains(&CLOSED));
        gone += usize::from(found.contains(&GONE));
    }
    println!("{total} states; a range is closed in {closed} worlds, garbage goes in {gone}");
    assert!(closed > 0 && gone > 0);
}

#[test]
fn no_interleaving_breaks_the_rules() {
    assert_sound(worlds().into_iter().filter(|(name, _)| !LARGE.contains(name)));
}

#[test]
#[ignore = "minutes: cargo test --release -p drystone-vault ledger_model -- --ignored"]
fn nor_does_one_of_larger_worlds() {
    assert_sound(worlds().into_iter().filter(|(name, _)| LARGE.contains(name)));
}

#[test]
fn seeded_bugs_are_found() {
    let bugs = [
        (Bug::HighestWins, "two owners that forget and revive"),
        (Bug::NoCarry, "two owners that forget and revive"),
        (Bug::DropsForgotten, "one place of three that lies"),
        (Bug::UnstatedIsGone, "months without an owner"),
        (
            Bug::IgnoresUnreadable,
            "the only place lies to a machine that remembers",
        ),
        (Bug::IgnoresMissing, "the only place lies to a machine that remembers"),
        (Bug::NoAnnouncement, "a writer, a thief of its key, and gc"),
        (Bug::NoSecondList, "a writer, a thief of its key, and gc"),
        (Bug::LookIgnoresEpochs, "a writer, a thief of its key, and gc"),
        (
            Bug::LookIgnoresLedgers,
            "a writer behind a thief of its key, and one gc after another",
        ),
        (
            Bug::ResumesBlind,
            "a writer behind a thief of its key, and one gc after another",
        ),
        (Bug::GoesOnBlind, "a writer without a mirror, and gc"),
        (Bug::NoSettling, "two owners that forget and revive, stale lists"),
        (Bug::RemovesUncarried, "two owners that forget and revive"),
        (
            Bug::RemovesForTorn,
            "a put that reaches too few places, and the end of a gc",
        ),
        (Bug::RevivesInPlace, "two owners that forget and revive"),
        (Bug::SupersedesUnread, "the only place lies to a machine that remembers"),
        (Bug::NumberIsEnough, "a writer, a thief of its key, and gc"),
        (
            Bug::DropsEpochsEarly,
            "a writer behind a thief of its key, and two gcs that close",
        ),
        (Bug::NoConfirming, "puts that reach too few places"),
        (Bug::ForgetsCuts, "a writer, a thief of its key, and gc that fences"),
    ];
    let mut missed = Vec::new();
    for (bug, world) in bugs {
        let (_, world) = worlds().into_iter().find(|(name, _)| *name == world).unwrap();
        let (states, wrong) = explore(world.built(bug));
        println!("{bug:?}: {states} states, {wrong:?}");
        if !wrong.contains(&KEPT) && !wrong.contains(&WINS) {
            missed.push(bug);
        }
    }
    println!("{} bugs", bugs.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
