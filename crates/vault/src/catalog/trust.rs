//! Which packs new snapshots may rely on: those of owners and of this client, and what an owner has verified.
//!
//! - A pack that is damaged, condemned, or signed by a removed key that no owner vouches for, is read and never relied on.

use drystone_format::PackId;
use drystone_format::config::Trust;
use drystone_format::notice::open_verified;
use drystone_index::PackInfo;
use drystone_store::{Name, Prefix, Range};

use super::{BY_OWNER, Catalog};
use crate::error::Result;
use crate::problem::Problems;

impl Catalog {
    /// Which packs of other writers an owner has verified; asked only where it matters.
    pub(super) fn load_verified(&self) -> Result<()> {
        let own = self.secrets.certificate.writer.0;
        let foreign = |pack: &PackInfo| !is_by_owner(pack) && pack.writer != own;
        if self.trust == Trust::Everyone || !self.index.packs()?.iter().any(foreign) {
            return Ok(());
        }
        let names = self.place.names(&Prefix::Verified)?;
        self.bad_lists.lock().clear();
        for name in names {
            let list = self.place.get(&name, Range::All);
            match list.and_then(|list| open_verified(&self.secrets, &list).map_err(self.place.damaged(&name))) {
                Ok(packs) => self.verified.write().extend(packs),
                Err(error) if error.is_absence() => return Err(error),
                Err(error) if error.is_damage() => self.bad_lists.lock().push((name, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a new snapshot may rely on what this pack holds.
    pub(crate) fn is_reliable(&self, pack: &PackInfo) -> bool {
        let is_trusted =
            self.trust == Trust::Everyone || is_by_owner(pack) || pack.writer == self.secrets.certificate.writer.0;
        let trusted = is_trusted && !self.revoked.contains(&pack.writer) || self.verified.read().contains(&pack.pack);
        trusted && !self.losses.is_damaged(&pack.pack) && !self.is_condemned(&pack.pack)
    }

    /// Packs that an owner has to vouch for before others rely on them, and has not.
    pub(crate) fn is_unverified(&self, pack: &PackInfo) -> bool {
        self.trust != Trust::Everyone && !is_by_owner(pack) && !self.verified.read().contains(&pack.pack)
    }

    /// Returns true if an owner has read the pack and says that it is what it claims.
    pub(crate) fn is_vouched_for(&self, pack: &PackId) -> bool {
        self.verified.read().contains(pack)
    }

    /// An owner's list with these packs is published.
    pub(crate) fn add_verified(&self, packs: &[PackId]) {
        self.verified.write().extend(packs);
    }

    /// Lists of verified packs that could not be read.
    pub(crate) fn bad_lists(&self) -> Problems {
        let mut problems = Problems::default();
        for (name, what) in self.bad_lists.lock().iter() {
            problems.push(name.as_str(), format!("{what}; a full `drystone scrub` replaces it"));
        }
        problems
    }

    /// The same, and forgets them: whoever asks has published better ones.
    pub(crate) fn take_bad_lists(&self) -> Vec<Name> {
        let lists = std::mem::take(&mut *self.bad_lists.lock());
        lists.into_iter().map(|(name, _)| name).collect()
    }
}

fn is_by_owner(pack: &PackInfo) -> bool {
    pack.kind & BY_OWNER != 0
}
