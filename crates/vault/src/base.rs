//! What an open vault stands on: its places, its keys, the notices that were read, and what this machine keeps of it.
//!
//! - Nothing local is needed: the cache is made anew, and what this machine knows is only compared.
//! - What lies where (catalog.rs) and what reads it stands above, in [`Vault`](crate::Vault).

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use drystone_format::chunker::Chunker;
use drystone_format::config::Config;
use drystone_format::header::Header;
use drystone_format::id::ChunkHasher;
use drystone_format::keys::{Role, Secrets, VerifyKey};
use drystone_format::{SlotId, VaultId};
use drystone_index::State;
use drystone_store::spread::Spread;
use parking_lot::Mutex;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::gc::epochs::Epochs;
use crate::gc::protocol;
use crate::keyring::unlock::SlotSource;
use crate::places::config::{InForce, Standing};
use crate::places::known::{Known, KnownVault, Seen};
use crate::places::open::Unlocked;
use crate::places::pin::VaultPin;
use crate::places::place::Place;
use crate::places::reach::Reached;
use crate::places::site::Site;
use crate::roots::ledgers::Ledgers;
use crate::roots::names::RootNames;
use crate::roots::root_cache::RootCache;
use crate::writing::budget::{Budget, PACKS_BYTES};

/// State key of the name of the state, 16 random bytes.
const STATE_ID: &str = "state_id";
/// Facts without which the state is begun anew.
const READABLE: [&str; 7] = {
    let [epoch, damaged, gone, indexed, epochs, noted] = crate::catalog::losses::KEYS;
    [STATE_ID, epoch, damaged, gone, indexed, epochs, noted]
};

/// What an open vault stands on; a [`Vault`](crate::Vault) has all its methods.
pub struct Base {
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
    /// Where doors keep what they know; it goes with the state.
    doors: PathBuf,
    /// The labels of the keys, once they were asked for.
    pub(crate) labels: OnceLock<BTreeMap<VerifyKey, String>>,
    /// Memory for packs, of all who write.
    pub(crate) budget: Arc<Budget>,
    /// Held while what is known of single packs is changed in the state.
    pub(crate) noting: Arc<Mutex<()>>,
}

impl Base {
    /// Puts it together from what was unlocked and what was reached.
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
        make_private(&dir)?;
        let state = Arc::new(State::open_sound(&dir.join("state.sqlite"), &READABLE)?);
        let doors = doors_of(&state, &dir.join("doors"), &context)?;
        warnings.extend(standing.warnings());
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
            doors,
            labels: OnceLock::new(),
            budget: Budget::new(PACKS_BYTES),
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

    /// The engine's local state: a cache, and small facts.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns a private directory for what a door keeps on this machine from run to run. Makes it if it is not there.
    ///
    /// `door` is a name of the door's own, without `/`. Several runs and processes get the same directory. Everything in it
    /// can be deleted at the cost of time (I4). It lasts as long as the engine's local state: after that was lost or set
    /// aside, a door gets an empty directory, and the one before is removed, also from below a run that still uses it.
    /// So a [loss epoch](crate::Vault::loss_epoch) that a door writes down there never means another one.
    pub fn door_dir(&self, door: &str) -> Result<PathBuf> {
        let dir = self.doors.join(door);
        make_private(&dir)?;
        Ok(dir)
    }

    /// Where runs on this machine say that they live.
    pub(crate) fn writers_dir(&self) -> PathBuf {
        local_dir(&self.context, &self.secrets.vault).join("writers")
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        local_dir(&self.context, &self.secrets.vault).join("index")
    }
}

/// Makes a directory that only its owner can enter, and those above it.
fn make_private(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| Error::CacheDir {
        path: dir.to_owned(),
        source,
    })
}

/// The directory in `all` for the doors of this state: another state has another one. Several processes that begin a state agree on
/// it; the one that named the state removes what doors kept beside earlier ones.
fn doors_of(state: &State, all: &Path, context: &Context) -> Result<PathBuf> {
    let mut random = [0; 16];
    let (mut id, mut is_new) = (state.get(STATE_ID)?, false);
    if id.is_none() {
        context.entropy.fill(&mut random);
        is_new = state.replace(STATE_ID, None, &random)?;
        id = state.get(STATE_ID)?;
    }
    let id = id.as_deref().unwrap_or(&random);
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let own = all.join(format!("of-{digits}"));
    let others = std::fs::read_dir(all).into_iter().flatten().flatten();
    for other in others.filter(|other| is_new && other.path() != own) {
        // What stays takes space, and nobody reads it.
        let _ = std::fs::remove_dir_all(other.path());
    }
    Ok(own)
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
