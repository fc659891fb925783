//! Which snapshots this machine has seen, and when for the first time. Kept outside of the cache, beside what else it knows.
//!
//! - A snapshot that was seen stays known until an owner forgets it, or gc finds that its writer was given up before it published it.
//! - So one that a place hides or loses, and a whole place that was rolled back, are missed and not just absent.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::ledger::{FirstSeen, Numbered};
use drystone_format::root::{RootKind, RootName};
use drystone_format::{RegistrationId, RootId, tree::Time};

/// Records of first sightings: time of the last look; for each snapshot its registration, number, hash, look before, look that saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sightings {
    last_look: Option<i64>,
    seen: BTreeMap<Numbered, FirstSeen>,
}

const RECORD_BYTES: usize = RegistrationId::LEN + 8 + RootId::LEN + 8 + 8;

/// The root of a snapshot that is known by registration, number and hash.
fn name(root: &Numbered) -> RootName {
    RootName {
        kind: RootKind::SNAPSHOT,
        registration: root.registration,
        number: root.number,
        hash: root.hash,
    }
}

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
            last_look: Some(i64::from_be_bytes(*last_look)),
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

    /// Takes in one more look: these are there now. Those that do not count any more, by `counts`, are no longer known.
    pub(crate) fn look(&mut self, there: &[RootName], counts: &dyn Fn(&RootName) -> bool, now: Time) {
        self.seen.retain(|root, _| counts(&name(root)));
        let first = FirstSeen {
            not_at: self.last_look,
            at: now.seconds,
        };
        for root in there.iter().filter(|root| root.kind == RootKind::SNAPSHOT) {
            self.seen.entry(root.numbered()).or_insert(first);
        }
        self.last_look = Some(now.seconds);
    }

    pub(crate) fn get(&self, root: &RootName) -> Option<FirstSeen> {
        self.seen.get(&root.numbered()).copied()
    }

    /// Snapshots that were seen and are not `there`.
    pub(crate) fn missing(&self, there: &[RootName]) -> Vec<RootName> {
        let there: BTreeSet<&RootName> = there.iter().collect();
        let seen = self.seen.keys().map(name);
        seen.filter(|root| !there.contains(root)).collect()
    }
}

#[cfg(test)]
mod tests {
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
        fn sightings_round_trip_and_miss_what_is_gone(ids: BTreeSet<[u8; 16]>, first in any::<i32>(), second in any::<i32>()) {
            let root = |id: &[u8; 16]| name(&Numbered {
                registration: RegistrationId(*id),
                number: u64::from(id[0]),
                hash: RootId(*id),
            });
            let all: Vec<RootName> = ids.iter().map(root).collect();
            let (some, rest) = all.split_at(all.len() / 2);
            let mut sightings = Sightings::default();
            sightings.look(some, &|_| true, at(first));
            sightings.look(rest, &|_| true, at(second));
            prop_assert_eq!(Sightings::decode(&sightings.encode()), sightings.clone());
            prop_assert_eq!(sightings.missing(rest), some.to_vec());
            prop_assert!(sightings.missing(&all).is_empty());
            // What an owner forgot is missed no more.
            sightings.look(&[], &|root| !some.contains(root), at(second));
            prop_assert_eq!(sightings.missing(&[]), rest.to_vec());
        }
    }
}
