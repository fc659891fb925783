//! What a commit relies on, stored by itself or not.

use std::collections::BTreeSet;

use drystone_format::ChunkId;
use drystone_format::recipe::Recipe;
use parking_lot::Mutex;

use crate::writing::admit::Claim;
use crate::writing::flights::{Flights, FrameId};

/// Chunks that a commit remembers, 32 bytes each. A commit that relies on more is given up with its writer.
const RELIED_MAX: usize = 1 << 20;
/// Frames under way that are remembered before those that have landed are left out.
const FRAMES_MAX: usize = 1 << 10;
/// What a commit relies on.
#[derive(Debug)]
pub(crate) struct Relied {
    /// Frames under way that hold any of it.
    frames: Mutex<BTreeSet<FrameId>>,
    /// Everything; nothing if it was too much to remember.
    pub(crate) all: Mutex<Option<Everything>>,
}

#[derive(Debug, Default)]
pub(crate) struct Everything {
    pub(crate) chunks: Vec<ChunkId>,
    pub(crate) recipes: Vec<Recipe>,
}

impl Default for Relied {
    fn default() -> Self {
        Self {
            frames: Mutex::default(),
            all: Mutex::new(Some(Everything::default())),
        }
    }
}

impl Relied {
    /// Remembers a chunk, and the frame that it is to be in.
    pub(crate) fn add(&self, id: &ChunkId, claim: Claim, flights: &Flights) {
        if let Claim::New(frame) | Claim::UnderWay(frame) = claim {
            let mut frames = self.frames.lock();
            if frames.insert(frame) && frames.len() > FRAMES_MAX {
                flights.retain(&mut frames);
            }
        }
        self.remember(|all| all.chunks.push(*id));
    }

    /// Remembers all that a recipe leads to.
    pub(crate) fn add_recipe(&self, recipe: Recipe) {
        self.remember(|all| all.recipes.push(recipe));
    }

    pub(crate) fn remember(&self, add: impl FnOnce(&mut Everything)) {
        let mut all = self.all.lock();
        if let Some(known) = &mut *all {
            add(known);
            if known.chunks.len() + known.recipes.len() > RELIED_MAX {
                *all = None;
            }
        }
    }

    pub(crate) fn frames(&self) -> BTreeSet<FrameId> {
        self.frames.lock().clone()
    }
}
