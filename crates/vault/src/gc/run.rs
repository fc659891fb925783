//! One run of gc: the steps of the protocol, with the place behind them.
//!
//! - Can be interrupted or killed anywhere: what stands condemned is deleted by the next run, what was copied is found by it.
//! - Only what was marked from all roots decides; a root or tree that cannot be read stops it before anything is deleted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use drystone_format::epoch::Epoch;
use drystone_format::keys::Role;
use drystone_format::presence::Presence;
use drystone_format::{PackId, RootId};
use drystone_store::{Kind, Name, Prefix, Range, RootKind};

use crate::catalog::Catalog;
use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::live::Keys;
use crate::gc::mark::{Job, Marker};
use crate::gc::protocol::{self, GcStep, Observed, Registered, Standing};
use crate::gc::registration::{Registration, is_dead_here, sweep_marks};
use crate::gc::sweep::{Copied, Sweep, Uses};
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;

/// State key of the writers that gc waits for: id, beat, silent looks, time of the last one.
const OBSERVED: &str = "gc_writers";
/// How often writers are looked at while a run waits for them.
const POLL: Duration = Duration::from_millis(500);

/// How to collect garbage.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Share of garbage that a pack may hold before what is live in it is copied, 0 to 1.
    pub max_unused: f64,
    /// Most bytes of chunks that are copied in this run; packs with most garbage come first.
    pub max_rewrite_bytes: u64,
    /// Only says what it would do.
    pub dry_run: bool,
    /// How long to wait for runs that may rely on what is condemned; what they keep is deleted by a later run.
    pub wait: Duration,
    /// Looks at such a run that are closer together than this count once; at the third without a new sign of life it is
    /// given up. By the wall clock, as a courtesy: a wrong one costs such a run its work, never data.
    pub silence: Duration,
    /// Counts files, packs and stored bytes.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            max_unused: 0.1,
            max_rewrite_bytes: u64::MAX,
            dry_run: false,
            wait: Duration::ZERO,
            silence: Duration::from_secs(900),
            progress: Arc::default(),
            cancel: Cancel::default(),
        }
    }
}

/// What a run of gc found and did; of a dry run: would do.
#[derive(Debug, Clone, Default)]
pub struct GcReport {
    /// Snapshots that were marked from.
    pub snapshots: u64,
    /// Packs there were, and their bytes.
    pub packs: u64,
    /// Bytes of these.
    pub pack_bytes: u64,
    /// Distinct chunks that the snapshots need.
    pub live_chunks: u64,
    /// Plaintext in packs that nothing needs, bytes.
    pub unused_bytes: u64,
    /// Packs condemned in this run.
    pub condemned_packs: u64,
    /// Those of them with something in them that had to be copied.
    pub rewritten_packs: u64,
    /// Plaintext that was copied, bytes.
    pub copied_bytes: u64,
    /// Packs deleted, condemned now or earlier.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs that stand condemned and wait for runs to end.
    pub waiting_packs: u64,
    /// The runs that they wait for.
    pub waiting_for: Vec<RootId>,
    /// Runs that gave no sign of life and were given up.
    pub given_up: Vec<RootId>,
    /// Packs that nothing needs, left alone since a run that is under way may have written them.
    pub spared_packs: u64,
    /// What is wrong, though it kept nothing from being deleted safely.
    pub problems: Problems,
}

impl Vault {
    /// Deletes what no snapshot needs.
    ///
    /// [`Error::Unmarked`] if a snapshot or tree cannot be read: nothing is deleted then. Needs an owner's key. Runs beside any
    /// number of others, here and elsewhere; what they may rely on stays for a later run.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        if self.role() != Role::Owner {
            return Err(drystone_format::Error::WriterKey {
                what: "collect garbage",
            }
            .into());
        }
        let mut run = Run::new(self, options)?;
        if options.dry_run {
            run.read()?;
            run.mark()?;
            run.report.condemned_packs = run.leave.len() as u64;
            return Ok(run.finish());
        }
        for step in GcStep::ORDER {
            options.cancel.check()?;
            run.perform(step)?;
        }
        Ok(run.finish())
    }
}

struct Run<'a> {
    vault: &'a Vault,
    options: &'a GcOptions,
    catalog: &'a Arc<Catalog>,
    marker: Marker<'a>,
    registration: Option<Arc<Registration>>,
    /// What stood when the packs were listed that were marked in.
    before: Arc<Standing>,
    /// What stood before the writers were listed: only that may be acted upon.
    named: Arc<Standing>,
    /// What stood before the roots were listed the last time.
    fences: Arc<Standing>,
    /// Keys of runs under way: what they have just stored is no garbage.
    running: HashSet<[u8; 32]>,
    marked: BTreeSet<RootId>,
    /// Packs that are needed no more, once what is live in them is copied.
    leave: Vec<PackId>,
    holders: Vec<PackId>,
    copied: Copied,
    has_put: bool,
    writers: Vec<Registered>,
    roots: BTreeSet<RootId>,
    report: GcReport,
}

impl<'a> Run<'a> {
    fn new(vault: &'a Vault, options: &'a GcOptions) -> Result<Self> {
        Ok(Self {
            marker: Marker {
                reader: vault.reader()?,
                threads: vault.context.threads,
                memory_bytes: vault.context.memory_bytes / 4,
                progress: &options.progress,
                cancel: &options.cancel,
                live: Keys::new(),
                entered: Keys::new(),
                entered_count: AtomicUsize::new(0),
            },
            catalog: vault.catalog()?,
            vault,
            options,
            registration: None,
            before: Arc::default(),
            named: Arc::default(),
            fences: Arc::default(),
            running: HashSet::new(),
            marked: BTreeSet::new(),
            leave: Vec::new(),
            holders: Vec::new(),
            copied: Copied::default(),
            has_put: false,
            writers: Vec::new(),
            roots: BTreeSet::new(),
            report: GcReport::default(),
        })
    }

    fn perform(&mut self, step: GcStep) -> Result<()> {
        match step {
            GcStep::Register => {
                self.registration = Some(Arc::new(Registration::new(self.vault)?));
                Ok(())
            }
            GcStep::Read => self.read(),
            GcStep::Mark => {
                self.mark()?;
                self.copy()
            }
            GcStep::Condemn => self.condemn(),
            GcStep::ReadAgain => {
                self.named = self.vault.epochs.refresh()?;
                self.fences = self.named.clone();
                Ok(())
            }
            GcStep::ListWriters => self.wait_for_writers(),
            GcStep::Fence => self.fence(),
            GcStep::ListRoots => {
                // A presence that was seen to be gone: the root that was put before it went must be listed.
                self.vault.place.settle();
                self.roots = self.vault.root_ids()?.into_iter().collect();
                Ok(())
            }
            GcStep::GiveUp => self.give_up(),
            GcStep::MarkAgain => {
                self.catalog.refresh()?;
                self.mark_new()
            }
            GcStep::Rescue => self.rescue(),
            GcStep::Delete => self.delete(),
            GcStep::Drop => self.drop_epochs(),
            GcStep::Leave => {
                self.registration = None;
                Ok(())
            }
        }
    }

    fn own(&self) -> RootId {
        self.registration
            .as_ref()
            .map_or(RootId([0; RootId::LEN]), |registration| registration.id())
    }

    fn put(&mut self, epoch: &Epoch) -> Result<Arc<Standing>> {
        self.vault
            .epochs
            .put(epoch, &mut Source(&*self.vault.context.entropy))?;
        self.vault.place.settle();
        self.vault.epochs.refresh()
    }

    fn read(&mut self) -> Result<()> {
        self.catalog.refresh()?;
        self.before = self.catalog.synced_with();
        // After the packs were listed: whoever has stored one of these and is not over is registered now.
        let own = self.own();
        for (id, _, presence) in self.presences()? {
            if let Some(presence) = presence.filter(|_| id != own) {
                self.running.insert(presence.writer.0);
            }
        }
        self.roots = self.vault.root_ids()?.into_iter().collect();
        Ok(())
    }

    /// The presences at the place; one that cannot be read says nothing.
    fn presences(&self) -> Result<Vec<(RootId, u64, Option<Presence>)>> {
        let place = &self.vault.place;
        let mut found = Vec::new();
        place.for_each(&Prefix::Writers, |listed| {
            if let Kind::Writer(id, beat) = listed.name.kind() {
                found.push((id, beat));
            }
            Ok(())
        })?;
        let read = |(id, beat)| match place.get(&Name::writer(&id, beat), Range::All) {
            Ok(object) => Ok(Some((id, beat, Presence::decode(&object).ok()))),
            Err(Error::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) if error.is_damage() => Ok(Some((id, beat, None))),
            Err(error) => Err(error),
        };
        found.into_iter().filter_map(|found| read(found).transpose()).collect()
    }

    /// Marks from the roots that are not marked yet.
    fn mark_new(&mut self) -> Result<()> {
        let standing = self.vault.epochs.standing();
        let mut jobs = Vec::new();
        for id in self.roots.difference(&self.marked) {
            if standing.is_absent(id) {
                continue;
            }
            let snapshot = self.vault.snapshot(id).map_err(|error| Error::Unmarked {
                object: Name::root(RootKind::Snapshot, id).to_string(),
                why: error.to_string(),
            })?;
            let mut path = id.short().into_bytes();
            path.push(b':');
            jobs.push(Job {
                tree: snapshot.tree,
                path,
            });
        }
        self.report.snapshots += jobs.len() as u64;
        self.marked.extend(&self.roots);
        self.marker.mark(jobs)
    }

    fn sweep(&self) -> Sweep<'_> {
        Sweep {
            vault: self.vault,
            catalog: self.catalog,
            live: &self.marker.live,
            progress: &self.options.progress,
            cancel: &self.options.cancel,
        }
    }

    /// Finds the packs that can go.
    fn mark(&mut self) -> Result<()> {
        self.mark_new()?;
        let uses = self.sweep().survey()?;
        self.report.live_chunks = self.marker.live.len() as u64;
        for found in uses.values() {
            self.report.packs += 1;
            self.report.pack_bytes += found.info.pack_bytes;
            self.report.unused_bytes += found.total_bytes - found.live_bytes;
        }
        self.choose(&uses);
        Ok(())
    }

    /// Packs with nothing live in them, and those with most garbage as far as may be copied.
    fn choose(&mut self, uses: &Uses) {
        let mut worth = Vec::new();
        for found in uses.values().filter(|found| !found.is_condemned()) {
            if found.unused() <= self.options.max_unused && found.live_bytes > 0 {
                self.holders.push(found.info.pack);
            } else if self.running.contains(&found.info.writer) {
                self.report.spared_packs += 1;
                self.holders.push(found.info.pack);
            } else {
                worth.push(found);
            }
        }
        worth.sort_by(|one, two| {
            two.unused()
                .total_cmp(&one.unused())
                .then(one.info.pack.cmp(&two.info.pack))
        });
        let mut room = self.options.max_rewrite_bytes;
        for found in worth {
            match room.checked_sub(found.live_bytes) {
                Some(left) => {
                    room = left;
                    self.leave.push(found.info.pack);
                    self.report.rewritten_packs += u64::from(found.live_bytes > 0);
                    self.report.copied_bytes += found.live_bytes;
                }
                None => self.holders.push(found.info.pack),
            }
        }
    }

    fn copy(&mut self) -> Result<()> {
        let Some(registration) = self.registration.clone() else {
            return Ok(());
        };
        let mut copied = std::mem::take(&mut self.copied);
        let outcome = self
            .sweep()
            .copy(&registration, self.leave.iter().copied(), &mut copied);
        self.leave.retain(|pack| !copied.kept.contains(pack));
        self.report.copied_bytes = copied.bytes;
        self.copied = copied;
        outcome
    }

    fn condemn(&mut self) -> Result<()> {
        let void = self.before.void();
        let epoch = Epoch {
            packs: self.leave.iter().copied().collect(),
            roots: void.clone(),
            fenced: void,
        };
        let has_pack = |pack: &PackId| self.catalog.index.has_pack(pack).is_some();
        let is_spent = |old: &Epoch| protocol::is_spent(old, &has_pack, &self.roots);
        let spent = self.before.epochs().filter(|(_, old)| is_spent(old)).count();
        if !epoch.packs.is_empty() || spent > 1 {
            self.put(&epoch)?;
            self.has_put = true;
        }
        self.report.condemned_packs = epoch.packs.len() as u64;
        Ok(())
    }

    fn look_at_writers(&mut self) -> Result<BTreeSet<RootId>> {
        let found = self.presences()?;
        let seen = |presence: Option<Presence>| presence.map(|presence| presence.seen).unwrap_or_default();
        let registered = |(id, beat, presence)| Registered {
            id,
            beat,
            seen: seen(presence),
        };
        self.writers = found.into_iter().map(registered).collect();
        Ok(self.blockers())
    }

    /// As far as the roots are known: who has published since they were listed is over, as the next list shows.
    fn blockers(&self) -> BTreeSet<RootId> {
        let is_over = |id: &RootId| self.is_over(id);
        protocol::blockers(&self.named, &self.writers, &self.own(), &is_over)
    }

    fn is_over(&self, id: &RootId) -> bool {
        protocol::is_over(id, &self.vault.epochs.standing(), &self.roots)
    }

    fn wait_for_writers(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let blockers = self.look_at_writers()?;
            let left = self.options.wait.saturating_sub(start.elapsed());
            if blockers.iter().all(|id| self.is_gone(id)) || left.is_zero() {
                return Ok(());
            }
            self.options.cancel.check()?;
            std::thread::sleep(POLL.min(left));
        }
    }

    fn is_gone(&self, id: &RootId) -> bool {
        is_dead_here(&self.vault.writers_dir(), id)
    }

    /// Gives up the writers that gave no sign of life.
    fn fence(&mut self) -> Result<()> {
        let now = self.vault.context.clock.now().seconds;
        let gap = i64::try_from(self.options.silence.as_secs()).unwrap_or(i64::MAX);
        let mut observed = self.observed()?;
        let waited_for = self.blockers();
        observed.retain(|id, _| waited_for.contains(id));
        let mut fenced = BTreeSet::new();
        for id in waited_for {
            let beats = self.writers.iter().filter(|writer| writer.id == id);
            let beat = beats.map(|writer| writer.beat).max().unwrap_or(0);
            let look = Observed::look(observed.get(&id).copied(), beat, now, gap);
            observed.insert(id, look);
            if look.is_silent() || self.is_gone(&id) {
                fenced.insert(id);
            }
        }
        self.remember(&observed)?;
        fenced.retain(|id| !self.named.is_fenced(id));
        if !fenced.is_empty() {
            self.fences = self.put(&Epoch {
                fenced,
                ..Epoch::default()
            })?;
        }
        Ok(())
    }

    fn observed(&self) -> Result<BTreeMap<RootId, Observed>> {
        let bytes = self.vault.state().get(OBSERVED)?.unwrap_or_default();
        let (records, _) = bytes.as_chunks::<36>();
        let record = |record: &[u8; 36]| {
            let (id, rest) = record.split_first_chunk()?;
            let (beat, rest) = rest.split_first_chunk()?;
            let (silent, rest) = rest.split_first_chunk()?;
            let observed = Observed {
                beat: u64::from_be_bytes(*beat),
                silent: u32::from_be_bytes(*silent),
                at: i64::from_be_bytes(*rest.first_chunk()?),
            };
            Some((RootId(*id), observed))
        };
        Ok(records.iter().filter_map(record).collect())
    }

    fn remember(&self, observed: &BTreeMap<RootId, Observed>) -> Result<()> {
        let mut bytes = Vec::new();
        for (id, look) in observed {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&look.beat.to_be_bytes());
            bytes.extend_from_slice(&look.silent.to_be_bytes());
            bytes.extend_from_slice(&look.at.to_be_bytes());
        }
        Ok(self.vault.state().set(OBSERVED, &bytes)?)
    }

    /// Says which of the writers given up have not published, and tidies up after those that are over.
    fn give_up(&mut self) -> Result<()> {
        let void = protocol::void(&self.fences, &self.roots);
        if !void.is_empty() {
            self.report.given_up = void.iter().copied().collect();
            self.put(&Epoch {
                roots: void.clone(),
                fenced: void,
                ..Epoch::default()
            })?;
        }
        for writer in self.writers.iter().filter(|writer| self.is_over(&writer.id)) {
            super::delete_presence(&self.vault.place, &writer.id, writer.beat)?;
        }
        let is_registered = |id: &RootId| self.writers.iter().any(|writer| writer.id == *id) && !self.is_over(id);
        sweep_marks(&self.vault.writers_dir(), &is_registered);
        Ok(())
    }

    /// Copies what turned out to be needed since the first mark, or what others have condemned meanwhile.
    fn rescue(&mut self) -> Result<()> {
        let expected: BTreeSet<PackId> = self.before.condemned().into_iter().chain(self.leave.clone()).collect();
        let is_same = self.vault.epochs.standing().condemned() == expected
            && self
                .holders
                .iter()
                .all(|pack| self.catalog.index.has_pack(pack).is_some())
            && self.report.live_chunks == self.marker.live.len() as u64;
        if is_same {
            return Ok(());
        }
        self.leave.clear();
        self.copy()
    }

    fn delete(&mut self) -> Result<()> {
        let standing = self.vault.epochs.standing();
        let is_over = |id: &RootId| self.is_over(id);
        let deletable = protocol::deletable(&self.named, &self.writers, &self.own(), &is_over);
        let condemned = standing.condemned();
        let mut found = Vec::new();
        self.vault.place.for_each(&Prefix::Packs, |listed| {
            if let Kind::Pack(id) = listed.name.kind()
                && condemned.contains(&id)
            {
                found.push((id, listed));
            }
            Ok(())
        })?;
        for (id, listed) in found {
            if !deletable.contains(&id) || self.copied.kept.contains(&id) {
                self.report.waiting_packs += 1;
                continue;
            }
            self.options.cancel.check()?;
            self.vault.place.delete(&listed.name)?;
            self.report.deleted_packs += 1;
            self.report.deleted_bytes += listed.size;
        }
        let absent: Vec<RootId> = self.roots.iter().filter(|id| standing.is_absent(id)).copied().collect();
        for id in absent {
            self.vault.place.delete(&Name::root(RootKind::Snapshot, &id))?;
            self.roots.remove(&id);
        }
        if self.report.waiting_packs > 0 {
            self.report.waiting_for = self.blockers().into_iter().collect();
        }
        self.catalog.refresh()
    }

    /// Removes epochs that were read before this run put its own, and that name nothing that is there.
    fn drop_epochs(&mut self) -> Result<()> {
        if !self.has_put || !self.vault.place.is_complete() {
            return Ok(());
        }
        let mut present = HashSet::new();
        self.vault.place.for_each(&Prefix::Packs, |listed| {
            if let Kind::Pack(id) = listed.name.kind() {
                present.insert(id);
            }
            Ok(())
        })?;
        let has_pack = |pack: &PackId| present.contains(pack);
        for ((number, id), epoch) in self.before.epochs() {
            if protocol::is_spent(epoch, &has_pack, &self.roots) {
                self.vault.place.delete(&Name::epoch(*number, id))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> GcReport {
        self.report.problems.append(self.vault.epochs.problems());
        self.report.problems.append(self.copied.problems);
        self.report
    }
}
