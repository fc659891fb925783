//! A vault: opening it with a key, from any of its places.
//!
//! - A place that cannot be used is passed over as long as one that can is named.
//! - A damaged or lost header is replaced by the copy in the key slot for the run, and reported.
//! - The vault's signing key is remembered locally, so that a swapped vault under the same id is noticed.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_format::chunker::Chunker;
use drystone_format::config::Config;
use drystone_format::header::Header;
use drystone_format::id::ChunkHasher;
use drystone_format::keys::{Role, Secrets};
use drystone_format::{ChunkId, RootId, SlotId, VaultId};
use drystone_index::{Index, State};
use drystone_store::{Name, Range};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::config::{InForce, Signed, Standing};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::frames::Frames;
use crate::gc::epochs::Epochs;
use crate::keys::Unlock;
use crate::place::Place;
use crate::problem::Problems;
use crate::reach::{Reach, Reached, Site, reach_all, spares};
use crate::reader::Reader;
use crate::slots::{read_slots, unlock};

/// A vault whose secrets are known.
pub(crate) struct Unlocked {
    pub(crate) place: Place,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) slot: SlotId,
    pub(crate) header: Header,
    pub(crate) header_bytes: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// An opened vault. All methods may be called from many threads.
pub struct Vault {
    pub(crate) place: Place,
    pub(crate) context: Context,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) slot: SlotId,
    pub(crate) hasher: ChunkHasher,
    pub(crate) epochs: Arc<Epochs>,
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
    /// Held while what is known of single packs is changed in the state.
    pub(crate) noting: Mutex<()>,
}

impl Vault {
    /// Opens the vault that lies at the named places, or at one of them and at those that it leads to.
    ///
    /// [`Error::NoVault`] if there is none, [`Error::WrongKey`] if no slot opens, [`Error::BadKey`] if no slot is left
    /// that can be read, [`Error::Damaged`] with the format's `Version` if the vault is newer than this program.
    pub fn open(reach: impl Into<Reach>, context: Context, unlock_with: &Unlock) -> Result<Self> {
        let reach = reach.into();
        let mut first_error = None;
        for store in &reach.named {
            let place = Place::new(store.clone(), context.runtime.clone());
            match unlock_at(place, unlock_with) {
                Ok(unlocked) => return Self::open_at(&reach, context, unlocked),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        for store in &reach.named {
            for spares in spares(store, &context.runtime).unwrap_or_default() {
                if let Ok(unlocked) = unlock_at(Place::new(spares, context.runtime.clone()), unlock_with) {
                    return Self::open_at(&reach, context, unlocked);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::NoVault { place: String::new() }))
    }

    /// Goes from the place that was unlocked to all places of the vault.
    fn open_at(reach: &Reach, context: Context, mut unlocked: Unlocked) -> Result<Self> {
        let mut reached = reach_all(reach, &context, &unlocked.secrets)?;
        if let Some(place) = reached.place.take() {
            unlocked.place = place;
        }
        unlocked.notes.append(&mut reached.notes);
        Self::assemble(unlocked, context, reached)
    }

    pub(crate) fn assemble(unlocked: Unlocked, context: Context, reached: Reached) -> Result<Self> {
        let Unlocked {
            place,
            secrets,
            slot,
            header,
            header_bytes,
            mut warnings,
            notes,
        } = unlocked;
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
        match state.get(PINNED)? {
            Some(pinned) if pinned != secrets.vault_verify.0 => {
                let source = drystone_format::Error::Signature { object: "vault" };
                return Err(Error::Damaged {
                    object: Name::header().to_string(),
                    place: place.name().to_owned(),
                    source,
                });
            }
            Some(_) => {}
            None => state.set(PINNED, &secrets.vault_verify.0)?,
        }
        let Reached {
            found, in_force, sites, ..
        } = reached;
        let standing = found.standing(in_force, config_seen(&state)?);
        warnings.extend(standing.warnings());
        remember_config(&state, &standing, &place)?;
        let frames = Frames::new(place.clone(), secrets.clone(), context.memory_bytes / 2)?;
        let frames = Arc::new(frames);
        let hasher = ChunkHasher::new(&secrets.dedup_key);
        let epochs = Arc::new(Epochs::new(place.clone(), secrets.clone()));
        Ok(Self {
            epochs,
            place,
            context,
            secrets,
            slot,
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
            noting: Mutex::new(()),
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
        let _one_at_a_time = self.opening.lock();
        if self.catalog.get().is_none() {
            let _ = self.catalog.set(Arc::new(Catalog::open(self, &self.index_dir())?));
        }
        self.catalog.get().ok_or(Error::Stopped)
    }

    /// The same, compared with the place now and not only when it was opened.
    pub(crate) fn fresh_catalog(&self) -> Result<&Arc<Catalog>> {
        if let Some(catalog) = self.catalog.get() {
            catalog.refresh()?;
        }
        self.catalog()
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
            self.catalog()?.clone(),
            self.frames.clone(),
            self.hasher.clone(),
        ))
    }
}

/// Reads header and key slots at one place, and opens the secrets.
fn unlock_at(place: Place, unlock_with: &Unlock) -> Result<Unlocked> {
    let header = read_header(&place)?;
    let (slots, problems) = read_slots(&place)?;
    let mut warnings: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if slots.is_empty() {
        return Err(no_slots(&place, &header, &problems));
    }
    let known = header.as_ref().ok().map(|(header, _)| header);
    let (secrets, slot) = unlock(&place, &slots, known, unlock_with).map_err(|error| also_damaged(error, &problems))?;
    let is_ours = |header: &Header| header.vault == secrets.vault && header.vault_verify == secrets.vault_verify;
    let reason = match header {
        Ok((header, header_bytes)) if is_ours(&header) => {
            return Ok(Unlocked {
                place,
                secrets: Arc::new(secrets),
                slot: slot.id,
                header,
                header_bytes,
                warnings,
                notes: Vec::new(),
            });
        }
        Ok(_) => "it is another vault's".to_owned(),
        Err(lost) => lost.reason(&place, &slot.header)?,
    };
    warnings.push(format!(
        "{}: the vault header is damaged ({reason}); its copy in the key slot is used; run `drystone repair header`",
        Name::header()
    ));
    let header = Header::decode(&slot.header).map_err(place.damaged(&Name::key(&slot.id)))?;
    Ok(Unlocked {
        place,
        secrets: Arc::new(secrets),
        slot: slot.id,
        header,
        header_bytes: Bytes::from(slot.header),
        warnings,
        notes: Vec::new(),
    })
}

/// The configuration that this machine went by the last time.
fn config_seen(state: &State) -> Result<Option<(u64, RootId)>> {
    let stored = state.get(CONFIG_SEEN)?.unwrap_or_default();
    let seen = stored.split_first_chunk().and_then(|(number, hash)| {
        let hash = RootId::from_slice(hash)?;
        Some((u64::from_be_bytes(*number), hash))
    });
    Ok(seen)
}

/// Remembers the configuration in force, if it is certain.
fn remember_config(state: &State, standing: &Standing, place: &Place) -> Result<()> {
    let Signed { hash, config } = &standing.signed;
    let seen = (config.number, *hash);
    if standing.certain(place.name()).is_err() || config_seen(state)? == Some(seen) {
        return Ok(());
    }
    let stored = [config.number.to_be_bytes().as_slice(), &hash.0].concat();
    Ok(state.set(CONFIG_SEEN, &stored)?)
}

/// A header that cannot be used.
enum LostHeader {
    /// It is not there, or not as long as it was.
    Missing(String),
    /// It cannot be read.
    Damaged(drystone_format::Error, Bytes),
}

impl LostHeader {
    /// Why the `copy` is used; an error if the vault is of a newer format.
    fn reason(self, place: &Place, copy: &[u8]) -> Result<String> {
        match self {
            Self::Missing(reason) => Ok(reason),
            Self::Damaged(source @ drystone_format::Error::Version { .. }, object) => {
                // A version that differs from that of its own copy is no version but a flipped bit.
                let differs = object.iter().zip(copy).filter(|(one, other)| one != other).count();
                if object.len() == copy.len() && differs == 1 {
                    Ok("its version number is altered".to_owned())
                } else {
                    Err(place.damaged(&Name::header())(source))
                }
            }
            Self::Damaged(source, _) => Ok(source.to_string()),
        }
    }
}

fn read_header(place: &Place) -> Result<Result<(Header, Bytes), LostHeader>> {
    match place.get(&Name::header(), Range::All) {
        Ok(object) => Ok(match Header::decode(&object) {
            Ok(header) => Ok((header, object)),
            Err(error) => Err(LostHeader::Damaged(error, object)),
        }),
        Err(Error::Store(error)) if error.is_not_found() => Ok(Err(LostHeader::Missing("it is missing".to_owned()))),
        Err(error) if error.is_damage() => Ok(Err(LostHeader::Missing(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// Why a vault without a single key slot that can be read does not open.
fn no_slots(place: &Place, header: &Result<(Header, Bytes), LostHeader>, problems: &Problems) -> Error {
    let name = place.name().to_owned();
    match (header, problems.iter().next()) {
        (Err(LostHeader::Damaged(source @ drystone_format::Error::Version { .. }, _)), _) => {
            place.damaged(&Name::header())(source.clone())
        }
        (_, Some(problem)) => Error::BadKey {
            origin: name,
            why: format!("no usable key slot: {problem}"),
        },
        (Err(LostHeader::Missing(_)), None) => Error::NoVault { place: name },
        (Err(LostHeader::Damaged(..)) | Ok(_), None) => Error::BadKey {
            origin: name,
            why: "all key slots (keys/) are missing; without one nothing can be opened: bring one back from a copy of the vault"
                .to_owned(),
        },
    }
}

/// A wrong key may be the right one for a slot that cannot be read: names those too.
fn also_damaged(mut error: Error, problems: &Problems) -> Error {
    if let Error::WrongKey { damaged, .. } = &mut error {
        problems
            .iter()
            .for_each(|problem| damaged.push_str(&format!("; {problem}")));
    }
    error
}

/// Opens the local state; one that is damaged where it matters here is set aside at once and begun anew.
fn open_state(path: &Path) -> Result<State> {
    let state = State::open(path)?;
    let mut keys = crate::losses::KEYS.iter().chain(&[PINNED, CONFIG_SEEN]);
    match keys.try_for_each(|key| state.get(key).map(drop)) {
        Err(drystone_index::Error::StateDamaged { .. }) => Ok(State::open(path)?),
        other => Ok(other.map(|()| state)?),
    }
}

/// State key of the configuration that was last in force: its number, eight bytes big-endian, and its hash.
const CONFIG_SEEN: &str = "config_seen";
/// State key under which the vault's signing key is remembered.
const PINNED: &str = "vault_verify";

fn local_dir(context: &Context, vault: &VaultId) -> PathBuf {
    context.cache_dir.join(vault.to_string())
}
