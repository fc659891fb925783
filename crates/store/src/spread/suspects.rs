//! What is remembered of packs that were not what they should be.
//!
//! - Bounded: what is remembered of packs is small, and of whole packs there are two.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use parking_lot::Mutex;

use super::recent::Recent;
use crate::Name;

/// Whole packs that are kept: neighbouring ranges of a suspect are asked for one after the other, by several threads.
const WHOLES: usize = 2;

/// What came of a suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Some k parts give the pack: ranges of these are read.
    Proven,
    /// The same, but ranges are not to be trusted.
    Sworn,
    /// The pack is what its name says, and wrong all the same: that is its writer's doing.
    Acquitted,
    /// No parts were found that give the pack.
    Hopeless,
}

/// What is known of a suspect.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) outcome: Outcome,
    pub(super) forged: Arc<[(usize, Name)]>,
    pub(super) pack_bytes: u64,
}

/// All suspects of a run.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) known: Recent<Suspect>,
    pub(super) wholes: Mutex<VecDeque<(PackId, Bytes)>>,
    /// Held during a trial: those who wait for it take what it finds.
    pub(super) trying: tokio::sync::Mutex<()>,
}

impl Suspects {
    /// A whole pack that is kept.
    pub(super) fn whole(&self, pack: &PackId) -> Option<Bytes> {
        let wholes = self.wholes.lock();
        let found = wholes.iter().find(|(kept, _)| kept == pack);
        found.map(|(_, whole)| whole.clone())
    }

    /// Keeps a whole pack, in place of the one that was kept first.
    pub(super) fn keep(&self, pack: PackId, whole: Bytes) {
        let mut wholes = self.wholes.lock();
        wholes.retain(|(kept, _)| *kept != pack);
        wholes.push_back((pack, whole));
        if wholes.len() > WHOLES {
            wholes.pop_front();
        }
    }
}
