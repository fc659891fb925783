//! The spread store: packs cut into shards over several places, any k of n of which are enough; the rest copied to all,
//! and where these are few, more than once to each.
//!
//! - Above it packs are whole: shards have no names here, and which place holds what is decided in `placement.rs`.
//! - No byte of a shard is returned before its tag was checked, wherever it was found (I6). Whoever has a key of the vault can
//!   make tags: who finds that a pack is not what it should be says so (`distrust`), and gets it from shards that are proven.
//! - A put succeeds when more parts are durable than it takes to read the object; what could not be stored is owed.
//! - A place that is absent, silent, slow, rotten, full or lying is read around, and what it did is written down.
//! - Memory is bounded: a few packs for each call, one page of each place for a listing.
//!
//! The object that tells places apart (`place`), the reserve, shards and spare copies are refused: they belong to one place each.

mod gather;
mod lacking;
mod list;
mod merge;
mod pack;
mod place;
mod plan;
mod rebalance;
mod recent;
mod replicate;
mod shards;
mod small;
mod suspect;
mod trial;
mod troubles;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::keys::VerifyKey;
use drystone_format::shard::ShardKeys;
use drystone_format::{PackId, PlaceId};
use parking_lot::RwLock;

pub use lacking::Lacking;
pub use list::{HeldCopy, HeldShard, Holdings, PackHoldings};
pub use place::{Access, SpreadPlace};
pub use plan::{RebalancePlan, Transfer};
pub use rebalance::{Rebalanced, Verify};
pub use replicate::Replicated;
pub use troubles::{Objects, PlaceTroubles, Troubles};

use crate::placement::Placement;
use crate::{Error, Kind, Listed, Name, Prefix, Put, Range, Result, Store, Traits};
use gather::Failure;
use place::Place;
use recent::Recent;
use shards::Found;
use suspect::Suspects;

/// Tells whether small objects are what was stored: the vault knows their signatures and seals.
pub trait Judge: Send + Sync {
    /// Whether these may be the bytes of the object; `true` for objects that it knows nothing about.
    ///
    /// Of an object whose name ends in a hash, every copy with that hash is read; one that is not sound is not copied to
    /// other places.
    fn is_sound(&self, name: &Name, bytes: &[u8]) -> bool;
}

/// Tells the length of a pack in bytes, if it is known.
pub type SizeHint = Arc<dyn Fn(&PackId) -> Option<u64> + Send + Sync>;

/// Tells who signed a pack, if it is known.
pub type SignerHint = Arc<dyn Fn(&PackId) -> Option<VerifyKey> + Send + Sync>;

/// Is told of each pack of which forged shards were found, and at which places.
pub type ForgedHook = Arc<dyn Fn(&PackId, &[PlaceId]) + Send + Sync>;

/// What a spread is.
pub struct SpreadOptions {
    /// How many shards give a pack back (k).
    pub needed: u8,
    /// How many shards a pack has (n).
    pub total: u8,
    /// Where they lie.
    pub places: Vec<SpreadPlace>,
    /// What their blocks are tagged with, and who signs them.
    pub keys: ShardKeys,
    /// Knows sound small objects.
    pub judge: Arc<dyn Judge>,
    /// How long a place may take for the first MiB of an answer before others are asked too, and for each further one.
    pub hedge_after: Duration,
    /// How long a place that did not answer is left alone.
    pub rest: Duration,
}

/// A store over several places.
#[derive(Clone)]
pub struct Spread {
    core: Arc<Core>,
}

/// What all calls share.
struct Core {
    needed: u8,
    total: u8,
    places: Vec<Arc<Place>>,
    /// The places, and the spare copies at them, for objects that have such.
    copies: Vec<Arc<Place>>,
    placement: Placement,
    keys: Arc<ShardKeys>,
    judge: Arc<dyn Judge>,
    hedge_after: Duration,
    label: String,
    /// Lengths of packs seen in this run.
    sizes: Recent<u64>,
    /// Where packs were found whose shards are not where they should be.
    elsewhere: Recent<Found>,
    hint: RwLock<Option<SizeHint>>,
    signers: RwLock<Option<SignerHint>>,
    forged: RwLock<Option<ForgedHook>>,
    /// Packs that somebody said were not what they should be, and what came of it.
    suspects: Suspects,
    thin: parking_lot::Mutex<Objects>,
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
        let places = places.map(|(position, place)| Arc::new(Place::new(position, place, rest)));
        let places: Vec<Arc<Place>> = places.collect();
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

fn validate(options: &SpreadOptions, placement: &Placement) -> Result<()> {
    let ids: HashSet<_> = options.places.iter().map(|place| place.id).collect();
    let why = if options.needed == 0 || options.needed > options.total {
        "at least one part must be needed, and no more than there are"
    } else if placement.open_places() == 0 {
        "there must be a place that is not being emptied"
    } else if ids.len() < options.places.len() {
        "a place is named twice"
    } else {
        return Ok(());
    };
    Err(Error::Spread {
        needed: options.needed,
        total: options.total,
        places: options.places.len(),
        why,
    })
}

impl Core {
    /// The place at this position; positions come from placement, which knows as many.
    fn place(&self, position: usize) -> Option<&Arc<Place>> {
        self.places.get(position)
    }

    /// Where the copies of a small object lie.
    fn copies_of(&self, name: &Name) -> &[Arc<Place>] {
        if name.has_spares() { &self.copies } else { &self.places }
    }

    /// Where the copies of a small object are read from, the best first; absent places left out.
    fn readable(&self, name: &Name) -> Vec<&Arc<Place>> {
        let copies = self.copies_of(name).iter();
        let mut places: Vec<&Arc<Place>> = copies.filter(|place| place.store().is_some()).collect();
        places.sort_by_key(|place| (place.read_order(), place.spare));
        places
    }

    /// Why a place is not asked now: it is absent, or rests while enough others are there.
    fn refusal(&self, place: &Place, name: &dyn fmt::Display) -> Option<Error> {
        let away = self.places.iter().filter(|place| !place.is_ready()).count();
        let may_rest = away <= self.placement.tolerance();
        place.refusal(name).filter(|_| may_rest || place.store().is_none())
    }

    /// How long to wait for this many bytes before others are asked.
    fn patience(&self, bytes: u64) -> Duration {
        let further_mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.hedge_after.saturating_mul(further_mib.saturating_add(1))
    }

    /// What to tell when an object could not be found or put together, some of it having been `found` or nothing.
    ///
    /// It is not there, if so many places said so that the others cannot hold enough of it.
    fn unreadable(&self, name: &Name, found: Amount, failures: &[Failure]) -> Error {
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
    fn ending(&self) -> Error {
        Error::Stopped {
            place: self.label.clone(),
        }
    }

    fn too_few(&self, name: &dyn fmt::Display, failures: &[Failure]) -> Error {
        Error::TooFew {
            name: name.to_string(),
            place: self.label.clone(),
            needed: self.needed,
            said: said(failures),
        }
    }

    /// Refuses what belongs to one place.
    fn check_name(&self, name: &Name) -> Result<()> {
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
enum Amount {
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

#[async_trait]
impl Store for Spread {
    fn place(&self) -> &str {
        &self.core.label
    }

    fn traits(&self) -> Traits {
        let all = || self.core.places.iter().filter_map(|place| place.store());
        let all = || all().map(|store| store.traits());
        Traits {
            durable_on_return: all().all(|traits| traits.durable_on_return),
            ordered_list: all().all(|traits| traits.ordered_list),
            exclusive_create: false,
            stale_list: all().filter_map(|traits| traits.stale_list).max(),
            max_object_bytes: all().filter_map(|traits| traits.max_object_bytes).min(),
            slow: all().any(|traits| traits.slow),
            finite: all().any(|traits| traits.finite),
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        name.check_size(&self.core.label, bytes.len() as u64)?;
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.put_pack(pack, bytes).await,
            _ => self.core.put_small(name, bytes).await,
        }
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.get_pack(pack, range).await,
            _ => self.core.get_small(name, range).await,
        }
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.stat_pack(pack).await,
            _ => self.core.stat_small(name).await,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.core.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.delete_pack(pack).await,
            _ => self.core.delete_small(name).await,
        }
    }
}
