//! Making the content of a regular file what its recipe says: written new, or in place where it differs.
//!
//! - In place every stretch is read and compared with its chunk's id; only what differs is read from the vault.
//! - A file that has other names is never written to, since they may lie outside the target: it is replaced.
//! - One file may be worked on by several threads, each taking the next [`SHARE_BYTES`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drystone_format::ChunkId;
use drystone_format::id::ChunkHasher;
use drystone_format::limits::CHUNK_MAX_BYTES;
use drystone_format::recipe::{Part, Recipe};
use drystone_vault::{Cancel, Parts, Progress, Reader};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite};

use super::options::Sparse;
use super::tally::{Failure, Tally, add};

/// What one thread takes at a time of a large file, bytes: some tens of frames.
pub(crate) const SHARE_BYTES: u64 = 8 << 20;
/// Zeros written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What fills files.
pub(crate) struct Filler<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) hasher: &'a ChunkHasher,
    pub(crate) sparse: Sparse,
    pub(crate) tally: &'a Tally,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) cancel: &'a Cancel,
}

/// An open file and how far it is filled.
pub(crate) struct Filling {
    pub(crate) fd: OwnedFd,
    /// Its size before, if it existed.
    pub(crate) before: Option<u64>,
    /// Whether it may be written to; else it can only turn out to be right.
    pub(crate) writable: bool,
    next: AtomicU64,
    changed: AtomicBool,
}

/// The stretches of a file, of which shares are made.
struct Stretches {
    parts: Parts,
    /// The next one, which belongs to a later share.
    pending: Option<(u64, Part)>,
}

impl Stretches {
    fn new(parts: Parts) -> Self {
        Self { parts, pending: None }
    }

    /// Returns the next stretch that begins before `end`, and its start.
    fn next_before(&mut self, end: u64) -> Result<Option<(u64, Part)>, Failure> {
        if self.pending.is_none() && self.parts.offset() < end {
            let part = self.parts.next().transpose()?;
            self.pending = part.map(|part| (self.parts.offset() - part.bytes(), part));
        }
        Ok(self.pending.take_if(|(at, _)| *at < end))
    }
}

/// How filling a file ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It is what it should be.
    Done,
    /// It is not, and must not be written to.
    Differs,
}

impl Filling {
    pub(crate) fn new(fd: OwnedFd, before: Option<u64>, writable: bool) -> Self {
        Self {
            fd,
            before,
            writable,
            next: AtomicU64::new(0),
            changed: AtomicBool::new(false),
        }
    }

    /// Leaves nothing more to be taken.
    pub(crate) fn abort(&self) {
        self.next.store(1 << 63, Ordering::Relaxed);
    }

    fn is_aborted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= 1 << 63
    }

    /// Whether it existed and nothing was written to it.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.before.is_some() && !self.changed.load(Ordering::Relaxed)
    }

    fn write(&self, mut bytes: &[u8], mut offset: u64, tally: &Tally) -> Result<(), Failure> {
        self.changed.store(true, Ordering::Relaxed);
        while !bytes.is_empty() {
            match pwrite(&self.fd, bytes, offset) {
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    offset += count as u64;
                    add(&tally.written_bytes, count as u64);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::io("write", errno)),
            }
        }
        Ok(())
    }

    /// Reads as much of `buffer` as the file has at `offset`.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Failure> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match pread(&self.fd, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::io("read", errno)),
            }
        }
        Ok(filled)
    }
}

impl Filler<'_> {
    /// Gives the file its size where that is not a matter of writing its last byte.
    pub(crate) fn prepare(&self, filling: &Filling, recipe: &Recipe) -> Result<Filled, Failure> {
        let is_plain = |part: &Part| matches!(part, Part::Chunk { .. });
        let right = match filling.before {
            None => recipe.depth == 0 && recipe.parts.iter().all(is_plain),
            Some(bytes) => bytes == recipe.size_bytes,
        };
        if right {
            return Ok(Filled::Done);
        }
        if !filling.writable {
            return Ok(Filled::Differs);
        }
        filling.changed.store(true, Ordering::Relaxed);
        ftruncate(&filling.fd, recipe.size_bytes).map_err(|errno| Failure::io("set the size", errno))?;
        Ok(Filled::Done)
    }

    /// Fills what no other thread has taken yet.
    pub(crate) fn fill(&self, filling: &Filling, recipe: &Recipe, buffer: &mut Vec<u8>) -> Result<Filled, Failure> {
        let mut stretches = Stretches::new(self.reader.parts(recipe));
        loop {
            // A hole may be larger than anybody waits for.
            self.cancel.check()?;
            let start = filling.next.fetch_add(SHARE_BYTES, Ordering::Relaxed);
            if start >= recipe.size_bytes {
                return Ok(Filled::Done);
            }
            if self.fill_share(filling, &mut stretches, start, buffer)? == Filled::Differs {
                return Ok(Filled::Differs);
            }
        }
    }

    /// Fills the share that begins at `start`. Does nothing if another piece has failed.
    pub(crate) fn fill_piece(
        &self,
        filling: &Filling,
        recipe: &Recipe,
        start: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Filled, Failure> {
        if filling.is_aborted() {
            return Ok(Filled::Done);
        }
        let mut stretches = Stretches::new(self.reader.parts(recipe));
        self.fill_share(filling, &mut stretches, start, buffer)
    }

    fn fill_share(
        &self,
        filling: &Filling,
        stretches: &mut Stretches,
        start: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Filled, Failure> {
        let end = start.saturating_add(SHARE_BYTES);
        stretches.parts.skip_to(start);
        while let Some((at, part)) = stretches.next_before(end)? {
            self.cancel.check()?;
            // A part belongs to the share in which it begins.
            if at >= start && self.part(filling, part, at, buffer)? == Filled::Differs {
                return Ok(Filled::Differs);
            }
        }
        Ok(Filled::Done)
    }

    fn part(&self, filling: &Filling, part: Part, offset: u64, buffer: &mut Vec<u8>) -> Result<Filled, Failure> {
        Progress::add(&self.progress.bytes, part.bytes());
        match part {
            Part::Chunk { id, bytes } => {
                if self.is_there(filling, &id, (offset, bytes), buffer)? {
                    return Ok(Filled::Done);
                }
                if !filling.writable {
                    return Ok(Filled::Differs);
                }
                let chunk = self.reader.chunk(&id)?;
                if chunk.len() as u64 != bytes {
                    let found = chunk.len();
                    return Err(Failure::Entry(format!(
                        "chunk {id} has {found} bytes, its recipe says {bytes}; run `drystone check`"
                    )));
                }
                filling.write(&chunk, offset, self.tally)?;
            }
            Part::Zeros(bytes) if self.sparse == Sparse::AsStored => {
                if filling.before.is_none() {
                    self.write_zeros(filling, offset, bytes)?;
                } else {
                    return self.zero(filling, offset, bytes, buffer);
                }
            }
            Part::Zeros(bytes) | Part::Hole(bytes) => {
                if filling.before.is_some_and(|before| offset < before) {
                    return self.punch(filling, offset, bytes, buffer);
                }
            }
        }
        Ok(Filled::Done)
    }

    fn write_zeros(&self, filling: &Filling, offset: u64, bytes: u64) -> Result<(), Failure> {
        let mut at = offset;
        while at < offset + bytes {
            self.cancel.check()?;
            let count = (offset + bytes - at).min(ZEROS.len() as u64);
            filling.write(ZEROS.get(..count as usize).unwrap_or(&ZEROS), at, self.tally)?;
            at += count;
        }
        Ok(())
    }

    /// Whether the file has this chunk at `offset` already.
    fn is_there(
        &self,
        filling: &Filling,
        id: &ChunkId,
        (offset, bytes): (u64, u64),
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        if filling.before.is_none_or(|before| offset + bytes > before) || bytes > CHUNK_MAX_BYTES.into() {
            return Ok(false);
        }
        buffer.resize(bytes as usize, 0);
        Ok(filling.read(buffer, offset)? == buffer.len() && self.hasher.id(buffer) == *id)
    }

    /// Makes zeros of what is not zero.
    fn zero(&self, filling: &Filling, offset: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<Filled, Failure> {
        let mut at = offset;
        while at < offset + bytes {
            self.cancel.check()?;
            let count = (offset + bytes - at).min(ZEROS.len() as u64);
            buffer.resize(count as usize, 0);
            let read = filling.read(buffer, at)?;
            if buffer.iter().take(read).any(|byte| *byte != 0) || read < buffer.len() {
                if !filling.writable {
                    return Ok(Filled::Differs);
                }
                self.write_zeros(filling, at, count)?;
            }
            at += count;
        }
        Ok(Filled::Done)
    }

    /// Makes holes where there is data; zeros where the file system has no holes, and at edges within its blocks.
    fn punch(&self, filling: &Filling, offset: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<Filled, Failure> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            self.cancel.check()?;
            let data = match seek(&filling.fd, SeekFrom::Data(at)) {
                Ok(data) if data < end => data,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let hole = seek(&filling.fd, SeekFrom::Hole(data))
                .unwrap_or(end)
                .clamp(data + 1, end);
            if self.clear(filling, (data, hole), buffer)? == Filled::Differs {
                return Ok(Filled::Differs);
            }
            at = hole;
        }
        Ok(Filled::Done)
    }

    /// Makes a hole of one stretch of data.
    fn clear(&self, filling: &Filling, (start, end): (u64, u64), buffer: &mut Vec<u8>) -> Result<Filled, Failure> {
        if end - start >= ZEROS.len() as u64 {
            if !filling.writable {
                return Ok(Filled::Differs);
            }
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if fallocate(&filling.fd, punch, start, end - start).is_ok() {
                filling.changed.store(true, Ordering::Relaxed);
                return Ok(Filled::Done);
            }
        }
        self.zero(filling, start, end - start, buffer)
    }
}
