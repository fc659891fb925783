//! A vault at a place: creating it, opening it with a key.
//!
//! - The header makes a vault: it is written last, after every key slot is durable.
//! - A damaged or lost header is replaced by the copy in the key slot for the run, and reported.
//! - The vault's signing key is remembered locally, so that a swapped vault under the same id is noticed.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_format::chunker::{Chunker, Sizes};
use drystone_format::header::{Header, Trust};
use drystone_format::id::ChunkHasher;
use drystone_format::keys::{Role, Secrets};
use drystone_format::{ChunkId, SlotId, VaultId, random};
use drystone_index::{Index, State};
use drystone_store::{Name, Prefix, Range, Store};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::frames::Frames;
use crate::gc::epochs::Epochs;
use crate::keys::Unlock;
use crate::place::Place;
use crate::problem::Problems;
use crate::reader::Reader;
use crate::slots::{NewSlot, new_slot, read_slots, unlock};

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
    state: Arc<State>,
    frames: Arc<Frames>,
    catalog: OnceLock<Arc<Catalog>>,
    opening: Mutex<()>,
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
        let mut found = false;
        for prefix in [Prefix::Keys, Prefix::Packs] {
            place.for_each(&prefix, |_| {
                found = true;
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Makes a vault and opens it; [`Error::VaultExists`] if there is one, or what is left of one.
    pub fn create(store: Arc<dyn Store>, context: Context, options: &CreateOptions) -> Result<Self> {
        let place = Place::new(store.clone(), context.runtime.clone());
        if Self::exists(&store, &context)? {
            return Err(Error::VaultExists {
                place: place.name().to_owned(),
            });
        }
        let mut random = Source(&*context.entropy);
        let id = VaultId(random::array(&mut random));
        let secrets = Secrets::generate(&mut random, id)?;
        let header = Header {
            vault: secrets.vault,
            created: context.clock.now(),
            generation: 0,
            vault_verify: secrets.vault_verify,
            data_sizes: options.data_sizes,
            meta_sizes: options.meta_sizes,
            trust: options.trust,
            spread: (1, 1),
            unknown: Vec::new(),
        };
        let header_bytes = Bytes::from(header.encode(crate::slots::owner_key(&secrets)?)?);
        if !options.slots.iter().any(|slot| slot.role == Role::Owner) {
            return Err(Error::LastOwner {
                id: "(none)".to_owned(),
            });
        }
        // All of them are made before the first is stored: a key that cannot be used leaves nothing behind.
        let slots: Vec<(SlotId, Bytes)> = options
            .slots
            .iter()
            .map(|new| new_slot(&context, &secrets, &header_bytes, new))
            .collect::<Result<_>>()?;
        for (id, object) in &slots {
            place.put(&Name::key(id), object.clone())?;
        }
        let made: Vec<SlotId> = slots.into_iter().map(|(id, _)| id).collect();
        place.put(&Name::header(), header_bytes.clone())?;
        // Of two that make a vault here at once, one gets its header through; places need not tell which.
        if place.get(&Name::header(), Range::All)? != header_bytes {
            made.iter().try_for_each(|id| crate::gc::delete_slot(&place, id))?;
            return Err(Error::VaultExists {
                place: place.name().to_owned(),
            });
        }
        let slot = made.first().copied().unwrap_or(SlotId([0; 16]));
        Self::assemble(place, context, (secrets, slot), (header, header_bytes), Vec::new())
    }

    /// Opens the vault at `store` with `unlock`.
    ///
    /// [`Error::NoVault`] if there is none, [`Error::WrongKey`] if no slot opens, [`Error::BadKey`] if no slot is left
    /// that can be read, [`Error::Damaged`] with the format's `Version` if the vault is newer than this program.
    pub fn open(store: Arc<dyn Store>, context: Context, unlock_with: &Unlock) -> Result<Self> {
        let place = Place::new(store, context.runtime.clone());
        let header = read_header(&place)?;
        let (slots, problems) = read_slots(&place)?;
        let mut warnings: Vec<String> = problems.iter().map(ToString::to_string).collect();
        if slots.is_empty() {
            return Err(no_slots(&place, &header, &problems));
        }
        let known = header.as_ref().ok().map(|(header, _)| header);
        let (secrets, slot) =
            unlock(&place, &slots, known, unlock_with).map_err(|error| also_damaged(error, &problems))?;
        let is_ours = |header: &Header| header.vault == secrets.vault && header.vault_verify == secrets.vault_verify;
        let reason = match header {
            Ok((header, object)) if is_ours(&header) => {
                return Self::assemble(place, context, (secrets, slot.id), (header, object), warnings);
            }
            Ok(_) => "it is another vault's".to_owned(),
            Err(lost) => lost.reason(&place, &slot.header)?,
        };
        warnings.push(format!(
            "{}: the vault header is damaged ({reason}); its copy in the key slot is used; run `drystone repair header`",
            Name::header()
        ));
        let copy = Header::decode(&slot.header).map_err(place.damaged(&Name::key(&slot.id)))?;
        let header = (copy, Bytes::from(slot.header));
        Self::assemble(place, context, (secrets, slot.id), header, warnings)
    }

    fn assemble(
        place: Place,
        context: Context,
        (secrets, slot): (Secrets, SlotId),
        (header, header_bytes): (Header, Bytes),
        warnings: Vec<String>,
    ) -> Result<Self> {
        let secrets = Arc::new(secrets);
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
            state,
            frames,
            catalog: OnceLock::new(),
            opening: Mutex::new(()),
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

    /// Its configuration.
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
        Chunker::new(&self.secrets.dedup_key, self.header.data_sizes)
    }

    /// Cuts trees and recipes of this vault.
    pub(crate) fn meta_chunker(&self) -> Chunker {
        Chunker::new(&self.secrets.dedup_key, self.header.meta_sizes)
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
    let mut keys = crate::losses::KEYS.iter().chain(&[PINNED]);
    match keys.try_for_each(|key| state.get(key).map(drop)) {
        Err(drystone_index::Error::StateDamaged { .. }) => Ok(State::open(path)?),
        other => Ok(other.map(|()| state)?),
    }
}

/// State key under which the vault's signing key is remembered.
const PINNED: &str = "vault_verify";

fn local_dir(context: &Context, vault: &VaultId) -> PathBuf {
    context.cache_dir.join(vault.to_string())
}
