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
use drystone_store::{Name, Prefix, Range, Store};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::gc::delete_mark;
use crate::place::Place;
use crate::reach::{Site, is_rotten, mark_of};
use crate::slots::owner_key;
use crate::vault::{Unlocked, Vault};

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
    /// The entry of a new place that has no id yet.
    pub fn entry_at(self, url: String) -> PlaceEntry {
        self.entry(PlaceId([0; 16]), url)
    }

    fn entry(self, id: PlaceId, url: String) -> PlaceEntry {
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
        let mut sites = self.sites.clone();
        sites.retain(|site| !left.contains(&site.entry.id));
        let list = self.next_list(&sites);
        self.switch(list, sites)
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
        sites
            .iter()
            .try_for_each(|site| put_mark(site, &self.context, &self.secrets))?;
        let spread = || Place::spread(&list, &sites, &self.context, &self.secrets);
        // That a new place lacks everything before this is no trouble to tell of afterwards.
        spread()?.settle_small()?;
        let place = spread()?;
        put_list(&place, &list, &self.context, &self.secrets)?;
        let unlocked = Unlocked {
            place,
            secrets: self.secrets.clone(),
            slot: self.slot,
            header: self.header().clone(),
            header_bytes: self.header_object(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        Self::assemble(unlocked, self.context.clone(), Some((list, sites)))
    }
}

/// Writes at a place which it is; one that is not there is passed over.
pub(crate) fn put_mark(site: &Site, context: &Context, secrets: &Secrets) -> Result<()> {
    let Ok(store) = &site.store else { return Ok(()) };
    let mark = PlaceMark {
        vault: secrets.vault,
        place: site.entry.id,
    };
    let place = Place::new(store.clone(), context.runtime.clone());
    let object = mark.encode(owner_key(secrets)?)?;
    place.put(&Name::place(), Bytes::from(object.clone()))?;
    if place.get(&Name::place(), Range::All)? == object {
        return Ok(());
    }
    Err(Error::PlaceTaken {
        place: store.place().to_owned(),
    })
}

/// Writes the mark of a place anew if it is not what was written; says whether.
pub(crate) fn mend_mark(site: &Site, context: &Context, secrets: &Secrets) -> Result<bool> {
    let Ok(store) = &site.store else { return Ok(false) };
    match mark_of(store, &context.runtime, secrets) {
        Err(error) if is_rotten(&error) => {}
        _ => return Ok(false),
    }
    delete_mark(&Place::new(store.clone(), context.runtime.clone()))?;
    put_mark(site, context, secrets)?;
    Ok(true)
}

/// Publishes a list of places at all of them.
pub(crate) fn put_list(place: &Place, list: &Places, context: &Context, secrets: &Secrets) -> Result<()> {
    let mut random = Source(&*context.entropy);
    let object = list.seal(secrets, &mut random)?;
    let name = Name::places(list.generation, &RootId(random::array(&mut random)));
    place.put(&name, Bytes::from(object))
}
