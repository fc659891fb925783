//! The store as the engine's threads use it, one place or a spread over several: blocking calls, complete listings.
//!
//! - Must not be called from within the runtime: it blocks its caller.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::config::Config;
use drystone_format::keys::{Secrets, VerifyKey};
use drystone_format::places::{PlaceEntry, PlaceMarks};
use drystone_format::shard::ShardKeys;
use drystone_index::ChunkMap;
use drystone_store::spread::{Access, PlaceTroubles, Replicated, Spread, SpreadOptions, SpreadPlace};
use drystone_store::{Kind, Listed, Name, Prefix, Put, Range, Store};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::places::judge::BySignature;
use crate::places::site::Site;
use crate::progress::{Cancel, Progress};

/// Names asked for in one listing call.
const LIST_PAGE: usize = 1000;

/// How long a place may take before others are asked as well. A busy disk answers late and is not helped by more reads:
/// with half a second, restoring 4 GB from three places on one disk took three times as long as from one.
const HEDGE_AFTER: Duration = Duration::from_secs(2);
/// Time between two looks at the wish to stop, while waiting.
const LOOK: Duration = Duration::from_millis(200);
/// How often a long wait is said anew.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// How long a place that failed is left alone.
const REST: Duration = Duration::from_secs(30);

/// Small reads at once from a slow place: with 20 ms a round trip, 1,600 in a second.
const SMALL_READS: usize = 32;

/// A store and the runtime that it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    store: Arc<dyn Store>,
    /// The same store, if it spreads over several places.
    spread: Option<Spread>,
    /// One of the places never deletes anything.
    keeps_all: bool,
    /// How many bytes of memory a byte of a pack takes while it is put.
    held_while_put: f64,
    runtime: Handle,
}

/// How often something went wrong at one place.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failures: u64,
    unanswered: u64,
    owed: u64,
    undeleted: u64,
}

impl Counts {
    fn of(place: &PlaceTroubles) -> Self {
        Self {
            failures: place.failures,
            unanswered: place.unanswered,
            owed: place.owed.count,
            undeleted: place.undeleted.count,
        }
    }

    /// How much more this is. Less than before is nothing: what a full place owed is forgiven once it has room.
    fn since(self, before: Self) -> Self {
        Self {
            failures: self.failures.saturating_sub(before.failures),
            unanswered: self.unanswered.saturating_sub(before.unanswered),
            owed: self.owed.saturating_sub(before.owed),
            undeleted: self.undeleted.saturating_sub(before.undeleted),
        }
    }
}

/// What was wrong with the places before an operation began. The default blames it for all since the vault was opened.
///
/// Operations at one time see each other's troubles: each is then told of more than its own, never of less.
#[derive(Debug, Clone, Default)]
pub(crate) struct TroublesBefore(Vec<Counts>);

impl Place {
    pub(crate) fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self {
            store,
            spread: None,
            keeps_all: false,
            held_while_put: 1.0,
            runtime,
        }
    }

    /// Another store on the same runtime.
    pub(crate) fn at(&self, store: Arc<dyn Store>) -> Self {
        Self::new(store, self.runtime.clone())
    }

    /// The places of a configuration as one; too few of them is an error that names those that are missing.
    pub(crate) fn spread(config: &Config, sites: &[Site], context: &Context, secrets: &Arc<Secrets>) -> Result<Self> {
        let places = sites.iter().map(|site| {
            let PlaceEntry {
                id, url, weight, marks, ..
            } = &site.entry;
            let access = match &site.store {
                Ok(store) => Access::Present(store.clone()),
                Err(reason) => Access::Absent {
                    place: url.clone(),
                    reason: reason.clone(),
                },
            };
            SpreadPlace {
                id: *id,
                access,
                weight: NonZeroU32::new(*weight).filter(|_| !marks.has(PlaceMarks::LEAVING)),
                cold: marks.has(PlaceMarks::COLD),
                append_only: marks.has(PlaceMarks::APPEND_ONLY),
            }
        });
        let spread = Spread::new(SpreadOptions {
            needed: config.spread.0,
            total: config.spread.1,
            places: places.collect(),
            keys: ShardKeys::new(secrets),
            judge: Arc::new(BySignature(secrets.clone())),
            hedge_after: HEDGE_AFTER,
            rest: REST,
        })?;
        Ok(Self {
            store: Arc::new(spread.clone()),
            spread: Some(spread),
            keeps_all: config
                .places
                .iter()
                .any(|entry| entry.marks.has(PlaceMarks::APPEND_ONLY)),
            held_while_put: held_by_spread(config.spread.0, config.spread.1),
            runtime: context.runtime.clone(),
        })
    }

    /// How many bytes of memory a byte of a pack takes while it is put, the pack itself included.
    pub(crate) fn held_while_put(&self) -> f64 {
        self.held_while_put
    }

    /// The spread, if the vault lies at several places.
    pub(crate) fn as_spread(&self) -> Option<&Spread> {
        self.spread.as_ref()
    }

    /// How many spare copies of small objects each place holds.
    pub(crate) fn spares(&self) -> u8 {
        self.spread.as_ref().map_or(0, Spread::spares_per_place)
    }

    /// Whether some of the places that it is spread over are not there.
    pub(crate) fn lacks_places(&self) -> bool {
        self.any_place(|place| place.absent.is_some())
    }

    /// Returns what was wrong with the places until now. An operation asks for it when it begins: it is to blame for what comes after only.
    pub(crate) fn troubles_before(&self) -> TroublesBefore {
        let troubles = self.spread.as_ref().map(Spread::troubles);
        let places = troubles.map(|troubles| troubles.places).unwrap_or_default();
        TroublesBefore(places.iter().map(Counts::of).collect())
    }

    /// Returns true if some places are not there, or did not answer since then: what cannot be found may be theirs, and is not known to be
    /// lost.
    pub(crate) fn is_cut_off(&self, before: &TroublesBefore) -> bool {
        self.since(before)
            .any(|(place, since)| place.absent.is_some() || since.unanswered > 0)
    }

    /// Whether this holds for any of the places that it is spread over.
    fn any_place(&self, holds: impl Fn(&PlaceTroubles) -> bool) -> bool {
        let troubles = self.spread.as_ref().map(Spread::troubles);
        troubles.is_some_and(|troubles| troubles.places.iter().any(holds))
    }

    /// Each place, and what went wrong there since then.
    fn since(&self, before: &TroublesBefore) -> impl Iterator<Item = (PlaceTroubles, Counts)> {
        let troubles = self.spread.as_ref().map(Spread::troubles);
        let places = troubles.map(|troubles| troubles.places).unwrap_or_default();
        let before = before.0.clone();
        places.into_iter().enumerate().map(move |(at, place)| {
            let before = before.get(at).copied().unwrap_or_default();
            let since = Counts::of(&place).since(before);
            (place, since)
        })
    }

    /// Tells the spread the sizes of packs that are indexed, which saves it requests, and who signed them.
    pub(crate) fn hint_sizes(&self, index: &Arc<dyn ChunkMap>) {
        let Some(spread) = &self.spread else { return };
        let weak = Arc::downgrade(index);
        let size = move |pack: &PackId| Some(weak.upgrade()?.pack(pack).ok()??.pack_bytes);
        spread.set_sizes(Arc::new(size));
        let weak = Arc::downgrade(index);
        let signer = move |pack: &PackId| Some(VerifyKey(weak.upgrade()?.pack(pack).ok()??.writer));
        spread.set_signers(Arc::new(signer));
    }

    /// Runs `read`, which reads of a pack and checks what it got. If that is wrong, the spread looks for what is forged, and
    /// `read` runs again, with the length that the pack has been proven to have. All that reads packs goes through here.
    pub(crate) fn reading<T>(&self, pack: &PackId, read: impl Fn(Option<u64>) -> Result<T>) -> Result<T> {
        let is_wrong = |error: &Error| {
            let is_missing = matches!(error, Error::Store(error) if error.is_not_found());
            error.is_damage() && !error.is_absence() && !is_missing
        };
        let error = match read(None) {
            Err(error) if is_wrong(&error) => error,
            outcome => return outcome,
        };
        let Some(spread) = &self.spread else { return Err(error) };
        let Some(pack_bytes) = self.block_on(spread.distrust(pack)) else {
            return Err(error);
        };
        let again = read(Some(pack_bytes));
        if again.as_ref().is_err_and(is_wrong) {
            spread.acquit(pack);
        }
        again
    }

    /// Whether other shards give the same last bytes of a pack as were read; also if too few of them are there to say.
    pub(crate) fn is_end_confirmed(&self, pack: &PackId, end: &Bytes) -> bool {
        let confirmed = |spread: &Spread| self.block_on(spread.confirm_end(pack, end));
        self.spread.as_ref().is_none_or(confirmed)
    }

    /// Waits for what a spread does beyond a store.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = drystone_store::Result<T>>) -> Result<T> {
        Ok(self.block_on(work)?)
    }

    /// The same, for what cannot fail.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Whether anything lies under `prefix`.
    pub(crate) fn has_any(&self, prefix: &Prefix) -> Result<bool> {
        Ok(!self.runtime.block_on(self.store.list(prefix, None, 1))?.is_empty())
    }

    /// The store itself.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Copies small objects to the places that lack them, or have them altered; for one place there is nothing to do.
    pub(crate) fn replicate_small(&self) -> Result<Replicated> {
        match &self.spread {
            Some(spread) => self.wait(spread.replicate_small(&Prefix::All)),
            None => Ok(Replicated::default()),
        }
    }

    /// [`Error::Absent`] unless every place is there, and since then has answered all it was asked and has all that was stored.
    pub(crate) fn all_there(&self, before: &TroublesBefore) -> Result<()> {
        let lacks =
            |(place, since): &(PlaceTroubles, Counts)| place.absent.is_some() || since.failures > 0 || since.owed > 0;
        let lacking = self.since(before).find(lacks);
        match lacking {
            None => Ok(()),
            Some((place, _)) => Err(Error::Absent {
                place: place.place.clone(),
                reason: place.absent.clone().or(place.first_failure.clone()).unwrap_or_default(),
            }),
        }
    }

    /// Whether what one run has put every other lists, whichever places each of them is without.
    pub(crate) fn is_quorate(&self) -> bool {
        self.spread.as_ref().is_none_or(Spread::is_quorate)
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        self.store.place()
    }

    /// Returns true if requests wait for a network.
    pub(crate) fn is_slow(&self) -> bool {
        self.store.traits().slow
    }

    /// How many bytes of memory a byte takes while it is read: a spread puts parts together.
    pub(crate) fn held_while_read(&self) -> f64 {
        if self.spread.is_some() { 2.0 } else { 1.0 }
    }

    /// Runs `work` on the runtime, and returns what ends it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(work).abort_handle()
    }

    /// Requests that may usefully wait at once.
    pub(crate) fn parallel(&self, threads: usize) -> usize {
        if self.is_slow() { threads.max(16) } else { threads }
    }

    /// Small objects and ends of packs that may usefully be read at once. Each may take a few MB, so of a slow place
    /// not as many as it bears.
    pub(crate) fn small_reads(&self, threads: usize) -> usize {
        if self.is_slow() {
            threads.max(SMALL_READS)
        } else {
            threads
        }
    }

    /// Returns true if every place that the vault lies at takes part, and has let go since then of what was deleted: what is seen to be
    /// gone is gone everywhere, and does not come back.
    pub(crate) fn is_complete(&self, before: &TroublesBefore) -> bool {
        let lacks = |(place, since): (PlaceTroubles, Counts)| {
            place.absent.is_some() || since.failures > 0 || since.undeleted > 0
        };
        !self.keeps_all && !self.since(before).any(lacks)
    }

    /// Returns true if lists may lag behind what was put.
    pub(crate) fn is_stale(&self) -> bool {
        self.store.traits().stale_list.is_some()
    }

    /// How long after a put some list may still lack it, however it was asked: lists may lag, here and where they were asked before.
    pub(crate) fn shown_after(&self) -> Duration {
        self.store.traits().stale_list.map_or(Duration::ZERO, |stale| 2 * stale)
    }

    /// Waits until every list shows what was put or deleted before, by this machine or by one that listed before it put. Says meanwhile
    /// what it waits for: at Swift that takes two hours.
    pub(crate) fn wait_for_lists(&self, progress: &Progress, cancel: &Cancel) -> Result<()> {
        let mut left = self.shown_after();
        let mut said = Duration::MAX;
        while !left.is_zero() {
            cancel.check()?;
            if said - left >= SAY_AGAIN {
                let minutes = left.as_secs().div_ceil(60);
                let what = format!(
                    "waiting {minutes} min until the lists of {} are sure to be complete",
                    self.name()
                );
                progress.set_current(what.as_bytes());
                said = left;
            }
            let slice = left.min(LOOK);
            self.runtime.block_on(tokio::time::sleep(slice));
            left -= slice;
        }
        Ok(())
    }

    /// Returns true if what was stored here can be removed again.
    pub(crate) fn removes(&self) -> bool {
        !self.keeps_all
    }

    /// Durable on return, as far as the store says so. The same bytes may be put again.
    ///
    /// [`drystone_store::Error::Taken`] if other bytes lie under the name of a small object. Of a pack, whose name is a
    /// checksum that every reader holds against it, they are not read for it.
    pub(crate) fn put(&self, name: &Name, bytes: Bytes) -> Result<()> {
        let put = self.runtime.block_on(self.store.put(name, bytes.clone()))?;
        // A spread has compared at each of its places.
        if put == Put::Created || self.spread.is_some() || is_large(name) {
            return Ok(());
        }
        match self.runtime.block_on(self.store.get(name, Range::All)) {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) | Err(drystone_store::Error::TooLarge { .. }) => Err(Error::Store(drystone_store::Error::Taken {
                name: name.to_string(),
                place: self.name().to_owned(),
            })),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads an object or a part of it; all of a small one is checked against the hash in its name.
    pub(crate) fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let bytes = self.runtime.block_on(self.store.get(name, range))?;
        if range == Range::All && !is_large(name) && name.matches(&bytes) == Some(false) {
            return Err(Error::Store(drystone_store::Error::Unsound {
                name: name.to_string(),
                place: self.name().to_owned(),
                what: "it has other bytes than its name says".to_owned(),
            }));
        }
        Ok(bytes)
    }

    /// The size of an object in bytes.
    pub(crate) fn stat(&self, name: &Name) -> Result<u64> {
        Ok(self.runtime.block_on(self.store.stat(name))?)
    }

    pub(crate) fn delete(&self, name: &Name) -> Result<()> {
        Ok(self.runtime.block_on(self.store.delete(name))?)
    }

    /// Calls `each` for every object under `prefix`.
    pub(crate) fn for_each(&self, prefix: &Prefix, each: impl FnMut(Listed) -> Result<()>) -> Result<()> {
        let page = |after: Option<&Name>| self.wait(self.store.list(prefix, after, LIST_PAGE));
        pages(page, each)
    }

    /// The names of all objects under `prefix`.
    pub(crate) fn names(&self, prefix: &Prefix) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        self.for_each(prefix, |listed| {
            names.push(listed.name);
            Ok(())
        })?;
        Ok(names)
    }

    /// The names of all small objects under `prefix`. If `is_confirming`, each of them is at enough places from then on for everybody else to
    /// list it too.
    pub(crate) fn small_names(&self, prefix: &Prefix, is_confirming: bool) -> Result<Vec<Name>> {
        if !is_confirming {
            return self.names(prefix);
        }
        let mut names = Vec::new();
        self.for_each_confirmed(prefix, |listed| {
            names.push(listed.name);
            Ok(())
        })?;
        Ok(names)
    }

    /// The same as [`for_each`](Self::for_each) for small objects, each of which is at enough places from then on for everybody else to list it too.
    pub(crate) fn for_each_confirmed(&self, prefix: &Prefix, each: impl FnMut(Listed) -> Result<()>) -> Result<()> {
        match &self.spread {
            None => self.for_each(prefix, each),
            Some(spread) => {
                let page = |after: Option<&Name>| self.wait(spread.list_confirmed(*prefix, after, LIST_PAGE));
                pages(page, each)
            }
        }
    }

    /// Says that `object` here is not what it should be.
    pub(crate) fn damaged(&self, object: &Name) -> impl FnOnce(drystone_format::Error) -> Error {
        let (object, place) = (object.to_string(), self.name().to_owned());
        move |source| match source {
            // What the credential may not do, or does not know, is no damage.
            source @ (drystone_format::Error::WriterKey { .. } | drystone_format::Error::Right { .. }) => {
                Error::Format(source)
            }
            drystone_format::Error::Epoch { epoch, .. } => Error::NewerKeys { object, place, epoch },
            source => Error::Damaged { object, place, source },
        }
    }
}

/// Whether an object is one that is not read as a whole where it need not be.
fn is_large(name: &Name) -> bool {
    matches!(name.kind(), Kind::Pack(_) | Kind::Shard(_))
}

/// The pack, its parity, and the sealed copies of all shards.
fn held_by_spread(needed: u8, total: u8) -> f64 {
    let (needed, total) = (f64::from(needed.max(1)), f64::from(total));
    1.0 + (total - needed) / needed + total / needed
}

/// Calls `each` for everything on every page.
fn pages(
    page: impl Fn(Option<&Name>) -> Result<Vec<Listed>>,
    mut each: impl FnMut(Listed) -> Result<()>,
) -> Result<()> {
    let mut after: Option<Name> = None;
    loop {
        let page = page(after.as_ref())?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.name.clone());
        page.into_iter().try_for_each(&mut each)?;
    }
}
