//! Index parts and runs: any bytes, as objects, as a part inside a root, and as the tail of a run.
#![no_main]

use drystone_format::index_part::{Numbered, open_index_part, open_part};
use drystone_format::index_run::{IndexRun, RunDirectory, run_tail_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = drystone_fuzz::secrets();
    let of = Numbered {
        registration: [0xdd; 16],
        number: 3,
    };
    let _ = open_index_part(secrets, data);
    let _ = open_part(secrets, 1, &of, data);
    let _ = open_part(secrets, 1, &of, &drystone_fuzz::forge::part(secrets, &of, data));
    let _ = IndexRun::open(secrets, data);
    let size = data.len() as u64 + 8;
    let _ = (run_tail_bytes(data, size), RunDirectory::open(data, size, secrets));
    for run in drystone_fuzz::forge::runs(secrets, &of, data) {
        let _ = IndexRun::open(secrets, &run);
    }
});
