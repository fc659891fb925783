//! Decoded nodes of recipes.
//!
//! - Parts cover exactly what they claim, and sums are checked: a hostile recipe is an error.

use drystone_format::ChunkId;
use drystone_format::recipe::Part;

use crate::error::{Error, Result};

/// The chunk that holds a node, its depth, and the bytes that it is said to cover: what decoding it depends on.
pub(crate) type NodeKey = (ChunkId, u8, u64);

/// Makes the error for a recipe that contradicts itself.
pub(crate) fn malformed(why: String) -> Error {
    Error::Format(drystone_format::Error::Malformed {
        object: "recipe",
        offset: 0,
        why,
    })
}

/// `Ok` if a chunk has the length that its recipe says.
pub(crate) fn check_length(id: &ChunkId, found: usize, bytes: u64) -> Result<()> {
    match found as u64 == bytes {
        true => Ok(()),
        false => Err(malformed(format!(
            "chunk {id} has {found} bytes, its recipe says {bytes}"
        ))),
    }
}

/// The parts of one node, and where each of them ends.
#[derive(Debug)]
pub(crate) struct Node {
    parts: Box<[Part]>,
    /// From the beginning of the node, bytes of the file.
    ends: Box<[u64]>,
}

impl Node {
    /// Memory that it takes, bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.parts.len() * (size_of::<Part>() + size_of::<u64>())
    }

    pub(crate) fn new(parts: Vec<Part>, bytes: u64) -> Result<Self> {
        let mut end = 0u64;
        let add = |part: &Part| {
            end = end.checked_add(part.bytes())?;
            Some(end)
        };
        let ends: Option<Box<[u64]>> = parts.iter().map(add).collect();
        match ends {
            Some(ends) if ends.last().copied().unwrap_or(0) == bytes => Ok(Self {
                parts: parts.into(),
                ends,
            }),
            _ => Err(malformed(format!(
                "its parts do not cover the {bytes} bytes that it claims"
            ))),
        }
    }

    /// Returns the parts from the one that holds `offset` on, each with its start. Offsets count from the beginning of the node.
    pub(crate) fn parts_from(&self, offset: u64) -> impl Iterator<Item = (u64, Part)> {
        let first = self.ends.partition_point(|end| *end <= offset);
        let parts = self.parts.iter().zip(&self.ends).skip(first);
        parts.map(|(part, end)| (end - part.bytes(), *part))
    }
}
