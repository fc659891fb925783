//! The door on real directories.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod backup_cache;
mod backup_faults;
mod backup_files;
mod backup_rules;
mod backup_world;
mod browse;
mod compare;
mod copy;
mod disk;
mod drill;
mod dump;
mod restore_basics;
mod restore_hostile;
mod round_trip;
mod tracked;
mod tracked_random;
mod vaults;
