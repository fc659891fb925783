//! Epochs of gc: any bytes, as an object and as the sealed part of one; what is read is read the same when written again.
#![no_main]

use drystone_format::epoch::{open_epoch, seal_epoch};
use drystone_format::notice::{NoticeKind, seal_notice};
use drystone_fuzz::forge::Constant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (secrets, random) = (drystone_fuzz::secrets(), &mut Constant(5));
    let _ = open_epoch(secrets, data);
    let Ok(forged) = seal_notice(secrets, NoticeKind::Epoch, data.to_vec(), random) else {
        return;
    };
    if let Ok(epoch) = open_epoch(secrets, &forged) {
        let again = seal_epoch(secrets, &epoch, random).unwrap();
        assert_eq!(open_epoch(secrets, &again).unwrap(), epoch);
    }
});
