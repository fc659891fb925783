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

/// How often a chunk is looked for anew because gc may have moved it.
const MOVES_MAX: u32 = 8;

/// Reads one vault; clones share their cache.
#[derive(Clone)]
pub struct Reader {
    catalog: Arc<Catalog>,
    frames: Arc<Frames>,
    hasher: ChunkHasher,
    misses: Misses,
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

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
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
    pub fn chunk(&self, id: &ChunkId) -> Result<ChunkBytes> {
        let asked = Instant::now();
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
