//! Shards: shapes and ranges add up, and no altered, moved or foreign byte is taken for a shard's.

use drystone_format::keys::VerifyKey;
use drystone_format::limits::{PACK_MAX_BYTES, SHARD_BLOCK_BYTES, SHARD_MAX_BYTES};
use drystone_format::shard::{
    FOOTER_BYTES, Maker, Piece, Shape, ShardKeys, open_footer, open_shard, payload_bytes, seal_shard,
};
use drystone_format::{Error, PackId, Result};
use proptest::prelude::*;

use crate::fixture::{flips, secrets, stranger, writer};

const PACK: PackId = PackId([0x5a; 32]);
const TAG_BYTES: usize = 16;

fn keys() -> ShardKeys {
    ShardKeys::new(&secrets())
}

fn strangers() -> ShardKeys {
    ShardKeys::new(&stranger())
}

fn shape(pack_bytes: u64, needed: u8) -> Shape {
    Shape::new(PACK, pack_bytes, needed).unwrap()
}

fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Shard `number` of a pack of [`content`]; a parity shard holds column 0, which has its length.
fn sealed(shape: &Shape, number: u8) -> (Vec<u8>, Vec<u8>) {
    let pack = content(shape.pack_bytes());
    let columns = shape.columns(&pack).unwrap();
    let payload = columns.get(usize::from(number)).unwrap_or(&columns[0]).to_vec();
    let object = seal_shard(&keys(), shape, number, &payload).unwrap();
    (payload, object)
}

fn opens(shape: &Shape, number: u8, object: &[u8]) -> bool {
    match open_shard(&keys(), PACK, shape.needed(), number, object) {
        Ok(opened) => {
            opened.maker == keys().maker() && opened.shape == *shape && opened.payload == sealed(shape, number).0
        }
        Err(_) => false,
    }
}

#[test]
fn nothing_is_needed_twice_and_nothing_is_too_large() {
    let largest = shape(PACK_MAX_BYTES as u64, 1);
    assert!(largest.object_bytes(0) <= SHARD_MAX_BYTES as u64);
    assert_eq!(largest.object_bytes(0), largest.object_bytes(254));
    for (bytes, needed) in [(0, 1), (1, 0)] {
        assert!(matches!(Shape::new(PACK, bytes, needed), Err(Error::Malformed { .. })));
    }
    for bytes in [PACK_MAX_BYTES as u64 + 1, u64::MAX] {
        assert!(matches!(Shape::new(PACK, bytes, 3), Err(Error::Limit { .. })));
    }
    // Two columns of one byte make the pack: the third is empty, and its object only a footer.
    let tiny = shape(2, 3);
    assert_eq!([0, 1, 2, 3].map(|number| tiny.payload_bytes(number)), [1, 1, 0, 1]);
    assert_eq!(tiny.object_bytes(2), FOOTER_BYTES as u64);
    assert!(opens(&tiny, 2, &sealed(&tiny, 2).1));
    let wrong = [tiny.columns(&[0; 3]).map(drop), tiny.split(0..3).map(drop)];
    assert!(wrong.iter().all(Result::is_err));
    assert!(seal_shard(&keys(), &tiny, 2, &[0]).is_err());
    assert_eq!(
        tiny.split(1..2).unwrap(),
        [Piece {
            number: 1,
            start: 0,
            bytes: 1
        }]
    );
}

#[test]
fn the_same_key_for_every_credential_of_a_vault_and_no_other() {
    assert_eq!(writer().shard_key().expose(), secrets().shard_key().expose());
    assert_ne!(stranger().shard_key().expose(), secrets().shard_key().expose());
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for shape in [shape(300, 3), shape(2, 3)] {
        for number in 0..5 {
            let object = sealed(&shape, number).1;
            assert!(opens(&shape, number, &object));
            for (bit, damaged) in flips(&object) {
                assert!(open_shard(&keys(), PACK, 3, number, &damaged).is_err(), "bit {bit}");
            }
            for bytes in 0..object.len() {
                assert!(
                    open_shard(&keys(), PACK, 3, number, &object[..bytes]).is_err(),
                    "cut to {bytes}"
                );
                assert!(open_shard(&keys(), PACK, 3, number, &object[object.len() - bytes..]).is_err());
            }
            let longer = [&[0], object.as_slice()].concat();
            assert!(open_shard(&keys(), PACK, 3, number, &longer).is_err());
            assert!(open_shard(&keys(), PACK, 3, number, &[object.as_slice(), &[0]].concat()).is_err());
        }
    }
}

#[test]
fn a_block_is_taken_only_where_it_belongs() {
    let block = SHARD_BLOCK_BYTES + TAG_BYTES;
    let three = shape(2 * 3 * SHARD_BLOCK_BYTES as u64, 2);
    let object = sealed(&three, 0).1;
    let wanted = three.blocks(0, SHARD_BLOCK_BYTES as u64, 1);
    let open = |sealed: &[u8]| wanted.open(&keys(), sealed, &mut Vec::new());
    open(&object[block..][..block]).unwrap();
    let foreign = [
        object[..block].to_vec(),
        object[2 * block..][..block].to_vec(),
        sealed(&three, 2).1[block..][..block].to_vec(),
        sealed(&shape(three.pack_bytes() - 2, 2), 0).1[block..][..block].to_vec(),
        sealed(&shape(three.pack_bytes() * 3 / 2, 3), 0).1[block..][..block].to_vec(),
    ];
    for sealed in foreign {
        assert!(matches!(open(&sealed), Err(Error::Authentication { object: "shard" })));
    }
    let other = Shape::new(PackId([0x5b; 32]), three.pack_bytes(), 2).unwrap();
    assert!(
        other
            .blocks(0, 0, 1)
            .open(&keys(), &object[..block], &mut Vec::new())
            .is_err()
    );
    assert!(
        three
            .blocks(0, 0, 1)
            .open(&strangers(), &object[..block], &mut Vec::new())
            .is_err()
    );
}

#[test]
fn what_was_read_before_stays_and_nothing_is_added_that_does_not_authenticate() {
    let two = shape(SHARD_BLOCK_BYTES as u64 + 100, 1);
    let mut object = sealed(&two, 0).1;
    let (mut out, last) = (b"before".to_vec(), object.len() - FOOTER_BYTES - 1);
    object[last] ^= 1;
    let all = two.all_blocks(0);
    assert!(
        all.open(&keys(), &object[..all.sealed_bytes() as usize], &mut out)
            .is_err()
    );
    assert_eq!(out, b"before");
}

#[test]
fn a_footer_is_that_of_its_own_shard() {
    let own = shape(1000, 2);
    let object = sealed(&own, 1).1;
    let end = &object[object.len() - FOOTER_BYTES..];
    assert_eq!(open_footer(&keys(), PACK, 2, 1, end).unwrap(), own);
    assert_eq!(open_footer(&keys(), PACK, 2, 1, &object).unwrap(), own);
    let refused = |found: Result<Shape>| matches!(found, Err(Error::Authentication { object: "shard" }));
    assert!(refused(open_footer(&keys(), PACK, 2, 0, end)));
    assert!(refused(open_footer(&keys(), PACK, 3, 1, end)));
    assert!(refused(open_footer(&keys(), PackId([0; 32]), 2, 1, end)));
    assert!(refused(open_footer(&strangers(), PACK, 2, 1, end)));
    let changed = |at: usize, byte| {
        let mut end = end.to_vec();
        end[at] = byte;
        open_footer(&keys(), PACK, 2, 1, &end)
    };
    assert!(matches!(
        changed(FOOTER_BYTES - 1, 2),
        Err(Error::Version { found: 2, .. })
    ));
    assert!(matches!(
        changed(FOOTER_BYTES - 1, 0),
        Err(Error::Version { found: 0, .. })
    ));
    assert!(matches!(
        changed(FOOTER_BYTES - 2, 0),
        Err(Error::Magic { object: "shard" })
    ));
    // Certificate and signature are tagged as the rest is.
    for at in [0, 31, 32, 33, 96, 97, 160] {
        assert!(refused(changed(at, 0xee)), "{at}");
    }
    let length = FOOTER_BYTES - 32;
    assert!(matches!(
        changed(length, 0xff),
        Err(Error::Limit { object: "shard", .. })
    ));
    assert!(matches!(
        open_footer(&keys(), PACK, 2, 1, &end[1..]),
        Err(Error::Malformed { .. })
    ));
}

/// The content of a shard object, signed anew by `made_by`: what a credential can forge.
fn resealed(made_by: &ShardKeys, shape: &Shape, number: u8, object: &[u8]) -> Vec<u8> {
    let payload = open_shard(&keys(), shape.pack(), shape.needed(), number, object)
        .unwrap()
        .payload;
    seal_shard(made_by, shape, number, &payload).unwrap()
}

#[test]
fn a_maker_is_who_signed_and_counts_for_his_own_packs_or_as_an_owner() {
    let own = shape(40_000, 2);
    let object = sealed(&own, 1).1;
    let maker = |object: &[u8]| open_shard(&keys(), PACK, 2, 1, object).unwrap().maker;
    let (owner, other) = (secrets().certificate.writer, writer());
    assert_eq!(maker(&object), Maker::Owner(owner));
    let by_writer = resealed(&ShardKeys::new(&other), &own, 1, &object);
    assert_eq!(maker(&by_writer), Maker::Other(other.certificate.writer));
    let (signer, third) = (other.certificate.writer, VerifyKey([9; 32]));
    assert!(
        [None, Some(&signer), Some(&third)]
            .iter()
            .all(|of| Maker::Owner(owner).counts_for(*of))
    );
    assert!(Maker::Other(signer).counts_for(Some(&signer)) && Maker::Other(signer).counts_for(None));
    assert!(!Maker::Other(signer).counts_for(Some(&third)) && !Maker::Other(signer).counts_for(Some(&owner)));
    assert!(!Maker::Nobody.counts_for(None));
}

/// Whoever knows the key of the tags can put any certificate and signature into a footer.
#[test]
fn nobody_signed_what_carries_the_certificate_or_signature_of_another_object() {
    let own = shape(40_000, 2);
    let object = sealed(&own, 1).1;
    let made = |object: &[u8]| object[object.len() - FOOTER_BYTES..][..97 + 64].to_vec();
    // The tags of the footer, made with the key that a writer has.
    let with = |made: &[u8], object: &[u8]| {
        let mut object = object.to_vec();
        let (blocks, start) = (
            own.payload_bytes(1).div_ceil(SHARD_BLOCK_BYTES as u64),
            object.len() - FOOTER_BYTES,
        );
        object[start..][..made.len()].copy_from_slice(made);
        let mut hasher = blake3::Hasher::new_keyed(secrets().shard_key().expose());
        hasher.update(made).update(&[1]).update(&PACK.0).update(&[2, 1]);
        hasher
            .update(&own.pack_bytes().to_be_bytes())
            .update(&blocks.to_be_bytes());
        object[start + made.len() + 10..][..TAG_BYTES].copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
        object
    };
    let maker = |object: &[u8]| open_shard(&keys(), PACK, 2, 1, object).unwrap().maker;
    assert_eq!(with(&made(&object), &object), object);
    let mut other = open_shard(&keys(), PACK, 2, 1, &object).unwrap().payload;
    other[0] ^= 1;
    let other = seal_shard(&ShardKeys::new(&writer()), &own, 1, &other).unwrap();
    // An owner's signature of the sound shard does not fit the forged one, and no part of it another key's.
    assert_eq!(maker(&with(&made(&object), &other)), Maker::Nobody);
    let mixed = [&made(&object)[..97], &made(&other)[97..]].concat();
    assert_eq!(maker(&with(&mixed, &other)), Maker::Nobody);
    let promoted = [&made(&other)[..32], &[0], &made(&other)[33..]].concat();
    assert_eq!(maker(&with(&promoted, &other)), Maker::Nobody);
    let unknown = [&made(&other)[..32], &[77], &made(&other)[33..]].concat();
    assert_eq!(maker(&with(&unknown, &other)), Maker::Nobody);
    let foreign = seal_shard(&strangers(), &own, 1, &sealed(&own, 1).0).unwrap();
    assert_eq!(maker(&with(&made(&foreign), &object)), Maker::Nobody);
}

/// Lengths of packs around the borders of blocks and columns, and k.
fn shapes() -> impl Strategy<Value = Shape> {
    let blocks = prop_oneof![Just(0u64), Just(1), Just(2), Just(3)];
    (1u8..=8, blocks, 0u64..300, 1u8..=255).prop_map(|(needed, blocks, more, many)| match blocks {
        0 => shape(more + 1, many),
        _ => shape(
            (blocks * SHARD_BLOCK_BYTES as u64 * u64::from(needed) + more).saturating_sub(150),
            needed,
        ),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn shards_hold_the_pack(shape in shapes(), parity in 0u8..=3) {
        let pack = content(shape.pack_bytes());
        prop_assert_eq!(shape.columns(&pack).unwrap().concat(), pack);
        for number in [0, shape.needed() / 2, shape.needed() - 1, shape.needed().saturating_add(parity)] {
            let (payload, object) = sealed(&shape, number);
            prop_assert_eq!(object.len() as u64, shape.object_bytes(number));
            prop_assert_eq!(payload_bytes(object.len() as u64).unwrap(), shape.payload_bytes(number));
            let opened = open_shard(&keys(), PACK, shape.needed(), number, &object).unwrap();
            prop_assert_eq!((opened.shape, opened.payload, opened.maker), (shape, payload, keys().maker()));
        }
    }

    #[test]
    fn ranges_are_read_in_whole_blocks(shape in shapes(), ends in any::<[proptest::sample::Index; 2]>()) {
        let pack = content(shape.pack_bytes());
        let [one, other] = ends.map(|end| end.index(pack.len() + 1));
        let range = one.min(other) as u64..one.max(other) as u64;
        let mut found = Vec::new();
        for piece in shape.split(range.clone()).unwrap() {
            let blocks = shape.blocks(piece.number, piece.start, piece.bytes);
            prop_assert_eq!(blocks.payload_bytes(), piece.bytes);
            prop_assert!(piece.bytes > 0 && blocks.offset() <= piece.start + piece.start / 1024);
            prop_assert!(blocks.sealed_bytes() < piece.bytes + piece.bytes / 1024 + 2 * (SHARD_BLOCK_BYTES + TAG_BYTES) as u64);
            let object = sealed(&shape, piece.number).1;
            let sealed = &object[blocks.offset() as usize..][..blocks.sealed_bytes() as usize];
            blocks.open(&keys(), sealed, &mut found).unwrap();
        }
        prop_assert_eq!(&found, &pack[range.start as usize..range.end as usize]);
    }

    #[test]
    fn what_lies_beyond_a_payload_is_left_out(shape in shapes(), number: u8, start: u64, bytes: u64) {
        let blocks = shape.blocks(number, start, bytes);
        let payload = shape.payload_bytes(number);
        prop_assert_eq!(blocks.payload_bytes(), payload.saturating_sub(start).min(bytes));
        prop_assert!(blocks.offset() + blocks.sealed_bytes() <= shape.object_bytes(number));
        prop_assert!(blocks.open(&keys(), &[], &mut Vec::new()).is_ok() == (blocks.payload_bytes() == 0));
    }

    #[test]
    fn lengths_that_no_shard_has_are_refused(object_bytes in prop_oneof![any::<u64>(), 0u64..70_000]) {
        if let Ok(payload) = payload_bytes(object_bytes) {
            let blocks = payload.div_ceil(SHARD_BLOCK_BYTES as u64);
            prop_assert_eq!(u128::from(payload) + u128::from(blocks) * 16 + FOOTER_BYTES as u128, object_bytes.into());
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), needed: u8, number: u8, shape in shapes(), start: u64,
    ) {
        let ended = [&bytes, [needed, number].as_slice(), &start.to_be_bytes(), &[0; 16], b"DRYSHRD\x01"].concat();
        for bytes in [&bytes, &ended] {
            prop_assert!(open_footer(&keys(), PACK, needed, number, bytes).is_err());
            prop_assert!(open_shard(&keys(), PACK, needed, number, bytes).is_err());
            let mut out = Vec::new();
            let blocks = shape.blocks(number, start % 50_000, bytes.len() as u64);
            let taken = bytes.get(..blocks.sealed_bytes() as usize).unwrap_or(bytes);
            prop_assert!(blocks.open(&keys(), taken, &mut out).is_err() || blocks.payload_bytes() == 0);
            prop_assert!(out.is_empty());
        }
    }
}
