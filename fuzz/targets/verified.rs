//! Lists of verified packs: any bytes, as an object and as the sealed part of one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = drystone_fuzz::secrets();
    let _ = drystone_format::notice::open_verified(secrets, data);
    let _ = drystone_format::notice::open_verified(secrets, &drystone_fuzz::forge::verified(secrets, data));
});
