//! Decorators: stores that add one behaviour to another store, with the same interface.
//!
//! - `retry`, `limit`, `stop` and `spares` are for use; `record`, `fail`, `delay` and `crash` are for tests.
//! - A decorator knows the store below it by the trait alone.

pub mod crash;
mod delay;
pub mod fail;
pub mod limit;
pub mod record;
pub mod retry;
mod spares;
pub mod stop;

pub use self::crash::Crash;
pub use self::delay::Delay;
pub use self::fail::Fail;
pub use self::limit::Limit;
pub use self::record::Record;
pub use self::retry::Retry;
pub use self::spares::Spares;
pub use self::stop::{Stop, Stoppable};
