//! Tree streams: names are safe and ascend, entries are encoded and decoded again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut decoder, mut previous) = (drystone_format::tree::TreeDecoder::default(), Vec::new());
    decoder.feed(data);
    while let Ok(Some(entry)) = decoder.next_entry() {
        assert!(entry.name > previous && drystone_format::tree::is_name(&entry.name));
        assert_eq!(drystone_format::tree::Entry::decode(&entry.encode()).unwrap(), entry);
        previous = entry.name;
    }
    let _ = decoder.finish();
});
