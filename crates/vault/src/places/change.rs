//! Changes of the configuration: places added, removed and replaced, features switched on, conflicts resolved.
//!
//! - A change is a configuration that replaces the one in force; it counts once it is durable at the places that are there.
//! - Small objects are at a new place before a configuration names it. Packs move afterwards, by repair, and can be read
//!   throughout.
//! - A place that leaves is dropped from the configuration when nothing lies there any more, or at once if it is gone.
//! - Nobody changes what he does not know: while it is not certain what is in force, only [`Vault::resolve_config`] works.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::config::{Config, Features, Removed};
use drystone_format::id::object_hash;
use drystone_format::keys::{Secrets, VerifyKey};
use drystone_format::places::{PlaceEntry, PlaceMarks};
use drystone_format::{PlaceId, RootId, random};
use drystone_store::{Name, Prefix, Range, Spares, Store};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::gc::deletion::delete_config;
use crate::keyring::owner_key;
use crate::places::allow::Act;
use crate::places::config::{Found, Signed};
use crate::places::features::{Class, check};
use crate::places::marks::put_mark;
use crate::places::open::{Sight, Unlocked};
use crate::places::place::Place;
use crate::places::reach::{Reached, mark_of};
use crate::places::site::Site;
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
    /// The places that the vault is spread over; none if it lies whole at one place.
    pub fn places(&self) -> &[PlaceEntry] {
        &self.config().places
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
        let entry = self.places().iter().find(|entry| entry.id == id)?;
        Some(PlaceUse {
            weight: entry.weight,
            marks: entry.marks,
            up_bytes: entry.up_bytes,
            down_bytes: entry.down_bytes,
        })
    }

    /// The place that `text` means: its URL, or the first digits of its id.
    pub fn find_place(&self, text: &str) -> Result<PlaceId> {
        let matching =
            |entry: &&PlaceEntry| entry.url == text || (text.len() >= 4 && entry.id.to_string().starts_with(text));
        let mut found = self.places().iter().filter(matching);
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
        self.allow(Act::Change)?;
        let mut sites = self.own_sites()?;
        let mut config = self.next_config()?;
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
        if let Some(spread) = change.spread {
            config.spread = spread;
        } else if config.places.is_empty() {
            config.spread = MIRROR;
        }
        self.switch(config, sites)
    }

    /// Changes how a place is used.
    pub fn use_place(self, id: PlaceId, used: PlaceUse) -> Result<Self> {
        owner_key(&self.secrets)?;
        self.allow(Act::Change)?;
        let mut sites = self.own_sites()?;
        let Some(site) = sites.iter_mut().find(|site| site.entry.id == id) else {
            return Err(Error::NoPlaceOf { text: id.to_string() });
        };
        let entry = &mut site.entry;
        let leaving = entry.marks.0 & PlaceMarks::LEAVING;
        (entry.weight, entry.marks) = (used.weight, PlaceMarks(used.marks.0 | leaving));
        (entry.up_bytes, entry.down_bytes) = (used.up_bytes, used.down_bytes);
        let config = self.next_config()?;
        self.switch(config, sites)
    }

    /// Switches features on for good: from then on programs that lack them refuse what they are needed for.
    pub fn upgrade(self, add: &Features) -> Result<Self> {
        owner_key(&self.secrets)?;
        self.allow(Act::Change)?;
        let mut config = self.next_config()?;
        let Features { read, write, collect } = &mut config.features;
        for (words, new) in [(read, &add.read), (write, &add.write), (collect, &add.collect)] {
            words.extend(new.iter().cloned());
            words.sort_unstable();
            words.dedup();
        }
        let sites = self.sites.clone();
        self.switch(config, sites)
    }

    /// Publishes a configuration that replaces all that any place lists, also what cannot be read there: as the one that
    /// `chosen` begins, or else as the one in use. Returns its hash; the vault must be opened again.
    ///
    /// [`Error::UncertainConfig`] if there are several to choose from and none was chosen.
    pub fn resolve_config(&self, chosen: Option<&str>) -> Result<RootId> {
        owner_key(&self.secrets)?;
        check(self.config(), Class::Write, self.place())?;
        let standing = self.standing();
        if chosen.is_none() && !standing.rivals.is_empty() {
            standing.certain(self.place())?;
        }
        let chosen = chosen.map(|text| standing.find(text)).transpose()?;
        let config = standing.next(self.context.clock.now(), chosen.as_ref())?;
        let signed = publish_config((&self.place, &self.sites), &config, &self.context, &self.secrets)?;
        self.announce((&self.place, &self.sites))?;
        self.state_config(&signed)?;
        // Two owners who removed keys at once have renewed each other's.
        self.close_removed(&signed.config.removed.iter().map(|removed| removed.writer).collect())?;
        Ok(signed.hash)
    }

    /// Publishes a configuration by which `writer` counts no longer, and states what it has published until then; durable on return. The vault
    /// must be opened again to go by it.
    ///
    /// The roots are listed after the configuration is there and announced: a run of `writer` either sees that before it reports a root, or the
    /// root is listed.
    pub(crate) fn revoke(&self, writer: VerifyKey) -> Result<()> {
        self.refuse_if_moved(&self.sites)?;
        let mut config = self.next_config()?;
        if config.removed.iter().all(|removed| removed.writer != writer) {
            let since = config.number;
            config.removed.push(Removed { writer, since });
            config.removed.sort_unstable();
        }
        let signed = publish_config((&self.place, &self.sites), &config, &self.context, &self.secrets)?;
        self.fence_runs_of(&writer)?;
        self.state_roots(Some(&signed))
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
        self.allow(Act::Change)?;
        let (gone, sites): (Vec<Site>, Vec<Site>) = self
            .sites
            .iter()
            .cloned()
            .partition(|site| left.contains(&site.entry.id));
        let (config, known) = (self.next_config()?, self.known());
        let switched = self.switch(config, sites)?;
        // Another vault may be made there from now on.
        gone.iter().try_for_each(|site| known.forget_place(&site.entry.url))?;
        Ok(switched)
    }

    /// The places as they are; that of a vault which was not spread so far is given an id.
    fn own_sites(&self) -> Result<Vec<Site>> {
        if !self.places().is_empty() {
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

    /// The one in force, to be changed.
    pub(crate) fn next_config(&self) -> Result<Config> {
        self.standing().next(self.context.clock.now(), None)
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

    /// Makes `config` with these places the one in force, and gives the vault back as it then lies.
    pub(crate) fn switch(self, mut config: Config, sites: Vec<Site>) -> Result<Self> {
        self.refuse_if_moved(&sites)?;
        config.places = sites.iter().map(|site| site.entry.clone()).collect();
        let place = if sites.is_empty() {
            self.place.clone()
        } else {
            self.lay_out(&config, &sites)?
        };
        let mut found = Found::of(publish_config((&place, &sites), &config, &self.context, &self.secrets)?);
        self.announce((&place, &sites))?;
        // Another owner may have done the same at once: then both are there, and both are named.
        found.read(&place, &self.secrets)?;
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
        let switched = Self::assemble(unlocked, self.context.clone(), Reached::of(found, sites))?;
        switched.state_config(&switched.standing().signed)?;
        Ok(switched)
    }

    /// Puts an epoch after a configuration, at these places: runs that do not know it look at the configuration before they report anything.
    fn announce(&self, (place, sites): (&Place, &[Site])) -> Result<()> {
        let (name, object) = self.epochs.notice(&mut Source(&*self.context.entropy))?;
        place.put(&name, object.clone())?;
        put_at_leaving((place, sites), &name, &object);
        Ok(())
    }

    /// Brings small objects to the places of a configuration that is not published yet.
    fn lay_out(&self, config: &Config, sites: &[Site]) -> Result<Place> {
        let spread = || Place::spread(config, sites, &self.context, &self.secrets);
        let first = spread()?;
        sites
            .iter()
            .try_for_each(|site| put_mark(site, first.spares(), &self.context, &self.secrets))?;
        // Spare copies that are not needed now may be needed then, and may be of what was deleted meanwhile.
        if let Some(old) = self.place.as_spread() {
            self.place.wait(old.drop_spares())?;
        }
        // That a new place lacks everything before this is no trouble to tell of afterwards.
        first.replicate_small()?;
        spread()
    }

    /// An error if the places, or new ones among `sites`, list a configuration by now that this one does not replace.
    fn refuse_if_moved(&self, sites: &[Site]) -> Result<()> {
        let mut found = Found::default();
        found.read(&self.place, &self.secrets)?;
        let is_new = |site: &&Site| self.sites.iter().all(|known| known.entry.id != site.entry.id);
        for store in sites.iter().filter(is_new).filter_map(|site| site.store.as_ref().ok()) {
            found.read(&self.place.at(store.clone()), &self.secrets)?;
        }
        let ours = self.standing().signed.hash;
        match found.in_force() {
            Some(now) if now.signed.hash == ours && now.rivals.is_empty() => Ok(()),
            now => Err(Error::ConfigMoved {
                place: self.place().to_owned(),
                found: now.map_or_else(|| "none".to_owned(), |now| now.signed.label()),
            }),
        }
    }

    /// Of a vault that lies whole at one place: where the copies of its configuration lie that are missing or altered.
    pub(crate) fn unsound_config_copies(&self) -> Result<Vec<(Name, Place)>> {
        let signed = &self.standing().signed;
        let mut unsound = Vec::new();
        if self.place.as_spread().is_some() || self.standing().is_assumed {
            return Ok(unsound);
        }
        let name = Name::config(signed.config.number, &signed.hash);
        for (number, copy) in (0_u8..).zip(copies(&self.place)) {
            match copy.get(&name, Range::All) {
                Ok(object) if object_hash(&object) == signed.hash => {}
                Ok(_) => unsound.push((name.spare(number), copy)),
                Err(error) if error.is_damage() => unsound.push((name.spare(number), copy)),
                Err(error) => return Err(error),
            }
        }
        Ok(unsound)
    }

    /// Writes those copies anew; says how many.
    pub(crate) fn mend_config_copies(&self) -> Result<u64> {
        let (signed, mut mended) = (&self.standing().signed, 0);
        let name = Name::config(signed.config.number, &signed.hash);
        let unsound = self.unsound_config_copies()?;
        for (_, copy) in &unsound {
            let sound = copies(&self.place).into_iter().find_map(|other| {
                let object = other.get(&name, Range::All).ok()?;
                (object_hash(&object) == signed.hash).then_some(object)
            });
            if let Some(object) = sound {
                delete_config(copy, signed.config.number, &signed.hash)?;
                copy.put(&name, object)?;
                mended += 1;
            }
        }
        Ok(mended)
    }
}

/// Where copies of the configuration lie: a vault at one place keeps a spare one, since nothing else says what it says.
fn copies(place: &Place) -> Vec<Place> {
    let spare = Arc::new(Spares::new(place.store().clone(), 1));
    match place.as_spread() {
        Some(_) => vec![place.clone()],
        None => vec![place.clone(), place.at(spare)],
    }
}

/// Publishes a configuration at all places of the vault.
pub(crate) fn publish_config(
    (place, sites): (&Place, &[Site]),
    config: &Config,
    context: &Context,
    secrets: &Secrets,
) -> Result<Signed> {
    let object = Bytes::from(config.seal(secrets, &mut Source(&*context.entropy))?);
    let hash = object_hash(&object);
    let name = Name::config(config.number, &hash);
    for copy in copies(place) {
        copy.put(&name, object.clone())?;
    }
    put_at_leaving((place, sites), &name, &object);
    let config = config.clone();
    Ok(Signed { hash, config })
}

/// Puts an object at places that are being emptied too. They take nothing else, but a client that knows no other place must find the new ones.
fn put_at_leaving((place, sites): (&Place, &[Site]), name: &Name, object: &Bytes) {
    let leaving = sites.iter().filter(|site| site.entry.marks.has(PlaceMarks::LEAVING));
    for store in leaving.filter_map(|site| site.store.as_ref().ok()) {
        // It may be full or broken, which is why it goes.
        let _ = place.at(store.clone()).put(name, object.clone());
    }
}

/// Removes a configuration of a vault that did not come to be.
pub(crate) fn drop_config(place: &Place, signed: &Signed) -> Result<()> {
    copies(place)
        .iter()
        .try_for_each(|copy| delete_config(copy, signed.config.number, &signed.hash))
}
