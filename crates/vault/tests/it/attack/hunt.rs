//! Runs traces, makes those that break a promise small, and says which finding they are.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::attack::oracle::{SENTENCES, Violation};
use crate::attack::trace::{Act, Content, Key, SETTINGS, Step, Trace, Under, What};
use crate::attack::world::World;

/// Findings of security.md that this format does not withstand yet, or nobody has looked for: a hunt must find all of them.
pub(crate) const KNOWN: [&str; 8] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];

/// A trace that takes longer than this hangs.
const TRACE_LIMIT: Duration = Duration::from_secs(120);

/// What a trace breaks.
pub(crate) fn run(trace: &Trace) -> Option<Violation> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let owned = trace.clone();
    std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| replay(&owned)));
        drop(sender.send(outcome));
    });
    let (sentence, what) = match receiver.recv_timeout(TRACE_LIMIT) {
        Ok(Ok(outcome)) => return outcome.err(),
        Ok(Err(panic)) => ("panic", panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => ("hangs", String::new()),
    };
    Some(Violation { sentence, what })
}

fn replay(trace: &Trace) -> Result<(), Violation> {
    let mut world = World::of(trace.setting, &SETTINGS);
    for step in &trace.steps {
        match *step {
            Step::Honest { client, verb, from } => world.honest(client, verb, from)?,
            Step::Attack { at, act } => world.attack(at, act),
        }
    }
    world.finale()
}

/// Leaves out every step without which the same promise is still broken.
pub(crate) fn shrink(trace: &Trace, violation: &Violation) -> (Trace, Violation) {
    let (mut small, mut last) = (trace.clone(), violation.clone());
    loop {
        let before = small.steps.len();
        for at in (0..before).rev() {
            let mut less = small.clone();
            less.steps.remove(at);
            if let Some(found) = run(&less).filter(|found| found.sentence == last.sentence) {
                (small, last) = (less, found);
            }
        }
        if small.steps.len() == before {
            return (small, last);
        }
    }
}

/// The kinds of attack moves of a trace, without which object or place they were aimed at.
fn kinds(trace: &Trace) -> Vec<String> {
    let kind = |step: &Step| match step {
        Step::Attack { act, .. } => Some(match act {
            Act::Put(content, under) => {
                let content = format!("{content:?}");
                let under = format!("{under:?}");
                let head = |text: &str| text.split([' ', '(']).next().unwrap_or_default().to_owned();
                format!("Put {} {}", head(&content), head(&under))
            }
            act => format!("{act:?}").split([' ', ',']).next().unwrap_or_default().to_owned(),
        }),
        Step::Honest { .. } => None,
    };
    let mut kinds: Vec<String> = trace.steps.iter().filter_map(kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Which finding of security.md a minimal trace shows; `None` for one that is not written down there.
pub(crate) fn explain(trace: &Trace, violation: &Violation) -> Option<&'static str> {
    let acts: Vec<Act> = trace
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Attack { act, .. } => Some(*act),
            Step::Honest { .. } => None,
        })
        .collect();
    let any = |test: &dyn Fn(&Act) -> bool| acts.iter().any(test);
    let all = |test: &dyn Fn(&Act) -> bool| !acts.is_empty() && acts.iter().all(test);
    let takes_back = |act: &Act| {
        matches!(
            act,
            Act::Delete(..) | Act::DeleteAll(_) | Act::RollBack(..) | Act::Replay(..) | Act::Hide(..)
        )
    };
    let forges = |act: &Act| matches!(act, Act::Put(content, _) if !matches!(content, Content::Garbage(_)));
    match violation.sentence {
        _ if all(&|act| matches!(act, Act::OtherVault { .. })) => Some("S1"),
        _ if trace.setting().key == Key::Removed && all(&forges) => Some("S4"),
        "old-epoch" | "secrecy" if all(&takes_back) => Some("S5"),
        "moved-vault" if all(&takes_back) => Some("S14"),
        "latest" if all(&forges) => Some("S7"),
        "lost" | "wrong-bytes" | "hidden" | "silent-damage" => {
            let root = |under: fn(&Under) -> bool| {
                move |act: &Act| {
                    matches!(act, Act::Put(Content::Root { .. } | Content::Garbage(_), to) if under(to))
                }
            };
            if all(&root(|under| matches!(under, Under::Announced))) {
                Some("S3")
            } else if all(&root(|under| matches!(under, Under::Existing(_)))) && any(&forges) {
                Some("S2")
            } else if all(&|act| matches!(act, Act::Put(Content::Shard, _))) {
                Some("S6")
            } else {
                None
            }
        }
        "silent-loss" if all(&takes_back) && !any(&|act| matches!(act, Act::Delete(What::Slots, _))) => Some("S8"),
        _ => None,
    }
}

/// A finding, as it was first made.
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) traces: u64,
    pub(crate) elapsed: Duration,
    pub(crate) trace: Trace,
    pub(crate) violation: Violation,
    pub(crate) again: u64,
}

/// What a hunt has found, by finding; what is not in security.md by the promise and the moves.
#[derive(Default)]
pub(crate) struct Hunt {
    pub(crate) traces: u64,
    pub(crate) found: BTreeMap<String, Found>,
    explained: Vec<(usize, &'static str, Vec<String>, String)>,
}

impl Hunt {
    /// Runs the trace of one seed.
    pub(crate) fn try_seed(&mut self, seed: u64, start: Instant) {
        let trace = Trace::generate(seed);
        self.traces += 1;
        let Some(violation) = run(&trace) else { return };
        if let Some(name) = self.known(&trace, &violation) {
            self.found.get_mut(&name).unwrap().again += 1;
            return;
        }
        let (trace, violation) = shrink(&trace, &violation);
        let kinds = kinds(&trace);
        let new = || format!("new: {} by {}", violation.sentence, kinds.join(" + "));
        let name = explain(&trace, &violation).map_or_else(new, |name| format!("{name} {}", violation.sentence));
        self.explained
            .push((trace.setting, violation.sentence, kinds, name.clone()));
        let found = Found {
            seed,
            traces: self.traces,
            elapsed: start.elapsed(),
            trace,
            violation,
            again: 0,
        };
        self.found
            .entry(name)
            .and_modify(|found| found.again += 1)
            .or_insert_with(|| {
                println!("{}", row(&found));
                found
            });
    }

    /// What was found already by the same moves against the same promise in the same setting; it is not made small again.
    fn known(&self, trace: &Trace, violation: &Violation) -> Option<String> {
        let has = kinds(trace);
        let explains = |(setting, sentence, kinds, _): &&(usize, &'static str, Vec<String>, String)| {
            *setting == trace.setting && *sentence == violation.sentence && kinds.iter().all(|kind| has.contains(kind))
        };
        self.explained.iter().find(explains).map(|(.., name)| name.clone())
    }

    /// All of it as a table.
    pub(crate) fn table(&self) -> String {
        let rows = self.found.iter().map(|(name, found)| {
            format!(
                "{name}: after {} traces, {:.1} s, {} more times; {}",
                found.traces,
                found.elapsed.as_secs_f32(),
                found.again,
                row(found)
            )
        });
        let rows: Vec<String> = rows.collect();
        format!("{} traces\n{}", self.traces, rows.join("\n"))
    }

    /// What was found and is not among the known findings.
    pub(crate) fn unexpected(&self) -> Vec<&String> {
        let is_known = |name: &&String| KNOWN.iter().any(|known| is_of(known, name));
        self.found.keys().filter(|name| !is_known(name)).collect()
    }

    /// The known findings that were not made.
    pub(crate) fn lacking(&self) -> Vec<&'static str> {
        let is_lacking = |known: &&str| !self.found.keys().any(|name| is_of(known, name));
        KNOWN.into_iter().filter(is_lacking).collect()
    }
}

/// Whether a name, `S1 secrecy` say, is of this finding.
fn is_of(finding: &str, name: &str) -> bool {
    name.split(' ').next() == Some(finding)
}

fn row(found: &Found) -> String {
    let setting = found.trace.setting();
    let sentence = SENTENCES.iter().find(|(name, _)| *name == found.violation.sentence);
    format!(
        "seed {}, {}: {:?}\n    breaks `{}` ({}): {}",
        found.seed,
        setting.name,
        found.trace,
        found.violation.sentence,
        sentence.map_or("", |(_, text)| text),
        found.violation.what
    )
}
