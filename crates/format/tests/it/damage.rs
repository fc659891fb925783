//! Every object cut short anywhere, or with any single bit flipped, is refused with an error and never a panic.

use drystone_format::codec::Codec;
use drystone_format::config::Config;
use drystone_format::epoch::{Epoch, open_epoch, seal_epoch};
use drystone_format::header::Header;
use drystone_format::notice::{open_verified, seal_verified};
use drystone_format::pack::{Preamble, SealedPack, Tail, tail_bytes};
use drystone_format::root::{open_root, root_name};
use drystone_format::seal::{PackKind, Suite};
use drystone_format::slot::Slot;
use drystone_format::{Error, PackId, Result};

use crate::fixture::{
    Counting, config, example_pack, flips, header_bytes, new_root, pack, sealed_root, secrets, slot_bytes, slot_key,
    snapshot,
};

type Open = Box<dyn Fn(&[u8]) -> Result<()>>;

/// Every object that is read whole, and how.
fn objects() -> Vec<(&'static str, Vec<u8>, Open)> {
    let (_, root) = sealed_root(&secrets(), &snapshot().encode());
    let list = seal_verified(&secrets(), &[PackId([1; 32])], &mut Counting::default());
    let epoch = seal_epoch(&secrets(), &Epoch::default(), &mut Counting::default());
    let slot = |object: &[u8]| {
        let slot = Slot::decode(object)?;
        Slot::verify(object, &secrets().vault_verify)?;
        slot.open(&slot_key()).map(drop)
    };
    vec![
        (
            "header",
            header_bytes(),
            Box::new(|object| Header::decode(object).map(drop)),
        ),
        (
            "configuration",
            config().seal(&secrets(), &mut Counting::default()).unwrap(),
            Box::new(|object| Config::open(&secrets(), object).map(drop)),
        ),
        ("slot", slot_bytes(), Box::new(slot)),
        (
            "root",
            root,
            // Under the name that the bytes would have: the signature must tell, not the hash.
            Box::new(|object| {
                let name = root_name(&secrets(), &new_root(&[]), object);
                open_root(&secrets(), &name, object).map(drop)
            }),
        ),
        (
            "list",
            list.unwrap(),
            Box::new(|object| open_verified(&secrets(), object).map(drop)),
        ),
        (
            "epoch",
            epoch.unwrap(),
            Box::new(|object| open_epoch(&secrets(), object).map(drop)),
        ),
    ]
}

#[test]
fn objects_refuse_every_truncation_and_every_flipped_bit() {
    for (name, object, open) in objects() {
        open(&object).unwrap();
        for length in 0..object.len() {
            assert!(open(&object[..length]).is_err(), "{name} cut to {length}");
        }
        for (bit, damaged) in flips(&object) {
            assert!(open(&damaged).is_err(), "{name} with bit {bit} flipped");
        }
        let longer = [object.as_slice(), b"\0"].concat();
        assert!(open(&longer).is_err(), "{name} with a byte more");
    }
}

#[test]
fn objects_of_a_newer_version_are_refused_as_such() {
    for (name, mut object, open) in objects() {
        object[7] = 2;
        assert!(matches!(open(&object), Err(Error::Version { found: 2, .. })), "{name}");
        object[7] = 0;
        assert!(matches!(open(&object), Err(Error::Version { found: 0, .. })), "{name}");
        object[0] ^= 1;
        assert!(matches!(open(&object), Err(Error::Magic { .. })), "{name}");
        assert!(matches!(open(&[0; 200]), Err(Error::Magic { .. })), "{name}");
    }
    let mut pack = example_pack().bytes;
    *pack.last_mut().unwrap() = 2;
    let size = pack.len() as u64;
    assert!(matches!(tail_bytes(&pack, size), Err(Error::Version { found: 2, .. })));
    assert!(matches!(
        Preamble::from_end(&pack),
        Err(Error::Version { found: 2, .. })
    ));
    assert!(matches!(
        Tail::open(&pack, size, &secrets()).map(drop),
        Err(Error::Version { found: 2, .. })
    ));
}

/// Opens the tail that the end of a pack claims to have.
fn open_tail(end: &[u8], pack_bytes: u64) -> Result<Tail> {
    let length = tail_bytes(end, pack_bytes)?;
    let start = end.len().checked_sub(length);
    Tail::open(start.map_or(end, |start| &end[start..]), pack_bytes, &secrets())
}

fn tail_of(pack: &SealedPack) -> &[u8] {
    let size = pack.bytes.len() as u64;
    &pack.bytes[pack.bytes.len() - tail_bytes(&pack.bytes, size).unwrap()..]
}

#[test]
fn tails_refuse_every_truncation_and_every_flipped_bit() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let pack = pack(
            &secrets(),
            PackKind::Meta,
            suite,
            Codec::Zstd,
            &[&[b"one", b"two"], &[b"three"]],
        );
        let (size, tail) = (pack.bytes.len() as u64, tail_of(&pack));
        open_tail(tail, size).unwrap();
        for cut in 1..tail.len() {
            assert!(open_tail(&tail[cut..], size).is_err(), "{cut} bytes less in front");
            assert!(open_tail(&tail[..cut], size).is_err(), "cut to {cut} bytes");
            assert!(
                open_tail(tail, size - cut as u64).is_err(),
                "a pack {cut} bytes shorter"
            );
            assert!(open_tail(tail, size + cut as u64).is_err(), "a pack {cut} bytes longer");
        }
        for (bit, damaged) in flips(tail) {
            assert!(open_tail(&damaged, size).is_err(), "bit {bit} flipped");
            // Unauthenticated, but it must not panic.
            let _ = Preamble::from_end(&damaged).and_then(|preamble| preamble.frame_sealer(&secrets()).map(drop));
        }
        for size in [0, 79, 80, u64::MAX] {
            assert!(open_tail(tail, size).is_err(), "a pack of {size} bytes");
        }
    }
}

#[test]
fn frames_refuse_every_truncation_and_every_flipped_bit() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let text = b"the same again ".repeat(8);
        let pack = pack(&secrets(), PackKind::Data, suite, Codec::Zstd, &[&[&text]]);
        let frame = &pack.bytes[pack.frames[0].offset as usize..][..pack.frames[0].bytes as usize];
        let sealer = Preamble::from_end(&pack.bytes)
            .unwrap()
            .frame_sealer(&secrets())
            .unwrap();
        assert_eq!(sealer.open_frame(0, frame).unwrap(), text);
        for length in 0..frame.len() {
            assert!(sealer.open_frame(0, &frame[..length]).is_err());
        }
        for (_, damaged) in flips(frame) {
            assert!(matches!(
                sealer.open_frame(0, &damaged),
                Err(Error::Authentication { .. })
            ));
        }
    }
}

#[test]
fn a_pack_key_opens_only_beside_the_preamble_it_was_sealed_with() {
    let pack = example_pack();
    let sealed = &pack.bytes[pack.frames[0].offset as usize..][..pack.frames[0].bytes as usize];
    let tail = tail_of(&pack);
    let preamble_bytes = u32::from_be_bytes(*tail[tail.len() - 76..].first_chunk().unwrap()) as usize;
    let preamble = tail.len() - 80 - preamble_bytes;
    // Key 6 and the head of the certificate, on which no key depends; the trailer's reader verifies it.
    let certificate = tail
        .windows(4)
        .rposition(|window| window == [0x06, 0x83, 0x58, 0x20])
        .unwrap();
    for (bit, damaged) in flips(tail) {
        let Ok(preamble_found) = Preamble::from_end(&damaged) else {
            continue;
        };
        let Ok(sealer) = preamble_found.frame_sealer(&secrets()) else {
            continue;
        };
        let covered = (preamble..certificate).contains(&(bit / 8));
        assert!(!covered || sealer.open_frame(0, sealed).is_err(), "bit {bit}");
    }
}
