//! Publishing roots of any kind, and admitting a kind.

use drystone_format::RootId;
use drystone_format::root::{RootKind, RootName, RootState};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::registration::Publication;
use crate::keyring::owner_key;
use crate::places::allow::Act;
use crate::vault::Vault;
use crate::writing::ingest::Finished;

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
}
