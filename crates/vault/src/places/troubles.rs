//! What went wrong with the places of an open vault, for whoever tells people about it.

use drystone_store::spread::{Spread, Troubles};

use crate::vault::Vault;

/// Tells what went wrong with the places of one open vault. Lasts longer than the vault, if need be.
#[derive(Clone)]
pub struct PlaceWatch(Option<Spread>);

impl PlaceWatch {
    /// Returns what went wrong since the vault was opened. A vault that lies whole at one place has none: there every
    /// failure is an error.
    pub fn troubles(&self) -> Troubles {
        self.0.as_ref().map_or_else(Troubles::default, Spread::troubles)
    }
}

impl Vault {
    /// Returns a watch over the places of this vault.
    pub fn watch_places(&self) -> PlaceWatch {
        PlaceWatch(self.place.as_spread().cloned())
    }

    /// Returns what went wrong with its places since it was opened.
    pub fn troubles(&self) -> Troubles {
        self.watch_places().troubles()
    }
}
