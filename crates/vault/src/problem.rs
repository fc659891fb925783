//! Partial failure as data: what went wrong with single files or objects while the rest went on.
//!
//! - Bounded: the first [`KEPT`] are kept, all are counted.

use std::fmt;

/// Problems kept in full; a report of a broken disk must not fill the memory.
const KEPT: usize = 1000;

/// Something that went wrong with one file or object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file, or name of the object.
    pub path: Vec<u8>,
    /// What went wrong and, where there is one, the next command.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.path.utf8_chunks() {
            for letter in piece.valid().chars() {
                if letter.is_control() {
                    write!(f, "{}", letter.escape_default())?
                } else {
                    write!(f, "{letter}")?
                }
            }
            piece.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The problems of one run.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    kept: Vec<Problem>,
    count: u64,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, path: impl Into<Vec<u8>>, what: impl fmt::Display) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Problem {
                path: path.into(),
                what: what.to_string(),
            });
        }
    }

    /// Adds all of another run's.
    pub fn append(&mut self, other: Self) {
        let room = KEPT.saturating_sub(self.kept.len());
        self.count += other.count;
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// How many there were, kept or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The kept ones, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.kept.iter()
    }
}
