//! Frames read from packs: fetched, authenticated, decompressed, and kept in a bounded cache.
//!
//! - A frame is loaded once however many threads want it.
//! - The cache holds plaintext up to its share of the memory budget, and the ciphers of recent packs.

use std::ops::{Deref, Range as Span};
use std::sync::Arc;

use drystone_format::PackId;
use drystone_format::keys::Secrets;
use drystone_format::limits::DATA_FRAME_BYTES;
use drystone_format::pack::Preamble;
use drystone_format::seal::Sealer;
use drystone_index::Location;
use drystone_store::{Name, Range};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::error::{Error, Result};
use crate::place::Place;

/// Packs whose ciphers are kept: opening one costs a request and an X25519 operation.
const SEALERS: usize = 4096;
/// Bytes read from the end of a pack to find its preamble, which has about 330.
const PREAMBLE_GUESS_BYTES: u64 = 1024;

type FrameKey = (PackId, u16);
type Frame = Arc<Vec<u8>>;

#[derive(Clone)]
struct ByBytes;

impl Weighter<FrameKey, Frame> for ByBytes {
    fn weight(&self, _: &FrameKey, frame: &Frame) -> u64 {
        frame.len() as u64 + 100
    }
}

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
    /// The part of it from `start` on.
    pub fn skip(mut self, start: usize) -> Self {
        self.span.start = (self.span.start + start).min(self.span.end);
        self
    }
}

pub(crate) struct Frames {
    place: Place,
    secrets: Arc<Secrets>,
    frames: Cache<FrameKey, Frame, ByBytes>,
    sealers: Cache<PackId, Arc<Sealer>>,
}

impl Frames {
    pub(crate) fn new(place: Place, secrets: Arc<Secrets>, memory_bytes: usize) -> Result<Self> {
        // A few dozen large frames in one shard: spread over many, each would hold one or two and evict its neighbours.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(memory_bytes / DATA_FRAME_BYTES * 2)
            .weight_capacity(memory_bytes as u64)
            .hot_allocation(0.5)
            .build()
            .map_err(|_| Error::Stopped)?;
        let frames = Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Ok(Self {
            place,
            secrets,
            frames,
            sealers: Cache::new(SEALERS),
        })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The chunk at `location`, authenticated with its frame, if `check` accepts it; else read again from other shards.
    pub(crate) fn chunk(
        &self,
        location: &Location,
        check: impl Fn(ChunkBytes) -> Result<ChunkBytes>,
    ) -> Result<ChunkBytes> {
        self.place.reading(&location.pack, |_| {
            let chunk = self.any_chunk(location).and_then(&check);
            if chunk.is_err() {
                // Preamble and frame may be forged; neither must be taken for the one that is read next.
                self.frames.remove(&(location.pack, location.frame));
                self.sealers.remove(&location.pack);
            }
            chunk
        })
    }

    fn any_chunk(&self, location: &Location) -> Result<ChunkBytes> {
        let key = (location.pack, location.frame);
        let frame = self.frames.get_or_insert_with(&key, || self.load(location))?;
        let start = location.chunk_offset as usize;
        Ok(ChunkBytes {
            frame,
            span: start..start + location.chunk_bytes as usize,
        })
    }

    fn load(&self, location: &Location) -> Result<Frame> {
        let name = Name::pack(&location.pack);
        let sealer = self.sealers.get_or_insert_with(&location.pack, || self.sealer(&name))?;
        let range = Range::From {
            offset: location.frame_offset.into(),
            len: location.frame_bytes.into(),
        };
        let sealed = self.place.get(&name, range)?;
        let frame = sealer
            .open_frame(location.frame, &sealed)
            .map_err(self.place.damaged(&name))?;
        Ok(Arc::new(frame))
    }

    fn sealer(&self, name: &Name) -> Result<Arc<Sealer>> {
        let end = self.place.get(name, Range::Last(PREAMBLE_GUESS_BYTES))?;
        let preamble = Preamble::from_end(&end).map_err(self.place.damaged(name))?;
        Ok(Arc::new(
            preamble.frame_sealer(&self.secrets).map_err(self.place.damaged(name))?,
        ))
    }
}
