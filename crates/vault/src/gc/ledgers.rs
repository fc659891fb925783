//! What gc states in ledgers: the roots that it has read, the cuts of writers that it gave up, the ranges that it closes. And ledgers that
//! others carry over, which it removes.
//!
//! - A range is closed only after an epoch has announced it, every list showed that epoch, and the ledgers and roots were read again.
//! - While a place is away, or keeps what is deleted, nothing is closed.
//! - A ledger is removed once lists show one that carries it over.

use drystone_format::RegistrationId;
use drystone_format::epoch::{Closing, Closings};
use drystone_format::root::RootName;

use crate::error::Result;
use crate::gc::protocol;
use crate::gc::run::Run;
use crate::roots::ledger::{Change, closable, confirmed};
use crate::roots::stating::kind_word;

impl Run<'_> {
    /// What could be closed, by the ledgers and roots that were read last.
    fn closable(&self) -> Closings {
        if self.is_partial || !self.vault.place.is_complete(&self.troubles) {
            return Closings::new();
        }
        let view = self.vault.ledgers.view();
        // A registration of which no root and no presence is left is over, as far as that matters for an announcement.
        let over = |id: &RegistrationId| match self.registrations.is_known(id) {
            true => self.registrations.is_over(id).then(|| self.registrations.published(id)),
            false => Some(0),
        };
        closable(&view, &self.listed, &over)
    }

    /// What could be closed and no epoch announces yet.
    pub(super) fn new_closings(&self) -> Closings {
        let announced = self.vault.epochs.standing().announced();
        let is_new = |(id, closing): &(RegistrationId, Closing)| announced.get(id).is_none_or(|known| known < closing);
        self.closable().into_iter().filter(is_new).collect()
    }

    /// The roots that were read, which count whatever becomes of the keys that signed them, and the configuration in force.
    fn seen(&self) -> Change {
        let read = self.roots.iter().filter(|root| self.read.has(root));
        let seen = read.filter_map(|root: &RootName| Some((root.numbered(), kind_word(root.kind)?)));
        let in_force = &self.vault.standing().signed;
        let in_force = (in_force.config.number, in_force.hash);
        let stated = &self.vault.ledgers.view().stated.configuration.heads;
        Change {
            seen: seen.collect(),
            configuration: (*stated != [in_force].into()).then_some(in_force),
            ..Change::default()
        }
    }

    /// Puts the first ledger: without any, nobody could tell a root that is missing from one that never was.
    pub(super) fn state_roots(&self) -> Result<()> {
        self.vault.put_ledger(&self.seen())?;
        Ok(())
    }

    /// Puts a ledger that states the roots, how many roots of writers that were given up count, and what is closed; does nothing if
    /// the newest one states that already.
    pub(super) fn put_ledger(&mut self) -> Result<()> {
        let cuts = protocol::cuts(&self.fences, &self.registrations);
        let is_given_up =
            |id: &&RegistrationId| !self.registrations.is_over(id) && !self.registrations.is_contradicted(id);
        let given_up = cuts.keys().filter(is_given_up);
        self.report.given_up = given_up.copied().collect();
        let change = Change {
            cuts,
            closed: confirmed(&self.named.announced(), &self.closable()),
            ..self.seen()
        };
        let must_show = !change.cuts.is_empty() || !change.closed.is_empty();
        if !self.vault.put_ledger(&change)? {
            return Ok(());
        }
        // What protects may show late; what gc is about to act upon may not.
        if must_show {
            self.wait_for_lists()?;
            self.vault.follow_notices()?;
        }
        self.put_together();
        self.has_unshown_ledger = !must_show && self.vault.place.is_stale();
        Ok(())
    }

    /// Removes the ledgers that others carry over; leaves that to the next run while lists may not show this run's ledger.
    pub(super) fn drop_ledgers(&mut self) -> Result<()> {
        if self.has_unshown_ledger {
            return Ok(());
        }
        for name in self.vault.ledgers.superseded()? {
            self.vault.place.delete(&name)?;
        }
        Ok(())
    }
}
