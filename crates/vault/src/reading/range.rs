//! Where sealed frames lie in packs, alone and next to each other.

use drystone_format::PackId;

/// Where a sealed frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameAt {
    /// Its pack.
    pub pack: PackId,
    /// Where it begins in the pack, bytes.
    pub offset: u32,
    /// Its length, bytes.
    pub bytes: u32,
    pub(crate) number: u16,
}

impl FrameAt {
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.bytes)
    }
}

/// A part of a pack that is read in one request: neighbouring frames, and what lies between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRange {
    /// The pack.
    pub pack: PackId,
    /// Where it begins in the pack, bytes.
    pub offset: u64,
    /// Its length, bytes.
    pub bytes: u64,
    pub(crate) ends_pack: bool,
}

impl FrameRange {
    /// Returns true if the frame lies in it.
    pub fn covers(&self, frame: &FrameAt) -> bool {
        self.pack == frame.pack && self.offset <= frame.offset.into() && frame.end() <= self.offset + self.bytes
    }

    pub(crate) fn ends_before(&self, frame: &FrameAt) -> bool {
        (self.pack, self.offset + self.bytes) <= (frame.pack, frame.offset.into())
    }
}
