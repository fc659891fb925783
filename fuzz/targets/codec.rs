//! Payloads of frames: the first byte chooses the codec, the next three promise a length.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[codec, a, b, c], payload)) = data.split_first_chunk() else {
        return;
    };
    let codec = drystone_format::codec::CODECS[usize::from(codec % 6)];
    let promised = u32::from_be_bytes([0, a, b, c]) as usize;
    if let Ok(plaintext) = drystone_format::codec::decompress(codec, payload, promised) {
        assert_eq!(plaintext.len(), promised);
    }
});
