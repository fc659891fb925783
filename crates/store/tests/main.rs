//! The tests of the store crate, as one binary.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod conformance;
mod crash;
mod decorators;
mod local;
mod processes;

use bytes::Bytes;
use drystone_format::{PackId, id};
use drystone_store::Name;

/// A pack's name and bytes, each made from `n`; the name is the hash of the bytes.
fn pack(n: u64, len: usize) -> (Name, Bytes) {
    let bytes: Bytes = n.to_le_bytes().into_iter().cycle().take(len).collect();
    let id: PackId = id::pack_id(&bytes);
    (Name::pack(&id), bytes)
}
