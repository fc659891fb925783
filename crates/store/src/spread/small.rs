//! Small objects: a copy at every place, so that any one of those that are needed has them.
//!
//! - A copy is judged before it is returned whole; the next place is asked if it is not what was stored.

use std::sync::Arc;

use bytes::Bytes;

use super::Core;
use super::gather::{Attempt, Failure, all, gather};
use super::pack::{Stored, delete_at, put_unless_resting};
use super::place::{Ease, Place};
use crate::{Error, Name, Put, Range, Result};

impl Core {
    pub(super) async fn put_small(self: &Arc<Self>, name: &Name, bytes: Bytes) -> Result<Put> {
        let taking: Vec<&Arc<Place>> = self.places.iter().filter(|place| !place.is_leaving()).collect();
        let most = taking.len();
        let puts = taking.into_iter().map(|place| {
            let (place, name, bytes) = (Arc::clone(place), name.clone(), bytes.clone());
            async move {
                match put_unless_resting(&place, &name, bytes).await {
                    Ok(put) => Stored {
                        put: Some(put),
                        failures: Vec::new(),
                    },
                    Err(error) => {
                        place.note(|troubles| troubles.owed.add(&name));
                        Stored {
                            put: None,
                            failures: vec![place.failure(error)],
                        }
                    }
                }
            }
        });
        let stored = all(puts).await.unwrap_or_default();
        let is_new = stored.iter().all(|stored| stored.put != Some(Put::Existed));
        self.verdict(name, most, stored)?;
        Ok(if is_new { Put::Created } else { Put::Existed })
    }

    /// The first good answer of the places, the best asked first. Places that rest are asked only if it depends on them.
    async fn ask<T: Send + 'static, F>(&self, name: &Name, question: impl Fn(Arc<Place>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (ready, rest): (Vec<_>, Vec<_>) = self
            .readable()
            .into_iter()
            .partition(|place| place.ease() < Ease::Resting);
        let absent = self.places.len() - ready.len() - rest.len();
        let mut failures: Vec<Failure> = Vec::new();
        for (places, left) in [(ready, rest.len() + absent), (rest, absent)] {
            let attempt = |place: &Arc<Place>| {
                let (asked, question) = (Arc::clone(place), question(Arc::clone(place)));
                Attempt::new(Some(place), async move {
                    question.await.map_err(|error| vec![asked.failure(error)])
                })
            };
            let attempts = places.into_iter().map(attempt).collect();
            let mut gathered = gather(1, attempts, self.hedge_after).await;
            failures.append(&mut gathered.failed);
            if let Some(answer) = gathered.good.pop() {
                self.note_missing(&failures);
                return Ok(answer);
            }
            let all_deny = !failures.is_empty() && failures.iter().all(|failure| failure.error.is_not_found());
            if all_deny && left <= self.placement.tolerance() {
                break;
            }
        }
        for place in self.places.iter().filter(|place| place.store().is_none()) {
            failures.extend(place.refusal(name).map(|error| place.failure(error)));
        }
        if failures
            .iter()
            .any(|failure| matches!(failure.error, Error::Short { .. } | Error::TooLarge { .. }))
            && let Some(at) = failures.iter().position(|failure| !failure.error.is_not_found())
        {
            return Err(failures.swap_remove(at).error);
        }
        Err(self.unreadable(name, &failures))
    }

    pub(super) async fn get_small(self: &Arc<Self>, name: &Name, range: Range) -> Result<Bytes> {
        let question = |place: Arc<Place>| {
            let (core, name) = (Arc::clone(self), name.clone());
            async move {
                let bytes = place.get(&name, range).await?;
                if range == Range::All && !core.judge.is_sound(&name, &bytes) {
                    return Err(place.note_unsound(&name, &"it is not what was stored"));
                }
                Ok(bytes)
            }
        };
        self.ask(name, question).await
    }

    pub(super) async fn stat_small(&self, name: &Name) -> Result<u64> {
        let question = |place: Arc<Place>| {
            let name = name.clone();
            async move { place.stat(&name).await }
        };
        self.ask(name, question).await
    }

    pub(super) async fn delete_small(&self, name: &Name) -> Result<()> {
        let deletes = self.places.iter().map(|place| {
            let (place, name) = (Arc::clone(place), name.clone());
            async move {
                match place.refusal(&name) {
                    Some(error) => Some(place.failure(error)),
                    None => delete_at(&place, &name).await,
                }
            }
        });
        let failures = all(deletes).await.unwrap_or_default();
        self.deleted(name, failures.into_iter().flatten().collect())
    }
}
