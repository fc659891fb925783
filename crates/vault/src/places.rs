//! Where a vault lies: opening it, reaching all its places, and the configuration that names them.

pub(crate) mod allow;
pub(crate) mod change;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod features;
pub(crate) mod judge;
pub(crate) mod known;
pub(crate) mod left;
pub(crate) mod marks;
pub(crate) mod open;
pub(crate) mod pin;
pub(crate) mod place;
pub(crate) mod reach;
pub(crate) mod site;
pub(crate) mod troubles;
