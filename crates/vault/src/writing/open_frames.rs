//! The frames that a lane is filling, one of file data and one of trees and recipes. Another thread may hand them over before they are full.

use drystone_format::ChunkId;
use drystone_format::limits::FRAME_CHUNKS_MAX;
use drystone_format::pack::PackedChunk;
use drystone_format::seal::PackKind;

use crate::error::Result;
use crate::writing::flights::{Flights, FrameId};

/// A frame on its way to a compressor.
pub(crate) struct FullFrame {
    pub(crate) id: FrameId,
    pub(crate) kind: PackKind,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) chunks: Vec<PackedChunk>,
}

/// Where full frames go.
pub(crate) trait Compressors {
    /// Hands a frame over; waits if the compressors are behind.
    fn submit(&self, frame: FullFrame) -> Result<()>;

    /// An empty buffer, used before if there is one: fresh pages cost more than the copy into them.
    fn buffer(&self, capacity: usize) -> Vec<u8>;
}

/// The frame that a lane is filling with chunks of one kind.
pub(crate) struct OpenFrame {
    kind: PackKind,
    limit_bytes: usize,
    /// Its name, once a chunk goes into it.
    id: Option<FrameId>,
    /// The frame after it, once a chunk goes into that since this one has no room for it.
    next: Option<FrameId>,
    plaintext: Vec<u8>,
    chunks: Vec<PackedChunk>,
}

impl OpenFrame {
    pub(crate) fn new(kind: PackKind, limit_bytes: usize) -> Self {
        Self {
            kind,
            limit_bytes,
            id: None,
            next: None,
            plaintext: Vec::new(),
            chunks: Vec::new(),
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.chunks.is_empty()
            || self.plaintext.len() + bytes <= self.limit_bytes && self.chunks.len() < FRAME_CHUNKS_MAX
    }

    /// The frame that a chunk of so many bytes goes into. It must be pushed then.
    pub(crate) fn frame_for(&mut self, bytes: usize, flights: &Flights) -> FrameId {
        let has_room = self.has_room(bytes);
        let frame = if has_room { &mut self.id } else { &mut self.next };
        *frame.get_or_insert_with(|| flights.begin())
    }

    /// Appends the chunk for which [`frame_for`](Self::frame_for) was asked last. Hands the frame over first if it has no room.
    pub(crate) fn push(&mut self, to: &dyn Compressors, id: ChunkId, chunk: &[u8]) -> Result<()> {
        if !self.has_room(chunk.len()) {
            self.submit(to)?;
        }
        if self.plaintext.capacity() == 0 {
            self.plaintext = match self.kind {
                PackKind::Data => to.buffer(self.limit_bytes),
                PackKind::Meta | PackKind::Mixed => Vec::with_capacity(self.limit_bytes),
            };
        }
        self.plaintext.extend_from_slice(chunk);
        self.chunks.push(PackedChunk {
            id,
            bytes: chunk.len() as u32,
        });
        Ok(())
    }

    /// Hands the frame to the compressors, if anything is in it.
    pub(crate) fn submit(&mut self, to: &dyn Compressors) -> Result<()> {
        let Some(id) = self.id.take() else { return Ok(()) };
        self.id = self.next.take();
        let (plaintext, chunks) = (std::mem::take(&mut self.plaintext), std::mem::take(&mut self.chunks));
        to.submit(FullFrame {
            id,
            kind: self.kind,
            plaintext,
            chunks,
        })
    }
}

/// The frames of one lane.
pub(crate) struct OpenFrames {
    data: OpenFrame,
    meta: OpenFrame,
}

impl OpenFrames {
    pub(crate) fn new(data_bytes: usize, meta_bytes: usize) -> Self {
        Self {
            data: OpenFrame::new(PackKind::Data, data_bytes),
            meta: OpenFrame::new(PackKind::Meta, meta_bytes),
        }
    }

    /// The frame of this kind.
    pub(crate) fn of(&mut self, kind: PackKind) -> &mut OpenFrame {
        match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta | PackKind::Mixed => &mut self.meta,
        }
    }

    /// Returns true if no chunk waits in them.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.id.is_none() && self.meta.id.is_none()
    }

    /// Hands over the frames that are `wanted`.
    pub(crate) fn submit(&mut self, to: &dyn Compressors, wanted: impl Fn(FrameId) -> bool) -> Result<()> {
        for frame in [&mut self.data, &mut self.meta] {
            if frame.id.is_some_and(&wanted) {
                frame.submit(to)?;
            }
        }
        Ok(())
    }
}
