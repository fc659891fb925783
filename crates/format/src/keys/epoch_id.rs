//! Ids of key epochs: a number that people count, then 32 random bits. Rule: docs/format.md, "Keys".
//!
//! - Two owners who cannot see each other may both start the epoch of one number: their ids differ all the same.

/// Returns the number in the id of a key epoch, as people count them.
pub fn epoch_number(id: u64) -> u32 {
    (id >> 32) as u32
}

/// The id of the key epoch with this number and these random bits.
pub(crate) fn epoch_id(number: u32, chance: [u8; 4]) -> u64 {
    u64::from(number) << 32 | u64::from(u32::from_be_bytes(chance))
}
