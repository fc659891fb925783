//! The format from outside: its document, round trips, damage and hostile bytes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod damage;
mod document;
mod fixture;
mod forge;
mod hostile;
mod hpke;
mod objects;
mod packs;
mod trees;
