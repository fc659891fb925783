//! Trailers of packs: any bytes, rightly sealed and signed; frames lie within the pack.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = drystone_fuzz::secrets();
    let frames_bytes = data.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let (tail, pack_bytes) =
        drystone_fuzz::forge::tail(secrets, data.get(2..).unwrap_or_default(), frames_bytes.into());
    if let Ok(tail) = drystone_format::pack::Tail::open(&tail, pack_bytes, secrets) {
        let end = tail.frames.last().map_or(8, |frame| frame.offset + frame.bytes);
        assert_eq!(end, 8 + u32::from(frames_bytes));
    }
});
