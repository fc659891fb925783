//! Places and hints that say what is not so: listings above all, which nothing authenticates.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::PackId;
use drystone_store::spread::{Access, Verify};
use drystone_store::{Error, Kind, Listed, Memory, Name, Prefix, Put, Range, Result, ShardId, Store, Traits};

use super::{World, from, objects, pack, part, shard};

/// What a place says when it is asked for a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It lists nothing.
    Nothing,
    /// It lists everything again and again.
    Again,
    /// It lists every shard under a number it does not have.
    Renumbered,
    /// It lists packs that do not exist: one as a lone shard, one whole.
    Invented,
    /// It lists wrong lengths.
    Lengths,
}

#[derive(Debug)]
struct Liar {
    truth: Arc<Memory>,
    lie: Lie,
}

impl Liar {
    fn tell(&self, prefix: &Prefix, listed: Vec<Listed>) -> Vec<Listed> {
        let invented = PackId([0xfe; 32]);
        let change = |listed: &mut Listed| match (self.lie, listed.name.kind()) {
            (Lie::Renumbered, Kind::Shard(id)) => listed.name = Name::shard(&ShardId { number: 200, ..id }),
            (Lie::Lengths, _) => listed.size += 7,
            _ => {}
        };
        let mut listed = listed;
        listed.iter_mut().for_each(change);
        let name = match prefix {
            Prefix::Shards => Name::shard(&ShardId {
                pack: invented,
                needed: 1,
                number: 0,
            }),
            _ => Name::pack(&PackId([0xff; 32])),
        };
        if self.lie == Lie::Invented && prefix.covers(&name) {
            listed.push(Listed { name, size: 60 });
        }
        listed
    }
}

#[async_trait]
impl Store for Liar {
    fn place(&self) -> &str {
        "liar"
    }

    fn traits(&self) -> Traits {
        self.truth.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.truth.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.truth.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.truth.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let after = after.filter(|_| self.lie != Lie::Again);
        let listed = self.truth.list(prefix, after, limit).await?;
        Ok(match (self.lie, after) {
            (Lie::Nothing, _) => Vec::new(),
            (Lie::Invented, Some(after)) if after.as_str().contains("fefefe") || after.as_str().contains("ffffff") => {
                listed
            }
            _ => self.tell(prefix, listed),
        })
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.truth.delete(name).await
    }
}

fn lying(world: &World, place: usize, lie: Lie) -> World {
    let truth = Arc::clone(&world.memories[place]);
    World::with(world.needed, world.total, world.memories.clone(), |options| {
        options.places[place].access = Access::Present(Arc::new(Liar { truth, lie }));
    })
}

#[tokio::test]
async fn lies_of_one_place_in_listings_cost_nothing() {
    for lie in [Lie::Nothing, Lie::Again, Lie::Renumbered, Lie::Lengths] {
        for place in 0..3 {
            let world = World::new(2, 3, 3);
            let objects = objects();
            world.put_all(&objects).await;
            let before: Vec<_> = world.memories.iter().map(|memory| memory.contents()).collect();
            let what = format!("{lie:?} at {place}");
            let liar = lying(&world, place, lie);
            liar.assert_whole(&objects, &what).await;
            // Believing it, one rebalances in vain; nothing is lost by that.
            for holdings in liar.holdings().await {
                liar.spread.rebalance(&holdings, Verify::All).await.unwrap();
            }
            let world = world.reopened(&[]);
            world.rebalance(Verify::All).await;
            let after: Vec<_> = world.memories.iter().map(|memory| memory.contents()).collect();
            assert!(before == after, "{what}");
            world.assert_whole(&objects, &what).await;
        }
    }
}

#[tokio::test]
async fn invented_packs_are_listed_and_found_to_be_none() {
    let world = World::new(2, 3, 3);
    let objects = objects();
    world.put_all(&objects).await;
    let liar = lying(&world, 1, Lie::Invented);
    for (name, bytes) in &objects {
        assert!(liar.spread.get(name, Range::All).await.unwrap() == *bytes);
    }
    let listed = liar.spread.list(&Prefix::Packs, None, 100).await.unwrap();
    let packs = objects.iter().filter(|(name, _)| matches!(name.kind(), Kind::Pack(_)));
    assert_eq!(listed.len(), packs.count() + 2);
    for listed in &listed[listed.len() - 2..] {
        let error = liar.spread.get(&listed.name, Range::All).await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. } | Error::NotFound { .. }), "{error}");
    }
    for holdings in liar.holdings().await {
        let rebalanced = liar.spread.rebalance(&holdings, Verify::Trust).await.unwrap();
        assert_eq!(rebalanced.is_lost, holdings.pack.0[0] >= 0xfe);
    }
}

#[tokio::test]
async fn a_wrong_length_makes_a_read_slower_not_wrong() {
    let world = World::new(2, 3, 3);
    let (name, bytes) = pack(1, 100_001);
    world.spread.put(&name, bytes.clone()).await.unwrap();
    for wrong in [1, 99_999, 100_000, 100_002, 5_000_000, u64::MAX] {
        let world = world.reopened(&[]);
        world.spread.set_sizes(Arc::new(move |_| Some(wrong)));
        for range in [Range::All, Range::Last(10), from(0, 1)] {
            // The length is what tells whether a range lies within, so only a read can disprove it.
            assert!(
                world.spread.get(&name, range).await.unwrap() == part(&bytes, range),
                "{wrong} {range:?}"
            );
        }
    }
}

#[tokio::test]
async fn swapped_and_copied_shards_are_told_from_real_ones() {
    let world = World::new(2, 3, 3);
    let objects = [pack(1, 50_000), pack(2, 50_000)];
    world.put_all(&objects).await;
    let names = |number| [shard(&objects[0].0, 2, number), shard(&objects[1].0, 2, number)];
    for number in 0..3 {
        let [one, other] = names(number);
        let holder = |name: &Name| {
            let has = |memory: &&Arc<Memory>| memory.contents().contains_key(name);
            world.memories.iter().find(has).unwrap().clone()
        };
        let (first, second) = (holder(&one), holder(&other));
        let (bytes, others) = (first.contents()[&one].clone(), second.contents()[&other].clone());
        first.overwrite(&one, others.clone());
        second.overwrite(&other, bytes.clone());
        let again = world.reopened(&[]);
        again.assert_readable(&objects).await;
        again.rebalance(Verify::All).await;
        assert!(first.contents()[&one] == bytes && second.contents()[&other] == others);
    }
}
