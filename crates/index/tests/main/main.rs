//! Tests of the index and the state on real files.

mod basics;
mod make;
