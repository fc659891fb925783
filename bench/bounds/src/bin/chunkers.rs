//! Compares chunkers on a real data set: speed, deduplication, resynchronisation and the size after compression.
//!
//! `chunkers BASE [CHANGED] [--quick | --frames]` prints Markdown tables; CHANGED is a copy of BASE after `bench/change`.
//! `--quick` compresses nothing; `--frames` compares only ways to fill and compress frames.
//!
//! - Every figure is over the same bytes in the same order; speeds are per second of CPU time of one thread.
//! - Unique bytes are counted before compression; a chunk is counted at its first appearance.

use std::collections::HashSet;
use std::hint::black_box;
use std::io;
use std::path::Path;

use bounds::{Item, cpu_s, cut, items, mincdc_next, read};
use fastcdc::v2020::{FastCDC, Normalization};
use mincdc::MinCdcHash4;

const KIB: usize = 1024;
/// Files are chunked in batches about this big, so that small files do not drown in clock readings.
const BATCH_BYTES: usize = 8 << 20;
const FRAMES: [usize; 4] = [256 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB];

type Id = [u8; 16];

#[derive(Clone, Copy)]
enum Kind {
    Min {
        cdc: MinCdcHash4,
        min: usize,
        max: usize,
    },
    Fast {
        min: usize,
        avg: usize,
        max: usize,
        level: Normalization,
    },
    Gear {
        min: usize,
        mask: u64,
        max: usize,
    },
    Fixed {
        size: usize,
    },
}

impl Kind {
    /// Calls `chunk` for every chunk of `data`.
    fn cut<'a>(&self, data: &'a [u8], mut chunk: impl FnMut(&'a [u8])) {
        match *self {
            Kind::Min { cdc, min, max } => cut(data, |rest| mincdc_next(&cdc, min, max, rest), chunk),
            Kind::Fast { min, avg, max, level } => {
                for c in FastCDC::with_level(data, min, avg, max, level) {
                    chunk(&data[c.offset..c.offset + c.length]);
                }
            }
            Kind::Gear { min, mask, max } => cut(data, |rest| gear_next(min, mask, max, rest), chunk),
            Kind::Fixed { size } => data.chunks(size).for_each(&mut chunk),
        }
    }
}

fn gear_next(min: usize, mask: u64, max: usize, data: &[u8]) -> usize {
    if data.len() <= min {
        return data.len();
    }
    // 64 bytes are all that the hash remembers.
    let start = min - 64;
    let mut hasher = gearhash::Hasher::default();
    hasher.update(&data[start..min]);
    let window = &data[min..data.len().min(max)];
    hasher
        .next_match(window, mask)
        .map_or(min + window.len(), |at| min + at)
}

struct Config {
    name: String,
    kind: Kind,
    all_frames: bool,
}

fn configs() -> Vec<Config> {
    let mut list = Vec::new();
    let mut min = |low: usize, high: usize, all: bool| {
        list.push(Config {
            name: format!("mincdc {low}-{high}"),
            kind: Kind::Min {
                cdc: MinCdcHash4::new(),
                min: low * KIB,
                max: high * KIB,
            },
            all_frames: all,
        });
    };
    min(32, 96, true);
    min(16, 112, false);
    min(24, 72, false);
    min(16, 64, false);
    min(16, 48, true);
    min(8, 56, false);
    min(8, 24, true);
    min(4, 28, false);
    for (low, avg, high) in [(16, 64, 256), (8, 32, 128), (4, 16, 64)] {
        let (min, avg_b, max) = (low * KIB, avg * KIB, high * KIB);
        list.push(Config {
            name: format!("fastcdc {low}/{avg}/{high}"),
            kind: Kind::Fast {
                min,
                avg: avg_b,
                max,
                level: Normalization::Level1,
            },
            all_frames: false,
        });
    }
    for (low, bits, high) in [(32, 15, 192), (16, 14, 96), (8, 13, 48)] {
        let kind = Kind::Gear {
            min: low * KIB,
            mask: !0 << (64 - bits),
            max: high * KIB,
        };
        list.push(Config {
            name: format!("gearhash {low}+2^{bits}, <={high}"),
            kind,
            all_frames: false,
        });
    }
    list.push(Config {
        name: "fixed 64".into(),
        kind: Kind::Fixed { size: 64 * KIB },
        all_frames: false,
    });
    list
}

/// Compresses what it is given in solid frames and counts.
struct Frame {
    size: usize,
    buffer: Vec<u8>,
    out: Vec<u8>,
    compressed: u64,
    codec: zstd::bulk::Compressor<'static>,
}

impl Frame {
    fn new(size: usize) -> io::Result<Self> {
        let out = vec![0; zstd::zstd_safe::compress_bound(size + 256 * KIB)];
        Ok(Self {
            size,
            buffer: Vec::new(),
            out,
            compressed: 0,
            codec: zstd::bulk::Compressor::new(3)?,
        })
    }

    fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        if !self.buffer.is_empty() && self.buffer.len() + chunk.len() > self.size {
            self.flush()?;
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            let length = self.codec.compress_to_buffer(&self.buffer, &mut self.out[..])?;
            self.compressed += length.min(self.buffer.len()) as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[derive(Default)]
struct Tally {
    seen: HashSet<Id>,
    chunks: u64,
    bytes: u64,
    /// Chunks and bytes of files that are larger than one chunk can be.
    large: (u64, u64),
    new_chunks: u64,
    new_bytes: u64,
    cut_s: f64,
    frames: Vec<Frame>,
}

impl Tally {
    fn batch(&mut self, kind: &Kind, data: &[u8], ends: &[usize]) -> io::Result<()> {
        let mut list: Vec<&[u8]> = Vec::with_capacity(2 * ends.len() + data.len() / (2 * KIB));
        let mut files = Vec::with_capacity(ends.len());
        let started = cpu_s();
        let mut from = 0;
        for &end in ends {
            kind.cut(&data[from..end], |chunk| list.push(chunk));
            files.push(list.len());
            from = end;
        }
        self.cut_s += cpu_s() - started;
        let mut first = 0;
        for past in files {
            let chunks = &list[first..past];
            if chunks.len() > 1 {
                self.large.0 += chunks.len() as u64;
                self.large.1 += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            }
            first = past;
        }
        for chunk in list {
            self.chunks += 1;
            self.bytes += chunk.len() as u64;
            if self.seen.insert(id(chunk)) {
                self.new_chunks += 1;
                self.new_bytes += chunk.len() as u64;
                for frame in &mut self.frames {
                    frame.add(chunk)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the counts, not the chunks seen.
    fn restart(&mut self) {
        *self = Tally {
            seen: std::mem::take(&mut self.seen),
            ..Tally::default()
        };
    }
}

fn id(chunk: &[u8]) -> Id {
    let mut short = Id::default();
    short.copy_from_slice(&blake3::hash(chunk).as_bytes()[..16]);
    short
}

fn over_batches(list: &[Item], mut run: impl FnMut(&[u8], &[usize]) -> io::Result<()>) -> io::Result<()> {
    let (mut buffer, mut ends) = (Vec::new(), Vec::new());
    for item in list {
        read(item, &mut buffer)?;
        ends.push(buffer.len());
        if buffer.len() >= BATCH_BYTES {
            run(&buffer, &ends)?;
            buffer.clear();
            ends.clear();
        }
    }
    run(&buffer, &ends)
}

/// New bytes that one byte inserted at a random place costs: mean, median, 95th percentile.
fn resync(kind: &Kind, data: &[u8], trials: usize) -> (f64, usize, usize) {
    let mut ends = HashSet::new();
    let mut order = vec![0usize];
    kind.cut(data, |chunk| {
        let end = order.last().copied().unwrap_or(0) + chunk.len();
        ends.insert(end);
        order.push(end);
    });
    let (mut costs, mut state) = (Vec::new(), 0x9e37_79b9_7f4a_7c15u64);
    while costs.len() < trials {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 16) as usize % (data.len() - (17 << 20));
        if data[at..at + 64].iter().all(|&byte| byte == data[at]) {
            continue; // inside a hole
        }
        let start = order[order.partition_point(|&end| end <= at) - 1];
        let mut edited = data[start..at].to_vec();
        edited.push(b'#');
        edited.extend_from_slice(&data[at..(at + (16 << 20)).min(data.len())]);
        let (mut end, mut cost) = (0, None);
        kind.cut(&edited, |chunk| {
            end += chunk.len();
            if cost.is_none() && start + end > at && ends.contains(&(start + end - 1)) {
                cost = Some(end);
            }
        });
        costs.push(cost.unwrap_or(edited.len()));
    }
    costs.sort_unstable();
    let mean = costs.iter().sum::<usize>() as f64 / costs.len() as f64;
    (mean, costs[costs.len() / 2], costs[costs.len() * 95 / 100])
}

fn in_cache(kind: &Kind, data: &[u8]) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let started = cpu_s();
        for _ in 0..64 {
            kind.cut(black_box(data), |chunk| {
                black_box(chunk.len());
            });
        }
        best = best.min(cpu_s() - started);
    }
    64.0 * data.len() as f64 / best / 1e9
}

/// Bytes without structure.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// The image with 40 insertions of 1 to 4096 bytes and 40 removals, spread evenly; and the bytes inserted.
fn shifted(image: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(image.len() + (1 << 20));
    let (step, mut inserted) = (image.len() / 80, 0);
    for (number, part) in image.chunks(step).enumerate() {
        let count = (number * 397) % 4096 + 1;
        if number % 2 == 0 {
            out.extend((0..count).map(|i| (i * 31 + number) as u8));
            out.extend_from_slice(part);
            inserted += count;
        } else {
            out.extend_from_slice(&part[count.min(part.len())..]);
        }
    }
    (out, inserted)
}

/// Ways to group the unique chunks of `config` into frames and to compress them.
fn frame_variants(config: &Config, list: &[Item]) -> io::Result<()> {
    use zstd::zstd_safe::CParameter::{ChainLog, HashLog, WindowLog};
    const CLASSES: usize = 16;
    let plain = |size| Frame::new(size).map(|frame| vec![frame]);
    let sorted = |size| (0..CLASSES).map(|_| Frame::new(size)).collect::<Result<Vec<_>, _>>();
    let tuned = |size, parameters: &[zstd::zstd_safe::CParameter]| -> io::Result<Vec<Frame>> {
        let mut frame = Frame::new(size)?;
        for &parameter in parameters {
            frame.codec.set_parameter(parameter)?;
        }
        Ok(vec![frame])
    };
    let mut variants = [
        ("1 MiB, in the order of the walk", plain(FRAMES[1])?),
        ("1 MiB, 16 open frames by file name extension", sorted(FRAMES[1])?),
        (
            "1 MiB, hash and chain tables of 2^18",
            tuned(FRAMES[1], &[HashLog(18), ChainLog(18)])?,
        ),
        ("2 MiB", plain(FRAMES[2])?),
        ("2 MiB, 16 open frames by extension", sorted(FRAMES[2])?),
        ("4 MiB", plain(FRAMES[3])?),
        ("4 MiB, window of 4 MiB", tuned(FRAMES[3], &[WindowLog(22)])?),
        ("4 MiB, 16 open frames by extension", sorted(FRAMES[3])?),
    ];
    let (mut seen, mut data) = (HashSet::new(), Vec::new());
    let mut seconds = vec![0.0; variants.len()];
    for item in list {
        data.clear();
        read(item, &mut data)?;
        let extension = item.path.extension().unwrap_or_default().as_encoded_bytes();
        let class = usize::from(blake3::hash(extension).as_bytes()[0]) % CLASSES;
        let mut fresh = Vec::new();
        config.kind.cut(&data, |chunk| {
            if seen.insert(id(chunk)) {
                fresh.push(chunk);
            }
        });
        for ((_, frames), spent) in variants.iter_mut().zip(&mut seconds) {
            let started = cpu_s();
            let at = class % frames.len();
            fresh.iter().try_for_each(|chunk| frames[at].add(chunk))?;
            *spent += cpu_s() - started;
        }
    }
    println!(
        "\nFrames of {}:\n\n| frames | stored MB | CPU s |\n|---|---|---|",
        config.name
    );
    for ((name, frames), spent) in variants.iter_mut().zip(seconds) {
        frames.iter_mut().try_for_each(Frame::flush)?;
        println!(
            "| {name} | {:.1} | {spent:.1} |",
            mb(frames.iter().map(|frame| frame.compressed).sum())
        );
    }
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn main() -> io::Result<()> {
    let quick = std::env::args().any(|word| word == "--quick");
    let roots: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let [base, rest @ ..] = roots.as_slice() else {
        eprintln!("usage: chunkers BASE [CHANGED] [--quick]");
        std::process::exit(2);
    };
    let whole = u64::MAX;
    let base_items = items(Path::new(base), whole)?;
    let changed_items = rest.first().map(|path| items(Path::new(path), whole)).transpose()?;
    let configs = configs();
    if std::env::args().any(|word| word == "--frames") {
        return configs
            .iter()
            .filter(|config| config.all_frames)
            .try_for_each(|config| frame_variants(config, &base_items));
    }
    let mut tallies: Vec<Tally> = configs.iter().map(|_| Tally::default()).collect();
    if !quick {
        for (config, tally) in configs.iter().zip(&mut tallies) {
            let sizes: &[usize] = if config.all_frames { &FRAMES } else { &FRAMES[1..2] };
            tally.frames = sizes.iter().map(|&size| Frame::new(size)).collect::<Result<_, _>>()?;
            if config.all_frames {
                tally.frames.push(Frame::new(1)?); // every chunk alone
            }
        }
    }
    over_batches(&base_items, |data, ends| {
        configs
            .iter()
            .zip(&mut tallies)
            .try_for_each(|(config, tally)| tally.batch(&config.kind, data, ends))
    })?;
    for tally in &mut tallies {
        tally.frames.iter_mut().try_for_each(Frame::flush)?;
    }

    let image = std::fs::read(Path::new(base).join("vm/disk.img"))?;
    let sample = noise(1 << 20);
    println!("{} files, {:.0} MB\n", base_items.len(), mb(tallies[0].bytes));
    println!(
        "| chunker (KiB) | GB/s, noise in cache | GB/s on the set | chunks | unique chunks | mean KiB, files of several | unique MB | ratio | stored MB, 1 MiB frames |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (config, tally) in configs.iter().zip(&tallies) {
        let (cached, whole) = match config.kind {
            Kind::Fixed { .. } => ("-".into(), "-".into()),
            _ => (
                format!("{:.1}", in_cache(&config.kind, &sample)),
                format!("{:.1}", tally.bytes as f64 / tally.cut_s / 1e9),
            ),
        };
        let one = tally
            .frames
            .iter()
            .find(|frame| frame.size == FRAMES[1])
            .map_or(0, |frame| frame.compressed);
        println!(
            "| {} | {cached} | {whole} | {} | {} | {:.1} | {:.1} | {:.3} | {:.1} |",
            config.name,
            tally.chunks,
            tally.new_chunks,
            tally.large.1 as f64 / tally.large.0.max(1) as f64 / 1024.0,
            mb(tally.new_bytes),
            tally.bytes as f64 / tally.new_bytes as f64,
            mb(one),
        );
    }
    if !quick {
        println!(
            "\n| chunker (KiB) | chunk alone, MB | 256 KiB frames | 1 MiB | 2 MiB | 4 MiB |\n|---|---|---|---|---|---|"
        );
        for (config, tally) in configs.iter().zip(&tallies).filter(|(config, _)| config.all_frames) {
            let size = |wanted| {
                tally
                    .frames
                    .iter()
                    .find(|frame| frame.size == wanted)
                    .map_or(0.0, |frame| mb(frame.compressed))
            };
            println!(
                "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                config.name,
                size(1),
                size(FRAMES[0]),
                size(FRAMES[1]),
                size(FRAMES[2]),
                size(FRAMES[3])
            );
        }
    }

    for (number, tally) in tallies.iter_mut().enumerate() {
        tally.restart();
        if !quick && number < configs.len() {
            tally.frames = vec![Frame::new(FRAMES[1])?];
        }
    }
    if let Some(list) = &changed_items {
        over_batches(list, |data, ends| {
            configs
                .iter()
                .zip(&mut tallies)
                .try_for_each(|(config, tally)| tally.batch(&config.kind, data, ends))
        })?;
    }
    let (moved, inserted) = shifted(&image);
    println!(
        "\nShifted image: {:.0} MB, 80 places, {:.2} MB inserted.\n",
        mb(moved.len() as u64),
        mb(inserted as u64)
    );
    println!(
        "| chunker (KiB) | new MB after the 1 % change | compressed | new MB of the shifted image | KiB per place | one byte inserted: mean KiB | median | 95 % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (config, tally) in configs.iter().zip(&mut tallies) {
        tally.frames.iter_mut().try_for_each(Frame::flush)?;
        let (chunks, bytes) = (tally.new_chunks, tally.new_bytes);
        let compressed = tally.frames.first().map_or(0, |frame| frame.compressed);
        tally.restart();
        tally.batch(&config.kind, &moved, &[moved.len()])?;
        let shift = tally.new_bytes;
        let (mean, median, high) = if matches!(config.kind, Kind::Fixed { .. }) {
            (0.0, 0, 0)
        } else {
            resync(&config.kind, &image, 400)
        };
        println!(
            "| {} | {:.1} ({chunks} chunks) | {:.1} | {:.1} | {:.0} | {:.0} | {} | {} |",
            config.name,
            mb(bytes),
            mb(compressed),
            mb(shift),
            shift as f64 / 80.0 / 1024.0,
            mean / 1024.0,
            median / 1024,
            high / 1024,
        );
    }

    println!("\nMultipliers of MinCDC 16-112 (a keyed vault draws its own):\n");
    println!(
        "| multiplier, addend | unique MB | mean KiB, files of several | shifted image, new MB |\n|---|---|---|---|"
    );
    let large: Vec<_> = base_items.into_iter().filter(|item| item.length > 16 << 10).collect();
    let mut pairs = vec![
        (0x915f_77f5, 0x3463_6463),
        (0xdead_beef, 7),
        (0xdead_beef, 0x8000_0007),
        (1, 0),
        (1, 0x8000_0000),
    ];
    let words: Vec<u32> = noise(64)
        .chunks_exact(4)
        .map(|word| word.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
        .collect();
    pairs.extend(words.chunks_exact(2).map(|pair| (pair[0] | 1, pair[1])));
    for (multiplier, addend) in pairs {
        let kind = Kind::Min {
            cdc: MinCdcHash4::with_params(multiplier, addend),
            min: 16 * KIB,
            max: 112 * KIB,
        };
        let mut tally = Tally::default();
        over_batches(&large, |data, ends| tally.batch(&kind, data, ends))?;
        let (unique, mean) = (tally.new_bytes, tally.large.1 as f64 / tally.large.0 as f64 / 1024.0);
        tally.restart();
        tally.batch(&kind, &moved, &[moved.len()])?;
        println!(
            "| {multiplier:#010x}, {addend:#010x} | {:.1} | {mean:.1} | {:.1} |",
            mb(unique),
            mb(tally.new_bytes)
        );
    }
    Ok(())
}
