//! Presences of runs, which nobody signs: what decodes is encoded and decoded again to the same.
#![no_main]

use drystone_format::presence::Presence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(presence) = Presence::decode(data) {
        assert_eq!(Presence::decode(&presence.encode()).unwrap(), presence);
    }
});
