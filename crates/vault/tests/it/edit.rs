//! Edits: whatever was done to a file, its recipe is the one that cutting it anew gives, and little more than the edits is read.
#![expect(clippy::single_range_in_vec_init, reason = "one edit is a range")]

mod page;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use drystone_format::ChunkId;
use drystone_format::chunker::Chunker;
use drystone_format::recipe::{Part, Recipe};
use drystone_store::Memory;
use drystone_vault::{
    EditOptions, EditReport, Edited, FillError, Lane, OldPart, OldParts, OldRecipe, Reliance, Stretch, Vault, Whole,
};
use proptest::prelude::*;

use crate::support::{Fixture, content, ingest, noise};

/// A file by its bytes; `None` in holes.
type Bytes = Vec<Option<u8>>;

fn data(bytes: &[u8]) -> impl Iterator<Item = Option<u8>> {
    bytes.iter().copied().map(Some)
}

/// The stretches of a file: where each ends, and whether it is data.
fn stretches(bytes: &[Option<u8>]) -> Vec<Stretch> {
    let mut at = 0;
    let runs = bytes.chunk_by(|one, two| one.is_some() == two.is_some());
    runs.map(|run| {
        at += run.len() as u64;
        match run[0] {
            Some(_) => Stretch::Data(at),
            None => Stretch::Hole(at),
        }
    })
    .collect()
}

fn cut_anew(lane: &mut Lane, bytes: &[Option<u8>]) -> Recipe {
    let mut content = lane.content();
    for run in bytes.chunk_by(|one, two| one.is_some() == two.is_some()) {
        match run[0] {
            Some(_) => content
                .write(&run.iter().flatten().copied().collect::<Vec<u8>>())
                .unwrap(),
            None => content.hole(run.len() as u64).unwrap(),
        }
    }
    content.finish().unwrap()
}

/// A file in memory that was edited.
struct Now<'a> {
    bytes: &'a [Option<u8>],
    stretches: Vec<Stretch>,
    /// Stretches that lie behind.
    passed: usize,
    edits: Vec<Range<u64>>,
    read_max: usize,
    done: u64,
}

impl<'a> Now<'a> {
    fn new(bytes: &'a [Option<u8>], mut edits: Vec<Range<u64>>) -> Self {
        edits.retain(|edit| !edit.is_empty());
        edits.sort_by_key(|edit| edit.start);
        Self {
            bytes,
            stretches: stretches(bytes),
            passed: 0,
            edits,
            read_max: usize::MAX,
            done: 0,
        }
    }
}

impl Edited for Now<'_> {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(self.edits.iter().find(|edit| edit.end > offset).cloned())
    }

    fn stretch(&mut self, offset: u64) -> io::Result<Stretch> {
        loop {
            match self.stretches[self.passed] {
                Stretch::Data(end) | Stretch::Hole(end) if end <= offset => self.passed += 1,
                stretch => return Ok(stretch),
            }
        }
    }

    fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        let count = room.len().min(self.read_max);
        let bytes = &self.bytes[offset as usize..];
        for (to, from) in room[..count].iter_mut().zip(bytes) {
            // A hole is not read.
            *to = from.unwrap();
        }
        Ok(count.min(bytes.len()))
    }

    fn done(&mut self, offset: u64) {
        assert!(self.done < offset && offset <= self.size_bytes());
        self.done = offset;
    }
}

/// Parts that nobody stored.
struct Listed {
    parts: Vec<Part>,
    next: usize,
    start: u64,
}

impl Listed {
    fn new(parts: Vec<Part>) -> Self {
        Self {
            parts,
            next: 0,
            start: 0,
        }
    }
}

impl OldParts for Listed {
    fn size_bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }

    fn at(&mut self, offset: u64, _: Whole) -> drystone_vault::Result<Option<OldPart>> {
        while let Some(part) = self.parts.get(self.next) {
            if self.start + part.bytes() > offset {
                let (start, part) = (self.start, *part);
                return Ok(Some(OldPart { start, part, depth: 0 }));
            }
            self.start += part.bytes();
            self.next += 1;
        }
        Ok(None)
    }
}

/// Something done to a file.
#[derive(Debug, Clone)]
enum Op {
    Write {
        at: u32,
        bytes: usize,
        seed: u64,
    },
    Zeros {
        at: u32,
        bytes: usize,
    },
    Punch {
        at: u32,
        bytes: usize,
    },
    /// From elsewhere in the file.
    Copy {
        from: u32,
        at: u32,
        bytes: usize,
    },
    Truncate {
        to: u32,
    },
    Empty,
    Extend {
        bytes: usize,
        seed: Option<u64>,
    },
    LastByte,
    /// Said to have changed, and has not.
    Nothing {
        at: u32,
        bytes: usize,
    },
    /// One byte before, at or behind a boundary between chunks.
    AtBoundary {
        number: u32,
        beside: i64,
    },
    Many {
        step: usize,
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<u32>;
    let bytes = prop_oneof![1usize..3, 1usize..600, 3000usize..40_000];
    let two = bytes.clone();
    prop_oneof![
        4 => (at(), bytes.clone(), any::<u64>()).prop_map(|(at, bytes, seed)| Op::Write { at, bytes, seed }),
        2 => (at(), bytes.clone()).prop_map(|(at, bytes)| Op::Zeros { at, bytes }),
        3 => (at(), bytes.clone()).prop_map(|(at, bytes)| Op::Punch { at, bytes }),
        2 => (at(), at(), bytes.clone()).prop_map(|(from, at, bytes)| Op::Copy { from, at, bytes }),
        2 => at().prop_map(|to| Op::Truncate { to }),
        1 => Just(Op::Empty),
        3 => (bytes.clone(), any::<Option<u64>>()).prop_map(|(bytes, seed)| Op::Extend { bytes, seed }),
        1 => Just(Op::LastByte),
        1 => (at(), two).prop_map(|(at, bytes)| Op::Nothing { at, bytes }),
        3 => (at(), -1i64..2).prop_map(|(number, beside)| Op::AtBoundary { number, beside }),
        1 => (1usize..9000, any::<u64>()).prop_map(|(step, seed)| Op::Many { step, seed }),
    ]
}

impl Op {
    /// Does it; `ends` are where the parts of the file ended. Returns what it touched.
    fn apply(&self, file: &mut Bytes, ends: &[u64]) -> Vec<Range<u64>> {
        let len = file.len();
        let place = |at: u32| at as usize % len.max(1);
        let range = |at: usize, bytes: usize| at..(at + bytes).min(len);
        let (range, new): (_, Bytes) = match *self {
            Self::Write { at, bytes, seed } => {
                let range = range(place(at), bytes);
                let new = data(&noise(seed, range.len())).collect();
                (range, new)
            }
            Self::Zeros { at, bytes } => {
                let range = range(place(at), bytes);
                (range.clone(), vec![Some(0); range.len()])
            }
            Self::Punch { at, bytes } => {
                let range = range(place(at), bytes);
                (range.clone(), vec![None; range.len()])
            }
            Self::Copy { from, at, bytes } => {
                let new = file[range(place(from), bytes)].to_vec();
                let range = range(place(at), new.len());
                (range.clone(), new[..range.len()].to_vec())
            }
            Self::Truncate { to } => (place(to)..len, Vec::new()),
            Self::Empty => (0..len, Vec::new()),
            Self::Extend { bytes, seed } => {
                let new = match seed {
                    Some(seed) => data(&noise(seed, bytes)).collect(),
                    None => vec![None; bytes],
                };
                (len..len, new)
            }
            Self::LastByte => {
                let range = len.saturating_sub(1)..len;
                (range.clone(), vec![Some(77); range.len()])
            }
            Self::Nothing { at, bytes } => {
                let range = range(place(at), bytes);
                (range.clone(), file[range].to_vec())
            }
            Self::AtBoundary { number, beside } => {
                let end = ends.get(number as usize % ends.len().max(1)).copied().unwrap_or(0);
                let at = end.saturating_add_signed(beside) as usize;
                let range = range(at.min(len), 1);
                (range.clone(), vec![Some(200); range.len()])
            }
            Self::Many { step, seed } => {
                let all: Vec<usize> = (0..len).step_by(step).collect();
                for (at, byte) in all.iter().zip(noise(seed, all.len())) {
                    file[*at] = Some(byte);
                }
                return all.into_iter().map(|at| at as u64..at as u64 + 1).collect();
            }
        };
        let touched = range.start as u64..(range.end.max(range.start + new.len())) as u64;
        file.splice(range, new);
        vec![touched]
    }
}

/// What a file is made of in the beginning.
fn first() -> impl Strategy<Value = Bytes> {
    let run = prop_oneof![
        4 => (any::<u64>(), 1usize..40_000).prop_map(|(seed, bytes)| data(&noise(seed, bytes)).collect::<Bytes>()),
        2 => (1usize..60_000).prop_map(|bytes| vec![Some(0); bytes]),
        2 => (1usize..30_000).prop_map(|bytes| vec![None; bytes]),
        // With a period: cuts that have parted need not meet again.
        1 => (any::<u64>(), 1usize..9000, 2usize..6).prop_map(|(seed, bytes, times)| data(&noise(seed, bytes).repeat(times)).collect()),
        1 => (any::<u64>(), 1usize..50).prop_map(|(seed, bytes)| {
            let pieces = noise(seed, bytes);
            pieces.iter().flat_map(|byte| [Some(*byte), None]).collect()
        }),
    ];
    proptest::collection::vec(run, 0..8).prop_map(|runs| runs.concat())
}

struct World {
    _fixture: Fixture,
    vault: Vault,
    chunker: Chunker,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let fixture = Fixture::new();
        let vault = fixture.create(Arc::new(Memory::new())).unwrap();
        World {
            chunker: vault.data_chunker(),
            _fixture: fixture,
            vault,
        }
    })
}

impl World {
    /// Works in a lane of a run of its own; returns how many chunks were new.
    fn run<T>(&self, work: impl FnOnce(&mut Lane) -> T) -> (T, u64) {
        let ingest = ingest(&self.vault);
        let mut lane = ingest.lane();
        let done = work(&mut lane);
        lane.finish().unwrap();
        (done, ingest.finish().unwrap().new_chunks)
    }

    fn parts(&self, recipe: &Recipe) -> Vec<Part> {
        let parts = self.vault.reader().unwrap().parts(recipe);
        parts.map(Result::unwrap).collect()
    }

    fn old(&self, recipe: &Recipe) -> OldRecipe {
        OldRecipe::new(self.vault.reader().unwrap(), recipe)
    }

    fn since_now(&self) -> EditOptions {
        EditOptions {
            reliance: Reliance::SinceLoss(self.vault.loss_epoch().unwrap()),
            keep_parts: None,
        }
    }

    /// Where chunks of data end when a file is cut anew: each with its beginning, and the end of its stretch.
    fn cuts(&self, file: &[Option<u8>]) -> Vec<(u64, u64, u64)> {
        let (mut cuts, mut start) = (Vec::new(), 0);
        for stretch in stretches(file) {
            let (Stretch::Data(end) | Stretch::Hole(end)) = stretch;
            if let Stretch::Data(end) = stretch {
                let bytes: Vec<u8> = file[start as usize..end as usize].iter().flatten().copied().collect();
                let mut at = 0;
                while at < bytes.len() {
                    let cut = self.chunker.next(&bytes[at..]);
                    cuts.push((start + at as u64, start + (at + cut) as u64, end));
                    at += cut;
                }
            }
            start = end;
        }
        cuts
    }

    /// Bytes that must be read: from the beginning of each chunk that cannot be taken over, as many as decide where it ends.
    fn bytes_to_read(&self, (old, parts): (&[Option<u8>], &[Part]), new: &[Option<u8>], edits: &[Range<u64>]) -> u64 {
        let lookahead = self.chunker.lookahead_bytes() as u64;
        let tail = match old.len() == new.len() {
            true => u64::MAX,
            false => old.len().min(new.len()) as u64,
        };
        let is_clean = |range: Range<u64>| {
            let meets = |edit: &Range<u64>| edit.start < range.end && range.start < edit.end;
            range.end <= tail && !edits.iter().filter(|edit| !edit.is_empty()).any(meets)
        };
        let sees = |start: u64, end: u64| (start + lookahead).min(end + 1);
        let (mut had, mut zeros, mut at) = (BTreeSet::new(), Vec::new(), 0);
        for part in parts {
            match part {
                Part::Chunk { .. } => drop(had.insert(at)),
                Part::Zeros(bytes) => zeros.push(at..at + bytes),
                Part::Hole(_) => {}
            }
            at += part.bytes();
        }
        let cuts = self.cuts(new);
        let mut whole: Vec<Range<u64>> = Vec::new();
        let (mut read, mut read_to) = (0, 0);
        for (start, _, end) in cuts {
            let run = zeros.iter().find(|run| run.contains(&start));
            if let Some(run) = run.filter(|run| run.start == start && run.end <= end)
                && is_clean(start..sees(run.end - 1, end))
            {
                whole.push(run.clone());
            }
            let is_amid_zeros = run.is_some_and(|run| start + lookahead <= run.end.min(end));
            let is_known = had.contains(&start) || is_amid_zeros;
            if is_known && is_clean(start..sees(start, end)) || whole.iter().any(|run| run.contains(&start)) {
                continue;
            }
            let to = (start + lookahead).min(end);
            read += to - start.max(read_to).min(to);
            read_to = to;
        }
        read
    }
}

/// Whether the file is cut anew before or after it is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    Before,
    After,
}

/// How a case is run.
#[derive(Debug, Clone, Copy)]
struct How {
    anew: Anew,
    knows_losses: bool,
    keeps_parts: bool,
    read_max: usize,
}

fn how() -> impl Strategy<Value = How> {
    let anew = prop_oneof![Just(Anew::Before), Just(Anew::After)];
    let read_max = prop_oneof![Just(usize::MAX), 1usize..9000];
    (anew, any::<bool>(), any::<bool>(), read_max).prop_map(|(anew, knows_losses, keeps_parts, read_max)| How {
        anew,
        knows_losses,
        keeps_parts,
        read_max,
    })
}

/// Edits a file, and compares what comes of it with the file cut anew.
fn edit(old: (&Bytes, &Recipe), new: &Bytes, edits: &[Range<u64>], how: How) -> EditReport {
    let world = world();
    let parts = world.parts(old.1);
    // That the length changed need not be said.
    let in_both = match old.0.len() == new.len() {
        true => u64::MAX,
        false => old.0.len().min(new.len()) as u64,
    };
    let edits: Vec<Range<u64>> = edits
        .iter()
        .map(|edit| edit.start.min(in_both)..edit.end.min(in_both))
        .collect();
    let options = EditOptions {
        reliance: match how.knows_losses {
            true => world.since_now().reliance,
            false => Reliance::Unknown,
        },
        keep_parts: how.keeps_parts.then_some(usize::MAX),
    };
    let anew = || world.run(|lane| cut_anew(lane, new));
    let before = (how.anew == Anew::Before).then(anew);
    let (report, stored) = world.run(|lane| {
        let mut file = Now::new(new, edits.clone());
        file.read_max = how.read_max;
        let report = lane.edit(&mut world.old(old.1), &mut file, options).unwrap();
        assert_eq!(file.done, new.len() as u64);
        report
    });
    // Each stores all that the other would.
    let (recipe, stored) = match before {
        Some((recipe, _)) => (recipe, stored),
        None => anew(),
    };
    assert_eq!((&report.recipe, stored), (&recipe, 0));
    if how.keeps_parts {
        let is_zeros = |part: &Part| matches!(part, Part::Zeros(_));
        let of = |parts: Vec<Part>| parts.into_iter().filter(|part| !is_zeros(part)).collect::<Vec<_>>();
        assert_eq!(of(report.parts.clone().unwrap()), of(world.parts(&recipe)));
    } else {
        assert_eq!(report.parts, None);
    }
    if how.read_max == usize::MAX {
        let to_read = world.bytes_to_read((old.0, &parts), new, &edits);
        assert_eq!(report.read_bytes, to_read, "bytes to read");
    }
    report
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]
    #[test]
    fn an_edit_gives_what_cutting_anew_gives(
        first in first(),
        rounds in proptest::collection::vec((proptest::collection::vec(op(), 0..5), how()), 1..4),
    ) {
        let world = world();
        let (mut recipe, _) = world.run(|lane| cut_anew(lane, &first));
        let mut file = first;
        for (ops, how) in rounds {
            let (old, mut edits) = (file.clone(), Vec::new());
            let mut at = 0;
            let ends: Vec<u64> = world.parts(&recipe).iter().map(|part| { at += part.bytes(); at }).collect();
            for op in &ops {
                edits.extend(op.apply(&mut file, &ends));
            }
            recipe = edit((&old, &recipe), &file, &edits, how).recipe;
            let reader = world.vault.reader().unwrap();
            let expected: Vec<u8> = file.iter().map(|byte| byte.unwrap_or(0)).collect();
            prop_assert!(content(&reader, &recipe).unwrap() == expected);
        }
    }
}

/// A file of many short stretches, so that its recipe is deep although the file is small.
fn deep(pieces: u64) -> Bytes {
    let piece = |at: u64| data(&noise(at, 1 + at as usize % 5)).chain([None]).collect::<Bytes>();
    (0..pieces).flat_map(piece).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nodes_are_taken_over_only_where_cutting_anew_gives_them(
        pieces in 10_000u64..24_000,
        ops in proptest::collection::vec(op(), 0..3),
        knows_losses in any::<bool>(),
    ) {
        let ops = ops.into_iter().filter(|op| !matches!(op, Op::Many { .. } | Op::Empty));
        let world = world();
        let mut file = deep(pieces);
        let (recipe, _) = world.run(|lane| cut_anew(lane, &file));
        prop_assert!(recipe.depth > 0);
        let old = file.clone();
        let edits: Vec<_> = ops.flat_map(|op| op.apply(&mut file, &[])).collect();
        let how = How { anew: Anew::After, knows_losses, keeps_parts: false, read_max: usize::MAX };
        edit((&old, &recipe), &file, &edits, how);
    }
}

/// A run of zeros that begins as the last part of a full node is cut in two there.
#[test]
fn zeros_at_the_end_of_a_full_node_are_split_as_if_cut_anew() {
    let world = world();
    // One chunk and one hole, again and again: no node ends before it is full, but for one key in 512.
    let pairs = |count: usize| [Some(b'a'), None].repeat(count);
    let mut files = Vec::new();
    for (zeros, behind) in [(3_000, 0), (6_000, 300), (9_000, 20_000), (40_000, 0), (40_000, 20_000)] {
        for count in 509..514 {
            let (zeros, behind) = (vec![Some(0); zeros], data(&noise(5, behind)).collect::<Bytes>());
            files.push([pairs(count), zeros, behind, vec![None], pairs(40)].concat());
        }
    }
    let (recipes, _) = world.run(|lane| files.iter().map(|file| cut_anew(lane, file)).collect::<Vec<_>>());
    world.run(|lane| {
        for (file, recipe) in files.iter().zip(&recipes) {
            // One part more, or one less, before the zeros.
            for (at, byte) in [(0, None), (1, Some(b'a')), (5, None)] {
                let mut new = file.clone();
                new[at] = byte;
                let mut edited = Now::new(&new, vec![at as u64..at as u64 + 1]);
                let report = lane
                    .edit(&mut world.old(recipe), &mut edited, world.since_now())
                    .unwrap();
                assert_eq!(report.recipe, cut_anew(lane, &new));
            }
        }
    });
}

#[test]
fn what_changed_nowhere_is_not_read() {
    let world = world();
    let file: Bytes = deep(20_000).into_iter().chain(data(&noise(1, 90_000))).collect();
    let (recipe, _) = world.run(|lane| cut_anew(lane, &file));
    let mut old = world.old(&recipe);
    let (report, stored) = world.run(|lane| {
        let mut new = Now::new(&file, Vec::new());
        lane.edit(&mut old, &mut new, world.since_now()).unwrap()
    });
    assert_eq!((report.recipe, stored, old.nodes_read()), (recipe, 0, 0));
    assert_eq!((report.read_bytes, report.reused_bytes), (0, file.len() as u64));
}

#[test]
fn a_run_of_zeros_is_not_read_behind_an_edit_in_it() {
    let world = world();
    let file = [
        data(&noise(1, 50_000)).collect(),
        vec![Some(0); 3_000_000],
        data(&noise(2, 50_000)).collect(),
    ]
    .concat();
    let (recipe, _) = world.run(|lane| cut_anew(lane, &file));
    let mut new = file.clone();
    new[1_000_000] = Some(1);
    let how = How {
        anew: Anew::After,
        knows_losses: true,
        keeps_parts: true,
        read_max: usize::MAX,
    };
    let report = edit((&file, &recipe), &new, &[1_000_000..1_000_001], how);
    assert!(report.read_bytes < 8 * 7168, "{} bytes were read", report.read_bytes);
}

#[test]
fn what_is_not_in_the_vault_is_read_and_stored_again() {
    let world = world();
    let of_another_time = Reliance::SinceLoss(world.vault.loss_epoch().unwrap() + 1);
    for (seed, reliance) in [(4711, Reliance::Unknown), (4716, of_another_time)] {
        let bytes = noise(seed, 100_000);
        let file: Bytes = data(&bytes).collect();
        let parts = world.cuts(&file).into_iter().map(|(start, end, _)| Part::Chunk {
            id: world.vault.hasher().id(&bytes[start as usize..end as usize]),
            bytes: end - start,
        });
        let parts: Vec<Part> = parts.collect();
        let options = EditOptions {
            reliance,
            keep_parts: None,
        };
        // The second time all of it is there.
        for is_first in [true, false] {
            let (report, stored) = world.run(|lane| {
                lane.edit(
                    &mut Listed::new(parts.clone()),
                    &mut Now::new(&file, Vec::new()),
                    options,
                )
                .unwrap()
            });
            assert!(world.vault.reader().unwrap().contains_all(&report.recipe).unwrap());
            assert_eq!((stored > 0, report.read_bytes > 0), (is_first, is_first));
        }
    }
}

#[test]
fn a_node_that_is_lost_counts_as_changed() {
    let world = world();
    // Zeros follow the lost node: they are not taken for what was in it.
    let behind: Bytes = [vec![Some(0); 60_000], data(&noise(4715, 200_000)).collect()].concat();
    let lost: Bytes = data(&noise(4712, 200_000)).collect();
    let file = [lost.clone(), behind.clone()].concat();
    let (mut recipe, _) = world.run(|lane| cut_anew(lane, &behind));
    let (anew, _) = world.run(|lane| cut_anew(lane, &file));
    assert_eq!((recipe.depth, recipe.parts.len()), (1, 1));
    recipe.size_bytes = file.len() as u64;
    recipe.parts.insert(
        0,
        Part::Chunk {
            id: ChunkId([3; 32]),
            bytes: lost.len() as u64,
        },
    );
    let (report, _) = world.run(|lane| {
        lane.edit(
            &mut world.old(&recipe),
            &mut Now::new(&file, vec![5..6]),
            world.since_now(),
        )
        .unwrap()
    });
    assert_eq!(report.recipe, anew);
    assert!(report.reused_bytes > 200_000 && report.read_bytes >= 200_000);
}

#[test]
fn a_file_that_ends_early_gives_what_was_there() {
    struct Cut<'a>(Now<'a>);
    impl Edited for Cut<'_> {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes() + 50_000
        }
        fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
            self.0.edit(offset)
        }
        fn stretch(&mut self, _: u64) -> io::Result<Stretch> {
            Ok(Stretch::Data(self.size_bytes()))
        }
        fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(offset, room)
        }
    }
    let world = world();
    let file: Bytes = data(&noise(4713, 20_000)).collect();
    let (recipe, _) = world.run(|lane| cut_anew(lane, &file));
    let (report, _) = world.run(|lane| {
        lane.edit(
            &mut world.old(&recipe),
            &mut Cut(Now::new(&file, Vec::new())),
            world.since_now(),
        )
        .unwrap()
    });
    assert_eq!(report.recipe, recipe);
}

#[test]
fn answers_out_of_order_and_failing_reads_are_errors_and_the_lane_goes_on() {
    struct Odd<'a>(Now<'a>, u8);
    impl Edited for Odd<'_> {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
        fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
            if self.1 == 0 {
                Ok(Some(offset..offset))
            } else {
                self.0.edit(offset)
            }
        }
        fn stretch(&mut self, offset: u64) -> io::Result<Stretch> {
            if self.1 == 1 {
                Ok(Stretch::Data(offset))
            } else {
                self.0.stretch(offset)
            }
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no"))
        }
    }
    let world = world();
    let file: Bytes = data(&noise(4714, 20_000)).collect();
    world.run(|lane| {
        let recipe = cut_anew(lane, &file);
        for odd in 0..3 {
            let mut new = Odd(Now::new(&file, vec![3..4]), odd);
            let edited = lane.edit(&mut Listed::new(Vec::new()), &mut new, world.since_now());
            assert!(matches!(edited, Err(FillError::Read(_))), "{odd}");
        }
        assert_eq!(cut_anew(lane, &file), recipe);
    });
}
