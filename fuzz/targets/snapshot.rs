//! Snapshots: what decodes is encoded and decoded again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(snapshot) = drystone_format::snapshot::Snapshot::decode(data) {
        let again = snapshot.encode();
        assert_eq!(drystone_format::snapshot::Snapshot::decode(&again).unwrap(), snapshot);
    }
});
