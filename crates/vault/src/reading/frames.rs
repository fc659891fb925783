//! Frames read from packs: fetched, authenticated, decompressed, and kept in a bounded cache.
//!
//! - A frame is loaded once however many threads want it.
//! - The caches hold plaintext up to their share of the memory budget, and the ciphers of recent packs.
//! - What was fetched ahead is used first; where it is missing or wrong, the frame is asked for by itself.

use std::ops::{Deref, Range as Span};
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::keys::Secrets;
use drystone_format::pack::Preamble;
use drystone_format::seal::Sealer;
use drystone_index::Location;
use drystone_store::{Name, Range};
use quick_cache::sync::Cache;

use crate::context::Context;
use crate::error::Result;
use crate::places::place::Place;
use crate::reading::ahead::{Ahead, Keep};
use crate::reading::around::Around;
use crate::reading::caches::{Caches, Frame};
use crate::reading::range::FrameAt;

/// Packs whose ciphers are kept: opening one costs a request and an X25519 operation.
const SEALERS: usize = 4096;
/// Bytes read from the end of a pack to find its preamble, which has about 330.
pub(crate) const PREAMBLE_GUESS_BYTES: u64 = 1024;

/// A chunk's plaintext, inside the frame that it came in.
#[derive(Debug, Clone)]
pub struct ChunkBytes {
    frame: Frame,
    span: Span<usize>,
}

impl Deref for ChunkBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.frame.get(self.span.clone()).unwrap_or_default()
    }
}

impl ChunkBytes {
    /// A chunk that came by itself.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        let span = 0..bytes.len();
        let frame = Arc::new(bytes);
        Self { frame, span }
    }

    /// Plaintext of the frame that it came in, bytes.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// The part of it from `start` on.
    pub fn skip(mut self, start: usize) -> Self {
        self.span.start = (self.span.start + start).min(self.span.end);
        self
    }
}

pub(crate) struct Frames {
    place: Place,
    secrets: Arc<Secrets>,
    caches: Caches,
    sealers: Cache<PackId, Arc<Sealer>>,
    ahead: Ahead,
    around: Around,
    parallel: usize,
}

impl Frames {
    /// Half of the memory of `context` is for caches. What is fetched ahead may take seven eighths of it, on top.
    pub(crate) fn new(place: Place, secrets: Arc<Secrets>, context: &Context) -> Result<Self> {
        Ok(Self {
            caches: Caches::new(context.memory_bytes / 2)?,
            sealers: Cache::new(SEALERS),
            ahead: Ahead::new(place.clone(), context.memory_bytes as u64 / 8 * 7),
            around: Around::default(),
            parallel: place.parallel(context.threads),
            place,
            secrets,
        })
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Requests that may usefully wait at once.
    pub(crate) fn parallel(&self) -> usize {
        self.parallel
    }

    /// Returns true if a frame is here, or on its way.
    pub(crate) fn has(&self, frame: &FrameAt) -> bool {
        let FrameAt {
            pack,
            offset,
            bytes,
            number,
        } = frame;
        self.caches.frames.contains_key(&(*pack, *number)) || self.ahead.has(pack, (*offset).into(), (*bytes).into())
    }

    /// Returns true if the key of a pack is here.
    pub(crate) fn is_open(&self, pack: &PackId) -> bool {
        self.sealers.contains_key(pack)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Takes the key of a pack from who has it, unless it is known.
    pub(crate) fn know(&self, pack: &PackId, sealer: impl FnOnce() -> Option<Sealer>) {
        if !self.sealers.contains_key(pack)
            && let Some(sealer) = sealer()
        {
            self.sealers.insert(*pack, Arc::new(sealer));
        }
    }

    /// The chunk at `location`, authenticated with its frame, if `check` accepts it; else read again from other shards.
    ///
    /// `pack_bytes` returns the length of the pack. It is called only if the request may be widened.
    pub(crate) fn chunk(
        &self,
        location: &Location,
        pack_bytes: &dyn Fn() -> Option<u64>,
        check: impl Fn(ChunkBytes) -> Result<ChunkBytes>,
    ) -> Result<ChunkBytes> {
        let read = || {
            let chunk = self.any_chunk(location, pack_bytes).and_then(&check);
            if chunk.is_err() {
                // Preamble and frame may be forged; neither must be taken for the one that is read next.
                self.caches.frames.remove(&(location.pack, location.frame));
                self.sealers.remove(&location.pack);
            }
            chunk
        };
        self.place.reading(&location.pack, |_| match read() {
            Err(error) if error.is_damage() && self.ahead.forget(&location.pack) => read(),
            chunk => chunk,
        })
    }

    fn any_chunk(&self, location: &Location, pack_bytes: &dyn Fn() -> Option<u64>) -> Result<ChunkBytes> {
        let key = (location.pack, location.frame);
        let load = || self.load(location, pack_bytes);
        let frame = self.caches.frames.get_or_insert_with(&key, load)?;
        let start = location.chunk_offset as usize;
        Ok(ChunkBytes {
            frame,
            span: start..start + location.chunk_bytes as usize,
        })
    }

    fn load(&self, location: &Location, pack_bytes: &dyn Fn() -> Option<u64>) -> Result<Frame> {
        let name = Name::pack(&location.pack);
        let sealed = self.sealed(&name, location, pack_bytes)?;
        let sealer = self
            .sealers
            .get_or_insert_with(&location.pack, || self.sealer(&location.pack, &name))?;
        let frame = sealer
            .open_frame(location.frame, &sealed)
            .map_err(self.place.damaged(&name))?;
        Ok(Arc::new(frame))
    }

    /// Returns a frame as it lies in its pack.
    fn sealed(&self, name: &Name, location: &Location, pack_bytes: &dyn Fn() -> Option<u64>) -> Result<Bytes> {
        let (offset, len) = (location.frame_offset.into(), location.frame_bytes.into());
        let take = || self.ahead.take(&location.pack, offset, len);
        if let Some(sealed) = take() {
            return Ok(sealed);
        }
        if self.place.is_slow()
            && let Some(wide) = pack_bytes().and_then(|all| self.around.widen(location, all, &self.ahead))
            && self.ahead.fetch(&[wide], Keep::WhileThereIsRoom).is_some()
            && let Some(sealed) = take()
        {
            return Ok(sealed);
        }
        self.place.get(name, Range::From { offset, len })
    }

    fn sealer(&self, pack: &PackId, name: &Name) -> Result<Arc<Sealer>> {
        let end = match self.ahead.take_end(pack, PREAMBLE_GUESS_BYTES) {
            Some(end) => end,
            None => self.place.get(name, Range::Last(PREAMBLE_GUESS_BYTES))?,
        };
        let preamble = Preamble::from_end(&end).map_err(self.place.damaged(name))?;
        Ok(Arc::new(
            preamble.frame_sealer(&self.secrets).map_err(self.place.damaged(name))?,
        ))
    }
}
