//! What is wrong with a vault, and mending it.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod repair;
pub(crate) mod scrub;
pub(crate) mod stats;
