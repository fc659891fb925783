//! Chunks that lie elsewhere: at peers, or wherever a door knows of them. Asked where the places of the vault have nothing to give.
//!
//! - What a source gives is held against the id of the chunk (I6). A source that gives something else is told, and the next one is asked.
//! - A source that does not answer is no proof of anything: the chunk may be there. Such a miss is an absence, never a loss.
//! - Nothing here makes a chunk count as stored: new roots rely on the places of the vault alone.

use std::io;
use std::sync::Arc;

use drystone_format::ChunkId;
use drystone_format::id::ChunkHasher;
use parking_lot::RwLock;

use crate::problem::Problems;

/// Where chunks may lie beside the places of the vault.
pub trait ChunkSource: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// Returns which of these chunks it says that it holds, in their order. An error if it does not answer now.
    fn holds(&self, ids: &[ChunkId]) -> io::Result<Vec<bool>>;

    /// Returns the plaintext of these chunks, in their order; `None` for one that it does not hold. An error if it does not answer now.
    fn chunks(&self, ids: &[ChunkId]) -> io::Result<Vec<Option<Vec<u8>>>>;
}

/// The sources of a vault, which come and go.
#[derive(Default)]
pub(crate) struct Sources {
    all: RwLock<Vec<Arc<dyn ChunkSource>>>,
    /// Sources that gave wrong bytes.
    liars: RwLock<Problems>,
}

/// What the sources have of a chunk.
pub(crate) enum Sought {
    /// Its bytes, verified.
    Here(Vec<u8>),
    /// Nobody who answered has it, and these did not answer.
    Perhaps(Vec<String>),
    /// Nobody has it, and all have answered.
    Nowhere,
}

impl Sources {
    /// Adds a source, in the stead of one of the same name.
    pub(crate) fn add(&self, source: Arc<dyn ChunkSource>) {
        let mut all = self.all.write();
        all.retain(|known| known.name() != source.name());
        all.push(source);
    }

    /// Removes the source of this name.
    pub(crate) fn remove(&self, name: &str) {
        self.all.write().retain(|known| known.name() != name);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    /// Sources that gave wrong bytes since this was asked last.
    pub(crate) fn take_liars(&self) -> Problems {
        std::mem::take(&mut *self.liars.write())
    }

    /// Asks every source which of these chunks it holds. For each chunk: whether anybody says so, and whether all have answered.
    pub(crate) fn holders(&self, ids: &[ChunkId]) -> Vec<(bool, bool)> {
        let mut found = vec![(false, true); ids.len()];
        for source in self.all.read().clone() {
            match source.holds(ids) {
                Ok(held) if held.len() == ids.len() => {
                    for (found, held) in found.iter_mut().zip(held) {
                        found.0 |= held;
                    }
                }
                _ => found.iter_mut().for_each(|found| found.1 = false),
            }
        }
        found
    }

    /// Looks for many chunks: each source is asked once for all that are still missing.
    pub(crate) fn seek(&self, ids: &[ChunkId], hasher: &ChunkHasher) -> Vec<Sought> {
        let mut sought: Vec<Sought> = ids.iter().map(|_| Sought::Nowhere).collect();
        for source in self.all.read().clone() {
            let missing = sought.iter().enumerate();
            let missing: Vec<usize> = missing
                .filter(|(_, sought)| !matches!(sought, Sought::Here(_)))
                .map(|(at, _)| at)
                .collect();
            if missing.is_empty() {
                break;
            }
            let wanted: Vec<ChunkId> = missing.iter().filter_map(|at| ids.get(*at)).copied().collect();
            let given = match source.chunks(&wanted) {
                Ok(given) if given.len() == wanted.len() => given,
                Ok(_) => {
                    self.note(&*source, "answered for another number of chunks than it was asked for");
                    Self::add_silent(&mut sought, &missing, source.name().to_owned());
                    continue;
                }
                Err(error) => {
                    Self::add_silent(&mut sought, &missing, format!("{} ({error})", source.name()));
                    continue;
                }
            };
            for ((at, id), bytes) in missing.iter().zip(&wanted).zip(given) {
                let (Some(sought), Some(bytes)) = (sought.get_mut(*at), bytes) else {
                    continue;
                };
                if hasher.id(&bytes) == *id {
                    *sought = Sought::Here(bytes);
                } else {
                    self.note(&*source, &format!("gave other bytes for chunk {id}"));
                }
            }
        }
        sought
    }

    fn note(&self, source: &dyn ChunkSource, what: &str) {
        self.liars.write().push(source.name(), what);
    }

    fn add_silent(sought: &mut [Sought], missing: &[usize], name: String) {
        for at in missing {
            match sought.get_mut(*at) {
                Some(Sought::Perhaps(names)) => names.push(name.clone()),
                Some(nowhere @ Sought::Nowhere) => *nowhere = Sought::Perhaps(vec![name.clone()]),
                _ => {}
            }
        }
    }
}
