//! The bytes of an edited file that were read and are still needed.
//!
//! - Nothing is read twice, and what is held never exceeds the buffer.

use std::io;
use std::ops::Range;

use super::edited::Edited;
use crate::writing::flow::READ_BYTES;

/// Bytes of a file around one offset, which only grows.
pub(super) struct Window {
    buffer: Vec<u8>,
    /// Where in the buffer the first byte is that is held.
    place: usize,
    /// What of the file is held.
    held: Range<u64>,
    /// Bytes that were read in all.
    pub(super) read_bytes: u64,
}

impl Window {
    pub(super) fn new(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            place: 0,
            held: 0..0,
            read_bytes: 0,
        }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Returns the bytes of `range`, fewer if the file ends before; what is before it is given up. Reads ahead up to `surely_to`, as far as
    /// there is room.
    pub(super) fn read(&mut self, file: &mut dyn Edited, range: &Range<u64>, surely_to: u64) -> io::Result<&[u8]> {
        self.give_up_to(range.start);
        if self.held.end < range.end {
            self.fill(file, range, surely_to)?;
        }
        let len = (range.end.min(self.held.end) - range.start) as usize;
        Ok(self.buffer.get(self.place..self.place + len).unwrap_or_default())
    }

    fn give_up_to(&mut self, start: u64) {
        if start >= self.held.end {
            self.place = 0;
            self.held = start..start;
        } else {
            self.place += (start - self.held.start) as usize;
            self.held.start = start;
        }
    }

    fn fill(&mut self, file: &mut dyn Edited, range: &Range<u64>, surely_to: u64) -> io::Result<()> {
        let to = range
            .end
            .max(surely_to.min(range.start.saturating_add(READ_BYTES as u64)));
        let wanted = (to - range.start) as usize;
        let mut len = (self.held.end - self.held.start) as usize;
        if self.place + wanted > self.buffer.len() {
            self.buffer.copy_within(self.place..self.place + len, 0);
            self.place = 0;
        }
        while self.held.end < range.end {
            let room = self.buffer.get_mut(self.place + len..self.place + wanted);
            let room = room.unwrap_or_default();
            let count = file.read_at(self.held.end, room)?.min(room.len());
            if count == 0 {
                break;
            }
            len += count;
            self.held.end += count as u64;
            self.read_bytes += count as u64;
        }
        Ok(())
    }
}
