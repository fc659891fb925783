//! The end of a pack as it is found: footer and preamble.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = drystone_fuzz::secrets();
    let _ = drystone_format::pack::tail_bytes(data, data.len() as u64);
    let _ = drystone_format::pack::Tail::open(data, data.len() as u64 + 8, secrets);
    if let Ok(preamble) = drystone_format::pack::Preamble::from_end(data) {
        let _ = preamble.frame_sealer(secrets);
    }
});
