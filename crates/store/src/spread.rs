//! The spread store: packs cut into shards over several places, any k of n of which are enough; the rest copied to all,
//! and where these are few, more than once to each.
//!
//! - Above it packs are whole: shards have no names here, and which place holds what is decided in `placement.rs`.
//! - No byte of a shard is returned before its tag was checked, wherever it was found (I6). Whoever has a key of the vault can
//!   make tags: who finds that a pack is not what it should be says so (`distrust`), and gets it from shards that are proven.
//! - A put succeeds when more parts are durable than it takes to read the object; what could not be stored is owed.
//! - A place that is absent, silent, slow, rotten, full or lying is read around, and what it did is written down.
//! - Memory is bounded: a few packs for each call, one page of each place for a listing.
//!
//! The object that tells places apart (`place`), the reserve, shards and spare copies are refused: they belong to one place each.

mod core;
mod distrust;
mod gather;
mod lacking;
mod list;
mod merge;
mod options;
mod pack;
mod place;
mod plan;
mod rebalance;
mod recent;
mod replicate;
mod shards;
mod small;
mod suspects;
mod trial;
mod troubles;
mod whereabouts;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::core::Spread;
pub use self::lacking::Lacking;
pub use self::list::{HeldCopy, HeldShard, Holdings, PackHoldings};
pub use self::options::{ForgedHook, Judge, SignerHint, SizeHint, SpreadOptions};
pub use self::place::{Access, SpreadPlace};
pub use self::plan::{RebalancePlan, Transfer};
pub use self::rebalance::{Rebalanced, Verify};
pub use self::replicate::Replicated;
pub use self::troubles::{Objects, PlaceTroubles, Troubles};

use crate::{Kind, Listed, Name, Prefix, Put, Range, Result, Store, Traits};

#[async_trait]
impl Store for Spread {
    fn place(&self) -> &str {
        &self.core.label
    }

    fn traits(&self) -> Traits {
        let all = || self.core.places.iter().filter_map(|place| place.store());
        let all = || all().map(|store| store.traits());
        Traits {
            durable_on_return: all().all(|traits| traits.durable_on_return),
            ordered_list: all().all(|traits| traits.ordered_list),
            exclusive_create: false,
            stale_list: all().filter_map(|traits| traits.stale_list).max(),
            max_object_bytes: all().filter_map(|traits| traits.max_object_bytes).min(),
            slow: all().any(|traits| traits.slow),
            finite: all().any(|traits| traits.finite),
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        name.check_size(&self.core.label, bytes.len() as u64)?;
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.put_pack(pack, bytes).await,
            _ => self.core.put_small(name, bytes).await,
        }
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.get_pack(pack, range).await,
            _ => self.core.get_small(name, range).await,
        }
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.stat_pack(pack).await,
            _ => self.core.stat_small(name).await,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.core.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.core.check_name(name)?;
        match name.kind() {
            Kind::Pack(pack) => self.core.delete_pack(pack).await,
            _ => self.core.delete_small(name).await,
        }
    }
}
