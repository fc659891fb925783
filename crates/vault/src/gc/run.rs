//! One run of gc: the steps of the protocol, with the place behind them.
//!
//! - Can be interrupted or killed anywhere: what stands condemned is deleted by the next run, what was copied is found by it.
//! - While a place is away nothing is copied, and packs with anything live in them stay as they are.
//! - Only what was marked from all roots decides; a root or tree that cannot be read stops it before anything is deleted.

use crate::places::place::TroublesBefore;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use drystone_format::epoch::Epoch;
use drystone_format::ledger::Numbered;
use drystone_format::root::RootName;
use drystone_format::{PackId, RegistrationId};
use drystone_index::PackInfo;
use drystone_store::{Kind, Name, Prefix};

use crate::catalog::Catalog;
use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::live::Keys;
use crate::gc::mark::{Job, Marker};
use crate::gc::options::{GcOptions, GcReport};
use crate::gc::protocol::{self, GcStep, Registered, Registrations, Roots, Standing};
use crate::gc::registration::Registration;
use crate::gc::reserve::Room;
use crate::gc::sweep::{Copied, Sweep, Uses};
use crate::parallel::each;
use crate::places::allow::Act;
use crate::vault::Vault;

/// Times that everything is listed again because a root needs packs that were not listed. Each time another backup must have ended.
const LISTINGS_MAX: u32 = 5;

impl Vault {
    /// Deletes what no snapshot needs.
    ///
    /// [`crate::Error::Unmarked`] if a snapshot or tree cannot be read, [`crate::Error::Absent`] if a place is away and those that are left
    /// need not have one in common with those that another run can reach (mirrors), or if something would have to be copied
    /// while it is away: nothing is deleted then. Needs an owner's key. Runs beside any
    /// number of others, here and elsewhere; what they may rely on stays for a later run.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        if !self.role().may_govern() {
            return Err(self.secrets.refused("collect garbage").into());
        }
        self.allow(Act::Collect)?;
        if options.dry_run {
            return self.gc_once(options, Room::Plenty);
        }
        let report = self.with_reserve(|room| self.gc_once(options, room))?;
        self.keep_reserve();
        Ok(report)
    }

    fn gc_once(&self, options: &GcOptions, room: Room) -> Result<GcReport> {
        let mut run = Run::new(self, options, room)?;
        if options.dry_run {
            run.check_places()?;
            run.read()?;
            run.mark_listed()?;
            run.report.condemned_packs = run.leave.len() as u64;
            return Ok(run.finish());
        }
        self.epochs.confirm();
        self.ledgers.confirm();
        for step in GcStep::ORDER {
            options.cancel.check()?;
            run.check_places()?;
            run.perform(step)?;
        }
        Ok(run.finish())
    }
}

pub(super) struct Run<'a> {
    pub(super) vault: &'a Vault,
    pub(super) options: &'a GcOptions,
    /// Where there is little, nothing is copied: packs go that nothing is live in.
    pub(super) room: Room,
    /// What was wrong with the places before it began.
    pub(super) troubles: TroublesBefore,
    pub(super) catalog: &'a Arc<Catalog>,
    pub(super) marker: Marker<'a>,
    pub(super) registration: Option<Arc<Registration>>,
    /// What stood when the packs were listed that were marked in.
    pub(super) before: Arc<Standing>,
    /// What stood before the writers were listed: only that may be acted upon.
    pub(super) named: Arc<Standing>,
    /// What stood before the roots were listed the last time.
    pub(super) fences: Arc<Standing>,
    /// The registrations when the packs were listed: what those at work have just stored is no garbage.
    pub(super) at_work: Registrations,
    /// Roots whose trees are to be marked.
    pub(super) unmarked: Vec<Job>,
    /// Packs that are needed no more, once what is live in them is copied.
    pub(super) leave: Vec<PackId>,
    pub(super) holders: Vec<PackId>,
    /// Packs that were listed before the roots. No other may go.
    pub(super) judged: BTreeSet<PackId>,
    /// Packs of which too few shards were left when this run began.
    pub(super) remains: BTreeSet<PackId>,
    /// A place is away, or failed; enough are left.
    pub(super) is_partial: bool,
    /// Everything that the snapshots need was found in packs that can be read.
    pub(super) is_whole: bool,
    pub(super) copied: Copied,
    pub(super) has_put: bool,
    /// It has put a ledger that lists may not show yet.
    pub(super) has_unshown_ledger: bool,
    pub(super) writers: Vec<Registered>,
    /// The names of their presences.
    pub(super) presences: Vec<(RegistrationId, Name)>,
    /// Presences and roots that their writers have not signed.
    pub(super) forged: BTreeSet<Name>,
    /// All roots that were listed or found by their names the last time, whether they count or not.
    pub(super) roots: BTreeSet<RootName>,
    /// Those that a list showed.
    pub(super) listed: BTreeSet<Numbered>,
    /// Roots that should be there and are not.
    pub(super) missing: Vec<RootName>,
    /// Roots that a removed key has signed and that no ledger states.
    pub(super) revoked: BTreeSet<RootName>,
    /// Those that were read.
    pub(super) read: Roots,
    /// What presences and roots say together.
    pub(super) registrations: Registrations,
    pub(super) report: GcReport,
}

impl<'a> Run<'a> {
    fn new(vault: &'a Vault, options: &'a GcOptions, room: Room) -> Result<Self> {
        Ok(Self {
            marker: Marker {
                reader: vault.reader()?.steady(),
                threads: vault.context.threads,
                memory_bytes: vault.context.memory_bytes / 4,
                progress: &options.progress,
                cancel: &options.cancel,
                live: Keys::new(),
                meta: Keys::new(),
                entered: Keys::new(),
                entered_count: AtomicUsize::new(0),
            },
            troubles: vault.place.troubles_before(),
            catalog: vault.catalog()?,
            vault,
            options,
            room,
            registration: None,
            before: Arc::default(),
            named: Arc::default(),
            fences: Arc::default(),
            at_work: Registrations::default(),
            unmarked: Vec::new(),
            leave: Vec::new(),
            holders: Vec::new(),
            judged: BTreeSet::new(),
            remains: BTreeSet::new(),
            is_partial: false,
            is_whole: false,
            copied: Copied::default(),
            has_put: false,
            has_unshown_ledger: false,
            writers: Vec::new(),
            presences: Vec::new(),
            forged: BTreeSet::new(),
            roots: BTreeSet::new(),
            listed: BTreeSet::new(),
            missing: Vec::new(),
            revoked: BTreeSet::new(),
            read: Roots::default(),
            registrations: Registrations::default(),
            report: GcReport::default(),
        })
    }

    /// Without a place gc goes on if every run has one in common with it, so that each sees what the other has put, and if
    /// nothing was copied, which should lie at all of them before anything is deleted.
    fn check_places(&mut self) -> Result<()> {
        match self.vault.place.all_there(&self.troubles) {
            Err(absent) if self.copied.bytes > 0 || !self.vault.place.is_quorate() => return Err(absent),
            outcome => self.is_partial = outcome.is_err(),
        }
        Ok(())
    }

    fn perform(&mut self, step: GcStep) -> Result<()> {
        match step {
            GcStep::Register => {
                self.registration = Some(Arc::new(Registration::new(self.vault)?));
                Ok(())
            }
            GcStep::Read => self.read(),
            GcStep::Mark => {
                self.mark_listed()?;
                self.copy()
            }
            GcStep::Condemn => self.condemn(),
            GcStep::ReadAgain => {
                self.named = self.vault.follow_notices()?;
                self.fences = self.named.clone();
                Ok(())
            }
            GcStep::ListWriters => self.wait_for_writers(),
            GcStep::Fence => self.fence(),
            GcStep::ListRoots => {
                // A presence that was seen to be gone: the root that was put before it went must be listed.
                self.wait_for_lists()?;
                self.list_roots()?;
                self.refuse_missing()
            }
            GcStep::GiveUp => self.give_up(),
            GcStep::MarkAgain => {
                self.catalog.refresh()?;
                self.mark_new()
            }
            GcStep::Rescue => self.rescue(),
            GcStep::Delete => self.delete(),
            GcStep::Drop => {
                self.merge_runs()?;
                self.drop_ledgers()?;
                self.drop_epochs()
            }
            GcStep::Leave => {
                self.registration = None;
                Ok(())
            }
        }
    }

    pub(super) fn own(&self) -> RegistrationId {
        self.registration
            .as_ref()
            .map_or(RegistrationId([0; RegistrationId::LEN]), |registration| {
                registration.id()
            })
    }

    pub(super) fn put(&mut self, epoch: &Epoch) -> Result<Arc<Standing>> {
        self.vault
            .epochs
            .put(epoch, &mut Source(&*self.vault.context.entropy))?;
        self.wait_for_lists()?;
        self.vault.follow_notices()
    }

    /// Waits until every list shows what was put or removed before, and says so meanwhile.
    pub(super) fn wait_for_lists(&self) -> Result<()> {
        self.vault
            .place
            .wait_for_lists(&self.options.progress, &self.options.cancel)
    }

    fn read(&mut self) -> Result<()> {
        if !self.is_partial {
            self.remains = self.find_remains()?;
        }
        self.catalog.refresh()?;
        self.before = self.catalog.synced_with();
        self.judged = self.catalog.index.packs()?.iter().map(|pack| pack.pack).collect();
        // After the packs were listed: whoever has stored one of these and is not over is registered now.
        let writers: Vec<Registered> = self.presences()?.into_iter().map(|found| found.registered).collect();
        self.vault.follow_notices()?;
        self.list_roots()?;
        self.refuse_missing()?;
        if !self.options.dry_run && self.vault.ledgers.view().is_empty() {
            self.state_roots()?;
        }
        let standing = self.vault.epochs.standing();
        self.at_work = Registrations::new(&writers, &self.read, &standing, self.options.gaps);
        Ok(())
    }

    /// Marks from the roots that were listed, and finds the packs that can go. A backup that ended after the packs were listed may have left
    /// a root whose packs were not: then everything is listed again, so that no pack is judged by an older list than its root.
    fn mark_listed(&mut self) -> Result<()> {
        for _ in 0..LISTINGS_MAX {
            match self.mark() {
                Err(Error::Unmarked { is_missing: true, .. }) => {
                    self.options.cancel.check()?;
                    self.marker.begin_again();
                    self.read = Roots::default();
                    (self.report.snapshots, self.report.other_roots) = (0, 0);
                    self.unmarked.clear();
                    self.read()?;
                }
                outcome => return outcome,
            }
        }
        self.mark()
    }

    pub(super) fn sweep(&self) -> Sweep<'_> {
        Sweep {
            vault: self.vault,
            catalog: self.catalog,
            live: &self.marker.live,
            meta: &self.marker.meta,
            one_is_enough: !self.is_partial,
            progress: &self.options.progress,
            cancel: &self.options.cancel,
        }
    }

    /// Finds the packs that can go.
    fn mark(&mut self) -> Result<()> {
        self.mark_first()?;
        let (mut uses, found) = self.sweep().survey()?;
        self.report.live_chunks = self.marker.live.len() as u64;
        self.is_whole = found == self.report.live_chunks;
        for found in uses.values() {
            self.report.packs += 1;
            self.report.pack_bytes += found.info.pack_bytes;
            self.report.unused_bytes += found.total_bytes - found.live_bytes;
        }
        self.holders
            .extend(uses.keys().filter(|pack| !self.judged.contains(pack)));
        uses.retain(|pack, _| self.judged.contains(pack));
        self.choose(&uses);
        self.choose_worthless()
    }

    /// Returns true if a run that is under way may have stored this pack just now.
    pub(super) fn may_be_unpublished(&self, info: &PackInfo) -> bool {
        let (registration, number) = &info.registration;
        *registration != self.own() && self.at_work.may_be_unpublished(registration, *number)
    }

    /// Packs with nothing live in them, small ones that are folded, and those with most garbage as far as may be copied.
    fn choose(&mut self, uses: &Uses) {
        let (mut worth, foldable) = (Vec::new(), self.foldable(uses));
        for found in uses.values().filter(|found| !found.is_condemned()) {
            let is_used = found.unused() <= self.options.max_unused && found.live_bytes > 0;
            if is_used && !foldable.contains(&found.info.pack) {
                self.holders.push(found.info.pack);
            } else if self.may_be_unpublished(&found.info) {
                self.report.spared_packs += 1;
                self.holders.push(found.info.pack);
            } else if (self.is_partial || self.room == Room::Little) && found.live_bytes > 0 {
                self.report.uncopied_packs += 1;
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
        let epoch = Epoch {
            packs: self.leave.iter().copied().collect(),
            fences: BTreeSet::new(),
            closings: self.new_closings(),
        };
        let stated = self.vault.epochs.standing().stated().clone();
        // An index that cannot answer has all packs: an epoch that may still be needed stays.
        let has_pack = |pack: &PackId| !matches!(self.catalog.index.pack(pack), Ok(None));
        let is_spent = |old: &Epoch| protocol::is_spent(old, &has_pack, &stated);
        let spent = self.before.epochs().filter(|(_, old)| is_spent(old)).count();
        if !epoch.packs.is_empty() || !epoch.closings.is_empty() || spent > 1 {
            self.put(&epoch)?;
            self.has_put = true;
        }
        self.report.condemned_packs = epoch.packs.len() as u64;
        Ok(())
    }

    /// Copies what turned out to be needed since the first mark, or what others have condemned meanwhile.
    fn rescue(&mut self) -> Result<()> {
        let expected: BTreeSet<PackId> = self.before.condemned().into_iter().chain(self.leave.clone()).collect();
        // What was copied is looked for where it lies now; else nothing can have moved but what shows here.
        let is_same = self.report.rewritten_packs == 0
            && self.vault.epochs.standing().condemned() == expected
            && self
                .holders
                .iter()
                .all(|pack| matches!(self.catalog.index.pack(pack), Ok(Some(_))))
            && self.report.live_chunks == self.marker.live.len() as u64;
        if is_same {
            return Ok(());
        }
        if self.is_partial {
            self.vault.place.all_there(&self.troubles)?;
        }
        self.leave.clear();
        self.copy()
    }

    fn delete(&mut self) -> Result<()> {
        let standing = self.vault.epochs.standing();
        let deletable = protocol::deletable(&self.named, &self.registrations, &self.own());
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
        let doubtful = self.doubtful_to_keep()?;
        let may_go = |id: &PackId| deletable.contains(id) && !self.copied.kept.contains(id) && !doubtful.contains(id);
        let (going, waiting): (Vec<_>, Vec<_>) = found.into_iter().partition(|(id, _)| may_go(id));
        let threads = self.vault.place.parallel(self.vault.context.threads);
        each(threads, &going, &|(_, listed)| {
            self.options.cancel.check()?;
            self.vault.place.delete(&listed.name)
        })?;
        self.report.waiting_packs += waiting.len() as u64;
        self.report.deleted_packs += going.len() as u64;
        self.report.deleted_bytes += going.iter().map(|(_, listed)| listed.size).sum::<u64>();
        let absent: Vec<RootName> = self
            .roots
            .iter()
            .filter(|root| !standing.counts(root))
            .copied()
            .collect();
        for root in absent {
            self.vault.place.delete(&Name::root(&root))?;
            self.roots.remove(&root);
        }
        self.delete_remains()?;
        if self.report.waiting_packs > 0 {
            self.report.waiting_for = self.blockers().into_iter().collect();
        }
        self.catalog.refresh()
    }

    /// Removes epochs that were read before this run put its own, and that have nothing more to say.
    fn drop_epochs(&mut self) -> Result<()> {
        if !self.vault.place.is_complete(&self.troubles) {
            return Ok(());
        }
        // One that every place has lost counts for nobody, whatever it said.
        for (number, id) in self.vault.epochs.damaged() {
            let name = Name::epoch(number, &id);
            self.vault.place.delete(&name)?;
            let what = "it could not be read and counted for nobody; removed";
            self.report.problems.push(name.as_str(), what);
        }
        if !self.has_put {
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
        let standing = self.vault.epochs.standing();
        for ((number, id), epoch) in self.before.epochs() {
            if protocol::is_spent(epoch, &has_pack, standing.stated()) {
                self.vault.place.delete(&Name::epoch(*number, id))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> GcReport {
        self.report_roots();
        self.report.problems.append(self.copied.problems);
        self.report
    }
}
