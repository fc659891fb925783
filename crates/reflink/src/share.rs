//! What one worker does with the requests of a job: reads ahead what the kernel will compare, copies leftovers, lets the kernel share.
//!
//! - The kernel compares page by page without reading ahead, which takes ten to fifty times as long on cold data: so all ranges of
//!   a request are asked for at once, and those of the next while one is compared.
//! - What nobody had in memory leaves it again, so that a run does not drive out what others need.
//! - Never more than [`FILES_MAX`] and [`TARGETS_MAX`] files are open.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use drystone_extents::{Shared, dedupe, is_cold};
use rustix::fs::fstat;
use rustix::io::Errno;

use crate::cache::{can_read, copy_range, forget, read_ahead};
use crate::error::Result;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::requests::{From, Request, Work};
use crate::space::{FileId, Space};

/// Bytes that are compared at once, and at most so many of one file.
const PIECES_BYTES: u64 = 64 << 20;
const PIECE_MAX_BYTES: u64 = 16 << 20;
const PIECE_MIN_BYTES: u64 = 1 << 20;
/// Bytes of jobs to come that are read ahead.
const AHEAD_BYTES: u64 = 16 << 20;
/// Files that are kept open, and destinations of one call: with four workers, below the thousand that a process usually may have.
const FILES_MAX: usize = 128;
const TARGETS_MAX: usize = 48;
/// Ranges of which it is known whether they were in memory: more were expected in vain.
const COLD_MAX: usize = 4096;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// A worker.
pub(crate) struct Sharer<'a> {
    space: &'a dyn Space,
    progress: &'a Progress,
    hole: Option<Rc<OwnedFd>>,
    buffer: Vec<u8>,
    files: HashMap<FileId, Rc<OwnedFd>>,
    /// Whether nobody had in memory what is read ahead, by where it begins.
    cold: HashMap<(FileId, u64), bool>,
}

/// A file that shall share.
struct Target<'r> {
    file: Rc<OwnedFd>,
    request: &'r Request,
    is_cold: bool,
    is_next_cold: bool,
}

/// A range of a request.
#[derive(Clone, Copy)]
struct Piece {
    /// Where it begins in the request, bytes.
    at: u64,
    len: u64,
}

impl<'a> Sharer<'a> {
    /// A worker on `space`; `hole` is a file of zeros.
    pub(crate) fn new(space: &'a dyn Space, progress: &'a Progress, hole: Option<OwnedFd>) -> Self {
        Self {
            space,
            progress,
            hole: hole.map(Rc::new),
            buffer: vec![0; READ_BYTES],
            files: HashMap::new(),
            cold: HashMap::new(),
        }
    }

    /// Begins to read what jobs will need first.
    pub(crate) fn expect(&mut self, works: &[Work]) {
        if self.cold.len() > COLD_MAX {
            self.cold.clear();
        }
        let (mut bytes, mut last) = (0, None);
        for request in works.iter().flat_map(|work| &work.requests).take(FILES_MAX / 4) {
            if bytes >= AHEAD_BYTES {
                return;
            }
            let len = request.len.min(PIECE_MIN_BYTES);
            let source = (request.from, request.from_offset);
            if let (From::File(file), true) = (request.from, last != Some(source)) {
                bytes += len;
                if let Ok(file) = self.open(file) {
                    self.read_ahead(&file, request.from_offset, len);
                }
            }
            last = Some(source);
            bytes += len;
            // What cannot be opened is told when its turn comes.
            if let Ok(file) = self.open(request.to) {
                let cold = is_cold(file.as_fd(), request.to_offset, len);
                self.cold.insert((request.to, request.to_offset), cold);
                self.read_ahead(&file, request.to_offset, len);
            }
        }
    }

    fn read_ahead(&self, file: &OwnedFd, offset: u64, len: u64) {
        read_ahead(file, (offset, len), self.space.read_ahead_bytes());
    }

    fn open(&mut self, file: FileId) -> Result<Rc<OwnedFd>> {
        if let Some(open) = self.files.get(&file) {
            return Ok(open.clone());
        }
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        let open = Rc::new(self.space.open(file)?);
        self.files.insert(file, open.clone());
        Ok(open)
    }

    /// Carries out everything that a job asks for, and counts.
    pub(crate) fn share_all(&mut self, work: &Work, tally: &mut Outcome) -> Result<()> {
        let Some(scratch) = self.copy_leftover(work, tally)? else {
            return Ok(());
        };
        let alike = |one: &Request, other: &Request| {
            (one.from, one.from_offset, one.len) == (other.from, other.from_offset, other.len)
        };
        for alike in work.requests.chunk_by(alike) {
            if self.space.frees_whole_extents() && (tally.differing > 0 || tally.problem_count > 0) {
                // The extent will not go, and every piece more would only break up the file.
                return Ok(());
            }
            for requests in alike.chunks(TARGETS_MAX) {
                self.share(requests, (scratch.as_ref(), work.job.index), tally)?;
            }
        }
        Ok(())
    }

    /// Writes what nobody else has to a scratch file. `None` if that could not be done, `Some(None)` if there is nothing to write.
    fn copy_leftover(&mut self, work: &Work, tally: &mut Outcome) -> Result<Option<Option<Rc<OwnedFd>>>> {
        let copies = &work.copies;
        let Some(first) = copies.first() else {
            return Ok(Some(None));
        };
        let scratch = match self.space.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return tally.failed(first.from, &error).map(|()| None),
        };
        let mut end = 0;
        for copy in copies {
            let file = match self.open(copy.from) {
                Ok(file) => file,
                Err(error) => return tally.failed(copy.from, &error).map(|()| None),
            };
            match copy_range(&file, (copy.from_offset, copy.len), &scratch, end, &mut self.buffer) {
                Ok(true) => {}
                Ok(false) => {
                    tally.differing += 1;
                    return Ok(None);
                }
                Err(Errno::NOSPC) => return tally.no_room_for(copy.from, "a copy").map(|()| None),
                Err(Errno::IO) => {
                    tally.unreadable(copy.from, Some(work.job.index));
                    return Ok(None);
                }
                Err(source) => return tally.refused(copy.from, source).map(|()| None),
            }
            end += copy.len;
        }
        tally.rewritten_bytes += end.next_multiple_of(self.space.block_bytes());
        Ok(Some(Some(Rc::new(scratch))))
    }

    /// Shares one range of one source with all its destinations.
    fn share(
        &mut self,
        requests: &[Request],
        (scratch, own): (Option<&Rc<OwnedFd>>, u32),
        tally: &mut Outcome,
    ) -> Result<()> {
        let Some(first) = requests.first() else { return Ok(()) };
        let source = match first.from {
            From::Hole => self.hole.clone(),
            From::Scratch => scratch.cloned(),
            From::File(file) => match self.open(file) {
                Ok(source) => Some(source),
                Err(error) => return tally.failed(file, &error),
            },
        };
        let Some(source) = source else { return Ok(()) };
        let mut targets = Vec::with_capacity(requests.len());
        for request in requests {
            match self.open(request.to) {
                Ok(file) => targets.push(Target {
                    file,
                    request,
                    is_cold: false,
                    is_next_cold: false,
                }),
                Err(error) => tally.failed(request.to, &error)?,
            }
        }
        let files = targets.len() as u64 + 1;
        // A multiple of any block size.
        let len = (PIECES_BYTES / files / PIECE_MIN_BYTES * PIECE_MIN_BYTES).clamp(PIECE_MIN_BYTES, PIECE_MAX_BYTES);
        let piece = |at: u64| Piece {
            at,
            len: len.min(first.len.saturating_sub(at)),
        };
        let mut next = piece(0);
        self.begin(&source, first, &mut targets, next);
        while next.len > 0 && !targets.is_empty() {
            let this = next;
            targets
                .iter_mut()
                .for_each(|target| target.is_cold = target.is_next_cold);
            next = piece(this.at + this.len);
            self.begin(&source, first, &mut targets, next);
            self.share_piece((&source, first), &mut targets, (this, own), tally)?;
        }
        Ok(())
    }

    /// Begins to read a piece of everything.
    fn begin(&mut self, source: &OwnedFd, first: &Request, targets: &mut [Target<'_>], piece: Piece) {
        let Piece { at, len } = piece;
        if len == 0 {
            return;
        }
        // What was expected is on its way, unless it is longer than that.
        let is_short = len <= PIECE_MIN_BYTES;
        let mut is_expected = is_short;
        for target in targets {
            let offset = target.request.to_offset + at;
            let known = self.cold.remove(&(target.request.to, offset));
            target.is_next_cold = known.unwrap_or_else(|| is_cold(target.file.as_fd(), offset, len));
            if known.is_none() || !is_short {
                is_expected = false;
                self.read_ahead(&target.file, offset, len);
            }
        }
        if let (From::File(_), false) = (first.from, is_expected) {
            self.read_ahead(source, first.from_offset + at, len);
        }
    }

    /// Shares a piece; targets that are not like it leave the list.
    fn share_piece(
        &self,
        (source, first): (&OwnedFd, &Request),
        targets: &mut Vec<Target<'_>>,
        (Piece { at, len }, own): (Piece, u32),
        tally: &mut Outcome,
    ) -> Result<()> {
        let to: Vec<_> = targets
            .iter()
            .map(|target| (target.file.as_fd(), target.request.to_offset + at))
            .collect();
        let replies = dedupe(source.as_fd(), first.from_offset + at, len, &to);
        Progress::add(&self.progress.shared_bytes, len * to.len() as u64);
        for target in targets.iter().filter(|target| target.is_cold) {
            forget(&target.file, target.request.to_offset + at, len);
        }
        let mut replies = match replies {
            Ok(replies) => replies.into_iter(),
            Err(error) => {
                targets.clear();
                if ends_before(source, first.from_offset + at + len) {
                    tally.differing += 1;
                    return Ok(());
                }
                return tally.problem(first.to, error.to_string());
            }
        };
        let is_bad =
            |reply: &Shared| matches!(reply, Shared::Refused(error) if Errno::from_io_error(error) == Some(Errno::IO));
        // The kernel does not say which of the two it could not read.
        let is_source_good = !replies.as_slice().iter().any(is_bad) || can_read(source, (first.from_offset + at, len));
        let mut failed = Ok(());
        targets.retain(|target| match replies.next() {
            Some(Shared::Same) => {
                tally.shared_bytes += len;
                true
            }
            Some(Shared::Refused(source)) => {
                let error = Errno::from_io_error(&source).unwrap_or(Errno::IO);
                if ends_before(&target.file, target.request.to_offset + at + len) {
                    tally.differing += 1;
                } else if let (Errno::IO, From::File(file), false) = (error, first.from, is_source_good) {
                    tally.unreadable(file, first.source);
                } else if error == Errno::IO {
                    tally.unreadable(target.request.to, Some(own));
                } else {
                    failed = tally.refused(target.request.to, error);
                }
                false
            }
            Some(Shared::Differs) | None => {
                tally.differing += 1;
                false
            }
        });
        failed
    }
}

/// Whether a file has become too short for a range that ends there, about which the kernel only says that it is invalid.
fn ends_before(file: &OwnedFd, end: u64) -> bool {
    fstat(file).is_ok_and(|about| (about.st_size.max(0) as u64) < end)
}
