//! One thread's way into the vault: bytes are cut, named, admitted, and gathered into frames.
//!
//! - Equal bytes give equal recipes, whatever the reads that delivered them.
//! - Runs of zeros become parts without a chunk.
//! - A lane must be finished: chunks in its open frames are promised to the whole run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use drystone_format::ChunkId;
use drystone_format::chunker::Chunker;
use drystone_format::recipe::{Part, Recipe, RecipeBuilder};
use drystone_format::seal::PackKind;
use drystone_format::tree::append_encoded;
use parking_lot::Mutex;
use thiserror::Error as ThisError;

use crate::error::{Error, Result};
use crate::writing::admit::Claim;
use crate::writing::flights::Ticket;
use crate::writing::flow::READ_BYTES;
use crate::writing::frame_size::FrameSize;
use crate::writing::open_frames::OpenFrames;
use crate::writing::relied::Relied;
use crate::writing::shared::Shared;

/// Why a file could not be taken in.
#[derive(Debug, ThisError)]
pub enum FillError {
    /// The source failed; the run can go on without it.
    #[error("{0}")]
    Read(io::Error),
    /// The vault failed; the run is over.
    #[error(transparent)]
    Vault(#[from] Error),
}

/// The lane of one thread.
pub struct Lane {
    pub(crate) shared: Arc<Shared>,
    /// Other threads hand its frames over where they wait for a chunk in them.
    open: Arc<Mutex<OpenFrames>>,
    /// What the commit relies on that the lane belongs to.
    relied: Option<Arc<Relied>>,
    /// For what is read: a mebibyte and a chunk's lookahead.
    pub(crate) input: Vec<u8>,
}

impl Lane {
    pub(crate) fn new(shared: Arc<Shared>, frames: FrameSize, relied: Option<Arc<Relied>>) -> Self {
        let open = OpenFrames::new(frames.data_bytes(), frames.meta_bytes());
        let open = Arc::new(Mutex::new(open));
        shared.add_lane(&open);
        Self {
            shared,
            open,
            relied,
            input: Vec::new(),
        }
    }

    /// Stores `chunk` unless the vault has it; returns its name.
    pub(crate) fn put(&mut self, kind: PackKind, chunk: &[u8]) -> Result<ChunkId> {
        Ok(self.put_chunk(kind, chunk)?.0)
    }

    /// The same; says also when the chunk is durable.
    pub(crate) fn put_chunk(&mut self, kind: PackKind, chunk: &[u8]) -> Result<(ChunkId, Ticket)> {
        let shared = &self.shared;
        let id = shared.hasher.id(chunk);
        let mut open = self.open.lock();
        let frame = open.of(kind);
        let claim = shared
            .admit
            .claim(&id, || frame.frame_for(chunk.len(), &shared.flights))?;
        if let Claim::New(_) = claim {
            shared.new_chunks.fetch_add(1, Ordering::Relaxed);
            shared.new_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            frame.push(&**shared, id, chunk)?;
        }
        drop(open);
        if let Some(relied) = &self.relied {
            relied.add(&id, claim, &shared.flights);
        }
        let ticket = match claim {
            Claim::New(frame) | Claim::UnderWay(frame) => Some(frame),
            Claim::Durable => None,
        };
        Ok((id, Ticket(ticket)))
    }

    /// Takes in one file.
    pub fn content(&mut self) -> Content<'_> {
        self.input = self.take_input();
        Content {
            cutter: Cutter::new(PackKind::Data, self.shared.data_chunker),
            lane: self,
            filled: 0,
        }
    }

    /// Takes note that the commit of this lane relies on a part of an old recipe, which is of this depth.
    pub(crate) fn take_over(&self, depth: u8, part: Part) -> Result<()> {
        let (Some(relied), Part::Chunk { id, .. }) = (&self.relied, part) else {
            return Ok(());
        };
        if depth > 0 {
            relied.add_recipe(Recipe {
                size_bytes: part.bytes(),
                depth,
                parts: vec![part],
            });
        } else if let Some(claim) = self.shared.admit.find(&id)? {
            relied.add(&id, claim, &self.shared.flights);
        }
        Ok(())
    }

    /// Bytes from the beginning of a chunk of file data that decide where it ends, unless its stretch ends earlier.
    pub fn lookahead_bytes(&self) -> u64 {
        self.shared.data_chunker.lookahead_bytes() as u64
    }

    /// Returns the lane's buffer for what it reads, to be given back.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.input);
        if input.is_empty() {
            // Less than a chunk's lookahead is left when more is read.
            input.resize(READ_BYTES + self.shared.data_chunker.lookahead_bytes(), 0);
        }
        input
    }

    /// Hands over what is left in the open frames.
    pub fn finish(self) -> Result<()> {
        self.open.lock().submit(&*self.shared, |_| true)
    }
}

/// Cuts one stream into chunks and writes down its recipe.
pub(crate) struct Cutter {
    kind: PackKind,
    pub(crate) chunker: Chunker,
    pub(crate) recipe: RecipeBuilder,
    size_bytes: u64,
    kept: Option<Kept>,
}

/// The parts of a stream without its nodes, for a caller that keeps them itself.
struct Kept {
    parts: Vec<Part>,
    /// With more parts than this none are kept: they are held in memory.
    max: usize,
}

/// Whether more of a stream follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Follows,
    Ends,
}

impl Cutter {
    pub(crate) fn new(kind: PackKind, chunker: Chunker) -> Self {
        Self {
            kind,
            chunker,
            recipe: RecipeBuilder::default(),
            size_bytes: 0,
            kept: None,
        }
    }

    /// Takes in the chunks that are certain in `ahead`; returns how many bytes they had.
    fn cut(&mut self, lane: &mut Lane, ahead: &[u8], more: More) -> Result<usize> {
        let mut rest = ahead;
        while !rest.is_empty() && (more == More::Ends || rest.len() >= self.chunker.lookahead_bytes()) {
            let cut = self.cut_first(lane, rest)?;
            rest = rest.get(cut..).unwrap_or_default();
        }
        Ok(ahead.len() - rest.len())
    }

    /// Keeps the parts from now on, runs of zeros as one each, as long as there are at most `max`.
    pub(crate) fn keep_parts(&mut self, max: usize) {
        self.kept = Some(Kept { parts: Vec::new(), max });
    }

    /// Returns true if the parts are being kept.
    pub(crate) fn keeps_parts(&self) -> bool {
        self.kept.is_some()
    }

    /// Takes in the first chunk of `ahead`, which is the rest of a stretch without holes or at least the chunker's lookahead of it;
    /// returns how many bytes the chunk had.
    pub(crate) fn cut_first(&mut self, lane: &mut Lane, ahead: &[u8]) -> Result<usize> {
        let (chunk, _) = ahead.split_at(self.chunker.next(ahead).min(ahead.len()));
        let bytes = chunk.len() as u64;
        let is_zero = self.kind == PackKind::Data && chunk.iter().all(|byte| *byte == 0);
        let part = if is_zero {
            Part::Zeros(bytes)
        } else {
            Part::Chunk {
                id: lane.put(self.kind, chunk)?,
                bytes,
            }
        };
        self.push(lane, part)?;
        Ok(chunk.len())
    }

    /// Appends a leaf of the recipe.
    pub(crate) fn push(&mut self, lane: &mut Lane, part: Part) -> Result<()> {
        self.push_whole(lane, 0, part)
    }

    /// Appends a part of `depth`, as [`RecipeBuilder::push_whole`] does.
    pub(crate) fn push_whole(&mut self, lane: &mut Lane, depth: u8, part: Part) -> Result<()> {
        self.size_bytes += part.bytes();
        self.keep(part);
        self.recipe
            .push_whole(depth, part, &mut |node| lane.put(PackKind::Meta, node))
    }

    fn keep(&mut self, part: Part) {
        let Some(kept) = &mut self.kept else { return };
        if let (Part::Zeros(bytes), Some(Part::Zeros(before))) = (part, kept.parts.last_mut()) {
            *before += bytes;
        } else if kept.parts.len() < kept.max {
            kept.parts.push(part);
        } else {
            self.kept = None;
        }
    }

    /// Returns the recipe, and the parts if they were kept.
    pub(crate) fn finish(mut self, lane: &mut Lane) -> Result<(Recipe, Option<Vec<Part>>)> {
        let kept = self.kept.take().map(|kept| kept.parts);
        let recipe = self.recipe.finish(&mut |node| lane.put(PackKind::Meta, node))?;
        Ok((recipe, kept))
    }
}

/// The bytes of one file on their way in. Dropping it forgets the file.
pub struct Content<'a> {
    lane: &'a mut Lane,
    cutter: Cutter,
    filled: usize,
}

impl Content<'_> {
    /// Calls `read` once, with room for about a mebibyte; returns what it returned, 0 at the end of the source.
    pub fn fill(&mut self, read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        let room = self.lane.input.get_mut(self.filled..).unwrap_or_default();
        let count = read(room).map_err(FillError::Read)?.min(room.len());
        self.filled += count;
        if self.filled >= READ_BYTES {
            self.cut(More::Follows)?;
        }
        Ok(count)
    }

    /// Takes in bytes that are in memory already.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.lane.input.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            bytes = later;
            if self.filled >= READ_BYTES {
                self.cut(More::Follows)?;
            }
        }
        Ok(())
    }

    /// A hole of `bytes`; chunks do not reach across it.
    pub fn hole(&mut self, bytes: u64) -> Result<()> {
        self.cut(More::Ends)?;
        self.cutter.push(self.lane, Part::Hole(bytes))
    }

    /// Keeps the parts of the file in memory, for [`Content::finish_kept`], as long as there are at most `max`.
    pub fn keep_parts(&mut self, max: usize) {
        self.cutter.keep_parts(max);
    }

    /// Bytes taken in so far.
    pub fn size_bytes(&self) -> u64 {
        self.cutter.size_bytes + self.filled as u64
    }

    /// The recipe of the file.
    pub fn finish(self) -> Result<Recipe> {
        Ok(self.finish_kept()?.0)
    }

    /// The recipe of the file, and its parts in order, if they were to be kept and are not too many.
    pub fn finish_kept(mut self) -> Result<(Recipe, Option<Vec<Part>>)> {
        self.cut(More::Ends)?;
        self.cutter.finish(self.lane)
    }

    fn cut(&mut self, more: More) -> Result<()> {
        // Here and not only where a frame is handed over: a file that is stored already never hands one over.
        self.lane.shared.check()?;
        let mut input = std::mem::take(&mut self.lane.input);
        let cut = self
            .cutter
            .cut(self.lane, input.get(..self.filled).unwrap_or_default(), more);
        if let Ok(cut) = cut {
            input.copy_within(cut..self.filled, 0);
            self.filled -= cut;
        }
        self.lane.input = input;
        cut.map(|_| ())
    }
}

/// A directory on its way in: encoded entries, in order of their names.
pub struct TreeWriter {
    cutter: Cutter,
    stream: Vec<u8>,
}

impl TreeWriter {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            cutter: Cutter::new(PackKind::Meta, shared.meta_chunker),
            stream: Vec::new(),
        }
    }

    /// Appends an entry as [`Entry::encode`](drystone_format::tree::Entry::encode) gives it.
    pub fn push(&mut self, lane: &mut Lane, encoded: &[u8]) -> Result<()> {
        append_encoded(&mut self.stream, encoded);
        if self.stream.len() >= 4 * self.cutter.chunker.lookahead_bytes() {
            let cut = self.cutter.cut(lane, &self.stream, More::Follows)?;
            self.stream.drain(..cut);
        }
        Ok(())
    }

    /// The recipe of the directory.
    pub fn finish(mut self, lane: &mut Lane) -> Result<Recipe> {
        self.cutter.cut(lane, &self.stream, More::Ends)?;
        Ok(self.cutter.finish(lane)?.0)
    }
}
