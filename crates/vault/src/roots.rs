//! Roots at the place: listing them, finding one by its id, and verifying what it is.
//!
//! - People name a root by its hash; the name of the object has more, and is learned from listings.
//! - Kinds that the vault does not list count for nobody; what is under them is reported, and stops nothing.

pub(crate) mod candidates;
pub(crate) mod kinds;
pub mod latest;
pub mod ledger;
pub(crate) mod ledgers;
pub(crate) mod names;
pub mod order;
pub(crate) mod publish;
pub(crate) mod resolve;
pub mod retention;
pub(crate) mod root_cache;
pub(crate) mod sightings;
pub(crate) mod snapshots;
pub(crate) mod stating;

use drystone_format::keys::{Certificate, Secrets};
use drystone_format::presence::Presence;
use drystone_format::root::{RootKind, RootName, SignedRoot, doubles, verify_root};
use drystone_format::snapshot::Snapshot;
use drystone_format::{RegistrationId, RootId};
use drystone_store::{Kind, Listed, Name, Prefix, Range};

use crate::base::Base;
use crate::error::damage::{COUNTS_FOR_NOBODY, counts_for_nobody};
use crate::error::{Error, Result};
use crate::places::place::Place;
use crate::problem::Problems;
use crate::roots::root_cache::RootCache;

/// Reads a root that a list has just shown: from the cache if it is there, else from the place.
pub(crate) fn listed_root(
    place: &Place,
    secrets: &Secrets,
    cache: Option<&RootCache>,
    root: &RootName,
) -> Result<SignedRoot> {
    if let Some(cache) = cache
        && let Some(kept) = cache.get(root)
    {
        match verify_root(secrets, root, &kept) {
            Ok(signed) => return Ok(signed),
            Err(_) => cache.remove(root),
        }
    }
    let name = Name::root(root);
    let object = place.get(&name, Range::All)?;
    let signed = verify_root(secrets, root, &object).map_err(place.damaged(&name))?;
    if let Some(cache) = cache {
        cache.put(root, &object);
    }
    Ok(signed)
}

/// Where roots are read that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootSource {
    /// On this machine, if it has read them before: for whoever looks at what they say.
    Cache,
    /// At the place, in any case: for whoever looks whether they are sound there, or decides what can be spared.
    Place,
}

impl Base {
    /// The names of all roots under `prefix`, in their order; those that count and those that do not.
    pub(crate) fn root_names(&self, prefix: &Prefix) -> Result<Vec<RootName>> {
        let mut names = Vec::new();
        self.place.for_each(prefix, |listed| collect(&mut names, &listed))?;
        self.root_names.learn(&names);
        Ok(names)
    }

    /// The same; each of them is at enough places from then on for everybody else to list it too.
    pub(crate) fn confirmed_root_names(&self, prefix: &Prefix) -> Result<Vec<RootName>> {
        let mut names = Vec::new();
        self.place
            .for_each_confirmed(prefix, |listed| collect(&mut names, &listed))?;
        self.root_names.learn(&names);
        Ok(names)
    }

    /// The names that this hash was listed under; lists again if it is unknown. Empty if it is not there.
    pub(crate) fn names_of(&self, id: &RootId) -> Result<Vec<RootName>> {
        let known = self.root_names.get(id);
        if !known.is_empty() {
            return Ok(known);
        }
        self.root_names(&Prefix::AllRoots)?;
        Ok(self.root_names.get(id))
    }

    /// Reads a root and checks that its writer has signed it; what it says may stay sealed.
    pub(crate) fn signed_root(&self, root: &RootName) -> Result<SignedRoot> {
        let name = Name::root(root);
        let object = self.place.get(&name, Range::All)?;
        verify_root(&self.secrets, root, &object).map_err(self.place.damaged(&name))
    }

    /// Reads a root that a list has just shown, as [`signed_root`](Self::signed_root) does, from this machine if it was read before.
    /// That its place has it still, and sound, is not looked at.
    pub(crate) fn listed_root(&self, root: &RootName) -> Result<SignedRoot> {
        listed_root(&self.place, &self.secrets, self.root_cache.as_deref(), root)
    }

    /// Reads a root that a list has just shown, from where it is to be read.
    pub(crate) fn root_from(&self, source: RootSource, root: &RootName) -> Result<SignedRoot> {
        match source {
            RootSource::Cache => self.listed_root(root),
            RootSource::Place => self.signed_root(root),
        }
    }

    /// What a snapshot's root says.
    pub(crate) fn opened_snapshot(&self, root: &SignedRoot) -> Result<Snapshot> {
        Snapshot::decode(&self.payload_of(root)?).map_err(self.place.damaged(&Name::root(&root.name)))
    }

    /// Reports roots that count for nobody: of kinds that are not in use in this vault, or of removed keys, which `revoked` are; and
    /// ledgers that count for nobody, and configurations that are missing.
    pub(crate) fn check_roots(&self, revoked: &[RootName], problems: &mut Problems) -> Result<()> {
        for root in self.root_names(&Prefix::AllRoots)? {
            if !self.is_listed(root.kind) {
                problems.push(Name::root(&root).as_str(), UNLISTED);
            }
        }
        for root in revoked {
            problems.push(Name::root(root).as_str(), REVOKED);
        }
        let (forged, _) = self.ledgers.problems();
        problems.append(forged);
        problems.append(self.missing_configs()?);
        Ok(())
    }

    /// Reads a presence and checks that it is that of its name, signed by the writer.
    pub(crate) fn signed_presence(
        &self,
        name: &Name,
        says: (&RegistrationId, u64, &RootId),
    ) -> Result<(Presence, Certificate)> {
        let object = self.place.get(name, Range::All)?;
        Presence::verify(&self.secrets, says, &object).map_err(self.place.damaged(name))
    }

    /// Reports presences that are damaged, or not signed by the writer that they name.
    pub(crate) fn check_presences(&self, problems: &mut Problems) -> Result<()> {
        for name in self.place.names(&Prefix::Writers)? {
            let Kind::Writer(id, beat, hash) = name.kind() else {
                continue;
            };
            match self.signed_presence(&name, (&id, beat, &hash)) {
                Ok(_) => {}
                Err(Error::Store(error)) if error.is_not_found() => {}
                Err(error) if counts_for_nobody(&error) => {
                    problems.push(name.as_str(), format!("{error}; {COUNTS_FOR_NOBODY}"));
                }
                Err(error) if error.is_damage() => problems.push(name.as_str(), error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A snapshot and who signed it.
    pub(crate) fn signed_snapshot(&self, id: &RootId) -> Result<(Snapshot, Certificate)> {
        let names = self.names_of(id)?;
        let mut failure = None;
        for name in names.iter().filter(|name| name.kind == RootKind::SNAPSHOT) {
            let read = self.listed_root(name);
            match read.and_then(|root| Ok((self.opened_snapshot(&root)?, root.certificate))) {
                Ok(found) => return Ok(found),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::Store(drystone_store::Error::NotFound {
                name: format!("{}{id}", Prefix::Roots(RootKind::SNAPSHOT)),
                place: self.place().to_owned(),
            })
        }))
    }
}

/// What is said of roots that a removed key has signed and that no ledger states.
pub(crate) const REVOKED: &str = "the key that signed it was removed, and no owner has stated this root: it counts for nobody; remove it from the place";

/// What is said of roots of kinds that the vault does not list.
pub(crate) const UNLISTED: &str = "roots of this kind are not in use in this vault: it counts for nobody; remove it from the place if you do not know it";

/// Says which of these roots, all of them signed by their writers, have a number of their registration twice.
pub(crate) fn report_doubles(roots: impl IntoIterator<Item = RootName>, problems: &mut Problems) {
    for root in doubles(roots) {
        problems.push(
            Name::root(&root).as_str(),
            "another root has the same registration and number: this writer's key was used twice, perhaps by somebody who \
             has copied it; both count",
        );
    }
}

fn collect(names: &mut Vec<RootName>, listed: &Listed) -> Result<()> {
    if let Kind::Root(name) = listed.name.kind() {
        names.push(name);
    }
    Ok(())
}
