//! Roots: any bytes, under the name that they would have.
#![no_main]

use drystone_format::RegistrationId;
use drystone_format::id::object_hash;
use drystone_format::root::{RootKind, RootName, open_root};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let name = RootName {
        kind: RootKind::SNAPSHOT,
        registration: RegistrationId([0xaa; 16]),
        number: 0,
        hash: object_hash(data),
    };
    let _ = open_root(drystone_fuzz::secrets(), &name, data);
});
