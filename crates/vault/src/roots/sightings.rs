//! Which roots of a kind this machine has seen, and when for the first time. Kept outside of the cache, beside what else it knows.
//!
//! - A root that was seen stays known until an owner forgets it, or gc finds that its writer was given up before it published it.
//! - So one that a place hides or loses, and a whole place that was rolled back, are missed and not just absent.

use std::collections::BTreeMap;

use drystone_format::ledger::{FirstSeen, Numbered};
use drystone_format::root::RootName;
use drystone_format::{RegistrationId, RootId, tree::Time};

/// Records of first sightings: time of the last look; for each root its registration, number, hash, look before, look that saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sightings {
    last_look: Option<i64>,
    seen: BTreeMap<Numbered, FirstSeen>,
}

const RECORD_BYTES: usize = RegistrationId::LEN + 8 + RootId::LEN + 8 + 8;

/// Looks closer together than this are one look, seconds: so a listing that shows nothing new writes nothing.
const ONE_LOOK_SECONDS: i64 = 600;

impl Sightings {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let Some((last_look, records)) = bytes.split_first_chunk::<8>() else {
            return Self::default();
        };
        let (records, _) = records.as_chunks::<RECORD_BYTES>();
        let record = |record: &[u8; RECORD_BYTES]| {
            let (registration, rest) = record.split_first_chunk()?;
            let (number, rest) = rest.split_first_chunk()?;
            let (hash, rest) = rest.split_first_chunk()?;
            let (before, rest) = rest.split_first_chunk()?;
            let not_at = Some(i64::from_be_bytes(*before)).filter(|before| *before != i64::MIN);
            let at = i64::from_be_bytes(*rest.first_chunk()?);
            let root = Numbered {
                registration: RegistrationId(*registration),
                number: u64::from_be_bytes(*number),
                hash: RootId(*hash),
            };
            Some((root, FirstSeen { not_at, at }))
        };
        Self {
            last_look: Some(i64::from_be_bytes(*last_look)).filter(|look| *look != i64::MIN),
            seen: records.iter().filter_map(record).collect(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.last_look.unwrap_or(i64::MIN).to_be_bytes().to_vec();
        for (root, FirstSeen { not_at, at }) in &self.seen {
            bytes.extend_from_slice(&root.registration.0);
            bytes.extend_from_slice(&root.number.to_be_bytes());
            bytes.extend_from_slice(&root.hash.0);
            bytes.extend_from_slice(&not_at.unwrap_or(i64::MIN).to_be_bytes());
            bytes.extend_from_slice(&at.to_be_bytes());
        }
        bytes
    }

    /// Takes in one more look: these are there now. Those that are not live any more, by `is_live`, are no longer known.
    pub(crate) fn look(&mut self, there: &[RootName], is_live: &dyn Fn(&Numbered) -> bool, now: Time) {
        let count = self.seen.len();
        self.forget(is_live);
        let first = FirstSeen {
            not_at: self.last_look,
            at: now.seconds,
        };
        let mut has_new = self.seen.len() != count;
        for root in there {
            self.seen.entry(root.numbered()).or_insert_with(|| {
                has_new = true;
                first
            });
        }
        let one_look = |last: i64| (last..last.saturating_add(ONE_LOOK_SECONDS)).contains(&now.seconds);
        if has_new || !self.last_look.is_some_and(one_look) {
            self.last_look = Some(now.seconds);
        }
    }

    /// Those that are not live any more, by `is_live`, are no longer known.
    pub(crate) fn forget(&mut self, is_live: &dyn Fn(&Numbered) -> bool) {
        self.seen.retain(|root, _| is_live(root));
    }

    /// Takes in a root that this machine has made itself.
    pub(crate) fn add(&mut self, root: Numbered, now: Time) {
        let first = FirstSeen {
            not_at: self.last_look,
            at: now.seconds,
        };
        self.seen.entry(root).or_insert(first);
    }

    pub(crate) fn get(&self, root: &RootName) -> Option<FirstSeen> {
        self.seen.get(&root.numbered()).copied()
    }

    /// All roots that were seen.
    pub(crate) fn seen(&self) -> &BTreeMap<Numbered, FirstSeen> {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use drystone_format::root::RootKind;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i32) -> Time {
        Time {
            seconds: seconds.into(),
            nanos: 0,
        }
    }

    proptest! {
        #[test]
        fn sightings_round_trip_and_are_forgotten(ids: BTreeSet<[u8; 16]>, first in any::<i32>(), second in any::<i32>()) {
            let root = |id: &[u8; 16]| RootName {
                kind: RootKind::SNAPSHOT,
                registration: RegistrationId(*id),
                number: u64::from(id[0]),
                hash: RootId(*id),
            };
            let all: Vec<RootName> = ids.iter().map(root).collect();
            let (some, rest) = all.split_at(all.len() / 2);
            let mut sightings = Sightings::default();
            sightings.look(some, &|_| true, at(first));
            sightings.look(rest, &|_| true, at(second));
            prop_assert_eq!(Sightings::decode(&sightings.encode()), sightings.clone());
            prop_assert_eq!(sightings.seen().len(), all.len());
            // What an owner forgot is known no more.
            sightings.look(&[], &|root| !some.iter().any(|one| one.numbered() == *root), at(second));
            let left: Vec<Numbered> = sightings.seen().keys().copied().collect();
            prop_assert_eq!(left, rest.iter().map(RootName::numbered).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_look_that_shows_nothing_new_changes_nothing_for_a_while() {
        let mut sightings = Sightings::default();
        sightings.look(&[], &|_| true, at(100));
        let before = sightings.encode();
        sightings.look(&[], &|_| true, at(100 + ONE_LOOK_SECONDS as i32 - 1));
        assert_eq!(sightings.encode(), before);
        sightings.look(&[], &|_| true, at(100 + ONE_LOOK_SECONDS as i32));
        assert_ne!(sightings.encode(), before);
        // A clock that was put back is another look.
        sightings.look(&[], &|_| true, at(99));
        assert_eq!(sightings.last_look, Some(99));
    }
}
