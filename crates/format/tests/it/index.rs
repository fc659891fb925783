//! Index parts and runs: what is listed is found again, by its signer's word, and nobody else can list anything in his name.

use drystone_format::codec::Codec;
use drystone_format::index_part::{
    IndexPart, Numbered, PackTail, open_index_part, open_part, seal_index_part, seal_part,
};
use drystone_format::index_run::{IndexRun, RunChunk, RunDirectory, RunPack, Verified, run_tail_bytes};
use drystone_format::keys::{Role, VerifyKey};
use drystone_format::limits::{INDEX_BLOCK_CHUNKS, INDEX_BLOCK_PACKS, PACK_MAX_BYTES};
use drystone_format::pack::SealedPack;
use drystone_format::seal::{PackKind, Suite};
use drystone_format::{ChunkId, Error, PackId, Result, VaultId};
use proptest::prelude::*;

use crate::fixture::{
    Counting, NUMBERED, example_pack, flips, hello, index_part, index_run, pack, padded_pack, secrets, stranger, writer,
};
use crate::forge;

const VERSION: u8 = 1;

fn writers_pack() -> SealedPack {
    pack(
        &writer(),
        PackKind::Meta,
        Suite::Aes256Gcm,
        Codec::None,
        &[&[b"by a writer"]],
    )
}

#[test]
fn parts_round_trip_inside_a_root_and_alone() {
    let (secrets, packs) = (secrets(), [example_pack(), padded_pack(&secrets(), &[&[b"two"]])]);
    let part = IndexPart::from_sealed_packs(&packs);
    let sealed = seal_part(&secrets, VERSION, &NUMBERED, &part, &mut Counting::default()).unwrap();
    assert!(sealed.len() <= part.size_bytes());
    assert_eq!(open_part(&secrets, VERSION, &NUMBERED, &sealed).unwrap(), part);
    let object = seal_index_part(&secrets, &NUMBERED, &part, &mut Counting::default()).unwrap();
    for reader in [&secrets, &writer()] {
        let found = open_index_part(reader, &object).unwrap();
        assert_eq!((found.of, &found.part), (NUMBERED, &part));
        let signer = found.certificate.writer;
        for (listed, pack) in found.part.packs().zip(part.packs()) {
            let tail = listed.open(reader, &signer).unwrap();
            let made = packs.iter().find(|made| made.id == pack.id).unwrap();
            assert_eq!(
                (tail.frames, listed.bytes),
                (made.frames.clone(), made.bytes.len() as u64)
            );
        }
    }
    let mut grown = part.clone();
    packs.iter().for_each(|pack| grown.insert(PackTail::of(pack)));
    assert_eq!(grown, part, "a pack is listed once");
}

#[test]
fn a_part_opens_only_in_the_object_that_carries_it() {
    let secrets = secrets();
    let sealed = seal_part(&secrets, VERSION, &NUMBERED, &index_part(), &mut Counting::default()).unwrap();
    let elsewhere = [
        Numbered { number: 4, ..NUMBERED },
        Numbered {
            registration: [1; 16],
            ..NUMBERED
        },
    ];
    for of in elsewhere {
        assert!(matches!(
            open_part(&secrets, VERSION, &of, &sealed),
            Err(Error::Authentication { .. })
        ));
    }
    // A seal binds the version of the object around it.
    assert!(matches!(
        open_part(&secrets, 2, &NUMBERED, &sealed),
        Err(Error::Authentication { .. })
    ));
    let two = seal_part(&secrets, 2, &NUMBERED, &index_part(), &mut Counting::default()).unwrap();
    assert_eq!(open_part(&secrets, 2, &NUMBERED, &two).unwrap(), index_part());
    let mut other_vault = secrets.clone();
    other_vault.vault = VaultId([1; 16]);
    assert!(open_part(&other_vault, VERSION, &NUMBERED, &sealed).is_err());
}

#[test]
fn a_part_speaks_only_of_its_signers_packs_under_their_own_ids() {
    let (secrets, thief) = (secrets(), writer());
    // A writer lists an owner's pack, under the id of one that does not exist.
    let stolen = PackTail {
        id: PackId([9; 32]),
        ..PackTail::of(&example_pack())
    };
    let mut part = IndexPart::from_sealed_packs(&[writers_pack()]);
    part.insert(stolen);
    let object = seal_index_part(&thief, &NUMBERED, &part, &mut Counting::default()).unwrap();
    let found = open_index_part(&secrets, &object).unwrap();
    let opened: Vec<bool> = found
        .part
        .packs()
        .map(|pack| pack.open(&secrets, &found.certificate.writer).is_ok())
        .collect();
    let own: Vec<bool> = found.part.packs().map(|pack| pack.id == writers_pack().id).collect();
    assert_eq!(opened, own);
    // Nor can anybody put a part into the owner's mouth.
    let mut forger = thief;
    forger.certificate = secrets.certificate;
    let forged = seal_index_part(&forger, &NUMBERED, &part, &mut Counting::default()).unwrap();
    assert!(matches!(
        open_index_part(&secrets, &forged),
        Err(Error::Signature { .. })
    ));
    let stranger = seal_index_part(&stranger(), &NUMBERED, &part, &mut Counting::default()).unwrap();
    assert!(matches!(
        open_index_part(&secrets, &stranger),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn parts_refuse_every_truncation_and_every_flipped_bit() {
    let secrets = secrets();
    let object = seal_index_part(&secrets, &NUMBERED, &index_part(), &mut Counting::default()).unwrap();
    for length in 0..object.len() {
        assert!(open_index_part(&secrets, &object[..length]).is_err(), "{length} bytes");
    }
    for (bit, damaged) in flips(&object) {
        assert!(open_index_part(&secrets, &damaged).is_err(), "bit {bit}");
    }
}

/// The chunk as a reader finds it: tail, one block of chunks, one block of packs.
fn find(piece: &[u8], id: &ChunkId) -> Result<Vec<(RunPack, RunChunk)>> {
    let (secrets, size) = (writer(), piece.len() as u64);
    let start = piece.len() - run_tail_bytes(piece, size)?;
    let directory = RunDirectory::open(&piece[start..], size, &secrets)?;
    let cut = |range: Option<std::ops::Range<u64>>| {
        let range = range.unwrap();
        &piece[range.start as usize..range.end as usize]
    };
    let mut found = Vec::new();
    for block in directory.blocks_of(id) {
        let chunks = directory.open_chunks(block, cut(directory.chunk_range(block)))?;
        for chunk in chunks.into_iter().filter(|chunk| chunk.id == *id) {
            let packs = directory.open_packs(chunk.pack, cut(directory.pack_range(chunk.pack)))?;
            let pack = packs[chunk.pack as usize % INDEX_BLOCK_PACKS].clone();
            found.push((pack, chunk));
        }
    }
    Ok(found)
}

#[test]
fn a_run_leads_to_the_chunk_and_opens_its_frame() {
    let (secrets, packs) = (secrets(), [example_pack(), writers_pack()]);
    let run = index_run(&secrets, &packs);
    let piece = run.seal(&secrets, &NUMBERED, &mut Counting::default()).unwrap();
    assert_eq!(IndexRun::open(&secrets, &piece).unwrap(), run);
    let found = find(&piece, &hello()).unwrap();
    let [(pack, chunk)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (pack.id, pack.signer, pack.role),
        (packs[0].id, secrets.certificate.writer, Role::Owner)
    );
    let sealed = &packs[0].bytes[chunk.frame_offset as usize..][..chunk.frame_bytes as usize];
    let plaintext = pack
        .frame_sealer(&secrets)
        .unwrap()
        .open_frame(chunk.frame, sealed)
        .unwrap();
    assert_eq!(
        &plaintext[chunk.chunk_offset as usize..][..chunk.chunk_bytes as usize],
        b"hello\n"
    );
    assert!(matches!(
        pack.frame_sealer(&writer()).map(drop),
        Err(Error::WriterKey { .. })
    ));
    let writers = run.packs.iter().find(|pack| pack.id == packs[1].id).unwrap();
    assert_eq!(
        (writers.signer, writers.role),
        (writer().certificate.writer, Role::Writer)
    );
    assert_eq!(find(&piece, &ChunkId([0; 32])).unwrap(), []);
}

#[test]
fn only_an_owner_makes_a_run() {
    let run = index_run(&secrets(), &[example_pack()]);
    assert!(matches!(
        run.seal(&writer(), &NUMBERED, &mut Counting::default()),
        Err(Error::Signature { .. })
    ));
    let mut promoted = writer();
    promoted.certificate.role = Role::Owner;
    let forged = run.seal(&promoted, &NUMBERED, &mut Counting::default()).unwrap();
    assert!(matches!(
        IndexRun::open(&secrets(), &forged),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn runs_refuse_every_truncation_and_every_flipped_bit() {
    let (secrets, run) = (secrets(), index_run(&secrets(), &[example_pack()]));
    let piece = run.seal(&secrets, &NUMBERED, &mut Counting::default()).unwrap();
    for length in 0..piece.len() {
        assert!(IndexRun::open(&secrets, &piece[..length]).is_err(), "{length} bytes");
    }
    // The first eight bytes are for people, as in a pack; the hash in the name covers them.
    for (bit, damaged) in flips(&piece).skip(8 * 8) {
        assert!(IndexRun::open(&secrets, &damaged).is_err(), "bit {bit}");
    }
}

fn any_pack() -> impl Strategy<Value = RunPack> {
    let numbers = (
        any::<[u8; 32]>(),
        0..=PACK_MAX_BYTES as u64,
        any::<u8>(),
        0u8..3,
        any::<u32>(),
    );
    let rest = (
        any::<[u8; 32]>(),
        proptest::collection::vec(any::<u8>(), 0..=256),
        any::<[u8; 32]>(),
        any::<[bool; 3]>(),
    );
    (numbers, rest).prop_map(
        |((id, bytes, version, kind, epoch), (salt, wrapped_key, signer, [aes, owner, verified]))| RunPack {
            id: PackId(id),
            bytes,
            version,
            kind: PackKind::from_code(kind).unwrap(),
            suite: if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 },
            epoch: epoch.into(),
            salt,
            wrapped_key,
            signer: VerifyKey(signer),
            role: if owner { Role::Owner } else { Role::Writer },
            verified: if verified { Verified::Yes } else { Verified::No },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_run_round_trips_and_every_chunk_is_found(
        packs in proptest::collection::vec(any_pack(), 1..600),
        seeds in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<u16>(), 0u32..1 << 20), 0..3000),
    ) {
        let count = packs.len() as u32;
        let mut chunks: Vec<RunChunk> = seeds.iter().map(|(id, pack, frame, chunk_bytes)| RunChunk {
            // Few enough ids that many chunks lie in several packs.
            id: ChunkId([(id % 251) as u8; 32]),
            pack: pack % count,
            frame: *frame,
            frame_offset: u32::from(*frame) << 8,
            frame_bytes: *chunk_bytes,
            chunk_offset: *chunk_bytes,
            chunk_bytes: *chunk_bytes,
        }).collect();
        chunks.sort_by_key(|chunk| (chunk.id, chunk.pack));
        chunks.dedup_by_key(|chunk| (chunk.id, chunk.pack));
        let run = IndexRun { packs, chunks };
        let piece = run.seal(&secrets(), &NUMBERED, &mut Counting::default()).unwrap();
        prop_assert_eq!(&IndexRun::open(&secrets(), &piece).unwrap(), &run);
        for id in (0..=255).step_by(17).map(|byte| ChunkId([byte; 32])) {
            let found: Vec<RunChunk> = find(&piece, &id).unwrap().into_iter().map(|(_, chunk)| chunk).collect();
            let listed: Vec<RunChunk> = run.chunks.iter().filter(|chunk| chunk.id == id).copied().collect();
            prop_assert_eq!(found, listed);
        }
    }

    #[test]
    fn parts_of_any_bytes_are_refused_or_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = open_part(&secrets(), VERSION, &NUMBERED, &bytes);
        let end = [bytes.as_slice(), &[0, 0, 0, 9, 0, 0, 0, 9], &[0; 64], b"DRYIRUN\x01"].concat();
        let size = end.len() as u64 + 8;
        let _ = (run_tail_bytes(&end, size), RunDirectory::open(&end, size, &secrets()).map(drop));
    }
}

#[test]
fn runs_that_are_out_of_order_or_too_large_are_not_made() {
    let run = index_run(&secrets(), &[example_pack()]);
    let seal = |run: &IndexRun| run.seal(&secrets(), &NUMBERED, &mut Counting::default());
    let mut reversed = run.clone();
    reversed.chunks.reverse();
    let mut twice = run.clone();
    twice.chunks.push(*run.chunks.last().unwrap());
    let mut unknown = run.clone();
    unknown.chunks.last_mut().unwrap().pack = 1;
    let mut wide = run.clone();
    wide.chunks[0].frame_bytes = 1 << 24;
    for wrong in [reversed, twice, unknown, wide] {
        assert!(seal(&wrong).is_err());
    }
    let many = INDEX_BLOCK_CHUNKS * 1400;
    let chunk = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        RunChunk {
            id: ChunkId(id),
            ..run.chunks[0]
        }
    };
    let large = IndexRun {
        chunks: (0..many).map(chunk).collect(),
        ..run.clone()
    };
    assert!(matches!(seal(&large), Err(Error::Limit { .. })));
}

#[test]
fn forged_runs_and_parts_are_read_with_limits() {
    let secrets = secrets();
    let part = |part: &[u8]| open_part(&secrets, VERSION, &NUMBERED, &forge::part(&secrets, &NUMBERED, part));
    assert_eq!(part(&[0xa1, 0, 0x80]).unwrap(), IndexPart::default());
    let listed = |id: u8| [&[0x83, 0x58, 0x20], [id; 32].as_slice(), &[0x10, 0x40]].concat();
    let two = |one, other| [vec![0xa1, 0, 0x82], listed(one), listed(other)].concat();
    assert_eq!(part(&two(1, 2)).unwrap().packs().len(), 2);
    for (why, bytes) in [
        ("out of order", two(2, 1)),
        ("twice", two(1, 1)),
        (
            "endless",
            vec![0xa1, 0, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("bytes after the end", vec![0xa1, 0, 0x80, 0]),
    ] {
        assert!(part(&bytes).is_err(), "{why}");
    }
    let open = |piece: &[u8]| IndexRun::open(&secrets, piece);
    let [empty, ..] = forge::runs(&secrets, &NUMBERED, &[0xa4, 0, 0, 1, 0, 2, 0x80, 3, 0x80]);
    assert_eq!(open(&empty).unwrap(), IndexRun::default());
    for (why, directory) in [
        ("chunks in no block", vec![0xa4, 0, 1, 1, 0, 2, 0x80, 3, 0x80]),
        ("packs in no block", vec![0xa4, 0, 0, 1, 1, 2, 0x80, 3, 0x80]),
        (
            "endless blocks",
            vec![0xa1, 2, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("nothing", Vec::new()),
    ] {
        assert!(open(&forge::runs(&secrets, &NUMBERED, &directory)[0]).is_err(), "{why}");
    }
    // One pack, in a block of its own, as an owner may say it.
    let run = index_run(&secrets, &[example_pack()]);
    let packs = [vec![0x81], pack_row(&run.packs[0])].concat();
    let [.., with_packs] = forge::runs(&secrets, &NUMBERED, &packs);
    assert_eq!(open(&with_packs).unwrap().packs, run.packs);
}

/// A pack in a block, from docs/format.md.
fn pack_row(pack: &RunPack) -> Vec<u8> {
    let bytes = |bytes: &[u8]| [&[0x58, bytes.len() as u8], bytes].concat();
    [
        vec![0x8b],
        bytes(&pack.id.0),
        [&[0x19], (pack.bytes as u16).to_be_bytes().as_slice()].concat(),
        vec![pack.version, pack.kind as u8, pack.suite as u8],
        [&[0x1b], pack.epoch.to_be_bytes().as_slice()].concat(),
        bytes(&pack.salt),
        bytes(&pack.wrapped_key),
        bytes(&pack.signer.0),
        vec![0, pack.verified as u8],
    ]
    .concat()
}
