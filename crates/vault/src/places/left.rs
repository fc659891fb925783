//! Following the configuration: is what a run was opened with still so when it registers, and after it has published?
//!
//! - An owner who changes the configuration puts an epoch after it, and then lists what counts or has to be moved. A run publishes, looks at the
//!   epochs, and at the configuration if it does not know one of them. So either the run sees the change before it reports a root, or the
//!   owner sees the root. The model of gc checks it (tests/it/gc_model/lasting.rs).

use drystone_format::PlaceId;
use drystone_format::config::Config;
use drystone_format::places::{PlaceEntry, PlaceMarks};
use drystone_store::{Kind, Name, Prefix};

use crate::error::{Error, Result};
use crate::places::config::Found;
use crate::vault::Vault;

/// A place where a run may have stored.
struct Used<'a> {
    /// Its identity; a vault at one place has none.
    id: Option<PlaceId>,
    url: &'a str,
}

impl Used<'_> {
    /// Returns true if it is a place of this configuration, and does not leave.
    fn stays_in(&self, config: &Config) -> bool {
        let stays = |entry: &PlaceEntry| {
            let is_it = self.id.map_or(entry.url == self.url, |id| entry.id == id);
            is_it && !entry.marks.has(PlaceMarks::LEAVING)
        };
        config.places.is_empty() || config.places.iter().any(stays)
    }
}

impl Vault {
    /// Returns true if an owner has changed the configuration since the vault was opened.
    pub(crate) fn has_new_config(&self) -> Result<bool> {
        let is_new = |name: &Name| matches!(name.kind(), Kind::Config(_, hash) if !self.standing().knows(&hash));
        Ok(self.place.names(&Prefix::Config)?.iter().any(is_new))
    }

    /// Follows what an owner has changed since the vault was opened, as far as an open vault can: it learns new key epochs.
    ///
    /// [`Error::KeyRemoved`] if this key was removed. [`Error::PlacesMoved`] if a place was taken out: what was stored there may be lost with it.
    pub(crate) fn follow_config(&self) -> Result<()> {
        if !self.has_new_config()? {
            return Ok(());
        }
        // A removed key changes the configuration too: what is sealed from now on is sealed in the key epoch that is in force.
        self.refresh_keys()?;
        let mut found = Found::default();
        found.read(&self.place, &self.secrets)?;
        let Some(now) = found.in_force() else { return Ok(()) };
        let own = self.secrets.certificate.writer;
        if now.signed.config.removed.iter().any(|removed| removed.writer == own) {
            return Err(Error::KeyRemoved {
                place: self.place().to_owned(),
            });
        }
        let configs = || {
            std::iter::once(&now.signed)
                .chain(&now.rivals)
                .map(|signed| &signed.config)
        };
        match self
            .used()
            .iter()
            .find(|used| !configs().all(|config| used.stays_in(config)))
        {
            None => Ok(()),
            Some(used) => Err(Error::PlacesMoved {
                place: used.url.to_owned(),
            }),
        }
    }

    /// The places that this vault stores at, as it was opened.
    fn used(&self) -> Vec<Used<'_>> {
        if self.places().is_empty() {
            return vec![Used {
                id: None,
                url: self.place(),
            }];
        }
        let taking = self
            .places()
            .iter()
            .filter(|entry| !entry.marks.has(PlaceMarks::LEAVING));
        let used = taking.map(|entry| Used {
            id: Some(entry.id),
            url: &entry.url,
        });
        used.collect()
    }
}
