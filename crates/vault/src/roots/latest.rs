//! Which snapshot `latest` means, without any I/O.
//!
//! - Owners trust each other, and a client trusts itself: `latest` is the newest of theirs. It is never a snapshot of another writer
//!   as long as there is one of theirs, since a stolen writer key could otherwise choose what gets restored.
//! - Where only writers published, one writer key alone is meant by `latest`; of several, one must be named.
//! - A snapshot whose time cannot be true is passed over, and named.
//! - The one before it is of the same host and the same paths: its state one backup earlier.

use std::collections::BTreeSet;

use drystone_format::RootId;
use drystone_format::keys::{Role, VerifyKey};

use crate::roots::order::{Candidate, contradiction, position};

/// Why `latest` means no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLatest {
    /// There is none that is meant.
    None,
    /// Only writers published, and more than one.
    Several(BTreeSet<VerifyKey>),
    /// Those that there are have times that cannot be true.
    Doubtful(Vec<RootId>),
}

/// What `latest` means.
#[derive(Debug, Clone)]
pub struct Latest {
    /// The snapshot.
    pub chosen: Candidate,
    /// Newer ones whose time cannot be true, with the reason.
    pub doubtful: Vec<(RootId, &'static str)>,
    /// Other writers that published something newer.
    pub newer: BTreeSet<VerifyKey>,
}

/// Chooses among all snapshots; `own` is the key of this client, `named` that of the only signer that is meant.
///
/// With `before`, the one so many backups before the latest, of its host and paths.
pub fn latest(
    all: Vec<Candidate>,
    own: &VerifyKey,
    named: Option<&VerifyKey>,
    before: usize,
) -> Result<Latest, NoLatest> {
    let is_trusted = |candidate: &Candidate| candidate.role == Role::Owner || candidate.writer == *own;
    let mut meant: Vec<Candidate> = match named {
        Some(key) => all.iter().filter(|one| one.writer == *key).cloned().collect(),
        None => all.iter().filter(|one| is_trusted(one)).cloned().collect(),
    };
    if meant.is_empty() && named.is_none() {
        let writers: BTreeSet<VerifyKey> = all.iter().map(|one| one.writer).collect();
        if writers.len() > 1 {
            return Err(NoLatest::Several(writers));
        }
        meant = all.clone();
    }
    meant.sort_by_key(position);
    let (mut doubtful, mut left, mut of) = (Vec::new(), before, None);
    while let Some(candidate) = meant.pop() {
        let group = (candidate.snapshot.host.clone(), candidate.snapshot.paths.clone());
        match contradiction(&candidate) {
            _ if of.as_ref().is_some_and(|of| *of != group) => {}
            Some(why) => doubtful.push((candidate.id, why)),
            None if left > 0 => (left, of) = (left - 1, Some(group)),
            None => {
                let after = all.iter().filter(|one| position(one) > position(&candidate));
                let newer = after.filter(|one| named.is_none() && one.writer != candidate.writer && !is_trusted(one));
                return Ok(Latest {
                    newer: newer.filter(|_| before == 0).map(|one| one.writer).collect(),
                    chosen: candidate,
                    doubtful,
                });
            }
        }
    }
    match doubtful.is_empty() || of.is_some() {
        true => Err(NoLatest::None),
        false => Err(NoLatest::Doubtful(doubtful.into_iter().map(|(id, _)| id).collect())),
    }
}

#[cfg(test)]
mod tests {
    use drystone_format::ledger::FirstSeen;

    use super::*;
    use crate::roots::order::tests::candidate;

    const OWN: VerifyKey = VerifyKey([1; 32]);
    const OTHER: VerifyKey = VerifyKey([2; 32]);
    const THIRD: VerifyKey = VerifyKey([3; 32]);

    fn by(writer: VerifyKey, role: Role, number: u8, started: i64) -> Candidate {
        Candidate {
            writer,
            ..candidate(number, started, role)
        }
    }

    fn chosen(found: Result<Latest, NoLatest>) -> u8 {
        found.unwrap().chosen.id.0[0]
    }

    #[test]
    fn a_writer_cannot_become_the_latest_of_owners() {
        let all = vec![
            by(OWN, Role::Owner, 1, 100),
            by(THIRD, Role::Owner, 2, 200),
            by(OTHER, Role::Writer, 3, 300),
        ];
        let found = latest(all.clone(), &OWN, None, 0).unwrap();
        assert_eq!((found.chosen.id.0[0], found.newer), (2, BTreeSet::from([OTHER])));
        assert_eq!(chosen(latest(all, &OWN, Some(&OTHER), 0)), 3);
    }

    #[test]
    fn a_writer_means_its_own() {
        let all = vec![by(OWN, Role::Writer, 1, 100), by(OTHER, Role::Writer, 2, 200)];
        assert_eq!(chosen(latest(all.clone(), &OWN, None, 0)), 1);
        assert_eq!(chosen(latest(all, &OTHER, None, 0)), 2);
    }

    #[test]
    fn of_several_writers_one_is_named() {
        let both = vec![by(OTHER, Role::Writer, 1, 100), by(THIRD, Role::Writer, 2, 200)];
        let several = NoLatest::Several(BTreeSet::from([OTHER, THIRD]));
        assert_eq!(latest(both.clone(), &OWN, None, 0).unwrap_err(), several);
        assert_eq!(chosen(latest(both[..1].to_vec(), &OWN, None, 0)), 1);
        assert_eq!(latest(both, &OWN, Some(&OWN), 0).unwrap_err(), NoLatest::None);
        assert_eq!(latest(Vec::new(), &OWN, None, 0).unwrap_err(), NoLatest::None);
    }

    #[test]
    fn the_one_before_is_of_the_same_host_and_paths() {
        let of = |host: &str, number, started| {
            let mut one = by(OWN, Role::Owner, number, started);
            one.snapshot.host = host.to_owned();
            one
        };
        let all = vec![
            of("a", 1, 100),
            of("a", 2, 200),
            of("b", 3, 300),
            of("a", 4, 400),
            of("b", 5, 350),
        ];
        let before = |many| latest(all.clone(), &OWN, None, many).map(|found| found.chosen.id.0[0]);
        assert_eq!([before(0), before(1), before(2)], [Ok(4), Ok(2), Ok(1)]);
        assert_eq!(before(3), Err(NoLatest::None));
    }

    #[test]
    fn the_future_is_never_the_latest() {
        let later = Candidate {
            seen: FirstSeen { not_at: None, at: 150 },
            ..by(OWN, Role::Owner, 9, 4_000_000_000)
        };
        let found = latest(vec![by(OWN, Role::Owner, 1, 100), later.clone()], &OWN, None, 0).unwrap();
        assert_eq!((found.chosen.id.0[0], found.doubtful.len()), (1, 1));
        let refused = latest(vec![later], &OWN, None, 0).unwrap_err();
        assert_eq!(refused, NoLatest::Doubtful(vec![RootId([9; 16])]));
    }
}
