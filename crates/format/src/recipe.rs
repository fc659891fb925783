//! Recipes: which chunks, in which order, make a file or a tree. Layout: docs/format.md, "Recipe".
//!
//! - Short recipes stand inline; long ones are a tree of chunks of parts, so that a seek reads O(log n) of them.
//! - Nodes are cut by content, so that an edit in a long file changes one node of each level.
//! - Runs of zeros and holes are described, never stored.
//! - The parts of a recipe cover exactly `size_bytes`.
//! - Where a node ends depends on nothing but the parts in it, unless it is the last one of its depth. So a node of one recipe can be
//!   reused in another without being read (`RecipeBuilder::push_whole`).

use crate::cbor::{Reader, Writer};
use crate::error::{Error, Result, within};
use crate::id::ChunkId;
use crate::limits::{RECIPE_DEPTH_MAX, RECIPE_INLINE_PARTS, RECIPE_NODE_MAX_PARTS, RECIPE_NODE_MIN_PARTS};

const OBJECT: &str = "recipe";

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A chunk of the file, or at depths above 0 a chunk of parts; `bytes` is what it covers of the file.
    Chunk {
        /// Which chunk.
        id: ChunkId,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Zeros that were written.
    Zeros(u64),
    /// A hole that was never written.
    Hole(u64),
}

impl Part {
    /// Bytes of the file that it covers; never 0.
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::Chunk { bytes, .. } | Self::Zeros(bytes) | Self::Hole(bytes) => bytes,
        }
    }

    /// Whether a node ends after this part: one in 512 chunks, by their ids.
    fn ends_node(&self) -> bool {
        matches!(self, Self::Chunk { id: ChunkId([first, second, ..]), .. } if *first == 0 && *second < 128)
    }
}

/// The content of one file or tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe {
    /// Bytes of the file.
    pub size_bytes: u64,
    /// 0: `parts` are pieces of the file; n: they are chunks that hold encoded parts of depth n - 1.
    pub depth: u8,
    /// At most [`RECIPE_INLINE_PARTS`] of them.
    pub parts: Vec<Part>,
}

impl Recipe {
    /// A recipe of one chunk.
    pub fn single(id: ChunkId, bytes: u64) -> Self {
        Self {
            size_bytes: bytes,
            depth: 0,
            parts: vec![Part::Chunk { id, bytes }],
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.array(3).uint(self.size_bytes).uint(self.depth.into());
        write_parts(out, &self.parts);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of(OBJECT, 3)?;
        let size_bytes = reader.uint()?;
        let depth = reader.u8()?;
        within(OBJECT, "depth", depth.into(), RECIPE_DEPTH_MAX.into())?;
        let parts = read_parts(reader, depth, RECIPE_INLINE_PARTS)?;
        covers(&parts, size_bytes)?;
        Ok(Self {
            size_bytes,
            depth,
            parts,
        })
    }
}

/// `Ok` if `parts` cover exactly `bytes`.
fn covers(parts: &[Part], bytes: u64) -> Result<()> {
    let total = parts
        .iter()
        .try_fold(0u64, |total, part| total.checked_add(part.bytes()));
    if total == Some(bytes) {
        return Ok(());
    }
    Err(Error::malformed(
        OBJECT,
        0,
        format!("parts cover {total:?} bytes, not {bytes}"),
    ))
}

fn write_parts(out: &mut Writer, parts: &[Part]) {
    out.array(parts.len());
    for part in parts {
        match part {
            Part::Chunk { id, bytes } => out.array(2).bytes(&id.0).uint(*bytes),
            Part::Zeros(bytes) => out.array(2).uint(0).uint(*bytes),
            Part::Hole(bytes) => out.array(2).uint(1).uint(*bytes),
        };
    }
}

fn read_parts(reader: &mut Reader<'_>, depth: u8, limit: usize) -> Result<Vec<Part>> {
    let count = reader.array("number of parts", limit as u64)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        reader.array_of("part", 2)?;
        let part = match reader.part_head()? {
            PartHead::Chunk(id) => Part::Chunk {
                id,
                bytes: reader.uint()?,
            },
            PartHead::Code(0) if depth == 0 => Part::Zeros(reader.uint()?),
            PartHead::Code(1) if depth == 0 => Part::Hole(reader.uint()?),
            PartHead::Code(code) => return Err(reader.malformed(format!("unknown part {code}"))),
        };
        if part.bytes() == 0 {
            return Err(reader.malformed("a part of no bytes"));
        }
        parts.push(part);
    }
    Ok(parts)
}

enum PartHead {
    Chunk(ChunkId),
    Code(u64),
}

impl Reader<'_> {
    fn part_head(&mut self) -> Result<PartHead> {
        if self.at_bytes()? {
            Ok(PartHead::Chunk(ChunkId(self.fixed()?)))
        } else {
            Ok(PartHead::Code(self.uint()?))
        }
    }
}

/// The parts in a node: the plaintext of a chunk that a part at `depth` names and that covers `bytes` of the file.
pub fn decode_node(plaintext: &[u8], depth: u8, bytes: u64) -> Result<Vec<Part>> {
    let below = depth
        .checked_sub(1)
        .ok_or_else(|| Error::malformed(OBJECT, 0, "a node at depth 0"))?;
    let mut reader = Reader::new(OBJECT, plaintext);
    let parts = read_parts(&mut reader, below, RECIPE_NODE_MAX_PARTS)?;
    reader.end()?;
    covers(&parts, bytes)?;
    Ok(parts)
}

/// Builds a recipe from its parts, in order, in memory for a few thousand of them.
#[derive(Debug, Default)]
pub struct RecipeBuilder {
    size_bytes: u64,
    levels: Vec<Vec<Part>>,
}

impl RecipeBuilder {
    /// Appends `part`; full nodes go to `store`, which keeps their plaintext as a chunk and returns its id.
    pub fn push<E: From<Error>>(
        &mut self,
        part: Part,
        store: &mut dyn FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if part.bytes() == 0 {
            return Ok(());
        }
        self.size_bytes = self.size_bytes.saturating_add(part.bytes());
        match (self.levels.first_mut().and_then(|parts| parts.last_mut()), part) {
            (Some(Part::Zeros(before)), Part::Zeros(bytes)) | (Some(Part::Hole(before)), Part::Hole(bytes)) => {
                *before += bytes;
                Ok(())
            }
            _ => self.push_at(0, part, store),
        }
    }

    /// Appends a part of `depth`: at 0 the same as [`push`](Self::push), above it a node of another recipe with everything below it.
    ///
    /// The result is what the pushes of all its leaves would give, if `depth` is at most [`whole_depth`](Self::whole_depth), and if the
    /// node, where it was the last one of its depth, will be the last one here too. Otherwise the recipe is valid, but not the one
    /// that its leaves would give.
    pub fn push_whole<E: From<Error>>(
        &mut self,
        depth: u8,
        part: Part,
        store: &mut dyn FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if depth == 0 {
            return self.push(part, store);
        }
        if depth > self.whole_depth() || part.bytes() == 0 {
            return Err(Error::malformed(OBJECT, 0, "a node amid the leaves of another, or of no bytes").into());
        }
        self.size_bytes = self.size_bytes.saturating_add(part.bytes());
        self.push_at(depth.into(), part, store)
    }

    /// Greatest depth of a part that can be appended whole now: no node that would hold leaves of it is begun.
    pub fn whole_depth(&self) -> u8 {
        let begun = self.levels.iter().position(|parts| !parts.is_empty());
        begun.map_or(RECIPE_DEPTH_MAX, |level| level as u8)
    }

    /// Returns true if a run of zeros that is pushed next ends a node with its first part: it matters then in which parts the run is pushed.
    pub fn splits_zeros(&self) -> bool {
        self.levels.first().is_some_and(|parts| {
            parts.len() + 1 >= RECIPE_NODE_MAX_PARTS && !matches!(parts.last(), Some(Part::Zeros(_)))
        })
    }

    fn push_at<E: From<Error>>(
        &mut self,
        level: usize,
        part: Part,
        store: &mut dyn FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if level > usize::from(RECIPE_DEPTH_MAX) {
            return Err(Error::malformed(OBJECT, 0, "a file too large for a recipe").into());
        }
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        let Some(parts) = self.levels.get_mut(level) else {
            return Ok(());
        };
        parts.push(part);
        let full = parts.len() >= RECIPE_NODE_MAX_PARTS || parts.len() >= RECIPE_NODE_MIN_PARTS && part.ends_node();
        if full { self.close_node(level, store) } else { Ok(()) }
    }

    fn close_node<E: From<Error>>(
        &mut self,
        level: usize,
        store: &mut dyn FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let parts = self.levels.get_mut(level).map(std::mem::take).unwrap_or_default();
        let bytes = parts.iter().map(Part::bytes).sum();
        let mut out = Writer::new();
        write_parts(&mut out, &parts);
        let id = store(&out.finish())?;
        self.push_at(level + 1, Part::Chunk { id, bytes }, store)
    }

    /// The finished recipe; the last nodes go to `store`.
    pub fn finish<E: From<Error>>(mut self, store: &mut dyn FnMut(&[u8]) -> Result<ChunkId, E>) -> Result<Recipe, E> {
        let mut level = 0;
        loop {
            let top = level + 1 >= self.levels.len();
            let count = self.levels.get(level).map_or(0, Vec::len);
            if top && count <= RECIPE_INLINE_PARTS {
                let parts = self.levels.pop().unwrap_or_default();
                return Ok(Recipe {
                    size_bytes: self.size_bytes,
                    depth: level as u8,
                    parts,
                });
            }
            if count > 0 {
                self.close_node(level, store)?;
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::id::pack_id;

    fn flatten(parts: &[Part], depth: u8, nodes: &HashMap<ChunkId, Vec<u8>>, out: &mut Vec<Part>) {
        for part in parts {
            match part {
                Part::Chunk { id, bytes } if depth > 0 => {
                    flatten(&decode_node(&nodes[id], depth, *bytes).unwrap(), depth - 1, nodes, out);
                }
                part => out.push(*part),
            }
        }
    }

    fn build(parts: &[Part]) -> (Recipe, HashMap<ChunkId, Vec<u8>>) {
        let mut nodes = HashMap::new();
        let mut store = |bytes: &[u8]| -> Result<ChunkId> {
            let id = ChunkId(pack_id(bytes).0);
            nodes.insert(id, bytes.to_vec());
            Ok(id)
        };
        let mut builder = RecipeBuilder::default();
        parts.iter().for_each(|part| builder.push(*part, &mut store).unwrap());
        let recipe = builder.finish(&mut store).unwrap();
        (recipe, nodes)
    }

    fn chunk(number: u64) -> Part {
        Part::Chunk {
            id: ChunkId(pack_id(&number.to_le_bytes()).0),
            bytes: number % 1000 + 1,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn parts_come_back_in_order(count in 0u64..5000, seed in any::<u32>()) {
            let parts: Vec<Part> = (0..count).map(|at| chunk(at + u64::from(seed))).collect();
            let (recipe, nodes) = build(&parts);
            let mut out = Vec::new();
            flatten(&recipe.parts, recipe.depth, &nodes, &mut out);
            prop_assert_eq!(out, parts);
            prop_assert!(recipe.parts.len() <= RECIPE_INLINE_PARTS);
            let mut writer = Writer::new();
            recipe.encode(&mut writer);
            let bytes = writer.finish();
            prop_assert_eq!(Recipe::decode(&mut Reader::new("test", &bytes)).unwrap(), recipe);
        }
    }

    /// The leaves of a recipe in order, and nodes in their place where the builder takes them whole and `dice` says so.
    fn rebuild(
        (parts, depth): (&[Part], u8),
        nodes: &HashMap<ChunkId, Vec<u8>>,
        dice: &mut dyn FnMut() -> bool,
        (builder, reused): (&mut RecipeBuilder, &mut usize),
    ) {
        let mut store = |bytes: &[u8]| -> Result<ChunkId> { Ok(ChunkId(pack_id(bytes).0)) };
        for part in parts {
            match part {
                Part::Chunk { id, bytes } if depth > 0 && !(depth <= builder.whole_depth() && dice()) => {
                    let below = decode_node(&nodes[id], depth, *bytes).unwrap();
                    rebuild((&below, depth - 1), nodes, dice, (builder, reused));
                }
                part => {
                    *reused += usize::from(depth > 0);
                    builder.push_whole(depth, *part, &mut store).unwrap();
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn nodes_pushed_whole_give_what_their_leaves_give(count in 0u64..40_000, seed in any::<u32>(), zeros in 2u64..9) {
            let part = |at| match chunk(at + u64::from(seed)) {
                part if part.bytes() % 9 > zeros => Part::Zeros(part.bytes()),
                part => part,
            };
            let (recipe, nodes) = build(&(0..count).map(part).collect::<Vec<_>>());
            let mut state = u64::from(seed) | 1;
            let mut dice = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % 3 > 0
            };
            let (mut builder, mut reused) = (RecipeBuilder::default(), 0);
            rebuild((&recipe.parts, recipe.depth), &nodes, &mut dice, (&mut builder, &mut reused));
            let again = builder.finish(&mut |bytes| Ok::<_, Error>(ChunkId(pack_id(bytes).0))).unwrap();
            prop_assert_eq!(&again, &recipe);
            prop_assert!(reused > 0 || count < 20_000);
        }
    }

    #[test]
    fn a_node_is_not_pushed_amid_another() {
        let mut builder = RecipeBuilder::default();
        let mut store = |_: &[u8]| -> Result<ChunkId> { Ok(ChunkId([1; 32])) };
        assert_eq!(builder.whole_depth(), RECIPE_DEPTH_MAX);
        builder.push(chunk(1), &mut store).unwrap();
        assert_eq!(builder.whole_depth(), 0);
        assert!(builder.push_whole(1, chunk(2), &mut store).is_err());
        builder.push_whole(0, chunk(2), &mut store).unwrap();
    }

    #[test]
    fn an_edit_in_the_middle_changes_few_nodes() {
        let mut parts: Vec<Part> = (0..20_000).map(chunk).collect();
        let (_, before) = build(&parts);
        parts.insert(9_999, chunk(77_777));
        let (_, after) = build(&parts);
        let new = after.keys().filter(|id| !before.contains_key(id)).count();
        assert!(new <= 4, "{new} new nodes of {}", after.len());
    }

    #[test]
    fn neighbouring_holes_and_zeros_merge() {
        let (recipe, _) = build(&[
            Part::Hole(1),
            Part::Hole(2),
            Part::Zeros(3),
            Part::Zeros(0),
            Part::Zeros(4),
        ]);
        assert_eq!(
            recipe,
            Recipe {
                size_bytes: 10,
                depth: 0,
                parts: vec![Part::Hole(3), Part::Zeros(7)]
            }
        );
    }

    #[test]
    fn parts_that_do_not_cover_the_file_are_refused() {
        let mut writer = Writer::new();
        Recipe {
            size_bytes: 11,
            depth: 0,
            parts: vec![Part::Hole(10)],
        }
        .encode(&mut writer);
        assert!(Recipe::decode(&mut Reader::new("test", &writer.finish())).is_err());
        assert!(decode_node(&[0x80], 0, 0).is_err());
        assert!(decode_node(&[0x80], 1, 1).is_err());
    }
}
