//! Where bytes lie: named immutable objects at a place, behind one small trait.
//!
//! - An object appears whole or not at all, and never changes once it is there.
//! - [`Store::put`] returns when the bytes are as durable as [`Traits::durable_on_return`] says.
//! - A listing is complete or an error; names that are not drystone's are left out of it.
//! - Behaviour is added by decorators with the same interface: [`Retry`], [`Limit`], [`Record`], [`Fail`], [`Delay`], [`Crash`], [`Spares`], [`Stoppable`].
//! - [`Spread`] makes one store of several places, any k of which are enough.
//! - Object names are made and parsed in `name.rs` only, the order of fsync and rename is kept in `local/atomic.rs` only.

mod blocking;
#[cfg(feature = "testing")]
pub mod conformance;
mod decorators;
pub mod erasure;
mod error;
mod local;
mod memory;
mod name;
mod open;
mod options;
pub mod placement;
mod prefix;
mod remote;
pub mod spread;
#[cfg(feature = "testing")]
pub mod testing;
mod walk;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use decorators::{
    Crash, Delay, Fail, Limit, Record, Retry, Spares, Stop, Stoppable, crash, fail, limit, record, retry, stop,
};
pub use error::{Error, Result};
pub use local::Local;
pub use memory::Memory;
pub use name::{Kind, Name, RootKind, RootName, ShardId};
pub use open::{create, local_dir, open};
pub use options::OpenOptions;
pub use prefix::{Prefix, SpareOf};
pub use spread::{Spread, SpreadOptions, SpreadPlace};

/// A place that holds named immutable objects.
///
/// All methods may be called at once from many tasks. A future that is dropped may leave its put or delete done or
/// undone, never half done.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The URL or path of the place, for messages.
    fn place(&self) -> &str;

    /// What this place can do.
    fn traits(&self) -> Traits;

    /// Stores an object; one that exists already is left as it is.
    ///
    /// Of several puts of one name at once, one is told `Created` and its bytes stay (but see
    /// [`Traits::exclusive_create`]); the bytes are durable on return for all of them. A pack or shard that exists with
    /// another size than `bytes` was damaged, since its name says all of its content: it is replaced and the answer is
    /// `Created`.
    /// [`Error::TooLarge`] if the bytes exceed the limit of the object's kind or of the place.
    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put>;

    /// Reads an object or a part of it.
    ///
    /// [`Error::NotFound`], [`Error::Short`] (see [`Range`]), or [`Error::TooLarge`] if all of an object is asked for
    /// that is larger than the format allows for its kind; nothing is allocated for it then.
    async fn get(&self, name: &Name, range: Range) -> Result<Bytes>;

    /// The size of an object in bytes, or [`Error::NotFound`].
    async fn stat(&self, name: &Name) -> Result<u64>;

    /// The next objects under `prefix`, ordered by name, at most `limit` (at least 1), all greater than `after`.
    ///
    /// An empty answer means the end; pass the last name of an answer as `after` for the next. Objects that come or go
    /// meanwhile may be listed or not. Any failure fails the whole call.
    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>>;

    /// Removes an object, durably; one that is gone already is fine.
    async fn delete(&self, name: &Name) -> Result<()>;

    /// How much space there is; `None` where a place cannot tell.
    async fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }
}

/// The space of a place, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What may still be stored.
    pub free_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

/// What a place can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// What `put` acknowledged survives a power cut at the place.
    pub durable_on_return: bool,
    /// `list` is ordered by name across calls.
    pub ordered_list: bool,
    /// How long a finished put or delete may stay invisible to `list`; `None` if it is seen at once.
    pub stale_list: Option<Duration>,
    /// Largest object the place takes, bytes.
    pub max_object_bytes: Option<u64>,
    /// Of several puts of one name at once exactly one is told `Created`. Where this is not so, several may be, and the
    /// bytes of one of them stay.
    pub exclusive_create: bool,
    /// Requests wait for a network, so many in flight pay.
    pub slow: bool,
    /// It lies on a disk of its own size, which can be full, so that space is set aside for what frees it.
    pub finite: bool,
}

/// The outcome of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there with these bytes.
    Created,
    /// An object of that name was there before and was left as it is.
    Existed,
}

/// The operations of a store, for the decorators that tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Store::put`].
    Put,
    /// [`Store::get`].
    Get,
    /// [`Store::stat`].
    Stat,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
}

/// Which bytes of an object to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The whole object, if it is no larger than the format allows for its kind.
    All,
    /// Exactly `len` bytes from `offset`; [`Error::Short`] if the object ends before.
    From {
        /// First byte, counted from 0.
        offset: u64,
        /// Count of bytes.
        len: u64,
    },
    /// The last so many bytes, or the whole object if it is smaller.
    Last(u64),
}

impl Range {
    /// Offset and count of bytes of this range in an object of `size` bytes, checked against all limits.
    pub(crate) fn resolve(self, name: &Name, place: &str, size: u64) -> Result<(u64, usize)> {
        let (offset, len) = match self {
            Range::All => (0, name.check_size(place, size)?),
            Range::Last(len) => (size.saturating_sub(len), len.min(size)),
            Range::From { offset, len } => match offset.checked_add(len) {
                Some(end) if end <= size => (offset, len),
                end => {
                    let (name, place) = (name.to_string(), place.to_string());
                    return Err(Error::Short {
                        name,
                        place,
                        size,
                        wanted: end.unwrap_or(u64::MAX),
                    });
                }
            },
        };
        match usize::try_from(len) {
            Ok(len) => Ok((offset, len)),
            Err(_) => Err(name.too_large(place, len, usize::MAX as u64)),
        }
    }
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its size in bytes.
    pub size: u64,
}
