//! What a pack ends in, and what it is called in errors. Layout: docs/format.md, "Pack".
//!
//! - A pack ends in its sealed trailer, its preamble and a footer.

use crate::ending::Ending;
use crate::limits::{PACK_MAX_BYTES, PACK_TAIL_MAX_BYTES};

pub(super) const OBJECT: &str = "pack";
pub(super) const MAGIC: &[u8; 7] = b"DRYPACK";
pub(super) const ENDING: Ending = Ending {
    object: OBJECT,
    whole: "pack",
    magic: MAGIC,
    domain: b"drystone pack v1",
    max_bytes: PACK_MAX_BYTES,
    tail_max_bytes: PACK_TAIL_MAX_BYTES,
};
