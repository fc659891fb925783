//! What went wrong during a run, per place: what becomes warnings and exit codes above.
//!
//! - Memory is bounded: objects are counted, and only the first few are named.

use std::fmt;

use drystone_format::PlaceId;

/// Objects that are named; the rest is counted.
const NAMED_MAX: usize = 8;

/// A count of objects, and the names of the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// How many there were.
    pub count: u64,
    /// The first of them.
    pub named: Vec<String>,
}

impl Objects {
    /// Counts one more, and names it if there is room.
    pub fn add(&mut self, name: &dyn fmt::Display) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            let name = name.to_string();
            if !self.named.contains(&name) {
                self.named.push(name);
            }
        }
    }
}

/// What was observed of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceTroubles {
    /// Its identity.
    pub id: PlaceId,
    /// Its URL or path.
    pub place: String,
    /// Why it is not there at all.
    pub absent: Option<String>,
    /// Calls that failed.
    pub failures: u64,
    /// Those of them that got no answer: the place may have what others lack.
    pub unanswered: u64,
    /// Those of them for lack of space.
    pub full: u64,
    /// The first of these failures.
    pub first_failure: Option<String>,
    /// Reads that took so long that others were asked too.
    pub slow: u64,
    /// Objects that it should have and said it has not.
    pub missing: Objects,
    /// Objects whose bytes are not what was stored.
    pub unsound: Objects,
    /// Shards with right tags that are no part of their packs, or are signed by nobody who may: made with a stolen key.
    pub forged: Objects,
    /// What is wrong with the first of them.
    pub forgery: Option<&'static str>,
    /// Shards and copies that could not be stored there; `drystone repair` does it later.
    pub owed: Objects,
    /// Objects that could not be removed there.
    pub undeleted: Objects,
}

impl PlaceTroubles {
    pub(super) fn new(id: PlaceId, place: String, absent: Option<String>) -> Self {
        Self {
            id,
            place,
            absent,
            failures: 0,
            unanswered: 0,
            full: 0,
            first_failure: None,
            slow: 0,
            missing: Objects::default(),
            unsound: Objects::default(),
            forged: Objects::default(),
            forgery: None,
            owed: Objects::default(),
            undeleted: Objects::default(),
        }
    }

    /// Whether what it holds is not all known, since it is absent or did not answer.
    pub fn is_silent(&self) -> bool {
        self.absent.is_some() || self.unanswered > 0
    }

    /// Whether nothing was wrong with it, slowness apart.
    pub fn is_none(&self) -> bool {
        let objects = [&self.missing, &self.unsound, &self.forged, &self.owed, &self.undeleted];
        self.absent.is_none() && self.failures == 0 && objects.iter().all(|objects| objects.count == 0)
    }
}

/// What was observed in this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles {
    /// By place, in the order of the options.
    pub places: Vec<PlaceTroubles>,
    /// Objects stored, but with no more parts or copies than it takes to read them: one loss more and they are gone.
    pub thin: Objects,
}

impl Troubles {
    /// Shards and copies that are owed to all places together.
    pub fn owed(&self) -> u64 {
        self.places.iter().map(|place| place.owed.count).sum()
    }

    /// Whether nothing was wrong.
    pub fn is_none(&self) -> bool {
        self.thin.count == 0 && self.places.iter().all(PlaceTroubles::is_none)
    }
}
