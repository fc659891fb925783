//! Merges the listings of several places, key by key, a page of each at a time.
//!
//! - A place that fails midway contributes nothing more and is told; one whose names go back is treated as failed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::gather::most;
use super::place::{Failure, KnownPlace};
use crate::{Error, Listed, Name, Prefix};

/// What places list under one prefix each.
pub(super) struct Merge<K> {
    streams: Vec<Stream>,
    /// What belongs together; names of one place come in the order of their keys.
    key: fn(&Name) -> K,
    page: usize,
    /// How many places may be missing, and how long one is waited for before others are asked.
    tolerance: usize,
    hedge_after: Duration,
    pub(super) failures: Vec<Failure>,
}

/// The listing of one place.
struct Stream {
    place: Arc<KnownPlace>,
    prefix: Prefix,
    last: Option<Name>,
    buffer: VecDeque<Listed>,
    has_ended: bool,
}

/// Objects of one key.
pub(super) struct Group<K> {
    pub(super) key: K,
    /// With the positions of their places.
    pub(super) objects: Vec<(usize, Listed)>,
}

impl<K: Ord> Merge<K> {
    /// Merges nothing yet; `page` objects are asked for at a time.
    pub(super) fn new(key: fn(&Name) -> K, page: usize) -> Self {
        Self {
            streams: Vec::new(),
            key,
            page,
            tolerance: 0,
            hedge_after: Duration::MAX,
            failures: Vec::new(),
        }
    }

    /// Adds what `place` lists under `prefix` after a name; if it is not to be asked now, that is a failure.
    pub(super) fn add(&mut self, core: &Core, place: &Arc<KnownPlace>, prefix: Prefix, after: Option<Name>) {
        (self.tolerance, self.hedge_after) = (core.placement.tolerance(), core.hedge_after);
        match core.refusal(place, &prefix) {
            Some(error) => self.failures.push(place.failure(error)),
            None => self.streams.push(Stream {
                place: Arc::clone(place),
                prefix,
                last: after,
                buffer: VecDeque::new(),
                has_ended: false,
            }),
        }
    }

    /// The objects of the next key.
    pub(super) async fn next(&mut self) -> Option<Group<K>> {
        let key = self.key;
        while self.refill(|stream| stream.buffer.is_empty()).await {}
        loop {
            let fronts = self.streams.iter().filter_map(|stream| stream.buffer.front());
            let least = fronts.map(|listed| key(&listed.name)).min()?;
            // The objects of a key may go on beyond the page.
            let goes_on = |stream: &Stream| stream.buffer.back().is_some_and(|listed| key(&listed.name) == least);
            let may_go_on = |stream: &Stream| stream.prefix == Prefix::Shards && goes_on(stream);
            if self.refill(may_go_on).await {
                continue;
            }
            let mut objects = Vec::new();
            for stream in &mut self.streams {
                let count = stream.buffer.partition_point(|listed| key(&listed.name) <= least);
                let position = stream.place.position;
                objects.extend(stream.buffer.drain(..count).map(|listed| (position, listed)));
            }
            return Some(Group { key: least, objects });
        }
    }

    /// Reads on where `is_wanted` and there may be more; whether anything was read.
    async fn refill(&mut self, is_wanted: impl Fn(&Stream) -> bool) -> bool {
        let page = self.page;
        let wanted = |stream: &&mut Stream| !stream.has_ended && is_wanted(stream);
        let mut streams: Vec<&mut Stream> = self.streams.iter_mut().filter(wanted).collect();
        let reads = streams.iter().map(|stream| {
            let (place, prefix, last) = (Arc::clone(&stream.place), stream.prefix, stream.last.clone());
            async move { place.list(&prefix, last.as_ref(), page).await }
        });
        let missing: BTreeSet<usize> = self.failures.iter().map(|failure| failure.position).collect();
        let is_enough = |answers: &[Option<Result<Vec<Listed>, Error>>]| {
            let open = streams
                .iter()
                .zip(answers)
                .filter(|(_, answer)| !matches!(answer, Some(Ok(_))));
            let open = open.map(|(stream, _)| stream.place.position);
            missing.iter().copied().chain(open).collect::<BTreeSet<_>>().len() <= self.tolerance
        };
        let answers = most(reads, is_enough, self.hedge_after).await;
        for (stream, answer) in streams.iter_mut().zip(answers) {
            let Some(answer) = answer else {
                stream.has_ended = true;
                self.failures.push(stream.place.give_up(&stream.prefix));
                continue;
            };
            let answer = answer.and_then(|listed| stream.take(listed.into_iter().take(page)));
            if let Err(error) = answer {
                stream.has_ended = true;
                self.failures.push(stream.place.failure(error));
            }
        }
        !streams.is_empty()
    }
}

impl Stream {
    fn take(&mut self, page: impl Iterator<Item = Listed>) -> Result<(), Error> {
        self.has_ended = true;
        for listed in page {
            self.has_ended = false;
            if self.last.as_ref().is_some_and(|last| *last >= listed.name) {
                return Err(Error::Unsound {
                    name: self.prefix.to_string(),
                    place: self.place.label().to_string(),
                    what: format!("its listing goes back to {}", listed.name),
                });
            }
            self.last = Some(listed.name.clone());
            if self.prefix.covers(&listed.name) {
                self.buffer.push_back(listed);
            }
        }
        Ok(())
    }
}
