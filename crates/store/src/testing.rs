//! What tests of other crates take from this one.

pub mod servers;
