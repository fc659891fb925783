//! Recipe nodes: the first byte is the depth, the next eight what the node covers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[depth, a, b, c, d, e, f, g, h], node)) = data.split_first_chunk() else {
        return;
    };
    let bytes = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    if let Ok(parts) = drystone_format::recipe::decode_node(node, depth, bytes) {
        assert_eq!(parts.iter().map(|part| part.bytes()).sum::<u64>(), bytes);
    }
});
