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
mod copy_twice;
#[path = "../../../reflink/tests/main/dice.rs"]
mod dice;
mod disk;
mod drill;
mod dump;
#[path = "../../../reflink/tests/main/image.rs"]
mod image;
mod restore_acl;
mod restore_basics;
mod restore_far;
mod restore_hostile;
mod restore_names;
mod restore_stays;
mod restore_whole;
mod round_trip;
mod tracked;
mod tracked_killed;
mod tracked_moved;
mod tracked_random;
mod vaults;
