//! Making a vault at one place or several.
//!
//! - The header makes a vault: it is written last, after every key slot and the configuration are durable.
//! - Everything that can be refused is refused before anything is stored.

use crate::places::place::TroublesBefore;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::chunker::Sizes;
use drystone_format::config::{Config, Features, Trust};
use drystone_format::header::Header;
use drystone_format::keys::{Role, Secrets};
use drystone_format::places::PlaceEntry;
use drystone_format::{PlaceId, SlotId, VaultId, random};
use drystone_store::{Name, Prefix, Range, Store};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::keyring::keys;
use crate::keyring::owner_key;
use crate::keyring::slots::{NewSlot, new_slot};
use crate::places::change::{NewPlace, drop_config, publish_config};
use crate::places::config::{Found, first_root_kinds};
use crate::places::marks::put_mark;
use crate::places::open::{Sight, Unlocked, refuse_known};
use crate::places::pin::VaultPin;
use crate::places::place::Place;
use crate::places::reach::Reached;
use crate::places::site::Site;
use crate::vault::Vault;

/// What a new vault is like.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Chunk sizes of file data.
    pub data_sizes: Sizes,
    /// Chunk sizes of trees and recipes.
    pub meta_sizes: Sizes,
    /// Whose packs clients deduplicate against.
    pub trust: Trust,
    /// Its keys; at least one owner.
    pub slots: Vec<NewSlot>,
}

/// A vault that is not stored yet.
struct NewVault {
    secrets: Arc<Secrets>,
    header: Header,
    header_bytes: Bytes,
    slots: Vec<(SlotId, Bytes)>,
    /// Opens the first slot.
    lock: keys::Unlocked,
}

impl Vault {
    /// Whether there is a vault at `store`, or what is left of one.
    pub fn exists(store: &Arc<dyn Store>, context: &Context) -> Result<bool> {
        let place = Place::new(store.clone(), context.runtime.clone());
        match place.get(&Name::header(), Range::All) {
            Ok(_) => return Ok(true),
            Err(Error::Store(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        for prefix in [Prefix::Keys, Prefix::Packs, Prefix::Shards, Prefix::Spares] {
            if place.has_any(&prefix)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a vault at one place and opens it; [`Error::VaultExists`] if there is one, or what is left of one,
    /// [`Error::Emptied`] if this machine has seen one there.
    pub fn create(store: Arc<dyn Store>, context: Context, options: &CreateOptions) -> Result<Self> {
        Self::create_known(store, context, options, &|_| Ok(()))
    }

    /// The same, and tells `ready` id and key of the vault before anything of it is stored.
    pub fn create_known(
        store: Arc<dyn Store>,
        context: Context,
        options: &CreateOptions,
        ready: &dyn Fn(&VaultPin) -> std::io::Result<()>,
    ) -> Result<Self> {
        refuse_existing(&store, &context)?;
        refuse_known(&[store.place()], &context)?;
        let new = NewVault::generate(&context, options)?;
        new.announce(ready)?;
        let place = Place::new(store, context.runtime.clone());
        let found = new.store(
            (&place, &[]),
            &context,
            &new.config(&context, options, (1, 1), Vec::new()),
        )?;
        let reached = Reached::of(found, Vec::new());
        let vault = Self::assemble(new.unlocked(place), context, reached)?;
        vault.keep_reserve();
        Ok(vault)
    }

    /// Makes a vault that is spread over several places, all of which must be there, and opens it.
    ///
    /// Any `spread.0` of the `spread.1` shards of a pack give it back.
    /// [`Error::VaultExists`] if there is a vault at one of the places.
    pub fn create_spread(
        places: Vec<NewPlace>,
        spread: (u8, u8),
        context: Context,
        options: &CreateOptions,
    ) -> Result<Self> {
        Self::create_spread_known(places, spread, context, options, &|_| Ok(()))
    }

    /// The same, and tells `ready` id and key of the vault before anything of it is stored.
    pub fn create_spread_known(
        places: Vec<NewPlace>,
        spread: (u8, u8),
        context: Context,
        options: &CreateOptions,
        ready: &dyn Fn(&VaultPin) -> std::io::Result<()>,
    ) -> Result<Self> {
        places
            .iter()
            .try_for_each(|place| refuse_existing(&place.store, &context))?;
        let urls: Vec<&str> = places.iter().map(|place| place.url.as_str()).collect();
        refuse_known(&urls, &context)?;
        let new = NewVault::generate(&context, options)?;
        new.announce(ready)?;
        let mut random = Source(&*context.entropy);
        let sites: Vec<Site> = places
            .into_iter()
            .map(|place| {
                let id = PlaceId(random::array(&mut random));
                Site::new(place.used.entry(id, place.url), Ok(place.store))
            })
            .collect();
        let entries = sites.iter().map(|site| site.entry.clone()).collect();
        let config = new.config(&context, options, spread, entries);
        let place = Place::spread(&config, &sites, &context, &new.secrets)?;
        for site in &sites {
            put_mark(site, place.spares(), &context, &new.secrets)?;
        }
        let found = new.store((&place, &sites), &context, &config)?;
        place.all_there(&TroublesBefore::default())?;
        let vault = Self::assemble(new.unlocked(place), context, Reached::of(found, sites))?;
        vault.keep_reserve();
        Ok(vault)
    }
}

fn refuse_existing(store: &Arc<dyn Store>, context: &Context) -> Result<()> {
    if Vault::exists(store, context)? {
        return Err(Error::VaultExists {
            place: store.place().to_owned(),
        });
    }
    Ok(())
}

impl NewVault {
    fn generate(context: &Context, options: &CreateOptions) -> Result<Self> {
        let mut random = Source(&*context.entropy);
        let id = VaultId(random::array(&mut random));
        let secrets = Secrets::generate(&mut random, id)?;
        let header = Header {
            vault: secrets.vault,
            vault_verify: secrets.vault_verify,
            unknown: Vec::new(),
        };
        let header_bytes = Bytes::from(header.encode(owner_key(&secrets)?)?);
        if !options.slots.iter().any(|slot| slot.role == Role::Owner) {
            return Err(Error::LastOwner {
                id: "(none)".to_owned(),
            });
        }
        // All of them are made before the first is stored: a key that cannot be used leaves nothing behind.
        let made = options
            .slots
            .iter()
            .map(|new| new_slot(context, &secrets, &header_bytes, new))
            .collect::<Result<Vec<_>>>()?;
        let slots = made.iter().map(|made| (made.id, made.object.clone())).collect();
        let first = made.into_iter().find(|made| made.credential.role().may_govern());
        let first = first.ok_or(Error::Stopped)?;
        Ok(Self {
            // What this run writes is signed with a key that a slot holds.
            secrets: Arc::new(first.credential),
            header,
            header_bytes,
            slots,
            lock: first.lock,
        })
    }

    fn announce(&self, ready: &dyn Fn(&VaultPin) -> std::io::Result<()>) -> Result<()> {
        let pin = VaultPin::of(&self.secrets);
        ready(&pin).map_err(|error| Error::BadKey {
            origin: "new key file".to_owned(),
            why: format!("cannot be written: {error}"),
        })
    }

    /// The first configuration.
    fn config(&self, context: &Context, options: &CreateOptions, spread: (u8, u8), places: Vec<PlaceEntry>) -> Config {
        Config {
            number: 1,
            made: context.clock.now(),
            replaces: Vec::new(),
            features: Features::default(),
            data_sizes: options.data_sizes,
            meta_sizes: options.meta_sizes,
            trust: options.trust,
            spread,
            places,
            root_kinds: first_root_kinds(),
            removed: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn store(&self, (place, sites): (&Place, &[Site]), context: &Context, config: &Config) -> Result<Found> {
        for (id, object) in &self.slots {
            place.put(&Name::key(id), object.clone())?;
        }
        let signed = publish_config((place, sites), config, context, &self.secrets)?;
        let put = place.put(&Name::header(), self.header_bytes.clone());
        // Of two that make a vault here at once, one gets its header through; places need not tell which.
        let is_beaten = match put {
            Ok(()) => place.get(&Name::header(), Range::All)? != self.header_bytes,
            Err(Error::Store(drystone_store::Error::Taken { .. })) => true,
            Err(error) => return Err(error),
        };
        if is_beaten {
            self.slots
                .iter()
                .try_for_each(|(id, _)| crate::gc::deletion::delete_slot(place, id))?;
            drop_config(place, &signed)?;
            return Err(Error::VaultExists {
                place: place.name().to_owned(),
            });
        }
        Ok(Found::of(signed))
    }

    fn unlocked(self, place: Place) -> Unlocked {
        let slot = self.slots.first().map_or(SlotId([0; 16]), |(id, _)| *id);
        let named = vec![place.name().to_owned()];
        Unlocked {
            place,
            secrets: self.secrets,
            slot,
            lock: self.lock,
            sight: Sight::Proven,
            named,
            header: self.header,
            header_bytes: self.header_bytes,
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }
}
