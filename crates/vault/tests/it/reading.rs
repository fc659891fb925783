//! Reading from anywhere in a file gives what a model gives, whatever the file is made of.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use drystone_format::recipe::{Part, Recipe};
use drystone_store::Memory;
use drystone_vault::{Error, PieceData, Reader, Vault};
use proptest::prelude::*;

use crate::support::{Fixture, ingest, noise};

/// A vault with some files, and what is in them.
struct Library {
    _fixture: Fixture,
    reader: Reader,
    files: Vec<(Recipe, Vec<u8>)>,
}

/// What a file is made of.
enum Stretch {
    Bytes(Vec<u8>),
    Hole(u64),
}

fn store_file(vault: &Vault, stretches: &[Stretch]) -> (Recipe, Vec<u8>) {
    let ingest = ingest(vault);
    let mut lane = ingest.lane();
    let (mut content, mut model) = (lane.content(), Vec::new());
    for stretch in stretches {
        match stretch {
            Stretch::Bytes(bytes) => {
                content.write(bytes).unwrap();
                model.extend_from_slice(bytes);
            }
            Stretch::Hole(bytes) => {
                content.hole(*bytes).unwrap();
                model.resize(model.len() + *bytes as usize, 0);
            }
        }
        assert_eq!(content.size_bytes(), model.len() as u64);
    }
    let recipe = content.finish().unwrap();
    lane.finish().unwrap();
    ingest.finish().unwrap();
    (recipe, model)
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let fixture = Fixture::new();
        let vault = fixture.create(Arc::new(Memory::new())).unwrap();
        let (bytes, hole) = (|seed, length| Stretch::Bytes(noise(seed, length)), Stretch::Hole);
        let deep = (0..20_000u64).flat_map(|at| [Stretch::Bytes(noise(at, 1 + at as usize % 9)), Stretch::Hole(1)]);
        let files = [
            vec![],
            vec![bytes(1, 10)],
            vec![bytes(2, 400_000)],
            vec![hole(70_000)],
            vec![
                bytes(3, 9_000),
                hole(50_000),
                Stretch::Bytes(vec![0; 60_000]),
                bytes(4, 30_000),
                hole(5),
            ],
            deep.collect(),
        ];
        let files: Vec<_> = files.iter().map(|stretches| store_file(&vault, stretches)).collect();
        assert_eq!(
            files.iter().map(|(recipe, _)| recipe.depth).collect::<Vec<_>>(),
            [0, 0, 1, 0, 0, 2]
        );
        assert!(
            files[4]
                .0
                .parts
                .iter()
                .any(|part| matches!(part, Part::Zeros(bytes) if *bytes >= 40_000))
        );
        Library {
            reader: vault.reader().unwrap(),
            _fixture: fixture,
            files,
        }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Seek(u64),
    Piece,
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..u64::MAX).prop_map(Step::Seek),
        Just(Step::Piece),
        (0usize..20_000).prop_map(Step::Read),
    ];
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn reads_from_anywhere_match_the_model(file in 0usize..6, steps in steps()) {
        let library = library();
        let (recipe, model) = &library.files[file];
        prop_assert_eq!(recipe.size_bytes, model.len() as u64);
        let mut content = library.reader.content(recipe);
        // `read` may keep the rest of a piece, so pieces are asked for after a seek only.
        let (mut at, mut is_reading) = (0, false);
        for step in steps {
            match step {
                Step::Seek(offset) => {
                    // Sometimes beyond the end.
                    at = (offset % (model.len() as u64 + 100)) as usize;
                    is_reading = false;
                    content.seek(at as u64);
                }
                Step::Piece if is_reading => {}
                Step::Piece => match content.next_piece().unwrap() {
                    None => prop_assert!(at >= model.len()),
                    Some(piece) => {
                        prop_assert_eq!(piece.offset, at as u64);
                        let length = match piece.data {
                            PieceData::Bytes(bytes) => {
                                prop_assert_eq!(&*bytes, &model[at..at + bytes.len()]);
                                bytes.len()
                            }
                            PieceData::Zeros(count) | PieceData::Hole(count) => {
                                prop_assert!(model[at..at + count as usize].iter().all(|byte| *byte == 0));
                                count as usize
                            }
                        };
                        prop_assert!(length > 0);
                        at += length;
                    }
                },
                Step::Read(length) => {
                    is_reading = true;
                    let mut out = vec![7; length];
                    let count = content.read(&mut out).unwrap();
                    let expected = model.get(at..).unwrap_or_default();
                    prop_assert!(count > 0 || length == 0 || expected.is_empty());
                    prop_assert_eq!(&out[..count], &expected[..count]);
                    at += count;
                }
            }
        }
    }

    #[test]
    fn parts_from_an_offset_on_are_those_of_the_whole(file in 0usize..6, offset in any::<u64>()) {
        let (recipe, model) = &library().files[file];
        let offset = offset % (model.len() as u64 + 10);
        let mut parts = library().reader.parts(recipe);
        parts.skip_to(offset);
        let rest: Vec<Part> = parts.by_ref().map(Result::unwrap).collect();
        let mut start = 0;
        let whole: Vec<Part> = library().reader.parts(recipe).map(Result::unwrap).collect();
        let expected: Vec<Part> = whole.into_iter().filter(|part| {
            start += part.bytes();
            start > offset
        }).collect();
        prop_assert_eq!(rest, expected);
        prop_assert_eq!(parts.offset(), recipe.size_bytes);
    }
}

#[test]
fn seeking_back_before_anything_was_read_goes_back() {
    let (recipe, model) = &library().files[2];
    let mut content = library().reader.content(recipe);
    content.seek(390_000);
    content.seek(10);
    let mut out = [0; 100];
    content.read_exact(&mut out).unwrap();
    assert_eq!(out, model[10..110]);
}

#[test]
fn reading_goes_on_behind_what_is_lost() {
    let library = library();
    let (whole, bytes) = &library.files[2];
    let mut lost_node = whole.parts[0];
    let Part::Chunk { id, bytes: lost_bytes } = &mut lost_node else {
        panic!()
    };
    id.0[0] ^= 1;
    let lost = whole.size_bytes..whole.size_bytes + *lost_bytes;
    let model = [bytes.as_slice(), &bytes[..*lost_bytes as usize], bytes].concat();
    let broken = Recipe {
        size_bytes: model.len() as u64,
        depth: 1,
        parts: [whole.parts.as_slice(), &[lost_node], &whole.parts].concat(),
    };
    let mut content = library.reader.content(&broken);
    let (mut at, mut errors) = (0, 0);
    loop {
        match content.next_piece() {
            Ok(None) => break,
            Ok(Some(piece)) => {
                let length = match piece.data {
                    PieceData::Bytes(bytes) => {
                        assert_eq!(&*bytes, &model[piece.offset as usize..][..bytes.len()]);
                        bytes.len() as u64
                    }
                    PieceData::Zeros(count) | PieceData::Hole(count) => count,
                };
                assert_eq!(piece.offset, at);
                at += length;
            }
            Err(error) => {
                assert!(matches!(error, Error::MissingChunk { .. }), "{error}");
                assert_eq!(at, lost.start);
                at = lost.end;
                errors += 1;
            }
        }
    }
    assert_eq!((at, errors), (model.len() as u64, 1));
}
