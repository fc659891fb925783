//! Listings: packs put together from the shards of all places, the union of all else.
//!
//! - A call reads what it answers and no more than a page beyond it; nothing is kept between calls.
//! - If more places fail to list than the spread can lose, the call fails; else what the others have is enough.

use std::sync::Arc;

use drystone_format::PackId;
use drystone_format::shard::{Shape, payload_bytes};

use super::core::{Amount, Core, Spread};
use super::gather::{all, most};
use super::merge::{Group, Merge};
use super::place::Failure;
use super::whereabouts::{Source, Whereabouts};
use crate::prefix::DIRECTORIES;
use crate::{Kind, Listed, Name, Prefix, Result, ShardId};

/// Most objects asked of a place at a time: what S3 gives in one answer.
const PAGE_MAX: usize = 1000;
/// Footers read at once where nothing else tells the length of a pack.
const FOOTERS_AT_ONCE: usize = 16;
/// A shard at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldShard {
    /// How many of its kind give the pack back (k).
    pub needed: u8,
    /// Which one it is.
    pub number: u8,
    /// Position of the place in the options.
    pub place: usize,
    /// Length of the object.
    pub object_bytes: u64,
    /// Length of what it holds of the pack; `None` if no sound shard has this length.
    pub payload_bytes: Option<u64>,
}

/// A whole pack at a place: from before the vault was spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCopy {
    /// Position of the place in the options.
    pub place: usize,
    /// Length.
    pub bytes: u64,
}

/// What is held of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackHoldings {
    /// The pack.
    pub pack: PackId,
    /// Its shards, of any k, at all places.
    pub shards: Vec<HeldShard>,
    /// Whole copies.
    pub copies: Vec<HeldCopy>,
}

/// A page of what is held.
#[derive(Debug, Clone)]
pub struct Holdings {
    /// Packs in the order of their ids; none: the end.
    pub packs: Vec<PackHoldings>,
    /// Positions of places that could not be listed: nothing is known about what they hold.
    pub silent: Vec<usize>,
}

impl PackHoldings {
    pub(super) fn new(pack: PackId, objects: Vec<(usize, Listed)>) -> Self {
        let (mut shards, mut copies) = (Vec::new(), Vec::new());
        for (place, listed) in objects {
            match listed.name.kind() {
                Kind::Shard(ShardId { needed, number, .. }) => shards.push(HeldShard {
                    needed,
                    number,
                    place,
                    object_bytes: listed.size,
                    payload_bytes: payload_bytes(listed.size).ok(),
                }),
                _ => copies.push(HeldCopy {
                    place,
                    bytes: listed.size,
                }),
            }
        }
        Self { pack, shards, copies }
    }

    pub(super) fn amount(&self) -> Amount {
        if self.shards.is_empty() && self.copies.is_empty() {
            Amount::Nothing
        } else {
            Amount::Some
        }
    }

    /// Whether enough is held to read the pack.
    pub fn is_readable(&self) -> bool {
        let is_enough = |needed: &u8| self.distinct(*needed) >= usize::from(*needed);
        !self.copies.is_empty() || self.cuts(0).iter().any(is_enough)
    }

    /// How many different shards of this k are held.
    pub fn distinct(&self, needed: u8) -> usize {
        let shards = self.shards.iter().filter(|shard| shard.needed == needed);
        let mut numbers: Vec<u8> = shards.map(|shard| shard.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    /// Each k that there are shards of, `first` before others.
    pub(super) fn cuts(&self, first: u8) -> Vec<u8> {
        let mut cuts: Vec<u8> = self
            .shards
            .iter()
            .map(|shard| shard.needed)
            .filter(|k| *k > 0)
            .collect();
        cuts.sort_unstable_by_key(|needed| (*needed != first, *needed));
        cuts.dedup();
        cuts
    }

    /// The length of the pack, if its data shards are all there and no shard or copy contradicts them.
    ///
    /// A last data shard cut short by fewer than k bytes is not noticed; whoever reads it finds out.
    pub(super) fn pack_bytes(&self) -> Option<u64> {
        self.told_bytes().filter(|length| self.agrees(*length))
    }

    /// Whether the lengths of what is held contradict each other: something is not whole, but not what.
    pub(super) fn is_contradictory(&self) -> bool {
        self.told_bytes().is_some_and(|length| !self.agrees(length))
    }

    /// The length of the pack that its data shards or a copy tell.
    fn told_bytes(&self) -> Option<u64> {
        let copied = self.copies.first().map(|copy| copy.bytes);
        let mut sums = self.cuts(0).into_iter().filter_map(|needed| self.sum(needed));
        sums.next().or(copied)
    }

    /// Whether everything held has the length that it has in a pack of this length.
    fn agrees(&self, length: u64) -> bool {
        let is_right = |shard: &HeldShard| {
            let shape = Shape::new(self.pack, length, shard.needed);
            shape.is_ok_and(|shape| shape.object_bytes(shard.number) == shard.object_bytes)
        };
        self.shards.iter().all(is_right) && self.copies.iter().all(|copy| copy.bytes == length)
    }

    /// What the data shards of this k hold together, if they are all there.
    fn sum(&self, needed: u8) -> Option<u64> {
        let payload = |number: u8| {
            let mut shards = self.shards.iter().filter(|shard| shard.needed == needed);
            shards.find(|shard| shard.number == number)?.payload_bytes
        };
        (0..needed).map(payload).sum()
    }

    /// The names of everything held, with the positions of the places.
    pub(super) fn names(&self) -> Vec<(usize, Name)> {
        let copies = self.copies.iter().map(|copy| (copy.place, Name::pack(&self.pack)));
        let shards = self.shards.iter().map(|shard| (shard.place, shard.name(self.pack)));
        shards.chain(copies).collect()
    }
}

impl HeldShard {
    /// Its name, being a shard of `pack`.
    pub fn name(&self, pack: PackId) -> Name {
        let (needed, number) = (self.needed, self.number);
        Name::shard(&ShardId { pack, needed, number })
    }
}

impl Spread {
    /// What is held of the next packs after `after`, at most `limit` (at least 1), readable or not.
    ///
    /// Unlike `list` it succeeds whatever places fail, and tells which.
    pub async fn holdings(&self, after: Option<&PackId>, limit: usize) -> Result<Holdings> {
        let mut merge = self.core.pack_merge(after, limit);
        let mut packs = Vec::new();
        while packs.len() < limit
            && let Some(group) = merge.next().await
        {
            packs.push(PackHoldings::new(group.key, group.objects));
        }
        let mut silent: Vec<usize> = merge.failures.iter().map(|failure| failure.position).collect();
        silent.sort_unstable();
        silent.dedup();
        Ok(Holdings { packs, silent })
    }

    /// Lists small objects as `list` does, and makes sure that each is at as many places as a put asks for: whoever lists
    /// after that finds it, whichever places are away then, if [`Spread::is_quorate`].
    ///
    /// What is gone meanwhile, and what is damaged everywhere, is listed all the same. Fails as a list or a put does.
    pub async fn list_confirmed(&self, prefix: Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let found = self.core.listed_copies(prefix, after, limit).await?;
        for copies in &found {
            self.core.confirm(copies).await?;
        }
        let listed = found.into_iter().filter_map(|copies| copies.into_iter().next());
        Ok(listed.map(|(_, listed)| listed).collect())
    }

    /// What is held of one pack, as far as places answer.
    pub async fn holdings_of(&self, pack: &PackId) -> PackHoldings {
        self.core.survey(*pack).await.0
    }
}

/// What one place has of a pack, and why it could not tell.
type Surveyed = (Vec<(usize, Listed)>, Vec<Failure>);

/// The pack that a name of a pack or shard belongs to.
fn pack_of(name: &Name) -> PackId {
    match name.kind() {
        Kind::Pack(pack) | Kind::Shard(ShardId { pack, .. }) => pack,
        _ => PackId([0; 32]),
    }
}

/// The last name, in the order of text, that a shard of `pack` can have.
fn last_shard(pack: PackId) -> Name {
    let (needed, number) = (99, 99);
    Name::shard(&ShardId { pack, needed, number })
}

/// A name before every shard of `pack`, and after those of all packs before.
fn before_shards(pack: PackId) -> Name {
    let (needed, number) = (0, 0);
    Name::shard(&ShardId { pack, needed, number })
}

impl Core {
    /// The packs that all places have something of.
    fn pack_merge(&self, after: Option<&PackId>, limit: usize) -> Merge<PackId> {
        let page = limit.saturating_mul(self.placement.most_per_place()).saturating_add(1);
        let mut merge = Merge::new(pack_of, page.min(PAGE_MAX));
        for place in &self.places {
            merge.add(self, place, Prefix::Shards, after.copied().map(last_shard));
            merge.add(self, place, Prefix::Packs, after.map(Name::pack));
        }
        merge
    }

    pub(super) async fn list(
        self: &Arc<Self>,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        match prefix {
            Prefix::Shards | Prefix::Spares | Prefix::Spare(..) => Ok(Vec::new()),
            Prefix::Packs => self.list_packs(after, limit).await,
            Prefix::All => self.list_all(after, limit).await,
            _ => self.list_small(*prefix, after, limit).await,
        }
    }

    /// Enough places must have been listed for what they have to be all there is.
    fn check_listed(&self, prefix: &Prefix, failures: &[Failure]) -> Result<()> {
        let mut silent: Vec<usize> = failures.iter().map(|failure| failure.position).collect();
        silent.sort_unstable();
        silent.dedup();
        if silent.len() > self.placement.tolerance() {
            return Err(self.too_few(prefix, failures));
        }
        Ok(())
    }

    /// The copies of the small objects that come next, with the positions of their places.
    pub(super) async fn listed_copies(
        self: &Arc<Self>,
        prefix: Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Vec<(usize, Listed)>>> {
        let mut merge = Merge::new(Name::clone, limit.min(PAGE_MAX));
        // What has lost its original is still there: gc must not miss a snapshot.
        let copies = if prefix == Prefix::Writers {
            &self.places
        } else {
            &self.copies
        };
        for place in copies {
            merge.add(self, place, prefix, after.cloned());
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(Group { objects, .. }) = merge.next().await
        {
            found.push(objects);
        }
        self.check_listed(&prefix, &merge.failures)?;
        Ok(found)
    }

    async fn list_small(self: &Arc<Self>, prefix: Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let found = self.listed_copies(prefix, after, limit).await?;
        let mut all = Vec::with_capacity(found.len());
        for copies in found {
            let differ = copies
                .windows(2)
                .any(|two| matches!(two, [(_, one), (_, other)] if one.size != other.size));
            if let Some((_, mut listed)) = copies.into_iter().next() {
                // Only one that is read and judged tells which length is right.
                if differ && let Ok(size) = self.stat_small(&listed.name).await {
                    listed.size = size;
                }
                all.push(listed);
            }
        }
        Ok(all)
    }

    async fn list_packs(self: &Arc<Self>, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let after = match after.map(|after| (after, after.kind())) {
            Some((_, Kind::Pack(pack))) => Some(pack),
            Some((after, _)) if *after > Name::pack(&PackId([0; 32])) => return Ok(Vec::new()),
            _ => None,
        };
        let mut merge = self.pack_merge(after.as_ref(), limit);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(group) = merge.next().await
        {
            let holdings = PackHoldings::new(group.key, group.objects);
            if holdings.is_readable() {
                found.push(holdings);
            }
        }
        self.check_listed(&Prefix::Packs, &merge.failures)?;
        let mut listed = Vec::with_capacity(found.len());
        for part in found.chunks(FOOTERS_AT_ONCE) {
            let sizes = part.iter().map(|holdings| {
                let (core, holdings) = (Arc::clone(self), holdings.clone());
                async move { core.listed_size(&holdings).await }
            });
            let sizes = all(sizes).await.ok_or_else(|| self.ending())?;
            for (holdings, size) in part.iter().zip(sizes) {
                let name = Name::pack(&holdings.pack);
                listed.push(Listed { name, size });
            }
        }
        Ok(listed)
    }

    /// The length of a listed pack; only if its parts do not tell it, one of them is asked for.
    ///
    /// A pack of which no footer can be read is listed too, with about its length: whoever reads it finds out.
    async fn listed_size(self: &Arc<Self>, holdings: &PackHoldings) -> u64 {
        if let Some(size) = self.size(&holdings.pack).or_else(|| holdings.pack_bytes()) {
            return size;
        }
        for found in self.ways(holdings) {
            if let Whereabouts::Shards { needed, sources } = found
                && let Ok(shape) = self.footer(holdings.pack, needed, &sources).await
            {
                return shape.pack_bytes();
            }
        }
        let copied = holdings.copies.iter().map(|copy| copy.bytes).max();
        let most = |shard: &HeldShard| shard.payload_bytes.map(|bytes| bytes * u64::from(shard.needed));
        copied
            .or_else(|| holdings.shards.iter().filter_map(most).max())
            .unwrap_or(0)
    }

    async fn list_all(self: &Arc<Self>, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let is_whole = |prefix: &Prefix| *prefix != Prefix::Shards;
        self.list_directories(&is_whole, after, limit).await
    }

    /// What is copied to all places: everything but packs.
    pub(super) async fn list_copied(
        self: &Arc<Self>,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        if *prefix != Prefix::All {
            return self.list(prefix, after, limit).await;
        }
        let is_copied = |prefix: &Prefix| !matches!(prefix, Prefix::Packs | Prefix::Shards);
        self.list_directories(&is_copied, after, limit).await
    }

    /// The header and the directories that are `meant`, in the order of names.
    async fn list_directories(
        self: &Arc<Self>,
        is_meant: &(dyn Fn(&Prefix) -> bool + Sync),
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        let (header, mut found) = (Name::header(), Vec::new());
        let mut is_header_due = after.is_none_or(|after| *after < header);
        for prefix in DIRECTORIES.iter().map(|directory| directory.prefix).filter(is_meant) {
            if is_header_due && *prefix.directory() > *header.as_str() {
                found.extend(self.listed_header().await?);
                is_header_due = false;
            }
            if found.len() >= limit {
                break;
            }
            let is_past = |after: &Name| *after.as_str() > *prefix.directory() && !prefix.covers(after);
            if after.is_some_and(is_past) {
                continue;
            }
            let rest = limit - found.len();
            let more = match prefix {
                Prefix::Packs => self.list_packs(after, rest).await?,
                _ => self.list_small(prefix, after, rest).await?,
            };
            found.extend(more);
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn listed_header(self: &Arc<Self>) -> Result<Option<Listed>> {
        let name = Name::header();
        match self.stat_small(&name).await {
            Ok(size) => Ok(Some(Listed { name, size })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything that is held of one pack, and the places that could not tell.
    pub(super) async fn survey(self: &Arc<Self>, pack: PackId) -> (PackHoldings, Vec<Failure>) {
        let page = usize::from(self.total) + 1;
        let questions = self.places.iter().map(|place| {
            let (core, place) = (Arc::clone(self), Arc::clone(place));
            async move {
                let mut merge = Merge::new(pack_of, page);
                merge.add(&core, &place, Prefix::Shards, Some(before_shards(pack)));
                let group = merge.next().await.filter(|group| group.key == pack);
                let mut objects = group.map_or_else(Vec::new, |group| group.objects);
                let name = Name::pack(&pack);
                match core.refusal(&place, &Prefix::Packs) {
                    Some(_) => {}
                    None => match place.stat(&name).await {
                        Ok(size) => objects.push((place.position, Listed { name, size })),
                        Err(error) if error.is_not_found() => {}
                        Err(error) => merge.failures.push(place.failure(error)),
                    },
                }
                (objects, merge.failures)
            }
        });
        let (mut objects, mut failures) = (Vec::new(), Vec::new());
        let is_enough = |answers: &[Option<Surveyed>]| {
            let whole = |answer: &&Option<_>| matches!(answer, Some((_, failures)) if Vec::is_empty(failures));
            answers.len() - answers.iter().filter(whole).count() <= self.placement.tolerance()
        };
        let answers = most(questions, is_enough, self.hedge_after).await;
        for (place, answer) in self.places.iter().zip(answers) {
            match answer {
                Some((found, failed)) => {
                    objects.extend(found);
                    failures.extend(failed);
                }
                None => failures.push(place.give_up(&Prefix::Shards)),
            }
        }
        let order = |(position, _): &(usize, Listed)| self.place(*position).map(|place| place.read_order());
        objects.sort_by_key(order);
        (PackHoldings::new(pack, objects), failures)
    }

    /// Where a group of equal shards lies, for reading.
    pub(super) fn sources(holdings: &PackHoldings, needed: u8) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for shard in holdings.shards.iter().filter(|shard| shard.needed == needed) {
            match sources.iter_mut().find(|source| source.number == shard.number) {
                Some(source) => source.places.push(shard.place),
                None => sources.push(Source {
                    number: shard.number,
                    places: vec![shard.place],
                }),
            }
        }
        sources
    }
}
