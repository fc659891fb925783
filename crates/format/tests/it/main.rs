//! The format from outside: its document, round trips, damage and hostile bytes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod document;
mod fixture;

mod hpke;
