//! What gc knows of the registrations, put together from presences and roots: which are over, and which epochs the others
//! have read. Pure, like `protocol.rs`.
//!
//! - A statement (presence or root) counts once every root up to its advance was read: numbers without gaps, each root the
//!   one that the next states as its predecessor. A root that an owner forgot counts as read.
//! - A registration is over by a statement of its own that counts, unless a presence says that it is at work: a thief of the key can say that it
//!   is over while it is not. Such a one is fenced first. It is over also by a cut if every root that counts was read and none that it states is
//!   missing.
//! - Only what the writer has signed comes here; the callers have verified it.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::epoch::EpochName;
use drystone_format::ledger::Numbered;
use drystone_format::root::RootName;
use drystone_format::{RegistrationId, RootId};

use crate::gc::standing::Standing;

/// A presence that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registered {
    /// The writer.
    pub id: RegistrationId,
    /// How often it has renewed its presence.
    pub beat: u64,
    /// The epochs that it claims to know in all that it does after its advance.
    pub seen: BTreeSet<EpochName>,
    /// Number and hash of its last root.
    pub advance: Option<(u64, RootId)>,
    /// Packs of the registration with a lower number are published or abandoned.
    pub packs: u64,
    /// Whether it says that nothing follows.
    pub is_over: bool,
}

/// A root that was found: what it says of its writer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Published {
    /// The hash of the root before it.
    pub previous: Option<RootId>,
    /// The epochs that its writer claims to know in all that it does after it.
    pub seen: BTreeSet<EpochName>,
    /// Packs of the registration with a lower number are published or abandoned.
    pub packs: u64,
    /// Whether it is the last of its registration.
    pub is_last: bool,
}

/// The roots that were found and read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Roots(BTreeMap<RegistrationId, BTreeMap<(u64, RootId), Published>>);

impl Roots {
    /// Takes in one more root.
    pub fn insert(&mut self, root: &RootName, published: Published) {
        let chain = self.0.entry(root.registration).or_default();
        chain.insert((root.number, root.hash), published);
    }

    /// Leaves only those that are still listed.
    pub fn retain(&mut self, listed: &BTreeSet<Numbered>) {
        for (registration, chain) in &mut self.0 {
            chain.retain(|&(number, hash), _| {
                listed.contains(&Numbered {
                    registration: *registration,
                    number,
                    hash,
                })
            });
        }
        self.0.retain(|_, chain| !chain.is_empty());
    }

    /// Returns true if this root was read.
    pub fn has(&self, root: &RootName) -> bool {
        let chain = self.0.get(&root.registration);
        chain.is_some_and(|chain| chain.contains_key(&(root.number, root.hash)))
    }
}

/// Whether gc may go on though roots are missing that their writers state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gaps {
    /// It keeps everything that such a writer may rely on.
    #[default]
    Keep,
    /// An owner said that the roots are lost: a writer that was given up is over all the same.
    Accept,
}

/// What is known of one registration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    aware: BTreeSet<EpochName>,
    is_over: bool,
    says_over: bool,
    ends_by_root: bool,
    is_cut: bool,
    life: u64,
    published: u64,
    published_packs: u64,
    missing: Option<u64>,
}

/// What is known of all registrations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registrations(BTreeMap<RegistrationId, Known>);

impl Registrations {
    /// Puts together what the presences `writers` and the `roots` say; `standing` tells what is cut or forgotten.
    pub fn new(writers: &[Registered], roots: &Roots, standing: &Standing, gaps: Gaps) -> Self {
        let mut statements: BTreeMap<RegistrationId, Vec<&Registered>> = BTreeMap::new();
        for writer in writers {
            statements.entry(writer.id).or_default().push(writer);
        }
        for registration in roots.0.keys() {
            statements.entry(*registration).or_default();
        }
        let mut forgotten: BTreeMap<RegistrationId, BTreeSet<(u64, RootId)>> = BTreeMap::new();
        for root in &standing.stated().forgotten {
            if statements.contains_key(&root.registration) {
                let its = forgotten.entry(root.registration).or_default();
                its.insert((root.number, root.hash));
            }
        }
        let (no_roots, none_forgotten) = (BTreeMap::new(), BTreeSet::new());
        let known = statements.into_iter().map(|(registration, presences)| {
            let chain = Chain {
                roots: roots.0.get(&registration).unwrap_or(&no_roots),
                forgotten: forgotten.get(&registration).unwrap_or(&none_forgotten),
                floor: standing.floor(&registration),
            };
            let known = chain.judge(&presences, standing.cut(&registration), gaps);
            (registration, known)
        });
        Self(known.collect())
    }

    /// Returns true if a presence or a root of this writer was found.
    pub fn is_known(&self, writer: &RegistrationId) -> bool {
        self.0.contains_key(writer)
    }

    /// Returns true if nothing that this writer relies on is unmarked: it has said its last, or was given up. A writer of
    /// which nothing is known is not over.
    pub fn is_over(&self, writer: &RegistrationId) -> bool {
        self.0.get(writer).is_some_and(|known| known.is_over)
    }

    /// Returns true if a statement says that this writer is over, though a presence says that it is at work. After a normal end that is so until the
    /// presence is removed, which a kill or a place that only adds can prevent.
    pub fn is_contradicted(&self, writer: &RegistrationId) -> bool {
        let known = self.0.get(writer);
        known.is_some_and(|known| known.says_over && !known.is_over)
    }

    /// Writers at work.
    pub fn running(&self) -> impl Iterator<Item = &RegistrationId> {
        self.0.iter().filter(|(_, known)| !known.is_over).map(|(id, _)| id)
    }

    /// Returns true if a writer at work may not have published the pack with this number: gc leaves it alone.
    pub fn may_be_unpublished(&self, writer: &RegistrationId, pack: u64) -> bool {
        let known = self.0.get(writer);
        known.is_some_and(|known| !known.is_over && pack >= known.published_packs)
    }

    /// Writers with roots that say only by a presence that they are over.
    pub fn over_by_presence(&self) -> impl Iterator<Item = &RegistrationId> {
        let is_meant = |known: &Known| known.is_over && !known.ends_by_root && !known.is_cut && known.published > 0;
        self.0
            .iter()
            .filter(move |(_, known)| is_meant(known))
            .map(|(id, _)| id)
    }

    /// A number that grows with every sign of life of a writer.
    pub fn life(&self, writer: &RegistrationId) -> u64 {
        self.0.get(writer).map_or(0, |known| known.life)
    }

    /// How many roots a writer has published, as far as is known: one more than the highest number.
    pub fn published(&self, writer: &RegistrationId) -> u64 {
        self.0.get(writer).map_or(0, |known| known.published)
    }

    /// Writers that may rely on what `epoch` names, beside `own`.
    pub fn unaware(&self, epoch: &EpochName, own: &RegistrationId) -> BTreeSet<RegistrationId> {
        let unaware =
            |(id, known): &(&RegistrationId, &Known)| *id != own && !known.is_over && !known.aware.contains(epoch);
        self.0.iter().filter(unaware).map(|(id, _)| *id).collect()
    }

    /// Registrations that state roots that are neither here nor forgotten, and the highest number that is missing.
    pub fn missing(&self) -> impl Iterator<Item = (&RegistrationId, u64)> {
        self.0.iter().filter_map(|(id, known)| Some((id, known.missing?)))
    }
}

/// The roots of one registration, found and forgotten.
struct Chain<'a> {
    roots: &'a BTreeMap<(u64, RootId), Published>,
    forgotten: &'a BTreeSet<(u64, RootId)>,
    /// What has a lower number was read or forgotten long ago.
    floor: u64,
}

impl Chain<'_> {
    fn judge(&self, presences: &[&Registered], cut: Option<u64>, gaps: Gaps) -> Known {
        let complete = self.complete();
        let is_complete = |name: &(u64, RootId)| name.0 < self.floor || complete.contains(name);
        let stated = presences.iter().filter_map(|presence| presence.advance);
        let stated: BTreeSet<(u64, RootId)> = stated.chain(self.roots.keys().copied()).collect();
        let mut known = Known {
            is_cut: cut.is_some(),
            ..Known::default()
        };
        let mut state = |advance: Option<(u64, RootId)>, seen: &BTreeSet<EpochName>, packs: u64, is_over: bool| {
            if advance.is_none_or(|advance| is_complete(&advance)) {
                known.aware.extend(seen);
                known.published_packs = known.published_packs.max(packs);
                known.says_over |= is_over;
            }
        };
        for presence in presences {
            state(presence.advance, &presence.seen, presence.packs, presence.is_over);
        }
        for (name, root) in self.roots {
            state(Some(*name), &root.seen, root.packs, root.is_last);
        }
        known.is_over = known.says_over && presences.iter().all(|presence| presence.is_over);
        let is_end = |(name, root): (&(u64, RootId), &Published)| root.is_last && is_complete(name);
        known.ends_by_root = self.roots.iter().any(is_end);
        let missing = stated.iter().filter(|name| !is_complete(name));
        known.missing = missing.map(|(number, _)| self.first_missing(*number, &complete)).max();
        // Who cut it may have read roots that this gc has not listed yet.
        let has_number = |number: u64| number < self.floor || complete.iter().any(|(found, _)| *found == number);
        let is_read = |count: u64| count.checked_sub(1).is_none_or(has_number) && known.missing.is_none();
        known.is_over |= cut.is_some_and(|count| is_read(count) || gaps == Gaps::Accept);
        let published = stated
            .iter()
            .chain(self.forgotten)
            .map(|(number, _)| number.saturating_add(1));
        known.published = published.max().unwrap_or(0).max(self.floor);
        let beats = presences.iter().map(|presence| presence.beat.saturating_add(1));
        known.life = beats.max().unwrap_or(0).saturating_add(known.published);
        known
    }

    /// Roots up to which every root is here or forgotten.
    fn complete(&self) -> BTreeSet<(u64, RootId)> {
        let mut complete: BTreeSet<(u64, RootId)> = BTreeSet::new();
        let mut forgotten = self.forgotten.iter().peekable();
        let has_number = |complete: &BTreeSet<(u64, RootId)>, number: u64| {
            let (first, last) = (RootId([0; RootId::LEN]), RootId([u8::MAX; RootId::LEN]));
            complete.range((number, first)..=(number, last)).next().is_some()
        };
        let take = |complete: &mut BTreeSet<(u64, RootId)>, number: u64, hash: RootId| {
            // What a forgotten root said of the one before it is not known any more.
            let follows = |before: u64| before < self.floor || has_number(complete, before);
            if number.checked_sub(1).is_none_or(follows) {
                complete.insert((number, hash));
            }
        };
        for ((number, hash), root) in self.roots {
            while let Some((lost, its)) = forgotten.next_if(|(lost, _)| lost <= number) {
                take(&mut complete, *lost, *its);
            }
            let follows = match (number.checked_sub(1), root.previous) {
                (None, _) => true,
                (Some(before), _) if before < self.floor => true,
                (Some(before), Some(previous)) => complete.contains(&(before, previous)),
                (Some(_), None) => false,
            };
            if follows {
                complete.insert((*number, *hash));
            }
        }
        for (lost, its) in forgotten {
            take(&mut complete, *lost, *its);
        }
        complete
    }

    /// The highest number up to `number` of which no complete root is known.
    fn first_missing(&self, number: u64, complete: &BTreeSet<(u64, RootId)>) -> u64 {
        let last = complete.range(..(number, RootId([0; RootId::LEN]))).next_back();
        let here = |number: u64| self.roots.keys().any(|(found, _)| *found == number);
        let lowest = last.map_or(0, |(number, _)| number.saturating_add(1)).max(self.floor);
        // A root that is here but does not follow what it should is told by its own number.
        (lowest..=number).find(|number| !here(*number)).unwrap_or(number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drystone_format::ledger::{Bounds, Ledger};
    use drystone_format::root::RootKind;

    use super::*;

    const WRITER: RegistrationId = RegistrationId([7; 16]);

    fn hash(number: u8) -> RootId {
        RootId([number + 1; 16])
    }

    fn epoch(number: u64) -> EpochName {
        (number, RootId([0xee; 16]))
    }

    fn root(number: u8) -> RootName {
        RootName {
            kind: RootKind::SNAPSHOT,
            registration: WRITER,
            number: number.into(),
            hash: hash(number),
        }
    }

    /// Roots of these numbers, each of which has seen the epoch of its number.
    fn roots(numbers: &[u8], last: Option<u8>) -> Roots {
        let mut roots = Roots::default();
        for number in numbers {
            let published = Published {
                previous: number.checked_sub(1).map(hash),
                seen: [epoch((*number).into())].into(),
                packs: u64::from(*number) + 1,
                is_last: last == Some(*number),
            };
            roots.insert(&root(*number), published);
        }
        roots
    }

    fn presence(advance: Option<u8>, is_over: bool) -> Registered {
        Registered {
            id: WRITER,
            beat: 1,
            seen: [epoch(100)].into(),
            advance: advance.map(|number| (number.into(), hash(number))),
            packs: advance.map_or(0, |number| u64::from(number) + 1),
            is_over,
        }
    }

    fn stating(ledger: Ledger) -> Standing {
        let mut standing = Standing::default();
        standing.set_stated(Arc::new(ledger));
        standing
    }

    fn forgetting(numbers: &[u8]) -> Standing {
        let forgotten = numbers.iter().map(|number| Numbered {
            registration: WRITER,
            number: (*number).into(),
            hash: hash(*number),
        });
        stating(Ledger {
            forgotten: forgotten.collect(),
            ..Ledger::default()
        })
    }

    fn bounded(floor: u64, end: Option<u64>) -> Standing {
        stating(Ledger {
            bounds: [(WRITER, Bounds { floor, end })].into(),
            ..Ledger::default()
        })
    }

    fn judged(writers: &[Registered], roots: &Roots, standing: &Standing) -> Registrations {
        Registrations::new(writers, roots, standing, Gaps::Keep)
    }

    #[test]
    fn statements_count_once_every_root_up_to_their_advance_is_read() {
        let is_aware =
            |found: &Registrations, number| found.unaware(&epoch(number), &RegistrationId([0; 16])).is_empty();
        let standing = Standing::default();
        let all = judged(&[presence(Some(2), false)], &roots(&[0, 1, 2], None), &standing);
        assert!((0..3).all(|number| is_aware(&all, number)) && is_aware(&all, 100) && !is_aware(&all, 3));
        assert_eq!((all.missing().count(), all.published(&WRITER)), (0, 3));
        assert!(!all.may_be_unpublished(&WRITER, 2) && all.may_be_unpublished(&WRITER, 3));

        let gap = judged(&[presence(Some(2), false)], &roots(&[0, 2], None), &standing);
        assert!(is_aware(&gap, 0) && !is_aware(&gap, 2) && !is_aware(&gap, 100));
        assert_eq!(gap.missing().collect::<Vec<_>>(), [(&WRITER, 1)]);
        assert!(!gap.may_be_unpublished(&WRITER, 0) && gap.may_be_unpublished(&WRITER, 1));
        let behind = judged(&[presence(Some(3), false)], &roots(&[0, 1, 2], None), &standing);
        assert!(is_aware(&behind, 2) && !is_aware(&behind, 100));
        assert_eq!(behind.missing().collect::<Vec<_>>(), [(&WRITER, 3)]);
        assert_eq!(behind.published(&WRITER), 4);

        for lost in [vec![1], vec![0, 1], vec![0, 1, 2]] {
            let kept: Vec<u8> = (0..3).filter(|number| !lost.contains(number)).collect();
            let found = judged(&[presence(Some(2), false)], &roots(&kept, None), &forgetting(&lost));
            assert!(is_aware(&found, 100), "{lost:?}");
        }
        let other = judged(&[], &roots(&[1, 2], None), &forgetting(&[2]));
        assert!(!is_aware(&other, 2));
        // Below a floor nothing is named any more, and nothing is missing.
        for (floor, is_enough) in [(1, false), (2, true), (3, true), (9, true)] {
            let found = judged(&[presence(Some(2), false)], &roots(&[2], None), &bounded(floor, None));
            assert_eq!(
                (is_aware(&found, 100), found.missing().count() == 0),
                (is_enough, is_enough),
                "{floor}"
            );
            assert_eq!(found.published(&WRITER), floor.max(3));
        }
    }

    /// A forgotten root above a floor tells nothing of the one that the floor leaves out.
    #[test]
    fn what_was_forgotten_above_a_floor_is_no_proof_of_what_lies_between() {
        let standing = |floor: u64| {
            let Ledger { bounds, .. } = Ledger::clone(bounded(floor, None).stated());
            stating(Ledger {
                bounds,
                ..Ledger::clone(forgetting(&[4]).stated())
            })
        };
        for (floor, missing) in [(3, Some(3)), (4, None), (5, None)] {
            let found = judged(&[presence(Some(4), false)], &Roots::default(), &standing(floor));
            let numbers: Vec<u64> = found.missing().map(|(_, number)| number).collect();
            assert_eq!(numbers, missing.into_iter().collect::<Vec<_>>(), "{floor}");
        }
    }

    #[test]
    fn another_root_of_the_same_number_does_not_stand_in_for_the_one_that_is_stated() {
        let mut two = roots(&[0, 2], Some(2));
        let forged = RootName {
            hash: RootId([0xbb; 16]),
            ..root(1)
        };
        two.insert(
            &forged,
            Published {
                previous: Some(hash(0)),
                ..Published::default()
            },
        );
        let found = judged(&[], &two, &Standing::default());
        assert!(!found.is_over(&WRITER));
        assert_eq!(found.missing().count(), 1);
    }

    #[test]
    fn registrations_end_by_their_own_word_or_by_a_cut() {
        let standing = Standing::default();
        assert!(judged(&[], &roots(&[0], Some(0)), &standing).is_over(&WRITER));
        // A thief of its key could have said so.
        for (presences, roots) in [
            (vec![presence(None, false)], roots(&[0], Some(0))),
            (vec![presence(None, false), presence(None, true)], Roots::default()),
        ] {
            let found = judged(&presences, &roots, &standing);
            assert!(!found.is_over(&WRITER) && found.is_contradicted(&WRITER));
        }
        assert!(judged(&[presence(None, true)], &Roots::default(), &standing).is_over(&WRITER));
        assert!(judged(&[presence(Some(1), true)], &roots(&[0, 1], None), &standing).is_over(&WRITER));
        assert!(!judged(&[presence(Some(1), true)], &roots(&[1], None), &standing).is_over(&WRITER));
        assert!(!judged(&[], &roots(&[1], Some(1)), &standing).is_over(&WRITER));
        assert!(!judged(&[], &roots(&[0], None), &standing).is_over(&WRITER));
        assert!(!judged(&[], &Roots::default(), &standing).is_over(&WRITER));

        let cut = bounded(0, Some(1));
        assert!(
            !judged(&[presence(None, false)], &Roots::default(), &cut).is_over(&WRITER),
            "the root that counts was not read"
        );
        assert!(judged(&[presence(None, false)], &roots(&[0], None), &cut).is_over(&WRITER));
        assert!(!judged(&[presence(None, false)], &roots(&[1], None), &cut).is_over(&WRITER));
        let accepted = Registrations::new(&[presence(None, false)], &roots(&[1], None), &cut, Gaps::Accept);
        assert!(accepted.is_over(&WRITER));
    }
}
