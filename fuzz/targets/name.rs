//! Names of objects: what is taken for a name is its own text, and stays below its directory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = drystone_store::Name::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(!text.starts_with('/') && text.split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
});
