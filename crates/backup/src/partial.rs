//! Reading a large file again where it changed: what comes of it is what reading all of it would give.
//!
//! - Where a chunk ends is decided by the bytes from its beginning on, as many as a chunk may have, and by the end of its stretch
//!   without holes. A chunk is taken over if it begins where one began, and all of that is as it was; else it is read and cut.
//! - Which bytes are as they were is told by where they lie; a change of the file meanwhile is noticed by who called.

use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;

use crossbeam_channel::{Sender, unbounded};
use drystone_vault::{Cancel, Content, FillError, Progress};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, pread, retry_on_intr};

use crate::error::spawn_some;
use crate::tracked::{Map, Pages};

/// Changes that the kernel is told of before they are read.
const TOLD_AHEAD: usize = 256;
/// Bytes of a change that it is told of: beyond that it reads ahead of its own accord.
const TOLD_MAX_BYTES: u64 = 64 << 10;

/// Threads that tell it: each waits for where the bytes lie, and for their checksums.
const TELLERS: usize = 4;

/// Does `work`, which sends offsets and lengths of what it will read of the file: the kernel reads that ahead.
///
/// Else each of many small changes would wait for the disk by itself, and nothing of a new snapshot is in memory.
pub(crate) fn with_ahead<R>(file: &OwnedFd, work: impl FnOnce(Sender<(u64, u64)>) -> R) -> R {
    let (ahead, told) = unbounded();
    std::thread::scope(|scope| {
        let tell = move || {
            for (start, bytes) in told {
                let _ = fadvise(file, start, NonZeroU64::new(bytes), Advice::WillNeed);
            }
        };
        // Only speed hangs on it, and on what it does.
        let _ = spawn_some(scope, TELLERS, tell);
        work(ahead)
    })
}

/// A file that is read again.
pub(crate) struct Again<'a, P> {
    pub(crate) file: &'a OwnedFd,
    pub(crate) map: Map<P>,
    /// Offset and length of what may have changed, in order.
    pub(crate) changed: Vec<(u64, u64)>,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a Cancel,
    /// Bytes that were not read.
    pub(crate) unread_bytes: u64,
    /// The first of `changed` that is not behind.
    next: usize,
    /// The first of `changed` that the kernel was not told of.
    untold: usize,
    ahead: Sender<(u64, u64)>,
    window: Window,
}

/// Bytes of the file from some offset on.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes of a range, which begins no earlier than any before; fewer if the file ends.
    fn read(&mut self, file: &OwnedFd, range: &Range<u64>) -> Result<&[u8], Errno> {
        let gone = range.start.saturating_sub(self.start);
        if gone >= self.bytes.len() as u64 {
            self.bytes.clear();
        } else {
            self.bytes.drain(..gone as usize);
        }
        self.start = range.start;
        let wanted = (range.end - range.start) as usize;
        let mut filled = self.bytes.len();
        self.bytes.resize(filled.max(wanted), 0);
        while filled < wanted {
            let room = self.bytes.get_mut(filled..wanted).unwrap_or_default();
            match retry_on_intr(|| pread(file, &mut *room, range.start + filled as u64))? {
                0 => break,
                count => filled += count,
            }
        }
        self.bytes.truncate(filled);
        Ok(self.bytes.get(..wanted.min(filled)).unwrap_or_default())
    }
}

impl<'a, P: Pages> Again<'a, P> {
    pub(crate) fn new(
        file: &'a OwnedFd,
        (map, changed): (Map<P>, Vec<(u64, u64)>),
        (progress, cancel): (&'a Progress, &'a Cancel),
        ahead: Sender<(u64, u64)>,
    ) -> Self {
        Self {
            file,
            map,
            changed,
            progress,
            cancel,
            unread_bytes: 0,
            next: 0,
            untold: 0,
            ahead,
            window: Window::default(),
        }
    }

    /// Whether anything in a range may have changed. Never asked for an earlier one than before.
    fn is_changed(&mut self, range: &Range<u64>) -> bool {
        let behind = |(from, len): &(u64, u64)| from + len <= range.start;
        while self.changed.get(self.next).is_some_and(behind) {
            self.next += 1;
        }
        self.tell_ahead(range.end - range.start);
        self.changed.get(self.next).is_some_and(|(from, _)| *from < range.end)
    }

    /// Has the kernel told what is read next, with what a chunk there may need of its surroundings.
    fn tell_ahead(&mut self, reach: u64) {
        while self.untold < self.next + TOLD_AHEAD
            && let Some((from, len)) = self.changed.get(self.untold)
        {
            let start = from.saturating_sub(reach);
            // Only speed hangs on it.
            let _ = self
                .ahead
                .send((start, from - start + len.min(&TOLD_MAX_BYTES) + reach));
            self.untold += 1;
        }
    }

    /// A stretch without holes, to its end or to that of the file.
    pub(crate) fn stretch(&mut self, content: &mut Content<'_>, stretch: Range<u64>) -> Result<(), FillError> {
        let reach = content.lookahead_bytes() as u64;
        let mut at = stretch.start;
        while at < stretch.end {
            let ahead = at..stretch.end.min(at.saturating_add(reach));
            let had = self.map.at(at);
            let is_as_long = |end: u64| end.min(at.saturating_add(reach)) == ahead.end;
            let had = had.filter(|had| is_as_long(had.stretch_end) && had.part.bytes() <= ahead.end - at);
            let bytes = match had {
                Some(had) if !self.is_changed(&ahead) => {
                    content.take_over(had.part)?;
                    self.unread_bytes += had.part.bytes();
                    had.part.bytes()
                }
                _ => {
                    self.cancel.check()?;
                    let bytes = self.window.read(self.file, &ahead);
                    let bytes = bytes.map_err(|error| FillError::Read(error.into()))?;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    content.cut_first(bytes)? as u64
                }
            };
            Progress::add(&self.progress.bytes, bytes);
            at += bytes;
        }
        Ok(())
    }
}
