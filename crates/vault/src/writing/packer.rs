//! From frames to packs: which kind of pack a frame goes into, how large packs become, and what they are numbered.
//!
//! - What a small commit stores, file data and metadata together, is one mixed pack: its frames wait until it is known
//!   whether more comes.
//! - Otherwise file data and metadata go to packs of their own.
//! - Packs of one registration are numbered without gaps in the order in which they are begun.
//! - Open packs are closed before they are full where somebody waits for what is in them, or once they are old enough. What comes after that begins
//!   anew, as a small commit.

use std::collections::BTreeSet;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use drystone_format::limits::{
    FRAME_MAX_BYTES, PACK_BYTES, PACK_LARGE_BYTES, PACK_MIXED_BYTES, PACK_STEP_BYTES, PACK_STEPS_FROM_BYTES,
};
use drystone_format::pack::{PackBuilder, PackOptions, SealedPack};
use drystone_format::seal::{PackKind, Suite};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::writing::budget::{Held, PACKS_BYTES};
use crate::writing::flights::{Arrived, FrameId};
use crate::writing::shared::{ReadyFrame, Shared, ToPack};

/// Chunks after which a pack is closed, however few bytes they have: a pack of tiny files would take several times its size
/// while it is made.
const PACK_CHUNKS: usize = 1 << 16;
/// Chunks that may wait for the decision whether all of a run is one mixed pack.
const WAITING_CHUNKS: usize = 1 << 14;
/// Memory that a chunk takes beside its bytes until its pack is stored: in the frame, in the set of those in flight, in the
/// trailer, and in the index.
const CHUNK_BYTES: u64 = 160;
/// Packs are doubled in size so that there are not many more than this.
const PACKS_WANTED: u64 = 4096;

/// How large a pack of file data becomes in a vault whose packs have `vault_bytes`; one that takes `held` bytes of memory
/// a byte while it is put stays within the memory.
pub(crate) fn data_pack_bytes(vault_bytes: u64, held: f64) -> usize {
    let wanted = vault_bytes.div_ceil(PACKS_WANTED).next_power_of_two();
    let fits = (PACKS_BYTES - PACK_BYTES as u64) as f64 / held.max(1.0);
    let mut bytes = PACK_BYTES;
    while bytes < PACK_LARGE_BYTES && (bytes as u64) < wanted && (2 * bytes) as f64 <= fits {
        bytes *= 2;
    }
    bytes
}

/// A pack on its way to the place, the frames in it, and the memory that it holds.
pub(crate) struct ReadyPack {
    pub(crate) pack: SealedPack,
    pub(crate) frames: Vec<FrameId>,
    pub(crate) held: Held,
}

/// Puts frames into packs until there are no more.
pub(crate) fn pack(shared: &Shared, told: &Receiver<ToPack>, packs: &Sender<ReadyPack>) -> Result<()> {
    let mut packer = Packer {
        shared,
        packs,
        waiting: Some(Vec::new()),
        waiting_bytes: 0,
        waiting_chunks: 0,
        data: None,
        meta: None,
        oldest: None,
        arrived: Arrived::default(),
        wanted: Vec::new(),
    };
    loop {
        match packer.receive(told) {
            Ok(ToPack::Frame(frame)) => packer.take(frame)?,
            Ok(ToPack::Close(frames)) => packer.want(frames)?,
            Err(RecvTimeoutError::Timeout) => packer.close_all()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // The lanes are done, or the run has failed: then a last pack would only delay the news.
    if shared.is_over() { Ok(()) } else { packer.close_all() }
}

/// A pack that is being filled.
struct Building {
    pack: PackBuilder,
    frames: Vec<FrameId>,
    chunks: usize,
    held: Held,
}

struct Packer<'a> {
    shared: &'a Shared,
    packs: &'a Sender<ReadyPack>,
    /// All frames so far, while they are few enough for one mixed pack.
    waiting: Option<Vec<ReadyFrame>>,
    waiting_bytes: usize,
    waiting_chunks: usize,
    data: Option<Building>,
    meta: Option<Building>,
    /// When the first of the frames came that no closed pack holds.
    oldest: Option<Instant>,
    arrived: Arrived,
    /// For each who waits, the frames that have not come yet.
    wanted: Vec<BTreeSet<FrameId>>,
}

impl Packer<'_> {
    /// The next frame or wish; a timeout once the open packs are old enough.
    fn receive(&self, told: &Receiver<ToPack>) -> Result<ToPack, RecvTimeoutError> {
        let closes_at = self.shared.pack_age.and_then(|age| self.oldest?.checked_add(age));
        match closes_at {
            Some(at) => told.recv_deadline(at),
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Takes in a frame. Closes the open packs if it is the last that somebody waits for.
    fn take(&mut self, frame: ReadyFrame) -> Result<()> {
        let id = frame.id;
        self.oldest.get_or_insert_with(Instant::now);
        self.arrived.insert(id);
        self.push(frame)?;
        let mut is_last = false;
        self.wanted.retain_mut(|frames| {
            let is_complete = frames.remove(&id) && frames.is_empty();
            is_last |= is_complete;
            !is_complete
        });
        if is_last { self.close_all() } else { Ok(()) }
    }

    /// Closes the open packs once these frames have come.
    fn want(&mut self, mut frames: BTreeSet<FrameId>) -> Result<()> {
        frames.retain(|id| !self.arrived.has(*id));
        if frames.is_empty() {
            return self.close_all();
        }
        self.wanted.push(frames);
        Ok(())
    }

    fn push(&mut self, frame: ReadyFrame) -> Result<()> {
        let Some(waiting) = &mut self.waiting else {
            return self.place(frame);
        };
        self.waiting_bytes += frame.frame.bytes().len();
        self.waiting_chunks += frame.chunks.len();
        waiting.push(frame);
        if self.waiting_bytes <= PACK_MIXED_BYTES && self.waiting_chunks <= WAITING_CHUNKS {
            return Ok(());
        }
        let waiting = self.waiting.take().unwrap_or_default();
        waiting.into_iter().try_for_each(|frame| self.place(frame))
    }

    /// Puts a frame into the pack of its kind.
    fn place(&mut self, ready: ReadyFrame) -> Result<()> {
        let (kind, frame, chunks) = (ready.kind, &ready.frame, &ready.chunks);
        let full_bytes = match kind {
            PackKind::Data => self.shared.data_pack_bytes,
            PackKind::Meta | PackKind::Mixed => PACK_BYTES,
        };
        let mut building = self.open(kind).take();
        if let Some(full) = building.take_if(|open| !open.pack.has_room(frame.bytes().len(), chunks.len())) {
            self.close(full)?;
        }
        if self.shared.budget.is_stuck(frame.bytes().len() as u64) {
            let open = [building.take(), self.data.take(), self.meta.take()];
            open.into_iter().flatten().try_for_each(|open| self.close(open))?;
        }
        let mut building = match building {
            Some(building) => building,
            None => self.begin(kind, full_bytes)?,
        };
        self.append(&mut building, ready)?;
        if building.pack.len_bytes() >= full_bytes || building.chunks >= PACK_CHUNKS {
            return self.close(building);
        }
        *self.open(kind) = Some(building);
        Ok(())
    }

    /// Where the pack of this kind is that is being filled.
    fn open(&mut self, kind: PackKind) -> &mut Option<Building> {
        match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta | PackKind::Mixed => &mut self.meta,
        }
    }

    fn begin(&self, kind: PackKind, full_bytes: usize) -> Result<Building> {
        let shared = self.shared;
        let suite = if has_aes() {
            Suite::Aes256Gcm
        } else {
            Suite::ChaCha20Poly1305
        };
        // Data packs get full as a rule; the rest grows with what it holds.
        let capacity_bytes = match kind {
            PackKind::Data => full_bytes + FRAME_MAX_BYTES / 2 + PACK_STEPS_FROM_BYTES,
            PackKind::Meta | PackKind::Mixed => 0,
        };
        let series = shared.series();
        let options = PackOptions {
            kind,
            suite,
            registration: series.nonce,
            number: series.take(),
            capacity_bytes,
        };
        let pack = PackBuilder::new(&shared.secrets, &options, &mut Source(&*shared.context.entropy))?;
        let held = shared.budget.hold();
        Ok(Building {
            pack,
            frames: Vec::new(),
            chunks: 0,
            held,
        })
    }

    fn append(&self, building: &mut Building, ready: ReadyFrame) -> Result<()> {
        let ReadyFrame { id, frame, chunks, .. } = ready;
        let bytes = frame.bytes().len() as u64 + chunks.len() as u64 * CHUNK_BYTES;
        building.held.grow(bytes, &|| self.shared.is_over())?;
        building.chunks += chunks.len();
        building.frames.push(id);
        Ok(building.pack.push(&frame, chunks)?)
    }

    fn close(&self, building: Building) -> Result<()> {
        let Building {
            pack,
            frames,
            chunks,
            mut held,
        } = building;
        let pack = pack.finish(&self.shared.secrets)?;
        held.seal(pack.bytes.len() as u64 + chunks as u64 * CHUNK_BYTES);
        self.packs
            .send(ReadyPack { pack, frames, held })
            .map_err(|_| Error::Stopped)
    }

    /// Closes all open packs; what waits becomes one mixed pack.
    fn close_all(&mut self) -> Result<()> {
        self.oldest = None;
        (self.waiting_bytes, self.waiting_chunks) = (0, 0);
        if let Some(frames) = self.waiting.replace(Vec::new()) {
            return self.close_mixed(frames);
        }
        let left = [self.data.take(), self.meta.take()];
        left.into_iter().flatten().try_for_each(|building| self.close(building))
    }

    fn close_mixed(&self, mut frames: Vec<ReadyFrame>) -> Result<()> {
        frames.sort_by_key(|frame| frame.kind);
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(());
        };
        let kind = if first.kind == last.kind {
            first.kind
        } else {
            PackKind::Mixed
        };
        let mut building = self.begin(kind, PACK_STEP_BYTES)?;
        for frame in frames {
            if !building.pack.has_room(frame.frame.bytes().len(), frame.chunks.len()) {
                let full = std::mem::replace(&mut building, self.begin(kind, PACK_STEP_BYTES)?);
                self.close(full)?;
            }
            self.append(&mut building, frame)?;
        }
        self.close(building)
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_grow_with_the_vault_and_stay_within_the_memory() {
        let mib = |vault_gib: u64, held| data_pack_bytes(vault_gib << 30, held) >> 20;
        for (vault_gib, expected) in [
            (0, 16),
            (1, 16),
            (64, 16),
            (65, 32),
            (128, 32),
            (129, 64),
            (1 << 20, 64),
        ] {
            assert_eq!(mib(vault_gib, 1.0), expected, "{vault_gib} GiB");
        }
        assert_eq!(data_pack_bytes(u64::MAX / 2, 1.0), PACK_LARGE_BYTES);
        // Two of three places: the pack, half of it as parity, and three shards.
        assert_eq!([mib(1 << 20, 3.0), mib(1 << 20, 4.0), mib(1 << 20, 50.0)], [32, 16, 16]);
        for held in [1.0, 2.0, 3.0, 4.0, 6.0] {
            let largest = data_pack_bytes(u64::MAX / 2, held) as f64;
            assert!(
                largest * held + PACK_BYTES as f64 <= PACKS_BYTES as f64 + f64::EPSILON,
                "{held}"
            );
        }
    }

    #[test]
    fn a_pack_of_tiny_files_is_closed_by_their_number() {
        // One of each kind is filled, one waits, one is stored.
        let most = PACK_CHUNKS + drystone_format::limits::FRAME_CHUNKS_MAX;
        assert!(4 * most as u64 * CHUNK_BYTES <= PACKS_BYTES);
    }

    #[test]
    fn packs_of_a_series_are_numbered_without_gaps() {
        let series = crate::writing::series::PackSeries::new([1; 16]);
        assert_eq!([series.take(), series.take(), series.take()], [0, 1, 2]);
    }
}
