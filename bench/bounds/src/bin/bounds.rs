//! Measures what this machine can do at best for a first backup of a data set, and prints it as JSON.
//!
//! `bounds DATA --scratch DIR [--threads N] [--min BYTES] [--max BYTES]`
//!
//! - The work is the least that an encrypting, deduplicating backup can do: cut with MinCDC and hash (keyed BLAKE3) every
//!   byte, compress (zstd 3, groups of 1 MiB) and seal (AES-256-GCM) every byte that is new. Nothing is stored meanwhile.
//! - Stages are measured in CPU seconds of the threads that ran them, on all cores at once; the bound in wall time is
//!   their sum divided by the cores, as if no core ever waited.
//! - Reading is measured apart: opening and copying out of the page cache is the kernel's work, not the kernels'.
//! - The disk writes as many bytes as were sealed, in files of 32 MiB, each synced, in DIR, and removes them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bounds::{Item, PIECE_BYTES, cpu_s, cut, items, mincdc_next, read};
use mincdc::MinCdcHash4;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const GROUP_BYTES: usize = 1 << 20;
/// A thread takes consecutive items of about this many bytes at once.
const TURN_BYTES: u64 = 4 << 20;
const FILE_BYTES: usize = 32 << 20;
/// Locks of the set of seen chunks.
const SHARDS: usize = 64;

struct Options {
    data: PathBuf,
    scratch: PathBuf,
    threads: usize,
    min: usize,
    max: usize,
}

#[derive(Default, Clone, Copy)]
struct Sums {
    bytes: u64,
    chunks: u64,
    unique_chunks: u64,
    unique_bytes: u64,
    sealed_bytes: u64,
    read_s: f64,
    chunk_s: f64,
    hash_s: f64,
    admit_s: f64,
    compress_s: f64,
    seal_s: f64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.unique_chunks += other.unique_chunks;
        self.unique_bytes += other.unique_bytes;
        self.sealed_bytes += other.sealed_bytes;
        self.read_s += other.read_s;
        self.chunk_s += other.chunk_s;
        self.hash_s += other.hash_s;
        self.admit_s += other.admit_s;
        self.compress_s += other.compress_s;
        self.seal_s += other.seal_s;
    }

    /// CPU seconds of the kernels alone.
    fn kernels_s(&self) -> f64 {
        self.chunk_s + self.hash_s + self.compress_s + self.seal_s
    }
}

/// Adds the CPU time since the last call to a sum.
struct Lap(f64);

impl Lap {
    fn to(&mut self, sum: &mut f64) {
        let now = cpu_s();
        *sum += now - self.0;
        self.0 = now;
    }
}

/// New chunks waiting to be compressed and sealed together.
struct Group {
    plain: Vec<u8>,
    sealed: Vec<u8>,
    codec: zstd::bulk::Compressor<'static>,
    key: LessSafeKey,
    count: u64,
}

impl Group {
    fn new() -> io::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| io::Error::other("key"))?;
        Ok(Self {
            plain: Vec::with_capacity(2 * GROUP_BYTES),
            sealed: Vec::with_capacity(zstd::zstd_safe::compress_bound(2 * GROUP_BYTES)),
            codec: zstd::bulk::Compressor::new(3)?,
            key: LessSafeKey::new(key),
            count: 0,
        })
    }

    fn finish(&mut self, sums: &mut Sums) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let mut lap = Lap(cpu_s());
        self.sealed.clear();
        self.codec.compress_to_buffer(&self.plain, &mut self.sealed)?;
        if self.sealed.len() >= self.plain.len() {
            self.sealed.clone_from(&self.plain);
        }
        lap.to(&mut sums.compress_s);
        self.count += 1;
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.sealed)
            .map_err(|_| io::Error::other("seal"))?;
        lap.to(&mut sums.seal_s);
        sums.sealed_bytes += self.sealed.len() as u64;
        self.plain.clear();
        Ok(())
    }
}

/// Runs of neighbouring items, each worth a turn.
fn turns(list: &[Item]) -> Vec<&[Item]> {
    let (mut out, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, item) in list.iter().enumerate() {
        bytes += item.length;
        if bytes >= TURN_BYTES {
            out.push(&list[from..=at]);
            (from, bytes) = (at + 1, 0);
        }
    }
    out.push(&list[from..]);
    out
}

fn worker(
    options: &Options,
    turns: &[&[Item]],
    next: &AtomicUsize,
    seen: &[Mutex<HashSet<[u8; 32]>>],
) -> io::Result<Sums> {
    let mut sums = Sums::default();
    let mut group = Group::new()?;
    let mut buffer = Vec::with_capacity((PIECE_BYTES + TURN_BYTES) as usize);
    let cdc = MinCdcHash4::new();
    while let Some(turn) = turns.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut lap = Lap(cpu_s());
        buffer.clear();
        let mut ends = Vec::with_capacity(turn.len());
        for item in *turn {
            read(item, &mut buffer)?;
            ends.push(buffer.len());
        }
        sums.bytes += buffer.len() as u64;
        lap.to(&mut sums.read_s);
        let (mut chunks, mut from) = (Vec::with_capacity(2 * turn.len() + 1024), 0);
        for end in ends {
            cut(
                &buffer[from..end],
                |rest| mincdc_next(&cdc, options.min, options.max, rest),
                |chunk| chunks.push(chunk),
            );
            from = end;
        }
        lap.to(&mut sums.chunk_s);
        let ids: Vec<[u8; 32]> = chunks
            .iter()
            .map(|chunk| *blake3::keyed_hash(&[9; 32], chunk).as_bytes())
            .collect();
        lap.to(&mut sums.hash_s);
        sums.chunks += chunks.len() as u64;
        for (chunk, id) in chunks.iter().zip(ids) {
            let Ok(mut shard) = seen[usize::from(id[0]) % SHARDS].lock() else {
                return Err(io::Error::other("a thread died"));
            };
            let fresh = shard.insert(id);
            drop(shard);
            if fresh {
                sums.unique_chunks += 1;
                sums.unique_bytes += chunk.len() as u64;
                group.plain.extend_from_slice(chunk);
                if group.plain.len() >= GROUP_BYTES {
                    lap.to(&mut sums.admit_s);
                    group.finish(&mut sums)?;
                    lap = Lap(cpu_s());
                }
            }
        }
        lap.to(&mut sums.admit_s);
    }
    group.finish(&mut sums)?;
    Ok(sums)
}

fn pipeline(options: &Options, list: &[Item]) -> io::Result<(Sums, f64)> {
    let turns = turns(list);
    let next = AtomicUsize::new(0);
    let seen: Vec<_> = (0..SHARDS).map(|_| Mutex::new(HashSet::new())).collect();
    let started = Instant::now();
    let mut sums = Sums::default();
    std::thread::scope(|scope| -> io::Result<()> {
        let threads: Vec<_> = (0..options.threads)
            .map(|_| scope.spawn(|| worker(options, &turns, &next, &seen)))
            .collect();
        for thread in threads {
            sums.add(thread.join().map_err(|_| io::Error::other("a thread died"))??);
        }
        Ok(())
    })?;
    Ok((sums, started.elapsed().as_secs_f64()))
}

/// Seconds to write and sync `bytes` bytes that do not compress.
fn disk(scratch: &Path, bytes: u64) -> io::Result<f64> {
    let folder = scratch.join("bounds-disk");
    std::fs::create_dir_all(&folder)?;
    let mut noise = vec![0; FILE_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let started = Instant::now();
    for number in 0..bytes.div_ceil(FILE_BYTES as u64) {
        let mut file = File::create(folder.join(number.to_string()))?;
        let length = (bytes - number * FILE_BYTES as u64).min(FILE_BYTES as u64) as usize;
        file.write_all(&noise[..length])?;
        file.sync_all()?;
    }
    let elapsed = started.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&folder)?;
    Ok(elapsed)
}

fn options() -> Option<Options> {
    let mut words = std::env::args().skip(1);
    let (mut data, mut scratch, mut threads, mut min, mut max) = (None, None, None, 16 << 10, 48 << 10);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--scratch" => scratch = Some(words.next()?.into()),
            "--threads" => threads = Some(words.next()?.parse().ok()?),
            "--min" => min = words.next()?.parse().ok()?,
            "--max" => max = words.next()?.parse().ok()?,
            _ => data = Some(word.into()),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Options {
        data: data?,
        scratch: scratch?,
        threads: threads.unwrap_or(cores),
        min,
        max,
    })
}

fn main() -> io::Result<()> {
    let Some(options) = options() else {
        eprintln!("usage: bounds DATA --scratch DIR [--threads N] [--min BYTES] [--max BYTES]");
        std::process::exit(2);
    };
    let list = items(&options.data, PIECE_BYTES)?;
    let (sums, pipeline_wall_s) = pipeline(&options, &list)?;
    let disk_s = disk(&options.scratch, sums.sealed_bytes)?;
    let kernels_s = sums.kernels_s();
    let threads = options.threads as f64;
    let Sums {
        bytes,
        chunks,
        unique_chunks,
        unique_bytes,
        sealed_bytes,
        read_s,
        chunk_s,
        hash_s,
        admit_s,
        compress_s,
        seal_s,
    } = sums;
    println!(
        "{{\"threads\": {threads}, \"chunk_min\": {}, \"chunk_max\": {},\n \"bytes\": {bytes}, \"chunks\": {chunks}, \
         \"unique_chunks\": {unique_chunks}, \"unique_bytes\": {unique_bytes}, \"sealed_bytes\": {sealed_bytes},\n \
         \"read_cpu_s\": {read_s:.3}, \"chunk_cpu_s\": {chunk_s:.3}, \"hash_cpu_s\": {hash_s:.3}, \"admit_cpu_s\": {admit_s:.3}, \
         \"compress_cpu_s\": {compress_s:.3}, \"seal_cpu_s\": {seal_s:.3},\n \"pipeline_wall_s\": {pipeline_wall_s:.3}, \
         \"disk_write_s\": {disk_s:.3}, \"disk_write_mb_per_s\": {:.0},\n \"kernels_cpu_s\": {kernels_s:.3}, \
         \"with_reading_cpu_s\": {:.3},\n \"bound_cpu_s\": {kernels_s:.3}, \"bound_wall_s\": {:.3}, \"bound_with_reading_wall_s\": {:.3}}}",
        options.min,
        options.max,
        sealed_bytes as f64 / disk_s / 1e6,
        kernels_s + read_s,
        (kernels_s / threads).max(disk_s),
        ((kernels_s + read_s) / threads).max(disk_s),
    );
    Ok(())
}
