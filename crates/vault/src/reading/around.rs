//! Metadata from a place far away: a walk that reads small frames one after the other gets the following ones in the same request.
//!
//! - A walk over trees moves through a metadata pack in small steps. Then requests grow. A single path through a tree jumps, and costs one
//!   frame at each step.
//! - A request ends where the next fetched range begins. What was fetched is kept sealed for as long as there is room, since a walk comes back
//!   to a directory after each of those in it.

use std::collections::HashMap;

use drystone_format::PackId;
use drystone_index::Location;
use parking_lot::Mutex;

use super::ahead::Ahead;
use super::range::FrameRange;

/// Requests for frames up to this are widened, bytes: larger frames are file data, for which callers plan.
const SMALL_FRAME_BYTES: u32 = 256 << 10;
/// How near to the last request of its pack the next one must be, bytes: a few frames of 256 KiB of plaintext.
const NEAR_BYTES: u64 = 1 << 20;
/// First width of a request, bytes.
const WIDTH_BYTES: u64 = 512 << 10;
/// Widest request, bytes.
const WIDEST_BYTES: u64 = 4 << 20;
/// Requests near to each other before they get wider.
const STEPS: u32 = 2;
/// Requests to one pack before they get wider, wherever they are: a path through a tree takes fewer.
const REQUESTS: u32 = 8;
/// Packs that are followed at once; one more clears the table.
const PACKS: usize = 64;

/// The requests to one pack.
#[derive(Debug, Default, Clone, Copy)]
struct Trail {
    /// Where the last one ended, bytes.
    end: u64,
    /// How many there were, and how many of the last ones were near to the one before.
    requests: u32,
    steps: u32,
    width_bytes: u64,
}

/// Follows the requests for small frames.
#[derive(Default)]
pub(crate) struct Around(Mutex<HashMap<PackId, Trail>>);

impl Around {
    /// Returns the range to fetch for this frame, in a pack of this length; `None` if the frame is none of metadata.
    pub(crate) fn widen(&self, at: &Location, pack_bytes: u64, ahead: &Ahead) -> Option<FrameRange> {
        if at.frame_bytes > SMALL_FRAME_BYTES {
            return None;
        }
        let (start, end) = (
            u64::from(at.frame_offset),
            u64::from(at.frame_offset) + u64::from(at.frame_bytes),
        );
        let mut trails = self.0.lock();
        if trails.len() >= PACKS && !trails.contains_key(&at.pack) {
            trails.clear();
        }
        let trail = trails.entry(at.pack).or_default();
        let is_near = start.abs_diff(trail.end) <= NEAR_BYTES.max(trail.width_bytes);
        trail.requests += 1;
        trail.steps = if is_near { trail.steps + 1 } else { 0 };
        trail.width_bytes = match trail.steps >= STEPS || trail.requests > REQUESTS {
            true => (2 * trail.width_bytes).clamp(WIDTH_BYTES, WIDEST_BYTES),
            false => 0,
        };
        let stop = ahead.next_start(&at.pack, end).unwrap_or(pack_bytes);
        let wide_end = (start + trail.width_bytes).min(stop).min(pack_bytes).max(end);
        trail.end = wide_end;
        Some(FrameRange {
            pack: at.pack,
            offset: start,
            bytes: wide_end - start,
            ends_pack: wide_end == pack_bytes,
        })
    }
}
