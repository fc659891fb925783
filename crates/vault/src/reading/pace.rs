//! Whether a file is being read in order, and how far to read ahead then.
//!
//! - Reads that come a little out of order, as from the kernel's own read-ahead, count as in order.
//! - The window grows with what has been read in a row, up to [`WINDOW_MAX_BYTES`]: little read costs little.

use std::ops::Range;

/// How far from where it is expected a read may begin, bytes: the largest request of a kernel's file system.
const SLACK_BYTES: u64 = 128 << 10;
/// Bytes read in a row before anything is read ahead.
const START_BYTES: u64 = 256 << 10;
/// Farthest that is read ahead, bytes.
const WINDOW_MAX_BYTES: u64 = 4 << 20;

/// Where one file was read last.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Where the reads in a row began, and where the next one would begin.
    row: Range<u64>,
    /// Up to where the file was read ahead.
    until: u64,
}

/// How a file is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Here and there: a chunk may be wanted again.
    Random,
    /// From one end to the other: no single chunk is worth keeping.
    InOrder,
}

/// What to do beside one read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// How the file is being read.
    pub(super) pattern: Pattern,
    /// What to fetch now; empty for nothing.
    pub(super) ahead: Range<u64>,
}

impl Pace {
    /// Notes a read of this range, and returns what to do beside it.
    pub(super) fn note(&mut self, read: Range<u64>) -> Advice {
        if read.start.abs_diff(self.row.end) > SLACK_BYTES {
            self.row = read.start..read.start;
            self.until = 0;
        }
        self.row.end = self.row.end.max(read.end);
        let in_row_bytes = self.row.end - self.row.start;
        if in_row_bytes < START_BYTES {
            let (pattern, ahead) = (Pattern::Random, 0..0);
            return Advice { pattern, ahead };
        }
        let window_bytes = in_row_bytes.min(WINDOW_MAX_BYTES);
        let mut ahead = 0..0;
        if self.until < self.row.end.saturating_add(window_bytes / 2) {
            let end = self.row.end.saturating_add(window_bytes);
            ahead = self.until.max(read.start)..end;
            self.until = end;
        }
        let pattern = Pattern::InOrder;
        Advice { pattern, ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 64 << 10;

    /// What was read ahead of `count` reads in a row from `start` on.
    fn in_order(pace: &mut Pace, start: u64, count: u64) -> Vec<Range<u64>> {
        let mut read = |at: u64| pace.note(start + at * READ..start + (at + 1) * READ).ahead;
        (0..count).map(&mut read).filter(|ahead| !ahead.is_empty()).collect()
    }

    #[test]
    fn reading_in_order_fetches_everything_once_in_growing_steps() {
        let mut pace = Pace::default();
        let ahead = in_order(&mut pace, 0, 640);
        assert_eq!(ahead[0], START_BYTES - READ..2 * START_BYTES);
        for (one, two) in ahead.iter().zip(&ahead[1..]) {
            assert_eq!(one.end, two.start);
        }
        let largest = ahead.iter().map(|ahead| ahead.end - ahead.start).max().unwrap();
        assert!(
            (WINDOW_MAX_BYTES / 2..=WINDOW_MAX_BYTES).contains(&largest),
            "{largest}"
        );
        let last = ahead.last().unwrap().end;
        assert!((640 * READ..=640 * READ + WINDOW_MAX_BYTES).contains(&last));
        assert!(ahead.len() < 40, "{}", ahead.len());
    }

    #[test]
    fn reads_here_and_there_fetch_nothing() {
        let mut pace = Pace::default();
        for at in 0..1000u64 {
            let start = (at * 7919 % 1000) << 20;
            let advice = pace.note(start..start + 4096);
            assert_eq!((advice.pattern, advice.ahead), (Pattern::Random, 0..0));
        }
    }

    #[test]
    fn a_little_disorder_is_order_and_a_jump_begins_anew() {
        let mut pace = Pace::default();
        let swapped = [1, 0, 3, 2, 5, 4, 7, 6u64];
        let advices = swapped.map(|at| pace.note(at * READ..(at + 1) * READ));
        assert_eq!(advices[7].pattern, Pattern::InOrder);
        let jumped = pace.note(1 << 40..(1 << 40) + READ);
        assert_eq!((jumped.pattern, jumped.ahead), (Pattern::Random, 0..0));
        assert_eq!(in_order(&mut pace, (1 << 40) + READ, 4).len(), 1);
    }

    #[test]
    fn the_end_of_the_largest_file_is_no_matter() {
        let mut pace = Pace::default();
        assert!(pace.note(u64::MAX - READ..u64::MAX).ahead.is_empty());
        let row = pace.note(u64::MAX - 2 * START_BYTES..u64::MAX);
        assert_eq!(row.ahead, u64::MAX - 2 * START_BYTES..u64::MAX);
        assert!(pace.note(u64::MAX - READ..u64::MAX).ahead.is_empty());
    }
}
