//! Sharing named files, whole: `dedup files SRC DEST…`, on any file system that can, with or without root.
//!
//! - The kernel compares; a file that differs is left as it is, and so is everything else about each file.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use drystone_extents::{Piece, Shared, dedupe, defragment, physical_map};
use rustix::fs::{FileType, Mode, OFlags, Stat, open};

use crate::cache::{STEP_BYTES, read_ahead};
use crate::error::{Error, Result};
use crate::progress::{Cancel, Progress};
use crate::swap::is_swap;

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
    /// It has the bytes of the source, and nothing more that could be shared: they are zeros in a hole, or lie in metadata.
    Equal,
    /// It is of another size.
    OtherSize(u64),
    /// It differs, at or after this byte.
    Differs(u64),
    /// It could not be done; with the reason.
    Failed(String),
}

/// A file to share, and what it was when it was opened.
struct Opened {
    file: OwnedFd,
    about: Stat,
}

/// What a change of a file's content changes, unless somebody sets the clock.
fn stamp(about: &Stat) -> (i64, i64, u64, i64, u64) {
    let Stat {
        st_size,
        st_mtime,
        st_mtime_nsec,
        st_ctime,
        st_ctime_nsec,
        ..
    } = *about;
    (st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec)
}

impl Opened {
    fn len(&self) -> u64 {
        self.about.st_size.max(0) as u64
    }

    fn has_changed(&self) -> bool {
        !rustix::fs::fstat(&self.file).is_ok_and(|now| stamp(&now) == stamp(&self.about))
    }
}

/// Lets `to` share the bytes of `source`, if they are the same.
///
/// The files are called the same only if the kernel compared all of both, or if both lie at the same places of the disk from the
/// first byte to the last.
pub fn share_file(source: &Path, to: &Path, progress: &Progress, cancel: &Cancel) -> Result<Fate> {
    let from = open_file(source)?;
    let failed = |error: Error| Fate::Failed(error.to_string());
    let target = match open_file(to) {
        Ok(opened) => opened,
        Err(error) => return Ok(failed(error)),
    };
    if from.len() != target.len() {
        return Ok(Fate::OtherSize(target.len()));
    }
    let before = match apart(&from, &target) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(failed(error)),
    };
    if !is_one(&from, &target).unwrap_or(false) {
        match compare_and_share(&from, &target, progress, cancel) {
            Ok(None) => {}
            Ok(Some(fate)) => return Ok(fate),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => return Ok(failed(error)),
        }
    }
    if from.has_changed() || target.has_changed() {
        let why = "one of the two files changed while they were compared: run this again";
        return Ok(Fate::Failed(why.to_owned()));
    }
    let freed = before.saturating_sub(apart(&from, &target).unwrap_or(before));
    Ok(if freed > 0 || is_one(&from, &target).unwrap_or(false) {
        Fate::Shared(freed)
    } else {
        Fate::Equal
    })
}

/// Has the kernel compare and share two files of one length, piece by piece; `None` if they are equal.
fn compare_and_share(from: &Opened, target: &Opened, progress: &Progress, cancel: &Cancel) -> Result<Option<Fate>> {
    let (mut at, len) = (0, from.len());
    while at < len {
        cancel.check()?;
        let piece = PIECE_BYTES.min(len - at);
        for opened in [from, target] {
            // What comes next is read while this is compared.
            let begun = if at == 0 { 0 } else { piece };
            read_ahead(&opened.file, (at + begun, 2 * PIECE_BYTES - begun), STEP_BYTES);
        }
        let reply = dedupe(from.file.as_fd(), at, piece, &[(target.file.as_fd(), at)]).map(|mut replies| replies.pop());
        match reply {
            Ok(Some(Shared::Same)) => Progress::add(&progress.shared_bytes, piece),
            Ok(Some(Shared::Refused(error))) => return Ok(Some(Fate::Failed(error.to_string()))),
            Ok(Some(Shared::Differs) | None) => return Ok(Some(Fate::Differs(at))),
            Err(error) => return Ok(Some(Fate::Failed(error.to_string()))),
        }
        at += piece;
    }
    Ok(None)
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

fn open_file(path: &Path) -> Result<Opened> {
    let failed = |during| move |source| Error::io(path, during, source);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = open(path, flags | OFlags::NOATIME, Mode::empty()).or_else(|_| open(path, flags, Mode::empty()));
    let file = file.map_err(failed("open"))?;
    let about = rustix::fs::fstat(&file).map_err(failed("look at"))?;
    let refused = |why: &str| Error::Target {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(refused("it is no regular file"));
    }
    let opened = Opened { file, about };
    if is_swap(&opened.file, opened.len()).map_err(failed("read"))? {
        return Err(refused(
            "it is a swap file, which can be used no more once it shares data",
        ));
    }
    Ok(opened)
}

/// Whether two files of one length lie at the same places of the disk, from the first byte to the last.
fn is_one(one: &Opened, other: &Opened) -> Result<bool> {
    let file = |opened: &Opened| (opened.about.st_dev, opened.about.st_ino);
    if file(one) == file(other) {
        return Ok(true);
    }
    let of_one = places(&one.file, one.len())?;
    Ok(of_one.is_some() && of_one == places(&other.file, other.len())?)
}

/// Where each stretch of a file lies: place in the file, place on the disk, bytes. `None` if some byte has no place of its own.
fn places(file: &OwnedFd, len: u64) -> Result<Option<Vec<(u64, u64, u64)>>> {
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    let mut at = 0;
    for piece in physical_map(file.as_fd(), (0, len))? {
        // What is encoded has no place for each byte, what is reserved has no data, and what is not shared is nobody else's: it only
        // has the same number, on another device of the file system.
        if piece.file_offset > at || piece.encoded || piece.reserved || !piece.shared {
            return Ok(None);
        }
        let bytes = piece.len.min(len.saturating_sub(piece.file_offset));
        match found.last_mut() {
            Some((_, disk, known)) if *disk + *known == piece.disk_offset => *known += bytes,
            _ => found.push((piece.file_offset, piece.disk_offset, bytes)),
        }
        at = piece.file_offset + bytes;
    }
    Ok((at >= len).then_some(found))
}

/// Bytes of `other` that lie on the disk, and not where those of `one` do.
fn apart(one: &Opened, other: &Opened) -> Result<u64> {
    let (ours, theirs) = (
        physical_map(one.file.as_fd(), (0, one.len()))?,
        physical_map(other.file.as_fd(), (0, other.len()))?,
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
