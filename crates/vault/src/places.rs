//! The places of a vault: adding, removing and replacing them.
//!
//! - A change is a list of places of a higher generation; it counts once it is durable at the places that are there.
//! - Small objects are at a new place before a list names it. Packs move afterwards, by repair, and can be read throughout.
//! - A place that leaves is dropped from the list when nothing lies there any more, or at once if it is gone.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::keys::Secrets;
use drystone_format::places::{PlaceEntry, PlaceMark, PlaceMarks, Places};
use drystone_format::{PlaceId, RootId, random};
use drystone_store::spread::Spread;
use drystone_store::{Name, Prefix, Range, Spares, Store};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::gc::delete_mark;
use crate::open::{Sight, Unlocked};
use crate::place::Place;
use crate::reach::{Site, is_rotten, mark_at, mark_of};
use crate::slots::owner_key;
use crate::vault::Vault;

/// How a place is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceUse {
    /// Share of the shards where there are more places than shards.
    pub weight: u32,
    /// What it is marked as.
    pub marks: PlaceMarks,
    /// Most bytes per second to it.
    pub up_bytes: Option<u64>,
    /// Most bytes per second from it.
    pub down_bytes: Option<u64>,
}

impl Default for PlaceUse {
    fn default() -> Self {
        Self {
            weight: 1,
            marks: PlaceMarks::default(),
            up_bytes: None,
            down_bytes: None,
        }
    }
}

impl PlaceUse {
    pub(crate) fn entry(self, id: PlaceId, url: String) -> PlaceEntry {
        PlaceEntry {
            id,
            url,
            weight: self.weight,
            marks: self.marks,
            up_bytes: self.up_bytes,
            down_bytes: self.down_bytes,
            unknown: Vec::new(),
        }
    }
}

/// A place to be added.
pub struct NewPlace {
    /// Its store, opened or made by the caller.
    pub store: Arc<dyn Store>,
    /// Where it is, absolute and without credentials.
    pub url: String,
    /// How it is used.
    pub used: PlaceUse,
}

/// A change of the places of a vault.
pub struct PlaceChange {
    /// Places to add.
    pub add: Vec<NewPlace>,
    /// Places that shall leave.
    pub remove: Vec<PlaceId>,
    /// Another k of n; `None` to leave it as it is.
    pub spread: Option<(u8, u8)>,
}

/// Of new vaults and mirrors: one place more than shards are needed.
const MIRROR: (u8, u8) = (1, 2);

impl Vault {
    /// The list of places in force; `None` if the vault lies whole at one place.
    pub fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// The spread over the places; `None` if the vault lies whole at one place.
    pub fn spread(&self) -> Option<&Spread> {
        self.place.as_spread()
    }

    /// Why each place of [`Vault::places`] is not there; `None` for those that are.
    pub fn absent_places(&self) -> Vec<Option<&str>> {
        let reasons = self
            .sites
            .iter()
            .map(|site| site.store.as_ref().err().map(String::as_str));
        reasons.collect()
    }

    /// How a place of the list is used.
    pub fn place_use(&self, id: PlaceId) -> Option<PlaceUse> {
        let mut entries = self.places.iter().flat_map(|list| &list.places);
        let entry = entries.find(|entry| entry.id == id)?;
        Some(PlaceUse {
            weight: entry.weight,
            marks: entry.marks,
            up_bytes: entry.up_bytes,
            down_bytes: entry.down_bytes,
        })
    }

    /// The place that `text` means: its URL, or the first digits of its id.
    pub fn find_place(&self, text: &str) -> Result<PlaceId> {
        let entries = self.places.iter().flat_map(|list| &list.places);
        let matching =
            |entry: &&PlaceEntry| entry.url == text || (text.len() >= 4 && entry.id.to_string().starts_with(text));
        let mut found = entries.filter(matching);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.id),
            _ => Err(Error::NoPlaceOf { text: text.to_owned() }),
        }
    }

    /// Changes the places and gives the vault back as it lies then; durable on return. Packs are moved by repair.
    ///
    /// A place that is removed but there is only marked as leaving; one that is not there is dropped.
    pub fn change_places(self, change: PlaceChange) -> Result<Self> {
        owner_key(&self.secrets)?;
        let mut sites = self.own_sites()?;
        let mut list = self.next_list(&sites);
        for id in &change.remove {
            let Some(at) = sites.iter().position(|site| site.entry.id == *id) else {
                return Err(Error::NoPlaceOf { text: id.to_string() });
            };
            match sites.get_mut(at) {
                Some(site) if site.store.is_ok() => site.entry.marks.0 |= PlaceMarks::LEAVING,
                _ => drop(sites.remove(at)),
            }
        }
        for new in change.add {
            let id = self.place_for(&new, &sites)?;
            sites.push(Site::new(new.used.entry(id, new.url), Ok(new.store)));
        }
        (list.needed, list.total) = match (change.spread, &self.places) {
            (Some(spread), _) => spread,
            (None, Some(list)) => (list.needed, list.total),
            (None, None) => MIRROR,
        };
        self.switch(list, sites)
    }

    /// Changes how a place is used.
    pub fn use_place(self, id: PlaceId, used: PlaceUse) -> Result<Self> {
        owner_key(&self.secrets)?;
        let mut sites = self.own_sites()?;
        let Some(site) = sites.iter_mut().find(|site| site.entry.id == id) else {
            return Err(Error::NoPlaceOf { text: id.to_string() });
        };
        let entry = &mut site.entry;
        let leaving = entry.marks.0 & PlaceMarks::LEAVING;
        (entry.weight, entry.marks) = (used.weight, PlaceMarks(used.marks.0 | leaving));
        (entry.up_bytes, entry.down_bytes) = (used.up_bytes, used.down_bytes);
        let list = self.next_list(&sites);
        self.switch(list, sites)
    }

    /// Drops the places that are leaving and where nothing of the vault's packs lies any more.
    pub fn drop_left_places(self) -> Result<Self> {
        let mut left = Vec::new();
        for site in &self.sites {
            let Ok(store) = &site.store else { continue };
            let place = Place::new(store.clone(), self.context.runtime.clone());
            if site.entry.marks.has(PlaceMarks::LEAVING)
                && !place.has_any(&Prefix::Shards)?
                && !place.has_any(&Prefix::Packs)?
            {
                left.push(site.entry.id);
            }
        }
        if left.is_empty() {
            return Ok(self);
        }
        let (gone, sites): (Vec<Site>, Vec<Site>) = self
            .sites
            .iter()
            .cloned()
            .partition(|site| left.contains(&site.entry.id));
        let (list, known) = (self.next_list(&sites), self.known());
        let switched = self.switch(list, sites)?;
        // Another vault may be made there from now on.
        gone.iter().try_for_each(|site| known.forget_place(&site.entry.url))?;
        Ok(switched)
    }

    /// The places as they are; that of a vault which was not spread so far is given an id.
    fn own_sites(&self) -> Result<Vec<Site>> {
        if self.places.is_some() {
            return Ok(self.sites.clone());
        }
        let store = self.place.store().clone();
        let id = match mark_of(&store, &self.context.runtime, &self.secrets) {
            Ok(id) => id,
            Err(Error::Store(error)) if error.is_not_found() => {
                PlaceId(random::array(&mut Source(&*self.context.entropy)))
            }
            Err(error) => return Err(error),
        };
        let url = store.place().to_owned();
        Ok(vec![Site::new(PlaceUse::default().entry(id, url), Ok(store))])
    }

    fn next_list(&self, sites: &[Site]) -> Places {
        let entries = sites.iter().map(|site| site.entry.clone()).collect();
        match &self.places {
            Some(list) => Places {
                generation: list.generation + 1,
                places: entries,
                ..list.clone()
            },
            None => Places {
                generation: 1,
                needed: 1,
                total: 1,
                places: entries,
                unknown: Vec::new(),
            },
        }
    }

    /// The id for a new place: a fresh one, or what an interrupted change has already written there.
    fn place_for(&self, new: &NewPlace, sites: &[Site]) -> Result<PlaceId> {
        let taken = || Error::PlaceTaken { place: new.url.clone() };
        match mark_of(&new.store, &self.context.runtime, &self.secrets) {
            Ok(id) if sites.iter().all(|site| site.entry.id != id) => Ok(id),
            Err(Error::Store(error)) if error.is_not_found() => {
                if Self::exists(&new.store, &self.context)? {
                    return Err(taken());
                }
                Ok(PlaceId(random::array(&mut Source(&*self.context.entropy))))
            }
            Ok(_) | Err(Error::Damaged { .. } | Error::Format(_)) => Err(taken()),
            Err(error) => Err(error),
        }
    }

    /// Makes `list` the one in force, and gives the vault back as it then lies.
    fn switch(self, mut list: Places, sites: Vec<Site>) -> Result<Self> {
        list.places = sites.iter().map(|site| site.entry.clone()).collect();
        let spread = || Place::spread(&list, &sites, &self.context, &self.secrets);
        let first = spread()?;
        sites
            .iter()
            .try_for_each(|site| put_mark(site, first.spares(), &self.context, &self.secrets))?;
        // Spare copies that are not needed now may be needed then, and may be of what was deleted meanwhile.
        if let Some(old) = self.place.as_spread() {
            self.place.wait(old.drop_spares())?;
        }
        // That a new place lacks everything before this is no trouble to tell of afterwards.
        first.settle_small()?;
        let place = spread()?;
        put_list((&place, &sites), &list, &self.context, &self.secrets)?;
        let unlocked = Unlocked {
            place,
            secrets: self.secrets.clone(),
            slot: self.slot,
            lock: self.slot_source.lock(),
            sight: Sight::Proven,
            named: vec![self.place.name().to_owned()],
            header: self.header().clone(),
            header_bytes: self.header_object(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        Self::assemble(unlocked, self.context.clone(), Some((list, sites)))
    }
}

/// Writes at a place which it is, so many times more as spare copies; one that is not there is passed over.
pub(crate) fn put_mark(site: &Site, spares: u8, context: &Context, secrets: &Secrets) -> Result<()> {
    let Ok(store) = &site.store else { return Ok(()) };
    let mark = PlaceMark {
        vault: secrets.vault,
        place: site.entry.id,
    };
    let object = Bytes::from(mark.encode(owner_key(secrets)?)?);
    for (number, place) in (0_u8..).zip(mark_places(store, spares, context)) {
        place.put(&Name::place(), object.clone())?;
        if number == 0 && place.get(&Name::place(), Range::All)? != object {
            return Err(Error::PlaceTaken {
                place: store.place().to_owned(),
            });
        }
    }
    Ok(())
}

/// Where the mark of a place lies, and its spare copies.
fn mark_places(store: &Arc<dyn Store>, spares: u8, context: &Context) -> Vec<Place> {
    let spares = (1..=spares).map(|number| Arc::new(Spares::new(store.clone(), number)) as Arc<dyn Store>);
    let stores = std::iter::once(store.clone()).chain(spares);
    stores.map(|store| Place::new(store, context.runtime.clone())).collect()
}

/// The marks of a place that are not what was written, and those that are not there.
pub(crate) fn unsound_marks(site: &Site, spares: u8, context: &Context, secrets: &Secrets) -> Result<UnsoundMarks> {
    let mut unsound = UnsoundMarks::default();
    let Ok(store) = &site.store else { return Ok(unsound) };
    for (number, place) in (0_u8..).zip(mark_places(store, spares, context)) {
        match mark_at(place.store(), &context.runtime, secrets) {
            Ok(id) if id == site.entry.id => {}
            Ok(_) => unsound.rotten.push(place),
            Err(error) if is_rotten(&error) => unsound.rotten.push(place),
            Err(error) if error.is_damage() => unsound.missing.push(Name::place().spare(number)),
            Err(error) => return Err(error),
        }
    }
    Ok(unsound)
}

/// Marks that are not as they should be.
#[derive(Default)]
pub(crate) struct UnsoundMarks {
    /// Where one lies that is not what was written.
    pub(crate) rotten: Vec<Place>,
    /// Which are not there.
    pub(crate) missing: Vec<Name>,
}

/// Writes the marks of a place anew that are `unsound`; says how many.
pub(crate) fn mend_marks(
    site: &Site,
    unsound: &UnsoundMarks,
    spares: u8,
    context: &Context,
    secrets: &Secrets,
) -> Result<usize> {
    unsound.rotten.iter().try_for_each(delete_mark)?;
    let mended = unsound.rotten.len() + unsound.missing.len();
    if mended > 0 {
        put_mark(site, spares, context, secrets)?;
    }
    Ok(mended)
}

/// Publishes a list of places at all of them.
pub(crate) fn put_list(
    (place, sites): (&Place, &[Site]),
    list: &Places,
    context: &Context,
    secrets: &Secrets,
) -> Result<()> {
    let mut random = Source(&*context.entropy);
    let object = Bytes::from(list.seal(secrets, &mut random)?);
    let name = Name::places(list.generation, &RootId(random::array(&mut random)));
    place.put(&name, object.clone())?;
    // A place that is being emptied takes nothing else, but whoever knows no other must find those that have what it had.
    let leaving = sites.iter().filter(|site| site.entry.marks.has(PlaceMarks::LEAVING));
    for store in leaving.filter_map(|site| site.store.as_ref().ok()) {
        // It may be full, or broken: that is why it goes.
        let _ = Place::new(store.clone(), context.runtime.clone()).put(&name, object.clone());
    }
    Ok(())
}
