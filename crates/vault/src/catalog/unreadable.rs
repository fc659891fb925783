//! Packs whose tails were read and are no tails of this vault, kept in the local state so that each is read once.
//!
//! - A writer can add 100,000 packs of a byte; without this, each run of everybody would ask for each of them again.
//! - Only what the bytes themselves say is kept, not what a place or a missing key made of them; a pack of another size is new.
//! - `check`, `scrub` and `repair index` read them again, and so does a run that misses a chunk: one of them may have been mended.
//! - Bounded: what does not fit is read each time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use drystone_format::PackId;
use drystone_index::State;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// State key of the packs: for each its id, its size (8 bytes, big endian), the length of the reason (1 byte), and the reason.
const UNREADABLE: &str = "unreadable_packs";
/// Packs kept: 41 bytes each.
const PACKS_MAX: usize = 1 << 18;
/// Packs of which the reason is kept too.
const REASONS_MAX: usize = 1000;
/// What is said of the others.
const NO_REASON: &str = "this is no pack of this vault, as an earlier run found";

#[derive(Default)]
struct Known {
    packs: BTreeMap<PackId, (u64, String)>,
    is_changed: bool,
}

/// The packs that are not worth another look.
pub(crate) struct Unreadable {
    state: Arc<State>,
    known: Mutex<Known>,
}

impl Unreadable {
    /// What earlier runs on this machine found.
    pub(crate) fn open(state: Arc<State>) -> Result<Self> {
        let stored = state.get(UNREADABLE)?.unwrap_or_default();
        let known = Known {
            packs: decode(&stored),
            is_changed: false,
        };
        Ok(Self {
            state,
            known: Mutex::new(known),
        })
    }

    /// Forgets what earlier runs found.
    pub(crate) fn forget(state: &State) -> Result<()> {
        Ok(state.set(UNREADABLE, &[])?)
    }

    /// Why a pack of this size is not read, if it is not.
    pub(crate) fn reason(&self, pack: &PackId, size: u64) -> Option<String> {
        let known = self.known.lock();
        let (_, reason) = known.packs.get(pack).filter(|(found, _)| *found == size)?;
        Some(if reason.is_empty() {
            NO_REASON.to_owned()
        } else {
            reason.clone()
        })
    }

    /// Keeps what was wrong with a pack, if its bytes will say the same the next time.
    pub(crate) fn add(&self, pack: &PackId, size: u64, error: &Error) {
        let mut known = self.known.lock();
        if !is_final(error) || known.packs.len() >= PACKS_MAX {
            return;
        }
        let reason = if known.packs.len() < REASONS_MAX {
            error.to_string()
        } else {
            String::new()
        };
        known.packs.insert(*pack, (size, reason));
        known.is_changed = true;
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.lock().packs.is_empty()
    }

    /// Forgets all, so that they are read again.
    pub(crate) fn clear(&self) {
        let mut known = self.known.lock();
        known.is_changed |= !known.packs.is_empty();
        known.packs.clear();
    }

    /// Forgets those that are no longer listed with that size.
    pub(crate) fn retain(&self, listed: &HashMap<PackId, u64>) {
        let mut known = self.known.lock();
        let before = known.packs.len();
        known.packs.retain(|pack, (size, _)| listed.get(pack) == Some(size));
        known.is_changed |= known.packs.len() != before;
    }

    /// Writes down what changed.
    pub(crate) fn save(&self) -> Result<()> {
        let mut known = self.known.lock();
        if known.is_changed {
            self.state.set(UNREADABLE, &encode(&known.packs))?;
            known.is_changed = false;
        }
        Ok(())
    }
}

/// Returns true if the bytes themselves say that they are no pack of this vault, whoever reads them and from where.
pub(crate) fn is_final(error: &Error) -> bool {
    use drystone_format::Error as F;
    let exceeds_limit = match error {
        Error::Damaged { source, .. } => matches!(source, F::Limit { .. }),
        Error::Index(drystone_index::Error::TooLarge { .. }) => true,
        _ => false,
    };
    exceeds_limit || is_no_pack(error)
}

/// Returns true if no version of this program can read such a pack: of what only exceeds a limit another one may.
pub(crate) fn is_no_pack(error: &Error) -> bool {
    use drystone_format::Error as F;
    let Error::Damaged { source, .. } = error else {
        return false;
    };
    let is_altered = matches!(source, F::Authentication { .. } | F::Signature { .. });
    is_altered || matches!(source, F::Magic { .. } | F::Malformed { .. })
}

fn encode(packs: &BTreeMap<PackId, (u64, String)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(packs.len() * 41);
    for (pack, (size, reason)) in packs {
        let end = (0..=reason.len().min(255))
            .rev()
            .find(|end| reason.is_char_boundary(*end));
        let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
        bytes.extend_from_slice(&pack.0);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.push(reason.len() as u8);
        bytes.extend_from_slice(reason.as_bytes());
    }
    bytes
}

/// As much as can be read: the state is a cache.
fn decode(mut bytes: &[u8]) -> BTreeMap<PackId, (u64, String)> {
    let mut packs = BTreeMap::new();
    while packs.len() < PACKS_MAX
        && let Some((pack, rest)) = bytes.split_first_chunk()
        && let Some((size, rest)) = rest.split_first_chunk()
        && let Some((length, rest)) = rest.split_first()
        && let Some((reason, rest)) = rest.split_at_checked(usize::from(*length))
    {
        let reason = String::from_utf8_lossy(reason).into_owned();
        packs.insert(PackId(*pack), (u64::from_be_bytes(*size), reason));
        bytes = rest;
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_however_it_was_cut() {
        let packs: BTreeMap<_, _> = (0..3_u8)
            .map(|n| (PackId([n; 32]), (u64::from(n) << 40, "é".repeat(usize::from(n) * 100))))
            .collect();
        let encoded = encode(&packs);
        let decoded = decode(&encoded);
        assert_eq!(decoded.len(), 3);
        assert_eq!(decoded[&PackId([1; 32])], packs[&PackId([1; 32])].clone().into_cut());
        for end in 0..encoded.len() {
            assert!(decode(&encoded[..end]).len() < 3);
        }
    }

    trait Cut {
        fn into_cut(self) -> Self;
    }

    impl Cut for (u64, String) {
        fn into_cut(self) -> Self {
            (self.0, self.1.chars().take(127).collect())
        }
    }
}
