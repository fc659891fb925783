//! The next ledger: what the newest ones state, and what its writer has to add.
//!
//! - It carries over all that the newest state, so each of them may be deleted once it is durable.
//! - It never names a ledger that could not be read as a predecessor, unless an owner gives that one up by name.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::RegistrationId;
use drystone_format::ledger::{ConfigurationName, KindWord, Ledger, LedgerName, Live, Numbered};
use drystone_format::limits::LEDGER_PREDECESSORS_MAX;

use super::closing::{Closing, Closings};
use super::known::View;

/// What a new ledger adds.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Roots that the owner has read and verified, with their kinds.
    pub seen: BTreeMap<Numbered, KindWord>,
    /// Roots that an owner wants forgotten: named by hash, read or not.
    pub forgotten: BTreeSet<Numbered>,
    /// How many roots of a fenced registration count; those with this number or a higher one are void.
    pub cuts: BTreeMap<RegistrationId, u64>,
    /// Ranges that are closed; see [`confirmed`](super::confirmed).
    pub closed: Closings,
    /// Ledgers that no place gives back, and that an owner no longer waits for: what they alone state is lost.
    pub given_up: BTreeSet<LedgerName>,
    /// The configuration that replaces all that are in force.
    pub configuration: Option<ConfigurationName>,
    /// Index runs that are new.
    pub runs: BTreeSet<Numbered>,
    /// Index runs that those replace.
    pub replaced_runs: BTreeSet<Numbered>,
}

/// Returns the ledger that carries over what `view` says and adds `change`; `None` if that says nothing new, and one ledger says it all.
pub fn next(view: &View, change: &Change) -> Option<Ledger> {
    let mut ledger = view.stated.clone();
    ledger.number = ledger.number.saturating_add(1);
    ledger.forgotten.extend(&change.forgotten);
    for (registration, count) in &change.cuts {
        let bounds = ledger.bounds.entry(*registration).or_default();
        bounds.end = Some(bounds.end.map_or(*count, |end| end.min(*count)));
    }
    for (root, kind) in &change.seen {
        if !ledger.forgets(root) {
            let live = Live {
                kind: *kind,
                first: ledger.number,
            };
            ledger.live.entry(*root).or_insert(live);
        }
    }
    for (registration, closing) in &change.closed {
        match closing {
            Closing::Dead => drop(ledger.dead.insert(*registration)),
            Closing::Below(floor) => {
                let bounds = ledger.bounds.entry(*registration).or_default();
                bounds.floor = bounds.floor.max(*floor);
            }
        }
    }
    if let Some(configuration) = change.configuration {
        ledger.configuration.replace(configuration);
    }
    ledger.runs.heads.extend(&change.runs);
    ledger.runs.superseded.extend(&change.replaced_runs);
    ledger.runs.heads.retain(|run| !change.replaced_runs.contains(run));
    ledger.normalise();
    let is_new = ledger.live != view.stated.live
        || ledger.forgotten != view.stated.forgotten
        || ledger.bounds != view.stated.bounds
        || ledger.dead != view.stated.dead
        || ledger.configuration != view.stated.configuration
        || ledger.runs != view.stated.runs;
    if !is_new && change.given_up.is_empty() && view.newest.len() == 1 {
        return None;
    }
    ledger.predecessors.extend(&view.newest);
    ledger.predecessors.extend(&change.given_up);
    while ledger.predecessors.len() > LEDGER_PREDECESSORS_MAX {
        ledger.predecessors.pop_first();
    }
    Some(ledger)
}
