//! Ledgers: what owners state together about roots, index runs and the configuration. Layout: docs/format.md, "Ledger".
//!
//! - `statement` has what a ledger says and how two of them are joined, `bytes` its signed and sealed form.

mod bytes;
mod statement;

pub use self::bytes::{OpenedLedger, open_ledger, seal_ledger};
pub use self::statement::{
    Bounds, ConfigurationName, FirstSeen, InForce, KindWord, Ledger, LedgerName, Live, Numbered, Sightings,
};
