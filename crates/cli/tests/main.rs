//! Tests of the real `drystone` binary, one file per verb, and of the project's style.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod backup;
mod browse;
mod config;
mod copy;
mod dedup;
mod doctor;
mod documented;
mod drill;
mod features;
mod forget;
mod help;
mod hostile;
#[path = "../../reflink/tests/main/image.rs"]
mod image;
mod init;
mod key;
mod limits;
mod pins;
mod place;
mod recovery;
mod restore;
mod room;
mod runner;
mod servers;
mod sources;
mod streams;
mod terminal;
mod tidy;
