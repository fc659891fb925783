//! Closing ranges of numbers, so that the roots in them need no names any more: when a floor may rise, when a registration is dead.
//!
//! - A closed range forgets every object in it, whatever its hash. So a thief of the writer's key who runs ahead of the writer could have
//!   the writer's own roots forgotten. Signatures cannot tell the two apart; only the order of events can.
//! - gc announces a closing in an epoch, waits until lists show it, and lists the roots of all places: it closes only what shows nothing.
//!   A writer publishes, looks at the epochs, and reports only what none of them closes. One of the two sees the other.
//! - So a root that was reported was listed before its range was closed, or its writer was told.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::RegistrationId;
use drystone_format::epoch::{Closing, Closings, EpochName};
use drystone_format::ledger::{Ledger, LedgerName, Numbered};

use super::known::{Known, View};

/// Returns what could be closed: what the ledgers forget by name, without a gap, and of which nothing is left.
///
/// `listed` are the roots that all places together show, every one of them having answered, and none of them append-only. `over` says how many
/// roots a registration has that is over: by its last root, its last presence or the cut of a fence. That may be a thief's word: it decides
/// what is announced, never what is closed.
pub fn closable(view: &View, listed: &BTreeSet<Numbered>, over: &dyn Fn(&RegistrationId) -> Option<u64>) -> Closings {
    let mut closings = Closings::new();
    if !view.unreadable.is_empty() {
        return closings;
    }
    let stated = &view.stated;
    let named = stated.forgotten.iter().map(|root| root.registration);
    let registrations: BTreeSet<RegistrationId> = named.chain(stated.bounds.keys().copied()).collect();
    for registration in registrations {
        let bounds = stated.bounds.get(&registration).copied().unwrap_or_default();
        let floor = contiguous(stated, &registration, bounds.floor, listed);
        let is_there = of(&stated.live, &registration).next().is_some() || has_any(listed, &registration);
        let count = [bounds.end, over(&registration)].into_iter().flatten().min();
        let last = stated.forgotten.range(range(&registration, floor, u64::MAX)).next();
        if !is_there && last.is_none() && count.is_some_and(|count| floor >= count) {
            closings.insert(registration, Closing::Dead);
        } else if floor > bounds.floor {
            closings.insert(registration, Closing::Below(floor));
        }
    }
    closings
}

/// Returns the number up to which every number has a root that is stated, and nothing is listed that is not stated as live.
fn contiguous(stated: &Ledger, registration: &RegistrationId, floor: u64, listed: &BTreeSet<Numbered>) -> u64 {
    let mut at = floor;
    let bad = range(registration, 0, u64::MAX);
    let bad = listed.range(bad).filter(|root| !stated.live.contains_key(root));
    let limit = bad.map(|root| root.number).min().unwrap_or(u64::MAX);
    let is_named = |number: u64| {
        let mut forgotten = stated.forgotten.range(range(registration, number, number));
        let mut live = stated.live.range(range(registration, number, number));
        forgotten.next().is_some() || live.next().is_some()
    };
    while at < limit && is_named(at) {
        at += 1;
    }
    at
}

fn range(registration: &RegistrationId, from: u64, to: u64) -> std::ops::RangeInclusive<Numbered> {
    let bound = |number, byte| Numbered {
        registration: *registration,
        number,
        hash: drystone_format::RootId([byte; 16]),
    };
    bound(from, 0)..=bound(to, 0xff)
}

fn of<'a, T>(roots: &'a BTreeMap<Numbered, T>, registration: &RegistrationId) -> impl Iterator<Item = &'a Numbered> {
    roots.range(range(registration, 0, u64::MAX)).map(|(root, _)| root)
}

fn has_any(roots: &BTreeSet<Numbered>, registration: &RegistrationId) -> bool {
    roots.range(range(registration, 0, u64::MAX)).next().is_some()
}

/// Adds the closings of one more epoch: of each registration the widest counts.
pub fn widen(all: &mut Closings, more: &Closings) {
    for (registration, closing) in more {
        let known = all.entry(*registration).or_insert(*closing);
        *known = (*known).max(*closing);
    }
}

/// Returns true if an epoch that announced `closings` and gave up the registrations `fenced` has nothing more to say than ledgers do: only then may
/// it be dropped, since a writer that missed it is told by the ledgers.
pub fn is_stated(stated: &Ledger, closings: &Closings, fenced: &BTreeSet<RegistrationId>) -> bool {
    let bounds = |registration: &RegistrationId| stated.bounds.get(registration).copied().unwrap_or_default();
    let is_closed = |(registration, closing): (&RegistrationId, &Closing)| {
        let is_below = matches!(closing, Closing::Below(floor) if bounds(registration).floor >= *floor);
        is_below || stated.dead.contains(registration)
    };
    let is_cut =
        |registration: &RegistrationId| stated.dead.contains(registration) || bounds(registration).end.is_some();
    closings.iter().all(is_closed) && fenced.iter().all(is_cut)
}

/// Returns what of the closings that an epoch has `announced` a ledger may state. `again` is what could be closed by ledgers that were read, and
/// roots that were listed, after every list showed the epoch.
pub fn confirmed(announced: &Closings, again: &Closings) -> Closings {
    let both = announced.iter().filter_map(|(registration, one)| {
        let two = again.get(registration)?;
        Some((*registration, (*one).min(*two)))
    });
    both.collect()
}

/// Returns true if what a writer has just published is in a closed range, or in one that may be closed: it must not be reported, and its writer
/// registers anew. `announced` are the closings of all epochs that stand and of all that the writer knew when it registered. `stated` is what
/// the newest ledgers say: read now if [`must_read_ledgers`] holds, else read when the writer registered, after it had read the epochs. A
/// registration that nobody knew before needs none.
pub fn is_closed(root: &Numbered, announced: &Closings, stated: Option<&Ledger>) -> bool {
    let is_announced = announced.get(&root.registration).is_some_and(|closing| match closing {
        Closing::Below(floor) => root.number < *floor,
        Closing::Dead => true,
    });
    is_announced || stated.is_some_and(|stated| stated.forgets(root))
}

/// Returns true if an epoch stands that a writer did not know when it registered. An epoch that announced a closing may be gone by now, but only
/// after a ledger stated the closing and another epoch was put.
pub fn must_read_ledgers(known: &BTreeSet<EpochName>, standing: &BTreeSet<EpochName>) -> bool {
    !standing.is_subset(known)
}

/// Returns the ledgers that may be deleted: those of the `listed` that a ledger carries over which lists show by now. `known` was read after every
/// list showed what its owner has put.
pub fn removable(known: &Known, listed: &BTreeSet<LedgerName>) -> BTreeSet<LedgerName> {
    let carried = known.read().flat_map(|(_, ledger)| &ledger.predecessors);
    carried.filter(|name| listed.contains(name)).copied().collect()
}

#[cfg(test)]
mod tests {
    use drystone_format::ledger::Bounds;

    use super::super::join::tests::{live, root};
    use super::*;

    fn view(live_numbers: &[u64], forgotten: &[u64], bounds: Bounds) -> View {
        let mut stated = Ledger {
            live: live_numbers
                .iter()
                .map(|number| (root(1, *number, 1), live(1)))
                .collect(),
            forgotten: forgotten.iter().map(|number| root(1, *number, 1)).collect(),
            bounds: [(RegistrationId([1; 16]), bounds)].into(),
            ..Ledger::default()
        };
        stated.normalise();
        View {
            stated: stated.into(),
            ..View::default()
        }
    }

    fn closing(view: &View, listed: &[Numbered], over: Option<u64>) -> Option<Closing> {
        let listed = listed.iter().copied().collect();
        closable(view, &listed, &|_| over).remove(&RegistrationId([1; 16]))
    }

    #[test]
    fn floors_rise_over_what_is_named_without_a_gap_and_gone() {
        let none = Bounds::default();
        let below = |floor| Some(Closing::Below(floor));
        assert_eq!(closing(&view(&[], &[0, 1, 2], none), &[], None), below(3));
        assert_eq!(closing(&view(&[], &[0, 2], none), &[], None), below(1), "a gap");
        assert_eq!(
            closing(&view(&[1], &[0, 2], none), &[root(1, 1, 1)], None),
            below(3),
            "a live one stays named"
        );
        assert_eq!(
            closing(&view(&[], &[0, 1, 2], none), &[root(1, 1, 1)], None),
            below(1),
            "one is still there"
        );
        assert_eq!(
            closing(&view(&[], &[0, 1, 2], none), &[root(1, 1, 2)], None),
            below(1),
            "another of its number"
        );
        assert_eq!(closing(&view(&[], &[1], none), &[], None), None);
        let mut unread = view(&[], &[0], none);
        unread.unreadable.insert((1, drystone_format::RootId([1; 16])));
        assert_eq!(closing(&unread, &[], None), None);
    }

    #[test]
    fn registrations_die_when_all_of_their_roots_are_forgotten_and_gone() {
        let end = |end| Bounds { floor: 0, end };
        let dead = Some(Closing::Dead);
        assert_eq!(closing(&view(&[], &[0, 1], end(None)), &[], Some(2)), dead);
        assert_eq!(closing(&view(&[], &[0, 1], end(Some(2))), &[], None), dead);
        assert_eq!(
            closing(&view(&[], &[0, 1], end(Some(2))), &[], Some(9)),
            dead,
            "a fence has cut the rest"
        );
        assert_eq!(
            closing(&view(&[], &[], end(Some(0))), &[], None),
            dead,
            "nothing was ever published"
        );
        assert_ne!(
            closing(&view(&[], &[0, 1], end(None)), &[], Some(3)),
            dead,
            "one was never seen"
        );
        assert_ne!(closing(&view(&[1], &[0], end(None)), &[], Some(2)), dead);
        assert_ne!(closing(&view(&[], &[0, 1], end(None)), &[root(1, 5, 1)], Some(2)), dead);
    }
}
