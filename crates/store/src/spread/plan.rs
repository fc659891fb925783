//! What it takes to bring one pack to the present k, n and placement; decided here, done in `rebalance.rs`.
//!
//! - What exists is copied or kept, what is lost is rebuilt from the shards that are cheapest to read: of a lost place
//!   k shards of a pack at most.
//! - Nothing is surplus while anything is owed.

use std::collections::HashSet;

use drystone_format::shard::Shape;

use super::core::{Core, Spread};
use super::list::{HeldShard, PackHoldings};
use super::place::KnownPlace;
use crate::{Name, ShardId};

/// An object to read or write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Position of the place in the options.
    pub place: usize,
    /// The object.
    pub name: Name,
    /// Its length; an estimate where the length of the pack is not known.
    pub bytes: u64,
}

/// What it takes to bring one pack to where and how it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebalancePlan {
    /// What to read.
    pub reads: Vec<Transfer>,
    /// What to write.
    pub writes: Vec<Transfer>,
    /// What to remove once all is written: positions of places and objects.
    pub surplus: Vec<(usize, Name)>,
    /// What should be written to places that do not take it now.
    pub owed: Vec<(usize, Name)>,
    /// Too little is left to read the pack: there is nothing to be done now.
    pub is_lost: bool,
    /// Something is not as long as it should be; what, and what that takes, is known once it is read.
    pub is_doubtful: bool,
    /// What the reads give.
    pub(super) origin: Origin,
}

/// From what a pack's missing shards are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// They exist somewhere else.
    #[default]
    Copies,
    /// From these and other shards of the same k.
    Sums,
    /// From the whole pack, put together from shards of another k.
    OtherCut(u8),
    /// From a whole pack.
    Whole,
}

/// What is known not to be as the holdings say.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Objects whose bytes are not what was stored.
    pub(super) rotten: HashSet<(usize, Name)>,
    /// Places that failed meanwhile.
    pub(super) down: HashSet<usize>,
}

impl RebalancePlan {
    /// Whether all is as it should be.
    pub fn is_balanced(&self) -> bool {
        !self.is_lost && !self.is_doubtful && self.writes.is_empty() && self.owed.is_empty() && self.surplus.is_empty()
    }
}

impl Spread {
    /// What it takes to bring a pack to the present k, n and placement. Nothing is read or written.
    pub fn plan_rebalance(&self, holdings: &PackHoldings) -> RebalancePlan {
        let size = self.core.size(&holdings.pack);
        let mut plan = self.core.plan(holdings, &self.core.wrong_lengths(holdings, size));
        plan.is_doubtful = size.is_none() && holdings.is_contradictory();
        plan
    }
}

/// A plan in the making.
struct Planner<'a> {
    core: &'a Core,
    /// What is sound and can be reached.
    sound: PackHoldings,
    doubts: &'a Doubts,
    shard_bytes: u64,
    /// Shards that are or will be where they should be.
    kept: HashSet<(usize, Name)>,
    /// Shards to write, and where.
    wanted: Vec<(u8, usize)>,
    plan: RebalancePlan,
}

impl Core {
    /// The shards whose lengths show that they are damaged.
    pub(super) fn wrong_lengths(&self, holdings: &PackHoldings, pack_bytes: Option<u64>) -> Doubts {
        let mut doubts = Doubts::default();
        for shard in &holdings.shards {
            let shape = pack_bytes.map(|bytes| Shape::new(holdings.pack, bytes, shard.needed));
            let is_right = match shape {
                Some(Ok(shape)) => shape.object_bytes(shard.number) == shard.object_bytes,
                Some(Err(_)) => false,
                None => shard.payload_bytes.is_some(),
            };
            if !is_right {
                doubts.rotten.insert((shard.place, shard.name(holdings.pack)));
            }
        }
        for copy in holdings
            .copies
            .iter()
            .filter(|copy| pack_bytes.is_some_and(|bytes| bytes != copy.bytes))
        {
            doubts.rotten.insert((copy.place, Name::pack(&holdings.pack)));
        }
        doubts
    }

    pub(super) fn plan(&self, holdings: &PackHoldings, doubts: &Doubts) -> RebalancePlan {
        let mut sound = holdings.clone();
        let is_reachable = |place: usize| self.is_up(place, doubts);
        let is_sound = |place: usize, name: Name| is_reachable(place) && !doubts.rotten.contains(&(place, name));
        sound
            .shards
            .retain(|shard| is_sound(shard.place, shard.name(holdings.pack)));
        sound
            .copies
            .retain(|copy| is_sound(copy.place, Name::pack(&holdings.pack)));
        let order = |place: usize| self.place(place).map(|place| place.read_order());
        sound.shards.sort_by_key(|shard| (order(shard.place), shard.number));
        sound.copies.sort_by_key(|copy| order(copy.place));
        let shard_bytes = sound.shards.iter().filter(|shard| shard.needed == self.needed);
        let shard_bytes = shard_bytes.map(|shard| shard.object_bytes).max();
        let pack_bytes = self.size(&holdings.pack).or_else(|| sound.pack_bytes());
        let cut = pack_bytes.and_then(|bytes| Shape::new(holdings.pack, bytes, self.needed).ok());
        let mut planner = Planner {
            core: self,
            sound,
            doubts,
            shard_bytes: cut.map(|shape| shape.object_bytes(0)).or(shard_bytes).unwrap_or(0),
            kept: HashSet::new(),
            wanted: Vec::new(),
            plan: RebalancePlan::default(),
        };
        planner.place_shards();
        planner.choose_reads();
        planner.finish(holdings)
    }

    fn is_up(&self, place: usize, doubts: &Doubts) -> bool {
        !doubts.down.contains(&place) && self.place(place).is_some_and(|place| place.is_ready())
    }
}

impl Planner<'_> {
    fn name(&self, number: u8) -> Name {
        let (pack, needed) = (self.sound.pack, self.core.needed);
        Name::shard(&ShardId { pack, needed, number })
    }

    /// The best place that has this shard.
    fn held(&self, number: u8) -> Option<&HeldShard> {
        let is_it = |shard: &&HeldShard| (shard.needed, shard.number) == (self.core.needed, number);
        self.sound.shards.iter().find(is_it)
    }

    fn has(&self, number: u8, place: usize) -> bool {
        let wanted = (self.core.needed, number, place);
        self.sound
            .shards
            .iter()
            .any(|shard| (shard.needed, shard.number, shard.place) == wanted)
    }

    /// Whether a shard can be written to a place now: it cannot take the place of a rotten one that must not be removed.
    fn takes(&self, place: usize, number: u8) -> bool {
        let is_blocked =
            |found: &KnownPlace| found.is_append_only() && self.doubts.rotten.contains(&(place, self.name(number)));
        self.core.is_up(place, self.doubts) && !self.core.place(place).is_some_and(|place| is_blocked(place))
    }

    /// Decides what is kept, what is written where, and what is owed.
    fn place_shards(&mut self) {
        let homes = self.core.placement.homes(&self.sound.pack);
        let mut spares: Vec<usize> = self.core.placement.spares(&self.sound.pack);
        spares.reverse();
        for (number, home) in (0..=u8::MAX).zip(homes) {
            if self.has(number, home) {
                self.kept.insert((home, self.name(number)));
            } else if self.takes(home, number) {
                self.wanted.push((number, home));
            } else if let Some(place) = self.held(number).map(|shard| shard.place) {
                spares.retain(|spare| *spare != place);
                self.kept.insert((place, self.name(number)));
            } else {
                let mut spare = spares.pop();
                while let Some(place) = spare
                    && !self.takes(place, number)
                {
                    spare = spares.pop();
                }
                match spare {
                    Some(place) => self.wanted.push((number, place)),
                    None => self.plan.owed.push((home, self.name(number))),
                }
            }
        }
    }

    fn choose_reads(&mut self) {
        let is_complete = self.wanted.is_empty() && self.plan.owed.is_empty();
        if !is_complete && !self.sound.is_readable() {
            self.plan.is_lost = true;
            return;
        }
        let wanted: Vec<u8> = self.wanted.iter().map(|(number, _)| *number).collect();
        let mut reads: Vec<HeldShard> = wanted.iter().filter_map(|number| self.held(*number)).copied().collect();
        if reads.len() == wanted.len() {
            self.add_reads(&reads);
            return;
        }
        let needed = self.core.needed;
        for cut in self.sound.cuts(needed) {
            if self.sound.distinct(cut) < cut.into() {
                continue;
            }
            if cut == needed {
                self.plan.origin = Origin::Sums;
            } else {
                self.plan.origin = Origin::OtherCut(cut);
                reads.clear();
            }
            for shard in self.sound.shards.iter().filter(|shard| shard.needed == cut) {
                if reads.len() < cut.into() && !reads.iter().any(|read| read.number == shard.number) {
                    reads.push(*shard);
                }
            }
            self.add_reads(&reads);
            return;
        }
        self.plan.origin = Origin::Whole;
        self.plan.reads.extend(self.sound.copies.first().map(|copy| Transfer {
            place: copy.place,
            name: Name::pack(&self.sound.pack),
            bytes: copy.bytes,
        }));
    }

    fn add_reads(&mut self, shards: &[HeldShard]) {
        let pack = self.sound.pack;
        self.plan.reads.extend(shards.iter().map(|shard| Transfer {
            place: shard.place,
            name: shard.name(pack),
            bytes: shard.object_bytes,
        }));
    }

    fn finish(mut self, holdings: &PackHoldings) -> RebalancePlan {
        if self.plan.is_lost {
            self.plan.owed.clear();
            return self.plan;
        }
        for (number, place) in std::mem::take(&mut self.wanted) {
            let name = self.name(number);
            self.kept.insert((place, name.clone()));
            self.plan.writes.push(Transfer {
                place,
                name,
                bytes: self.shard_bytes,
            });
        }
        if self.plan.owed.is_empty() {
            let is_removable = |place: &KnownPlace| !place.is_append_only() && place.is_ready();
            let surplus = holdings.names().into_iter().filter(|held| {
                let place = self.core.place(held.0);
                !self.kept.contains(held) && place.is_some_and(|place| is_removable(place))
            });
            self.plan.surplus = surplus.collect();
        }
        self.plan
    }
}
