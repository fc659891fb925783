//! A large file that changed, as an edit of the vault asks for it: where it lies elsewhere, where its holes are, its bytes.
//!
//! - Which bytes are as they were is told by where they lie, and by where holes are. A change of the file meanwhile is noticed by the caller.
//! - The kernel is told of changes before they are read.

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;

use crossbeam_channel::{Sender, unbounded};
use drystone_vault::{Edited, Progress, Stretch};
use rustix::fs::{Advice, fadvise};
use rustix::io::{pread, retry_on_intr};

use crate::error::spawn_some;

/// Changes that the kernel is told of before they are read.
const TOLD_AHEAD: usize = 256;
/// Bytes of a change that it is told of: beyond that it reads ahead of its own accord.
const TOLD_MAX_BYTES: u64 = 64 << 10;

/// Threads that tell it: each waits for where the bytes lie, and for their checksums.
const TELLERS: usize = 4;

/// Does `work`, which sends ranges of what it will read of the file: the kernel reads that ahead.
///
/// Else each of many small changes would wait for the disk by itself, and nothing of a new snapshot is in memory.
pub(crate) fn with_ahead<R>(file: &OwnedFd, work: impl FnOnce(Sender<Range<u64>>) -> R) -> R {
    let (ahead, told) = unbounded::<Range<u64>>();
    std::thread::scope(|scope| {
        let tell = move || {
            for range in told {
                let bytes = NonZeroU64::new(range.end - range.start);
                let _ = fadvise(file, range.start, bytes, Advice::WillNeed);
            }
        };
        // Only speed hangs on it, and on what it does.
        let _ = spawn_some(scope, TELLERS, tell);
        work(ahead)
    })
}

/// What may differ in a file: the ranges in `changed`, and what is in a stretch of data in only one of two states.
pub(crate) fn differences(changed: &[(u64, u64)], before: &[Range<u64>], now: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ends: Vec<u64> = before
        .iter()
        .chain(now)
        .flat_map(|stretch| [stretch.start, stretch.end])
        .collect();
    ends.sort_unstable();
    let (of_one, _) = ends.as_chunks::<2>();
    let of_one = of_one.iter().map(|[start, end]| *start..*end);
    let changed = changed.iter().map(|(start, bytes)| *start..start + bytes);
    let mut all: Vec<Range<u64>> = of_one.chain(changed).filter(|range| !range.is_empty()).collect();
    all.sort_unstable_by_key(|range| range.start);
    all
}

/// A file that is read again.
pub(crate) struct Again<'a> {
    pub(crate) file: &'a OwnedFd,
    pub(crate) size_bytes: u64,
    /// Its stretches without holes, in order.
    pub(crate) stretches: &'a [Range<u64>],
    /// What may have changed, in order of the beginnings.
    pub(crate) changed: &'a [Range<u64>],
    /// What a chunk may need of its surroundings, bytes.
    pub(crate) lookahead: u64,
    /// Hears what will be read.
    pub(crate) ahead: Sender<Range<u64>>,
    pub(crate) progress: &'a Progress,
    /// What of all this is behind.
    pub(crate) behind: Behind,
}

/// How far a file was read again.
#[derive(Default)]
pub(crate) struct Behind {
    offset: u64,
    stretches: usize,
    changed: usize,
    /// Changes that the kernel was told of.
    told: usize,
}

/// Moves `behind` past all ranges that end at or before `offset`; returns the next one.
fn pass<'a>(ranges: &'a [Range<u64>], behind: &mut usize, offset: u64) -> Option<&'a Range<u64>> {
    while ranges.get(*behind).is_some_and(|range| range.end <= offset) {
        *behind += 1;
    }
    ranges.get(*behind)
}

impl Again<'_> {
    /// Has the kernel told what is read next.
    fn tell_ahead(&mut self) {
        while self.behind.told < self.behind.changed + TOLD_AHEAD
            && let Some(change) = self.changed.get(self.behind.told)
        {
            let end = change.end.min(change.start + TOLD_MAX_BYTES);
            // Only speed hangs on it.
            let _ = self
                .ahead
                .send(change.start.saturating_sub(self.lookahead)..end + self.lookahead);
            self.behind.told += 1;
        }
    }
}

impl Edited for Again<'_> {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let next = pass(self.changed, &mut self.behind.changed, offset);
        self.tell_ahead();
        Ok(next.cloned())
    }

    fn stretch(&mut self, offset: u64) -> io::Result<Stretch> {
        let next = pass(self.stretches, &mut self.behind.stretches, offset);
        Ok(match next {
            Some(stretch) if stretch.start <= offset => Stretch::Data(stretch.end),
            Some(stretch) => Stretch::Hole(stretch.start),
            None => Stretch::Hole(self.size_bytes),
        })
    }

    fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| pread(self.file, &mut *room, offset))?)
    }

    fn done(&mut self, offset: u64) {
        Progress::add(&self.progress.bytes, offset - self.behind.offset);
        self.behind.offset = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_hole_in_one_state_only_differs() {
        let found = differences(&[(3, 4), (90, 5)], &[0..10, 20..30, 50..60], &[0..10, 20..25, 40..60]);
        assert_eq!(found, [3..7, 25..30, 40..50, 90..95]);
        let same = [0..8, 9..10];
        assert_eq!(differences(&[], &same, &same), []);
        assert_eq!(differences(&[], &[], &same), same);
    }
}
