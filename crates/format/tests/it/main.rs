//! The format from outside: its document, round trips, damage and hostile bytes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod damage;
mod document;
mod epochs;
mod fixture;
#[expect(unreachable_pub, reason = "the fuzz targets use this module too")]
mod forge;
mod hostile;
mod hpke;
mod index;
mod ledgers;
mod objects;
mod packs;
mod shards;
mod trees;
