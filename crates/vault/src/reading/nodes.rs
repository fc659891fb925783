//! Decoded nodes of recipes, and the way from an offset in a file to the part that holds it.
//!
//! - A node is read and decoded once while it is in the cache, however many files and threads use it.
//! - The way down takes one binary search on each level, whatever the size of the file.
//! - Parts cover exactly what they claim, and sums are checked: a hostile recipe is an error, never a panic or an endless way.

use crate::reading::node::NodeKey;
use std::ops::Range;
use std::sync::Arc;

use drystone_format::limits::RECIPE_DEPTH_MAX;
use drystone_format::recipe::{Part, Recipe, decode_node};

use crate::error::{Error, Result};
use crate::reading::node::{Node, malformed};
use crate::reading::reader::Reader;

/// The top of a file's recipe.
pub(crate) struct Top {
    node: Arc<Node>,
    depth: u8,
    pub(crate) size_bytes: u64,
}

/// A node whose parts are stretches of the file.
struct Leaf {
    node: Arc<Node>,
    /// Where in the file the node begins, bytes.
    start: u64,
}

impl Leaf {
    /// Returns the stretches from the one that holds `offset` on, each with its start in the file.
    fn parts_from(&self, offset: u64) -> impl Iterator<Item = (u64, Part)> {
        let parts = self.node.parts_from(offset.saturating_sub(self.start));
        parts.map(|(start, part)| (self.start + start, part))
    }
}

impl Top {
    pub(crate) fn new(recipe: &Recipe) -> Result<Self> {
        if recipe.depth > RECIPE_DEPTH_MAX {
            return Err(malformed(format!(
                "depth {}, at most {RECIPE_DEPTH_MAX} is allowed",
                recipe.depth
            )));
        }
        let is_node = |part: &Part| matches!(part, Part::Chunk { .. });
        if recipe.depth > 0 && !recipe.parts.iter().all(is_node) {
            return Err(malformed("zeros or holes above the last level".to_owned()));
        }
        Ok(Self {
            node: Arc::new(Node::new(recipe.parts.clone(), recipe.size_bytes)?),
            depth: recipe.depth,
            size_bytes: recipe.size_bytes,
        })
    }

    /// Returns the leaf that holds `offset`, which must be within the file.
    fn leaf(&self, reader: &Reader, offset: u64) -> Result<Leaf> {
        let mut depth = self.depth;
        let mut leaf = Leaf {
            node: self.node.clone(),
            start: 0,
        };
        while depth > 0 {
            let Some((start, Part::Chunk { id, bytes })) = leaf.parts_from(offset).next() else {
                break;
            };
            let node = reader.node((id, depth, bytes))?;
            leaf = Leaf { node, start };
            depth -= 1;
        }
        Ok(leaf)
    }

    /// Calls `each` with every stretch that has bytes in `range`, and its start in the file.
    pub(crate) fn each_part(
        &self,
        reader: &Reader,
        range: Range<u64>,
        each: &mut dyn FnMut(u64, Part) -> Result<()>,
    ) -> Result<()> {
        let (mut at, end) = (range.start, range.end.min(self.size_bytes));
        while at < end {
            let leaf = self.leaf(reader, at)?;
            let before = at;
            for (start, part) in leaf.parts_from(at) {
                if start >= end {
                    break;
                }
                each(start, part)?;
                at = start + part.bytes();
            }
            if at == before {
                return Err(malformed(format!("nothing covers byte {at}")));
            }
        }
        Ok(())
    }
}

impl Reader {
    /// Returns a node of a recipe, from the cache if it is there.
    fn node(&self, key: NodeKey) -> Result<Arc<Node>> {
        let nodes = &self.random()?.nodes;
        nodes.get_or_insert_with(&key, || {
            let (id, depth, bytes) = key;
            let chunk = self.chunk(&id)?;
            let parts = decode_node(&chunk, depth, bytes).map_err(|source| Error::Damaged {
                object: format!("recipe node {id}"),
                place: self.place().to_owned(),
                source,
            })?;
            Ok(Arc::new(Node::new(parts, bytes)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(node: &Node, offset: u64) -> Vec<u64> {
        node.parts_from(offset).map(|(start, _)| start).collect()
    }

    #[test]
    fn the_part_that_holds_an_offset_comes_first() {
        let node = Node::new(vec![Part::Hole(3), Part::Zeros(4), Part::Hole(1)], 8).unwrap();
        assert_eq!(starts(&node, 0), [0, 3, 7]);
        assert_eq!(starts(&node, 2), [0, 3, 7]);
        assert_eq!(starts(&node, 3), [3, 7]);
        assert_eq!(starts(&node, 7), [7]);
        assert_eq!(starts(&node, 8), [0; 0]);
    }

    #[test]
    fn parts_that_do_not_add_up_are_refused() {
        let (max, one) = (Part::Hole(u64::MAX), Part::Hole(1));
        assert!(Node::new(vec![max, one], 0).is_err(), "the sum runs over");
        assert!(Node::new(vec![one], 2).is_err());
        assert!(Node::new(vec![], 1).is_err());
        assert!(Node::new(vec![max], u64::MAX).is_ok());
        assert!(Node::new(vec![], 0).is_ok());
    }
}
