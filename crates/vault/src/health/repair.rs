//! Repair: redundancy brought back from what is left, the local index, and the vault header from its copy in a key slot.
//!
//! - What is owed follows from the listings and the configuration; nothing is written down that could be lost or wrong.
//! - One pack at a time: its new shards are durable before what they supersede is removed. Interrupted, it goes on later.

use crate::places::place::TroublesBefore;
use std::collections::HashSet;
use std::sync::Arc;

use drystone_format::PackId;
use drystone_format::keys::Role;
use drystone_index::Index;
use drystone_store::spread::{Lacking, PackHoldings, RebalancePlan, Rebalanced, Replicated, Spread, Transfer, Verify};
use drystone_store::{Kind, Name, ShardId};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::catalog::forged::forget_forged;
use crate::catalog::losses::{UNSOUND, flat, stored_packs};
use crate::catalog::unreadable::Unreadable;
use crate::error::{Error, Result};
use crate::gc::deletion::delete_header;
use crate::keyring::owner_key;
use crate::parallel::each;
use crate::places::allow::Act;
use crate::places::features::{Class, check};
use crate::places::marks::{mend_marks, unsound_marks};
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;

/// Packs whose holdings are asked for in one go.
const PAGE_PACKS: usize = 256;

/// State key of the copies of small objects that were found altered: lines of place and name.
const UNSOUND_SMALL: &str = "unsound_small";
/// State key of the packs that were whole once and were too little of to be read when it was last looked, 32 bytes each.
const LOST: &str = "lost_packs";

/// What a repair of the index found.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Packs whose tails were read.
    pub packs: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Packs whose tails cannot be read: what only they held is lost.
    pub problems: Problems,
}

/// How much redundancy there is, and what it takes to bring it to what the configuration demands.
#[derive(Debug, Clone, Default)]
pub struct Redundancy {
    /// Packs of which anything is held.
    pub packs: u64,
    /// Packs that are not as they should be, those that have no redundancy left among them.
    pub owed_packs: u64,
    /// Packs of which one more loss cannot be borne.
    pub bare_packs: u64,
    /// Packs that were whole once, and of which not enough is held to read them, as all places say.
    pub lost_packs: u64,
    /// Packs of which not enough is held at the places that are there; others may have the rest.
    pub unreached_packs: u64,
    /// Packs of which not enough is held and that are no loss, as far as this machine knows: what an interrupted run left, or
    /// what gc has condemned and a place brought back. gc removes them; if one is something else, check misses it.
    pub leftover_packs: u64,
    /// Places that lack copies of small objects (keys, snapshots, lists) that others have, and which.
    pub lacking: Vec<Lacking>,
    /// What repair will read from and write to each place.
    pub work: Vec<PlaceWork>,
}

/// What repair does at a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceWork {
    /// Its URL or path.
    pub place: String,
    /// Bytes it reads there.
    pub read_bytes: u64,
    /// Bytes it writes there.
    pub write_bytes: u64,
}

/// How to repair.
#[derive(Clone, Default)]
pub struct RepairOptions {
    /// Counts packs, and bytes written. Whoever has looked with [`Vault::redundancy`] knows the end of both.
    pub progress: Arc<Progress>,
    /// Stops it between packs.
    pub cancel: Cancel,
}

/// What a repair did.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// Packs that were brought to where they belong.
    pub mended_packs: u64,
    /// Small objects (keys, snapshots, lists) that were copied to a place that lacked them.
    pub mended_objects: u64,
    /// Bytes read from places.
    pub read_bytes: u64,
    /// Bytes written to places.
    pub written_bytes: u64,
    /// What could not be mended.
    pub problems: Problems,
}

/// What a pack is of which too little can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was whole once.
    Lost,
    /// Not all places were heard.
    OutOfReach,
    /// It never was whole, as far as this machine knows, or gc has condemned it.
    Leftover,
}

/// Tells what packs are of which too little can be read.
struct Fates<'a> {
    vault: &'a Vault,
    catalog: &'a Catalog,
    /// What was wrong with the places before it began.
    troubles: TroublesBefore,
    were_lost: HashSet<PackId>,
}

impl Fates<'_> {
    fn of(&self, pack: &PackId) -> Fate {
        let losses = &self.catalog.losses;
        let is_indexed = || matches!(self.catalog.index.pack(pack), Ok(Some(_)));
        let was_whole =
            || losses.is_gone(pack) || losses.is_damaged(pack) || self.were_lost.contains(pack) || is_indexed();
        if self.catalog.is_condemned(pack) {
            // gc deleted it where it could, and will where a place has come back.
            Fate::Leftover
        } else if self.vault.place.is_cut_off(&self.troubles) {
            Fate::OutOfReach
        } else if was_whole() {
            Fate::Lost
        } else {
            Fate::Leftover
        }
    }
}

impl Vault {
    /// Throws the index away and builds it from the packs at the place. An index that is shared forgets all packs on the way, for everybody.
    pub fn repair_index(&self) -> Result<RepairReport> {
        let dir = self.index_dir();
        match &self.context.chunk_map {
            Some(shared) => drop(shared.retain(&|_| false)?),
            None => Index::clear(&dir)?,
        }
        Unreadable::forget(self.state())?;
        let catalog = Catalog::open_without_parts(self, &dir)?;
        let stats = catalog.index.stats()?;
        Ok(RepairReport {
            packs: stats.packs,
            chunks: stats.chunks,
            problems: catalog.unreadable(),
        })
    }

    /// Writes the vault header anew from the copy that this run works with; needs an owner's key.
    pub fn repair_header(&self) -> Result<()> {
        owner_key(&self.secrets)?;
        check(self.config(), Class::Write, self.place())?;
        delete_header(&self.place)?;
        self.place.put(&Name::header(), self.header_object())
    }

    /// How much redundancy there is and what repair would do, from listings alone; of a vault at one place, nothing.
    pub fn redundancy(&self) -> Result<Redundancy> {
        let (mut found, troubles) = (Redundancy::default(), self.place.troubles_before());
        let Some(spread) = self.place.as_spread() else {
            let names = self.unsound_config_copies()?.into_iter().map(|(name, _)| name);
            add_lacking(&mut found.lacking, self.place.name(), names);
            return Ok(found);
        };
        found.lacking = self.place.wait(spread.lacking())?;
        for site in &self.sites {
            match unsound_marks(site, self.place.spares(), &self.context, &self.secrets) {
                Ok(marks) => add_lacking(&mut found.lacking, &site.entry.url, marks.names()),
                // What a place that fails has is not known; that it fails is.
                Err(Error::Store(error)) => spread.note_failure(&site.entry.id, &error),
                Err(error) => return Err(error),
            }
        }
        let name = |place: &drystone_store::spread::PlaceTroubles| PlaceWork {
            place: place.place.clone(),
            ..PlaceWork::default()
        };
        found.work = spread.troubles().places.iter().map(name).collect();
        let (unsound, catalog) = (self.unsound_packs()?, self.catalog()?);
        let mut unreadable = Vec::new();
        self.for_each_page(spread, &mut |page| {
            for holdings in page {
                let is_unsound = unsound.contains(&holdings.pack);
                let (mut plan, is_bare) = (spread.plan_rebalance(holdings), self.is_bare(holdings));
                // Enough is listed, and was read in vain.
                plan.is_lost |= catalog.losses.is_damaged(&holdings.pack);
                found.add(&plan, is_unsound, is_bare);
                if plan.is_lost {
                    unreadable.push(holdings.pack);
                }
            }
            Ok(())
        })?;
        let (fates, mut lost) = (self.fates(troubles)?, HashSet::new());
        for pack in unreadable {
            match fates.of(&pack) {
                Fate::Lost => {
                    found.lost_packs += 1;
                    lost.insert(pack);
                }
                Fate::OutOfReach => found.unreached_packs += 1,
                Fate::Leftover => found.leftover_packs += 1,
            }
        }
        if !self.place.is_cut_off(&fates.troubles) && lost != fates.were_lost {
            self.state().set(LOST, &flat(&lost))?;
        }
        Ok(found)
    }

    fn fates(&self, troubles: TroublesBefore) -> Result<Fates<'_>> {
        Ok(Fates {
            vault: self,
            catalog: self.catalog()?,
            troubles,
            were_lost: stored_packs(self.state(), LOST)?,
        })
    }

    /// Brings every pack and small object to where the configuration wants it; of a vault at one place, does nothing.
    ///
    /// Packs whose shards were found altered are read in full, of the others only what it takes to make what is missing.
    /// An error is of this program's or a place's side; packs that cannot be mended are problems.
    pub fn repair(&self, options: &RepairOptions) -> Result<Repaired> {
        self.allow(Act::Store)?;
        let (mut repaired, troubles) = (Repaired::default(), self.place.troubles_before());
        let Some(spread) = self.place.as_spread() else {
            repaired.mended_objects = self.mend_config_copies()?;
            self.keep_reserve();
            return Ok(repaired);
        };
        let small = self.place.replicate_small()?;
        repaired.mended_objects = small.copied + small.replaced;
        repaired.written_bytes = small.written_bytes;
        push_unsound(&mut repaired.problems, &small);
        self.note_unsound_small(&small)?;
        if self.role() == Role::Owner {
            let spares = self.place.spares();
            for site in &self.sites {
                let unsound = unsound_marks(site, spares, &self.context, &self.secrets)?;
                repaired.mended_objects += mend_marks(site, &unsound, spares, &self.context, &self.secrets)? as u64;
            }
        }
        if small.owed.count == 0 {
            self.place.wait(spread.drop_spares())?;
        }
        let (unsound, fates) = (self.unsound_packs()?, self.fates(troubles)?);
        let losses = &fates.catalog.losses;
        let repaired = Mutex::new(repaired);
        self.for_each_page(spread, &mut |page| {
            each(self.place.parallel(self.context.threads), page, &|holdings| {
                options.cancel.check()?;
                let is_damaged = losses.is_damaged(&holdings.pack);
                let verify = if is_damaged || unsound.contains(&holdings.pack) {
                    Verify::All
                } else {
                    Verify::Trust
                };
                let mended = self.rebalance_pack(spread, holdings, verify)?;
                Progress::add(&options.progress.files, 1);
                Progress::add(&options.progress.stored_bytes, mended.written_bytes);
                Progress::add(&options.progress.bytes, mended.written_bytes);
                let fate = mended.is_lost.then(|| fates.of(&holdings.pack));
                match fate {
                    Some(Fate::Lost) => losses.mark_damaged(&holdings.pack)?,
                    None if is_damaged && mended.owed.is_empty() => losses.mark_sound(&holdings.pack)?,
                    _ => {}
                }
                repaired.lock().add(&holdings.pack, &mended, fate);
                Ok(())
            })
        })?;
        self.keep_reserve();
        Ok(repaired.into_inner())
    }

    /// Whether losing one more part of a pack may make it unreadable, though the configuration wants more.
    fn is_bare(&self, holdings: &PackHoldings) -> bool {
        let (needed, total) = self.config().spread;
        let parts = holdings.distinct(needed).max(holdings.copies.len().min(1));
        total > needed && holdings.copies.len() < 2 && parts <= usize::from(needed)
    }

    /// Brings one pack to where it belongs; a pack that is whole afterwards is no longer noted as unsound.
    pub(crate) fn rebalance_pack(
        &self,
        spread: &Spread,
        holdings: &PackHoldings,
        verify: Verify,
    ) -> Result<Rebalanced> {
        if verify == Verify::Trust && spread.plan_rebalance(holdings).is_balanced() {
            return Ok(Rebalanced::default());
        }
        let rebalanced = self.place.wait(spread.rebalance(holdings, verify))?;
        if verify == Verify::All && rebalanced.owed.is_empty() && !rebalanced.is_lost {
            self.note_unsound(&holdings.pack, false)?;
            let _one_at_a_time = self.noting.lock();
            forget_forged(self.state(), &holdings.pack)?;
        }
        Ok(rebalanced)
    }

    /// What is held of all packs, a page at a time.
    pub(crate) fn for_each_page(
        &self,
        spread: &Spread,
        each: &mut dyn FnMut(&[PackHoldings]) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<PackId> = None;
        loop {
            let page = self.place.wait(spread.holdings(after.as_ref(), PAGE_PACKS))?;
            let Some(last) = page.packs.last() else { return Ok(()) };
            after = Some(last.pack);
            each(&page.packs)?;
        }
    }

    /// Copies of small objects that a scrub of this machine found altered and nobody has mended since: place and name.
    pub(crate) fn unsound_small(&self) -> Result<Vec<(String, String)>> {
        let stored = self.state().get(UNSOUND_SMALL)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&stored).into_owned();
        let line = |line: &str| {
            line.split_once('\t')
                .map(|(place, name)| (place.to_owned(), name.to_owned()))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    /// Remembers what this run has found altered by the way, so that the doctor names it until it is mended.
    pub(crate) fn remember_altered(&self) -> Result<()> {
        let Some(spread) = self.place.as_spread() else {
            return Ok(());
        };
        let known = self.unsound_small()?;
        let mut small = known.clone();
        for place in spread.troubles().places {
            for name in &place.unsound.named {
                match Name::parse(name).map(|name| name.kind()) {
                    Ok(Kind::Shard(ShardId { pack, .. }) | Kind::Pack(pack)) => self.note_unsound(&pack, true)?,
                    _ => small.push((place.place.clone(), name.clone())),
                }
            }
        }
        small.sort();
        small.dedup();
        if small == known {
            return Ok(());
        }
        self.set_unsound_small(&small)
    }

    /// Remembers which copies are altered, after all of them were read.
    pub(crate) fn note_unsound_small(&self, small: &Replicated) -> Result<()> {
        self.set_unsound_small(&small.unmended)
    }

    fn set_unsound_small(&self, altered: &[(String, String)]) -> Result<()> {
        let lines = altered.iter().map(|(place, name)| format!("{place}\t{name}\n"));
        Ok(self.state().set(UNSOUND_SMALL, lines.collect::<String>().as_bytes())?)
    }

    /// Packs of which a shard was found altered by this machine and not mended since.
    pub(crate) fn unsound_packs(&self) -> Result<HashSet<PackId>> {
        stored_packs(self.state(), UNSOUND)
    }

    /// Remembers, or forgets, that a shard of a pack is altered. A mark that two processes lose between them costs a scrub.
    pub(crate) fn note_unsound(&self, pack: &PackId, is_unsound: bool) -> Result<()> {
        let _one_at_a_time = self.noting.lock();
        let mut packs = self.unsound_packs()?;
        let is_changed = if is_unsound {
            packs.insert(*pack)
        } else {
            packs.remove(pack)
        };
        if !is_changed {
            return Ok(());
        }
        Ok(self.state().set(UNSOUND, &flat(&packs))?)
    }
}

/// Adds objects to what a place lacks.
fn add_lacking(lacking: &mut Vec<Lacking>, place: &str, names: impl Iterator<Item = Name>) {
    for name in names {
        let known = lacking.iter().position(|known| known.place == place);
        let number = known.unwrap_or_else(|| {
            lacking.push(Lacking {
                place: place.to_owned(),
                ..Lacking::default()
            });
            lacking.len() - 1
        });
        if let Some(known) = lacking.get_mut(number) {
            known.objects.add(&name);
        }
    }
}

/// Names the small objects that cannot be mended from any place.
pub(crate) fn push_unsound(problems: &mut Problems, small: &Replicated) {
    for name in &small.unsound.named {
        problems.push(name.as_str(), "no place has a sound copy of it");
    }
}

impl Repaired {
    fn add(&mut self, pack: &PackId, rebalanced: &Rebalanced, fate: Option<Fate>) {
        let what = match fate {
            Some(Fate::Lost) => Some("too few of its shards are left; see `drystone check`"),
            Some(Fate::OutOfReach) => Some("too few of its shards can be read; bring back the place that is away"),
            Some(Fate::Leftover) | None => None,
        };
        if let Some(what) = what {
            self.problems.push(Name::pack(pack).as_str(), what);
        }
        if rebalanced.is_foreign {
            let what = "made with another key; repair with that key, or with an owner's: a signature of this one would not count";
            self.problems.push(Name::pack(pack).as_str(), what);
        }
        if rebalanced.writes > 0 || rebalanced.removed > 0 {
            self.mended_packs += 1;
        }
        self.read_bytes += rebalanced.read_bytes;
        self.written_bytes += rebalanced.written_bytes;
    }
}

impl Redundancy {
    /// How many copies of small objects places lack.
    pub fn owed_objects(&self) -> u64 {
        self.lacking.iter().map(|lacking| lacking.objects.count).sum()
    }

    fn add(&mut self, plan: &RebalancePlan, is_unsound: bool, is_bare: bool) {
        self.packs += 1;
        if plan.is_lost {
            return;
        }
        if plan.is_balanced() && !is_unsound {
            return;
        }
        self.owed_packs += 1;
        self.bare_packs += u64::from(is_bare);
        let add = |work: &mut [PlaceWork], transfers: &[Transfer], bytes: fn(&mut PlaceWork) -> &mut u64| {
            for transfer in transfers {
                if let Some(work) = work.get_mut(transfer.place) {
                    *bytes(work) += transfer.bytes;
                }
            }
        };
        add(&mut self.work, &plan.reads, |work| &mut work.read_bytes);
        add(&mut self.work, &plan.writes, |work| &mut work.write_bytes);
    }
}
