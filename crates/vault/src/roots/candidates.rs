//! Roots of a kind with all that is known of them: what places list, what ledgers state, what this machine has seen.
//!
//! - A root is missing if a ledger states it or this machine has seen it, no owner has forgotten it, and no place has it. Lists may lag,
//!   so it is first asked for by name.
//! - A root that the key of a removed writer signed counts only if a ledger states it: owners state all that they find once the removal is
//!   announced.
//! - An owner who finds many roots that no ledger states puts one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::config::Removed;
use drystone_format::keys::{Certificate, Role, VerifyKey};
use drystone_format::ledger::{FirstSeen, Numbered};
use drystone_format::root::{RootKind, RootName, SignedRoot};
use drystone_store::{Name, Prefix};

use crate::base::Base;
use crate::error::damage::{COUNTS_FOR_NOBODY, counts_for_nobody};
use crate::error::{Error, Result};
use crate::parallel;
use crate::problem::Problems;
use crate::roots::ledger::{View, first_seen};
use crate::roots::ledgers::Times;
use crate::roots::order::{Candidate, arrange, identity};
use crate::roots::sightings::Sightings;
use crate::roots::{RootSource, report_doubles};

/// Section of what this machine knows that says when snapshots were first seen.
const SNAPSHOTS_SEEN: &str = "snapshots";

/// Section of what this machine knows that says when roots of this kind were first seen.
fn sightings_of(kind: RootKind) -> String {
    match kind {
        RootKind::SNAPSHOT => SNAPSHOTS_SEEN.to_owned(),
        kind => format!("roots-{}", kind.word()),
    }
}

/// The roots of a kind that count, and those that should.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Those that are there, readable or not.
    pub(crate) there: Vec<RootName>,
    /// Those that are not, though nobody has forgotten them.
    pub(crate) missing: Vec<RootName>,
    /// Those that a removed key signed and that nobody states: they count for nobody.
    pub(crate) revoked: Vec<RootName>,
    view: Arc<View>,
    sightings: Sightings,
}

/// A root that counts and was read.
pub(crate) struct ReadRoot<T> {
    pub(crate) name: RootName,
    /// What it says.
    pub(crate) says: T,
    /// The key that signed it.
    pub(crate) writer: VerifyKey,
    pub(crate) role: Role,
    pub(crate) seen: FirstSeen,
    /// Number of the first ledger that states it.
    pub(crate) stated: Option<u64>,
}

/// All roots of a kind that were read, and what is wrong; `R` is what is kept of each.
pub(crate) struct Surveyed<R> {
    /// Of snapshots: oldest first.
    pub(crate) candidates: Vec<R>,
    /// Roots that cannot be read or are missing, and ledgers that cannot be read: one of them may be newer than all others.
    pub(crate) problems: Problems,
    /// Roots of others than owners and this client that cannot be read: none of them is the latest of theirs.
    pub(crate) foreign: Problems,
    /// What counts for nobody, or counts though something about it is odd.
    pub(crate) ignored: Problems,
    /// Those that a removed key signed and that nobody states: they count for nobody.
    pub(crate) revoked: Vec<RootName>,
}

/// All snapshots that were read.
pub(crate) type Survey = Surveyed<Candidate>;

/// All roots of a kind that were read.
pub(crate) type RootSurvey<T> = Surveyed<ReadRoot<T>>;

impl<R> Surveyed<R> {
    /// The roots, and everything that is wrong with any.
    pub(crate) fn told(self) -> (Vec<R>, Problems) {
        let mut problems = self.problems;
        problems.append(self.foreign);
        problems.append(self.ignored);
        (self.candidates, problems)
    }
}

/// A look of a clock that was ahead has been no later than now.
fn credible(seen: FirstSeen, now: i64) -> FirstSeen {
    FirstSeen {
        not_at: seen.not_at.filter(|not_at| *not_at <= now),
        at: seen.at.min(now),
    }
}

/// Says that a root was stated or seen before and is not there.
fn missed(root: &RootName) -> String {
    let known = "nobody has forgotten it, and no place that answered has it: lost, hidden, or rolled back";
    match root.kind {
        RootKind::SNAPSHOT => format!(
            "owners or this machine know this snapshot, {known} (to give it up: drystone forget {})",
            root.hash.short()
        ),
        _ => format!("owners or this machine know this root, {known}"),
    }
}

impl Base {
    /// Lists the roots of a kind, and notes on this machine which ones it has seen by now.
    pub(crate) fn root_listing(&self, kind: RootKind) -> Result<Listing> {
        let mut there = self.root_names(&Prefix::Roots(kind))?;
        if let Some(cache) = &self.root_cache {
            cache.retain(kind, &there);
        }
        // Read after: what is forgotten meanwhile is not listed.
        self.ledgers.refresh()?;
        let missing = self.find_missing(&mut there, &|found| found == kind)?;
        let view = self.ledgers.view();
        there.retain(|root| view.is_live(&root.numbered()));
        let revoked = self.take_revoked(&view, &mut there)?;
        let sightings = self.note_seen(&view, kind, &there)?;
        Ok(Listing {
            there,
            missing,
            revoked,
            view,
            sightings,
        })
    }

    /// Finds the roots of these kinds that ledgers state or this machine has seen, and that no list showed. Those that are there under their
    /// names join `there`; those that nobody has forgotten meanwhile are returned. Reads the ledgers again if it may be so.
    pub(crate) fn find_missing(
        &self,
        there: &mut Vec<RootName>,
        is_meant: &dyn Fn(RootKind) -> bool,
    ) -> Result<Vec<RootName>> {
        let (view, seen) = (self.ledgers.view(), self.seen_roots(is_meant)?);
        let found: BTreeSet<Numbered> = there.iter().map(RootName::numbered).collect();
        let mut missing = Vec::new();
        for root in view.missing(&seen.keys().copied().collect(), &found) {
            let stated = view.stated.live.get(&root);
            let stated = stated.and_then(|live| RootKind::from_word(live.kind.as_str()));
            let Some(kind) = stated.or_else(|| seen.get(&root).copied()) else {
                continue;
            };
            let root = RootName {
                kind,
                registration: root.registration,
                number: root.number,
                hash: root.hash,
            };
            if !is_meant(root.kind) {
                continue;
            }
            match self.signed_root(&root) {
                Err(Error::Store(error)) if error.is_not_found() => missing.push(root),
                Err(error) if !error.is_damage() => return Err(error),
                Ok(_) | Err(_) => {
                    self.root_names.learn(&[root]);
                    there.push(root);
                }
            }
        }
        if !missing.is_empty() {
            let view = self.ledgers.refresh()?;
            missing.retain(|root| view.is_live(&root.numbered()));
        }
        Ok(missing)
    }

    /// Returns true for a root that a removed key has signed and that no ledger states.
    pub(crate) fn is_revoked(&self, view: &View, root: &SignedRoot) -> bool {
        let is_stated = view.stated.live.contains_key(&root.name.numbered());
        !is_stated && self.is_removed(&root.certificate.writer)
    }

    /// Returns true if the key of this writer was removed, and a ledger states so. The same ledger states what the writer had published until
    /// then: before that, gc must not take any of it for garbage.
    pub(crate) fn is_dismissed(&self, view: &View, writer: &VerifyKey) -> bool {
        let since = |removed: &Removed| (removed.writer == *writer).then_some(removed.since);
        let since = self.config().removed.iter().find_map(since);
        let heads = &view.stated.configuration.heads;
        since.is_some_and(|since| heads.iter().any(|(number, _)| *number >= since))
    }

    fn take_revoked(&self, view: &View, there: &mut Vec<RootName>) -> Result<Vec<RootName>> {
        let mut revoked = Vec::new();
        if self.revoked().next().is_none() {
            return Ok(revoked);
        }
        for root in std::mem::take(there) {
            let is_stated = view.stated.live.contains_key(&root.numbered());
            match if is_stated { None } else { Some(self.listed_root(&root)) } {
                Some(Ok(signed)) if self.is_revoked(view, &signed) => revoked.push(root),
                Some(Err(error)) if !error.is_damage() => return Err(error),
                _ => there.push(root),
            }
        }
        Ok(revoked)
    }

    /// Reads all snapshots with what is known of where and when they came from, oldest first. Reports those that are damaged or missing,
    /// and ledgers that cannot be read.
    pub fn candidates(&self) -> Result<(Vec<Candidate>, Problems)> {
        Ok(self.survey(RootSource::Cache)?.told())
    }

    /// The same; what counts for nobody apart from what may be a snapshot.
    pub(crate) fn survey(&self, source: RootSource) -> Result<Survey> {
        let open = |root: &SignedRoot| self.opened_snapshot(root);
        let found = self.survey_roots(RootKind::SNAPSHOT, source, &open)?;
        let candidates = found.candidates.into_iter().map(|one| Candidate {
            id: one.name.hash,
            identity: identity(self.id(), one.name.hash, &one.says),
            snapshot: one.says,
            writer: one.writer,
            role: one.role,
            seen: one.seen,
            stated: one.stated,
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        arrange(&mut candidates);
        Ok(Survey {
            candidates,
            problems: found.problems,
            foreign: found.foreign,
            ignored: found.ignored,
            revoked: found.revoked,
        })
    }

    /// Reads all roots of a kind, many at once; `open` says what is kept of what each says.
    pub(crate) fn survey_roots<T: Send>(
        &self,
        kind: RootKind,
        source: RootSource,
        open: &(dyn Fn(&SignedRoot) -> Result<T> + Sync),
    ) -> Result<RootSurvey<T>> {
        let (mut candidates, mut signed) = (Vec::new(), Vec::new());
        let (mut foreign, mut ignored) = (Problems::default(), Problems::default());
        let Listing {
            there,
            missing,
            revoked,
            view,
            sightings,
        } = self.root_listing(kind)?;
        let (_, mut problems) = self.ledgers.problems();
        for root in missing {
            problems.push(Name::root(&root).as_str(), missed(&root));
        }
        let (now, times) = (self.context.clock.now().seconds, self.ledgers.times());
        let read = |name: &RootName| {
            let root = match self.root_from(source, name) {
                Err(error) if error.is_damage() => return Ok(Err((None, error))),
                read => read?,
            };
            match open(&root) {
                Err(error) if error.is_damage() => Ok(Err((Some(root.certificate), error))),
                says => Ok(Ok((says?, root.certificate))),
            }
        };
        let is_foreign = |one: &Certificate| one.role != Role::Owner && !self.is_own(&one.writer);
        let reads = self.place.small_reads(self.context.threads);
        for (name, read) in there.iter().zip(parallel::map(reads, &there, &read)?) {
            let object = Name::root(name);
            match read {
                Ok((says, certificate)) => {
                    signed.push(*name);
                    let own = sightings.get(name).unwrap_or(FirstSeen { not_at: None, at: now });
                    let numbered = name.numbered();
                    let seen = times.get(&numbered).map_or(own, |time| first_seen(own, *time));
                    candidates.push(ReadRoot {
                        name: *name,
                        says,
                        writer: certificate.writer,
                        role: certificate.role,
                        seen: credible(seen, now),
                        stated: view.stated.live.get(&numbered).map(|live| live.first),
                    });
                }
                Err((None, error)) if counts_for_nobody(&error) => {
                    ignored.push(object.as_str(), format!("{error}; {COUNTS_FOR_NOBODY}"));
                }
                Err((Some(by), error)) if is_foreign(&by) => foreign.push(object.as_str(), error),
                Err((_, error)) => problems.push(object.as_str(), error),
            }
        }
        self.state_many(&view, &signed);
        report_doubles(signed, &mut ignored);
        Ok(RootSurvey {
            candidates,
            problems,
            foreign,
            ignored,
            revoked,
        })
    }

    /// Writes down which roots of a kind this machine has seen by now, outside of the cache; these are there.
    pub(crate) fn note_seen(&self, view: &View, kind: RootKind, there: &[RootName]) -> Result<Sightings> {
        let now = self.context.clock.now();
        self.update_sightings(kind, |sightings| sightings.look(there, &|root| view.is_live(root), now))
    }

    /// Writes down which roots of all kinds that count this machine has seen by now; these are there.
    pub(crate) fn note_all_seen(&self, view: &View, there: &[RootName]) -> Result<()> {
        for kind in self.listed_kinds() {
            let its = there.iter().filter(|root| root.kind == kind);
            self.note_seen(view, kind, &its.copied().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Writes down that this machine has made a root: it misses the root from now on.
    pub(crate) fn note_own(&self, root: &RootName) -> Result<()> {
        let (now, view) = (self.context.clock.now(), self.ledgers.view());
        // A process that only publishes never looks at all roots, and each that it publishes writes all of them down again.
        let note = |sightings: &mut Sightings| {
            sightings.forget(&|root| view.is_live(root));
            sightings.add(root.numbered(), now);
        };
        self.update_sightings(root.kind, note).map(drop)
    }

    fn update_sightings(&self, kind: RootKind, change: impl FnOnce(&mut Sightings)) -> Result<Sightings> {
        let mut sightings = Sightings::default();
        self.known().update_section(&self.id(), &sightings_of(kind), |before| {
            sightings = Sightings::decode(&before.unwrap_or_default());
            change(&mut sightings);
            sightings.encode()
        })?;
        Ok(sightings)
    }

    /// The roots of a kind that this machine has seen, by now or long ago.
    fn sightings(&self, kind: RootKind) -> Result<Sightings> {
        let seen = self.known().section(&self.id(), &sightings_of(kind))?;
        Ok(Sightings::decode(&seen.unwrap_or_default()))
    }

    /// The roots of these kinds that this machine has seen.
    fn seen_roots(&self, is_meant: &dyn Fn(RootKind) -> bool) -> Result<BTreeMap<Numbered, RootKind>> {
        let mut seen = BTreeMap::new();
        for kind in self.listed_kinds().into_iter().filter(|kind| is_meant(*kind)) {
            seen.extend(self.sightings(kind)?.seen().keys().map(|root| (*root, kind)));
        }
        Ok(seen)
    }

    /// When this machine saw the roots of all kinds that count first.
    pub(crate) fn all_sightings(&self) -> Result<Times> {
        let mut all = Times::new();
        for kind in self.listed_kinds() {
            all.extend(self.sightings(kind)?.seen());
        }
        Ok(all)
    }
}
