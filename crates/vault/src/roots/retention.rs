//! Which snapshots to keep: the usual rules, by groups of host and paths or what else is asked for, and of each writer key, without any I/O.
//!
//! - A snapshot that any rule wants is kept, and for every kept one it is said why.
//! - A writer's key may be stolen, and its snapshots be dummies meant to push good ones out of the rules. So those of different writer
//!   keys never compete, nor with an owner's; times that contradict what this machine has seen do not count; where one of several is kept, it
//!   is the one seen first; and nothing of a writer's is dropped before it was seen for a while (docs/threat-model.md).
//! - Copies of one snapshot are one snapshot: of those that owners made, the rules count the one that lost least, and want no other. A
//!   writer's claim to have copied something makes nothing superfluous: what it calls copies of one snapshot count as one of the latest,
//!   and stay together.
//! - Buckets are those of local time, as snapshots are shown; weeks begin on Monday.

use std::collections::{BTreeMap, HashMap, HashSet};

use drystone_format::RootId;
use drystone_format::keys::Role;

use crate::roots::order::{Candidate, Identity, began, contradiction, position};

const DAY: i64 = 86_400;

/// By what snapshots are grouped; those of different writer keys are apart in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// By host.
    pub host: bool,
    /// By the set of paths.
    pub paths: bool,
    /// By the set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self {
            host: true,
            paths: true,
            tags: false,
        }
    }
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The latest so many.
    pub last: usize,
    /// One for each of the latest so many hours that have any.
    pub hourly: usize,
    /// The same for days.
    pub daily: usize,
    /// The same for weeks.
    pub weekly: usize,
    /// The same for months.
    pub monthly: usize,
    /// The same for years.
    pub yearly: usize,
    /// Those that began at most so many seconds before the latest of their group.
    pub within_seconds: Option<i64>,
    /// Those with any of these tags.
    pub tags: Vec<String>,
    /// These.
    pub ids: Vec<RootId>,
    /// A writer's snapshot that was first seen less than so many seconds ago is kept, whatever the rules say.
    pub grace_seconds: i64,
    /// Which snapshots compete.
    pub group_by: GroupBy,
}

impl Keep {
    /// Whether there is no rule at all; grace and grouping are none.
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                grace_seconds: self.grace_seconds,
                group_by: self.group_by,
                ..Self::default()
            }
    }
}

/// Snapshots that compete, oldest first.
#[derive(Debug, Clone)]
pub struct Group {
    /// The snapshots, each with the reasons to keep it; without any it goes.
    pub snapshots: Vec<(Candidate, Vec<String>)>,
}

impl Group {
    /// Those that go.
    pub fn forgotten(&self) -> impl Iterator<Item = RootId> {
        let goes = self.snapshots.iter().filter(|(_, reasons)| reasons.is_empty());
        goes.map(|(candidate, _)| candidate.id)
    }

    /// Whether the rules keep nothing of it.
    pub fn is_lost(&self) -> bool {
        self.snapshots.iter().all(|(_, reasons)| reasons.is_empty())
    }
}

/// How many seconds local time is ahead of UTC at a time.
pub type Ahead<'a> = &'a dyn Fn(i64) -> i64;

/// Judges snapshots; `now` is for the grace alone.
pub fn plan(candidates: Vec<Candidate>, keep: &Keep, now: i64, ahead: Ahead<'_>) -> Vec<Group> {
    let mut groups: BTreeMap<_, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let snapshot = &candidate.snapshot;
        let host = keep.group_by.host.then(|| snapshot.host.clone());
        let paths = keep.group_by.paths.then(|| sorted(&snapshot.paths));
        let tags = keep.group_by.tags.then(|| sorted(&snapshot.tags));
        let key = (host, paths, tags, candidate.signers());
        groups.entry(key).or_default().push(candidate);
    }
    let groups = groups.into_values();
    groups.map(|group| judge(group, keep, now, ahead)).collect()
}

fn sorted<T: Clone + Ord>(values: &[T]) -> Vec<T> {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted
}

fn judge(mut group: Vec<Candidate>, keep: &Keep, now: i64, ahead: Ahead<'_>) -> Group {
    group.sort_by_key(position);
    let superfluous = superfluous(&group);
    let mut judged: Vec<(Candidate, Vec<String>)> = group.into_iter().map(|one| (one, Vec::new())).collect();
    let mut credible = Vec::new();
    for (at, (candidate, reasons)) in judged.iter_mut().enumerate() {
        if keep.ids.contains(&candidate.id) {
            reasons.push("named".to_owned());
        }
        if superfluous.contains(&at) {
            continue;
        }
        match contradiction(candidate) {
            Some(why) => reasons.push(why.to_owned()),
            None => credible.push((
                at,
                began(candidate),
                candidate.seen.at,
                candidate.identity,
                candidate.role,
            )),
        }
        let tags = candidate.snapshot.tags.iter().filter(|tag| keep.tags.contains(tag));
        reasons.extend(tags.map(|tag| format!("tag {tag}")));
        let age = now.saturating_sub(candidate.seen.at);
        if candidate.role != Role::Owner && age < keep.grace_seconds {
            let when = match age.max(0) / DAY {
                0 => "today".to_owned(),
                1 => "1 day ago".to_owned(),
                days => format!("{days} days ago"),
            };
            reasons.push(format!("a writer's, first seen {when}"));
        }
    }
    let mut wanted = by_time(&credible, keep, ahead);
    for (at, (_, reasons)) in judged.iter_mut().enumerate() {
        reasons.extend(wanted.remove(&at).unwrap_or_default());
    }
    Group { snapshots: judged }
}

/// Returns the places, in a group by position, of the owners' copies of which the group has one that is as good or better.
fn superfluous(group: &[Candidate]) -> HashSet<usize> {
    let mut best: HashMap<Identity, (u64, usize)> = HashMap::new();
    let mut superfluous = HashSet::new();
    for (at, candidate) in group.iter().enumerate() {
        if candidate.role != Role::Owner || contradiction(candidate).is_some() {
            continue;
        }
        let lost = candidate.snapshot.lost();
        let (least, place) = *best.entry(candidate.identity).or_insert((lost, at));
        if place == at {
            continue;
        }
        if lost <= least {
            superfluous.insert(place);
            best.insert(candidate.identity, (lost, at));
        } else {
            superfluous.insert(at);
        }
    }
    superfluous
}

/// Place in the group, begin, when it was first seen, what it is a copy of, and the key's role.
type Timed = (usize, i64, i64, Identity, Role);

fn by_time(credible: &[Timed], keep: &Keep, ahead: Ahead<'_>) -> BTreeMap<usize, Vec<String>> {
    let mut wanted: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut want = |at: usize, why: &str| wanted.entry(at).or_default().push(why.to_owned());
    let mut latest = HashSet::new();
    for (at, _, _, identity, _) in credible.iter().rev() {
        if latest.contains(identity) || latest.len() < keep.last {
            latest.insert(*identity);
            want(*at, "last");
        }
    }
    let latest = credible.last().map_or(0, |(_, started, ..)| *started);
    let is_writers = credible.last().is_some_and(|(.., role)| *role != Role::Owner);
    for (at, started, ..) in credible {
        if keep
            .within_seconds
            .is_some_and(|within| latest.saturating_sub(*started) <= within)
        {
            want(*at, "within");
        }
    }
    type Bucket = fn(i64) -> i64;
    let rules: [(usize, &str, Bucket); 6] = [
        (keep.hourly, "hourly", |seconds| seconds.div_euclid(3600)),
        (keep.daily, "daily", |seconds| seconds.div_euclid(DAY)),
        (keep.weekly, "weekly", |seconds| {
            (seconds.div_euclid(DAY) + 3).div_euclid(7)
        }),
        (keep.monthly, "monthly", month),
        (keep.yearly, "yearly", |seconds| month(seconds).div_euclid(12)),
        // A flood of dummies within days would push out what any count of the latest means.
        (if is_writers { keep.last } else { 0 }, "last days", |seconds| {
            seconds.div_euclid(DAY)
        }),
    ];
    let local_begins: Vec<i64> = credible
        .iter()
        .map(|(_, started, ..)| started.saturating_add(ahead(*started)))
        .collect();
    for (count, why, bucket) in rules {
        let mut seen = HashSet::new();
        let buckets = local_begins.iter().rev().map(|begin| bucket(*begin));
        for number in buckets.filter(|number| seen.insert(*number)).take(count) {
            let pairs = credible.iter().zip(&local_begins);
            let inside = pairs.filter(|(_, begin)| bucket(**begin) == number).map(|(one, _)| one);
            let chosen = match is_writers {
                true => inside.min_by_key(|(at, _, seen, ..)| (*seen, *at)),
                false => inside.max_by_key(|(at, ..)| *at),
            };
            if let Some((at, ..)) = chosen {
                want(*at, why);
            }
        }
    }
    wanted
}

/// Months since year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn month(seconds: i64) -> i64 {
    let days = seconds.div_euclid(DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    // From March on.
    let month = (5 * day_of_year + 2) / 153;
    (era * 400 + year) * 12 + month + 2
}

#[cfg(test)]
mod tests {
    use drystone_format::keys::VerifyKey;
    use drystone_format::ledger::FirstSeen;
    use proptest::prelude::*;

    use super::*;
    use crate::roots::order::tests::{candidate, copy_of};

    fn kept(candidates: Vec<Candidate>, keep: &Keep, now: i64) -> Vec<u8> {
        let groups = plan(candidates, keep, now, &|_| 0);
        let all = groups.into_iter().flat_map(|group| group.snapshots);
        let mut kept: Vec<u8> = all
            .filter(|(_, why)| !why.is_empty())
            .map(|(one, _)| one.id.0[0])
            .collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn months_and_years_are_those_of_the_calendar() {
        for (seconds, year, of_year) in [
            (0, 1970, 0),
            (951_782_399, 2000, 1),
            (951_868_799, 2000, 1),
            (951_868_800, 2000, 2),
            (1_798_761_599, 2026, 11),
            (1_798_761_600, 2027, 0),
            (-1, 1969, 11),
        ] {
            assert_eq!(
                (month(seconds).div_euclid(12), month(seconds).rem_euclid(12)),
                (year, of_year),
                "{seconds}"
            );
        }
    }

    /// 1970 began with a Thursday.
    #[test]
    fn weeks_begin_on_monday_and_hours_on_the_hour() {
        let at = |days: &[i64]| -> Vec<Candidate> {
            let one = |day: &i64| candidate(u8::try_from(*day).unwrap(), day * DAY, Role::Owner);
            days.iter().map(one).collect()
        };
        let weekly = |weekly| Keep {
            weekly,
            ..Keep::default()
        };
        // Sunday, Monday, Sunday, Monday.
        let days = [3, 4, 10, 11];
        assert_eq!(kept(at(&days), &weekly(9), 0), [3, 10, 11]);
        assert_eq!(kept(at(&days), &weekly(2), 0), [10, 11]);
        let hourly = Keep {
            hourly: 2,
            ..Keep::default()
        };
        let seconds = [3599, 3600, 7199, 7200].into_iter().zip(0..);
        let all = seconds.map(|(second, id)| candidate(id, second, Role::Owner)).collect();
        assert_eq!(kept(all, &hourly, 0), [2, 3]);
    }

    #[test]
    fn each_rule_keeps_one_of_each_bucket() {
        let noon = 1_700_000_000 / DAY * DAY + DAY / 2;
        let all = || -> Vec<Candidate> {
            (0..40)
                .map(|at| candidate(at, noon + i64::from(at) * DAY / 2, Role::Owner))
                .collect()
        };
        let rule = |keep: Keep| kept(all(), &keep, i64::MAX);
        assert_eq!(
            rule(Keep {
                last: 2,
                ..Keep::default()
            }),
            [38, 39]
        );
        // Days end with the later half day; the 39th begins a day of its own.
        assert_eq!(
            rule(Keep {
                daily: 3,
                ..Keep::default()
            }),
            [36, 38, 39].map(|at| at.min(39)).to_vec()
        );
        assert_eq!(
            rule(Keep {
                yearly: 5,
                ..Keep::default()
            }),
            [39]
        );
        let within = Keep {
            within_seconds: Some(DAY),
            ..Keep::default()
        };
        assert_eq!(rule(within), [37, 38, 39]);
        let named = Keep {
            ids: vec![RootId([3; 16])],
            ..Keep::default()
        };
        assert_eq!(rule(named), [3]);
        assert!(rule(Keep::default()).is_empty() && Keep::default().is_empty());
    }

    /// Dummies with any times cost no good snapshot that the rules would keep without them, as long as it is looked daily.
    #[test]
    fn dummies_push_nothing_out() {
        let start = 1_700_000_000 / DAY * DAY;
        let now = start + 10 * DAY - 1;
        let keep = Keep {
            last: 5,
            daily: 5,
            monthly: 2,
            grace_seconds: 0,
            ..Keep::default()
        };
        let mut all = Vec::new();
        for day in 0..10_u8 {
            let mut good = candidate(day, start + i64::from(day) * DAY + 100, Role::Writer);
            good.seen.not_at = Some(good.seen.at - DAY);
            all.push(good);
        }
        let expected = kept(all.clone(), &keep, now);
        assert_eq!(expected, [0, 5, 6, 7, 8, 9]);
        // All first seen at the end of the last day; those that claim the next are taken for now.
        let dummy = |number: u8, started: i64| Candidate {
            seen: FirstSeen {
                not_at: Some(now - DAY / 2),
                at: now,
            },
            ..candidate(number, started, Role::Writer)
        };
        for at in 0..100_u8 {
            all.push(dummy(100 + at, now - i64::from(at)));
        }
        for at in 0..20_u8 {
            all.push(dummy(50 + at, now + i64::from(at) * DAY));
            all.push(dummy(70 + at, start - i64::from(at) * DAY));
        }
        let found = kept(all, &keep, now);
        assert!(expected.iter().all(|good| found.contains(good)), "{found:?}");
        // Those with impossible times are kept for somebody to look at.
        assert!((52..70).all(|dummy| found.contains(&dummy)) && (70..90).all(|dummy| found.contains(&dummy)));
    }

    /// 23:30, 00:30 and 03:01 of a summer's night in Berlin are two days there; in UTC they are two others.
    #[test]
    fn days_are_those_of_local_time() {
        let midnight = 1_700_000_000 / DAY * DAY;
        let all = || -> Vec<Candidate> {
            let starts = [midnight - 1800, midnight + 1800, midnight + 3 * 3600 + 60];
            let in_utc = starts.map(|local| local - 2 * 3600);
            (1..)
                .zip(in_utc)
                .map(|(at, start)| candidate(at, start, Role::Owner))
                .collect()
        };
        let keep = Keep {
            daily: 2,
            ..Keep::default()
        };
        let kept = |ahead: i64| -> Vec<u8> {
            let groups = plan(all(), &keep, 0, &|_| ahead);
            let wanted = groups
                .iter()
                .flat_map(|group| &group.snapshots)
                .filter(|(_, why)| !why.is_empty());
            wanted.map(|(one, _)| one.id.0[0]).collect()
        };
        assert_eq!((kept(2 * 3600), kept(0)), (vec![1, 3], vec![2, 3]));
    }

    #[test]
    fn groups_are_those_that_are_asked_for() {
        let of = |number: u8, host: &str, path: &str, tag: &str| {
            let mut one = candidate(number, i64::from(number) * DAY, Role::Owner);
            one.snapshot.host = host.to_owned();
            one.snapshot.paths = vec![path.as_bytes().to_vec()];
            one.snapshot.tags = vec![tag.to_owned()];
            one
        };
        let all = || {
            vec![
                of(1, "a", "/x", "t"),
                of(2, "a", "/y", "t"),
                of(3, "b", "/x", "u"),
                of(4, "b", "/x", "t"),
            ]
        };
        let last = |host, paths, tags| {
            let keep = Keep {
                last: 1,
                group_by: GroupBy { host, paths, tags },
                ..Keep::default()
            };
            kept(all(), &keep, 0)
        };
        assert_eq!(last(true, true, false), [1, 2, 4]);
        assert_eq!(last(true, false, false), [2, 4]);
        assert_eq!(last(false, true, false), [2, 4]);
        assert_eq!(last(false, false, true), [3, 4]);
        assert_eq!(last(true, false, true), [2, 3, 4]);
        assert_eq!(last(false, false, false), [4]);
        let grouped = Keep {
            group_by: GroupBy {
                host: false,
                ..GroupBy::default()
            },
            ..Keep::default()
        };
        assert!(grouped.is_empty(), "a grouping keeps nothing");
    }

    /// Each of two writer keys keeps its own last, and owners, who share one group, keep theirs.
    #[test]
    fn those_of_different_keys_never_compete() {
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        let by = |number: u8, key: u8, role| Candidate {
            writer: VerifyKey([key; 32]),
            ..candidate(number, i64::from(number) * DAY, role)
        };
        let all = vec![
            by(1, 1, Role::Owner),
            by(2, 2, Role::Owner),
            by(3, 3, Role::Writer),
            by(4, 4, Role::Writer),
            by(5, 5, Role::Member),
        ];
        assert_eq!(kept(all, &keep, 100 * DAY), [2, 3, 4, 5]);
    }

    /// Three owners' copies of each of three snapshots, of which one is whole.
    #[test]
    fn copies_of_one_snapshot_count_as_one() {
        let copies = |role| -> Vec<Candidate> {
            let copy = |original: u8, number: u8| {
                let lost = if number == 1 { 0 } else { u64::from(number) + 1 };
                let copied = candidate(10 * original + number, i64::from(original) * DAY, role);
                copy_of(original, lost, copied)
            };
            (1..4)
                .flat_map(|original| (0..3).map(move |number| copy(original, number)))
                .collect()
        };
        let rule = |last: usize, tag: &str, role| {
            let keep = Keep {
                last,
                tags: vec![tag.to_owned()],
                ..Keep::default()
            };
            let mut all = copies(role);
            all.iter_mut().for_each(|one| one.snapshot.tags.push("all".to_owned()));
            kept(all, &keep, 100 * DAY)
        };
        assert_eq!(rule(1, "", Role::Owner), [31]);
        assert_eq!(rule(2, "", Role::Owner), [21, 31]);
        assert_eq!(rule(0, "all", Role::Owner), [11, 21, 31]);
        // Nobody takes a writer's word for a copy: what it calls copies of one count as one, but none of them goes for another.
        assert_eq!(rule(0, "all", Role::Writer).len(), 9);
        assert_eq!(rule(1, "", Role::Writer), [30, 31, 32]);
        assert_eq!(rule(2, "", Role::Writer), [20, 21, 22, 30, 31, 32]);
        assert_eq!(latest_of(copies(Role::Owner)), 31);
        assert_eq!(latest_of(copies(Role::Member)), 31);
        let named = Keep {
            last: 1,
            ids: vec![RootId([12; 16])],
            ..Keep::default()
        };
        assert_eq!(kept(copies(Role::Owner), &named, 100 * DAY), [12, 31]);
    }

    /// The first digits of the id of the latest.
    fn latest_of(all: Vec<Candidate>) -> u8 {
        let own = VerifyKey([7; 32]);
        crate::roots::latest::latest(all, &own, None, 0).unwrap().chosen.id.0[0]
    }

    #[test]
    fn what_a_writer_wrote_stays_for_a_while() {
        let keep = Keep {
            last: 1,
            grace_seconds: 14 * DAY,
            ..Keep::default()
        };
        let all = |role| {
            vec![
                candidate(1, 100, role),
                candidate(2, 200, role),
                candidate(3, 300, role),
            ]
        };
        assert_eq!(kept(all(Role::Owner), &keep, 400), [3]);
        assert_eq!(kept(all(Role::Writer), &keep, 400), [1, 2, 3]);
        // All of one day, of which the first seen is kept beside the last.
        assert_eq!(kept(all(Role::Writer), &keep, 300 + 15 * DAY), [1, 3]);
    }

    proptest! {
        #[test]
        fn more_rules_keep_more(starts in proptest::collection::vec(0..100 * DAY, 0..40), last in 0..5usize, daily in 0..5usize) {
            let all = || (0..).zip(&starts).map(|(at, start)| candidate(at, *start, Role::Owner)).collect::<Vec<_>>();
            let one = Keep { last, ..Keep::default() };
            let both = Keep { last, daily, ..Keep::default() };
            let (one, both) = (kept(all(), &one, 0), kept(all(), &both, 0));
            prop_assert!(one.iter().all(|id| both.contains(id)));
            prop_assert_eq!(one.len(), last.min(starts.len()));
            prop_assert!(both.len() <= last + daily);
        }
    }
}
