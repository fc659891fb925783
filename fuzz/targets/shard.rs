//! Shards: hostile objects and blocks are refused, and every range of a sealed one is what was sealed.
#![no_main]

use drystone_format::PackId;
use drystone_format::shard::{FOOTER_BYTES, Shape, ShardKeys, open_footer, open_shard, payload_bytes, seal_shard};
use libfuzzer_sys::fuzz_target;

const PACK: PackId = PackId([0x5a; 32]);

fuzz_target!(|data: &[u8]| {
    let keys = ShardKeys::new(&drystone_fuzz::secrets());
    let Some((&[needed, number, a, b, c, d], rest)) = data.split_first_chunk() else {
        return;
    };
    // Nobody without the key can make a tag.
    assert!(open_shard(&keys, PACK, needed, number, rest).is_err());
    assert!(open_footer(&keys, PACK, needed, number, rest).is_err());
    let Ok(shape) = Shape::new(PACK, u32::from_be_bytes([a, b, c, d]).into(), needed) else {
        return;
    };
    let mut out = Vec::new();
    for start in [0, u64::from(a) << 8, u64::MAX] {
        let blocks = shape.blocks(number, start, rest.len() as u64);
        let opened = blocks.open(&keys, &rest[..rest.len().min(blocks.sealed_bytes() as usize)], &mut out);
        assert!(opened.is_err() || blocks.payload_bytes() == 0);
    }
    assert!(out.is_empty());
    assert!(shape.object_bytes(number) <= drystone_format::limits::SHARD_MAX_BYTES as u64);

    // One column of the pack, if it were as long as the rest of the input.
    let Ok(shape) = Shape::new(PACK, rest.len() as u64, 1) else {
        return;
    };
    let object = seal_shard(&keys, &shape, number, rest).unwrap();
    assert_eq!(payload_bytes(object.len() as u64).unwrap(), rest.len() as u64);
    assert_eq!(
        open_footer(&keys, PACK, 1, number, &object[object.len() - FOOTER_BYTES..]).unwrap(),
        shape
    );
    let opened = open_shard(&keys, PACK, 1, number, &object).unwrap();
    assert!(opened.payload == rest && opened.maker == keys.maker());
    let blocks = shape.blocks(
        number,
        u16::from_be_bytes([a, b]).into(),
        u16::from_be_bytes([c, d]).into(),
    );
    let sealed = &object[blocks.offset() as usize..][..blocks.sealed_bytes() as usize];
    blocks.open(&keys, sealed, &mut out).unwrap();
    let start = rest.len().min(u16::from_be_bytes([a, b]).into());
    assert_eq!(out, rest[start..][..blocks.payload_bytes() as usize]);
});
