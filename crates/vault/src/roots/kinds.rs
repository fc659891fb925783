//! Roots of any kind: publishing them, listing them, and what they keep alive.
//!
//! - Which kinds this program knows is one table (format/kinds.rs); which of them count is the configuration's to say.
//! - A kind that the configuration lists and this program does not know stops gc, and is told by check; it stops nothing else.
//! - A kind that the configuration does not list counts for nobody.

use std::collections::BTreeMap;

use drystone_format::RootId;
use drystone_format::keys::{Role, VerifyKey};
use drystone_format::kinds::Kept;
use drystone_format::ledger::FirstSeen;
use drystone_format::root::{RootKind, RootName, RootState, SignedRoot};
use drystone_store::Name;

use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::registration::Publication;
use crate::keyring::slots::owner_key;
use crate::places::features::Act;
use crate::problem::Problems;
use crate::roots::RootSource;
use crate::roots::candidates::RootSurvey;
use crate::vault::Vault;
use crate::writing::ingest::Finished;

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

impl Vault {
    /// Publishes a configuration that lists a kind of roots: from now on these count, and programs that do not know the kind refuse to
    /// collect garbage. Durable on return; nothing takes it back. Needs an owner's key.
    ///
    /// [`Error::UnlistedRoots`] if this program does not know the kind: it could never collect garbage again.
    pub fn admit_roots(self, kind: RootKind) -> Result<Self> {
        owner_key(&self.secrets)?;
        self.allow(Act::Change)?;
        if kind.known().is_none() {
            return Err(self.unlisted(kind));
        }
        let mut config = self.next_config()?;
        if !config.lists(kind.word()) {
            config.root_kinds.push(kind.word().to_owned());
            config.root_kinds.sort_unstable();
        }
        let sites = self.sites.clone();
        self.switch(config, sites)
    }

    fn unlisted(&self, kind: RootKind) -> Error {
        Error::UnlistedRoots {
            place: self.place().to_owned(),
            kind: kind.word().to_owned(),
        }
    }

    /// Makes a root visible; durable on return. `stored` is the run that stored what the root keeps alive. With [`RootState::Last`] it
    /// ends; with [`RootState::Open`] it stays registered, and [`Vault::ingest_on`] goes on with it.
    ///
    /// [`Error::UnlistedRoots`] unless the configuration lists the kind and this program knows it. After [`Error::GivenUp`] the run has
    /// to be repeated: while it was silent, gc may have deleted what it relied on.
    pub fn publish_root(&self, kind: RootKind, payload: &[u8], stored: &Finished, state: RootState) -> Result<RootId> {
        self.may_publish_kind(kind)?;
        self.publish_work(&Publication {
            kind,
            payload,
            state,
            work: &stored.work,
            index_part: stored.index_part(),
        })
    }

    /// [`Error::UnlistedRoots`] unless the configuration lists the kind and this program knows it.
    pub(crate) fn may_publish_kind(&self, kind: RootKind) -> Result<()> {
        if !self.is_listed(kind) || kind.known().is_none() {
            return Err(self.unlisted(kind));
        }
        Ok(())
    }

    /// Publishes a root that names work, and notes on this machine that it has seen the root.
    pub(crate) fn publish_work(&self, publication: &Publication<'_>) -> Result<RootId> {
        let (registration, number, hash) = publication.work.registration().publish(
            publication,
            &|| self.follow_config(),
            &mut Source(&*self.context.entropy),
        )?;
        // Whoever made it has seen it. That it cannot be written down makes the root no less durable; the next look does.
        let _ = self.note_own(&RootName {
            kind: publication.kind,
            registration,
            number,
            hash,
        });
        Ok(hash)
    }

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
