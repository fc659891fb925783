//! Files read from anywhere, by many threads, near and far: what comes is what was stored, and costs what it should.

use std::sync::{Arc, OnceLock};
use std::thread::scope;
use std::time::Duration;

use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::Kind;
use drystone_format::{ChunkId, RootId};
use drystone_store::record::Call;
use drystone_store::{Delay, Memory, Op, Record, Store};
use drystone_vault::{Error, FileReader, FrameAt, FrameSize, GcOptions, IngestOptions, Reader, Vault};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::support::{Fixture, entry, noise, options, snapshot};

/// What a file is made of.
#[derive(Debug, Clone)]
pub(crate) enum Stretch {
    Bytes(Vec<u8>),
    Zeros(usize),
    Hole(u64),
}

fn sized(frames: FrameSize) -> IngestOptions {
    IngestOptions { frames, ..options() }
}

/// Stores files in frames of this size; gives their recipes and what is in them.
pub(crate) fn store_files(vault: &Vault, frames: FrameSize, files: &[Vec<Stretch>]) -> Vec<(Recipe, Vec<u8>)> {
    let ingest = vault.ingest(sized(frames)).unwrap();
    let mut lane = ingest.lane();
    let stored = files.iter().map(|stretches| {
        let (mut content, mut model) = (lane.content(), Vec::new());
        for stretch in stretches {
            match stretch {
                Stretch::Bytes(bytes) => content.write(bytes).unwrap(),
                Stretch::Zeros(bytes) => content.write(&vec![0; *bytes]).unwrap(),
                Stretch::Hole(bytes) => content.hole(*bytes).unwrap(),
            }
            match stretch {
                Stretch::Bytes(bytes) => model.extend_from_slice(bytes),
                Stretch::Zeros(bytes) => model.resize(model.len() + bytes, 0),
                Stretch::Hole(bytes) => model.resize(model.len() + *bytes as usize, 0),
            }
        }
        (content.finish().unwrap(), model)
    });
    let stored = stored.collect();
    lane.finish().unwrap();
    ingest.finish().unwrap();
    stored
}

/// A new vault whose frames lie in the order in which they were filled: several compressors overtake each other.
fn one_compressor(fixture: &Fixture, memory: &Arc<Memory>) -> Vault {
    fixture.create(memory.clone()).unwrap();
    let mut context = fixture.context();
    context.threads = 1;
    Vault::open(memory.clone(), context, &fixture.unlock()).unwrap()
}

/// One file of noise.
fn store_noise(vault: &Vault, frames: FrameSize, seed: u64, bytes: usize) -> (Recipe, Vec<u8>) {
    let files = [vec![Stretch::Bytes(noise(seed, bytes))]];
    store_files(vault, frames, &files).remove(0)
}

/// A store that records, near or far.
fn recorded(memory: &Arc<Memory>, is_far: bool) -> Arc<Record> {
    let far = || Arc::new(Delay::new(memory.clone(), Duration::ZERO)) as Arc<dyn Store>;
    Arc::new(Record::new(if is_far { far() } else { memory.clone() }))
}

/// The gets of packs since the last look, and their bytes.
fn pack_gets(store: &Record) -> (usize, u64) {
    let is_get = |call: &Call| call.op == Op::Get && call.name.starts_with("packs/");
    let gets: Vec<Call> = store.take().into_iter().filter(is_get).collect();
    (gets.len(), gets.iter().map(|call| call.bytes).sum())
}

fn read(file: &FileReader, offset: u64, bytes: usize) -> drystone_vault::Result<Vec<u8>> {
    let mut out = vec![0xaa; bytes];
    let count = file.read_at(offset, &mut out)?;
    out.truncate(count);
    Ok(out)
}

fn expected(model: &[u8], offset: u64, bytes: usize) -> &[u8] {
    let start = (offset as usize).min(model.len());
    &model[start..(start + bytes).min(model.len())]
}

/// The chunks of a file, each with where it begins.
pub(crate) fn chunks_of(reader: &Reader, recipe: &Recipe) -> Vec<(u64, ChunkId, u64)> {
    let mut start = 0;
    let mut chunks = Vec::new();
    for part in reader.parts(recipe).map(Result::unwrap) {
        if let Part::Chunk { id, bytes } = part {
            chunks.push((start, id, bytes));
        }
        start += part.bytes();
    }
    chunks
}

/// The frames that these chunks lie in, without repetition.
fn frames_of(reader: &Reader, chunks: &[(u64, ChunkId, u64)]) -> Vec<FrameAt> {
    let frames = chunks.iter().map(|(_, id, _)| reader.frame_of(id).unwrap().unwrap());
    let mut frames: Vec<FrameAt> = frames.collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// The same vault near and far, with files of all shapes.
struct Library {
    _fixtures: [Fixture; 2],
    readers: Vec<Reader>,
    files: Vec<(Recipe, Vec<u8>)>,
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = fixture.create(memory.clone()).unwrap();
        let bytes = |seed, length| Stretch::Bytes(noise(seed, length));
        let deep = (0..20_000u64).flat_map(|at| [bytes(at, 1 + at as usize % 9), Stretch::Hole(at % 3)]);
        let shapes = [
            vec![],
            vec![bytes(1, 10)],
            vec![bytes(2, 900_000)],
            vec![Stretch::Hole(70_000)],
            vec![
                bytes(3, 9_000),
                Stretch::Hole(50_000),
                Stretch::Zeros(60_000),
                bytes(4, 30_000),
                Stretch::Hole(5),
            ],
            deep.collect(),
        ];
        let files = store_files(&vault, FrameSize::new(16 << 10), &shapes);
        assert_eq!(files.iter().map(|(recipe, _)| recipe.depth).max(), Some(2));
        let elsewhere = fixture.elsewhere();
        let far = elsewhere.open(recorded(&memory, true)).unwrap();
        Library {
            readers: vec![vault.reader().unwrap(), far.reader().unwrap()],
            _fixtures: [fixture, elsewhere],
            files,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn reads_of_any_range_are_the_bytes_of_the_file(
        file in 0usize..6,
        far in 0usize..2,
        reads in proptest::collection::vec((any::<u64>(), 0usize..300_000), 1..12),
    ) {
        let library = library();
        let (recipe, model) = &library.files[file];
        let file = library.readers[far].file(recipe).unwrap();
        prop_assert_eq!(file.len(), model.len() as u64);
        scope(|scope| {
            let threads: Vec<_> = (0..3).map(|thread| {
                let (file, reads) = (&file, &reads);
                scope.spawn(move || {
                    for (seed, bytes) in reads.iter().skip(thread) {
                        // Sometimes beyond the end.
                        let offset = seed % (model.len() as u64 + 100);
                        assert_eq!(read(file, offset, *bytes).unwrap(), expected(model, offset, *bytes));
                    }
                })
            }).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn reading_on_from_anywhere_is_the_rest_of_the_file(file in 0usize..6, far in 0usize..2, start: u64, step in 1usize..60_000) {
        let library = library();
        let (recipe, model) = &library.files[file];
        let file = library.readers[far].file(recipe).unwrap();
        let mut at = start % (model.len() as u64 + 1);
        while at < file.len() {
            let got = read(&file, at, step).unwrap();
            prop_assert_eq!(&got[..], expected(model, at, step));
            at += got.len() as u64;
        }
        prop_assert_eq!(read(&file, at, step).unwrap().len(), 0);
    }
}

#[test]
fn a_frame_is_fetched_once_and_nodes_are_read_once() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(memory.clone()).unwrap();
    let (recipe, model) = store_noise(&vault, FrameSize::new(64 << 10), 1, 4 << 20);
    assert_eq!(recipe.depth, 1);
    let store = recorded(&memory, false);
    let vault = fixture.open(store.clone()).unwrap();
    let reader = vault.reader().unwrap();
    let chunks = chunks_of(&reader, &recipe);
    let frames = frames_of(&reader, &chunks).len();
    assert!(frames >= 60, "{frames}");
    let vault = fixture.open(store.clone()).unwrap();
    let file = vault.reader().unwrap().file(&recipe).unwrap();
    store.take();
    // Every page of the file in an order that is none, from several threads.
    let pages = model.len() as u64 / 4096;
    let pass = || {
        scope(|scope| {
            for thread in 0..4 {
                let (file, model) = (&file, &model);
                scope.spawn(move || {
                    for at in (0..pages).filter(|at| at % 4 == thread) {
                        let offset = at * 7919 % pages * 4096;
                        assert_eq!(read(file, offset, 4096).unwrap(), expected(model, offset, 4096));
                    }
                });
            }
        });
    };
    pass();
    let (gets, _) = pack_gets(&store);
    // The ends of two packs, the frames, and those with nodes.
    let nodes = recipe.parts.len();
    assert!(
        (frames + 2..=frames + 2 + nodes).contains(&gets),
        "{gets} gets for {frames} frames and {nodes} nodes"
    );
    pass();
    assert_eq!(pack_gets(&store), (0, 0), "all of it is kept");
}

#[test]
fn a_batch_over_neighbouring_frames_costs_one_request() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = one_compressor(&fixture, &memory);
    let (recipe, model) = store_noise(&vault, FrameSize::new(32 << 10), 1, 3 << 20);
    let chunks = chunks_of(&vault.reader().unwrap(), &recipe);
    // A long way from the end of the pack, whose last megabyte is not wanted.
    let wanted: Vec<ChunkId> = chunks.iter().skip(100).take(200).map(|(_, id, _)| *id).collect();
    let start = chunks[100].0;
    for (is_far, order) in [(false, 1), (true, 1), (true, 37)] {
        let store = recorded(&memory, is_far);
        let vault = fixture.open(store.clone()).unwrap();
        let reader = vault.reader().unwrap();
        store.take();
        let ids: Vec<ChunkId> = (0..wanted.len()).map(|at| wanted[at * order % wanted.len()]).collect();
        let got = Mutex::new(vec![Vec::new(); ids.len()]);
        let each = |at: usize, chunk: drystone_vault::Result<drystone_vault::ChunkBytes>| {
            got.lock()[at] = chunk.unwrap().to_vec();
        };
        reader.chunks(&ids, &each).unwrap();
        let bytes: u64 = got.lock().iter().map(|chunk| chunk.len() as u64).sum();
        let (gets, read_bytes) = pack_gets(&store);
        assert_eq!(gets, 2, "the end of the pack and one range");
        assert!(read_bytes < bytes + 250_000, "{read_bytes} for {bytes}");
        for (at, chunk) in got.into_inner().into_iter().enumerate() {
            let (offset, _, _) = chunks[100 + at * order % wanted.len()];
            assert_eq!(chunk, expected(&model, offset, chunk.len()), "{at} from {start}");
        }
        reader.chunks(&ids, &|_, chunk| drop(chunk.unwrap())).unwrap();
        assert_eq!(pack_gets(&store).0, 0, "frames are kept");
        assert!(reader.held_bytes() < 8 << 20, "what was fetched is let go of");
    }
}

#[test]
fn a_batch_says_of_each_chunk_what_became_of_it() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(memory.clone()).unwrap();
    let (recipe, _) = store_noise(&vault, FrameSize::new(32 << 10), 1, 1 << 20);
    let reader = vault.reader().unwrap();
    let mut ids: Vec<ChunkId> = chunks_of(&reader, &recipe).into_iter().map(|(_, id, _)| id).collect();
    ids.insert(17, ChunkId([9; 32]));
    ids.push(ids[3]);
    let failed = Mutex::new(Vec::new());
    let count = Mutex::new(0);
    let each = |at: usize, chunk: drystone_vault::Result<drystone_vault::ChunkBytes>| {
        *count.lock() += 1;
        if let Err(error) = chunk {
            assert!(matches!(error, Error::MissingChunk { .. }), "{error}");
            failed.lock().push(at);
        }
    };
    reader.chunks(&ids, &each).unwrap();
    reader.chunks(&[], &each).unwrap();
    assert_eq!((count.into_inner(), failed.into_inner()), (ids.len(), vec![17]));
}

#[test]
fn reading_in_order_from_afar_takes_few_requests_and_nothing_twice() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = one_compressor(&fixture, &memory);
    let (recipe, model) = store_noise(&vault, FrameSize::RANDOM, 1, 12 << 20);
    for is_far in [false, true] {
        let store = recorded(&memory, is_far);
        let vault = fixture.open(store.clone()).unwrap();
        let file = vault.reader().unwrap().file(&recipe).unwrap();
        store.take();
        for at in (0..file.len()).step_by(32 << 10) {
            assert_eq!(read(&file, at, 32 << 10).unwrap(), expected(&model, at, 32 << 10));
        }
        let (gets, bytes) = pack_gets(&store);
        assert!(gets < 25, "{gets} for {} frames", model.len() / (128 << 10));
        assert!(bytes < model.len() as u64 * 11 / 10, "{bytes}");
    }
}

#[test]
fn one_large_read_fetches_its_frames_together() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = one_compressor(&fixture, &memory);
    let (recipe, model) = store_noise(&vault, FrameSize::new(32 << 10), 1, 3 << 20);
    let store = recorded(&memory, true);
    let vault = fixture.open(store.clone()).unwrap();
    let file = vault.reader().unwrap().file(&recipe).unwrap();
    read(&file, 0, 1).unwrap();
    store.take();
    assert_eq!(
        read(&file, 1 << 20, 1 << 20).unwrap(),
        expected(&model, 1 << 20, 1 << 20)
    );
    let (gets, _) = pack_gets(&store);
    assert!(gets <= 4, "a range, and the nodes that lead there: {gets}");
}

#[test]
fn a_walk_over_trees_from_afar_takes_several_frames_at_a_time() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = one_compressor(&fixture, &memory);
    let ingest = vault.ingest(sized(FrameSize::new(8 << 10))).unwrap();
    let mut lane = ingest.lane();
    let mut trees = Vec::new();
    for dir in 0..300u64 {
        let mut tree = ingest.tree();
        for file in 0..20 {
            let id = ChunkId(noise(dir * 100 + file, 32).try_into().unwrap());
            let kind = Kind::File(Recipe::single(id, 100));
            tree.push(&mut lane, &entry(&format!("file{file:03}"), kind).encode())
                .unwrap();
        }
        trees.push(tree.finish(&mut lane).unwrap());
    }
    lane.finish().unwrap();
    ingest.finish().unwrap();
    let walk = |is_far: bool, trees: &[Recipe]| {
        let store = recorded(&memory, is_far);
        let vault = fixture.open(store.clone()).unwrap();
        let reader = vault.reader().unwrap();
        store.take();
        for tree in trees {
            assert_eq!(reader.tree(tree).map(Result::unwrap).count(), 20);
        }
        pack_gets(&store)
    };
    let (near, near_bytes) = walk(false, &trees);
    let (far, far_bytes) = walk(true, &trees);
    assert!(near > 50, "{near} frames");
    assert!(far <= 12, "{far} of {near}");
    // The first request that is wider than a frame has 512 KiB, more than there is to read here.
    let wide_bytes = 512 << 10;
    assert!(
        far_bytes < near_bytes + wide_bytes,
        "{far_bytes} instead of {near_bytes}"
    );
    let (one, one_bytes) = walk(true, &trees[150..151]);
    // One of three chunks is a short walk.
    assert!(one <= 3 && one_bytes < 300 << 10, "{one_bytes} bytes for one tree");
}

/// Publishes a snapshot of one directory with these files, in frames of this size.
fn publish(vault: &Vault, frames: FrameSize, files: &[(&str, &[u8])]) -> RootId {
    let ingest = vault.ingest(sized(frames)).unwrap();
    let (mut lane, mut tree) = (ingest.lane(), ingest.tree());
    for (name, bytes) in files {
        let mut content = lane.content();
        content.write(bytes).unwrap();
        let kind = Kind::File(content.finish().unwrap());
        tree.push(&mut lane, &entry(name, kind).encode()).unwrap();
    }
    let tree = tree.finish(&mut lane).unwrap();
    lane.finish().unwrap();
    vault.publish(&snapshot(tree), &ingest.finish().unwrap()).unwrap()
}

#[test]
fn gc_copies_small_frames_into_small_frames() {
    for (frames, fits) in [(FrameSize::RANDOM, 132_000), (FrameSize::STREAM, 2 << 20)] {
        let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = fixture.create(memory).unwrap();
        let (large, small) = (noise(1, 4 << 20), noise(2, 600_000));
        let first = publish(&vault, frames, &[("large", &large), ("small", &small)]);
        let second = publish(&vault, frames, &[("small", &small)]);
        vault.forget(&[first]).unwrap();
        let report = vault.gc(&GcOptions::default()).unwrap();
        assert!(report.copied_bytes > 500_000, "{report:?}");
        let reader = vault.reader().unwrap();
        let entry = reader
            .tree(&vault.snapshot(&second).unwrap().tree)
            .next()
            .unwrap()
            .unwrap();
        let chunks = chunks_of(&reader, entry.recipe().unwrap());
        let sealed: Vec<u32> = frames_of(&reader, &chunks).iter().map(|frame| frame.bytes).collect();
        let largest = *sealed.iter().max().unwrap();
        assert!(largest <= fits && largest > fits / 4, "{sealed:?}");
    }
}

#[test]
fn memory_stays_in_its_bounds_whatever_is_read() {
    let (fixture, memory) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(memory.clone()).unwrap();
    let (recipe, model) = store_noise(&vault, FrameSize::new(64 << 10), 1, 24 << 20);
    let mut context = fixture.context();
    context.memory_bytes = 8 << 20;
    let vault = Vault::open(recorded(&memory, true) as Arc<dyn Store>, context, &fixture.unlock()).unwrap();
    let reader = vault.reader().unwrap();
    let files: Vec<FileReader> = (0..8).map(|_| reader.file(&recipe).unwrap()).collect();
    let most = Mutex::new(0);
    scope(|scope| {
        for (thread, file) in files.iter().enumerate() {
            let (most, reader, model) = (&most, &reader, &model);
            scope.spawn(move || {
                for at in 0..150u64 {
                    // Half of them in order, half here and there.
                    let at = if thread % 2 == 0 { at } else { at * 61 % 150 };
                    let offset = thread as u64 * (1 << 20) + at * (64 << 10);
                    assert_eq!(read(file, offset, 64 << 10).unwrap(), expected(model, offset, 64 << 10));
                    let mut most = most.lock();
                    *most = (*most).max(reader.held_bytes());
                }
            });
        }
    });
    // Half of it for caches, seven eighths for what is fetched ahead.
    assert!(most.into_inner() <= (4 << 20) + (7 << 20));
    drop(files);
}
