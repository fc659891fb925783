//! Lists of places and the marks that places bear: any bytes, as an object and as the sealed part of a list.
#![no_main]

use drystone_format::notice::{NoticeKind, seal_notice};
use drystone_format::places::{PlaceMark, Places};
use drystone_fuzz::forge::Constant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (secrets, random) = (drystone_fuzz::secrets(), &mut Constant(5));
    let _ = Places::open(secrets, data);
    let _ = PlaceMark::decode(data, &secrets.vault_verify);
    let Ok(forged) = seal_notice(secrets, NoticeKind::Places, data.to_vec(), random) else {
        return;
    };
    if let Ok(places) = Places::open(secrets, &forged)
        && let Ok(again) = places.seal(secrets, random)
    {
        assert_eq!(Places::open(secrets, &again).unwrap(), places);
    }
});
