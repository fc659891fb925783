//! How large frames become: the writer's choice, by what its data will be read for.
//!
//! - Readers take frames of any size that the format allows; one vault may hold all of them.

use drystone_format::limits::{DATA_FRAME_BYTES, FRAME_MAX_BYTES, META_FRAME_BYTES, RANDOM_FRAME_BYTES};

/// Plaintext of a frame, after which it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize(usize);

impl FrameSize {
    /// For data that is read from end to end, as files of a backup are: compresses best.
    pub const STREAM: Self = Self(DATA_FRAME_BYTES);
    /// For data that is read here and there, as a mounted file or an image of a disk is: a small part costs little.
    pub const RANDOM: Self = Self(RANDOM_FRAME_BYTES);

    /// Frames of so many bytes of file data, as far as the format allows; a chunk larger than that has a frame of its own.
    pub fn new(bytes: usize) -> Self {
        Self(bytes.clamp(1, FRAME_MAX_BYTES))
    }

    /// The size for copies of chunks from a frame with so many bytes of plaintext. Only full small frames show that they were meant to be
    /// small: the last frame of a stream may have any size.
    pub(crate) fn of_copy(frame_bytes: usize) -> Self {
        if (RANDOM_FRAME_BYTES / 2..=RANDOM_FRAME_BYTES).contains(&frame_bytes) {
            Self::RANDOM
        } else {
            Self::STREAM
        }
    }

    /// Bytes of a frame of file data.
    pub(crate) fn data_bytes(self) -> usize {
        self.0
    }

    /// Bytes of a frame of trees and recipes.
    pub(crate) fn meta_bytes(self) -> usize {
        self.0.min(META_FRAME_BYTES)
    }
}

impl Default for FrameSize {
    fn default() -> Self {
        Self::STREAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_full_small_frames_stay_small() {
        assert_eq!(FrameSize::of_copy(RANDOM_FRAME_BYTES - 100), FrameSize::RANDOM);
        assert_eq!(FrameSize::of_copy(RANDOM_FRAME_BYTES), FrameSize::RANDOM);
        assert_eq!(FrameSize::of_copy(DATA_FRAME_BYTES), FrameSize::STREAM);
        assert_eq!(FrameSize::of_copy(1000), FrameSize::STREAM);
    }

    #[test]
    fn no_frame_is_larger_than_the_format_allows() {
        assert_eq!(FrameSize::new(usize::MAX).data_bytes(), FRAME_MAX_BYTES);
        assert_eq!(FrameSize::STREAM.meta_bytes(), META_FRAME_BYTES);
        assert_eq!(FrameSize::RANDOM.meta_bytes(), RANDOM_FRAME_BYTES.min(META_FRAME_BYTES));
    }
}
