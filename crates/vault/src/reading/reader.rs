//! Reading chunks back: located, opened, verified.
//!
//! - Every chunk is hashed before it is given out (I6): a pack that lies about its chunks is noticed and read around.
//! - Where a chunk lies in several packs, damage of one costs nothing.

use std::sync::Arc;
use std::time::Instant;

use drystone_format::ChunkId;
use drystone_format::id::ChunkHasher;
use drystone_format::recipe::{Part, Recipe, decode_node};
use drystone_index::Location;
use drystone_store::Name;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::reading::caches::Random;
use crate::reading::frames::{ChunkBytes, Frames};
use crate::reading::pace::Pattern;
use crate::reading::sources::{Sought, Sources};

/// How often a chunk is looked for anew because gc may have moved it.
const MOVES_MAX: u32 = 8;

/// Reads one vault; clones share their cache.
#[derive(Clone)]
pub struct Reader {
    catalog: Arc<Catalog>,
    frames: Arc<Frames>,
    hasher: ChunkHasher,
    misses: Misses,
    /// Where else chunks may lie.
    sources: Option<Arc<Sources>>,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a pack at the places of the vault.
    Here,
    /// Not here; somebody else says that he holds it.
    Elsewhere,
    /// Nowhere, and a ledger has forgotten the root that named it: nobody has to have it.
    Gone,
    /// Nobody who answered has it, and no ledger says that it may be gone: lost, hidden, or at somebody who is away.
    Unknown,
}

/// What a chunk is worth that no pack of the list holds: another list?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misses {
    /// No: gc must not learn of packs later than of the roots that it judges them by.
    Taken,
    /// Yes, unless the last one was of no use a moment ago: what misses one chunk may miss thousands.
    Doubted,
    /// Yes, one that was begun after the chunk was asked for.
    LookedFor,
}

impl Reader {
    pub(crate) fn new(catalog: Arc<Catalog>, frames: Arc<Frames>, hasher: ChunkHasher) -> Self {
        Self {
            catalog,
            frames,
            hasher,
            misses: Misses::Doubted,
            sources: None,
        }
    }

    /// The same, for gc: it takes what it misses for missing.
    pub(crate) fn steady(mut self) -> Self {
        self.misses = Misses::Taken;
        self
    }

    /// The same, for what other processes store at this moment: a chunk that is missed is looked for in a list of packs that was begun after
    /// the chunk was asked for. So a chunk is found that anybody kept before, except where lists lag. Threads that miss something share lists.
    pub fn following(mut self) -> Self {
        self.misses = Misses::LookedFor;
        self
    }

    /// The same, which asks these where the places of the vault have nothing to give.
    pub(crate) fn with_sources(mut self, sources: Arc<Sources>) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Where else chunks may lie, if there is anything.
    pub(crate) fn sources(&self) -> Option<&Sources> {
        self.sources.as_deref().filter(|sources| !sources.is_empty())
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn hasher(&self) -> &ChunkHasher {
        &self.hasher
    }

    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Where it reads, for messages.
    pub(crate) fn place(&self) -> &str {
        self.frames.place().name()
    }

    /// What is kept for files that are read at random.
    pub(crate) fn random(&self) -> Result<&Random> {
        self.frames.caches().random()
    }

    /// Calls `read` with a chunk of a file that is being read like this.
    pub(crate) fn with_chunk(
        &self,
        id: &ChunkId,
        pattern: Pattern,
        read: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let chunks = &self.random()?.chunks;
        match pattern {
            Pattern::Random => {
                let load = || self.chunk(id).map(|chunk| Arc::from(&*chunk));
                read(&chunks.get_or_insert_with(id, load)?)
            }
            Pattern::InOrder => match chunks.get(id) {
                Some(chunk) => read(&chunk),
                None => read(&self.chunk(id)?),
            },
        }
    }

    /// The plaintext of a chunk.
    ///
    /// [`Error::MissingChunk`] if nobody has it, [`Error::Elsewhere`] if somebody may have it who does not answer now.
    pub fn chunk(&self, id: &ChunkId) -> Result<ChunkBytes> {
        let asked = Instant::now();
        let Some(sources) = self.sources() else {
            return self.stored_chunk(id, asked);
        };
        // Before packs are listed for it: where most chunks lie elsewhere, each would cost a list.
        let error = match self.known_chunk(id) {
            Ok(chunk) => return Ok(chunk),
            Err(error @ (Error::Interrupted | Error::Stopped)) => return Err(error),
            Err(error) => error,
        };
        match sources.seek(std::slice::from_ref(id), &self.hasher).pop() {
            Some(Sought::Here(bytes)) => Ok(ChunkBytes::whole(bytes)),
            Some(Sought::Perhaps(sources)) => match self.stored_chunk(id, asked) {
                Err(Error::MissingChunk { .. }) => Err(Error::Elsewhere {
                    id: *id,
                    place: self.place().to_owned(),
                    sources,
                }),
                found => found,
            },
            _ if matches!(error, Error::MissingChunk { .. }) => self.stored_chunk(id, asked),
            _ => Err(error),
        }
    }

    /// Returns whether a chunk can be read, for each of these: from the places, or from somebody else who says that he holds it. What has
    /// happened to one that cannot depends on the root `of` that names it: [`Whereabouts::Gone`] only if a ledger has forgotten that root.
    pub(crate) fn whereabouts(&self, ids: &[ChunkId], is_forgotten: bool) -> Result<Vec<Whereabouts>> {
        let held = match self.sources() {
            Some(sources) => sources.holders(ids),
            None => vec![(false, true); ids.len()],
        };
        let whereabouts = |(id, (is_held, _)): (&ChunkId, &(bool, bool))| {
            Ok(match self.catalog.locate(id)? {
                Some(_) => Whereabouts::Here,
                None if *is_held => Whereabouts::Elsewhere,
                None if is_forgotten => Whereabouts::Gone,
                None => Whereabouts::Unknown,
            })
        };
        ids.iter().zip(&held).map(whereabouts).collect()
    }

    /// The plaintext of a chunk, from the places of the vault.
    fn stored_chunk(&self, id: &ChunkId, asked: Instant) -> Result<ChunkBytes> {
        let mut known = self.catalog.synced_with();
        let mut found = self.known_chunk(id);
        // What is not where it was may have been moved by gc, and again while this thread was stopped.
        for _ in 0..MOVES_MAX {
            let is_gone = found.as_ref().is_err_and(Error::is_damage);
            if !is_gone || !matches!(self.catalog.follow(&known), Ok(true)) {
                break;
            }
            known = self.catalog.synced_with();
            found = self.known_chunk(id);
        }
        match found {
            // A snapshot may be newer than the list of packs: of a backup that ended in between.
            Err(Error::MissingChunk { .. }) if self.is_looked_for(asked)? => self.known_chunk(id),
            found => found,
        }
    }

    /// Lists the packs again for a chunk that was asked for then and missed; says whether there may be more of them now.
    fn is_looked_for(&self, asked: Instant) -> Result<bool> {
        match self.misses {
            Misses::Taken => Ok(false),
            Misses::Doubted => self.catalog.look_again(),
            Misses::LookedFor => self.catalog.look_since(asked).map(|()| true),
        }
    }

    fn known_chunk(&self, id: &ChunkId) -> Result<ChunkBytes> {
        let missing = || Error::MissingChunk {
            id: *id,
            place: self.place().to_owned(),
            advice: if self.frames.place().lacks_places() {
                "it may be at the places that are away: see `drystone doctor`"
            } else {
                "run `drystone check` to see which files miss it"
            },
        };
        let mut location = self.catalog.locate(id)?.ok_or_else(missing)?;
        let mut tried = Vec::new();
        loop {
            let error = match self.verified(id, &location) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.is_damage() => error,
                Err(error) => return Err(error),
            };
            if !error.is_absence() {
                self.catalog.mark_damaged(&location.pack);
            }
            tried.push(location.pack);
            location = match self.catalog.locate_beside(id, &tried)? {
                Some(other) => other,
                None => {
                    tried.iter().for_each(|pack| self.catalog.miss(pack));
                    return Err(error);
                }
            };
        }
    }

    fn verified(&self, id: &ChunkId, location: &Location) -> Result<ChunkBytes> {
        self.frames
            .chunk(location, &|| self.pack_bytes(&location.pack), |bytes| {
                if bytes.len() == location.chunk_bytes as usize && self.hasher.id(&bytes) == *id {
                    return Ok(bytes);
                }
                let place = self.place().to_owned();
                Err(Error::WrongChunk {
                    id: *id,
                    pack: Name::pack(&location.pack).to_string(),
                    place,
                })
            })
    }

    /// Whether a new snapshot may rely on every chunk of this recipe, and on what leads to them, being there; of the data
    /// nothing is read. Damage of what leads to them is an error.
    pub fn contains_all(&self, recipe: &Recipe) -> Result<bool> {
        let mut stack = vec![(recipe.depth, recipe.parts.clone())];
        while let Some((depth, parts)) = stack.pop() {
            for part in parts {
                let Part::Chunk { id, bytes } = part else { continue };
                if !self.catalog.contains(&id)? {
                    return Ok(false);
                }
                if depth > 0 {
                    stack.push((depth - 1, decode_node(&self.chunk(&id)?, depth, bytes)?));
                }
            }
        }
        Ok(true)
    }
}
