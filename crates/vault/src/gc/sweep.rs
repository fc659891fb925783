//! Sweeping: what each pack holds that is needed, and copying what is needed out of packs that go.
//!
//! - A chunk that is needed keeps one trusted pack that holds it; where none is trusted, it keeps all, for any may lie.
//! - A pack that stands condemned keeps nothing: what is needed of it alone is copied.
//! - What is copied is verified by its hash, and stored as any new data is.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drystone_format::codec::Compression;
use drystone_format::seal::PackKind;
use drystone_format::{ChunkId, PackId};
use drystone_index::{Location, PackInfo};
use drystone_store::Name;
use parking_lot::Mutex;

use crate::catalog::{Catalog, pack_kind};
use crate::error::{Error, Result};
use crate::gc::live::Keys;
use crate::gc::registration::Registration;
use crate::parallel;
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;
use crate::writing::frame_size::FrameSize;
use crate::writing::ingest::{Ingest, IngestOptions};

/// Chunks copied between two looks at the index, 80 bytes each.
const COPIED_AT_ONCE: usize = 500_000;

/// How far a pack may be relied upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// New snapshots rely on it.
    Full,
    /// Nobody has verified it yet.
    Doubtful,
    /// It was found damaged.
    Damaged,
    /// An epoch names it.
    Condemned,
}

/// What a pack holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) info: PackInfo,
    trust: Trust,
    /// Plaintext of its chunks that keep it, bytes.
    pub(crate) live_bytes: u64,
    /// Plaintext of all its chunks, bytes.
    pub(crate) total_bytes: u64,
}

impl Use {
    /// Share of what it holds that keeps nothing.
    pub(crate) fn unused(&self) -> f64 {
        1.0 - self.live_bytes as f64 / self.total_bytes.max(1) as f64
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.trust == Trust::Condemned
    }

    /// Returns true if new snapshots rely on it.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trust == Trust::Full
    }
}

pub(crate) type Uses = HashMap<PackId, Use>;

pub(crate) struct Sweep<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) catalog: &'a Arc<Catalog>,
    pub(crate) live: &'a Keys<u64>,
    /// Those of them that are parts of trees or nodes of recipes.
    pub(crate) meta: &'a Keys<u64>,
    /// Of chunks that several trusted packs hold, one copy is enough; not while a place is away, of which one may have less.
    pub(crate) one_is_enough: bool,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) cancel: &'a Cancel,
}

/// What was copied.
#[derive(Default)]
pub(crate) struct Copied {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) packs: u64,
    /// Packs that hold something needed that cannot be read: they stay.
    pub(crate) kept: HashSet<PackId>,
    pub(crate) problems: Problems,
    lost: HashSet<ChunkId>,
}

/// A chunk to copy.
struct Found {
    id: ChunkId,
    at: Location,
}

impl Sweep<'_> {
    fn uses(&self) -> Result<Uses> {
        let class = |info: &PackInfo| {
            if self.catalog.is_condemned(&info.pack) {
                Trust::Condemned
            } else if self.catalog.losses.is_damaged(&info.pack) {
                Trust::Damaged
            } else if self.catalog.is_reliable(info) {
                Trust::Full
            } else {
                Trust::Doubtful
            }
        };
        let unused = |info: PackInfo| Use {
            info,
            trust: class(&info),
            live_bytes: 0,
            total_bytes: 0,
        };
        let packs = self.catalog.index.packs()?.into_iter();
        Ok(packs.map(|info| (info.pack, unused(info))).collect())
    }

    /// Calls `each` for every chunk with all its locations.
    pub(super) fn scan(&self, each: &mut dyn FnMut(&ChunkId, &[Location]) -> ControlFlow<()>) -> Result<()> {
        let mut current: Option<ChunkId> = None;
        let mut group: Vec<Location> = Vec::new();
        self.catalog.index.scan(&mut |id, location| {
            if let Some(last) = &current
                && last != id
            {
                if each(last, &group).is_break() || self.cancel.is_cancelled() {
                    group.clear();
                    return ControlFlow::Break(());
                }
                group.clear();
            }
            current = Some(*id);
            group.push(*location);
            ControlFlow::Continue(())
        })?;
        self.cancel.check()?;
        if let Some(last) = current
            && !group.is_empty()
        {
            let _ = each(&last, &group);
        }
        Ok(())
    }

    /// What every known pack holds, and how many of the live chunks were found.
    pub(crate) fn survey(&self) -> Result<(Uses, u64)> {
        let (mut uses, mut found_chunks) = (self.uses()?, 0);
        self.scan(&mut |id, group| {
            let is_live = self.live.contains_chunk(id);
            found_chunks += u64::from(is_live);
            let best = [Trust::Full, Trust::Doubtful, Trust::Damaged]
                .into_iter()
                .find(|trust| {
                    group
                        .iter()
                        .any(|at| uses.get(&at.pack).is_some_and(|found| found.trust == *trust))
                });
            let mut is_kept = false;
            let mut group: Vec<&Location> = group.iter().collect();
            group.sort_by_key(|at| at.pack);
            for at in group {
                let Some(found) = uses.get_mut(&at.pack) else { continue };
                let bytes = u64::from(at.chunk_bytes);
                found.total_bytes += bytes;
                // Of those that are trusted one is enough; of the others each is kept.
                let is_spare = self.one_is_enough && is_kept && found.trust == Trust::Full;
                if is_live && Some(found.trust) == best && !is_spare {
                    found.live_bytes += bytes;
                    is_kept = true;
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok((uses, found_chunks))
    }

    /// What is needed and lies in no trusted pack but in condemned ones, as much as is copied at once.
    fn to_copy(&self, copied: &Copied) -> Result<Vec<Found>> {
        let (uses, mut found) = (self.uses()?, Vec::new());
        let is = |at: &Location, trust| uses.get(&at.pack).is_some_and(|found| found.trust == trust);
        self.scan(&mut |id, group| {
            let is_safe = group.iter().any(|at| is(at, Trust::Full));
            let at = group.iter().find(|at| is(at, Trust::Condemned));
            if let Some(at) = at.filter(|_| !is_safe)
                && self.live.contains_chunk(id)
                && !copied.lost.contains(id)
            {
                found.push(Found { id: *id, at: *at });
            }
            if found.len() < COPIED_AT_ONCE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        found.sort_unstable_by_key(|found| (found.at.pack, found.at.frame, found.at.chunk_offset));
        Ok(found)
    }

    /// Copies what is needed out of condemned packs, and out of those that `leave`.
    pub(crate) fn copy(
        &self,
        registration: &Arc<Registration>,
        leave: impl IntoIterator<Item = PackId>,
        copied: &mut Copied,
    ) -> Result<()> {
        self.catalog.condemn(leave);
        loop {
            let found = self.to_copy(copied)?;
            if found.is_empty() {
                return Ok(());
            }
            let options = IngestOptions {
                compression: Compression::DEFAULT,
                frames: FrameSize::default(),
                progress: self.progress.clone(),
                cancel: self.cancel.clone(),
            };
            let ingest = self.vault.ingest_as(registration.clone(), 0, options)?;
            let tally = Mutex::new(std::mem::take(copied));
            let outcome = self.copy_all(&found, &ingest, &tally);
            *copied = tally.into_inner();
            outcome?;
            copied.packs += ingest.finish()?.packs;
        }
    }

    /// The kind of pack that a copy goes to, of a chunk in a pack of kind `pack`; a mixed one does not say which its chunks
    /// are, but the mark has found out.
    fn kind_of(&self, id: &ChunkId, pack: Option<PackKind>) -> PackKind {
        match pack {
            Some(PackKind::Meta) => PackKind::Meta,
            Some(PackKind::Mixed) if self.meta.contains_chunk(id) => PackKind::Meta,
            Some(PackKind::Data | PackKind::Mixed) | None => PackKind::Data,
        }
    }

    fn copy_all(&self, found: &[Found], ingest: &Ingest, tally: &Mutex<Copied>) -> Result<()> {
        let runs: Vec<&[Found]> = found.chunk_by(|one, two| one.at.pack == two.at.pack).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let reader = self.vault.reader()?;
            let mut lanes = [FrameSize::STREAM, FrameSize::RANDOM].map(|size| (size, ingest.lane_of(size)));
            while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                for Found { id, at } in *run {
                    self.cancel.check()?;
                    let pack = self.catalog.index.pack(&at.pack)?;
                    let kind = self.kind_of(id, pack.as_ref().and_then(pack_kind));
                    match reader.chunk(id) {
                        Ok(bytes) => {
                            let size = FrameSize::of_copy(bytes.frame_bytes());
                            if let Some((_, lane)) = lanes.iter_mut().find(|(of, _)| *of == size) {
                                lane.put(kind, &bytes)?;
                            }
                            let mut tally = tally.lock();
                            tally.chunks += 1;
                            tally.bytes += bytes.len() as u64;
                        }
                        Err(error) if error.is_damage() => tally.lock().lose(id, &at.pack, &error),
                        Err(error) => return Err(error),
                    }
                }
            }
            lanes.into_iter().try_for_each(|(_, lane)| lane.finish())
        };
        let done = parallel::workers(ingest.lanes().min(runs.len()), work);
        done.into_iter().collect()
    }
}

impl Copied {
    fn lose(&mut self, id: &ChunkId, pack: &PackId, error: &Error) {
        self.lost.insert(*id);
        if self.kept.insert(*pack) {
            let what = format!("{error}; the pack is kept, run `drystone check` to see which files miss it");
            self.problems.push(Name::pack(pack).as_str(), what);
        }
    }
}
