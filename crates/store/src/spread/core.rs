//! What all calls of a spread share: its places, what was learned about packs, and what to say when too few places help.
//!
//! - Everything here is bounded: packs are remembered in tables of fixed size.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use drystone_format::PlaceId;
use drystone_format::shard::ShardKeys;
use parking_lot::RwLock;

use super::options::{ForgedHook, Judge, SignerHint, SizeHint, SpreadOptions, validate};
use super::place::{Failure, KnownPlace, SpreadPlace};
use super::recent::Recent;
use super::suspects::Suspects;
use super::troubles::{Objects, Troubles};
use super::whereabouts::Whereabouts;
use crate::placement::Placement;
use crate::{Error, Kind, Name, Result};

/// A store over several places.
#[derive(Clone)]
pub struct Spread {
    pub(super) core: Arc<Core>,
}

/// What all calls share.
pub(super) struct Core {
    pub(super) needed: u8,
    pub(super) total: u8,
    pub(super) places: Vec<Arc<KnownPlace>>,
    /// The places, and the spare copies at them, for objects that have such.
    pub(super) copies: Vec<Arc<KnownPlace>>,
    pub(super) placement: Placement,
    pub(super) keys: Arc<ShardKeys>,
    pub(super) judge: Arc<dyn Judge>,
    pub(super) hedge_after: Duration,
    pub(super) label: String,
    /// Lengths of packs seen in this run.
    pub(super) sizes: Recent<u64>,
    /// Where packs were found whose shards are not where they should be.
    pub(super) elsewhere: Recent<Whereabouts>,
    pub(super) hint: RwLock<Option<SizeHint>>,
    pub(super) signers: RwLock<Option<SignerHint>>,
    pub(super) forged: RwLock<Option<ForgedHook>>,
    /// Packs that somebody said were not what they should be, and what came of it.
    pub(super) suspects: Suspects,
    pub(super) thin: parking_lot::Mutex<Objects>,
}

/// Shortest time after which other places are asked: below it the timers would be all the work.
const HEDGE_MIN: Duration = Duration::from_millis(1);

impl Spread {
    /// A spread over these places; nothing is read or written.
    ///
    /// [`Error::Spread`] unless 1 <= k <= n, there is a place that takes shards, and no place is named twice.
    pub fn new(options: SpreadOptions) -> Result<Self> {
        let candidates = options.places.iter().map(SpreadPlace::candidate).collect();
        let placement = Placement::new(candidates, options.needed, options.total);
        validate(&options, &placement)?;
        let rest = options.rest;
        let places = options.places.into_iter().enumerate();
        let places = places.map(|(position, place)| Arc::new(KnownPlace::new(position, place, rest)));
        let places: Vec<Arc<KnownPlace>> = places.collect();
        let labels: Vec<&str> = places.iter().map(|place| place.label()).collect();
        let spares = placement.spares_per_place();
        let copies = places.iter().flat_map(|place| {
            let spares = (1..=spares).map(|number| Arc::new(place.spares(number)));
            std::iter::once(Arc::clone(place)).chain(spares)
        });
        let copies = copies.collect();
        let label = format!("{}/{} over {}", options.needed, options.total, labels.join(", "));
        Ok(Self {
            core: Arc::new(Core {
                needed: options.needed,
                total: options.total,
                places,
                copies,
                placement,
                keys: Arc::new(options.keys),
                judge: options.judge,
                hedge_after: options.hedge_after.max(HEDGE_MIN),
                label,
                sizes: Recent::default(),
                elsewhere: Recent::default(),
                hint: RwLock::default(),
                signers: RwLock::default(),
                forged: RwLock::default(),
                suspects: Suspects::default(),
                thin: parking_lot::Mutex::default(),
            }),
        })
    }

    /// Asks `hint` for the lengths of packs from now on, which saves a request for each pack that was not stored in this
    /// run. A wrong length makes reads slower, never wrong.
    pub fn set_sizes(&self, hint: SizeHint) {
        *self.core.hint.write() = Some(hint);
    }

    /// Asks `hint` who signed a pack, when shards of it contradict each other. A wrong answer makes it slower, never wrong.
    pub fn set_signers(&self, hint: SignerHint) {
        *self.core.signers.write() = Some(hint);
    }

    /// Tells `hook` from now on of packs of which forged shards are found.
    pub fn set_forged(&self, hook: ForgedHook) {
        *self.core.forged.write() = Some(hook);
    }

    /// What went wrong so far.
    pub fn troubles(&self) -> Troubles {
        Troubles {
            places: self.core.places.iter().map(|place| place.troubles()).collect(),
            thin: self.core.thin.lock().clone(),
        }
    }

    /// Whether what one has put every other lists, though each may have been without as many places as may be lost: the
    /// places that a put asks for and those that a list asks for have one in common.
    pub fn is_quorate(&self) -> bool {
        self.core.least_copies() > self.core.placement.tolerance()
    }

    /// Returns true if so many places are away that an object which was put may lie at those alone.
    pub fn may_hide_objects(&self) -> bool {
        let away = self
            .core
            .places
            .iter()
            .filter(|place| place.troubles().absent.is_some());
        away.count() >= self.core.least_copies()
    }

    /// Writes down that a place has not what it should have, as found by somebody who looked at it alone.
    pub fn note_missing(&self, place: &PlaceId, name: &Name) {
        for found in self.core.places.iter().filter(|found| found.id() == *place) {
            found.note(|troubles| troubles.missing.add(name));
        }
    }

    /// Forgets the failures of this place for lack of space, since there is some now, and what it is owed: whoever puts it puts it again.
    pub fn forgive_full(&self, place: &PlaceId) {
        for found in self.core.places.iter().filter(|found| found.id() == *place) {
            found.forgive_full();
        }
    }

    /// Writes down that a place failed, as found by somebody who asked it alone.
    pub fn note_failure(&self, place: &PlaceId, error: &Error) {
        for found in self.core.places.iter().filter(|found| found.id() == *place) {
            found.note_failure(error);
        }
    }

    /// How many spare copies of each small object a place holds, because there are fewer places than copies are needed.
    pub fn spares_per_place(&self) -> u8 {
        self.core.placement.spares_per_place()
    }

    /// How many places may be lost, whichever they are, without losing anything of which nothing is owed.
    pub fn tolerance(&self) -> usize {
        self.core.placement.tolerance()
    }
}

impl Core {
    /// The place at this position; positions come from placement, which knows as many.
    pub(super) fn place(&self, position: usize) -> Option<&Arc<KnownPlace>> {
        self.places.get(position)
    }

    /// Where the copies of a small object lie.
    pub(super) fn copies_of(&self, name: &Name) -> &[Arc<KnownPlace>] {
        if name.has_spares() { &self.copies } else { &self.places }
    }

    /// Where the copies of a small object are read from, the best first; absent places left out.
    pub(super) fn readable(&self, name: &Name) -> Vec<&Arc<KnownPlace>> {
        let copies = self.copies_of(name).iter();
        let mut places: Vec<&Arc<KnownPlace>> = copies.filter(|place| place.store().is_some()).collect();
        places.sort_by_key(|place| (place.read_order(), place.spare));
        places
    }

    /// Why a place is not asked now: it is absent, or rests while enough others are there.
    pub(super) fn refusal(&self, place: &KnownPlace, name: &dyn fmt::Display) -> Option<Error> {
        let away = self.places.iter().filter(|place| !place.is_ready()).count();
        let may_rest = away <= self.placement.tolerance();
        place.refusal(name).filter(|_| may_rest || place.store().is_none())
    }

    /// How long to wait for this many bytes before others are asked.
    pub(super) fn patience(&self, bytes: u64) -> Duration {
        let further_mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.hedge_after.saturating_mul(further_mib.saturating_add(1))
    }

    /// What to tell when an object could not be found or put together, some of it having been `found` or nothing.
    ///
    /// It is not there, if so many places said so that the others cannot hold enough of it.
    pub(super) fn unreadable(&self, name: &Name, found: Amount, failures: &[Failure]) -> Error {
        let is_unsound = |failure: &Failure| failure.error.is_unsound();
        let is_silent = |failure: &&Failure| !failure.error.is_not_found() && !is_unsound(failure);
        let silent: HashSet<usize> = failures
            .iter()
            .filter(is_silent)
            .map(|failure| failure.position)
            .collect();
        // A place that answers but cannot read what it has will not be able to later.
        let is_broken = |failure: &Failure| matches!(failure.error, Error::Io { .. } | Error::Foreign { .. });
        let all_answered = failures.iter().filter(is_silent).all(is_broken);
        let is_seen = found == Amount::Some || failures.iter().any(is_unsound);
        let (place, name) = (self.label.clone(), name.to_string());
        if !is_seen && silent.len() <= self.placement.tolerance() {
            Error::NotFound { name, place }
        } else if all_answered {
            let said = said(failures);
            Error::Lost { name, place, said }
        } else {
            self.too_few(&name, failures)
        }
    }

    /// What is said of a question that the end of the program left without an answer.
    pub(super) fn ending(&self) -> Error {
        Error::Stopped {
            place: self.label.clone(),
        }
    }

    pub(super) fn too_few(&self, name: &dyn fmt::Display, failures: &[Failure]) -> Error {
        Error::TooFew {
            name: name.to_string(),
            place: self.label.clone(),
            needed: self.needed,
            said: said(failures),
        }
    }

    /// Refuses what belongs to one place.
    pub(super) fn check_name(&self, name: &Name) -> Result<()> {
        if name.spare_number() == 0 && !matches!(name.kind(), Kind::Place | Kind::Reserve(_) | Kind::Shard(_)) {
            return Ok(());
        }
        Err(Error::OnePlace {
            name: name.to_string(),
            place: self.label.clone(),
        })
    }
}

/// Whether anything of an object was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Nothing,
    Some,
}

/// Everything that went wrong, each thing once.
fn said(failures: &[Failure]) -> String {
    let mut said: Vec<String> = failures.iter().map(|failure| failure.error.to_string()).collect();
    said.sort_unstable();
    said.dedup();
    said.join("; ")
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spread({})", self.core.label)
    }
}
