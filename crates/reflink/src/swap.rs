//! Telling swap files, which are left alone, in use or not: `swapon` refuses a file that shares data or has holes.

use std::os::fd::AsFd;

use rustix::io::pread;

/// What `mkswap`, or a system that sleeps on disk, writes at the end of the first page.
const MARKS: [&[u8; MARK_BYTES]; 6] = [
    b"SWAPSPACE2",
    b"SWAP-SPACE",
    b"S1SUSPEND\0",
    b"S2SUSPEND\0",
    b"ULSUSPEND\0",
    b"LINHIB0001",
];
const MARK_BYTES: usize = 10;
/// Bytes of a page, on any machine that may have made the file.
const PAGES: [u64; 4] = [4 << 10, 8 << 10, 16 << 10, 64 << 10];
/// The least pages that `mkswap` takes.
const PAGES_LEAST: u64 = 10;

/// Whether a file of `len` bytes is swap space.
pub(crate) fn is_swap(file: impl AsFd, len: u64) -> rustix::io::Result<bool> {
    for page in PAGES.into_iter().filter(|page| page * PAGES_LEAST <= len) {
        let mut mark = [0; MARK_BYTES];
        let read = pread(&file, &mut mark, page - MARK_BYTES as u64)?;
        if read == MARK_BYTES && MARKS.contains(&&mark) {
            return Ok(true);
        }
    }
    Ok(false)
}
