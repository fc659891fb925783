//! Key slots: what decodes is encoded and decoded again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(slot) = drystone_format::slot::Slot::decode(data) {
        let again = slot
            .encode(drystone_fuzz::secrets().vault_key.as_ref().unwrap())
            .unwrap();
        assert_eq!(drystone_format::slot::Slot::decode(&again).unwrap(), slot);
    }
});
