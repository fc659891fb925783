//! The writers that gc waits for: finding them, watching them, giving up those that are silent, tidying up after them.
//!
//! - Presences are hints: one that cannot be read belongs to a writer that has seen nothing.
//! - A clock decides nothing but how soon a silent writer is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drystone_format::RootId;
use drystone_format::epoch::Epoch;
use drystone_format::presence::Presence;
use drystone_store::{Kind, Name, Prefix, Range};

use crate::error::{Error, Result};
use crate::gc::protocol::{self, Observed, Registered};
use crate::gc::registration::{is_dead_here, sweep_marks};
use crate::gc::run::Run;

/// State key of the writers that gc waits for: id, beat, silent looks, time of the last one.
const OBSERVED: &str = "gc_writers";
/// How often writers are looked at while a run waits for them.
const POLL: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// The presences at the place; one that cannot be read says nothing.
    pub(super) fn presences(&self) -> Result<Vec<(RootId, u64, Option<Presence>)>> {
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
    pub(super) fn blockers(&self) -> BTreeSet<RootId> {
        let is_over = |id: &RootId| self.is_over(id);
        protocol::blockers(&self.named, &self.writers, &self.own(), &is_over)
    }

    pub(super) fn is_over(&self, id: &RootId) -> bool {
        protocol::is_over(id, &self.vault.epochs.standing(), &self.roots)
    }

    pub(super) fn wait_for_writers(&mut self) -> Result<()> {
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
    pub(super) fn fence(&mut self) -> Result<()> {
        let now = self.vault.context.clock.now().seconds;
        let gap = i64::try_from(self.options.silence.as_secs()).unwrap_or(i64::MAX);
        let mut observed = self.observed()?;
        // All of them, not only those that something waits for: packs are spared for the others.
        let own = self.own();
        let running = self.writers.iter().map(|writer| writer.id);
        let running: BTreeSet<RootId> = running.filter(|id| *id != own && !self.is_over(id)).collect();
        observed.retain(|id, _| running.contains(id));
        let mut fenced = BTreeSet::new();
        for id in running {
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
    pub(super) fn give_up(&mut self) -> Result<()> {
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
}
