//! How much of a run is under way at once: lanes, compressors, and the frames between them.
//!
//! - Bounded by bytes and not by threads: a machine with many processors takes no more memory than one with a few (I7). Some
//!   compressors are enough for most places: one takes in several hundred MB/s. Who allows more memory for caches gets more.

use drystone_format::codec::Compression;
use drystone_format::limits::{DATA_FRAME_BYTES, META_FRAME_BYTES};

/// Bytes offered to one read.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// Bytes that all lanes may take.
const LANES_BYTES: usize = 24 << 20;
/// Bytes of a lane: what it has read, and its open frames of both kinds.
const LANE_BYTES: usize = READ_BYTES + DATA_FRAME_BYTES + META_FRAME_BYTES;
/// Bytes that all compressors may take.
const COMPRESSORS_BYTES: usize = 48 << 20;
/// Compressors that there are whatever they take: the highest levels of zstd take 40 MiB each.
const COMPRESSORS_MIN: usize = 2;
/// Memory for caches for which these bounds are made, bytes; they grow with it.
const MEMORY_BYTES: usize = 64 << 20;
/// Frames that wait for a compressor, and as many for the packer: enough that neither waits while the other is woken.
const WAITING_MAX: usize = 2;

/// How many of each a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Lanes of its threads; the one that puts trees together comes on top.
    pub(crate) lanes: usize,
    /// Threads that compress.
    pub(crate) compressors: usize,
    /// Frames in front of them, and behind them.
    pub(crate) waiting: usize,
    /// Buffers kept to be used again.
    pub(crate) spare: usize,
}

impl Flow {
    /// For so many threads, and so many bytes of caches.
    pub(crate) fn new(threads: usize, memory_bytes: usize, compression: Compression) -> Self {
        let threads = threads.max(1);
        let share = (memory_bytes / MEMORY_BYTES).max(1);
        let compressor_bytes = 2 * DATA_FRAME_BYTES + compression.memory_bytes();
        let waiting = threads.min(WAITING_MAX);
        Self {
            lanes: threads.min(share * LANES_BYTES / LANE_BYTES),
            compressors: threads.min((share * COMPRESSORS_BYTES / compressor_bytes).max(COMPRESSORS_MIN)),
            waiting,
            spare: 2 * waiting,
        }
    }

    /// Bytes that all of it takes at most.
    #[cfg(test)]
    fn bytes(&self, compression: Compression) -> usize {
        (self.lanes + 1) * LANE_BYTES
            + self.compressors * (2 * DATA_FRAME_BYTES + compression.memory_bytes())
            + (2 * self.waiting + self.spare) * DATA_FRAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use drystone_format::codec::CODECS;

    use super::*;

    #[test]
    fn many_threads_take_no_more_memory_than_some() {
        for codec in CODECS {
            for level in [None, Some(1), Some(9), Some(22)] {
                let Ok(compression) = Compression::new(codec, level) else {
                    continue;
                };
                for threads in [1, 2, 16, 64, 256] {
                    let flow = Flow::new(threads, MEMORY_BYTES, compression);
                    let bytes = flow.bytes(compression);
                    assert!(bytes <= 132 << 20, "{compression} with {threads} threads: {bytes}");
                    assert!(flow.lanes >= threads.min(4) && flow.compressors >= 1, "{flow:?}");
                }
            }
        }
        let flow = Flow::new(64, MEMORY_BYTES, Compression::DEFAULT);
        assert!(flow.bytes(Compression::DEFAULT) <= 92 << 20, "{flow:?}");
        assert!(flow.compressors >= 6 && flow.lanes >= 6, "{flow:?}");
        let more = Flow::new(64, 4 * MEMORY_BYTES, Compression::DEFAULT);
        assert!(
            more.compressors >= 4 * flow.compressors && more.lanes >= 4 * flow.lanes,
            "{more:?}"
        );
        assert_eq!(Flow::new(2, 0, Compression::DEFAULT).compressors, 2);
    }
}
