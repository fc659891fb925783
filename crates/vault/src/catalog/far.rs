//! Reading from afar: where chunks lie is asked of the index runs in force, by ranges, instead of listing all packs and learning each.
//!
//! - For a machine that has no index, at places that are slow, as long as little is read. Who writes, checks, collects or reads much has the
//!   index brought in step with the place first, and nothing is asked here any more.
//! - Everything here is a hint: a chunk is held against its id by who reads it, and what is not where it should be is looked for in the packs
//!   themselves. No snapshot relies on what was found here.
//! - Runs are owners' words. What is newer than they are stands in the parts that roots carry, whoever signed them.
//! - A pack that is hit again and again is learned from its own tail: what was stored together is read together.
//! - Bounded: pieces, blocks and chunks kept, and questions asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use drystone_format::index_run::{RunChunk, RunPack};
use drystone_format::keys::Secrets;
use drystone_format::limits::INDEX_BLOCK_PACKS;
use drystone_format::pack::{Preamble, Tail};
use drystone_format::root::RootName;
use drystone_format::{ChunkId, PackId};
use drystone_index::{Location, State};
use drystone_store::Prefix;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::base::Base;
use crate::catalog::index_runs::{Piece, listed};
use crate::catalog::tails::{read_tail, spans};
use crate::error::Result;
use crate::parallel::{each, map};
use crate::places::place::Place;
use crate::reading::frames::Frames;
use crate::roots::ledger::View;

/// Pieces that are opened, each with some 64 KiB of directory; of more the index is learned as a whole.
const PIECES_MAX: usize = 256;
/// Blocks of chunks kept, some 60 KiB each.
const BLOCKS_KEPT: usize = 256;
/// Blocks of packs kept, some 100 KiB each.
const PACK_BLOCKS_KEPT: usize = 64;
/// Chunks that are known one by one, some 100 bytes each.
const NEAR_MAX: usize = 1 << 18;
/// Blocks and tails are asked for, one round trip each, until that takes about as long as to learn the whole index: a request for each pack,
/// so many of them at once. Whoever reads on after that reads much.
const ASKED_EACH_PACKS: u64 = 32;
const ASKED_MIN: u64 = 32;
const ASKED_MAX: u64 = 512;
/// Roots whose parts are taken in, the newest ones.
const RECENT_ROOTS: usize = 64;
/// Packs that are hit so often are learned from their tails: 66 KB, which a few blocks of runs take too.
const HITS: u32 = 4;

/// Goes by index runs.
pub(crate) struct Far {
    place: Place,
    secrets: Arc<Secrets>,
    frames: Arc<Frames>,
    /// The newest run first.
    pieces: Vec<Piece>,
    blocks: Cache<(usize, usize), Arc<Vec<RunChunk>>>,
    packs: Cache<(usize, u32), Arc<Vec<RunPack>>>,
    near: Mutex<Near>,
    asked: AtomicU64,
    asked_max: u64,
}

/// What is needed until the index is in step.
pub(super) struct Opening {
    pub(super) is_done: AtomicBool,
    pub(super) far: OnceLock<Arc<Far>>,
    pub(super) state: Arc<State>,
    pub(super) noting: Arc<Mutex<()>>,
}

impl Opening {
    pub(super) fn new(vault: &Base) -> Self {
        Self {
            is_done: AtomicBool::new(false),
            far: OnceLock::new(),
            state: vault.state().clone(),
            noting: vault.noting.clone(),
        }
    }
}

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Of a root that no ledger states, so newer than the last gc, or of a pack itself.
    New,
    /// Of a root that gc may have seen: what it says of may have been moved since, as the runs know.
    Old,
}

/// What is known without asking.
#[derive(Default)]
struct Near {
    chunks: HashMap<ChunkId, (Location, Word)>,
    /// What opens the packs that these lie in, until one of them is looked for.
    keys: HashMap<PackId, Preamble>,
    hits: HashMap<PackId, u32>,
}

impl Near {
    fn add(&mut self, pack: PackId, tail: Tail, word: Word) {
        for (id, span) in spans(&tail.frames) {
            let is_wanted = match self.chunks.get(&id) {
                None => self.chunks.len() < NEAR_MAX,
                Some((_, known)) => *known == Word::Old && word == Word::New,
            };
            if is_wanted {
                self.chunks.insert(id, (span.at(pack), word));
            }
        }
        self.keys.insert(pack, tail.preamble);
    }

    /// Where a chunk lies by this word, and what opens its pack if nobody asked for that before.
    fn find(&mut self, id: &ChunkId, wanted: Word) -> Option<(Location, Option<Preamble>)> {
        let (location, word) = *self.chunks.get(id)?;
        (word == wanted).then(|| (location, self.keys.remove(&location.pack)))
    }
}

/// A chunk that a block has: the piece, and its place in that.
type Hit = (usize, RunChunk);

impl Far {
    /// Opens the runs in force; none if there are none, or if it is no better than learning all packs.
    pub(crate) fn new(vault: &Base, knows_nothing: bool, frames: &Arc<Frames>) -> Result<Option<Self>> {
        let is_cold = vault.place.is_slow() && vault.role().may_read() && knows_nothing;
        if !is_cold {
            return Ok(None);
        }
        let view = match vault.ledgers.view() {
            view if view.is_empty() => vault.ledgers.refresh()?,
            view => view,
        };
        let in_force = &view.stated.runs.heads;
        if in_force.is_empty() || in_force.len() > PIECES_MAX {
            return Ok(None);
        }
        let sizes = listed(&vault.place)?;
        let mut there: Vec<_> = in_force
            .iter()
            .filter_map(|piece| Some((*piece, *sizes.get(piece)?)))
            .collect();
        there.sort_unstable_by_key(|(piece, _)| std::cmp::Reverse(piece.number));
        let reads = vault.place.small_reads(vault.context.threads);
        let open = |(piece, bytes): &(_, u64)| match Piece::open(&vault.place, &vault.secrets, piece, *bytes) {
            Err(error) if error.is_damage() => Ok(None),
            opened => Ok(Some(opened?)),
        };
        let pieces: Vec<Piece> = map(reads, &there, &open)?.into_iter().flatten().collect();
        // All pieces of a run list most of its packs, and the largest run most of all.
        let Some(packs) = pieces.iter().map(|piece| piece.directory.pack_count).max() else {
            return Ok(None);
        };
        let far = Self {
            place: vault.place.clone(),
            secrets: vault.secrets.clone(),
            frames: frames.clone(),
            pieces,
            blocks: Cache::new(BLOCKS_KEPT),
            packs: Cache::new(PACK_BLOCKS_KEPT),
            near: Mutex::default(),
            asked: AtomicU64::new(0),
            asked_max: (packs / ASKED_EACH_PACKS).clamp(ASKED_MIN, ASKED_MAX),
        };
        far.take_parts(vault, &view)?;
        Ok(Some(far))
    }

    /// Takes in what the newest roots say of their packs, which runs may not have yet.
    fn take_parts(&self, vault: &Base, view: &View) -> Result<()> {
        let mut names = vault.root_names.all();
        if names.is_empty() {
            names = vault.root_names(&Prefix::AllRoots)?;
        }
        let first = |root: &RootName| {
            view.stated
                .live
                .get(&root.numbered())
                .map_or(u64::MAX, |live| live.first)
        };
        names.retain(|root| view.is_live(&root.numbered()));
        names.sort_unstable_by_key(|root| (std::cmp::Reverse(first(root)), *root));
        names.truncate(RECENT_ROOTS);
        let reads = vault.place.small_reads(vault.context.threads);
        each(reads, &names, &|root| {
            let word = match view.stated.live.contains_key(&root.numbered()) {
                true => Word::Old,
                false => Word::New,
            };
            let signed = match vault.listed_root(root) {
                Err(error) if error.is_damage() => return Ok(()),
                signed => signed?,
            };
            let part = signed.open_index_part(&self.secrets).ok().flatten();
            for pack in part.iter().flat_map(|part| part.packs()) {
                if let Ok(tail) = pack.open(&self.secrets, &signed.certificate.writer) {
                    self.near.lock().add(pack.id, tail, word);
                }
            }
            Ok(())
        })
    }

    /// Where a chunk may lie; `None` if nothing says so, something failed, or too much was asked.
    pub(crate) fn locate(&self, id: &ChunkId) -> Option<Location> {
        self.near(id, Word::New)
            .or_else(|| self.in_runs(id))
            .or_else(|| self.near(id, Word::Old))
    }

    fn near(&self, id: &ChunkId, word: Word) -> Option<Location> {
        let (location, key) = self.near.lock().find(id, word)?;
        if let Some(key) = key {
            let sealer = || key.frame_sealer(&self.secrets).ok();
            self.frames.know(&location.pack, sealer);
        }
        Some(location)
    }

    fn in_runs(&self, id: &ChunkId) -> Option<Location> {
        if self.asked.load(Ordering::Relaxed) >= self.asked_max {
            return None;
        }
        let (piece, chunk) = self.find(id)?;
        let pack = self.pack_of(piece, chunk.pack)?;
        // What opens the pack came with it: its frames need nothing else.
        self.frames.know(&pack.id, || pack.frame_sealer(&self.secrets).ok());
        self.note_hit(&pack);
        Some(Location {
            pack: pack.id,
            frame: chunk.frame,
            frame_offset: chunk.frame_offset,
            frame_bytes: chunk.frame_bytes,
            chunk_offset: chunk.chunk_offset,
            chunk_bytes: chunk.chunk_bytes,
        })
    }

    /// The chunk in the newest run that has it.
    fn find(&self, id: &ChunkId) -> Option<Hit> {
        let pieces = (0..).zip(&self.pieces);
        let wanted = pieces.flat_map(|(at, piece)| piece.directory.blocks_of(id).map(move |block| (at, block)));
        let wanted: Vec<(usize, usize)> = wanted.collect();
        let unknown: Vec<(usize, usize)> = wanted
            .iter()
            .filter(|key| !self.blocks.contains_key(*key))
            .copied()
            .collect();
        // One after the other where there is one: threads cost more than they spare.
        match unknown.as_slice() {
            [] => {}
            [one] => drop(self.block(one)),
            several => drop(map(several.len(), several, &|key| {
                self.block(key);
                Ok(())
            })),
        }
        wanted.iter().find_map(|key| {
            let block = self.blocks.get(key)?;
            let at = block.partition_point(|chunk| chunk.id < *id);
            let found = block.get(at).filter(|chunk| chunk.id == *id)?;
            Some((key.0, *found))
        })
    }

    fn block(&self, (piece, block): &(usize, usize)) -> Option<Arc<Vec<RunChunk>>> {
        let load = || {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let chunks = self.pieces.get(*piece).and_then(|piece| piece.chunks(*block).ok());
            chunks.map(Arc::new).ok_or(())
        };
        self.blocks.get_or_insert_with(&(*piece, *block), load).ok()
    }

    fn pack_of(&self, piece: usize, pack: u32) -> Option<RunPack> {
        let block = pack / INDEX_BLOCK_PACKS as u32;
        let load = || {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let packs = self.pieces.get(piece).and_then(|piece| piece.packs(pack).ok());
            packs.map(Arc::new).ok_or(())
        };
        let packs = self.packs.get_or_insert_with(&(piece, block), load).ok()?;
        packs.get(pack as usize % INDEX_BLOCK_PACKS).cloned()
    }

    /// Learns a pack that is hit once more than a few times; one thread does.
    fn note_hit(&self, pack: &RunPack) {
        let is_due = {
            let mut near = self.near.lock();
            let hits = near.hits.entry(pack.id).or_insert(0);
            *hits += 1;
            *hits == HITS && near.chunks.len() < NEAR_MAX
        };
        if is_due {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Ok((tail, _)) = read_tail(&self.place, &self.secrets, &pack.id, pack.bytes) {
                self.near.lock().add(pack.id, tail, Word::New);
            }
        }
    }
}
