//! One place of a spread: its store, whether it is worth asking now, and what was observed of it.
//!
//! - A place that does not answer rests for a while, so that it costs one wait and not one for each request.
//! - The spare copies at a place are one more place, of which everything observed counts as observed of the place.
//! - That an object is missing is an answer, not a failure of the place.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::PlaceId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::troubles::{Objects, PlaceTroubles};
use crate::placement::Candidate;
use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Spares, Store};

/// How a place is reached.
#[derive(Debug, Clone)]
pub enum Access {
    /// Through this store.
    Present(Arc<dyn Store>),
    /// Not at all in this run.
    Absent {
        /// Its URL or path.
        place: String,
        /// What is known about why.
        reason: String,
    },
}

/// One of the places of a spread.
#[derive(Debug, Clone)]
pub struct SpreadPlace {
    /// Its identity, by which placement knows it.
    pub id: PlaceId,
    /// How it is reached.
    pub access: Access,
    /// Its share of the shards where there are more places than shards; `None` if it is being emptied and gets no more.
    pub weight: Option<NonZeroU32>,
    /// Slow or dear to read: it is read last and gets parity first.
    pub cold: bool,
    /// Nothing is ever removed from it.
    pub append_only: bool,
}

impl SpreadPlace {
    /// As placement sees it.
    pub(super) fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id,
            weight: self.weight.map_or(0, NonZeroU32::get),
            cold: self.cold,
        }
    }
}

/// A place that could not help, by its position, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) position: usize,
    pub(super) error: Error,
}

/// How willingly a place is asked; the first is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ease {
    /// It answers.
    Ready,
    /// It answers late.
    Slow,
    /// It gave forged shards: its data is made from that of others where that is possible.
    Lying,
    /// It did not answer a moment ago: asked only if nobody else can help.
    Resting,
    /// It is not there.
    Absent,
}

/// How often the rest of a place that stays silent is doubled.
const RESTS_DOUBLED: u32 = 4;

/// A place at work.
#[derive(Debug)]
pub(super) struct KnownPlace {
    /// Where it stands among the places of the spread.
    pub(super) position: usize,
    /// Which spare copies of small objects it stands for; 0 for the originals, and for shards.
    pub(super) spare: u8,
    options: SpreadPlace,
    rest: Duration,
    state: Arc<Mutex<Observed>>,
}

#[derive(Debug)]
struct Observed {
    lies: bool,
    rests_until: Option<Instant>,
    slow_until: Option<Instant>,
    /// Times in a row that it did not answer.
    silences: u32,
    troubles: PlaceTroubles,
}

impl Observed {
    /// Leaves the place alone for `rest`, and for twice as long each further time in a row.
    fn rest(&mut self, rest: Duration) {
        self.troubles.unanswered += 1;
        let factor = 1 << self.silences.min(RESTS_DOUBLED);
        self.silences += 1;
        self.rests_until = Instant::now().checked_add(rest.saturating_mul(factor));
    }
}

impl KnownPlace {
    pub(super) fn new(position: usize, options: SpreadPlace, rest: Duration) -> Self {
        let (place, absent) = match &options.access {
            Access::Present(store) => (store.place().to_string(), None),
            Access::Absent { place, reason } => (place.clone(), Some(reason.clone())),
        };
        let state = Observed {
            lies: false,
            rests_until: None,
            slow_until: None,
            silences: 0,
            troubles: PlaceTroubles::new(options.id, place, absent),
        };
        Self {
            position,
            spare: 0,
            options,
            rest,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The spare copies of this number at this place.
    pub(super) fn spares(&self, number: u8) -> Self {
        let mut options = self.options.clone();
        if let Access::Present(store) = &mut options.access {
            *store = Arc::new(Spares::new(Arc::clone(store), number));
        }
        Self {
            position: self.position,
            spare: number,
            options,
            rest: self.rest,
            state: Arc::clone(&self.state),
        }
    }

    /// Its store, unless it is absent.
    pub(super) fn store(&self) -> Option<&Arc<dyn Store>> {
        match &self.options.access {
            Access::Present(store) => Some(store),
            Access::Absent { .. } => None,
        }
    }

    pub(super) fn label(&self) -> &str {
        match &self.options.access {
            Access::Present(store) => store.place(),
            Access::Absent { place, .. } => place,
        }
    }

    pub(super) fn id(&self) -> PlaceId {
        self.options.id
    }

    pub(super) fn is_cold(&self) -> bool {
        self.options.cold
    }

    pub(super) fn is_append_only(&self) -> bool {
        self.options.append_only
    }

    /// Whether it is being emptied.
    pub(super) fn is_leaving(&self) -> bool {
        self.options.weight.is_none()
    }

    /// Whether its requests wait for a network.
    pub(super) fn is_remote(&self) -> bool {
        self.store().is_none_or(|store| store.traits().slow)
    }

    /// Whether its listings may miss what was just stored.
    pub(super) fn lists_late(&self) -> bool {
        self.store().is_some_and(|store| store.traits().stale_list.is_some())
    }

    pub(super) fn ease(&self) -> Ease {
        if self.store().is_none() {
            return Ease::Absent;
        }
        let now = Instant::now();
        let state = self.state.lock();
        let lasts = |until: Option<Instant>| until.is_some_and(|until| until > now);
        match (lasts(state.rests_until), state.lies, lasts(state.slow_until)) {
            (true, ..) => Ease::Resting,
            (_, true, _) => Ease::Lying,
            (_, _, true) => Ease::Slow,
            _ => Ease::Ready,
        }
    }

    /// Whether it is there and not resting.
    pub(super) fn is_ready(&self) -> bool {
        self.ease() <= Ease::Lying
    }

    /// What is read from first sorts first.
    pub(super) fn read_order(&self) -> (Ease, bool, bool) {
        (self.ease(), self.is_cold(), self.is_remote())
    }

    pub(super) fn troubles(&self) -> PlaceTroubles {
        self.state.lock().troubles.clone()
    }

    /// Writes something down.
    pub(super) fn note(&self, note: impl FnOnce(&mut PlaceTroubles)) {
        note(&mut self.state.lock().troubles);
    }

    /// A read took longer than it should: others are asked first for a while.
    pub(super) fn note_slow(&self) {
        let mut state = self.state.lock();
        state.troubles.slow += 1;
        state.slow_until = Instant::now().checked_add(self.rest);
    }

    /// It let others wait for so long that they went on without it.
    pub(super) fn give_up(&self, name: &dyn fmt::Display) -> Failure {
        let reason = "the others went on without it, since they had waited for long".to_string();
        let error = Error::Silent {
            name: name.to_string(),
            place: self.label().to_string(),
            reason,
        };
        let outcome: Result<()> = self.observe(Err(error));
        self.failure(outcome.err().unwrap_or_else(|| self.unavailable(name, String::new())))
    }

    /// This error, as that of this place.
    pub(super) fn failure(&self, error: Error) -> Failure {
        let position = self.position;
        Failure { position, error }
    }

    /// Bytes are not what was stored; gives the error to go on with.
    pub(super) fn note_unsound(&self, name: &Name, what: &dyn ToString) -> Error {
        let error = self.unsound(name, what);
        let name = name.spare(self.spare);
        self.note(|troubles| troubles.unsound.add(&name));
        error
    }

    /// The same, but nothing is noted: it may be somebody else who lies.
    pub(super) fn unsound(&self, name: &Name, what: &dyn ToString) -> Error {
        let name = name.spare(self.spare);
        Error::Unsound {
            name: name.to_string(),
            place: self.label().to_string(),
            what: what.to_string(),
        }
    }

    /// A part of a pack is forged; from now on others are asked first.
    pub(super) fn note_forged(&self, name: &Name, what: &'static str) {
        let mut state = self.state.lock();
        state.lies = true;
        state.troubles.forged.add(name);
        state.troubles.forgery.get_or_insert(what);
    }

    pub(super) async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let store = self.present(name)?;
        self.observe(store.get(name, range).await)
    }

    pub(super) async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let store = self.present(name)?;
        self.observe(store.put(name, bytes).await)
    }

    pub(super) async fn stat(&self, name: &Name) -> Result<u64> {
        let store = self.present(name)?;
        self.observe(store.stat(name).await)
    }

    pub(super) async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let store = self.present(prefix)?;
        self.observe(store.list(prefix, after, limit).await)
    }

    pub(super) async fn delete(&self, name: &Name) -> Result<()> {
        let store = self.present(name)?;
        self.observe(store.delete(name).await)
    }

    fn present(&self, name: &dyn fmt::Display) -> Result<&Arc<dyn Store>> {
        match &self.options.access {
            Access::Present(store) => Ok(store),
            Access::Absent { reason, .. } => Err(self.unavailable(name, reason.clone())),
        }
    }

    /// Why it is not asked now, if it is absent or rests.
    pub(super) fn refusal(&self, name: &dyn fmt::Display) -> Option<Error> {
        match (&self.options.access, self.ease()) {
            (Access::Absent { reason, .. }, _) => Some(self.unavailable(name, reason.clone())),
            (_, Ease::Resting) => {
                let failure = self.state.lock().troubles.first_failure.clone();
                Some(self.unavailable(name, failure.unwrap_or_else(|| "it did not answer".to_string())))
            }
            _ => None,
        }
    }

    fn unavailable(&self, name: &dyn fmt::Display, reason: String) -> Error {
        Error::Unavailable {
            name: name.to_string(),
            place: self.label().to_string(),
            reason,
        }
    }

    /// Forgets its failures if all of them were for lack of space, which there is now.
    pub(super) fn forgive_full(&self) {
        let troubles = &mut self.state.lock().troubles;
        if troubles.full == troubles.failures {
            (troubles.full, troubles.failures, troubles.first_failure) = (0, 0, None);
            troubles.owed = Objects::default();
        }
    }

    /// Counts a failure; after one of the place as a whole it rests.
    pub(super) fn note_failure(&self, error: &Error) {
        let mut state = self.state.lock();
        state.troubles.failures += 1;
        state.troubles.full += u64::from(matches!(error, Error::Full { .. }));
        state.troubles.first_failure.get_or_insert_with(|| error.to_string());
        if error.is_of_place() {
            state.rest(self.rest);
        }
    }

    fn observe<T>(&self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => {
                let mut state = self.state.lock();
                state.rests_until = None;
                state.silences = 0;
            }
            Err(Error::NotFound { .. } | Error::Short { .. } | Error::TooLarge { .. }) => {}
            Err(error) => self.note_failure(error),
        }
        outcome
    }
}
