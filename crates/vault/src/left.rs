//! Whether the places where a run has stored are still places of the vault when it publishes.
//!
//! - A place that is taken out is marked as leaving before anything of it is listed and moved. So a run either sees the mark before it
//!   publishes, or all that it has stored there was durable before the mark, and is moved.

use drystone_format::PlaceId;
use drystone_format::config::Config;
use drystone_format::places::{PlaceEntry, PlaceMarks};
use drystone_store::{Kind, Name, Prefix};

use crate::config::Found;
use crate::error::{Error, Result};
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
    /// Whether an owner has changed the configuration since the vault was opened.
    pub(crate) fn has_new_config(&self) -> Result<bool> {
        let is_new = |name: &Name| matches!(name.kind(), Kind::Config(_, hash) if !self.standing().knows(&hash));
        Ok(self.place.names(&Prefix::Config)?.iter().any(is_new))
    }

    /// [`Error::PlacesMoved`] if an owner has taken out a place since the vault was opened: what was stored there may be lost with it.
    pub(crate) fn refuse_left_places(&self) -> Result<()> {
        let mut found = Found::default();
        found.read(&self.place, &self.secrets)?;
        let Some(now) = found.in_force() else { return Ok(()) };
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
