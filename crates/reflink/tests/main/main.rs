//! Reclaiming on real file systems: Btrfs and XFS on loop devices, which takes root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests"
)]

mod alone;
mod btrfs;
mod dice;
mod disk;
mod either;
mod facts;
mod faults;
mod image;
mod memory;
mod named;
mod pieces;
mod random;
mod single;
mod xfs;
