//! Packs that were not what they should be: what is known of their parts, so that they are read from those that are proven.
//!
//! - Each is tried once in a run, and once more if even what was proven turns out wrong: a place that gives other bytes to
//!   ranged reads than to whole ones. Such a pack is read as a whole from then on, and hashed.
//! - What is remembered of them is in `suspects.rs`.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::shard::Shape;
use drystone_format::{PackId, PlaceId};

use super::core::{Core, Spread};
use super::list::PackHoldings;
use super::suspects::{Outcome, Suspect};
use super::trial::{AllLoaded, Part};
use super::whereabouts::{Source, Whereabouts};
use crate::{Name, ShardId};

impl Spread {
    /// Says that what was read of this pack is not what it should be, though its tags are right.
    ///
    /// All of its parts are then read and tried against its name: those that are forged are written down with their places
    /// and left alone from now on. The length of the pack, if reading it again may give something else; `None` if nothing
    /// gives the pack, or if it is known that nothing was forged.
    pub async fn distrust(&self, pack: &PackId) -> Option<u64> {
        let core = &self.core;
        let before = core.suspects.known.get(pack).map(|suspect| suspect.outcome);
        if matches!(before, Some(Outcome::Acquitted | Outcome::Hopeless)) {
            return None;
        }
        let trying = core.suspects.trying.lock().await;
        let now = core.suspects.known.get(pack);
        if let (None, Some(suspect)) = (before, now) {
            // Others complained of the same bytes.
            return matches!(suspect.outcome, Outcome::Proven | Outcome::Sworn).then_some(suspect.pack_bytes);
        }
        let whole = core.try_pack(*pack, before.is_some()).await;
        drop(trying);
        whole.map(|whole| whole.len() as u64)
    }

    /// Says that a pack is wrong though it was read as `distrust` left it: nobody forged anything, its writer made it so.
    pub fn acquit(&self, pack: &PackId) {
        let suspects = &self.core.suspects;
        if let Some(mut suspect) = suspects.known.get(pack) {
            suspect.outcome = Outcome::Acquitted;
            suspects.known.insert(*pack, suspect);
        }
    }
}

impl Spread {
    /// Says that an earlier run found shards of a pack forged at this place: others are asked first.
    pub fn recall_forged(&self, place: &PlaceId, pack: &PackId) {
        for found in self.core.places.iter().filter(|found| found.id() == *place) {
            found.note_forged(&Name::pack(pack), "forged, as an earlier run found");
        }
    }

    /// Whether shards other than those that were read first give the same last bytes of a pack; also if there are too few
    /// to say.
    pub async fn confirm_end(&self, pack: &PackId, end: &Bytes) -> bool {
        let core = &self.core;
        let shape = core
            .size(pack)
            .and_then(|size| Shape::new(*pack, size, core.needed).ok());
        let Some(shape) = shape else { return true };
        let sources = core.expected(pack);
        let Some(start) = shape.pack_bytes().checked_sub(end.len() as u64) else {
            return false;
        };
        let mut at = 0;
        for piece in shape.split(start..shape.pack_bytes()).unwrap_or_default() {
            let next = at + piece.bytes as usize;
            let found = core.from_others(shape, piece, &sources).await;
            if found.is_ok_and(|found| end.get(at..next) != Some(&*found)) {
                return false;
            }
            at = next;
        }
        true
    }
}

impl Core {
    /// The whole pack, if ranges of it are not to be trusted, or if it is in memory anyway.
    pub(super) async fn sworn(self: &Arc<Self>, pack: PackId) -> Option<Bytes> {
        let suspect = self.suspects.known.get(&pack)?;
        if let Some(whole) = self.suspects.whole(&pack) {
            return Some(whole);
        }
        if suspect.outcome != Outcome::Sworn {
            return None;
        }
        let _one_at_a_time = self.suspects.trying.lock().await;
        match self.suspects.whole(&pack) {
            Some(whole) => Some(whole),
            None => self.try_pack(pack, true).await,
        }
    }

    /// The whole pack from parts that are proven, unless that was tried before in vain.
    pub(super) async fn clear_up(self: &Arc<Self>, pack: PackId) -> Option<Bytes> {
        let _one_at_a_time = self.suspects.trying.lock().await;
        if let Some(whole) = self.suspects.whole(&pack) {
            return Some(whole);
        }
        match self.suspects.known.get(&pack).map(|suspect| suspect.outcome) {
            Some(Outcome::Hopeless) => None,
            known => self.try_pack(pack, known.is_some()).await,
        }
    }

    /// Reads all parts of a pack, finds out which are its own, and remembers it.
    async fn try_pack(self: &Arc<Self>, pack: PackId, is_again: bool) -> Option<Bytes> {
        let (holdings, _) = self.survey(pack).await;
        if !holdings.is_readable() {
            return None;
        }
        let [first, mut others] = self.in_order(&holdings);
        others.truncate(usize::from(self.total).max(1));
        let mut loaded = AllLoaded::new();
        self.load_all(&first, &mut loaded).await;
        let mut truth = self.find_truth(pack, &loaded).await;
        if truth.is_none() && !others.is_empty() {
            self.load_all(&others, &mut loaded).await;
            truth = self.find_truth(pack, &loaded).await;
        }
        let Some(truth) = truth else {
            self.suspects.known.insert(
                pack,
                Suspect {
                    outcome: Outcome::Hopeless,
                    forged: [].into(),
                    pack_bytes: 0,
                },
            );
            return None;
        };
        let forged = self.note_judged(pack, &truth, &loaded).await;
        loaded.retain(|at, _| !forged.contains(at));
        let pack_bytes = truth.whole.len() as u64;
        self.sizes.insert(pack, pack_bytes);
        let proven = self.proven(&loaded);
        let outcome = if is_again || forged.is_empty() || proven.is_none() {
            Outcome::Sworn
        } else {
            Outcome::Proven
        };
        if let Some(found) = proven {
            self.elsewhere.insert(pack, found);
        }
        let forged = forged.into();
        self.suspects.known.insert(
            pack,
            Suspect {
                outcome,
                forged,
                pack_bytes,
            },
        );
        self.suspects.keep(pack, truth.whole.clone());
        Some(truth.whole)
    }

    /// Where to read a pack of which these parts are proven.
    fn proven(&self, loaded: &AllLoaded) -> Option<Whereabouts> {
        let mut sources: Vec<(u8, Source)> = Vec::new();
        for ((place, _), loaded) in loaded {
            match &loaded.part {
                Part::Whole => return Some(Whereabouts::Whole { position: *place }),
                Part::Shard { shape, number, .. } => {
                    let cut = shape.needed();
                    let same = |(needed, source): &&mut (u8, Source)| (*needed, source.number) == (cut, *number);
                    match sources.iter_mut().find(same) {
                        Some((_, source)) => source.places.push(*place),
                        None => {
                            let (number, places) = (*number, vec![*place]);
                            sources.push((cut, Source { number, places }));
                        }
                    }
                }
            }
        }
        let mut cuts: Vec<u8> = sources.iter().map(|(needed, _)| *needed).collect();
        cuts.sort_by_key(|needed| *needed != self.needed);
        let of = |cut: u8| {
            sources
                .iter()
                .filter(move |(needed, _)| *needed == cut)
                .map(|(_, source)| source)
        };
        let needed = cuts.into_iter().find(|cut| of(*cut).count() >= usize::from(*cut))?;
        let sources = of(needed).cloned().collect();
        Some(Whereabouts::Shards { needed, sources })
    }

    /// Takes places of forged shards out.
    pub(super) fn leave_forged_out(&self, pack: &PackId, needed: u8, sources: &mut Vec<Source>) {
        let Some(suspect) = self.suspects.known.get(pack) else {
            return;
        };
        for source in &mut *sources {
            let number = source.number;
            let name = Name::shard(&ShardId {
                pack: *pack,
                needed,
                number,
            });
            let is_forged = |place: &usize| suspect.forged.iter().any(|(at, forged)| at == place && *forged == name);
            source.places.retain(|place| !is_forged(place));
        }
        sources.retain(|source| !source.places.is_empty());
    }

    /// Takes forged shards out.
    pub(super) fn leave_forged(&self, holdings: &mut PackHoldings) {
        let Some(suspect) = self.suspects.known.get(&holdings.pack) else {
            return;
        };
        let (pack, forged) = (holdings.pack, suspect.forged);
        let is_forged = |place, name| forged.contains(&(place, name));
        holdings
            .shards
            .retain(|shard| !is_forged(shard.place, shard.name(pack)));
    }

    /// Forgets what was learned about where to read a pack: it was written anew, or removed.
    pub(super) fn forget(&self, pack: &PackId) {
        self.elsewhere.remove(pack);
        self.suspects.known.remove(pack);
        self.suspects.wholes.lock().retain(|(kept, _)| kept != pack);
    }

    /// Tells whoever wants to know that parts of a pack are forged.
    pub(super) fn tell_forged(&self, pack: PackId, forged: &[(usize, Name)]) {
        let hook = self.forged.read().clone();
        let mut places: Vec<PlaceId> = forged
            .iter()
            .filter_map(|(position, _)| Some(self.place(*position)?.id()))
            .collect();
        places.sort_unstable();
        places.dedup();
        if let (Some(hook), false) = (hook, places.is_empty()) {
            hook(&pack, &places);
        }
    }
}
