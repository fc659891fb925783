//! What a caller says of a file that it edited: how long it is, where it differs, where its holes are, and its bytes.

use std::io;
use std::ops::Range;

/// A stretch of a file that is all data or all hole, and as long as that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// Bytes up to this offset.
    Data(u64),
    /// A hole up to this offset.
    Hole(u64),
}

impl Stretch {
    pub(super) fn end(self) -> u64 {
        match self {
            Self::Data(end) | Self::Hole(end) => end,
        }
    }
}

/// A file as it is now, and where that differs from what it was. Offsets are bytes of the file as it is now; an edit moves nothing.
///
/// Every method is asked with offsets that only grow, so an implementation can page through lists that do not fit in memory.
pub trait Edited {
    /// Length of the file, bytes.
    fn size_bytes(&self) -> u64;

    /// Returns the first edit that ends behind `offset`; `None` if there is none.
    ///
    /// Edits are ranges in order of their beginnings. They cover every byte that may have changed, and every byte that became a hole or
    /// ceased to be one. A change of the length needs no edit of its own.
    fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>>;

    /// Returns the rest of the stretch that the byte at `offset` is in. Asked only near edits, and where no old node is taken over.
    fn stretch(&mut self, offset: u64) -> io::Result<Stretch>;

    /// Reads bytes at `offset`, as many as are convenient and at least one; 0 means that the file ends here.
    fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize>;

    /// Takes note that everything before `offset` is done.
    fn done(&mut self, _offset: u64) {}
}
