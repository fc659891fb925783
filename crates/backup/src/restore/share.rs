//! Large files, which several threads fill at once.
//!
//! - Every thread that gets a share takes stretches until none is left, or one piece of it if the restore is planned; whoever lets go of
//!   it last completes the file.
//! - A file that was interrupted stays, so that the next run only has to verify what is there.

use std::os::fd::AsFd;
use std::sync::Arc;

use drystone_format::tree::{Entry, Kind};
use parking_lot::Mutex;

use super::content::Filling;
use super::dir::Ongoing;
use super::tally::Failure;
use super::write::{Made, Spot, Work};
use crate::apply::Now;

/// A large file that several threads fill.
pub(crate) struct Share {
    ongoing: Arc<Ongoing>,
    entry: Entry,
    stage: Mutex<Stage>,
    /// Why it is not restored; never that of the whole run.
    failure: Mutex<Option<Failure>>,
}

enum Stage {
    Closed,
    Open(Arc<Filling>, Now),
    /// One thread did it all.
    Over(Made),
}

impl Share {
    pub(crate) fn new(ongoing: Arc<Ongoing>, entry: Entry) -> Self {
        Self {
            ongoing,
            entry,
            stage: Mutex::new(Stage::Closed),
            failure: Mutex::new(None),
        }
    }
}

impl Work<'_> {
    /// Helps with a large file, or does the piece of it that begins at `piece`; whoever lets go of it last completes it.
    pub(crate) fn share(&self, share: Arc<Share>, piece: Option<u64>, buffer: &mut Vec<u8>) {
        if !self.is_stopped()
            && let Err(failure) = self.fill_share(&share, piece, buffer)
        {
            match failure.at(|| share.ongoing.dir.path(&share.entry.name)) {
                Failure::Run(error) => self.stop(error),
                failure => *share.failure.lock() = Some(failure),
            }
            if let Stage::Open(filling, _) = &*share.stage.lock() {
                filling.abort();
            }
        }
        let Some(share) = Arc::into_inner(share) else { return };
        let Share {
            ongoing,
            entry,
            stage,
            failure,
        } = share;
        let filled = failure.into_inner().map_or(Ok(()), Err);
        let made = match (stage.into_inner(), filled) {
            (Stage::Over(made), Ok(())) => Ok(made),
            (Stage::Open(filling, now), filled) => self.open_dir(&ongoing.dir).and_then(|at| {
                let spot = Spot {
                    at: at.as_fd(),
                    dir: &ongoing.dir,
                    entry: &entry,
                };
                self.finish_file(spot, (&filling, now), filled)
            }),
            (Stage::Closed, Ok(())) => return,
            (_, Err(failure)) => Err(failure),
        };
        if self.is_stopped() {
            return;
        }
        self.count(&ongoing, &entry, made);
        self.release(ongoing);
    }

    fn fill_share(&self, share: &Share, piece: Option<u64>, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let Share { ongoing, entry, .. } = share;
        let Kind::File(recipe) = &entry.kind else {
            return Ok(());
        };
        let mut stage = share.stage.lock();
        if matches!(*stage, Stage::Closed) && share.failure.lock().is_none() {
            let at = self.open_dir(&ongoing.dir)?;
            let spot = Spot {
                at: at.as_fd(),
                dir: &ongoing.dir,
                entry,
            };
            match self.open_file(spot)? {
                None => *stage = Stage::Over(Made::Kept),
                Some((filling, now)) if filling.writable => {
                    self.filler.prepare(&filling, recipe)?;
                    *stage = Stage::Open(Arc::new(filling), now);
                }
                Some(_) => *stage = Stage::Over(self.file(spot, recipe, buffer)?),
            }
        }
        let Stage::Open(filling, _) = &*stage else {
            return Ok(());
        };
        let filling = filling.clone();
        drop(stage);
        match piece {
            Some(start) => self.filler.fill_piece(&filling, recipe, start, buffer)?,
            None => self.filler.fill(&filling, recipe, buffer)?,
        };
        Ok(())
    }
}
