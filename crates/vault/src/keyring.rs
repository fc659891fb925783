//! Keys: what unlocks a vault, and who has a slot.

pub(crate) mod keys;
pub(crate) mod slots;
