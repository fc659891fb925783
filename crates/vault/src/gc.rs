//! Every deletion: the only place that removes objects from a vault, with what is below it.
//!
//! - What is removed is superseded by an object that is durable already, or can be reached by nothing that was reported and by
//!   no run that is registered (I5).

pub(crate) mod deletion;
pub(crate) mod epochs;
mod fold;
mod forget;
mod ledgers;
mod live;
mod mark;
mod options;
pub mod protocol;
pub(crate) mod registration;
mod registrations;
mod remains;
pub(crate) mod reserve;
mod roots;
mod run;
mod runs;
mod standing;
mod sweep;
mod waiting;
mod writer;

pub use options::{GcOptions, GcReport};
