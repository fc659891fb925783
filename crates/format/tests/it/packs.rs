//! Packs: what is put in comes out, for who may read it, and nobody can pretend to have written one.

use drystone_format::codec::{CODECS, Codec};
use drystone_format::id::{ChunkHasher, pack_id};
use drystone_format::keys::{IndexKey, Role, Secrets, epoch_number};
use drystone_format::pack::{PackedChunk, Preamble, SealedPack, Tail, tail_bytes};
use drystone_format::seal::{PackKind, Suite};
use drystone_format::{Error, Result, VaultId};
use proptest::prelude::*;

use crate::fixture::{Counting, example_pack, pack, secrets, stranger, writer};

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn open(pack: &[u8], secrets: &Secrets) -> Result<Tail> {
    let length = tail_bytes(pack, pack.len() as u64)?;
    Tail::open(&pack[pack.len() - length..], pack.len() as u64, secrets)
}

/// Every frame of `pack`, opened as a reader does: with the preamble alone.
fn contents(pack: &SealedPack, secrets: &Secrets) -> Vec<Vec<u8>> {
    let tail = open(&pack.bytes, secrets).unwrap();
    assert_eq!(tail.frames, pack.frames);
    let sealer = Preamble::from_end(&pack.bytes).unwrap().frame_sealer(secrets).unwrap();
    let frames = tail.frames.iter().enumerate().map(|(number, frame)| {
        let sealed = &pack.bytes[frame.offset as usize..][..frame.bytes as usize];
        sealer.open_frame(number as u16, sealed).unwrap()
    });
    frames.collect()
}

#[test]
fn every_codec_cipher_and_kind_round_trips() {
    let text = b"a line that repeats itself\n".repeat(40);
    let chunks: [&[&[u8]]; 3] = [&[b"one", b"", &text], &[&text], &[b"x"]];
    let expected = chunks.map(<[&[u8]]>::concat);
    for codec in CODECS {
        for suite in SUITES {
            for kind in [PackKind::Data, PackKind::Meta] {
                let pack = pack(&secrets(), kind, suite, codec, &chunks);
                assert_eq!(pack.id, pack_id(&pack.bytes));
                assert_eq!((pack.kind, contents(&pack, &secrets())), (kind, expected.to_vec()));
                let preamble = open(&pack.bytes, &secrets()).unwrap().preamble;
                assert_eq!(
                    (preamble.kind, preamble.suite, epoch_number(preamble.epoch)),
                    (kind, suite, 0)
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_chunks_round_trip(
        frames in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8), 0..6),
        codec in 0usize..6,
        suite in 0usize..2,
    ) {
        let frames: Vec<Vec<&[u8]>> = frames.iter().map(|chunks| chunks.iter().map(Vec::as_slice).collect()).collect();
        let borrowed: Vec<&[&[u8]]> = frames.iter().map(Vec::as_slice).collect();
        let pack = pack(&secrets(), PackKind::Data, SUITES[suite], CODECS[codec], &borrowed);
        let hasher = ChunkHasher::new(&secrets().dedup_key);
        let rows = |chunks: &Vec<&[u8]>| chunks.iter()
            .map(|chunk| PackedChunk { id: hasher.id(chunk), bytes: chunk.len() as u32 }).collect::<Vec<_>>();
        let tail = open(&pack.bytes, &secrets()).unwrap();
        prop_assert_eq!(tail.frames.iter().map(|frame| frame.chunks.clone()).collect::<Vec<_>>(),
            frames.iter().map(rows).collect::<Vec<_>>());
        prop_assert_eq!(contents(&pack, &secrets()), frames.iter().map(|chunks| chunks.concat()).collect::<Vec<_>>());
    }
}

#[test]
fn a_writer_indexes_packs_but_reads_none() {
    let by_writer = pack(&writer(), PackKind::Data, Suite::Aes256Gcm, Codec::Zstd, &[&[b"x"]]);
    for pack in [example_pack(), by_writer] {
        let tail = open(&pack.bytes, &writer()).unwrap();
        assert_eq!(tail.frames, pack.frames);
        let refused = tail.preamble.frame_sealer(&writer()).map(drop);
        assert!(matches!(refused, Err(Error::WriterKey { .. })), "{refused:?}");
        contents(&pack, &secrets());
    }
    assert_eq!(
        open(&example_pack().bytes, &writer())
            .unwrap()
            .preamble
            .certificate
            .role,
        Role::Owner
    );
}

#[test]
fn other_vaults_and_keys_open_nothing() {
    let pack = example_pack();
    let mut other_vault = secrets();
    other_vault.vault = VaultId([1; 16]);
    assert!(matches!(
        open(&pack.bytes, &other_vault).map(drop),
        Err(Error::Authentication { .. })
    ));
    assert!(matches!(
        open(&pack.bytes, &stranger()).map(drop),
        Err(Error::Signature { .. })
    ));
    let mut other_index = secrets();
    other_index.epochs[0].index_key = IndexKey::from_bytes([1; 32]);
    assert!(matches!(
        open(&pack.bytes, &other_index).map(drop),
        Err(Error::Authentication { .. })
    ));
    let mut other_open = secrets();
    other_open.epochs[0].open_key = stranger().epochs[0].open_key.clone();
    let refused = Preamble::from_end(&pack.bytes)
        .unwrap()
        .frame_sealer(&other_open)
        .map(drop);
    assert!(matches!(refused, Err(Error::Authentication { .. })));
    let mut other_epoch = secrets();
    other_epoch.epochs[0].number = 9;
    assert!(matches!(
        open(&pack.bytes, &other_epoch).map(drop),
        Err(Error::Epoch { epoch, .. }) if epoch_number(epoch) == 0
    ));
}

#[test]
fn a_certificate_of_another_role_or_writer_is_refused() {
    let (mut secrets, writer) = (secrets(), writer());
    secrets.certificate = writer.certificate;
    let forged = pack(&secrets, PackKind::Data, Suite::Aes256Gcm, Codec::None, &[&[b"x"]]);
    assert!(matches!(
        open(&forged.bytes, &writer).map(drop),
        Err(Error::Signature { .. })
    ));
    let mut promoted = writer.clone();
    promoted.certificate.role = Role::Owner;
    let forged = pack(&promoted, PackKind::Data, Suite::Aes256Gcm, Codec::None, &[&[b"x"]]);
    assert!(matches!(
        open(&forged.bytes, &writer).map(drop),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn packs_of_every_epoch_open_and_later_ones_are_closed_to_old_copies() {
    let (old, mut new) = (secrets(), secrets());
    new.advance(&mut Counting::default()).unwrap();
    let (first, second) = [&old, &new]
        .map(|secrets| pack(secrets, PackKind::Data, Suite::Aes256Gcm, Codec::None, &[&[b"x"]]))
        .into();
    for pack in [&first, &second] {
        assert_eq!(contents(pack, &new), [b"x"]);
    }
    assert!(matches!(
        open(&second.bytes, &old).map(drop),
        Err(Error::Epoch { epoch, .. }) if epoch_number(epoch) == 1
    ));
}

#[test]
fn frames_cannot_trade_places() {
    let pack = pack(
        &secrets(),
        PackKind::Data,
        Suite::Aes256Gcm,
        Codec::None,
        &[&[b"one"], &[b"two"]],
    );
    let sealer = Preamble::from_end(&pack.bytes)
        .unwrap()
        .frame_sealer(&secrets())
        .unwrap();
    let frame =
        |number: usize| &pack.bytes[pack.frames[number].offset as usize..][..pack.frames[number].bytes as usize];
    assert_eq!(sealer.open_frame(1, frame(1)).unwrap(), b"two");
    assert!(matches!(
        sealer.open_frame(0, frame(1)),
        Err(Error::Authentication { .. })
    ));
}
