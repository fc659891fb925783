//! Who holds which shard: the only place where it is decided, from the ids of pack and places alone.
//!
//! - The same places in any order give the same answer; nothing is looked up and nothing stored.
//! - Every place holds nearly as many shards of a pack as any other, at most one each if there are enough places.
//! - Where there is a choice, each place wins in proportion to its weight (weighted rendezvous hashing, Thaler and
//!   Ravishankar 1998, with one draw for each shard), so a place that is added or removed moves little else.
//! - Cold places hold parity before data.

use drystone_format::id::placement_draw;
use drystone_format::{PackId, PlaceId};

/// What placement knows of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub id: PlaceId,
    /// Share of the shards where there is a choice; 0 for a place that is being emptied and gets none.
    pub weight: u32,
    /// Slow or dear to read: it gets parity first.
    pub cold: bool,
}

/// Decides where the shards of packs lie.
#[derive(Debug, Clone)]
pub struct Placement {
    candidates: Vec<Candidate>,
    needed: u8,
    total: u8,
}

impl Placement {
    /// `needed` of `total` shards over these places. Answers are positions in `candidates`.
    pub fn new(candidates: Vec<Candidate>, needed: u8, total: u8) -> Self {
        Self {
            candidates,
            needed,
            total,
        }
    }

    /// How many places there are for shards.
    pub fn open_places(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.weight > 0).count()
    }

    /// The most shards of one pack that a place holds.
    pub fn most_per_place(&self) -> usize {
        usize::from(self.total).div_ceil(self.open_places().max(1))
    }

    /// How many places may be lost, whichever they are, without losing a pack of which every shard was stored.
    pub fn tolerance(&self) -> usize {
        usize::from(self.total.saturating_sub(self.needed)) / self.most_per_place().max(1)
    }

    /// How many spare copies of a small object each place holds, so that as many files may rot as shards.
    pub fn spares_per_place(&self) -> u8 {
        let copies = usize::from(self.total.saturating_sub(self.needed)) + 1;
        let per_place = copies.div_ceil(self.open_places().max(1));
        u8::try_from(per_place - 1).unwrap_or(u8::MAX)
    }

    /// The place of each shard of `pack`, by number; empty if there is no place that takes any.
    pub fn homes(&self, pack: &PackId) -> Vec<usize> {
        let mut held = vec![0; self.candidates.len()];
        let mut homes = Vec::with_capacity(self.total.into());
        for number in 0..self.total {
            let Some(place) = self.best(pack, number, &held) else {
                break;
            };
            if let Some(held) = held.get_mut(place) {
                *held += 1;
            }
            homes.push(place);
        }
        homes
    }

    /// The places that hold no shard of `pack`, best first: where one goes that its own place does not take.
    pub fn spares(&self, pack: &PackId) -> Vec<usize> {
        let homes = self.homes(pack);
        let mut spares: Vec<(bool, f64, usize)> = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(place, candidate)| candidate.weight > 0 && !homes.contains(place))
            .map(|(place, candidate)| (candidate.cold, wait(candidate, pack, self.total), place))
            .collect();
        spares.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        spares.into_iter().map(|(.., place)| place).collect()
    }

    /// The place for one more shard, `held` being how many of the pack's each holds already.
    fn best(&self, pack: &PackId, number: u8, held: &[usize]) -> Option<usize> {
        let most = self.most_per_place();
        let is_parity = number >= self.needed;
        let open = self.candidates.iter().zip(held).enumerate();
        open.filter(|(_, (candidate, held))| candidate.weight > 0 && **held < most)
            .map(|(place, (candidate, held))| {
                let mismatch = candidate.cold != is_parity && self.has_cold();
                (mismatch, *held, wait(candidate, pack, number), candidate.id, place)
            })
            .min_by(|one, other| {
                let by_load = (one.0, one.1).cmp(&(other.0, other.1));
                by_load.then(one.2.total_cmp(&other.2)).then(one.3.cmp(&other.3))
            })
            .map(|(.., place)| place)
    }

    fn has_cold(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.cold)
    }
}

/// When the place's clock rings, with a rate of its weight: the first one wins.
fn wait(candidate: &Candidate, pack: &PackId, number: u8) -> f64 {
    // The 53 bits that a float holds exactly; the half keeps it off zero.
    let draw = (placement_draw(&candidate.id, pack, number) >> 11) as f64 + 0.5;
    -(draw / (1_u64 << 53) as f64).ln() / f64::from(candidate.weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(n: u8, weight: u32, cold: bool) -> Candidate {
        let id = PlaceId([n; 16]);
        Candidate { id, weight, cold }
    }

    fn pack(n: u64) -> PackId {
        drystone_format::id::pack_id(&n.to_le_bytes())
    }

    fn counts(homes: &[usize], places: usize) -> Vec<usize> {
        (0..places)
            .map(|place| homes.iter().filter(|home| **home == place).count())
            .collect()
    }

    #[test]
    fn shares_follow_the_weights_where_there_is_a_choice() {
        let weights = [1, 2, 3, 4];
        let candidates = (0..).zip(weights).map(|(n, weight)| place(n, weight, false)).collect();
        let placement = Placement::new(candidates, 1, 1);
        let mut shares = [0_u32; 4];
        for n in 0..10_000 {
            shares[placement.homes(&pack(n))[0]] += 1;
        }
        for (share, weight) in shares.iter().zip(weights) {
            // Five standard deviations of the largest share.
            assert!(share.abs_diff(weight * 1000) < 250, "{shares:?}");
        }
    }

    #[test]
    fn an_added_place_takes_its_share_and_little_else_moves() {
        for (needed, total, before) in [(2, 3, 3), (2, 3, 6), (4, 6, 10), (10, 14, 14)] {
            let all: Vec<Candidate> = (0..=before).map(|n| place(n, 1, false)).collect();
            let old = Placement::new(all[..before.into()].to_vec(), needed, total);
            let new = Placement::new(all, needed, total);
            let (mut moved, mut won) = (0_u32, 0_u32);
            for n in 0..1000 {
                let (old, new) = (old.homes(&pack(n)), new.homes(&pack(n)));
                moved += old.iter().zip(&new).filter(|(old, new)| old != new).count() as u32;
                won += new.iter().filter(|home| **home == usize::from(before)).count() as u32;
            }
            let share = 1000 * u32::from(total) / u32::from(before + 1);
            assert!(won.abs_diff(share) < 150, "{won} of {share}");
            assert!(moved < won * 3, "{moved} moved for {won}");
        }
    }

    #[test]
    fn cold_places_get_parity_first() {
        let placement = Placement::new(vec![place(0, 1, false), place(1, 1, true), place(2, 1, false)], 2, 3);
        for n in 0..100 {
            let homes = placement.homes(&pack(n));
            assert_eq!(homes[2], 1);
            assert!(!homes[..2].contains(&1));
        }
    }

    proptest! {
        #[test]
        fn shards_are_dealt_out_evenly(
            places in proptest::collection::vec((0_u32..5, any::<bool>()), 1..12), total in 1_u8..20, of_total in 0_u8..20, n: u64,
        ) {
            let needed = 1 + of_total % total;
            let candidates: Vec<Candidate> =
                (0..).zip(&places).map(|(n, (weight, cold))| place(n, *weight, *cold)).collect();
            let placement = Placement::new(candidates.clone(), needed, total);
            let homes = placement.homes(&pack(n));
            let open = placement.open_places();
            prop_assert_eq!(homes.len(), if open == 0 { 0 } else { total.into() });
            for (held, candidate) in counts(&homes, candidates.len()).into_iter().zip(&candidates) {
                prop_assert!(held <= placement.most_per_place());
                prop_assert!(candidate.weight > 0 || held == 0);
                let all_alike = !candidates.iter().any(|candidate| candidate.cold);
                prop_assert!(!all_alike || candidate.weight == 0 || held >= usize::from(total) / open);
            }
            let spares = placement.spares(&pack(n));
            prop_assert!(spares.iter().all(|spare| !homes.contains(spare) && candidates[*spare].weight > 0));

            // The order of the places makes no difference.
            let mut turned = candidates.clone();
            turned.reverse();
            let ids = |placement: &Placement, candidates: &[Candidate]| -> Vec<PlaceId> {
                placement.homes(&pack(n)).into_iter().map(|home| candidates[home].id).collect()
            };
            prop_assert_eq!(ids(&placement, &candidates), ids(&Placement::new(turned.clone(), needed, total), &turned));
        }
    }
}
