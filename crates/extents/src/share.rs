//! Making files share what is equal: FIDEDUPERANGE, by which the kernel compares before it shares, and defragmentation.
//!
//! - No byte that a reader sees changes, whatever the arguments: unequal ranges are left alone.
//! - The kernel's own count of bytes is not what is freed: ask the physical map ([`crate::physical_map`], [`crate::Btrfs::extent`]).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::ioctl;

/// Destinations of one call: with one more than 127 the request is larger than a page, which the kernel refuses.
pub const DESTINATIONS_MAX: usize = 127;
/// Bytes that one call compares at most; it stops there without a word.
pub const CALL_MAX_BYTES: u64 = 1 << 30;

/// What became of one destination.
#[derive(Debug)]
pub enum Shared {
    /// Equal, and shared now as far as the file system can.
    Same,
    /// Not equal: nothing was changed.
    Differs,
    /// Refused; with the reason.
    Refused(io::Error),
}

/// Lets each destination (file, offset) share `len` bytes of `source` from `offset` on, where they are equal.
///
/// Offsets must be multiples of the block size, and so must `len`, unless both ranges end with their files. At most
/// [`DESTINATIONS_MAX`] destinations and [`CALL_MAX_BYTES`]. An error concerns the whole call.
pub fn dedupe(source: BorrowedFd<'_>, offset: u64, len: u64, to: &[(BorrowedFd<'_>, u64)]) -> Result<Vec<Shared>> {
    const DIFFERS: i32 = 1;
    let refused = |source| Error::kernel("share data with", "another file", source);
    if to.len() > DESTINATIONS_MAX || len > CALL_MAX_BYTES {
        return Err(refused(Errno::INVAL));
    }
    let replies = ioctl::dedupe(source, offset, len, to).map_err(refused)?;
    let outcome = |(status, bytes): (i32, u64)| match status {
        0 if bytes >= len && bytes > 0 => Shared::Same,
        0 | DIFFERS => Shared::Differs,
        status => Shared::Refused(io::Error::from_raw_os_error(-status)),
    };
    Ok(replies.into_iter().map(outcome).collect())
}

/// Writes the extents of a Btrfs file that are smaller than `below_bytes` anew in larger ones. Sharing with other files is lost.
pub fn defragment(file: BorrowedFd<'_>, below_bytes: u32) -> Result<()> {
    ioctl::defragment(file, below_bytes).map_err(|source| Error::kernel("defragment", "a file", source))
}

/// Lets the reads and writes of the calling thread, and of all that it starts from now on (ioprio_set(2)), wait for those of everybody else, where
/// the scheduler knows how.
pub fn set_idle_io() {
    // A wish: without it everything works as well, only less politely.
    let _ = ioctl::set_idle_io();
}

/// Whether nothing of a range is in memory; false where the kernel does not tell.
pub fn is_cold(file: BorrowedFd<'_>, offset: u64, len: u64) -> bool {
    ioctl::cached_pages(file, offset, len).is_ok_and(|pages| pages == 0)
}
