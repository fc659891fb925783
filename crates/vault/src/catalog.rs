//! The index and what is known about packs: kept in step with the place, and asked before anything is relied on.
//!
//! - Opening compares the packs at the place with those in the index: new ones are read (their tails only), vanished or
//!   truncated ones are forgotten.
//! - A pack found damaged stays readable as far as it goes, but nothing new relies on it.
//! - The loss epoch grows before anybody can see that a pack is lost.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use drystone_format::header::Trust;
use drystone_format::keys::{Role, Secrets};
use drystone_format::limits::{PACK_MAX_BYTES, PACK_TAIL_GUESS_BYTES};
use drystone_format::pack::{FrameInfo, Tail, tail_bytes};
use drystone_format::root::open_verified;
use drystone_format::{ChunkId, PackId};
use drystone_index::{Index, Location, Options, PackEntries, PackInfo, Span, State};
use drystone_store::{Kind, Name, Prefix, Range};
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::place::Place;
use crate::problem::Problems;
use crate::vault::Vault;

/// State key of the loss epoch, eight bytes big-endian.
const LOSS_EPOCH: &str = "loss_epoch";
/// State key of the packs that were found damaged, 32 bytes each.
const DAMAGED: &str = "damaged_packs";
/// Set in the index's pack kind when an owner wrote the pack.
const BY_OWNER: u8 = 0x80;

pub(crate) struct Catalog {
    pub(crate) index: Index,
    place: Place,
    state: Arc<State>,
    secrets: Arc<Secrets>,
    trust: Trust,
    verified: HashSet<PackId>,
    damaged: RwLock<HashSet<PackId>>,
    loss_epoch: AtomicU64,
    problems: Mutex<Problems>,
}

impl Catalog {
    pub(crate) fn open(vault: &Vault, dir: &Path) -> Result<Self> {
        let state = vault.state().clone();
        let damaged = state.get(DAMAGED)?.unwrap_or_default();
        let damaged = damaged
            .as_chunks::<{ PackId::LEN }>()
            .0
            .iter()
            .map(|id| PackId(*id))
            .collect();
        let loss_epoch = state
            .get(LOSS_EPOCH)?
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        let mut catalog = Self {
            index: Index::open(
                dir,
                Options {
                    memory_bytes: vault.context.memory_bytes / 2,
                },
            )?,
            place: vault.place.clone(),
            state,
            secrets: vault.secrets.clone(),
            trust: vault.header().trust,
            verified: HashSet::new(),
            damaged: RwLock::new(damaged),
            loss_epoch: AtomicU64::new(loss_epoch),
            problems: Mutex::default(),
        };
        catalog.sync(vault.place.parallel(vault.context.threads))?;
        catalog.load_verified()?;
        Ok(catalog)
    }

    /// Brings the index in step with the packs at the place.
    fn sync(&self, parallel: usize) -> Result<()> {
        let mut live: HashMap<PackId, u64> = HashMap::new();
        self.place.for_each(&Prefix::Packs, |listed| {
            if let Kind::Pack(id) = listed.name.kind() {
                live.insert(id, listed.size);
            }
            Ok(())
        })?;
        let lost = |pack: &PackInfo| live.get(&pack.pack) != Some(&pack.pack_bytes);
        if self.index.packs().iter().any(lost) {
            self.grow_loss_epoch()?;
            let known: HashMap<PackId, u64> = self
                .index
                .packs()
                .iter()
                .map(|pack| (pack.pack, pack.pack_bytes))
                .collect();
            self.index
                .retain(&|pack| live.get(pack).is_some_and(|size| known.get(pack) == Some(size)))?;
        }
        let new: Vec<(PackId, u64)> = live
            .into_iter()
            .filter(|(id, _)| self.index.has_pack(id).is_none())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some((id, size)) = new.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.learn(id, *size)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel.min(new.len())).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or(Err(Error::Stopped)))
        })?;
        Ok(self.index.flush()?)
    }

    /// Reads the tail of one pack into the index; damage is noted, not fatal.
    fn learn(&self, id: &PackId, size: u64) -> Result<()> {
        match read_tail(&self.place, &self.secrets, id, size) {
            Ok(tail) => Ok(self.index.insert(entries(*id, size, &tail))?),
            Err(error) if error.is_damage() => {
                self.problems.lock().push(Name::pack(id).as_str(), error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Which packs of other writers an owner has verified; asked only where it matters.
    fn load_verified(&mut self) -> Result<()> {
        let own = self.secrets.certificate.writer.0;
        let foreign = |pack: &PackInfo| pack.kind & BY_OWNER == 0 && pack.writer != own;
        if self.trust == Trust::Everyone || !self.index.packs().iter().any(foreign) {
            return Ok(());
        }
        let mut names = Vec::new();
        self.place.for_each(&Prefix::Verified, |listed| {
            names.push(listed.name);
            Ok(())
        })?;
        for name in names {
            let object = self.place.get(&name, Range::All)?;
            match open_verified(&self.secrets, &object) {
                Ok(packs) => self.verified.extend(packs),
                Err(error) => self.problems.lock().push(name.as_str(), error),
            }
        }
        Ok(())
    }

    /// Whether a new snapshot may rely on what this pack holds.
    fn is_reliable(&self, pack: &PackInfo) -> bool {
        let trusted = self.trust == Trust::Everyone
            || pack.kind & BY_OWNER != 0
            || pack.writer == self.secrets.certificate.writer.0
            || self.verified.contains(&pack.pack);
        trusted && !self.damaged.read().contains(&pack.pack)
    }

    /// Packs that an owner has not vouched for yet and did not write.
    pub(crate) fn is_unverified(&self, pack: &PackInfo) -> bool {
        pack.kind & BY_OWNER == 0 && !self.verified.contains(&pack.pack)
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.index.get_where(id, &|pack| self.is_reliable(pack))?.is_some())
    }

    /// Where to read a chunk, best place first; anything will do, since what is read is verified.
    pub(crate) fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        match self.index.get(id)? {
            Some(location) if self.damaged.read().contains(&location.pack) => Ok(self
                .index
                .get_where(id, &|pack| !self.damaged.read().contains(&pack.pack))?
                .or(Some(location))),
            found => Ok(found),
        }
    }

    /// Another place to read a chunk, when those in `tried` failed.
    pub(crate) fn locate_beside(&self, id: &ChunkId, tried: &[PackId]) -> Result<Option<Location>> {
        Ok(self.index.get_where(id, &|pack| !tried.contains(&pack.pack))?)
    }

    pub(crate) fn loss_epoch(&self) -> u64 {
        self.loss_epoch.load(Ordering::Acquire)
    }

    fn grow_loss_epoch(&self) -> Result<()> {
        let epoch = self.loss_epoch.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(self.state.set(LOSS_EPOCH, &epoch.to_be_bytes())?)
    }

    /// Remembers that nothing may rely on `pack` any more.
    pub(crate) fn mark_damaged(&self, pack: &PackId) -> Result<()> {
        if self.damaged.write().insert(*pack) {
            self.grow_loss_epoch()?;
            self.save_damaged()?;
        }
        Ok(())
    }

    /// Forgets that `pack` was damaged: it was read in full and is fine.
    pub(crate) fn mark_sound(&self, pack: &PackId) -> Result<()> {
        if self.damaged.write().remove(pack) {
            self.save_damaged()
        } else {
            Ok(())
        }
    }

    fn save_damaged(&self) -> Result<()> {
        let bytes: Vec<u8> = self.damaged.read().iter().flat_map(|pack| pack.0).collect();
        Ok(self.state.set(DAMAGED, &bytes)?)
    }

    pub(crate) fn damaged(&self) -> Vec<PackId> {
        self.damaged.read().iter().copied().collect()
    }

    /// Packs and lists that could not be read when the index was brought in step.
    pub(crate) fn problems(&self) -> Problems {
        self.problems.lock().clone()
    }

    /// What the index holds for a pack that was just stored.
    pub(crate) fn insert_own(&self, id: PackId, size: u64, kind: u8, frames: &[FrameInfo]) -> Result<()> {
        let certificate = self.secrets.certificate;
        let kind = kind | owner_bit(certificate.role);
        let chunks = spans(frames);
        Ok(self.index.insert(PackEntries {
            pack: id,
            pack_bytes: size,
            kind,
            writer: certificate.writer.0,
            chunks,
        })?)
    }
}

fn owner_bit(role: Role) -> u8 {
    if role == Role::Owner { BY_OWNER } else { 0 }
}

fn entries(pack: PackId, pack_bytes: u64, tail: &Tail) -> PackEntries {
    let certificate = tail.preamble.certificate;
    let kind = tail.preamble.kind as u8 | owner_bit(certificate.role);
    PackEntries {
        pack,
        pack_bytes,
        kind,
        writer: certificate.writer.0,
        chunks: spans(&tail.frames),
    }
}

fn spans(frames: &[FrameInfo]) -> Vec<(ChunkId, Span)> {
    let mut chunks = Vec::with_capacity(frames.iter().map(|frame| frame.chunks.len()).sum());
    for (number, frame) in frames.iter().enumerate() {
        let mut chunk_offset = 0;
        for chunk in &frame.chunks {
            let span = Span {
                frame: number as u16,
                frame_offset: frame.offset,
                frame_bytes: frame.bytes,
                chunk_offset,
                chunk_bytes: chunk.bytes,
            };
            chunks.push((chunk.id, span));
            chunk_offset += chunk.bytes;
        }
    }
    chunks
}

/// Reads and opens the tail of a pack: one request for most packs, two for those of many small chunks.
pub(crate) fn read_tail(place: &Place, secrets: &Secrets, id: &PackId, size: u64) -> Result<Tail> {
    let name = Name::pack(id);
    if size > PACK_MAX_BYTES as u64 {
        let limit = PACK_MAX_BYTES as u64;
        return Err(place.damaged(&name)(drystone_format::Error::Limit {
            object: "pack",
            what: "bytes",
            found: size,
            limit,
        }));
    }
    let guess = place.get(&name, Range::Last(PACK_TAIL_GUESS_BYTES as u64))?;
    let length = tail_bytes(&guess, size).map_err(place.damaged(&name))?;
    let tail = match guess.len().checked_sub(length) {
        Some(start) => guess.slice(start..),
        None => place.get(&name, Range::Last(length as u64))?,
    };
    if tail.len() != length {
        return Err(Error::Store(drystone_store::Error::Short {
            name: name.to_string(),
            place: place.name().to_owned(),
            size: tail.len() as u64,
            wanted: length as u64,
        }));
    }
    Tail::open(&tail, size, secrets).map_err(place.damaged(&name))
}
