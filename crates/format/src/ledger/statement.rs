//! What a ledger states. Rules: docs/format.md, "Ledger".
//!
//! - Each ledger is a full statement: it carries over all that its predecessors state.
//! - A root is named by registration, number and hash together, so a second object of one number is another root.
//! - Forgotten is for ever: nothing in a ledger takes back what it or another forgets.
//! - A root that no ledger states is live.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::{RegistrationId, RootId};
use crate::tree::Time;

/// Number and hash of a ledger.
pub type LedgerName = (u64, RootId);

/// Number and hash of a configuration.
pub type ConfigurationName = (u64, RootId);

/// An object that a registration has numbered: a root or an index run. The kind stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Numbered {
    /// The registration that wrote it.
    pub registration: RegistrationId,
    /// Its number in that registration.
    pub number: u64,
    /// The hash of the object.
    pub hash: RootId,
}

/// The word of a kind of roots: 1 to 15 letters from a to z, known to this program or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindWord([u8; 15]);

impl KindWord {
    /// Returns the kind with this word, if it can be one.
    pub fn new(word: &str) -> Option<Self> {
        let mut bytes = [0; 15];
        let is_word = !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_lowercase());
        bytes.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
        is_word.then_some(Self(bytes))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|letter| *letter == 0).unwrap_or(self.0.len());
        let word = self.0.get(..end).unwrap_or_default();
        std::str::from_utf8(word).unwrap_or_default()
    }
}

impl fmt::Display for KindWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KindWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a ledger says of a live root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Live {
    /// Its kind.
    pub kind: KindWord,
    /// Number of the first ledger that stated it: the order among roots.
    pub first: u64,
}

/// Which numbers of a registration are forgotten without a list of hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Every root with a lower number is forgotten, unless it is stated as live.
    pub floor: u64,
    /// Every root with this number or a higher one is forgotten: a fence has cut the registration here.
    pub end: Option<u64>,
}

/// When a root was seen for the first time, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FirstSeen {
    /// Somebody looked then, and it was not there.
    pub not_at: Option<i64>,
    /// Somebody looked then, and it was.
    pub at: i64,
}

impl FirstSeen {
    /// The claimed time as far as it counts: not before the last look without the root, not after the first with it.
    pub fn bound(&self, claimed: i64) -> i64 {
        claimed.max(self.not_at.unwrap_or(i64::MIN)).min(self.at)
    }
}

/// What a ledger says to those alone who can read the vault's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sightings {
    /// When the ledger was written, by its writer's clock.
    pub time: Time,
    /// When each of the live roots was first seen.
    pub seen: BTreeMap<Numbered, FirstSeen>,
}

/// Which of several versions count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InForce<T: Ord> {
    /// Those that no other supersedes; several are a conflict.
    pub heads: BTreeSet<T>,
    /// Those that another supersedes.
    pub superseded: BTreeSet<T>,
}

impl<T: Ord> Default for InForce<T> {
    fn default() -> Self {
        Self {
            heads: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Clone> InForce<T> {
    /// Takes in what another ledger says.
    pub fn join(&mut self, other: &Self) {
        self.heads.extend(other.heads.iter().cloned());
        self.superseded.extend(other.superseded.iter().cloned());
        self.drop_superseded();
    }

    /// Puts `head` in force in the place of all that are.
    pub fn replace(&mut self, head: T) {
        self.heads.remove(&head);
        self.superseded.append(&mut self.heads);
        self.heads.insert(head);
        self.drop_superseded();
    }

    fn drop_superseded(&mut self) {
        let Self { heads, superseded } = self;
        heads.retain(|head| !superseded.contains(head));
    }
}

/// What one ledger states, readable by every credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// One more than the highest that its writer had read. Several ledgers may have the same.
    pub number: u64,
    /// The ledgers that this one carries over, and theirs.
    pub predecessors: BTreeSet<LedgerName>,
    /// Roots that are live.
    pub live: BTreeMap<Numbered, Live>,
    /// Roots that are forgotten, beside those that `bounds` and `dead` forget.
    pub forgotten: BTreeSet<Numbered>,
    /// Ranges of forgotten numbers.
    pub bounds: BTreeMap<RegistrationId, Bounds>,
    /// Registrations that are over, and all of whose roots are forgotten, whatever their hash.
    pub dead: BTreeSet<RegistrationId>,
    /// The configuration in force.
    pub configuration: InForce<ConfigurationName>,
    /// The index runs in force.
    pub runs: InForce<Numbered>,
}

impl Ledger {
    /// Returns true if this ledger says that the root is forgotten.
    pub fn forgets(&self, root: &Numbered) -> bool {
        self.forgets_without_list(root) || self.forgotten.contains(root)
    }

    /// Returns true if bounds or the end of its registration forget the root.
    fn forgets_without_list(&self, root: &Numbered) -> bool {
        if self.dead.contains(&root.registration) {
            return true;
        }
        let bounds = self.bounds.get(&root.registration).copied().unwrap_or_default();
        bounds.end.is_some_and(|end| root.number >= end) || root.number < bounds.floor && !self.live.contains_key(root)
    }

    /// Brings the statement into its only form: without live roots that it forgets, and without what is forgotten twice.
    pub fn normalise(&mut self) {
        let Self {
            live,
            forgotten,
            bounds,
            dead,
            ..
        } = self;
        bounds.retain(|registration, bounds| *bounds != Bounds::default() && !dead.contains(registration));
        let is_cut = |root: &Numbered| {
            let end = bounds.get(&root.registration).and_then(|bounds| bounds.end);
            dead.contains(&root.registration) || end.is_some_and(|end| root.number >= end)
        };
        live.retain(|root, _| !forgotten.contains(root) && !is_cut(root));
        let is_below = |root: &Numbered| {
            bounds
                .get(&root.registration)
                .is_some_and(|bounds| root.number < bounds.floor)
        };
        forgotten.retain(|root| !is_cut(root) && !is_below(root));
    }
}
