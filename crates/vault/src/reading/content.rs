//! Files and directories as streams over their recipes; O(depth) memory, whatever their size.
//!
//! - A hostile recipe costs no more than its own size: parts must cover exactly what they claim, nodes have a limit.

use std::io;
use std::vec::IntoIter;

use drystone_format::ChunkId;
use drystone_format::limits::RECIPE_NODE_MAX_PARTS;
use drystone_format::recipe::{Part, Recipe, decode_node};
use drystone_format::tree::{Entry, TreeDecoder};

use crate::error::{Error, Result};
use crate::reading::frames::ChunkBytes;
use crate::reading::node::check_length;
use crate::reading::reader::Reader;

impl Reader {
    /// The stretches of a file, in order, without reading its data.
    pub fn parts(&self, recipe: &Recipe) -> Parts {
        Parts::new(self.clone(), recipe)
    }

    /// The bytes of a file.
    pub fn content(&self, recipe: &Recipe) -> ContentReader {
        ContentReader::new(self.clone(), recipe)
    }

    /// The entries of a directory.
    pub fn tree(&self, recipe: &Recipe) -> TreeReader {
        TreeReader::new(self.clone(), recipe)
    }
}

/// The stretches of a file in order; reads recipe nodes as it comes to them. After an error it goes on behind what is lost.
pub struct Parts {
    reader: Reader,
    stack: Vec<(u8, IntoIter<Part>)>,
    offset: u64,
    skip_to: u64,
}

impl Parts {
    pub(crate) fn new(reader: Reader, recipe: &Recipe) -> Self {
        Self {
            reader,
            stack: vec![(recipe.depth, recipe.parts.clone().into_iter())],
            offset: 0,
            skip_to: 0,
        }
    }

    /// Leaves out parts that end at or before `offset`, reading only the nodes on the way; forward only.
    pub fn skip_to(&mut self, offset: u64) {
        self.skip_to = self.skip_to.max(offset);
    }

    fn held_bytes(&self) -> usize {
        self.stack.len().saturating_sub(1) * RECIPE_NODE_MAX_PARTS * size_of::<Part>()
    }

    /// Where in the file the next part begins, bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn node(&self, id: &ChunkId, depth: u8, bytes: u64) -> Result<Vec<Part>> {
        Ok(decode_node(&self.reader.chunk(id)?, depth, bytes)?)
    }

    fn advance(&mut self) -> Result<Option<Part>> {
        while let Some((depth, parts)) = self.stack.last_mut() {
            let (depth, Some(part)) = (*depth, parts.next()) else {
                self.stack.pop();
                continue;
            };
            if self.offset + part.bytes() <= self.skip_to {
                self.offset += part.bytes();
                continue;
            }
            match part {
                Part::Chunk { id, bytes } if depth > 0 => match self.node(&id, depth, bytes) {
                    Ok(parts) => self.stack.push((depth - 1, parts.into_iter())),
                    Err(error) => {
                        // What follows is still where the recipe says.
                        self.offset += bytes;
                        return Err(error);
                    }
                },
                part => {
                    self.offset += part.bytes();
                    return Ok(Some(part));
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Parts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.advance().transpose()
    }
}

/// A stretch of a file, read.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where in the file it begins, bytes.
    pub offset: u64,
    /// What is there.
    pub data: PieceData,
}

/// What a stretch of a file is.
#[derive(Debug, Clone)]
pub enum PieceData {
    /// Bytes.
    Bytes(ChunkBytes),
    /// So many zeros that were written.
    Zeros(u64),
    /// So many bytes that were never written.
    Hole(u64),
}

/// The bytes of a file, from any offset.
pub struct ContentReader {
    reader: Reader,
    recipe: Recipe,
    parts: Parts,
    offset: u64,
    pending: Option<PieceData>,
}

impl ContentReader {
    pub(crate) fn new(reader: Reader, recipe: &Recipe) -> Self {
        let parts = Parts::new(reader.clone(), recipe);
        Self {
            reader,
            recipe: recipe.clone(),
            parts,
            offset: 0,
            pending: None,
        }
    }

    /// Continues at `offset`.
    pub fn seek(&mut self, offset: u64) {
        self.pending = None;
        if offset < self.parts.offset() {
            self.parts = Parts::new(self.reader.clone(), &self.recipe);
        }
        // Not `skip_to`, which only goes forward: an earlier seek may have gone further without anything being read.
        self.parts.skip_to = offset;
        self.offset = offset;
    }

    /// The next stretch: from the offset that was sought to the end of its chunk, then chunk by chunk.
    ///
    /// After an error that [is damage](Error::is_damage) the next call goes on behind what is lost.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        let Some(part) = self.parts.advance()? else {
            return Ok(None);
        };
        let start = self.parts.offset() - part.bytes();
        let skip = self.offset.saturating_sub(start);
        let data = match part {
            Part::Zeros(bytes) => PieceData::Zeros(bytes - skip),
            Part::Hole(bytes) => PieceData::Hole(bytes - skip),
            Part::Chunk { id, bytes } => {
                let chunk = self.reader.chunk(&id)?;
                check_length(&id, chunk.len(), bytes)?;
                PieceData::Bytes(chunk.skip(skip as usize))
            }
        };
        let offset = start + skip;
        self.offset = self.parts.offset();
        Ok(Some(Piece { offset, data }))
    }
}

impl io::Read for ContentReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let data = match self.pending.take() {
            Some(data) => data,
            None => match self.next_piece().map_err(io::Error::other)? {
                Some(piece) => piece.data,
                None => return Ok(0),
            },
        };
        let (count, rest) = match data {
            PieceData::Bytes(bytes) => {
                let count = bytes.len().min(out.len());
                let (now, _) = bytes.split_at(count);
                if let Some(out) = out.get_mut(..count) {
                    out.copy_from_slice(now);
                }
                (
                    count,
                    (count < bytes.len()).then(|| PieceData::Bytes(bytes.skip(count))),
                )
            }
            PieceData::Zeros(bytes) | PieceData::Hole(bytes) => {
                let count = bytes.min(out.len() as u64);
                out.get_mut(..count as usize).unwrap_or_default().fill(0);
                (
                    count as usize,
                    (count < bytes).then_some(PieceData::Zeros(bytes - count)),
                )
            }
        };
        self.pending = rest;
        Ok(count)
    }
}

/// The entries of a directory in order of their names.
pub struct TreeReader {
    content: ContentReader,
    decoder: Option<TreeDecoder>,
    /// Of the last piece, and of all pieces since that an entry was not finished with.
    fed_bytes: (usize, usize),
}

impl TreeReader {
    pub(crate) fn new(reader: Reader, recipe: &Recipe) -> Self {
        Self {
            content: ContentReader::new(reader, recipe),
            decoder: Some(TreeDecoder::default()),
            fed_bytes: (0, 0),
        }
    }

    /// About the memory that it takes, bytes: for who keeps one for each level of a deep tree.
    pub fn held_bytes(&self) -> usize {
        let inline = 2 * self.content.recipe.parts.len() * size_of::<Part>();
        self.fed_bytes.1 + self.content.parts.held_bytes() + inline
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        while let Some(decoder) = &mut self.decoder {
            if let Some(entry) = decoder.next_entry()? {
                self.fed_bytes.1 = self.fed_bytes.0;
                return Ok(Some(entry));
            }
            match self.content.next_piece()? {
                Some(Piece {
                    data: PieceData::Bytes(bytes),
                    ..
                }) => {
                    decoder.feed(&bytes);
                    self.fed_bytes = (bytes.len(), self.fed_bytes.1 + bytes.len());
                }
                Some(_) => {
                    let why = "zeros in a tree".to_owned();
                    return Err(Error::Format(drystone_format::Error::Malformed {
                        object: "tree",
                        offset: 0,
                        why,
                    }));
                }
                None => self.decoder.take().map_or(Ok(()), TreeDecoder::finish)?,
            }
        }
        Ok(None)
    }
}

impl Iterator for TreeReader {
    type Item = Result<Entry>;

    /// After an error the stream is over.
    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.decoder = None;
        }
        next
    }
}
