//! The worlds in which the model is checked, and the bugs that are found in them.

use stateright::{Checker, HasDiscoveries, Model};

use super::{Action, Begins, Bug, Change, Fencing, Lasting, WORLD, World};

/// Checks a world; how many states it has, and what is wrong with it.
fn explore(world: World) -> (usize, Vec<&'static str>) {
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    let (model, found) = (checker.model(), checker.discoveries());
    for (name, path) in found.iter().filter(|_| model.bug == Bug::None) {
        println!("{name}:");
        for (state, action) in path.clone().into_vec() {
            match action {
                Some(Action::Step(at)) => println!("  {at} {:?}", model.programs[at][state.actors[at].at]),
                Some(action) => println!("  {action:?}"),
                None => println!("  {state:#?}"),
            }
        }
    }
    (checker.unique_state_count(), found.into_keys().collect())
}

/// With one run of each kind, or one after the other.
fn small() -> Vec<(&'static str, World)> {
    vec![
        (
            "a writer and a gc",
            World {
                packs: vec![0],
                ..WORLD
            },
        ),
        (
            "a writer and a gc, stale lists",
            World {
                packs: vec![0],
                stale: true,
                ..WORLD
            },
        ),
        (
            "a writer, and one gc after another",
            World {
                gcs: 2,
                packs: vec![0],
                last: Begins::Over,
                ..WORLD
            },
        ),
        (
            "a writer and a gc that crash anywhere, and a gc after them",
            World {
                gcs: 2,
                judge: true,
                packs: vec![0, 1],
                fencing: Fencing::Last,
                ..WORLD
            },
        ),
    ]
}

/// With more at once.
fn busy() -> Vec<(&'static str, World)> {
    vec![
        (
            "two writers and a gc",
            World {
                writers: 2,
                packs: vec![0],
                fencing: Fencing::Last,
                ..WORLD
            },
        ),
        (
            "two gcs, and two packs that hold the same",
            World {
                writers: 0,
                gcs: 2,
                packs: vec![0, 0],
                root: true,
                fencing: Fencing::Last,
                ..WORLD
            },
        ),
        (
            "a writer and two gcs",
            World {
                gcs: 2,
                packs: vec![0],
                last: Begins::Condemned,
                fencing: Fencing::Last,
                ..WORLD
            },
        ),
        (
            "a writer and two gcs that wait",
            World {
                gcs: 2,
                packs: vec![0],
                last: Begins::Condemned,
                fencing: Fencing::Never,
                ..WORLD
            },
        ),
    ]
}

/// With puts that reach too few places.
fn torn() -> Vec<(&'static str, World)> {
    vec![
        (
            "a writer and a gc, torn puts",
            World {
                packs: vec![0],
                tears: true,
                ..WORLD
            },
        ),
        (
            "a writer, and one gc after another, torn puts",
            World {
                gcs: 2,
                packs: vec![0],
                last: Begins::Over,
                tears: true,
                fencing: Fencing::Last,
                ..WORLD
            },
        ),
        (
            "a writer, and one gc after another that fences, torn puts",
            World {
                gcs: 2,
                packs: vec![0],
                last: Begins::Over,
                tears: true,
                ..WORLD
            },
        ),
    ]
}

/// With a writer that publishes two roots, the second of which ends its registration.
fn advancing() -> Vec<(&'static str, World)> {
    let two = World {
        advances: 2,
        packs: vec![0, 1],
        ..WORLD
    };
    vec![
        ("two roots and a gc", two.clone()),
        (
            "two roots and a gc, a place hides the first",
            World {
                hides: true,
                ..two.clone()
            },
        ),
        (
            "two roots, and one gc after another",
            World {
                gcs: 2,
                last: Begins::Over,
                fencing: Fencing::Last,
                ..two.clone()
            },
        ),
        (
            "two roots and two gcs",
            World {
                gcs: 2,
                last: Begins::Condemned,
                fencing: Fencing::Last,
                ..two.clone()
            },
        ),
        (
            "two roots and a gc, torn puts",
            World {
                tears: true,
                fencing: Fencing::Last,
                ..two
            },
        ),
        (
            "a writer, a thief of its key, and a gc",
            World {
                packs: vec![0],
                gcs: 2,
                last: Begins::Over,
                forges: true,
                ..WORLD
            },
        ),
    ]
}

/// With handles that stay open.
fn lasting() -> Vec<(&'static str, World)> {
    let one = World {
        lasting: Lasting::AfterRoots,
        packs: vec![0],
        ..WORLD
    };
    let two = World {
        advances: 2,
        packs: vec![0, 1],
        ..one.clone()
    };
    // The first two commits store what they need; the third relies on a pack.
    let three = World {
        advances: 3,
        packs: vec![2],
        fencing: Fencing::Never,
        ..one.clone()
    };
    let last = |world: &World| World {
        fencing: Fencing::Last,
        ..world.clone()
    };
    let never = |world: &World| World {
        fencing: Fencing::Never,
        ..world.clone()
    };
    vec![
        ("a handle and a gc", one.clone()),
        ("a handle of two roots and a gc", last(&two)),
        (
            "a handle that advances at work and a gc, stale lists",
            World {
                lasting: Lasting::AtWork,
                stale: true,
                ..never(&one)
            },
        ),
        (
            "a handle that advances at work and a gc",
            World {
                lasting: Lasting::AtWork,
                ..two.clone()
            },
        ),
        (
            "a handle with three commits at once and a gc",
            World {
                lasting: Lasting::Overlapping,
                ..three.clone()
            },
        ),
        (
            "a handle, and one gc after another",
            World {
                gcs: 2,
                last: Begins::Over,
                ..one.clone()
            },
        ),
        (
            "a handle of three roots, and one gc after another",
            World {
                gcs: 2,
                last: Begins::Over,
                ..three
            },
        ),
        (
            "two handles of two roots and a gc",
            World {
                writers: 2,
                ..last(&two)
            },
        ),
        (
            "a handle whose key is removed, and a gc",
            World {
                change: Change::Key,
                ..last(&one)
            },
        ),
        (
            "a handle whose place is given up, and a gc",
            World {
                change: Change::Place,
                ..last(&one)
            },
        ),
        (
            "two handles, a key that is removed, and a gc",
            World {
                writers: 2,
                change: Change::Key,
                ..last(&one)
            },
        ),
    ]
}

/// Small worlds that between them have everything.
fn worlds() -> Vec<(&'static str, World)> {
    [small(), busy(), torn(), advancing(), lasting()].concat()
}

/// One of those that take longer than a test may.
const LARGE: &str = "a writer and two gcs";
/// All of them.
const LARGEST: [&str; 4] = [
    LARGE,
    "two roots and two gcs",
    "two handles of two roots and a gc",
    "two handles, a key that is removed, and a gc",
];

fn assert_sound(worlds: impl Iterator<Item = (&'static str, World)>) {
    for (name, world) in worlds {
        let (states, wrong) = explore(world.built(Bug::None));
        println!("{name}: {states} states");
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        assert!(states > 500, "{name}: {states}");
    }
}

#[test]
fn nor_one_with_handles_that_stay_open() {
    assert_sound(lasting().into_iter().filter(|(name, _)| !LARGEST.contains(name)));
}

#[test]
fn no_interleaving_breaks_what_was_reported() {
    let ending = [small(), busy(), torn(), advancing()].concat();
    assert_sound(ending.into_iter().filter(|(name, _)| !LARGEST.contains(name)));
}

#[test]
#[ignore = "minutes: cargo test --release -p drystone-vault gc_model -- --ignored"]
fn nor_does_one_of_a_larger_world() {
    let ending = [busy(), advancing()].concat();
    assert_sound(ending.into_iter().filter(|(name, _)| LARGEST.contains(name)));
}

#[test]
#[ignore = "minutes: cargo test --release -p drystone-vault gc_model -- --ignored"]
fn nor_does_one_with_two_handles() {
    assert_sound(lasting().into_iter().filter(|(name, _)| LARGEST.contains(name)));
}

#[test]
fn seeded_bugs_are_found() {
    let bugs = [
        (Bug::ReadsFirst, "a writer and a gc"),
        (Bug::OldList, "a writer and a gc"),
        (Bug::ForgetsCondemned, "a writer and two gcs that wait"),
        (Bug::NoLook, "a writer and a gc"),
        (Bug::NoSecondMark, "a writer and a gc"),
        (Bug::IgnoresWriters, "a writer and a gc"),
        (Bug::RootsFirst, "a writer and a gc"),
        (Bug::LateEpochs, "two gcs, and two packs that hold the same"),
        (Bug::KeepsCondemned, "a writer and a gc"),
        (Bug::DropsEarly, "a writer and two gcs that wait"),
        (Bug::DropsLast, "a writer, and one gc after another"),
        (Bug::ForgetsVoid, "a writer, and one gc after another"),
        (Bug::LookIgnoresLedgers, "a writer, and one gc after another"),
        (Bug::NoSettling, "a writer and a gc, stale lists"),
        (Bug::NoConfirming, "a writer, and one gc after another, torn puts"),
        (Bug::SkipsRoots, "two roots and a gc, a place hides the first"),
        (Bug::BelievesThief, "a writer, a thief of its key, and a gc"),
        (Bug::CutsAll, "two roots and a gc"),
        (Bug::ClaimsTooMuch, "a handle of two roots and a gc"),
        (Bug::CutIsEnough, LARGE),
        (Bug::AdvancesOverWork, "a handle that advances at work and a gc"),
        (Bug::ClaimsForOthers, "a handle with three commits at once and a gc"),
        (Bug::LeavesBetween, "a handle that advances at work and a gc"),
        (Bug::LeavesEarly, "a handle that advances at work and a gc, stale lists"),
        (Bug::ForgetsGone, "a handle of three roots, and one gc after another"),
        (Bug::AnewOldList, "a handle of two roots and a gc"),
        (Bug::NoRecheck, "a handle and a gc"),
        (Bug::LetsItselfBack, "a handle of two roots and a gc"),
        (Bug::ConfigBefore, "a handle whose place is given up, and a gc"),
        (Bug::ConfigFirst, "a handle whose place is given up, and a gc"),
        (Bug::NoNotice, "a handle whose place is given up, and a gc"),
        (Bug::CopiesFirst, "a handle whose place is given up, and a gc"),
        (Bug::StatesFirst, "a handle whose key is removed, and a gc"),
        (Bug::RemovesEarly, "a handle whose key is removed, and a gc"),
    ];
    for (bug, world) in bugs {
        let (_, world) = worlds().into_iter().find(|(name, _)| *name == world).unwrap();
        let (states, wrong) = explore(world.built(bug));
        println!("{bug:?}: {states} states");
        assert!(wrong.contains(&"what was reported is whole"), "{bug:?} is not found");
    }
}
