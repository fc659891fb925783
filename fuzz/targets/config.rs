//! Configurations and the marks that places bear: any bytes, as an object and as the sealed part of a configuration.
#![no_main]

use drystone_format::config::Config;
use drystone_format::notice::{NoticeKind, notice_version, seal_notice};
use drystone_format::places::PlaceMark;
use drystone_fuzz::forge::Constant;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (secrets, random) = (drystone_fuzz::secrets(), &mut Constant(5));
    let _ = Config::open(secrets, data);
    let _ = notice_version(secrets, NoticeKind::Config, data);
    let _ = PlaceMark::decode(data, &secrets.vault_verify);
    let Ok(forged) = seal_notice(secrets, NoticeKind::Config, data.to_vec(), random) else {
        return;
    };
    if let Ok(config) = Config::open(secrets, &forged)
        && let Ok(again) = config.seal(secrets, random)
    {
        assert_eq!(Config::open(secrets, &again).unwrap(), config);
    }
});
