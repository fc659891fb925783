//! Ledgers: any bytes, as an object and as the sealed part of one; what is read is read the same when written again.
#![no_main]

use drystone_format::ledger::{open_ledger, seal_ledger};
use drystone_format::notice::{NoticeKind, seal_notice};
use drystone_fuzz::forge::Constant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (secrets, random) = (drystone_fuzz::secrets(), &mut Constant(5));
    let sightings = |object: &[u8]| open_ledger(secrets, object).and_then(|opened| opened.sightings(secrets));
    let _ = sightings(data);
    let Ok(forged) = seal_notice(secrets, NoticeKind::Ledger, data.to_vec(), random) else {
        return;
    };
    if let Ok(opened) = open_ledger(secrets, &forged) {
        let times = opened.sightings(secrets).unwrap_or_default();
        let again = seal_ledger(secrets, &opened.ledger, &times, random).unwrap();
        assert_eq!(open_ledger(secrets, &again).unwrap().ledger, opened.ledger);
    }
});
