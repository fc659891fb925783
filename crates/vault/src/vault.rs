//! A vault: what every verb holds. Below it, [`Base`] is what it stands on; here is what lies where, and what reads it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use drystone_format::{ChunkId, VaultId};
use drystone_store::Store;
use parking_lot::Mutex;

use crate::base::Base;
use crate::catalog::Catalog;
use crate::catalog::far::Far;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::keyring::keys::Unlock;
use crate::places::open::{Unlocked, unlock_named, vaults_at};
use crate::places::reach::{Reach, Reached, reach_all};
use crate::places::site::Site;
use crate::reading::frames::Frames;
use crate::reading::reader::Reader;

/// An opened vault. All methods may be called from many threads.
pub struct Vault {
    base: Base,
    frames: Arc<Frames>,
    catalog: OnceLock<Arc<Catalog>>,
    opening: Mutex<()>,
    /// The loss epoch that was last made durable.
    durable_epoch: Mutex<Option<u64>>,
}

impl Deref for Vault {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

impl Vault {
    /// Opens the vault that lies at the named places, or at one of them and at those that it leads to.
    ///
    /// [`Error::NoVault`] if there is none, [`Error::WrongKey`] if no slot opens, [`Error::BadKey`] if no slot is left
    /// that can be read, [`Error::Damaged`] with the format's `Version` if the vault is newer than this program.
    pub fn open(reach: impl Into<Reach>, context: Context, unlock_with: &Unlock) -> Result<Self> {
        let reach = reach.into();
        let unlocked = unlock_named(&reach, &context, unlock_with)?;
        Self::open_at(&reach, context, unlocked)
    }

    /// The vaults that a place says it holds, without any key: its header's, or, if that is lost, its key slots'.
    pub fn ids_at(store: &Arc<dyn Store>, context: &Context) -> Result<Vec<VaultId>> {
        vaults_at(store, context)
    }

    /// Goes from the place that was unlocked to all places of the vault.
    fn open_at(reach: &Reach, context: Context, mut unlocked: Unlocked) -> Result<Self> {
        let mut reached = reach_all(reach, &context, &unlocked.secrets)?;
        if let Some(place) = reached.place.take() {
            unlocked.place = place;
        }
        unlocked.notes.append(&mut reached.notes);
        let is_named = |site: &Site| {
            site.store
                .as_ref()
                .is_ok_and(|store| unlocked.named.iter().any(|name| name == store.place()))
        };
        if !reached.sites.iter().all(is_named) {
            unlocked.unite_all()?;
        }
        Self::assemble(unlocked, context, reached)
    }

    pub(crate) fn assemble(unlocked: Unlocked, context: Context, reached: Reached) -> Result<Self> {
        let base = Base::assemble(unlocked, context, reached)?;
        let frames = Frames::new(base.place.clone(), base.secrets.clone(), &base.context)?;
        Ok(Self {
            base,
            frames: Arc::new(frames),
            catalog: OnceLock::new(),
            opening: Mutex::new(()),
            durable_epoch: Mutex::new(None),
        })
    }

    /// What lies where; the first call compares it with the packs at the place.
    pub(crate) fn catalog(&self) -> Result<&Arc<Catalog>> {
        let catalog = self.opened_catalog()?;
        catalog.ensure_synced()?;
        Ok(catalog)
    }

    /// The same, perhaps not compared with anything yet.
    fn opened_catalog(&self) -> Result<&Arc<Catalog>> {
        if let Some(catalog) = self.catalog.get() {
            return Ok(catalog);
        }
        let _one_at_a_time = self.opening.lock();
        if self.catalog.get().is_none() {
            let _ = self.catalog.set(Arc::new(Catalog::open(self, &self.index_dir())?));
        }
        self.catalog.get().ok_or(Error::Stopped)
    }

    /// The catalog for who reads: compared with the place, or with index runs to go by until that is needed.
    fn catalog_for_reading(&self) -> Result<&Arc<Catalog>> {
        let catalog = self.opened_catalog()?;
        if catalog.is_synced() || catalog.looks_from_afar() {
            return Ok(catalog);
        }
        match Far::new(self, catalog.index.packs()?.is_empty(), &self.frames)? {
            Some(far) => catalog.look_from_afar(Arc::new(far)),
            None => catalog.ensure_synced()?,
        }
        Ok(catalog)
    }

    /// The same as [`catalog`](Self::catalog), compared with the place now and not only when it was opened.
    pub(crate) fn fresh_catalog(&self) -> Result<&Arc<Catalog>> {
        self.follow_keys()?;
        let catalog = self.opened_catalog()?;
        match catalog.is_synced() {
            true => catalog.refresh()?,
            false => catalog.ensure_synced()?,
        }
        Ok(catalog)
    }

    /// Whether a chunk lies in a pack that a new snapshot may rely on.
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        self.catalog()?.contains(id)
    }

    /// Grows whenever packs turned out lost or damaged: what was known to be stored before must be asked for again.
    /// What a run records belongs to the epoch in which the run began.
    ///
    /// The epoch is durable on return: what a door writes down under it cannot outlive it, also where the power fails.
    pub fn loss_epoch(&self) -> Result<u64> {
        let epoch = self.catalog()?.losses.epoch();
        let mut durable = self.durable_epoch.lock();
        if *durable != Some(epoch) {
            self.state().sync()?;
            *durable = Some(epoch);
        }
        Ok(epoch)
    }

    /// Reads chunks, files and trees; a writer's credential gets an error at the first of them.
    pub fn reader(&self) -> Result<Reader> {
        Ok(Reader::new(
            self.catalog_for_reading()?.clone(),
            self.frames.clone(),
            self.hasher.clone(),
        ))
    }
}
