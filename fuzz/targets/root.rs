//! Roots: any bytes, as an object.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let kind = drystone_format::root::RootKind::Snapshot;
    let _ = drystone_format::root::open_root(drystone_fuzz::secrets(), kind, &drystone_fuzz::ROOT, data);
});
