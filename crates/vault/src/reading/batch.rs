//! Many chunks in few requests: groups their frames by pack and fetches neighbours together.
//!
//! - A request reads over small gaps between wanted frames.
//! - A request has at most [`REQUEST_BYTES`], unless a single frame has more.
//! - Each chunk goes through [`Reader::chunk`], which handles damage and moved chunks. Fetching only saves it requests.

use std::collections::BTreeMap;

use drystone_format::limits::{DATA_FRAME_BYTES, PACK_BYTES};
use drystone_format::{ChunkId, PackId};

use super::ahead::{Fetched, Keep};
use crate::error::Result;
use crate::parallel;
use crate::reading::frames::{ChunkBytes, PREAMBLE_GUESS_BYTES};
use crate::reading::range::{FrameAt, FrameRange};
use crate::reading::reader::Reader;
use crate::reading::sources::Sought;

/// Largest request, bytes: a pack of usual size with its tail comes in one.
pub(crate) const REQUEST_BYTES: u64 = (PACK_BYTES + 2 * DATA_FRAME_BYTES) as u64;
/// Largest request of a batch, of which each thread has one under way, bytes.
const BATCH_REQUEST_BYTES: u64 = 4 << 20;
/// Chunks that a source is asked for at once: 1 MiB of usual ones, 16 MiB of the largest.
const ELSEWHERE_CHUNKS: usize = 32;
/// Gap that is read over rather than asked around, bytes: at 20 ms a request and 100 MB/s, a request costs as much as 2 MB, but
/// several are under way at once.
const GAP_BYTES: u64 = 64 << 10;
/// The same for what lies between the last frame and the end of a pack, which opens it: a trailer and the padding.
const TAIL_GAP_BYTES: u64 = 256 << 10;

/// Merges frames, which must be sorted, into requests of at most `limit_bytes`; a larger frame has a request of its own.
fn merged(frames: Vec<FrameAt>, limit_bytes: u64) -> Vec<FrameRange> {
    let mut ranges: Vec<FrameRange> = Vec::new();
    for frame in frames {
        let start = u64::from(frame.offset);
        if let Some(last) = ranges.last_mut().filter(|last| last.pack == frame.pack) {
            let end = last.offset + last.bytes;
            let bytes = frame.end().max(end) - last.offset;
            if start <= end + GAP_BYTES && bytes <= limit_bytes.max(last.bytes) {
                last.bytes = bytes;
                continue;
            }
        }
        ranges.push(FrameRange {
            pack: frame.pack,
            offset: start,
            bytes: frame.bytes.into(),
            ends_pack: false,
        });
    }
    ranges
}

/// A request and the positions of the chunks that it brings. Without a request: chunks that are cached, or in no pack.
type Group = (Option<FrameRange>, Vec<usize>);

impl Reader {
    /// Returns the frame that a chunk is read from; `None` if no pack holds it.
    pub fn frame_of(&self, id: &ChunkId) -> Result<Option<FrameAt>> {
        let located = self.catalog().locate(id)?;
        Ok(located.map(|location| FrameAt {
            pack: location.pack,
            offset: location.frame_offset,
            bytes: location.frame_bytes,
            number: location.frame,
        }))
    }

    /// Returns true if requests to the place cost so much that it pays to fetch ahead.
    pub fn is_far(&self) -> bool {
        self.frames().place().is_slow()
    }

    /// Returns the memory that caches, and what was fetched ahead, take at this moment, bytes: of all readers of the vault.
    pub fn held_bytes(&self) -> u64 {
        self.frames().caches().held_bytes() + self.frames().ahead().used_bytes()
    }

    /// Returns true if the frame is here, or on its way.
    pub fn has_frame(&self, frame: &FrameAt) -> bool {
        self.frames().has(frame)
    }

    /// Returns the requests that bring these frames, as far as they are neither here nor on their way.
    pub fn requests(&self, frames: Vec<FrameAt>) -> Vec<FrameRange> {
        self.requests_of(frames, REQUEST_BYTES)
    }

    fn requests_of(&self, mut frames: Vec<FrameAt>, limit_bytes: u64) -> Vec<FrameRange> {
        frames.sort_unstable();
        frames.dedup();
        frames.retain(|frame| !self.has_frame(frame));
        let mut ranges = merged(frames, limit_bytes.min(self.frames().ahead().request_bytes()));
        if self.is_far() {
            ranges.iter_mut().for_each(|range| self.extend(range));
        }
        ranges
    }

    /// Extends a request to the end of its pack if that is near: the end has the key that opens the frames.
    fn extend(&self, range: &mut FrameRange) {
        let Some(pack_bytes) = self.pack_bytes(&range.pack) else {
            return;
        };
        let gap_bytes = pack_bytes.checked_sub(range.offset + range.bytes);
        if gap_bytes.is_some_and(|bytes| bytes <= TAIL_GAP_BYTES) && !self.frames().is_open(&range.pack) {
            range.bytes = pack_bytes - range.offset;
            range.ends_pack = true;
        }
    }

    /// Returns the length of a pack, bytes, if the index knows it.
    pub(crate) fn pack_bytes(&self, pack: &PackId) -> Option<u64> {
        let known = self.catalog().index.pack(pack).ok().flatten();
        known.map(|pack| pack.pack_bytes)
    }

    /// Begins to fetch a range and returns at once. While the caller keeps what is returned, readers find the frames of the range, or
    /// wait for them.
    ///
    /// Returns `None` if too much is held already. Readers then ask for each frame when they want it.
    pub fn fetch_held(&self, range: &FrameRange) -> Option<Fetched> {
        self.fetch(range, Keep::WhileHeld)
    }

    pub(crate) fn fetch(&self, range: &FrameRange, keep: Keep) -> Option<Fetched> {
        let mut ranges = vec![*range];
        let (pack, ahead) = (&range.pack, self.frames().ahead());
        // The end of the pack has its key. Asking for it now saves a round trip later.
        if self.is_far() && !range.ends_pack && !self.frames().is_open(pack) && !ahead.has_end(pack) {
            let end = self.pack_bytes(pack).map(|pack_bytes| FrameRange {
                pack: *pack,
                offset: pack_bytes.saturating_sub(PREAMBLE_GUESS_BYTES),
                bytes: pack_bytes.min(PREAMBLE_GUESS_BYTES),
                ends_pack: true,
            });
            ranges.extend(end);
        }
        ahead.fetch(&ranges, keep)
    }

    /// Reads many chunks. Calls `each` with the position of an id, and its chunk or the error: in no order, from several threads.
    ///
    /// Neighbouring frames of a pack come in one request, and several packs at once. The memory is bounded however many ids there are, if
    /// `each` keeps none of the chunks. Returns an error only if the index fails.
    pub fn chunks(&self, ids: &[ChunkId], each: &(dyn Fn(usize, Result<ChunkBytes>) + Sync)) -> Result<()> {
        let groups = self.groups(ids)?;
        let threads = self.frames().parallel();
        parallel::each(threads, &groups, &|(range, positions): &Group| {
            let _fetched = range.as_ref().map(|range| self.fetch_held(range));
            let mut left = positions.clone();
            if range.is_none() {
                left = self.chunks_elsewhere(ids, left, each);
            }
            for position in left {
                if let Some(id) = ids.get(position) {
                    each(position, self.chunk(id));
                }
            }
            Ok(())
        })
    }

    /// Asks other sources for chunks that no known pack holds, many at once. Returns the positions of those that they do not have.
    fn chunks_elsewhere(
        &self,
        ids: &[ChunkId],
        positions: Vec<usize>,
        each: &(dyn Fn(usize, Result<ChunkBytes>) + Sync),
    ) -> Vec<usize> {
        let Some(sources) = self.sources() else {
            return positions;
        };
        let mut left = Vec::new();
        for some in positions.chunks(ELSEWHERE_CHUNKS) {
            let wanted: Vec<ChunkId> = some.iter().filter_map(|at| ids.get(*at)).copied().collect();
            for (at, sought) in some.iter().zip(sources.seek(&wanted, self.hasher())) {
                match sought {
                    Sought::Here(bytes) => each(*at, Ok(ChunkBytes::whole(bytes))),
                    Sought::Perhaps(_) | Sought::Nowhere => left.push(*at),
                }
            }
        }
        left
    }

    /// Groups chunks by the requests that bring them.
    fn groups(&self, ids: &[ChunkId]) -> Result<Vec<Group>> {
        let mut by_frame: BTreeMap<Option<FrameAt>, Vec<usize>> = BTreeMap::new();
        for (position, id) in ids.iter().enumerate() {
            by_frame.entry(self.frame_of(id)?).or_default().push(position);
        }
        let frames: Vec<FrameAt> = by_frame.keys().flatten().copied().collect();
        let fits_bytes = self.frames().ahead().held_max_bytes() / self.frames().parallel().max(1) as u64;
        let ranges = self.requests_of(frames, BATCH_REQUEST_BYTES.min(fits_bytes));
        let mut groups: Vec<Group> = ranges.into_iter().map(|range| (Some(range), Vec::new())).collect();
        let (mut alone, mut at) = (Vec::new(), 0);
        for (frame, positions) in by_frame {
            // Both are in order of packs and offsets.
            let is_behind = |range: &FrameRange| frame.is_some_and(|frame| range.ends_before(&frame));
            while groups
                .get(at)
                .is_some_and(|(range, _)| range.as_ref().is_some_and(is_behind))
            {
                at += 1;
            }
            let covers = |range: &FrameRange| frame.is_some_and(|frame| range.covers(&frame));
            match groups.get_mut(at) {
                Some((Some(range), all)) if covers(range) => all.extend(positions),
                _ => alone.extend(positions),
            }
        }
        groups.push((None, alone));
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pack: u8, offset: u32, bytes: u32) -> FrameAt {
        FrameAt {
            pack: PackId([pack; 32]),
            offset,
            bytes,
            number: 0,
        }
    }

    fn shown(frames: &[FrameAt], limit_bytes: u64) -> Vec<(u8, u64, u64)> {
        let mut frames = frames.to_vec();
        frames.sort_unstable();
        let ranges = merged(frames, limit_bytes).into_iter();
        ranges
            .map(|range| (range.pack.0[0], range.offset, range.bytes))
            .collect()
    }

    #[test]
    fn neighbours_come_together_and_others_apart() {
        let gap = GAP_BYTES as u32;
        let frames = [
            frame(1, 0, 100),
            frame(1, 100, 50),
            frame(2, 150, 10),
            frame(1, 150 + gap, 5),
        ];
        assert_eq!(shown(&frames, 1 << 20), [(1, 0, 155 + GAP_BYTES), (2, 150, 10)]);
        let apart = [frame(1, 0, 100), frame(1, 101 + gap, 5)];
        assert_eq!(shown(&apart, 1 << 20).len(), 2);
        assert_eq!(shown(&[], 1), []);
    }

    #[test]
    fn no_request_is_larger_than_allowed_unless_a_frame_is() {
        let frames: Vec<FrameAt> = (0..100).map(|at| frame(1, at * 1000, 1000)).collect();
        let ranges = shown(&frames, 10_000);
        assert_eq!(ranges.len(), 10);
        assert!(ranges.iter().all(|(_, _, bytes)| *bytes == 10_000));
        assert_eq!(shown(&[frame(1, 0, 20_000), frame(1, 20_000, 1)], 10_000).len(), 2);
    }

    #[test]
    fn frames_that_claim_the_same_bytes_are_no_matter() {
        let hostile = [
            frame(1, 10, 100),
            frame(1, 20, 10),
            frame(1, 10, 100),
            frame(1, u32::MAX, u32::MAX),
        ];
        let ranges = shown(&hostile, 1 << 20);
        assert_eq!(ranges[0], (1, 10, 100));
        assert_eq!(ranges.len(), 2);
    }
}
