//! Epochs of gc are an owner's word; presences are anybody's, and small whatever they claim.

use std::collections::BTreeSet;

use drystone_format::epoch::{Epoch, open_epoch, seal_epoch};
use drystone_format::limits::{HEADER_MAX_BYTES, PRESENCE_EPOCHS_MAX};
use drystone_format::notice::{NoticeKind, open_verified, seal_notice};
use drystone_format::presence::Presence;
use drystone_format::{Error, PackId, RootId};
use proptest::prelude::*;

use crate::fixture::{Counting, secrets, stranger, unhex, writer};

fn epoch() -> Epoch {
    Epoch {
        packs: [PackId([2; 32]), PackId([1; 32])].into(),
        roots: [RootId([3; 16])].into(),
        fenced: [RootId([4; 16]), RootId([5; 16])].into(),
    }
}

#[test]
fn epochs_are_an_owners_word_for_everybody() {
    let object = seal_epoch(&secrets(), &epoch(), &mut Counting::default()).unwrap();
    for reader in [secrets(), writer()] {
        assert_eq!(open_epoch(&reader, &object).unwrap(), epoch());
    }
    assert!(matches!(open_epoch(&stranger(), &object), Err(Error::Signature { .. })));
    assert!(matches!(open_verified(&secrets(), &object), Err(Error::Magic { .. })));
    let by_writer = seal_epoch(&writer(), &epoch(), &mut Counting::default()).unwrap();
    assert!(matches!(
        open_epoch(&secrets(), &by_writer),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn epochs_are_read_with_limits_and_in_order() {
    let open = |payload: &str| {
        let payload = unhex(payload);
        let object = seal_notice(&secrets(), NoticeKind::Epoch, payload, &mut Counting::default()).unwrap();
        open_epoch(&secrets(), &object)
    };
    let id = |byte: &str| format!("50 {}", byte.repeat(16));
    assert_eq!(open("a0").unwrap(), Epoch::default());
    assert_eq!(
        open(&format!("a1 01 82 {} {}", id("01"), id("02")))
            .unwrap()
            .roots
            .len(),
        2
    );
    assert_eq!(
        open("a1 18 63 80").unwrap(),
        Epoch::default(),
        "a key of a later format"
    );
    for bad in [
        format!("a1 01 82 {} {}", id("02"), id("01")),
        format!("a1 01 82 {} {}", id("01"), id("01")),
        "a1 01 9b ffffffffffffffff".to_owned(),
        "a1 00 81 41 07".to_owned(),
        "a1 02 81".to_owned(),
        "a0 00".to_owned(),
    ] {
        assert!(open(&bad).is_err(), "{bad}");
    }
}

#[test]
fn presences_name_the_latest_epochs_and_stay_small() {
    let of = |count: u64| Presence {
        writer: secrets().certificate.writer,
        seen: (0..count).map(|number| (number, RootId([9; 16]))).collect(),
    };
    for count in [0, 1, 4096] {
        assert_eq!(Presence::decode(&of(count).encode()).unwrap(), of(count));
    }
    let object = of(5000).encode();
    assert!(object.len() < HEADER_MAX_BYTES);
    let latest: BTreeSet<u64> = Presence::decode(&object)
        .unwrap()
        .seen
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(latest.len(), PRESENCE_EPOCHS_MAX);
    assert_eq!(latest.last(), Some(&4999));
    for length in 0..object.len().min(200) {
        assert!(Presence::decode(&object[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let object = [b"DRYWRIT\x01".as_slice(), &bytes].concat();
        let _ = (Presence::decode(&bytes), Presence::decode(&object));
        let payload = seal_notice(&secrets(), NoticeKind::Epoch, bytes, &mut Counting::default());
        let _ = payload.map(|object| open_epoch(&secrets(), &object));
    }
}
