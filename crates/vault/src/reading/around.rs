//! Metadata from a place far away: a walk that reads small frames one after the other gets the following ones in the same request.
//!
//! - A walk over trees moves through a metadata pack in small steps. Then requests grow. A single path through a tree jumps, and costs one
//!   frame at each step.
//! - A request ends where the next fetched range begins, so that nothing is read twice.

use std::collections::HashMap;

use drystone_format::PackId;
use drystone_index::Location;
use parking_lot::Mutex;

use super::ahead::Ahead;
use super::batch::FrameRange;

/// Requests for frames up to this are widened, bytes: larger frames are file data, for which callers plan.
const SMALL_FRAME_BYTES: u32 = 256 << 10;
/// How near to the last request of its pack the next one must be, bytes; and the first width.
const NEAR_BYTES: u64 = 256 << 10;
/// Widest request, bytes.
const WIDEST_BYTES: u64 = 4 << 20;
/// Requests near to each other before they get wider.
const STEPS: u32 = 2;
/// Packs that are followed at once; one more clears the table.
const PACKS: usize = 64;

/// The requests to one pack.
#[derive(Debug, Default, Clone, Copy)]
struct Trail {
    /// Where the last one ended, bytes.
    end: u64,
    /// How many were near to the one before.
    steps: u32,
    width_bytes: u64,
}

/// Follows the requests for small frames.
#[derive(Default)]
pub(crate) struct Around(Mutex<HashMap<PackId, Trail>>);

impl Around {
    /// Returns the range to read instead of this frame alone, in a pack of this length; `None` for the frame alone.
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
        *trail = match is_near {
            true if trail.steps + 1 >= STEPS => Trail {
                end,
                steps: STEPS,
                width_bytes: (2 * trail.width_bytes).clamp(NEAR_BYTES, WIDEST_BYTES),
            },
            true => Trail {
                steps: trail.steps + 1,
                end,
                width_bytes: 0,
            },
            false => Trail {
                end,
                ..Trail::default()
            },
        };
        if trail.width_bytes == 0 {
            return None;
        }
        let stop = ahead.next_start(&at.pack, end).unwrap_or(pack_bytes);
        let wide_end = (start + trail.width_bytes).min(stop).min(pack_bytes).max(end);
        trail.end = wide_end;
        (wide_end > end).then_some(FrameRange {
            pack: at.pack,
            offset: start,
            bytes: wide_end - start,
            ends_pack: wide_end == pack_bytes,
        })
    }
}
