//! Finding snapshots by what a person types: `latest`, `latest~1`, `latest@KEY`, an id or its first digits.
//!
//! - `latest` is certain or it is an error: while a snapshot cannot be read that might be newer, none is chosen.
//! - What `latest` chose, and what it passed over, is told by whoever uses it.

use std::collections::BTreeSet;

use drystone_format::RootId;
use drystone_format::keys::{Role, VerifyKey};
use drystone_format::root::RootKind;
use drystone_format::snapshot::Snapshot;

use crate::error::{Error, Result};
use crate::places::pin::hex;
use crate::roots::RootSource;
use crate::roots::candidates::Survey;
use crate::roots::latest::{Latest, NoLatest, latest};
use crate::roots::order::Candidate;
use crate::vault::Vault;

/// The word that means the newest snapshot.
const LATEST: &str = "latest";
/// Fewest digits that name a snapshot, a key or a ledger.
pub(crate) const PREFIX_MIN: usize = 4;

/// A snapshot that was asked for.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Its id.
    pub id: RootId,
    /// What it says.
    pub snapshot: Snapshot,
    /// The key that signed it.
    pub signer: VerifyKey,
    /// Returns true for one that was chosen as the latest, rather than named.
    pub is_chosen: bool,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

impl Vault {
    /// Finds the snapshot that `text` means: `latest`, `latest@` and the first digits of a signer's key, an id, or its first digits.
    /// `~N` behind `latest` or the key means the one N backups before, of the same host and paths.
    ///
    /// [`Error::LatestUnknown`] if a snapshot that might be newer cannot be read, [`Error::LatestOfSeveral`] if only writers published, and more
    /// than one, [`Error::LatestDoubtful`] if the times of all that are meant are impossible. All three are answered by naming an id.
    pub fn resolve(&self, text: &str) -> Result<Resolved> {
        if let Some(rest) = text.strip_prefix(LATEST) {
            let (rest, before) = steps_back(rest).ok_or_else(|| self.no_snapshot(text))?;
            match (rest, rest.strip_prefix('@')) {
                ("", _) => return self.resolve_latest(text, None, before),
                (_, Some(signer)) => return self.resolve_latest(text, Some(signer), before),
                _ => {}
            }
        }
        let id = self.resolve_id(text)?;
        let (snapshot, certificate) = self.signed_snapshot(&id)?;
        Ok(Resolved {
            id,
            snapshot,
            signer: certificate.writer,
            is_chosen: false,
            notes: Vec::new(),
        })
    }

    fn no_snapshot(&self, text: &str) -> Error {
        Error::NoSnapshot {
            text: text.to_owned(),
            place: self.place().to_owned(),
        }
    }

    fn resolve_latest(&self, text: &str, signer: Option<&str>, before: usize) -> Result<Resolved> {
        let Survey {
            candidates,
            mut problems,
            foreign,
            ..
        } = self.survey(RootSource::Cache)?;
        let is_trusted = |one: &Candidate| one.role == Role::Owner || self.is_own(&one.writer);
        if signer.is_some() || !candidates.iter().any(is_trusted) {
            problems.append(foreign);
        }
        if let Some(problem) = problems.iter().next() {
            return Err(Error::LatestUnknown {
                object: problem.to_string(),
                count: problems.count(),
            });
        }
        let named = signer.map(|digits| self.find_signer(&candidates, digits)).transpose()?;
        let own = &self.secrets.certificate.writer;
        match latest(candidates, own, named.as_ref(), before) {
            Ok(found) => Ok(self.resolved(found)),
            Err(NoLatest::None) => Err(self.no_snapshot(text)),
            Err(NoLatest::Several(keys)) => Err(Error::LatestOfSeveral {
                keys: keys.iter().map(|key| self.signer(key)).collect::<Vec<_>>().join(", "),
            }),
            Err(NoLatest::Doubtful(ids)) => Err(Error::LatestDoubtful {
                ids: ids.iter().map(RootId::short).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn resolved(&self, found: Latest) -> Resolved {
        let Latest {
            chosen,
            doubtful,
            newer,
        } = found;
        let passed = doubtful
            .iter()
            .map(|(id, why)| format!("snapshot {} is passed over: {why}", id.short()));
        let newer = newer.iter().map(|key| {
            let (key, name) = (self.signer(key), self.signer_name(key));
            format!("key {key} has published something newer; `latest@{name}` means that")
        });
        let notes = passed.chain(newer).collect();
        Resolved {
            id: chosen.id,
            snapshot: chosen.snapshot,
            signer: chosen.writer,
            is_chosen: true,
            notes,
        }
    }

    /// Returns how a message names a signing key: its first digits, and its label if its slot is there and has one.
    pub fn signer(&self, key: &VerifyKey) -> String {
        let name = self.signer_name(key);
        match self.signer_label(key) {
            Some(label) => format!("{name} \"{label}\""),
            None => name,
        }
    }

    /// Returns the label of a signing key; `None` if it has none, or if its slot is gone. Reads the key slots the first time.
    pub fn signer_label(&self, key: &VerifyKey) -> Option<&str> {
        let labels = self.labels.get_or_init(|| {
            // A label helps to recognise a key; what is wrong with slots is for `check` and `key list` to say.
            let (slots, _) = self.keys().unwrap_or_default();
            let labelled = slots.into_iter().filter(|slot| !slot.label.is_empty());
            labelled.map(|slot| (slot.writer, slot.label)).collect()
        });
        labels.get(key).map(String::as_str)
    }

    /// Returns the name by which commands take a signing key: the first digits of the key.
    pub fn signer_name(&self, key: &VerifyKey) -> String {
        let [a, b, c, d, ..] = key.0;
        hex(&[a, b, c, d])
    }

    fn find_signer(&self, candidates: &[Candidate], digits: &str) -> Result<VerifyKey> {
        let is_meant = |key: &VerifyKey| digits.len() >= PREFIX_MIN && hex(&key.0).starts_with(digits);
        let mut found: Vec<VerifyKey> = candidates.iter().map(|one| one.writer).filter(is_meant).collect();
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [key] => Ok(*key),
            _ => Err(Error::NoSigner {
                text: digits.to_owned(),
            }),
        }
    }

    /// Finds the snapshot whose id begins with `text`, readable or not.
    pub fn resolve_id(&self, text: &str) -> Result<RootId> {
        let ids = self.ids_beginning(text)?;
        match ids.as_slice() {
            [] => Err(self.no_snapshot(text)),
            [id] => Ok(*id),
            several => Err(Error::AmbiguousSnapshot {
                text: text.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// Snapshots, readable or not, whose ids begin with `text`, if it is long enough.
    pub(crate) fn ids_beginning(&self, text: &str) -> Result<Vec<RootId>> {
        let matching = |id: &RootId| text.len() >= PREFIX_MIN && id.to_string().starts_with(text);
        let listing = self.root_listing(RootKind::SNAPSHOT)?;
        // One that is missing can be named as well, to be forgotten.
        let all = listing.there.iter().chain(&listing.missing);
        let ids: BTreeSet<RootId> = all.map(|root| root.hash).collect();
        Ok(ids.into_iter().filter(matching).collect())
    }
}

/// What stands before `~N`, and N; 0 without it, `None` if it is no number.
fn steps_back(text: &str) -> Option<(&str, usize)> {
    match text.split_once('~') {
        None => Some((text, 0)),
        Some((rest, number)) => Some((rest, number.parse().ok()?)),
    }
}
