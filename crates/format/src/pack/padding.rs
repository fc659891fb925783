//! How long packs and their trailers become, so that what a place sees says little about what they hold.
//! Rule: docs/format.md, "Pack"; reasons: docs/decisions/0013-pack-sizes.md.
//!
//! - A pack up to 1 MiB has a power of two of bytes, at least 64 KiB; a larger one a multiple of 64 KiB.
//! - A sealed trailer has a power of two of bytes, at least a thirty-second of the pack's size class (of 1 MiB in larger packs).
//! - Readers depend on none of this: a frame without chunks, zeros after a trailer, and any length of either are accepted.

use crate::limits::{PACK_STEP_BYTES, PACK_STEPS_FROM_BYTES};
use crate::seal::PADDING_MIN_BYTES;

/// A trailer has at least this share of the pack.
const TRAILER_SHARE: usize = 32;

/// Lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Padded {
    /// Length of the whole pack.
    pub(super) pack: usize,
    /// Length of the sealed trailer.
    pub(super) trailer: usize,
}

/// The size class of a pack with `rest` bytes beside its trailer and its last frame, and with a sealed trailer of at
/// least `trailer` bytes.
pub(super) fn padded(rest: usize, trailer: usize) -> Padded {
    let with = |trailer: usize| rest + PADDING_MIN_BYTES + trailer;
    let mut pack = class(with(trailer));
    loop {
        let share = pack.min(PACK_STEPS_FROM_BYTES) / TRAILER_SHARE;
        let trailer = trailer.next_power_of_two().max(share);
        match class(with(trailer)) {
            fits if fits <= pack => return Padded { pack, trailer },
            larger => pack = larger,
        }
    }
}

/// The least size of a pack that holds `bytes`.
fn class(bytes: usize) -> usize {
    if bytes <= PACK_STEPS_FROM_BYTES {
        bytes.next_power_of_two().max(PACK_STEP_BYTES)
    } else {
        bytes.next_multiple_of(PACK_STEP_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_size_class_alone_decides(rest in 0usize..8 << 20, trailer in 16usize..256 << 10) {
            let Padded { pack, trailer: sealed } = padded(rest, trailer);
            prop_assert!(rest + PADDING_MIN_BYTES + sealed <= pack && trailer <= sealed);
            prop_assert!(sealed.is_power_of_two());
            let is_step = pack % (64 << 10) == 0;
            prop_assert!(is_step && (pack > 1 << 20 || pack.is_power_of_two()));
            prop_assert!(pack >= 64 << 10);
            // Never a class more than is needed.
            prop_assert!(pack == 64 << 10 || class(rest + PADDING_MIN_BYTES + sealed) == pack);
        }
    }

    #[test]
    fn classes_are_those_of_the_document() {
        for (rest, trailer, pack, sealed) in [
            (400, 60, 64 << 10, 2 << 10),
            (63 << 10, 60, 128 << 10, 4 << 10),
            (200_000, 2000, 256 << 10, 8 << 10),
            (1_010_000, 20_000, 1 << 20, 32 << 10),
            (1_020_000, 20_000, 17 << 16, 32 << 10),
            (16 << 20, 25_000, (16 << 20) + (64 << 10), 32 << 10),
            (16 << 20, 70_000, (16 << 20) + (192 << 10), 128 << 10),
        ] {
            assert_eq!(
                padded(rest, trailer),
                Padded { pack, trailer: sealed },
                "{rest} {trailer}"
            );
        }
    }
}
