//! The writers that gc waits for: finding them, watching them, giving up those that are silent, tidying up after them.
//!
//! - A presence that its writer has not signed counts for nobody; one that is damaged belongs to a writer that has seen nothing.
//! - A root is a sign of life like a presence, and says the same.
//! - A clock decides nothing but how soon a silent writer is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drystone_format::RegistrationId;
use drystone_format::epoch::Epoch;
use drystone_format::keys::VerifyKey;
use drystone_format::presence::WriterState;
use drystone_store::{Kind, Name, Prefix};

use crate::context::Source;
use crate::error::damage::{COUNTS_FOR_NOBODY, counts_for_nobody};
use crate::error::{Error, Result};
use crate::gc::deletion::delete_presence;
use crate::gc::protocol::{self, Observed, Registered};
use crate::gc::registration::{is_dead_here, sweep_marks};
use crate::gc::run::Run;
use crate::roots::REVOKED;
use crate::vault::Vault;

/// State key of the writers that gc waits for: id, sign of life, silent looks, time of the last one.
const OBSERVED: &str = "gc_writers";
/// How often writers are looked at while a run waits for them.
const POLL: Duration = Duration::from_millis(500);

/// A presence that was listed.
pub(super) struct Found {
    name: Name,
    pub(super) registered: Registered,
}

impl Vault {
    /// Gives up the runs of a key that is being removed, so that none of them reports what counts for nobody.
    pub(crate) fn fence_runs_of(&self, writer: &VerifyKey) -> Result<()> {
        let mut fences = BTreeSet::new();
        for name in self.place.names(&Prefix::Writers)? {
            let Kind::Writer(id, beat, hash) = name.kind() else {
                continue;
            };
            let read = self.signed_presence(&name, (&id, beat, &hash));
            if read.is_ok_and(|(_, certificate)| certificate.writer == *writer) {
                fences.insert(id);
            }
        }
        self.epochs.refresh()?;
        let epoch = Epoch {
            fences,
            ..Epoch::default()
        };
        self.epochs.put(&epoch, &mut Source(&*self.context.entropy))
    }
}

impl Run<'_> {
    /// The presences at the place; one that cannot be read says nothing, and one that its writer has not signed is left out.
    pub(super) fn presences(&mut self) -> Result<Vec<Found>> {
        let (mut found, view) = (Vec::new(), self.vault.ledgers.view());
        for name in self.vault.place.names(&Prefix::Writers)? {
            let Kind::Writer(id, beat, hash) = name.kind() else {
                continue;
            };
            if self.forged.contains(&name) {
                continue;
            }
            let mut registered = Registered {
                id,
                beat,
                seen: BTreeSet::new(),
                advance: None,
                packs: 0,
                is_over: false,
            };
            match self.vault.signed_presence(&name, (&id, beat, &hash)) {
                Ok((_, certificate)) if self.vault.is_dismissed(&view, &certificate.writer) => {
                    self.report.problems.push(name.as_str(), REVOKED);
                    self.forged.insert(name);
                    continue;
                }
                Ok((presence, _)) => {
                    registered.seen = presence.epochs;
                    registered.advance = presence.advance;
                    registered.packs = presence.packs;
                    registered.is_over = presence.state == WriterState::Over;
                }
                Err(Error::Store(error)) if error.is_not_found() => continue,
                Err(error) if counts_for_nobody(&error) => {
                    self.report
                        .problems
                        .push(name.as_str(), format!("{error}; {COUNTS_FOR_NOBODY}"));
                    self.forged.insert(name);
                    continue;
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            found.push(Found { name, registered });
        }
        Ok(found)
    }

    fn look_at_writers(&mut self) -> Result<BTreeSet<RegistrationId>> {
        let found = self.presences()?;
        self.presences = found
            .iter()
            .map(|found| (found.registered.id, found.name.clone()))
            .collect();
        self.writers = found.into_iter().map(|found| found.registered).collect();
        self.put_together();
        Ok(self.blockers())
    }

    /// As far as the roots are known: who has published since they were listed is over, as the next list shows.
    pub(super) fn blockers(&self) -> BTreeSet<RegistrationId> {
        protocol::blockers(&self.named, &self.registrations, &self.own())
    }

    pub(super) fn wait_for_writers(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let blockers = self.look_at_writers()?;
            let left = self.options.wait.saturating_sub(start.elapsed());
            let ends_soon = |id: &RegistrationId| self.is_gone(id) || self.registrations.is_contradicted(id);
            if blockers.iter().all(ends_soon) || left.is_zero() {
                return Ok(());
            }
            self.options.cancel.check()?;
            let named: Vec<String> = blockers.iter().map(RegistrationId::short).collect();
            let what = format!(
                "waiting up to {} s for runs that may rely on what goes: {}",
                left.as_secs(),
                named.join(", ")
            );
            self.options.progress.set_current(what.as_bytes());
            std::thread::sleep(POLL.min(left));
        }
    }

    fn is_gone(&self, id: &RegistrationId) -> bool {
        is_dead_here(&self.vault.writers_dir(), id)
    }

    /// Gives up the writers that gave no sign of life.
    pub(super) fn fence(&mut self) -> Result<()> {
        let now = self.vault.context.clock.now().seconds;
        let gap = i64::try_from(self.options.silence.as_secs()).unwrap_or(i64::MAX);
        let mut observed = self.observed()?;
        // All of them, not only those that something waits for: packs are spared for the others.
        let own = self.own();
        let running = self.registrations.running().filter(|id| **id != own);
        let running: BTreeSet<RegistrationId> = running.copied().collect();
        observed.retain(|id, _| running.contains(id));
        let mut fences = BTreeSet::new();
        for id in running {
            let life = self.registrations.life(&id);
            let look = Observed::look(observed.get(&id).copied(), life, now, gap);
            observed.insert(id, look);
            // One that has just ended removes its presence in a moment; one that stays contradicted is asked no more.
            let is_contradicted = self.at_work.is_contradicted(&id) && self.registrations.is_contradicted(&id);
            if look.is_silent() || self.is_gone(&id) || is_contradicted {
                fences.insert(id);
            }
        }
        self.remember(&observed)?;
        fences.retain(|id| !self.named.is_fenced(id));
        if !fences.is_empty() {
            self.fences = self.put(&Epoch {
                fences,
                ..Epoch::default()
            })?;
        }
        Ok(())
    }

    fn observed(&self) -> Result<BTreeMap<RegistrationId, Observed>> {
        let bytes = self.vault.state().get(OBSERVED)?.unwrap_or_default();
        let (records, _) = bytes.as_chunks::<36>();
        let record = |record: &[u8; 36]| {
            let (id, rest) = record.split_first_chunk()?;
            let (beat, rest) = rest.split_first_chunk()?;
            let (silent, rest) = rest.split_first_chunk()?;
            let observed = Observed {
                life: u64::from_be_bytes(*beat),
                silent: u32::from_be_bytes(*silent),
                at: i64::from_be_bytes(*rest.first_chunk()?),
            };
            Some((RegistrationId(*id), observed))
        };
        Ok(records.iter().filter_map(record).collect())
    }

    fn remember(&self, observed: &BTreeMap<RegistrationId, Observed>) -> Result<()> {
        let mut bytes = Vec::new();
        for (id, look) in observed {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&look.life.to_be_bytes());
            bytes.extend_from_slice(&look.silent.to_be_bytes());
            bytes.extend_from_slice(&look.at.to_be_bytes());
        }
        Ok(self.vault.state().set(OBSERVED, &bytes)?)
    }

    /// Says how many roots of the writers given up count, and tidies up after those that are over.
    pub(super) fn give_up(&mut self) -> Result<()> {
        self.put_ledger()?;
        for (id, name) in &self.presences {
            if self.registrations.is_over(id) {
                delete_presence(&self.vault.place, name)?;
            }
        }
        let running: BTreeSet<RegistrationId> = self.registrations.running().copied().collect();
        sweep_marks(&self.vault.writers_dir(), &|id| running.contains(id));
        Ok(())
    }
}
