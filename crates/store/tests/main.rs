//! The tests of the store crate, as one binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod conformance;
mod crash;
mod decorators;
mod front;
mod hostile;
#[path = "../../reflink/tests/main/image.rs"]
mod image;
mod local;
mod processes;
mod servers;
mod spread;

use bytes::Bytes;
use drystone_format::id;
use drystone_store::Name;

/// A pack's name and bytes, each made from `n`; the name is the hash of the bytes.
fn pack(n: u64, len: usize) -> (Name, Bytes) {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(len, 0xa5);
    (Name::pack(&id::pack_id(&bytes)), bytes.into())
}
