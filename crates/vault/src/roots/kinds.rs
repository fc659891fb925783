//! Roots of any kind: listing them, and what they keep alive.
//!
//! - Which kinds this program knows is one table (format/kinds.rs); which of them count is the configuration's to say.
//! - A kind that the configuration lists and this program does not know stops gc, and is told by check; it stops nothing else.
//! - A kind that the configuration does not list counts for nobody.

use std::collections::BTreeMap;

use drystone_format::keys::{Role, VerifyKey};
use drystone_format::kinds::Kept;
use drystone_format::ledger::FirstSeen;
use drystone_format::root::{RootKind, RootName, SignedRoot};
use drystone_store::Name;

use crate::base::Base;
use crate::error::{Error, Result};
use crate::problem::Problems;
use crate::roots::RootSource;
use crate::roots::candidates::RootSurvey;

/// A root that counts, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRoot {
    /// Its name, which ends in its id.
    pub name: RootName,
    /// What it says, to be decoded by its kind.
    pub payload: Vec<u8>,
    /// The key that signed it.
    pub writer: VerifyKey,
    /// What that key's credential may do.
    pub role: Role,
    /// When owners or this machine saw it first.
    pub seen: FirstSeen,
    /// Number of the first ledger that states it: the order among roots; `None` if none does yet.
    pub stated: Option<u64>,
}

/// The roots of a kind with what they keep alive; `None` if this program does not know the kind.
pub(crate) type OfKind = (RootKind, Option<RootSurvey<Vec<Kept>>>);

/// How a problem names a root: snapshots by their ids alone, as people do, others by kind and id.
pub(crate) fn root_path(root: &RootName) -> Vec<u8> {
    match root.kind {
        RootKind::SNAPSHOT => format!("{}:", root.hash.short()),
        kind => format!("{} {}:", kind.word(), root.hash.short()),
    }
    .into_bytes()
}

impl Base {
    /// Reads all roots of a kind, in no order, and reports those that are damaged or missing, and ledgers that cannot be read. Those that
    /// an owner has forgotten are left out, wherever they come from. A writer's credential cannot read them.
    pub fn roots(&self, kind: RootKind) -> Result<(Vec<FoundRoot>, Problems)> {
        let opened = |root: &SignedRoot| self.payload_of(root);
        let (found, problems) = self.survey_roots(kind, RootSource::Cache, &opened)?.told();
        let found = found.into_iter().map(|one| FoundRoot {
            name: one.name,
            payload: one.says,
            writer: one.writer,
            role: one.role,
            seen: one.seen,
            stated: one.stated,
        });
        Ok((found.collect(), problems))
    }

    /// Counts the live roots at the place, readable or not, by kind; of kinds that the configuration lists, snapshots left out.
    pub fn count_other_roots(&self) -> Result<BTreeMap<RootKind, u64>> {
        let kinds = self
            .listed_kinds()
            .into_iter()
            .filter(|kind| *kind != RootKind::SNAPSHOT);
        let count = |kind| Ok((kind, self.root_listing(kind)?.there.len() as u64));
        kinds.map(count).collect()
    }

    /// Returns true if roots of this kind count: owners have admitted it.
    pub(crate) fn is_listed(&self, kind: RootKind) -> bool {
        self.config().lists(kind.word())
    }

    /// The kinds that the configuration lists, known to this program or not.
    pub(crate) fn listed_kinds(&self) -> Vec<RootKind> {
        let words = self.config().root_kinds.iter();
        words.filter_map(|word| RootKind::from_word(word)).collect()
    }

    /// What a root says.
    pub(crate) fn payload_of(&self, root: &SignedRoot) -> Result<Vec<u8>> {
        let opened = root.open(&self.secrets);
        Ok(opened.map_err(self.place.damaged(&Name::root(&root.name)))?.payload)
    }

    /// What a root keeps alive. [`Error::UnknownRoots`] if this program does not know its kind.
    pub(crate) fn kept_by(&self, root: &SignedRoot) -> Result<Vec<Kept>> {
        let Some(known) = root.name.kind.known() else {
            return Err(Error::UnknownRoots {
                place: self.place().to_owned(),
                kind: root.name.kind.word().to_owned(),
            });
        };
        let payload = self.payload_of(root)?;
        (known.marker)(&payload).map_err(self.place.damaged(&Name::root(&root.name)))
    }

    /// What the roots of all kinds but snapshots keep alive, as their place gives them.
    pub(crate) fn survey_others(&self) -> Result<Vec<OfKind>> {
        let mut surveys = Vec::new();
        for kind in self
            .listed_kinds()
            .into_iter()
            .filter(|kind| *kind != RootKind::SNAPSHOT)
        {
            let survey = match kind.known() {
                Some(_) => Some(self.survey_roots(kind, RootSource::Place, &|root| self.kept_by(root))?),
                None => None,
            };
            surveys.push((kind, survey));
        }
        Ok(surveys)
    }
}
