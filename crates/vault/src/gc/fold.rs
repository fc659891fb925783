//! Folding: small packs that become fewer, larger ones. A handle that commits for months leaves a small pack with each commit.
//!
//! - Only packs far from full are folded, so a chunk is copied a few times at most, until it lies in a large pack.
//! - Nothing is folded unless the copies are fewer packs than their sources.

use std::collections::BTreeSet;

use drystone_format::PackId;
use drystone_format::limits::{PACK_BYTES, PACK_MIXED_BYTES};
use drystone_format::seal::PackKind;

use crate::catalog::pack_kind;
use crate::gc::reserve::Room;
use crate::gc::run::Run;
use crate::gc::sweep::{Use, Uses};

/// Packs of more bytes than this are large enough to stay.
const SMALL_BYTES: u64 = PACK_BYTES as u64 / 2;
/// Fewer small packs than this are not worth a run: a backup leaves one or two.
const FOLDED_MIN: usize = 3;

/// A pack that may be folded.
#[derive(Debug, Clone, Copy)]
struct Small {
    pack: PackId,
    bytes: u64,
    kind: PackKind,
}

/// Returns true if a pack of so many bytes is small.
fn is_small(pack_bytes: u64) -> bool {
    pack_bytes < SMALL_BYTES
}

/// The packs to fold out of these small ones: all of them, or none.
fn folded(small: &[Small]) -> &[Small] {
    if small.len() >= FOLDED_MIN && small.len() as u64 > copies(small) {
        small
    } else {
        &[]
    }
}

/// How many packs their content fills, at most.
fn copies(small: &[Small]) -> u64 {
    let bytes = |is_meant: &dyn Fn(PackKind) -> bool| -> u64 {
        let meant = small.iter().filter(|pack| is_meant(pack.kind));
        meant.map(|pack| pack.bytes).sum()
    };
    if bytes(&|_| true) <= PACK_MIXED_BYTES as u64 {
        return 1;
    }
    // What a mixed pack holds goes to packs of both kinds.
    let packs = |is_meant: &dyn Fn(PackKind) -> bool| bytes(is_meant).div_ceil(PACK_BYTES as u64);
    packs(&|kind| kind != PackKind::Meta) + packs(&|kind| kind != PackKind::Data)
}

impl Run<'_> {
    /// Small packs that become fewer by copying what is live in them, if copying is possible and frees anything.
    pub(super) fn foldable(&self, uses: &Uses) -> BTreeSet<PackId> {
        if self.is_partial || self.room == Room::Little || !self.vault.place.removes() {
            return BTreeSet::new();
        }
        let is_meant = |found: &&Use| {
            found.is_trusted()
                && found.live_bytes > 0
                && is_small(found.info.pack_bytes)
                && !self.may_be_unpublished(&found.info)
        };
        let small = uses.values().filter(is_meant).filter_map(|found| {
            Some(Small {
                pack: found.info.pack,
                bytes: found.info.pack_bytes,
                kind: pack_kind(&found.info)?,
            })
        });
        let small: Vec<Small> = small.collect();
        folded(&small).iter().map(|small| small.pack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(count: usize, bytes: u64, kind: PackKind) -> Vec<Small> {
        let pack = PackId([0; 32]);
        vec![Small { pack, bytes, kind }; count]
    }

    #[test]
    fn many_small_packs_are_folded_and_few_are_left_alone() {
        const KIB: u64 = 1 << 10;
        for (packs, is_worth_it) in [
            (small(0, 0, PackKind::Mixed), false),
            (small(2, 64 * KIB, PackKind::Mixed), false),
            (small(3, 64 * KIB, PackKind::Mixed), true),
            (small(1000, 64 * KIB, PackKind::Mixed), true),
            // Two packs of each kind become one of each.
            (
                [
                    small(2, 4096 * KIB, PackKind::Data),
                    small(2, 4096 * KIB, PackKind::Meta),
                ]
                .concat(),
                true,
            ),
            (
                [
                    small(1, 7000 * KIB, PackKind::Data),
                    small(1, 7000 * KIB, PackKind::Meta),
                ]
                .concat(),
                false,
            ),
            (
                [
                    small(1, 7000 * KIB, PackKind::Mixed),
                    small(1, 7000 * KIB, PackKind::Data),
                ]
                .concat(),
                false,
            ),
            (small(3, 8000 * KIB, PackKind::Data), true),
        ] {
            assert_eq!(!folded(&packs).is_empty(), is_worth_it, "{packs:?}");
        }
        assert!(is_small(SMALL_BYTES - 1) && !is_small(SMALL_BYTES));
    }
}
