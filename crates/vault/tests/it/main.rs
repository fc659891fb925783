//! The engine over real and faulty places.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod concurrent;
mod crash;
mod damage;
mod golden;
mod round_trip;
mod support;
