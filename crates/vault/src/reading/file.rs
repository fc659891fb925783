//! A file read from anywhere by many threads, as a mounted file system or a range of a request reads.
//!
//! - `read_at` takes `&self` and locks only for a moment, so that threads do not wait for each other.
//! - An error concerns only the range that was asked for; other ranges can still be read.
//! - The file itself holds little: nodes, chunks and frames lie in the caches of the vault, and within its budget.

use std::ops::Range;

use drystone_format::recipe::{Part, Recipe};
use parking_lot::Mutex;

use super::ahead::Keep;
use super::node::check_length;
use super::nodes::Top;
use super::pace::{Advice, Pace};
use crate::error::Result;
use crate::reading::reader::Reader;

/// Bytes of a read for which frames are fetched together; a longer read goes on with the next so many.
const STEP_BYTES: u64 = 4 << 20;
/// Reads longer than this may need several frames, which are then fetched together. Bytes.
const SEVERAL_BYTES: u64 = 64 << 10;

/// A stored file that is read by offset.
pub struct FileReader {
    reader: Reader,
    top: Top,
    pace: Mutex<Pace>,
}

impl Reader {
    /// Opens a file for reading at random. Reads nothing yet.
    ///
    /// [`Error::Format`](crate::Error::Format) if the recipe contradicts itself.
    pub fn file(&self, recipe: &Recipe) -> Result<FileReader> {
        Ok(FileReader {
            reader: self.clone(),
            top: Top::new(recipe)?,
            pace: Mutex::default(),
        })
    }
}

impl FileReader {
    /// Size of the file, bytes.
    pub fn len(&self) -> u64 {
        self.top.size_bytes
    }

    /// Returns true if the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the bytes of the file from `offset` on, and returns their count. The count is smaller than `out` only at the end of
    /// the file, and 0 behind it. Holes and zeros give zeros.
    ///
    /// Fetches ahead when reads follow each other. After an error `out` holds nothing of use.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let end = offset.saturating_add(out.len() as u64).min(self.len());
        let wanted = end.saturating_sub(offset) as usize;
        let mut rest = out.get_mut(..wanted).unwrap_or_default();
        let mut at = offset;
        while at < end {
            let step = at..end.min(at.saturating_add(STEP_BYTES));
            let (now, later) = std::mem::take(&mut rest).split_at_mut((step.end - step.start) as usize);
            at = step.end;
            rest = later;
            self.read_step(step, now)?;
        }
        Ok(wanted)
    }

    /// Fills `out` with a range that lies within the file.
    fn read_step(&self, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let Advice { pattern, ahead } = self.pace.lock().note(range.clone());
        if !ahead.is_empty() {
            self.fetch(ahead);
        } else if range.end - range.start > SEVERAL_BYTES {
            self.fetch(range.clone());
        }
        let mut rest = out;
        let mut at = range.start;
        self.top.each_part(&self.reader, range, &mut |start, part| {
            let skip = at - start;
            let count = (part.bytes() - skip).min(rest.len() as u64) as usize;
            let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
            at += count as u64;
            rest = later;
            let Part::Chunk { id, bytes } = part else {
                now.fill(0);
                return Ok(());
            };
            self.reader.with_chunk(&id, pattern, &mut |chunk: &[u8]| {
                check_length(&id, chunk.len(), bytes)?;
                if let Some(from) = chunk.get(skip as usize..).and_then(|chunk| chunk.get(..count)) {
                    now.copy_from_slice(from);
                }
                Ok(())
            })
        })
    }

    /// Begins to fetch the frames of a range that are neither here nor on their way. Errors are left to the read of the frame.
    fn fetch(&self, range: Range<u64>) {
        let mut wanted = Vec::new();
        let gathered = self.top.each_part(&self.reader, range, &mut |_, part| {
            if let Part::Chunk { id, .. } = part {
                wanted.extend(self.reader.frame_of(&id)?);
            }
            Ok(())
        });
        if gathered.is_ok() {
            for range in self.reader.requests(wanted) {
                self.reader.fetch(&range, Keep::WhileThereIsRoom);
            }
        }
    }
}
