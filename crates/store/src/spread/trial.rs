//! Finds out which parts of a pack are its own: they are tried against its name, which no key can forge.
//!
//! - Tags and signatures say who vouches for a shard. The pack's name says what is true: any k shards that give a pack of
//!   that name are right, and every other part is judged by what they give.
//! - Signatures decide what is tried first: shards that the pack's signer or an owner made, at the places where they belong.
//! - Bounded: what is read (n shards, then as many again), the k-subsets that are tried, and what is remembered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::id::pack_id;
use drystone_format::keys::VerifyKey;
use drystone_format::pack::Preamble;
use drystone_format::shard::{Maker, Shape, open_shard};

use super::core::Core;
use super::gather::all;
use super::list::PackHoldings;
use super::place::KnownPlace;
use crate::blocking::blocking;
use crate::erasure::Coder;
use crate::{Kind, Name, Range, Result, ShardId};

/// Most k-subsets of shards that are tried for a pack: of 16 MiB each takes some 15 ms.
const SUBSETS_MAX: usize = 64;
/// Most ways to leave shards out that are looked at, many of which give subsets that were tried already.
const EXCLUSIONS_MAX: usize = 4096;

/// A shard whose tags are right, or a whole pack of the right name.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// The object as it was read.
    pub(super) object: Bytes,
    pub(super) part: Part,
}

/// What an object holds of its pack.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Whole,
    Shard {
        shape: Shape,
        number: u8,
        maker: Maker,
        payload: Bytes,
    },
}

/// What was read of a pack, by position of the place and name.
pub(super) type AllLoaded = BTreeMap<(usize, Name), Loaded>;

/// A pack whose bytes give its name.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) whole: Bytes,
    /// Who signed it, if it says so.
    signer: Option<VerifyKey>,
}

/// A shard among those that may give the pack back.
struct Candidate<'a> {
    at: &'a (usize, Name),
    shape: Shape,
    number: u8,
    maker: Maker,
    payload: &'a [u8],
}

impl Truth {
    /// The pack, if these are its bytes.
    fn of(pack: PackId, whole: Bytes) -> Option<Self> {
        (pack_id(&whole) == pack).then(|| Self {
            signer: Preamble::from_end(&whole)
                .ok()
                .map(|preamble| preamble.certificate.writer),
            whole,
        })
    }

    /// The payloads of these shards.
    pub(super) fn payloads(&self, shape: Shape, numbers: &[u8]) -> HashMap<u8, Bytes> {
        let columns = shape.columns(&self.whole).unwrap_or_default();
        let (data, parity): (Vec<u8>, Vec<u8>) = numbers.iter().partition(|number| **number < shape.needed());
        let sums = Coder::new(shape.needed()).parity(&columns, &parity).unwrap_or_default();
        let column = |number: &u8| {
            columns
                .get(usize::from(*number))
                .map(|column| self.whole.slice_ref(column))
        };
        let data: Vec<(u8, Bytes)> = data
            .iter()
            .filter_map(|number| Some((*number, column(number)?)))
            .collect();
        parity
            .into_iter()
            .zip(sums.into_iter().map(Bytes::from))
            .chain(data)
            .collect()
    }

    /// Whether this maker may sign shards of the pack.
    pub(super) fn admits(&self, maker: &Maker) -> bool {
        maker.counts_for(self.signer.as_ref())
    }

    /// What is wrong with these parts, for each with which something is: that they are right in form is known.
    fn judge(&self, pack: PackId, loaded: &AllLoaded) -> Vec<((usize, Name), &'static str)> {
        let mut numbers: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for loaded in loaded.values() {
            if let Part::Shard { shape, number, .. } = &loaded.part {
                numbers.entry(shape.needed()).or_default().insert(*number);
            }
        }
        let mut expected: HashMap<(u8, u8), Bytes> = HashMap::new();
        for (needed, numbers) in numbers {
            if let Ok(shape) = Shape::new(pack, self.whole.len() as u64, needed) {
                let payloads = self.payloads(shape, &numbers.into_iter().collect::<Vec<_>>());
                expected.extend(
                    payloads
                        .into_iter()
                        .map(|(number, payload)| ((needed, number), payload)),
                );
            }
        }
        let wrong = |loaded: &Loaded| match &loaded.part {
            Part::Whole => None,
            Part::Shard {
                shape,
                number,
                maker,
                payload,
            } => {
                let is_own = expected.get(&(shape.needed(), *number)) == Some(payload)
                    && shape.pack_bytes() == self.whole.len() as u64;
                if !is_own {
                    Some(
                        "forged: its tags are right, but it is no part of this pack; who made it has a key of the vault",
                    )
                } else if !self.admits(maker) {
                    Some("its signature is neither an owner's nor that of the pack's signer")
                } else {
                    None
                }
            }
        };
        let judged = loaded
            .iter()
            .filter_map(|(at, loaded)| Some((at.clone(), wrong(loaded)?)));
        judged.collect()
    }
}

/// How a candidate's chances are judged.
struct Odds<'a> {
    /// Who is thought to have signed the pack.
    signer: Option<VerifyKey>,
    /// Where shards belong: place and name.
    homes: &'a HashSet<(usize, Name)>,
    /// The k that packs are cut for now.
    present: u8,
}

impl Odds<'_> {
    /// The best candidates sort first.
    fn rank(&self, candidate: &Candidate<'_>, extras: &HashMap<usize, usize>) -> (bool, bool, bool, usize, u8) {
        (
            !candidate.maker.counts_for(self.signer.as_ref()),
            candidate.maker == Maker::Nobody,
            !self.homes.contains(candidate.at),
            // A place that has many shards where none belong makes none of them likelier.
            extras.get(&candidate.at.0).copied().unwrap_or(0),
            candidate.number,
        )
    }

    /// Candidates that are cut alike, the best first, groups of several places before others.
    fn groups<'a>(&self, loaded: &'a AllLoaded) -> Vec<Vec<Candidate<'a>>> {
        let mut groups: BTreeMap<(bool, u8, u64), Vec<Candidate<'a>>> = BTreeMap::new();
        let mut extras: HashMap<usize, usize> = HashMap::new();
        for (at, loaded) in loaded {
            if let Part::Shard {
                shape,
                number,
                maker,
                payload,
            } = &loaded.part
            {
                let key = (shape.needed() != self.present, shape.needed(), shape.pack_bytes());
                groups.entry(key).or_default().push(Candidate {
                    at,
                    shape: *shape,
                    number: *number,
                    maker: *maker,
                    payload,
                });
                *extras.entry(at.0).or_default() += usize::from(!self.homes.contains(at));
            }
        }
        let mut groups: Vec<Vec<Candidate<'a>>> = groups.into_values().collect();
        for group in &mut groups {
            group.sort_by_key(|candidate| self.rank(candidate, &extras));
        }
        let places = |group: &[Candidate<'_>]| group.iter().map(|one| one.at.0).collect::<BTreeSet<_>>().len();
        groups.sort_by_key(|group| Reverse(places(group)));
        groups
    }
}

/// The pack, from what was read of it.
fn find(pack: PackId, loaded: &AllLoaded, odds: &Odds<'_>) -> Option<Truth> {
    let is_whole = |loaded: &&Loaded| matches!(loaded.part, Part::Whole);
    if let Some(copy) = loaded.values().find(is_whole) {
        return Truth::of(pack, copy.object.clone());
    }
    let mut left = SUBSETS_MAX;
    for group in odds.groups(loaded) {
        // Half of what is left, so that one group of inventions cannot use up the tries of all.
        let tries = (left / 2).max(1);
        let (found, tried) = find_in(pack, &group, tries);
        if found.is_some() {
            return found;
        }
        left = left.saturating_sub(tried);
        if left == 0 {
            break;
        }
    }
    None
}

/// The pack from some k of these, and how many times that was tried.
fn find_in(pack: PackId, group: &[Candidate<'_>], tries: usize) -> (Option<Truth>, usize) {
    let Some(shape) = group.first().map(|candidate| candidate.shape) else {
        return (None, 0);
    };
    let mut tried: HashSet<Vec<usize>> = HashSet::new();
    for order in orders(group) {
        if tried.len() >= tries {
            break;
        }
        let Some(mut chosen) = choose(group, order, shape.needed()) else {
            continue;
        };
        chosen.sort_unstable();
        if tried.insert(chosen.clone())
            && let Some(whole) = join(shape, group, &chosen)
            && let Some(truth) = Truth::of(pack, whole)
        {
            return (Some(truth), tried.len());
        }
    }
    (None, tried.len())
}

/// In which orders to take candidates: as they are; those of one maker and of owners first; without one, two, three of them.
fn orders(group: &[Candidate<'_>]) -> impl Iterator<Item = Vec<usize>> {
    let all = 0..group.len();
    let mut makers: BTreeMap<Maker, usize> = BTreeMap::new();
    group
        .iter()
        .for_each(|candidate| *makers.entry(candidate.maker).or_default() += 1);
    let mut makers: Vec<(Maker, usize)> = makers.into_iter().collect();
    makers.sort_by_key(|(_, count)| Reverse(*count));
    let of_maker = |(maker, _): (Maker, usize)| {
        let belongs = |at: &usize| {
            let of = group.get(*at).map(|candidate| candidate.maker);
            of == Some(maker) || matches!(of, Some(Maker::Owner(_)))
        };
        let (first, others): (Vec<usize>, Vec<usize>) = all.clone().partition(belongs);
        [first, others].concat()
    };
    let mut orders = vec![all.clone().collect::<Vec<usize>>()];
    orders.extend(makers.into_iter().map(of_maker));
    let without = left_out(group.len()).into_iter();
    orders
        .into_iter()
        .chain(without.map(move |out| all.clone().filter(|at| !out.contains(at)).collect()))
}

/// Sets of one, two, three of `count` things, and so on, up to a limit.
fn left_out(count: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = (0..count).map(|at| vec![at]).collect();
    let mut at = 0;
    while let Some(out) = all.get(at).cloned().filter(|_| all.len() < EXCLUSIONS_MAX) {
        let next = out.last().map_or(0, |last| last + 1)..count;
        all.extend(next.map(|next| [out.as_slice(), &[next]].concat()));
        at += 1;
    }
    all
}

/// The first `needed` candidates of different numbers.
fn choose(group: &[Candidate<'_>], order: Vec<usize>, needed: u8) -> Option<Vec<usize>> {
    let mut numbers = HashSet::new();
    let is_new = |at: &usize| group.get(*at).is_some_and(|candidate| numbers.insert(candidate.number));
    let chosen: Vec<usize> = order.into_iter().filter(is_new).take(needed.into()).collect();
    (chosen.len() == usize::from(needed)).then_some(chosen)
}

/// What these shards give.
fn join(shape: Shape, group: &[Candidate<'_>], chosen: &[usize]) -> Option<Bytes> {
    let chosen = chosen.iter().filter_map(|at| group.get(*at));
    let have: Vec<(u8, &[u8])> = chosen.map(|candidate| (candidate.number, candidate.payload)).collect();
    let is_had = |number: &u8| have.iter().any(|(had, _)| had == number);
    let missing: Vec<u8> = (0..shape.needed()).filter(|number| !is_had(number)).collect();
    let rebuilt = Coder::new(shape.needed()).rebuild(&have, &missing)?;
    let mut whole = Vec::with_capacity(shape.pack_bytes() as usize);
    for number in 0..shape.needed() {
        let own = have.iter().find(|(had, _)| *had == number).map(|(_, payload)| *payload);
        let made = || {
            Some(
                rebuilt
                    .get(missing.iter().position(|lost| *lost == number)?)?
                    .as_slice(),
            )
        };
        whole.extend_from_slice(own.or_else(made)?.get(..shape.payload_bytes(number) as usize)?);
    }
    Some(whole.into())
}

impl Core {
    /// A whole shard whose tags are right, or a whole pack of the right name.
    pub(super) async fn read_whole(&self, place: &KnownPlace, name: &Name) -> Result<Loaded> {
        let object = place.get(name, Range::All).await?;
        let opened = match name.kind() {
            Kind::Shard(ShardId { pack, needed, number }) => {
                let (keys, bytes) = (Arc::clone(&self.keys), object.clone());
                let opened = blocking(&self.label, move || open_shard(&keys, pack, needed, number, &bytes)).await?;
                opened.map_err(|what| what.to_string()).map(|opened| Part::Shard {
                    shape: opened.shape,
                    number,
                    maker: opened.maker,
                    payload: opened.payload.into(),
                })
            }
            Kind::Pack(pack) if pack_id(&object) == pack => Ok(Part::Whole),
            _ => Err("its bytes do not give its name".to_string()),
        };
        let part = opened.map_err(|what| place.note_unsound(name, &what))?;
        Ok(Loaded { object, part })
    }

    /// What is held of a pack, in the order in which to read it for a trial: shards where they belong; others; copies.
    pub(super) fn in_order(&self, holdings: &PackHoldings) -> [Vec<(usize, Name)>; 2] {
        let homes = self.homes_of(holdings.pack);
        let mut extras: HashMap<usize, usize> = HashMap::new();
        let names = holdings.names();
        for at in names.iter().filter(|at| !homes.contains(at)) {
            *extras.entry(at.0).or_default() += 1;
        }
        let (first, mut others): (Vec<_>, Vec<_>) = names.into_iter().partition(|at| homes.contains(at));
        let is_other_cut = |name: &Name| !matches!(name.kind(), Kind::Shard(shard) if shard.needed == self.needed);
        others.sort_by_key(|at| (extras.get(&at.0).copied(), is_other_cut(&at.1), at.clone()));
        [first, others]
    }

    /// Where the shards of a pack belong.
    fn homes_of(&self, pack: PackId) -> HashSet<(usize, Name)> {
        let homes = (0..=u8::MAX).zip(self.placement.homes(&pack));
        let needed = self.needed;
        let home = |(number, place)| (place, Name::shard(&ShardId { pack, needed, number }));
        homes.map(home).collect()
    }

    /// The pack from some of what was read of it, tried against its name.
    pub(super) async fn find_truth(&self, pack: PackId, loaded: &AllLoaded) -> Option<Truth> {
        let (loaded, homes, present) = (loaded.clone(), self.homes_of(pack), self.needed);
        let hint = self.signers.read().clone();
        let work = move || {
            let signer = hint.and_then(|hint| hint(&pack));
            let homes = &homes;
            find(pack, &loaded, &Odds { signer, homes, present })
        };
        blocking(&self.label, work).await.ok().flatten()
    }

    /// Names, with their places, the parts that are not what they should be; gives them back.
    pub(super) async fn note_judged(&self, pack: PackId, truth: &Truth, loaded: &AllLoaded) -> Vec<(usize, Name)> {
        let (truth, loaded) = (truth.clone(), loaded.clone());
        let judged = blocking(&self.label, move || truth.judge(pack, &loaded)).await;
        let judged = judged.unwrap_or_default();
        for ((position, name), what) in &judged {
            if let Some(place) = self.place(*position) {
                place.note_forged(name, what);
            }
        }
        let forged: Vec<(usize, Name)> = judged.into_iter().map(|(at, _)| at).collect();
        self.tell_forged(pack, &forged);
        forged
    }

    /// Reads objects of a pack; what cannot be read is noted at its place.
    pub(super) async fn load_all(self: &Arc<Self>, objects: &[(usize, Name)], loaded: &mut AllLoaded) {
        let reads = objects.iter().filter_map(|(position, name)| {
            let (core, place, name) = (Arc::clone(self), Arc::clone(self.place(*position)?), name.clone());
            Some(async move { (place.position, name.clone(), core.read_whole(&place, &name).await.ok()) })
        });
        for (position, name, found) in all(reads).await.unwrap_or_default() {
            if let Some(found) = found {
                loaded.insert((position, name), found);
            }
        }
    }
}
