//! A random life of a spread: places fall ill and recover, objects come and go; a failing run prints its seed.
//!
//! - At no time have more than n - k places something wrong with them, as long as they were not rebalanced.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::fail::{Failure, Fault};
use drystone_store::spread::Verify;
use drystone_store::{Memory, Name, Op, Prefix, Range, Store};

use super::{World, from, pack, part, root, wipe};

const SEEDS: u64 = 60;
const STEPS: u32 = 60;

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ bits >> 31) % limit
    }

    fn place(&mut self, of: usize) -> usize {
        self.below(of as u64) as usize
    }
}

struct Life {
    seed: u64,
    random: Random,
    world: World,
    ill: Vec<usize>,
    objects: BTreeMap<Name, Bytes>,
    made: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let (needed, total, places) =
            [(1, 2, 2), (2, 3, 3), (4, 6, 6), (2, 3, 4), (2, 6, 3), (1, 3, 3)][random.below(6) as usize];
        let world = World::new(needed, total, places);
        Self {
            seed,
            random,
            world,
            ill: Vec::new(),
            objects: BTreeMap::new(),
            made: 0,
        }
    }

    fn what(&self, step: &str) -> String {
        format!(
            "seed {}, {:?}, {:?} ill: {step}",
            self.seed, self.world.spread, self.ill
        )
    }

    async fn step(&mut self) {
        match self.random.below(10) {
            0..=2 => self.put().await,
            3..=5 => self.get().await,
            6 => self.list().await,
            7 if self.ill.is_empty() => self.delete().await,
            7 | 8 => self.fall_ill(),
            _ => self.recover().await,
        }
    }

    async fn put(&mut self) {
        self.made += 1;
        let (name, bytes) = if self.random.below(4) == 0 {
            let bytes = Bytes::from(format!("root {} of {}", self.made, self.seed));
            (root(&bytes), bytes)
        } else {
            let len = 1 + self.random.below(60_000) as usize;
            pack(self.made << 20 | self.seed, len)
        };
        let put = self.world.spread.put(&name, bytes.clone()).await;
        assert!(put.is_ok(), "{}: {}", self.what("put"), put.unwrap_err());
        self.objects.insert(name, bytes);
    }

    async fn get(&mut self) {
        let Some(chosen) = (!self.objects.is_empty()).then(|| self.random.below(self.objects.len() as u64)) else {
            return;
        };
        let (name, bytes) = self.objects.iter().nth(chosen as usize).unwrap();
        let offset = self.random.below(bytes.len() as u64);
        let len = self.random.below(bytes.len() as u64 - offset + 1);
        let range = [Range::All, Range::Last(len), from(offset, len)][self.random.below(3) as usize];
        let got = self.world.spread.get(name, range).await;
        assert!(
            got.is_ok(),
            "{}: {name} {range:?}: {}",
            self.what("get"),
            got.unwrap_err()
        );
        assert!(
            got.unwrap() == part(bytes, range),
            "{}: {name} {range:?}",
            self.what("get")
        );
    }

    async fn list(&mut self) {
        let listed = self.world.spread.list(&Prefix::All, None, 1000).await;
        assert!(listed.is_ok(), "{}: {}", self.what("list"), listed.unwrap_err());
        let listed: Vec<Name> = listed.unwrap().into_iter().map(|listed| listed.name).collect();
        assert_eq!(
            listed,
            self.objects.keys().cloned().collect::<Vec<_>>(),
            "{}",
            self.what("list")
        );
    }

    async fn delete(&mut self) {
        if let Some(name) = self
            .objects
            .keys()
            .nth(self.random.below(self.objects.len().max(1) as u64) as usize)
            .cloned()
        {
            self.world.spread.delete(&name).await.unwrap();
            self.objects.remove(&name);
        }
    }

    fn fall_ill(&mut self) {
        if self.ill.len() == self.world.spread.tolerance() {
            return;
        }
        let place = self.random.place(self.world.memories.len());
        let (fail, memory) = (&self.world.fails[place], &self.world.memories[place]);
        match self.random.below(8) {
            0 => wipe(memory),
            1 => fail.add(Fault::error(Op::Put, Failure::Full)),
            2 => fail.add(Fault::torn_put(self.random.below(20_000) as usize)),
            3 => fail.add(Fault::altered_get().only(Prefix::Shards)),
            4 => fail.add(Fault::error(Op::Get, Failure::Io)),
            5 => self.damage(place),
            6 => fail.add(Fault::error(Op::List, Failure::Denied)),
            _ => {
                for op in [Op::Put, Op::Get, Op::Stat, Op::List, Op::Delete] {
                    fail.add(Fault::error(op, Failure::Unavailable));
                }
            }
        }
        if !self.ill.contains(&place) {
            self.ill.push(place);
        }
    }

    /// Flips a bit in, or cuts the end off, some shards.
    fn damage(&mut self, place: usize) {
        let memory: &Memory = &self.world.memories[place];
        for (name, bytes) in memory
            .contents()
            .into_iter()
            .filter(|(name, _)| name.as_str().starts_with("shards/"))
        {
            let at = self.random.below(bytes.len() as u64) as usize;
            match self.random.below(3) {
                0 => memory.overwrite(&name, bytes.slice(..bytes.len() - bytes.len().min(at.max(20)))),
                1 => {
                    let mut flipped = bytes.to_vec();
                    flipped[at] ^= 1;
                    memory.overwrite(&name, flipped.into());
                }
                _ => {}
            }
        }
    }

    /// All places are well again, and everything is put right.
    async fn recover(&mut self) {
        self.world.fails.iter().for_each(|fail| fail.clear());
        self.world = self.world.reopened(&[]);
        if self.random.below(2) == 0 {
            let places = self
                .world
                .memories
                .iter()
                .map(|memory| Arc::new(Memory::clone(memory)))
                .collect();
            self.world = World::over(self.world.needed, self.world.total, places);
        }
        for rebalanced in self.world.rebalance(Verify::All).await {
            assert!(
                !rebalanced.is_lost && rebalanced.owed.is_empty(),
                "{}: {rebalanced:?}",
                self.what("rebalance")
            );
        }
        self.ill.clear();
        let objects: Vec<(Name, Bytes)> = self.objects.clone().into_iter().collect();
        self.world.assert_whole(&objects, &self.what("rebalanced")).await;
        assert!(
            self.world
                .holdings()
                .await
                .iter()
                .all(|held| self.world.spread.plan_rebalance(held).is_balanced())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn random_lives() {
    for seed in 0..SEEDS {
        let mut life = Life::new(seed);
        for _ in 0..STEPS {
            life.step().await;
        }
        life.recover().await;
    }
}
