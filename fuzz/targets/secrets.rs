//! Secrets: what decodes is encoded and decoded again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(secrets) = drystone_format::keys::Secrets::decode(data) {
        let again = secrets.encode();
        assert_eq!(drystone_format::keys::Secrets::decode(&again).unwrap().encode(), again);
    }
});
