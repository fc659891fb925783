//! Sharing named files, whole: `dedup files SRC DEST…`, on any file system that can, with or without root.
//!
//! - The kernel compares; a file that differs is left as it is, and so is everything else about each file.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use drystone_extents::{Piece, Shared, dedupe, defragment, physical_map};
use rustix::fs::{Mode, OFlags, open};

use crate::cache::{STEP_BYTES, read_ahead};
use crate::error::{Error, Result};
use crate::progress::{Cancel, Progress};

/// Bytes that are read ahead and compared at once.
const PIECE_BYTES: u64 = 16 << 20;
/// Extents smaller than this are joined when that is asked for.
const DEFRAGMENT_BELOW_BYTES: u32 = 32 << 20;
/// A file of pieces of this mean length is left as it is.
const WHOLE_ENOUGH_BYTES: u64 = 256 << 10;

/// What became of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has the bytes of the source, and lies where the source lies; so many bytes lay elsewhere before.
    Shared(u64),
    /// It is of another size.
    OtherSize(u64),
    /// It differs, at or after this byte.
    Differs(u64),
    /// It could not be done; with the reason.
    Failed(String),
}

/// Lets `to` share the bytes of `source`, if they are the same.
pub fn share_file(source: &Path, to: &Path, progress: &Progress, cancel: &Cancel) -> Result<Fate> {
    let (from, len) = open_file(source)?;
    let failed = |error: Error| Fate::Failed(error.to_string());
    let (target, target_len) = match open_file(to) {
        Ok(opened) => opened,
        Err(error) => return Ok(failed(error)),
    };
    if len != target_len {
        return Ok(Fate::OtherSize(target_len));
    }
    let before = match apart(&from, &target, len) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(failed(error)),
    };
    let mut at = 0;
    while at < len && before > 0 {
        cancel.check()?;
        let piece = PIECE_BYTES.min(len - at);
        for file in [&from, &target] {
            // What comes next is read while this is compared.
            let begun = if at == 0 { 0 } else { piece };
            read_ahead(file, (at + begun, 2 * PIECE_BYTES - begun), STEP_BYTES);
        }
        match dedupe(from.as_fd(), at, piece, &[(target.as_fd(), at)]).map(|mut replies| replies.pop()) {
            Ok(Some(Shared::Same)) => Progress::add(&progress.shared_bytes, piece),
            Ok(Some(Shared::Refused(error))) => return Ok(Fate::Failed(error.to_string())),
            Ok(Some(Shared::Differs) | None) => return Ok(Fate::Differs(at)),
            Err(error) => return Ok(failed(error.into())),
        }
        at += piece;
    }
    let after = apart(&from, &target, len).unwrap_or(before);
    Ok(Fate::Shared(before.saturating_sub(after)))
}

/// Joins the extents of a Btrfs file; what it shared with others, snapshots among them, it shares no longer.
pub fn join_extents(path: &Path) -> Result<()> {
    // Defragmenting takes a descriptor that could write.
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|source| Error::io(path, "open for writing", source))?;
    defragment(file.as_fd(), DEFRAGMENT_BELOW_BYTES)?;
    file.sync_all().map_err(|source| Error::io(path, "write out", source))
}

/// Joins the extents of an open file, if they are small ones that it shares with nobody; false if it was left as it is.
pub(crate) fn join_own(file: &OwnedFd) -> Result<bool> {
    let pieces = physical_map(file.as_fd(), (0, u64::MAX))?;
    let bytes: u64 = pieces.iter().map(|piece| piece.len).sum();
    let is_whole = pieces.len() < 2 || bytes / pieces.len() as u64 >= WHOLE_ENOUGH_BYTES;
    if is_whole || pieces.iter().any(|piece| piece.shared || piece.encoded) {
        return Ok(false);
    }
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    join_extents(&path).map(|()| true)
}

fn open_file(path: &Path) -> Result<(OwnedFd, u64)> {
    let failed = |during| move |source| Error::io(path, during, source);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = open(path, flags | OFlags::NOATIME, Mode::empty()).or_else(|_| open(path, flags, Mode::empty()));
    let file = file.map_err(failed("open"))?;
    let about = rustix::fs::fstat(&file).map_err(failed("look at"))?;
    if rustix::fs::FileType::from_raw_mode(about.st_mode) != rustix::fs::FileType::RegularFile {
        let why = "it is no regular file".to_owned();
        return Err(Error::Target {
            path: path.to_owned(),
            why,
        });
    }
    Ok((file, about.st_size.max(0) as u64))
}

/// Bytes of `other` that lie on the disk, and not where those of `one` do.
fn apart(one: &OwnedFd, other: &OwnedFd, len: u64) -> Result<u64> {
    let (ours, theirs) = (
        physical_map(one.as_fd(), (0, len))?,
        physical_map(other.as_fd(), (0, len))?,
    );
    let mut ours = ours.into_iter().peekable();
    let mut bytes = 0;
    for their in theirs {
        let mut shared = 0;
        while let Some(our) = ours.peek() {
            shared += overlap(our, &their);
            if our.file_offset + our.len > their.file_offset + their.len {
                break;
            }
            ours.next();
        }
        bytes += their.len - shared.min(their.len);
    }
    Ok(bytes)
}

/// Bytes that two pieces have at the same place of the file and of the disk.
fn overlap(one: &Piece, other: &Piece) -> u64 {
    let from = one.file_offset.max(other.file_offset);
    let to = (one.file_offset + one.len).min(other.file_offset + other.len);
    let at = |piece: &Piece| {
        let within = if piece.encoded {
            0
        } else {
            from.saturating_sub(piece.file_offset)
        };
        piece.disk_offset + within
    };
    if from < to && at(one) == at(other) {
        to - from
    } else {
        0
    }
}
