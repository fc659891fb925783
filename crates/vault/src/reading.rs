//! Reading where it is random, far away, or both: files by offset, chunks by the batch, frames fetched ahead.
//!
//! - Nothing here decides what is right: every chunk goes through [`crate::reading::reader`], which authenticates and verifies it (I6).
//! - What is fetched ahead is bounded in bytes, and whoever finds no room reads as if nothing could be fetched (I7).

pub(crate) mod content;
pub(crate) mod frames;
pub(crate) mod node;
pub(crate) mod range;
pub(crate) mod reader;
pub(crate) mod sources;

pub(crate) mod ahead;
pub(crate) mod around;
pub(crate) mod batch;
pub(crate) mod caches;
pub(crate) mod file;
pub(crate) mod nodes;
pub(crate) mod pace;
