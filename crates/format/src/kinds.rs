//! The kinds of roots that this program knows, and what a root of each kind keeps alive.
//!
//! - [`KINDS`] is the only list: publishing, marking, check and forget ask it. A new kind is one line here and its marker.
//! - A marker turns an opened payload into recipes, without I/O. It refuses a payload that it cannot read whole: what it left
//!   out would be garbage to gc.
//! - Which of the kinds count in a vault is for its configuration to say. Roots of every kind, known or not, are listed, copied
//!   to all places and repaired alike.

use crate::cbor::{Reader, Writer};
use crate::error::Result;
use crate::limits::ROOT_MAX_BYTES;
use crate::recipe::Recipe;
use crate::root::RootKind;
use crate::snapshot::Snapshot;

/// Bytes that a recipe takes in a payload, at least.
const RECIPE_MIN_BYTES: usize = 4;

/// Something that a root keeps alive, with all that its recipe leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A directory, and all that lies below it.
    Tree(Recipe),
    /// The bytes of a file, or of anything else that is not a directory.
    Stream(Recipe),
}

/// Turns the payload of a root into what the root keeps alive.
pub type Marker = fn(payload: &[u8]) -> Result<Vec<Kept>>;

/// A kind of roots whose payload this program reads.
#[derive(Debug, Clone, Copy)]
pub struct KnownKind {
    /// The kind.
    pub kind: RootKind,
    /// Reads its payloads.
    pub marker: Marker,
}

/// Every kind of roots that this program knows.
pub const KINDS: [KnownKind; 2] = [
    KnownKind {
        kind: RootKind::SNAPSHOT,
        marker: |payload| Ok(vec![Kept::Tree(Snapshot::decode(payload)?.tree)]),
    },
    // Means nothing; stands for the kind of a door to come in tests.
    KnownKind {
        kind: RootKind::TEST,
        marker: TestRoot::decode,
    },
];

impl RootKind {
    /// What this program knows of the kind; `None` if it cannot read payloads of this kind.
    pub fn known(self) -> Option<&'static KnownKind> {
        KINDS.iter().find(|known| known.kind == self)
    }
}

/// The payload of a root of kind [`RootKind::TEST`]: a list of what it keeps alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRoot(pub Vec<Kept>);

impl TestRoot {
    /// The payload of the root.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(self.0.len());
        for kept in &self.0 {
            let (code, recipe) = match kept {
                Kept::Tree(recipe) => (0, recipe),
                Kept::Stream(recipe) => (1, recipe),
            };
            out.array(2).uint(code);
            recipe.encode(&mut out);
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(payload: &[u8]) -> Result<Vec<Kept>> {
        let mut reader = Reader::new("test root", payload);
        let count = reader.array("number of recipes", (ROOT_MAX_BYTES / RECIPE_MIN_BYTES) as u64)?;
        let mut kept = Vec::new();
        for _ in 0..count {
            reader.array_of("recipe", 2)?;
            let code = reader.uint()?;
            let recipe = Recipe::decode(&mut reader)?;
            kept.push(match code {
                0 => Kept::Tree(recipe),
                1 => Kept::Stream(recipe),
                _ => return Err(reader.malformed(format!("unknown form {code}"))),
            });
        }
        reader.end()?;
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ChunkId;

    #[test]
    fn each_kind_stands_in_the_table_once() {
        for (at, known) in KINDS.iter().enumerate() {
            assert_eq!(KINDS.iter().position(|other| other.kind == known.kind), Some(at));
            assert_eq!(known.kind.known().map(|found| found.kind), Some(known.kind));
        }
        assert!(RootKind::HEAD.known().is_none() && RootKind::BLOCKS.known().is_none());
    }

    proptest! {
        #[test]
        fn what_a_test_root_keeps_round_trips(of: Vec<(bool, [u8; 32], u32)>) {
            let kept = of.iter().map(|(is_tree, id, bytes)| {
                let recipe = Recipe::single(ChunkId(*id), u64::from(*bytes) + 1);
                if *is_tree { Kept::Tree(recipe) } else { Kept::Stream(recipe) }
            });
            let root = TestRoot(kept.collect());
            let payload = root.encode();
            prop_assert_eq!(TestRoot::decode(&payload).unwrap(), root.0);
            for end in 0..payload.len() {
                prop_assert!(TestRoot::decode(&payload[..end]).is_err());
            }
        }

        #[test]
        fn no_marker_panics(payload: Vec<u8>) {
            for known in KINDS {
                let _ = (known.marker)(&payload);
            }
        }
    }
}
