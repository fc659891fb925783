//! Scrub: read every byte of the packs and verify it: name, signature, seal, chunk hashes.
//!
//! - A writer's credential verifies names and tails; an owner's also every frame and chunk.
//! - What is found damaged is remembered: the next backup stores its chunks again if it still meets them.
//! - What an owner finds sound is published, so that other writers may deduplicate against it.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::id::object_hash;
use drystone_format::id::pack_id;
use drystone_format::keys::Role;
use drystone_format::limits::ROOT_MAX_BYTES;
use drystone_format::notice::seal_verified;
use drystone_format::pack::{Tail, tail_bytes};
use drystone_format::tree::Time;
use drystone_index::PackInfo;
use drystone_store::spread::Verify;
use drystone_store::{Name, Prefix, Range};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::deletion::delete_list;
use crate::health::repair::push_unsound;
use crate::parallel::each;
use crate::places::allow::Act;
use crate::places::marks::{mend_marks, unsound_marks};
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;

/// State key of the pack where the last partial scrub ended.
const POSITION: &str = "scrub_position";
/// State key of the time when all packs had been read, whether in one run or in several; seconds, eight bytes big-endian.
const COMPLETED: &str = "scrub_completed";

/// How to scrub.
#[derive(Clone)]
pub struct ScrubOptions {
    /// Share of the packs to read, 0 to 1; runs with a share continue where the last one ended.
    pub share: f64,
    /// Whether shards that are altered or missing are made anew.
    pub repair: bool,
    /// Counts packs and bytes.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: Cancel,
}

/// What a scrub found.
#[derive(Debug, Clone, Default)]
pub struct ScrubReport {
    /// Packs read.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks hashed; 0 with a writer's credential.
    pub chunks: u64,
    /// Shards and copies that are not what was stored, where the vault lies at several places; of most nothing is lost.
    pub rotten: u64,
    /// Those of them that were made anew.
    pub mended: u64,
    /// Copies of small objects that were missing and were made.
    pub copied: u64,
    /// Copies of small objects that are missing, and packs that lack shards; `repair` makes them.
    pub missing: u64,
    /// Packs that were found damaged, and what of them.
    pub problems: Problems,
}

impl Vault {
    /// Reads and verifies packs, in the order of their names.
    pub fn scrub(&self, options: &ScrubOptions) -> Result<ScrubReport> {
        if options.repair {
            self.allow(Act::Store)?;
        }
        let catalog = self.catalog()?;
        catalog.reread()?;
        let mut packs = catalog.index.packs()?;
        packs.sort_by_key(|pack| pack.pack);
        let chosen = self.choose(&packs, options.share)?;
        let total = chosen.iter().map(|pack| pack.pack_bytes).sum();
        Progress::add(&options.progress.total_files, chosen.len() as u64);
        Progress::add(&options.progress.total_bytes, total);
        let mut first = ScrubReport::default();
        first.problems.append(catalog.unreadable());
        first.problems.append(catalog.bad_lists());
        self.scrub_small(options, &mut first)?;
        let report = Mutex::new(first);
        let sound = Mutex::new(Vec::new());
        // Each thread holds a whole pack; a few large ones that somebody made must not take all memory.
        let largest = chosen.iter().map(|pack| pack.pack_bytes).max().unwrap_or(0).max(1);
        let threads = (self.context.memory_bytes as u64 / largest).clamp(1, self.context.threads.max(1) as u64);
        each(threads as usize, &chosen, &|pack| {
            options.cancel.check()?;
            if self.scrub_pack(catalog, pack, options, &report)? && catalog.is_unverified(pack) {
                sound.lock().push(pack.pack);
            }
            Ok(())
        })?;
        self.remember_position(&packs, &chosen)?;
        if self.role() == Role::Owner && self.allow(Act::Store).is_ok() {
            self.publish_verified(catalog, &sound.into_inner())?;
            if options.share >= 1.0 {
                catalog
                    .take_bad_lists()
                    .iter()
                    .try_for_each(|name| delete_list(&self.place, name))?;
            }
        }
        Ok(report.into_inner())
    }

    /// When this machine had read all packs for the last time.
    pub fn last_scrub(&self) -> Result<Option<Time>> {
        let stored = self.state().get(COMPLETED)?.and_then(|bytes| bytes.try_into().ok());
        Ok(stored.map(|bytes| Time {
            seconds: i64::from_be_bytes(bytes),
            nanos: 0,
        }))
    }

    /// Remembers where this run ended, and when a run went past the last pack.
    fn remember_position(&self, packs: &[PackInfo], chosen: &[PackInfo]) -> Result<()> {
        let last = packs.last().map(|pack| pack.pack);
        if chosen.iter().any(|pack| Some(pack.pack) == last) {
            let now = self.context.clock.now().seconds;
            self.state().set(COMPLETED, &now.to_be_bytes())?;
        }
        if let Some(last) = chosen.last() {
            self.state().set(POSITION, &last.pack.0)?;
        }
        Ok(())
    }

    /// The packs of this run: all, or a share of the bytes after where the last run ended, around the end of the list.
    fn choose(&self, packs: &[PackInfo], share: f64) -> Result<Vec<PackInfo>> {
        let total: u64 = packs.iter().map(|pack| pack.pack_bytes).sum();
        let wanted = (total as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let last = if share < 1.0 {
            self.state().get(POSITION)?.and_then(|bytes| PackId::from_slice(&bytes))
        } else {
            None
        };
        let start = last.map_or(0, |last| packs.partition_point(|pack| pack.pack <= last));
        let mut bytes = 0;
        let in_order = packs.iter().skip(start).chain(packs.iter().take(start));
        Ok(in_order
            .take_while(|pack| {
                let more = bytes < wanted;
                bytes += pack.pack_bytes;
                more
            })
            .copied()
            .collect())
    }

    /// Whether the pack is sound.
    fn scrub_pack(
        &self,
        catalog: &Catalog,
        pack: &PackInfo,
        options: &ScrubOptions,
        report: &Mutex<ScrubReport>,
    ) -> Result<bool> {
        self.scrub_shards(&pack.pack, options, report)?;
        let result = self.verify_pack(&pack.pack);
        let mut report = report.lock();
        report.packs += 1;
        report.bytes += pack.pack_bytes;
        Progress::add(&options.progress.files, 1);
        Progress::add(&options.progress.bytes, pack.pack_bytes);
        match result {
            Ok(chunks) => {
                report.chunks += chunks;
                if self.role().may_read() {
                    catalog.losses.mark_sound(&pack.pack)?;
                }
                Ok(true)
            }
            Err(error) if error.is_damage() => {
                if !error.is_absence() {
                    catalog.losses.mark_damaged(&pack.pack)?;
                }
                let why = match &error {
                    Error::Damaged { source, .. } => source.to_string(),
                    other => other.to_string(),
                };
                let what = format!(
                    "damaged: {why}; `drystone check` names the files, and `drystone backup` stores again those that still exist"
                );
                report.problems.push(Name::pack(&pack.pack).as_str(), what);
                Progress::add(&options.progress.problems, 1);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads all copies of keys, snapshots and lists, and makes altered ones anew if that is wanted.
    fn scrub_small(&self, options: &ScrubOptions, report: &mut ScrubReport) -> Result<()> {
        let Some(spread) = self.place.as_spread() else {
            let unsound = self.unsound_config_copies()?;
            report.rotten += unsound.len() as u64;
            if options.repair {
                report.mended += self.mend_config_copies()?;
            } else {
                let what = "this copy of the configuration is missing or altered; run `drystone repair`";
                let problems = &mut report.problems;
                unsound.iter().for_each(|(name, _)| problems.push(name.as_str(), what));
            }
            return Ok(());
        };
        let small = if options.repair {
            self.place.replicate_small()?
        } else {
            self.place.wait(spread.verify_small(&Prefix::All))?
        };
        self.note_unsound_small(&small)?;
        report.rotten += small.rotten.count;
        report.mended += small.replaced;
        report.copied += small.copied;
        report.missing += small.missing.count + small.owed.count;
        let spares = self.place.spares();
        for site in &self.sites {
            let marks = unsound_marks(site, spares, &self.context, &self.secrets)?;
            report.rotten += marks.rotten.len() as u64;
            if options.repair && self.role() == Role::Owner {
                mend_marks(site, &marks, spares, &self.context, &self.secrets)?;
                report.mended += marks.rotten.len() as u64;
                report.copied += marks.missing.len() as u64;
            } else {
                report.missing += marks.missing.len() as u64;
                marks
                    .missing
                    .iter()
                    .for_each(|name| spread.note_missing(&site.entry.id, name));
            }
        }
        push_unsound(&mut report.problems, &small);
        Ok(())
    }

    /// Reads all shards of a pack, parity included, and makes altered ones anew if that is wanted.
    fn scrub_shards(&self, pack: &PackId, options: &ScrubOptions, report: &Mutex<ScrubReport>) -> Result<()> {
        let Some(spread) = self.place.as_spread() else {
            return Ok(());
        };
        let holdings = self.place.block_on(spread.holdings_of(pack));
        let rebalanced = if options.repair {
            self.rebalance_pack(spread, &holdings, Verify::All)?
        } else {
            self.place.block_on(spread.verify(&holdings))
        };
        let rotten = rebalanced.rotten.len() as u64;
        if !options.repair && rotten == 0 && !spread.plan_rebalance(&holdings).is_balanced() {
            report.lock().missing += 1;
        }
        if rotten == 0 {
            return Ok(());
        }
        let mended = if options.repair && !rebalanced.is_lost && rebalanced.owed.is_empty() {
            rotten
        } else {
            0
        };
        if mended == 0 {
            self.note_unsound(pack, true)?;
        }
        let mut report = report.lock();
        report.rotten += rotten;
        report.mended += mended;
        Ok(())
    }

    /// How many chunks were hashed in a pack that is sound.
    fn verify_pack(&self, id: &PackId) -> Result<u64> {
        self.place.reading(id, |_| self.verify_pack_once(id))
    }

    fn verify_pack_once(&self, id: &PackId) -> Result<u64> {
        let name = Name::pack(id);
        let object = self.place.get(&name, Range::All)?;
        let damaged = |source| self.place.damaged(&name)(source);
        if pack_id(&object) != *id {
            return Err(damaged(drystone_format::Error::Authentication { object: "pack" }));
        }
        let size = object.len() as u64;
        let start = object.len() - tail_bytes(&object, size).map_err(damaged)?;
        let tail = Tail::open(object.get(start..).unwrap_or_default(), size, &self.secrets).map_err(damaged)?;
        if !self.role().may_read() {
            return Ok(0);
        }
        let sealer = tail.preamble.frame_sealer(&self.secrets).map_err(damaged)?;
        let mut chunks = 0;
        for (number, frame) in tail.frames.iter().enumerate() {
            let start = frame.offset as usize;
            let sealed = object.get(start..start + frame.bytes as usize).unwrap_or_default();
            let plaintext = sealer.open_frame(number as u16, sealed).map_err(damaged)?;
            let mut rest = plaintext.as_slice();
            for chunk in &frame.chunks {
                let hashed = rest
                    .split_at_checked(chunk.bytes as usize)
                    .filter(|(bytes, _)| self.hasher.id(bytes) == chunk.id);
                let Some((_, after)) = hashed else {
                    let place = self.place().to_owned();
                    return Err(Error::WrongChunk {
                        id: chunk.id,
                        pack: name.to_string(),
                        place,
                    });
                };
                rest = after;
                chunks += 1;
            }
        }
        Ok(chunks)
    }

    fn publish_verified(&self, catalog: &Catalog, packs: &[PackId]) -> Result<()> {
        let mut random = Source(&*self.context.entropy);
        for packs in packs.chunks(ROOT_MAX_BYTES / PackId::LEN / 2) {
            let object = seal_verified(&self.secrets, packs, &mut random)?;
            self.place
                .put(&Name::verified(&object_hash(&object)), Bytes::from(object))?;
            catalog.add_verified(packs);
        }
        Ok(())
    }
}
