//! Epochs of gc are an owner's word; presences are their writers', and small whatever they claim.

use drystone_format::epoch::{Closing, Epoch, open_epoch, seal_epoch};
use drystone_format::id::object_hash;
use drystone_format::limits::{HEADER_MAX_BYTES, PRESENCE_EPOCHS_MAX};
use drystone_format::notice::{NoticeKind, open_verified, seal_notice};
use drystone_format::presence::{Presence, WriterState};
use drystone_format::{Error, PackId, RegistrationId, RootId};
use proptest::prelude::*;

use crate::fixture::{Counting, flips, secrets, stranger, unhex, writer};

fn epoch() -> Epoch {
    Epoch {
        packs: [PackId([2; 32]), PackId([1; 32])].into(),
        fences: [RegistrationId([4; 16]), RegistrationId([5; 16])].into(),
        closings: [
            (RegistrationId([4; 16]), Closing::Below(u64::MAX)),
            (RegistrationId([6; 16]), Closing::Dead),
        ]
        .into(),
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
            .fences
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
        "a1 02 81 80".to_owned(),
        format!("a1 02 81 83 {} 01 01", id("01")),
        format!("a1 02 82 82 {} 01 82 {} 01", id("01"), id("01")),
        "a0 00".to_owned(),
    ] {
        assert!(open(&bad).is_err(), "{bad}");
    }
}

/// gc condemns, fences and closes without limit of number: each part fits into an object, and together they say the same.
#[test]
fn epochs_of_any_size_are_split() {
    const COUNT: u64 = 300_000;
    let id = |number: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    };
    let half = |number| *id(number).first_chunk().unwrap();
    let whole = Epoch {
        packs: (0..COUNT).map(|number| PackId(id(number))).collect(),
        fences: (0..COUNT).map(|number| RegistrationId(half(number))).collect(),
        closings: (0..COUNT)
            .map(|number| (RegistrationId(half(number)), Closing::Below(u64::MAX - number)))
            .collect(),
    };
    let mut together = Epoch::default();
    for part in whole.clone().split() {
        let object = seal_epoch(&secrets(), &part, &mut Counting::default()).unwrap();
        let read = open_epoch(&writer(), &object).unwrap();
        assert_eq!(read, part);
        together.packs.extend(read.packs);
        together.fences.extend(read.fences);
        together.closings.extend(read.closings);
    }
    assert_eq!(together, whole);
    assert_eq!(Epoch::default().split(), [Epoch::default()]);
}

/// Reads a presence under the name that it has as one of this credential.
fn read(presence: &Presence, object: &[u8]) -> Result<Presence, Error> {
    let registration = presence.registration(&secrets());
    Presence::verify(&writer(), (&registration, presence.beat, &object_hash(object)), object).map(|(read, _)| read)
}

#[test]
fn presences_name_the_latest_epochs_and_stay_small() {
    let of = |count: u64| Presence {
        epochs: (0..count).map(|number| (number, RootId([9; 16]))).collect(),
        ledgers: (0..count).map(|number| (u64::MAX - number, RootId([9; 16]))).collect(),
        beat: count,
        advance: Some((u64::MAX, RootId([9; 16]))),
        state: WriterState::Over,
        ..Presence::default()
    };
    for count in [0, 1, 4096] {
        assert_eq!(
            read(&of(count), &of(count).sign(&secrets()).unwrap()).unwrap(),
            of(count)
        );
    }
    let object = of(5000).sign(&secrets()).unwrap();
    assert!(object.len() < HEADER_MAX_BYTES);
    let latest = read(&of(5000), &object).unwrap().epochs;
    assert_eq!(latest.len(), PRESENCE_EPOCHS_MAX);
    assert_eq!(latest.last().map(|(number, _)| *number), Some(4999));
}

#[test]
fn presences_count_only_if_their_own_writer_has_signed_them() {
    let presence = Presence {
        nonce: [5; 16],
        ..Presence::default()
    };
    let object = presence.sign(&secrets()).unwrap();
    for length in 0..object.len() {
        assert!(read(&presence, &object[..length]).is_err(), "{length}");
    }
    for (bit, damaged) in flips(&object) {
        assert!(read(&presence, &damaged).is_err(), "bit {bit}");
    }
    assert!(matches!(
        Presence::verify(
            &secrets(),
            (&presence.registration(&secrets()), 0, &RootId([0; 16])),
            &object
        ),
        Err(Error::Hash { .. })
    ));
    let forged = presence.sign(&writer()).unwrap();
    assert!(matches!(read(&presence, &forged), Err(Error::Authentication { .. })));
    let later = Presence {
        beat: 1,
        ..presence.clone()
    };
    assert!(matches!(read(&later, &object), Err(Error::Authentication { .. })));
    let by_stranger = presence.sign(&stranger()).unwrap();
    let hash = object_hash(&by_stranger);
    let name = (&presence.registration(&stranger()), 0, &hash);
    assert!(Presence::verify(&secrets(), name, &by_stranger).is_err());
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let object = [b"DRYWRIT\x01".as_slice(), &bytes].concat();
        let _ = (read(&Presence::default(), &bytes), read(&Presence::default(), &object));
        let payload = seal_notice(&secrets(), NoticeKind::Epoch, bytes, &mut Counting::default());
        let _ = payload.map(|object| open_epoch(&secrets(), &object));
    }
}
