//! Which roots are live and which are forgotten: the rules by which owners' ledgers are joined and written, without any I/O.
//!
//! - A root that no ledger states is live: lists lag and places hide.
//! - The join of ledgers is a union in which forgotten wins for ever; reviving publishes a new root.
//! - The newest ledgers are all those that no other names as a predecessor, never the one with the highest number.
//! - gc refuses while one of the newest is unreadable everywhere, or while a root that is known to exist is missing.
//! - Nothing that the holder of a writer's key signs is enough to have another root of that registration forgotten: ranges are
//!   forgotten only after an epoch has announced them and a list of all places has shown nothing in them.
//!
//! docs/decisions/0015-ledger.md gives the reasons; tests/it/ledger_model.rs checks the rules in all interleavings.

mod closing;
mod join;
mod known;
mod next;
mod order;

pub use closing::{closable, confirmed, is_closed, is_stated, must_read_ledgers, removable, widen};
pub use join::join;
pub use known::{Known, Refusal, View};
pub use next::{Change, next};
pub use order::{Order, first_seen, order};
