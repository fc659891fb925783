//! What a file was made of before it was edited, walked once from its beginning.
//!
//! - A node is read only if something below it is needed; what lies before an offset is passed over without being read.
//! - Memory is one node of each depth.

use std::vec::IntoIter;

use drystone_format::ChunkId;
use drystone_format::recipe::{Part, Recipe, decode_node};

use crate::error::Result;
use crate::reading::reader::Reader;

/// A part of an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldPart {
    /// Where in the file it begins, bytes.
    pub start: u64,
    /// What is there.
    pub part: Part,
    /// 0 for what the file is made of; above it the part is a node with parts of one depth less.
    pub depth: u8,
}

/// Which nodes are wanted whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Of this depth at most; 0 if none.
    pub depth: u8,
    /// And that end here or earlier.
    pub end: u64,
}

impl Whole {
    /// No node.
    pub const LEAVES: Self = Self { depth: 0, end: 0 };

    fn takes(self, node: &OldPart) -> bool {
        node.depth <= self.depth && node.start.saturating_add(node.part.bytes()) <= self.end
    }
}

/// The parts of an old file, in order.
pub trait OldParts {
    /// Length of the old file, bytes.
    fn size_bytes(&self) -> u64;

    /// Returns the part that holds the byte at `offset`; `None` if it is not known or the file ended before. Offsets only grow.
    ///
    /// The part is a node only if that is wanted whole and begins at `offset`.
    fn at(&mut self, offset: u64, whole: Whole) -> Result<Option<OldPart>>;
}

/// The parts of a file that the vault holds, by its recipe. A writer's credential cannot read them.
pub struct OldRecipe {
    reader: Reader,
    size_bytes: u64,
    /// Parts that are not passed yet, of each depth that was entered, with that depth.
    levels: Vec<(u8, IntoIter<Part>)>,
    /// Where the first of them begins.
    start: u64,
    nodes_read: u64,
}

impl OldRecipe {
    /// The parts of `recipe`, whose nodes are read with `reader`.
    pub fn new(reader: Reader, recipe: &Recipe) -> Self {
        Self {
            reader,
            size_bytes: recipe.size_bytes,
            levels: vec![(recipe.depth, recipe.parts.clone().into_iter())],
            start: 0,
            nodes_read: 0,
        }
    }

    /// Nodes that were read so far.
    pub fn nodes_read(&self) -> u64 {
        self.nodes_read
    }

    fn enter(&mut self, id: &ChunkId, depth: u8, bytes: u64) -> Result<()> {
        self.nodes_read += 1;
        let node = self.reader.chunk(id)?;
        let parts = decode_node(&node, depth, bytes)?;
        self.levels.push((depth - 1, parts.into_iter()));
        Ok(())
    }
}

impl OldParts for OldRecipe {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn at(&mut self, offset: u64, whole: Whole) -> Result<Option<OldPart>> {
        while let Some((depth, parts)) = self.levels.last_mut() {
            let (depth, Some(part)) = (*depth, parts.as_slice().first().copied()) else {
                self.levels.pop();
                continue;
            };
            let (start, end) = (self.start, self.start.saturating_add(part.bytes()));
            let found = OldPart { start, part, depth };
            if start > offset {
                return Ok(None);
            }
            if end > offset && (depth == 0 || start == offset && whole.takes(&found)) {
                return Ok(Some(found));
            }
            parts.next();
            if end <= offset {
                self.start = end;
                continue;
            }
            let Part::Chunk { id, bytes } = part else {
                self.start = end;
                continue;
            };
            match self.enter(&id, depth, bytes) {
                Ok(()) => {}
                Err(error) if error.is_damage() && !error.is_absence() => self.start = end,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
