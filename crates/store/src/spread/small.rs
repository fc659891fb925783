//! Small objects: a copy at every place, and spare ones, so that any one of those that are needed has them.
//!
//! - A copy is judged before anything of it is returned, by the hash in its name where there is one; the next one is asked
//!   for if it is not what was stored.
//! - A place that has other bytes under a name does not hold the object, whoever signed them.
//! - At each place the original is stored first and deleted last: what lies there only as a spare copy is damage.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::core::{Amount, Core};
use super::gather::{Attempt, gather, most};
use super::pack::{Stored, delete_at};
use super::place::{Failure, KnownPlace};
use crate::{Error, Kind, Listed, Name, Put, Range, Result};

impl Core {
    pub(super) async fn put_small(self: &Arc<Self>, name: &Name, bytes: Bytes) -> Result<Put> {
        let least = self.least_copies();
        let taking: Vec<_> = self.places.iter().filter(|place| !place.is_leaving()).collect();
        let puts = taking.iter().map(|place| {
            let (core, place) = (Arc::clone(self), Arc::clone(place));
            let (name, bytes) = (name.clone(), bytes.clone());
            async move { core.put_copies(&place, &name, bytes).await }
        });
        let enough = least.max(taking.len().saturating_sub(self.placement.tolerance()));
        let is_put = |stored: &&Option<Stored>| stored.as_ref().is_some_and(|stored| stored.put.is_some());
        let is_enough = |stored: &[Option<Stored>]| stored.iter().filter(is_put).count() >= enough;
        let stored = most(puts, is_enough, self.hedge_after).await;
        let stored = taking.iter().zip(stored);
        let stored = stored.map(|(place, stored)| stored.unwrap_or_else(|| self.without(place, name)));
        let stored: Vec<Stored> = stored.collect();
        let is_new = stored.iter().all(|stored| stored.put != Some(Put::Existed));
        self.verdict(name, least, stored)?;
        Ok(if is_new { Put::Created } else { Put::Existed })
    }

    /// How many copies a put asks for: as many as must survive, but no more than shards.
    pub(super) fn least_copies(&self) -> usize {
        let taking = self.places.iter().filter(|place| !place.is_leaving()).count();
        usize::from(self.needed).min(taking.saturating_sub(self.placement.tolerance()))
    }

    /// Makes sure that an object that was listed at so few places that a later list may not show it is at as many as a put
    /// asks for. One that is gone by now, or not what was stored, is left alone.
    pub(super) async fn confirm(self: &Arc<Self>, copies: &[(usize, Listed)]) -> Result<()> {
        let taking = |position: &usize| self.place(*position).is_some_and(|place| !place.is_leaving());
        let held: BTreeSet<usize> = copies.iter().map(|(position, _)| *position).filter(taking).collect();
        let Some((_, listed)) = copies.first().filter(|_| held.len() < self.least_copies()) else {
            return Ok(());
        };
        match self.whole_small(&listed.name).await {
            // What counts for nobody is not carried from a place to others.
            Ok(bytes) if !self.judge.is_sound(&listed.name, &bytes) => Ok(()),
            Ok(bytes) => self.put_small(&listed.name, bytes).await.map(|_| ()),
            Err(Error::NotFound { .. } | Error::Lost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores a small object at one place, and then its spare copies: whoever is first with the original makes those too.
    async fn put_copies(&self, place: &KnownPlace, name: &Name, bytes: Bytes) -> Stored {
        let mut stored = self.put_copy(place, name, bytes.clone()).await;
        if stored.put.is_none() {
            return stored;
        }
        let copies = self.copies_of(name).iter();
        for spare in copies.filter(|copy| copy.position == place.position && copy.spare > 0) {
            let Stored { failures, .. } = self.put_copy(spare, name, bytes.clone()).await;
            stored.failures.extend(failures);
        }
        stored
    }

    /// Stores one copy. A place that has other bytes under the name does not hold the object, and is told.
    async fn put_copy(&self, place: &KnownPlace, name: &Name, bytes: Bytes) -> Stored {
        let outcome = match self.put_at(place, name, bytes.clone()).await {
            Ok(Put::Existed) => self.same_at(place, name, &bytes).await.map(|()| Put::Existed),
            outcome => outcome,
        };
        match outcome {
            Ok(put) => Stored {
                put: Some(put),
                failures: Vec::new(),
            },
            Err(error) => Self::owed(place, name, place.failure(error)),
        }
    }

    /// A copy that its place did not store in time.
    fn without(&self, place: &KnownPlace, name: &Name) -> Stored {
        let failure = place.give_up(name);
        Self::owed(place, name, failure)
    }

    fn owed(place: &KnownPlace, name: &Name, failure: Failure) -> Stored {
        // Nobody brings the presence of a run to a place that was away during the run.
        if !matches!(name.kind(), Kind::Writer(..)) {
            place.note(|troubles| troubles.owed.add(&name.spare(place.spare)));
        }
        Stored {
            put: None,
            failures: vec![failure],
        }
    }

    /// Whether what was there before is what was to be stored, as it is when a put is tried again.
    async fn same_at(&self, place: &KnownPlace, name: &Name, bytes: &Bytes) -> Result<()> {
        match place.get(name, Range::All).await {
            Ok(found) if found == *bytes => Ok(()),
            Ok(_) => Err(place.note_unsound(name, &"other bytes lie there under this name")),
            Err(what @ Error::TooLarge { .. }) => Err(place.note_unsound(name, &what)),
            Err(error) => Err(error),
        }
    }

    /// A part of a small object; the whole of it is read, since only that can be judged. A part of a piece of the index is read
    /// alone, and not judged: pieces are large, and their readers hold each part against a hash that an owner has signed.
    pub(super) async fn get_small(self: &Arc<Self>, name: &Name, range: Range) -> Result<Bytes> {
        if matches!(name.kind(), Kind::Index(..)) && range != Range::All {
            return self.first_copy(name, range).await;
        }
        let whole = self.whole_small(name).await?;
        let (offset, len) = range.resolve(name, &self.label, whole.len() as u64)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(whole.slice(start..start + len))
    }

    async fn whole_small(self: &Arc<Self>, name: &Name) -> Result<Bytes> {
        self.first_copy(name, Range::All).await
    }

    /// The first copy, of all of it the first sound one, the best place asked first. Those that rest are asked only if it depends on
    /// them.
    async fn first_copy(self: &Arc<Self>, name: &Name, range: Range) -> Result<Bytes> {
        let (ready, rest): (Vec<_>, Vec<_>) = self.readable(name).into_iter().partition(|place| place.is_ready());
        let absent = self.places.iter().filter(|place| place.store().is_none()).count();
        let resting = rest.iter().filter(|place| place.spare == 0).count();
        let mut failures: Vec<Failure> = Vec::new();
        for (places, left) in [(ready, resting + absent), (rest, absent)] {
            let attempt = |place: &Arc<KnownPlace>| {
                let (core, asked, name) = (Arc::clone(self), Arc::clone(place), name.clone());
                Attempt::new(Some(place), async move {
                    let copy = match range {
                        Range::All => core.copy_at(&asked, &name).await,
                        part => asked.get(&name, part).await,
                    };
                    copy.map_err(|error| vec![asked.failure(error)])
                })
            };
            let attempts = places.into_iter().map(attempt).collect();
            let mut gathered = gather(1, attempts, self.hedge_after).await;
            failures.append(&mut gathered.failed);
            if let Some(copy) = gathered.good.pop() {
                self.note_missing(&failures);
                return Ok(copy);
            }
            let all_deny = !failures.is_empty() && failures.iter().all(|failure| failure.error.is_not_found());
            if all_deny && left <= self.placement.tolerance() {
                break;
            }
        }
        for place in self.places.iter().filter(|place| place.store().is_none()) {
            failures.extend(place.refusal(name).map(|error| place.failure(error)));
        }
        Err(self.unreadable(name, Amount::Nothing, &failures))
    }

    /// The copy of a small object at one place, if it is sound.
    pub(super) async fn copy_at(&self, place: &KnownPlace, name: &Name) -> Result<Bytes> {
        match place.get(name, Range::All).await {
            Ok(bytes) => match name.matches(&bytes) {
                Some(true) => Ok(bytes),
                Some(false) => Err(place.note_unsound(name, &"it has other bytes than its name says")),
                None if self.judge.is_sound(name, &bytes) => Ok(bytes),
                None => Err(place.note_unsound(name, &"it is not what was stored")),
            },
            Err(what @ Error::TooLarge { .. }) => Err(place.note_unsound(name, &what)),
            outcome => outcome,
        }
    }

    pub(super) async fn stat_small(self: &Arc<Self>, name: &Name) -> Result<u64> {
        Ok(self.whole_small(name).await?.len() as u64)
    }

    pub(super) async fn delete_small(self: &Arc<Self>, name: &Name) -> Result<()> {
        // What is there only as a spare copy has been damaged, not deleted.
        let (spares, originals) = self.copies_of(name).iter().partition(|place| place.spare > 0);
        let mut failures = self.delete_copies(name, spares).await;
        failures.extend(self.delete_copies(name, originals).await);
        self.deleted(name, failures)
    }

    /// The failures of deletions at these places; those that do not end in time are among them.
    pub(super) async fn deletions<F>(
        &self,
        name: &Name,
        places: &[&Arc<KnownPlace>],
        deletes: impl IntoIterator<Item = F>,
    ) -> Vec<Failure>
    where
        F: Future<Output = Option<Failure>> + Send + 'static,
    {
        let is_enough = |done: &[Option<Option<Failure>>]| {
            let open = done.iter().zip(places).filter(|(done, _)| !matches!(done, Some(None)));
            let open: BTreeSet<usize> = open.map(|(_, place)| place.position).collect();
            open.len() <= self.placement.tolerance()
        };
        let done = most(deletes, is_enough, self.hedge_after).await;
        let failures = places.iter().zip(done);
        failures
            .filter_map(|(place, done)| done.unwrap_or_else(|| Some(place.give_up(name))))
            .collect()
    }

    async fn delete_copies(self: &Arc<Self>, name: &Name, copies: Vec<&Arc<KnownPlace>>) -> Vec<Failure> {
        let deletes = copies.iter().map(|place| {
            let (core, place, name) = (Arc::clone(self), Arc::clone(place), name.clone());
            async move {
                match core.refusal(&place, &name) {
                    Some(error) => Some(place.failure(error)),
                    None => delete_at(&place, &name).await,
                }
            }
        });
        self.deletions(name, &copies, deletes).await
    }
}
