//! A vault: what every verb holds, put together from what `open.rs` unlocked and `reach.rs` found.
//!
//! - Nothing local is needed: the cache is made anew, and what this machine knows is only compared.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_format::chunker::Chunker;
use drystone_format::config::Config;
use drystone_format::header::Header;
use drystone_format::id::ChunkHasher;
use drystone_format::keys::{Role, Secrets, VerifyKey};
use drystone_format::{ChunkId, SlotId, VaultId};
use drystone_index::{Index, State};
use drystone_store::Store;
use drystone_store::spread::Spread;
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::catalog::far::Far;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::gc::epochs::Epochs;
use crate::gc::protocol;
use crate::keyring::keys::Unlock;
use crate::keyring::slots::SlotSource;
use crate::places::config::{InForce, Standing};
use crate::places::known::{Known, KnownVault, Seen, VaultPin};
use crate::places::open::{Unlocked, unlock_named, vaults_at};
use crate::places::place::Place;
use crate::places::reach::{Reach, Reached, Site, reach_all};
use crate::reading::frames::Frames;
use crate::reading::reader::Reader;
use crate::roots::RootNames;
use crate::roots::ledgers::Ledgers;
use crate::roots::root_cache::RootCache;

/// An opened vault. All methods may be called from many threads.
pub struct Vault {
    pub(crate) place: Place,
    pub(crate) context: Context,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) slot: SlotId,
    pub(crate) slot_source: Arc<SlotSource>,
    /// When the slots were read on opening, seconds; long ago once a run has begun.
    pub(crate) keys_read: AtomicI64,
    pub(crate) hasher: ChunkHasher,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) ledgers: Arc<Ledgers>,
    pub(crate) root_names: RootNames,
    /// Roots of slow places; none where they are read as quickly as a cache.
    pub(crate) root_cache: Option<Arc<RootCache>>,
    header: Header,
    header_bytes: Bytes,
    warnings: Vec<String>,
    notes: Vec<String>,
    standing: Standing,
    pub(crate) sites: Vec<Site>,
    state: Arc<State>,
    frames: Arc<Frames>,
    catalog: OnceLock<Arc<Catalog>>,
    opening: Mutex<()>,
    /// The labels of the keys, once they were asked for.
    pub(crate) labels: OnceLock<BTreeMap<VerifyKey, String>>,
    /// Held while what is known of single packs is changed in the state.
    pub(crate) noting: Arc<Mutex<()>>,
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

    pub(crate) fn assemble(mut unlocked: Unlocked, context: Context, reached: Reached) -> Result<Self> {
        let Reached {
            found, in_force, sites, ..
        } = reached;
        let standing = found.standing(in_force, unlocked.configuration_seen(&context)?);
        unlocked.recall(&context, &known_places(&unlocked, &sites), &standing)?;
        let slot_source = Arc::new(SlotSource::new(unlocked.place.clone(), unlocked.pin(), unlocked.lock));
        let Unlocked {
            place,
            secrets,
            slot,
            header,
            header_bytes,
            mut warnings,
            mut notes,
            ..
        } = unlocked;
        if place.as_spread().is_some_and(Spread::may_hide_objects) {
            notes.push(
                "so many places are away that snapshots may lie at those alone: what is listed may be an older state"
                    .to_owned(),
            );
        }
        let weak = Arc::downgrade(&slot_source);
        secrets.set_source(weak);
        let dir = local_dir(&context, &secrets.vault);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| Error::CacheDir {
                path: dir.clone(),
                source,
            })?;
        let state = Arc::new(open_state(&dir.join("state.sqlite"))?);
        warnings.extend(standing.warnings());
        let frames = Frames::new(place.clone(), secrets.clone(), &context)?;
        let frames = Arc::new(frames);
        let hasher = ChunkHasher::new(&secrets.dedup_key);
        let epochs = Arc::new(Epochs::new(place.clone(), secrets.clone()));
        let memory = Known::in_dir(&context.known_dir);
        let keys_read = AtomicI64::new(context.clock.now().seconds);
        let ledgers = Ledgers::new(place.clone(), secrets.clone(), memory, !context.accept.older);
        Ok(Self {
            epochs,
            ledgers: Arc::new(ledgers),
            root_names: RootNames::default(),
            root_cache: place.is_slow().then(|| Arc::new(RootCache::in_dir(&dir.join("roots")))),
            place,
            context,
            secrets,
            slot,
            slot_source,
            keys_read,
            hasher,
            header,
            header_bytes,
            warnings,
            notes,
            standing,
            sites,
            state,
            frames,
            catalog: OnceLock::new(),
            opening: Mutex::new(()),
            labels: OnceLock::new(),
            noting: Arc::default(),
        })
    }

    /// Identity of the vault.
    pub fn id(&self) -> VaultId {
        self.secrets.vault
    }

    /// What the credential it was opened with may do.
    pub fn role(&self) -> Role {
        self.secrets.role()
    }

    /// Returns true if this is the key that signs for the credential it was opened with.
    pub fn is_own(&self, writer: &VerifyKey) -> bool {
        *writer == self.secrets.certificate.writer
    }

    /// Refuses `what` unless the credential signs for the vault.
    pub fn may_govern(&self, what: &'static str) -> Result<()> {
        if self.role().may_govern() {
            Ok(())
        } else {
            Err(self.secrets.refused(what).into())
        }
    }

    /// Keys of removed credentials: what they signed counts only as far as an owner has verified or stated it.
    pub fn revoked(&self) -> impl Iterator<Item = VerifyKey> {
        self.config().removed.iter().map(|removed| removed.writer)
    }

    /// Returns true if this is the key of a removed credential.
    pub(crate) fn is_removed(&self, writer: &VerifyKey) -> bool {
        self.revoked().any(|key| key == *writer)
    }

    /// The id and key of the vault.
    pub fn pin(&self) -> VaultPin {
        VaultPin::of(&self.secrets)
    }

    /// What this machine knows of places and vaults.
    pub fn known(&self) -> Known {
        Known::in_dir(&self.context.known_dir)
    }

    /// Remembers the newest key epoch outside of the cache.
    pub(crate) fn remember_epoch(&self) {
        let Ok(newest) = self.secrets.current() else { return };
        let seen = Seen {
            number: newest.number,
            hash: newest.hash(),
        };
        let new = KnownVault::new(self.secrets.vault_verify);
        // What cannot be written now is at the next opening, which says so.
        let _ = self
            .known()
            .update(&self.secrets.vault, new, |vault| vault.see_epoch(seen, false));
    }

    /// What an owner has decided about it: the configuration in force.
    pub fn config(&self) -> &Config {
        &self.standing.signed.config
    }

    /// The configuration in force with its hash, and others that an owner must choose from; `None` if none can be read.
    pub fn in_force(&self) -> Option<InForce> {
        let Standing { signed, rivals, .. } = self.standing.clone();
        (!self.standing.is_assumed).then_some(InForce { signed, rivals })
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Reads the epochs of gc and then the ledgers.
    pub(crate) fn follow_notices(&self) -> Result<Arc<protocol::Standing>> {
        self.epochs.refresh()?;
        self.ledgers.refresh()?;
        Ok(self.epochs.follow(&self.ledgers))
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn header_object(&self) -> Bytes {
        self.header_bytes.clone()
    }

    /// Where it lies, for messages.
    pub fn place(&self) -> &str {
        self.place.name()
    }

    /// What was wrong when it was opened, though it could be opened.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What of the named places was of no use, though nothing is wrong with the vault.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What it was opened with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Names chunks of this vault.
    pub fn hasher(&self) -> &ChunkHasher {
        &self.hasher
    }

    /// Cuts file data of this vault.
    pub fn data_chunker(&self) -> Chunker {
        Chunker::new(&self.secrets.dedup_key, self.config().data_sizes)
    }

    /// Cuts trees and recipes of this vault.
    pub(crate) fn meta_chunker(&self) -> Chunker {
        Chunker::new(&self.secrets.dedup_key, self.config().meta_sizes)
    }

    /// Local state: a cache, and small facts.
    pub fn state(&self) -> &Arc<State> {
        &self.state
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
        match Far::new(self, catalog, &self.frames)? {
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

    /// Where runs on this machine say that they live.
    pub(crate) fn writers_dir(&self) -> PathBuf {
        local_dir(&self.context, &self.secrets.vault).join("writers")
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        local_dir(&self.context, &self.secrets.vault).join("index")
    }

    /// The index of chunks, up to date with the place.
    pub fn index(&self) -> Result<&Index> {
        Ok(&self.catalog()?.index)
    }

    /// Whether a chunk lies in a pack that a new snapshot may rely on.
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        self.catalog()?.contains(id)
    }

    /// Grows whenever packs turned out lost or damaged: what was known to be stored before must be asked for again.
    /// What a run records belongs to the epoch in which the run began.
    pub fn loss_epoch(&self) -> Result<u64> {
        Ok(self.catalog()?.losses.epoch())
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

/// Opens the local state; one that is damaged where it matters here is set aside at once and begun anew.
fn open_state(path: &Path) -> Result<State> {
    let state = State::open(path)?;
    let mut keys = crate::catalog::losses::KEYS.iter();
    match keys.try_for_each(|key| state.get(key).map(drop)) {
        Err(drystone_index::Error::StateDamaged { .. }) => Ok(State::open(path)?),
        other => Ok(other.map(|()| state)?),
    }
}

/// The places at which the vault is known to lie from now on: as they were named, and as the list of places has them.
fn known_places(unlocked: &Unlocked, sites: &[Site]) -> Vec<String> {
    if sites.is_empty() {
        return unlocked.named.clone();
    }
    let there = sites.iter().filter_map(|site| Some((site, site.store.as_ref().ok()?)));
    there
        .flat_map(|(site, store)| [site.entry.url.clone(), store.place().to_owned()])
        .collect()
}

fn local_dir(context: &Context, vault: &VaultId) -> PathBuf {
    context.cache_dir.join(vault.to_string())
}
