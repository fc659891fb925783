//! Editing: from a file's old recipe and what changed, the recipe that cutting the whole new file would give, reading only around the edits.
//!
//! - Where a chunk ends is decided by the bytes from its beginning on, as many as a chunk may have, and by the end of its stretch of data.
//!   An old chunk is taken over if the new cuts come to where it began and all of that is unchanged. Anything else is read and cut.
//! - Zeros are taken over wherever the new cuts meet them: among zeros the chunker needs no bytes to know where it cuts.
//! - A node is taken over unread if everything below it would be taken over and the new recipe has no node begun that would hold a part
//!   of it (`RecipeBuilder::push_whole`): nodes end where their parts say, so the new recipe has that very node too.
//! - A chunk is taken over only if a new snapshot may rely on it. Otherwise its bytes are read, and stored again.
//! - Memory is one buffer of a mebibyte and a chunk, and one node of each depth, whatever the size of the file and the number of edits.
//! - All this holds for an old recipe that this chunker and this builder made. Another one gives a recipe of the right content,
//!   though perhaps not the one that cutting anew would give.

mod edited;
mod old;
mod window;

use std::io;
use std::ops::Range;

use drystone_format::ChunkId;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::seal::PackKind;

use crate::error::Result;
use crate::writing::lane::{Cutter, FillError, Lane};
pub use edited::{Edited, Stretch};
pub use old::{OldPart, OldParts, OldRecipe, Whole};
use window::Window;

/// How far the old chunks may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliance {
    /// All of them were reliable at this [loss epoch](crate::Vault::loss_epoch). While it lasts, none is asked for again.
    SinceLoss(u64),
    /// The index is asked for each chunk, so every node is read.
    Unknown,
}

/// How an edit is made.
#[derive(Debug, Clone, Copy)]
pub struct EditOptions {
    /// How far the old chunks may be relied on.
    pub reliance: Reliance,
    /// Keeps the parts of the new file in memory if there are at most so many. Then no node is taken over unread.
    pub keep_parts: Option<usize>,
}

/// What came of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditReport {
    /// The recipe of the file as it is now. It covers less than the file's length if the file ended earlier when it was read.
    pub recipe: Recipe,
    /// Its parts in order, if they were to be kept and are not too many.
    pub parts: Option<Vec<Part>>,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of the file that were taken over unread: chunks, zeros, and nodes with the holes in them.
    pub reused_bytes: u64,
}

impl Lane {
    /// Takes in a file that had the parts `old` and is `new` now.
    ///
    /// Around each edit it reads from the beginning of the first chunk that sees the edit, less than [`Lane::lookahead_bytes`] before
    /// it, up to the point behind the edit where new cuts and old ones meet, and the lookahead from there. Cuts of random bytes meet
    /// after a chunk or two; of periodic bytes they need not meet before the period ends. A run of zeros that holds an edit, or
    /// ends less than the lookahead before one, is read once more at its end. The edits themselves are read where they are data.
    ///
    /// What of the old recipe is damaged counts as changed.
    pub fn edit(
        &mut self,
        old: &mut dyn OldParts,
        new: &mut dyn Edited,
        options: EditOptions,
    ) -> Result<EditReport, FillError> {
        let mut editor = Editor::new(self, (old, new), options);
        let edited = editor.run();
        let Editor {
            lane,
            cutter,
            window,
            reused_bytes,
            ..
        } = editor;
        let read_bytes = window.read_bytes;
        lane.input = window.into_buffer();
        edited?;
        let (recipe, parts) = cutter.finish(lane)?;
        Ok(EditReport {
            recipe,
            parts,
            read_bytes,
            reused_bytes,
        })
    }
}

/// One edit under way. Everything before `at` is done.
struct Editor<'a> {
    lane: &'a mut Lane,
    cutter: Cutter,
    old: &'a mut dyn OldParts,
    new: &'a mut dyn Edited,
    reliance: Reliance,
    window: Window,
    at: u64,
    size_bytes: u64,
    /// Where the lengths begin to differ; beyond all offsets if they do not.
    tail: u64,
    lookahead: u64,
    /// The edit that was asked for last; empty at the end of all offsets if there is none left.
    edit: Range<u64>,
    /// The stretch that was asked for last.
    stretch: Option<Stretch>,
    /// Length of a chunk amid zeros, once it is known.
    zeros_bytes: Option<u64>,
    reused_bytes: u64,
}

impl<'a> Editor<'a> {
    fn new(lane: &'a mut Lane, (old, new): (&'a mut dyn OldParts, &'a mut dyn Edited), options: EditOptions) -> Self {
        let mut cutter = Cutter::new(PackKind::Data, lane.shared.data_chunker);
        if let Some(max) = options.keep_parts {
            cutter.keep_parts(max);
        }
        let (had, has) = (old.size_bytes(), new.size_bytes());
        Self {
            window: Window::new(lane.take_input()),
            lookahead: lane.lookahead_bytes(),
            lane,
            cutter,
            old,
            new,
            reliance: options.reliance,
            at: 0,
            size_bytes: has,
            tail: if had == has { u64::MAX } else { had.min(has) },
            edit: 0..0,
            stretch: None,
            zeros_bytes: None,
            reused_bytes: 0,
        }
    }

    fn run(&mut self) -> Result<(), FillError> {
        while self.at < self.size_bytes {
            self.lane.shared.check()?;
            let bytes = self.step()?;
            if bytes == 0 {
                break;
            }
            self.at += bytes;
            self.new.done(self.at);
        }
        Ok(())
    }

    /// Takes in what comes next, as much as is known at once; returns its bytes, 0 if the file ends early.
    fn step(&mut self) -> Result<u64, FillError> {
        let clean_to = self.clean_to()?;
        if self.at.saturating_add(self.lookahead) <= clean_to
            && let Some(bytes) = self.reuse_node(clean_to)?
        {
            return Ok(bytes);
        }
        match self.stretch()? {
            Stretch::Hole(end) => {
                let bytes = end - self.at;
                self.cutter.push(self.lane, Part::Hole(bytes))?;
                Ok(bytes)
            }
            Stretch::Data(end) => {
                if self.sees_from(self.at, end) <= clean_to
                    && let Some(part) = self.reusable(end, clean_to)?
                {
                    return self.reuse(part);
                }
                self.cut(end)
            }
        }
    }

    /// The end of what decides how a chunk is cut that begins at `start`, in data up to `end`. That the data ends there is one byte more.
    fn sees_from(&self, start: u64, end: u64) -> u64 {
        start.saturating_add(self.lookahead).min(end.saturating_add(1))
    }

    /// Where the next byte is, from here on, that may have changed.
    fn clean_to(&mut self) -> Result<u64, FillError> {
        if self.edit.end <= self.at {
            let edit = self.new.edit(self.at).map_err(FillError::Read)?;
            self.edit = edit.unwrap_or(u64::MAX..u64::MAX);
            if self.edit.end <= self.at {
                return Err(out_of_order("an edit"));
            }
        }
        Ok(self.edit.start.min(self.tail).max(self.at))
    }

    fn stretch(&mut self) -> Result<Stretch, FillError> {
        if let Some(stretch) = self.stretch.filter(|stretch| stretch.end() > self.at) {
            return Ok(stretch);
        }
        let stretch = match self.new.stretch(self.at).map_err(FillError::Read)? {
            Stretch::Data(end) => Stretch::Data(end.min(self.size_bytes)),
            Stretch::Hole(end) => Stretch::Hole(end.min(self.size_bytes)),
        };
        if stretch.end() <= self.at {
            return Err(out_of_order("a stretch"));
        }
        Ok(*self.stretch.insert(stretch))
    }

    /// Takes over an old node that begins here, unread, if its last chunk sees nothing that may have changed.
    fn reuse_node(&mut self, clean_to: u64) -> Result<Option<u64>, FillError> {
        let whole = Whole {
            depth: if self.relies_on_all() && !self.cutter.keeps_parts() {
                self.cutter.recipe.whole_depth()
            } else {
                0
            },
            end: clean_to - self.lookahead + 1,
        };
        let Some(OldPart { start, part, depth }) = self.old.at(self.at, whole)? else {
            return Ok(None);
        };
        let is_whole = depth > 0 && depth <= whole.depth && start + part.bytes() <= whole.end;
        if !is_whole || start != self.at || start + part.bytes() > self.size_bytes {
            return Ok(None);
        }
        self.lane.take_over(depth, part)?;
        self.cutter.push_whole(self.lane, depth, part)?;
        self.reused_bytes += part.bytes();
        Ok(Some(part.bytes()))
    }

    /// What of the old file is certain to be cut here as well, in data up to `end`.
    fn reusable(&mut self, end: u64, clean_to: u64) -> Result<Option<Part>, FillError> {
        let old = self.old.at(self.at, Whole::LEAVES)?;
        let Some(old) = old.filter(|old| old.start <= self.at) else {
            return Ok(None);
        };
        let is_whole = old.depth == 0 && old.start == self.at && old.part.bytes() <= end - self.at;
        match old.part {
            Part::Zeros(bytes) if old.depth == 0 => {
                let run_end = old.start.saturating_add(bytes).min(end);
                let is_clean = self.sees_from(run_end.saturating_sub(1), end) <= clean_to;
                // Where the first chunk of the run ends matters at the end of a node, and shows only in a long run.
                let is_known = bytes >= self.lookahead || !self.cutter.recipe.splits_zeros();
                if is_whole && is_clean && is_known {
                    return Ok(Some(old.part));
                }
                Ok(self.zeros_within(run_end.min(clean_to)))
            }
            Part::Chunk { id, bytes } if is_whole && bytes <= self.lookahead => {
                Ok(self.may_rely_on(&id)?.then_some(old.part))
            }
            _ => Ok(None),
        }
    }

    /// As many zeros as are certain to be chunks of zeros, if it is zeros up to `end`.
    fn zeros_within(&mut self, end: u64) -> Option<Part> {
        let more = end.checked_sub(self.at)?.checked_sub(self.lookahead)?;
        let bytes = self.zeros_bytes();
        Some(Part::Zeros(bytes + more / bytes * bytes))
    }

    fn zeros_bytes(&mut self) -> u64 {
        let chunker = &self.cutter.chunker;
        let cut = || chunker.next(&vec![0; chunker.lookahead_bytes()]).max(1) as u64;
        *self.zeros_bytes.get_or_insert_with(cut)
    }

    fn reuse(&mut self, part: Part) -> Result<u64, FillError> {
        match part {
            // The first chunk by itself: it may end a node.
            Part::Zeros(bytes) if self.cutter.recipe.splits_zeros() => {
                let first = self.zeros_bytes().min(bytes);
                self.cutter.push(self.lane, Part::Zeros(first))?;
                self.cutter.push(self.lane, Part::Zeros(bytes - first))?;
            }
            part => {
                self.lane.take_over(0, part)?;
                self.cutter.push(self.lane, part)?;
            }
        }
        self.reused_bytes += part.bytes();
        Ok(part.bytes())
    }

    /// Reads the next chunk of data that ends at `end`, and what decides where the chunk ends.
    fn cut(&mut self, end: u64) -> Result<u64, FillError> {
        let ahead = self.at..self.at.saturating_add(self.lookahead).min(end);
        // All of an edit will be read.
        let surely_to = match self.edit.contains(&self.at) {
            true => self.edit.end.min(end),
            false if self.at >= self.tail => end,
            false => self.at,
        };
        let bytes = self.window.read(self.new, &ahead, surely_to).map_err(FillError::Read)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        Ok(self.cutter.cut_first(self.lane, bytes)? as u64)
    }

    fn relies_on_all(&self) -> bool {
        matches!(self.reliance, Reliance::SinceLoss(epoch) if epoch == self.lane.shared.loss_epoch())
    }

    fn may_rely_on(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.relies_on_all() || self.lane.shared.admit.has(id)?)
    }
}

/// The error of an [`Edited`] whose answer lies behind the offset that was asked for.
fn out_of_order(what: &str) -> FillError {
    FillError::Read(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what} is out of order"),
    ))
}
