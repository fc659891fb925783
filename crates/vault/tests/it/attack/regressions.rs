//! Minimal traces of what the attacker has found, each as it was printed.
//!
//! - The trace of a finding that is mended must break no promise.
//! - As long as a finding is among [`KNOWN`], its trace must break one, or the attacker has become blind to it.

use crate::attack::hunt::{KNOWN, explain, run, run_judged};
use crate::attack::trace::Act::{Delete, DeleteAll, OtherVault, Put, Replay, RollBack};
use crate::attack::trace::Client::{Home, Web};
use crate::attack::trace::Content::{Garbage, Ledger, Places, Root, Shard, Slots};
use crate::attack::trace::Step::{Attack, Honest};
use crate::attack::trace::Under::{Announced, Existing, Fresh};
use crate::attack::trace::Verb::{Backup, Begin, Finish, Rekey};
use crate::attack::trace::What::{Any, Header, Mark, Roots};
use crate::attack::trace::{Act, Client, Content, SETTINGS, Step, Trace, Verb};

/// One step of an honest machine that names all places.
const fn does(client: Client, verb: Verb) -> Step {
    Honest { client, verb, from: 8 }
}

/// A root that claims to be of an honest machine's host, an hour from now.
const FORGED: Content = Root {
    forges_host: true,
    hours: 1,
    has_file: false,
};

/// Finding, setting, steps.
type Known = (&'static str, &'static str, Vec<Step>);

fn traces() -> Vec<Known> {
    [first_traces(), later_traces()].concat()
}

const fn act(at: u8, act: Act) -> Step {
    Attack { at, act }
}

const fn other(same_id: bool) -> Step {
    act(0, OtherVault { same_id })
}

/// S1 to S7.
fn first_traces() -> Vec<Known> {
    vec![
        ("S1", "the only place", vec![other(false), does(Home, Backup(3))]),
        ("S1", "a writer and the only place", vec![other(true)]),
        ("S1", "one place of three", vec![other(true)]),
        (
            "S2",
            "a writer and one place of three",
            vec![act(0, Put(FORGED, Existing(0)))],
        ),
        (
            "S3",
            "a writer, one place that only adds",
            vec![does(Home, Begin(1)), act(0, Put(Garbage(Header), Announced))],
        ),
        (
            "S3",
            "a writer, three places that only add",
            vec![does(Home, Begin(1)), act(0, Put(FORGED, Announced)), does(Home, Finish)],
        ),
        (
            "S4",
            "a former owner, a mirror that only adds",
            vec![act(0, Put(Slots(7), Fresh)), does(Web, Backup(2))],
        ),
        (
            "S4",
            "a former owner, one place that only adds",
            vec![act(0, Put(Ledger, Fresh))],
        ),
        (
            "S4",
            "a former owner, a mirror that only adds",
            vec![act(2, Put(Places(7), Fresh))],
        ),
        (
            "S5",
            "the only place",
            vec![act(0, RollBack(Any, 0)), does(Home, Backup(4))],
        ),
        ("S5", "one place of three", vec![act(0, RollBack(Any, 0))]),
        (
            "S6",
            "a writer and one place of three",
            (0..64).map(|pick| act(0, Put(Shard, Existing(pick)))).collect(),
        ),
        (
            "S7",
            "a writer, one place that only adds",
            vec![act(0, Put(FORGED, Fresh))],
        ),
    ]
}

/// S8 and what was found after the review.
fn later_traces() -> Vec<Known> {
    vec![
        ("S8", "the only place", vec![act(0, Delete(Roots, 0))]),
        ("S8", "the only place", vec![act(0, DeleteAll(Roots))]),
        (
            "S14",
            "the only place",
            vec![act(0, DeleteAll(Any)), does(Web, Backup(2))],
        ),
        ("A6", "one place of three", vec![does(Web, Begin(2)), does(Home, Rekey)]),
        (
            "B1",
            "one place of three",
            vec![
                does(Home, Verb::BackupAhead),
                does(Home, Backup(2)),
                does(Home, Verb::Forget(1)),
            ],
        ),
        (
            "R1",
            "one place of three",
            vec![
                act(0, Replay(Mark, 0)),
                Honest {
                    client: Home,
                    verb: Backup(4),
                    from: 10,
                },
            ],
        ),
        (
            "R1",
            "two places of five",
            vec![
                act(199, OtherVault { same_id: false }),
                act(234, Replay(Mark, 112)),
                Honest {
                    client: Home,
                    verb: Begin(4),
                    from: 12,
                },
            ],
        ),
        (
            "R2",
            "a removed writer, one place that only adds",
            vec![act(0, Put(FORGED, Fresh))],
        ),
        (
            "R2",
            "a removed member and one place of three",
            vec![act(1, Put(FORGED, Fresh))],
        ),
    ]
}

#[test]
fn what_was_found_breaks_no_promise_any_more() {
    let mut wrong = Vec::new();
    for (finding, name, steps) in traces() {
        let setting = SETTINGS.iter().position(|setting| setting.name == name).unwrap();
        let trace = Trace { setting, steps };
        let violation = run(&trace);
        let explained = violation.as_ref().map(|violation| explain(&trace, violation));
        let expected = KNOWN.contains(&finding).then_some(Some(finding));
        if explained != expected {
            wrong.push(format!("{finding}: {trace:?} breaks {violation:?}, {explained:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// docs/threat-model.md says what a former owner can do: he must be able to, or the attacker has become blind.
#[test]
fn a_former_owner_can_do_what_nobody_promises_against() {
    for (finding, name, steps) in traces().into_iter().filter(|(finding, ..)| *finding == "S4") {
        let setting = SETTINGS.iter().position(|setting| setting.name == name).unwrap();
        let trace = Trace { setting, steps };
        let violation = run_judged(&trace, &[]).unwrap_or_else(|| panic!("{trace:?} does nothing"));
        assert_eq!(
            explain(&trace, &violation),
            Some(finding),
            "{trace:?} breaks {violation:?}"
        );
    }
}
