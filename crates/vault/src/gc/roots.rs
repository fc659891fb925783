//! The roots that gc reads: what they make live, and what they say of their writers.
//!
//! - A root that its writer has not signed counts for nobody and stops nothing; one that cannot be read stops gc.
//! - A root of a kind that is not in use makes nothing live, but is part of its writer's chain of numbers.

use drystone_format::root::{RootKind, RootName, RootState};
use drystone_store::{Name, Prefix};

use crate::error::damage::{COUNTS_FOR_NOBODY, counts_for_nobody};
use crate::error::{Error, Result};
use crate::gc::mark::{Job, unmarked};
use crate::gc::protocol::{Published, Registrations};
use crate::gc::run::Run;
use crate::parallel;
use crate::roots::REVOKED;
use crate::roots::kinds::root_path;
use crate::roots::ledger::View;
use crate::roots::{UNLISTED, report_doubles};
use crate::vault::Vault;

/// What a root says of its writer, and what it makes live: nothing, if its kind does not count.
type Read = (Published, Vec<Job>);

/// Reads a root at its place; returns nothing if the key that signed it was removed, and no ledger states it.
fn read_root(vault: &Vault, root: &RootName, view: &View) -> Result<Option<Read>> {
    let signed = vault.signed_root(root)?;
    let is_stated = view.stated.live.contains_key(&root.numbered());
    if !is_stated && vault.is_dismissed(view, &signed.certificate.writer) {
        return Ok(None);
    }
    let mut jobs = Vec::new();
    if vault.is_listed(root.kind) {
        let path = root_path(root);
        let kept = vault.kept_by(&signed)?.into_iter();
        jobs.extend(kept.map(|kept| Job {
            kept,
            path: path.clone(),
        }));
    }
    let published = Published {
        previous: signed.previous,
        seen: signed.epochs,
        packs: signed.packs,
        is_last: signed.state == RootState::Last,
    };
    Ok(Some((published, jobs)))
}

impl Run<'_> {
    /// Marks from the roots that are not marked yet.
    pub(super) fn mark_new(&mut self) -> Result<()> {
        self.marker.mark(std::mem::take(&mut self.unmarked))
    }

    /// The same for the roots that were listed after the packs. A writer may have published in between: the packs that its root needs are listed
    /// for the mark alone, and judged by the next run.
    pub(super) fn mark_first(&mut self) -> Result<()> {
        let jobs = self.unmarked.clone();
        match self.mark_new() {
            Err(Error::Unmarked { is_missing: true, .. }) => {
                self.marker.begin_again();
                self.unmarked = jobs;
                self.catalog.refresh()?;
                self.mark_new()
            }
            outcome => outcome,
        }
    }

    /// Lists the roots, and reads those that are new: their trees are to be marked, and what they say of their writers counts.
    pub(super) fn list_roots(&mut self) -> Result<()> {
        let mut names = self.vault.confirmed_root_names(&Prefix::AllRoots)?;
        self.listed = names.iter().map(RootName::numbered).collect();
        self.missing = self.vault.find_missing(&mut names, &|_| true)?;
        let view = self.vault.ledgers.view();
        let standing = self.vault.epochs.follow(&self.vault.ledgers);
        self.roots = names.into_iter().collect();
        self.read.retain(&self.roots.iter().map(RootName::numbered).collect());
        let is_void = |root: &RootName| self.forged.contains(&Name::root(root)) || self.revoked.contains(root);
        let is_new = |root: &&RootName| !self.read.has(root) && !is_void(root) && standing.counts(root);
        let new: Vec<RootName> = self.roots.iter().filter(is_new).copied().collect();
        let reads = self.vault.place.small_reads(self.vault.context.threads);
        let vault = self.vault;
        let read = parallel::map(reads, &new, &|root| match read_root(vault, root, &view) {
            Err(error) if !error.is_damage() => Err(error),
            read => Ok(read),
        })?;
        for (root, read) in new.iter().zip(read) {
            let name = Name::root(root);
            match read {
                Ok(Some((published, kept))) => {
                    self.read.insert(root, published);
                    self.unmarked.extend(kept);
                    self.count(root);
                }
                Ok(None) => drop(self.revoked.insert(*root)),
                // Removed since it was listed, by somebody who forgot it before.
                Err(Error::Store(error)) if error.is_not_found() => {}
                Err(error) if counts_for_nobody(&error) => {
                    let what = format!("{error}; {COUNTS_FOR_NOBODY}");
                    self.report.problems.push(name.as_str(), what);
                    self.forged.insert(name);
                }
                Err(error) => return Err(unmarked(name.as_str().as_bytes(), error)),
            }
        }
        self.put_together();
        Ok(())
    }

    /// Counts a root that is marked from.
    fn count(&mut self, root: &RootName) {
        if root.kind == RootKind::SNAPSHOT {
            self.report.snapshots += 1;
        } else if self.vault.is_listed(root.kind) {
            self.report.other_roots += 1;
        }
    }

    /// Puts together what presences and roots say.
    pub(super) fn put_together(&mut self) {
        let standing = self.vault.epochs.standing();
        self.registrations = Registrations::new(&self.writers, &self.read, &standing, self.options.gaps);
    }

    /// Refuses to go on while a ledger might state something else, or while a root is missing: what that needs is not garbage.
    pub(super) fn refuse_missing(&self) -> Result<()> {
        let place = || self.vault.place().to_owned();
        let (_, unreadable) = self.vault.ledgers.problems();
        if let Some(first) = unreadable.iter().next() {
            return Err(Error::UnknownLedger {
                place: place(),
                why: first.to_string(),
            });
        }
        if let Some(missing) = self.vault.missing_configs()?.iter().next() {
            return Err(Error::UncertainConfig {
                place: place(),
                why: missing.to_string(),
            });
        }
        let roots: Vec<RootName> = self.roots.iter().copied().collect();
        self.vault.note_all_seen(&self.vault.ledgers.view(), &roots)?;
        match self.missing.as_slice() {
            [] => Ok(()),
            [first, ..] => Err(Error::MissingRoots {
                place: place(),
                object: Name::root(first).to_string(),
                count: self.missing.len(),
            }),
        }
    }

    /// Reports what is wrong with the roots, though it stopped nothing.
    pub(super) fn report_roots(&mut self) {
        for (id, number) in self.registrations.missing() {
            let what = format!(
                "its root number {number} is neither here nor forgotten: until it is back, nothing that its writer may rely on is \
                 deleted; run `drystone gc --without-missing` if it is lost"
            );
            self.report.problems.push(format!("registration {id}"), what);
        }
        let is_signed = |root: &&RootName| self.read.has(root);
        report_doubles(self.roots.iter().filter(is_signed).copied(), &mut self.report.problems);
        for root in &self.revoked {
            self.report.problems.push(Name::root(root).as_str(), REVOKED);
        }
        let (forged, _) = self.vault.ledgers.problems();
        self.report.problems.append(forged);
        for root in self.roots.iter().filter(|root| !self.vault.is_listed(root.kind)) {
            self.report.problems.push(Name::root(root).as_str(), UNLISTED);
        }
        self.report.problems.append(self.vault.epochs.problems());
    }
}
