//! Putting the tree of a snapshot together.

pub(crate) mod assemble;
pub(crate) mod levels;
