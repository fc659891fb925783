//! Runs traces, makes those that break a promise small, and says which finding they are.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::attack::oracle::{SENTENCES, Violation};
use crate::attack::trace::{Act, Content, Key, SETTINGS, Step, Trace, Under, What};
use crate::attack::world::World;

/// Findings that this commit does not withstand, if there are any: a long hunt must make the first ones again, or the attacker has become blind.
pub(crate) const KNOWN: [&str; 0] = [];
/// So many of them must be found.
const MUST: usize = 0;

/// What is still promised against a former owner, who has the vault's signing key for ever (docs/threat-model.md, "A former owner").
const AGAINST_FORMER_OWNERS: [&str; 4] = ["wrong-bytes", "endless", "panic", "hangs"];

/// A trace that takes longer than this hangs.
const TRACE_LIMIT: Duration = Duration::from_secs(120);

/// What a trace breaks of what is promised against its attacker.
pub(crate) fn run(trace: &Trace) -> Option<Violation> {
    let is_former_owner = trace.setting().key == Key::FormerOwner;
    let promised: &'static [&'static str] = match is_former_owner {
        true => &AGAINST_FORMER_OWNERS,
        false => &[],
    };
    run_judged(trace, promised)
}

/// What a trace breaks of these sentences; of all, if none is named.
pub(crate) fn run_judged(trace: &Trace, promised: &'static [&'static str]) -> Option<Violation> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let owned = trace.clone();
    std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| replay(&owned, promised)));
        drop(sender.send(outcome));
    });
    let (sentence, what) = match receiver.recv_timeout(TRACE_LIMIT) {
        Ok(Ok(outcome)) => return outcome.err(),
        Ok(Err(panic)) => ("panic", panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => ("hangs", String::new()),
    };
    Some(Violation { sentence, what })
}

fn replay(trace: &Trace, promised: &[&str]) -> Result<(), Violation> {
    let mut world = World::of(trace.setting, &SETTINGS);
    for step in &trace.steps {
        match *step {
            Step::Honest { client, verb, from } => of(promised, world.honest(client, verb, from))?,
            Step::Attack { at, act } => world.attack(at, act),
            Step::Ambush { call, at, act } => world.ambush(call, at, act),
        }
    }
    of(promised, world.finale())
}

/// The outcome of a step, if what it breaks is one of these sentences.
fn of(promised: &[&str], outcome: Result<(), Violation>) -> Result<(), Violation> {
    outcome.or_else(|violation| {
        let is_promised = promised.is_empty() || promised.contains(&violation.sentence);
        if is_promised { Err(violation) } else { Ok(()) }
    })
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
    let head = |text: String| text.split([' ', '(', ',']).next().unwrap_or_default().to_owned();
    let kind = |act: Act| match act {
        Act::Put(content, under) => format!("Put {} {}", head(format!("{content:?}")), head(format!("{under:?}"))),
        Act::OtherVault { .. } => "OtherVault".to_owned(),
        act => format!("{act:?}")
            .split(',')
            .next()
            .unwrap_or_default()
            .replace('(', " ")
            .replace(')', ""),
    };
    let mut kinds: Vec<String> = trace.steps.iter().filter_map(Step::act).map(kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Which finding a minimal trace shows: by number those of the security review (S), of others of that day (A6, B1), or made by
/// this attacker first (R). `None` for what nobody has written down.
pub(crate) fn explain(trace: &Trace, violation: &Violation) -> Option<&'static str> {
    let acts: Vec<Act> = trace.steps.iter().filter_map(Step::act).collect();
    let all = |test: &dyn Fn(&Act) -> bool| !acts.is_empty() && acts.iter().all(test);
    let sentence = violation.sentence;
    let takes_back = |what: &[What]| {
        let what = what.to_vec();
        move |act: &Act| match act {
            Act::Delete(taken, _)
            | Act::DeleteAll(taken)
            | Act::RollBack(taken, _)
            | Act::Replay(taken, _)
            | Act::Hide(taken, _) => what.contains(taken),
            _ => false,
        }
    };
    let forges = |act: &Act| matches!(act, Act::Put(content, _) if !matches!(content, Content::Garbage(_)));
    let puts_root = |under: fn(&Under) -> bool| move |act: &Act| matches!(act, Act::Put(Content::Root { .. } | Content::Garbage(_), to) if under(to));
    let shows_mark = |act: &Act| matches!(act, Act::Replay(What::Mark, _));
    // Together with it, what takes another copy away, or spoils the one that stands in.
    let is_away = |act: &Act| {
        matches!(
            act,
            Act::OtherVault { .. } | Act::Delete(..) | Act::DeleteAll(_) | Act::Flip(..) | Act::Put(Content::Shard, _)
        )
    };
    let is_lost = ["lost", "wrong-bytes", "hidden", "silent-damage", "silent-loss"].contains(&sentence);
    if acts.is_empty() {
        return match sentence {
            "keep-rules" => Some("B1"),
            "old-epoch" => Some("A6"),
            _ => None,
        };
    }
    if all(&|act| matches!(act, Act::OtherVault { .. })) {
        return Some("S1");
    }
    if is_lost && all(&puts_root(|under| matches!(under, Under::Announced))) {
        return Some("S3");
    }
    if is_lost && all(&forges) && all(&puts_root(|under| matches!(under, Under::Existing(_)))) {
        return Some("S2");
    }
    if is_lost && all(&|act| matches!(act, Act::Put(Content::Shard, _))) {
        return Some("S6");
    }
    // Which of two slots of one epoch counts is chance, so that garbage beside them may not be left out.
    if trace.setting().key == Key::FormerOwner && acts.iter().any(forges) && all(&|act| matches!(act, Act::Put(..))) {
        return Some("S4");
    }
    match sentence {
        // Slots that are rolled back close what was written since as well: those who have it see the rest as damage.
        "old-epoch" | "secrecy" | "hidden" | "lost" if all(&takes_back(&[What::Slots, What::Any])) => Some("S5"),
        "moved-vault" if all(&takes_back(&[What::Header, What::Slots, What::Packs, What::Any])) => Some("S14"),
        "latest" if all(&forges) => Some("S7"),
        "revoked" if all(&puts_root(|_| true)) => Some("R2"),
        "silent-loss" if all(&takes_back(&[What::Roots, What::Any, What::Epochs, What::Ledgers])) => Some("S8"),
        "lost" | "hidden" | "revived" if acts.iter().any(shows_mark) && all(&|act| shows_mark(act) || is_away(act)) => {
            Some("R1")
        }
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
        KNOWN.into_iter().take(MUST).filter(is_lacking).collect()
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
