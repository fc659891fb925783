//! Tests of the index and the state on real files.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod basics;
mod child;
mod crash;
mod damage;
mod make;
mod memory;
mod model;
mod state;
mod threads;
