//! What all threads of a run share: counters, queues, what is under way, and the first error.

use crate::catalog::Catalog;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::places::place::Place;
use crate::progress::Cancel;
use crate::progress::Progress;
use crate::writing::admit::Admit;
use crate::writing::budget::Budget;
use crate::writing::flights::Flights;
use crate::writing::flights::FrameId;
use crate::writing::flow::Flow;
use crate::writing::frame_size::FrameSize;
use crate::writing::open_frames::Compressors;
use crate::writing::open_frames::FullFrame;
use crate::writing::open_frames::OpenFrames;
use crate::writing::series::PackSeries;
use crossbeam_channel::Sender;
use drystone_format::chunker::Chunker;
use drystone_format::codec::Compression;
use drystone_format::id::ChunkHasher;
use drystone_format::index_part::IndexPart;
use drystone_format::index_part::PackTail;
use drystone_format::keys::Secrets;
use drystone_format::limits::INDEX_PART_INLINE_BYTES;
use drystone_format::pack::PackedChunk;
use drystone_format::seal::Compressed;
use drystone_format::seal::PackKind;
use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A frame on its way into a pack.
pub(crate) struct ReadyFrame {
    pub(crate) id: FrameId,
    pub(crate) kind: PackKind,
    pub(crate) frame: Compressed,
    pub(crate) chunks: Vec<PackedChunk>,
}

/// What the packer is told.
pub(crate) enum ToPack {
    Frame(ReadyFrame),
    /// Somebody waits for these frames: the packs that hold them are closed as soon as all of them have come.
    Close(BTreeSet<FrameId>),
}

/// What a run keeps for its index part.
#[derive(Debug)]
pub(crate) enum PartOfRun {
    /// The tails of all packs so far.
    Inline(IndexPart),
    /// There were more than a root carries; nothing is kept.
    TooLarge,
}

impl PartOfRun {
    pub(crate) fn add(&mut self, pack: PackTail) {
        if let Self::Inline(part) = self {
            part.insert(pack);
            if part.size_bytes() > INDEX_PART_INLINE_BYTES {
                *self = Self::TooLarge;
            }
        }
    }
}

/// What all threads of a run share.
pub(crate) struct Shared {
    pub(crate) admit: Admit,
    pub(crate) hasher: ChunkHasher,
    pub(crate) data_chunker: Chunker,
    pub(crate) meta_chunker: Chunker,
    pub(crate) cancel: Cancel,
    pub(crate) new_chunks: AtomicU64,
    pub(crate) new_bytes: AtomicU64,
    pub(crate) budget: Arc<Budget>,
    pub(crate) flights: Flights,
    /// After what time a pack is closed that is not full.
    pub(crate) pack_age: Option<Duration>,
    /// The packs of the registration under which is stored.
    pub(crate) series: RwLock<Arc<PackSeries>>,
    pub(crate) data_pack_bytes: usize,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) context: Context,
    pub(crate) flow: Flow,
    pub(crate) part: Mutex<PartOfRun>,
    pub(crate) frames: Mutex<Option<Sender<FullFrame>>>,
    /// Where the packer is told who waits for what.
    pub(crate) closings: Mutex<Option<Sender<ToPack>>>,
    /// The open frames of all lanes, also of those that are gone with something in them.
    pub(crate) lanes: Mutex<Vec<Arc<Mutex<OpenFrames>>>>,
    pub(crate) spare: Mutex<Vec<Vec<u8>>>,
    pub(crate) failed: AtomicBool,
    pub(crate) failure: Mutex<Option<Error>>,
    pub(crate) packs: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) progress: Arc<Progress>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) place: Place,
    pub(crate) compression: Compression,
    pub(crate) frame_size: FrameSize,
}

impl Shared {
    /// Remembers the first error; later ones are consequences.
    pub(crate) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock();
        if !self.failed.swap(true, Ordering::AcqRel) {
            *failure = Some(error);
        }
        drop(failure);
        self.budget.wake();
    }

    /// Whether the run is cancelled or failed; unlike [`Shared::check`] it leaves the error for who reports it.
    pub(crate) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.failed.load(Ordering::Acquire)
    }

    /// The run's first error, the first time; then that it was stopped.
    pub(crate) fn failure(&self) -> Error {
        self.failure.lock().take().unwrap_or(Error::Stopped)
    }

    /// `Ok` while the run is neither cancelled nor failed.
    pub(crate) fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.failed.load(Ordering::Acquire) {
            Err(self.failure())
        } else {
            Ok(())
        }
    }

    /// Grows whenever packs turn out lost or damaged, or are condemned.
    pub(crate) fn loss_epoch(&self) -> u64 {
        self.catalog.losses.epoch()
    }

    /// The packs of the registration under which is stored now.
    pub(crate) fn series(&self) -> Arc<PackSeries> {
        self.series.read().clone()
    }

    /// From now on packs are begun under another registration.
    pub(crate) fn set_series(&self, series: Arc<PackSeries>) {
        *self.series.write() = series;
    }

    /// Makes the open frames of a lane known to those who wait for chunks in them.
    pub(crate) fn add_lane(&self, lane: &Arc<Mutex<OpenFrames>>) {
        let mut lanes = self.lanes.lock();
        lanes.retain(|lane| Arc::strong_count(lane) > 1 || !lane.lock().is_empty());
        lanes.push(lane.clone());
    }

    /// Waits until these frames are durable and in the index; has them handed over and their packs closed, whoever fills them.
    pub(crate) fn flush(&self, mut frames: BTreeSet<FrameId>) -> Result<()> {
        self.flights.retain(&mut frames);
        if frames.is_empty() {
            return self.check();
        }
        let lanes = self.lanes.lock().clone();
        for lane in lanes {
            lane.lock().submit(self, |id| frames.contains(&id))?;
        }
        let closings = self.closings.lock().clone().ok_or(Error::Stopped)?;
        closings
            .send(ToPack::Close(frames.clone()))
            .map_err(|_| self.failure())?;
        self.flights.wait(&frames, &|| self.check())
    }

    /// The tails of the packs that were stored since this was asked last, for a root to carry; none if they are too many for that.
    pub(crate) fn take_part(&self) -> Option<IndexPart> {
        let part = std::mem::replace(&mut *self.part.lock(), PartOfRun::Inline(IndexPart::default()));
        match part {
            PartOfRun::Inline(part) => Some(part),
            PartOfRun::TooLarge => None,
        }
    }

    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.spare.lock();
        if spare.len() < self.flow.spare && buffer.capacity() >= self.frame_size.data_bytes() {
            spare.push(buffer);
        }
    }
}

impl Compressors for Shared {
    fn submit(&self, frame: FullFrame) -> Result<()> {
        self.check()?;
        let sender = self.frames.lock().clone().ok_or(Error::Stopped)?;
        sender.send(frame).map_err(|_| self.failure())
    }

    /// An empty buffer, used before if there is one: fresh pages cost more than the copy into them.
    fn buffer(&self, capacity: usize) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_else(|| Vec::with_capacity(capacity))
    }
}
