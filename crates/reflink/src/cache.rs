//! Reading ahead of the kernel's compare, leaving the cache as it was, and copying what nobody else has.
//!
//! - Hints may fail without a word: what they help is only slower then.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, fadvise};
use rustix::io::{pread, pwrite};

/// What the kernel reads at once of what it is asked to read ahead, on almost any file system and device.
pub(crate) const STEP_BYTES: u64 = 256 << 10;

/// Begins to read a range into the cache, `step_bytes` at once, and does not wait for it.
pub(crate) fn read_ahead(file: &OwnedFd, (offset, len): (u64, u64), step_bytes: u64) {
    let mut at = 0;
    while at < len {
        let step = step_bytes.min(len - at);
        // A hint: what is not read ahead the kernel reads when it compares, only more slowly.
        let _ = fadvise(file, offset + at, NonZeroU64::new(step), Advice::WillNeed);
        at += step;
    }
}

/// Whether a range can be read.
pub(crate) fn can_read(file: &OwnedFd, (offset, len): (u64, u64)) -> bool {
    let mut buffer = vec![0; STEP_BYTES as usize];
    let mut at = 0;
    while at < len {
        let wanted = buffer.len().min((len - at) as usize);
        match pread(file, buffer.get_mut(..wanted).unwrap_or_default(), offset + at) {
            Ok(0) => return true,
            Ok(read) => at += read as u64,
            Err(_) => return false,
        }
    }
    true
}

/// Drops a range from the cache.
pub(crate) fn forget(file: &OwnedFd, offset: u64, len: u64) {
    // A hint: without it memory is only fuller.
    let _ = fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed);
}

/// Copies a range to `to_offset` of the scratch file; false if the file has become shorter than that.
pub(crate) fn copy_range(
    file: &OwnedFd,
    (from_offset, len): (u64, u64),
    scratch: &OwnedFd,
    to_offset: u64,
    buffer: &mut [u8],
) -> rustix::io::Result<bool> {
    let mut at = 0;
    while at < len {
        let wanted = buffer.len().min((len - at) as usize);
        let read = pread(file, buffer.get_mut(..wanted).unwrap_or_default(), from_offset + at)?;
        if read == 0 {
            return Ok(false);
        }
        let mut written = 0;
        while written < read {
            let rest = buffer.get(written..read).unwrap_or_default();
            written += pwrite(scratch, rest, to_offset + at + written as u64)?;
        }
        at += read as u64;
    }
    Ok(true)
}
