//! `random FILE WORK`: stores a file in frames of several sizes, each in a vault of its own, and reads 4 KiB of it here and there.
//!
//! - `warm`: out of 4 MiB of the file that were read before. `cold`: anywhere in the file, which the caches do not hold; once with the
//!   packs in the page cache, once without. `in order`: the whole file in steps of 128 KiB; `as a stream`: by chunks, as restore reads.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drystone_format::chunker::Sizes;
use drystone_format::codec::Compression;
use drystone_format::config::Trust;
use drystone_format::keys::Role;
use drystone_format::limits::{
    DATA_CHUNK_MAX_BYTES, DATA_CHUNK_MIN_BYTES, META_CHUNK_MAX_BYTES, META_CHUNK_MIN_BYTES,
};
use drystone_format::recipe::Recipe;
use drystone_store::{Local, Store};
use drystone_vault::{
    Cancel, CreateOptions, FileReader, FrameSize, IngestOptions, NewLock, NewSlot, Progress, Unlock, Vault,
    generate_key_file,
};
use reading::{Dice, context, cpu, shown};
use rustix::fs::{Advice, fadvise};

const PAGE: u64 = 4096;

fn create(work: &Path) -> (Vault, String) {
    let key = generate_key_file();
    let options = CreateOptions {
        data_sizes: Sizes::new(DATA_CHUNK_MIN_BYTES, DATA_CHUNK_MAX_BYTES).unwrap(),
        meta_sizes: Sizes::new(META_CHUNK_MIN_BYTES, META_CHUNK_MAX_BYTES).unwrap(),
        trust: Trust::Verified,
        slots: vec![NewSlot {
            lock: NewLock::Recipient(key.recipient),
            label: "bench".to_owned(),
            role: Role::Owner,
        }],
    };
    let store: Arc<dyn Store> = Arc::new(Local::create(&work.join("vault")).unwrap());
    (Vault::create(store, context(work, 64), &options).unwrap(), key.content.to_string())
}

fn store(vault: &Vault, path: &Path, frames: FrameSize) -> Recipe {
    let options = IngestOptions {
        compression: Compression::DEFAULT,
        frames,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    };
    let (ingest, mut file) = (vault.ingest(options).unwrap(), File::open(path).unwrap());
    let mut lane = ingest.lane();
    let mut content = lane.content();
    while content.fill(&mut |room| file.read(room)).unwrap() > 0 {}
    let recipe = content.finish().unwrap();
    lane.finish().unwrap();
    ingest.finish().unwrap();
    recipe
}

fn packs(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    below.flat_map(|path| if path.is_dir() { packs(&path) } else { vec![path] }).collect()
}

/// Takes the packs out of the page cache.
fn evict(work: &Path) {
    for path in packs(&work.join("vault/packs")) {
        let file = File::open(path).unwrap();
        rustix::fs::fsync(&file).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Reads pages of a range, prints how long that took: by the clock, and in processor time a read, which holds still on a busy machine.
fn reads(file: &FileReader, count: u64, seed: u64, range: std::ops::Range<u64>, what: &str) {
    let (mut dice, mut page) = (Dice::new(seed), [0; PAGE as usize]);
    let cpu_began = cpu();
    let read = |_| {
        let at = range.start + dice.below((range.end - range.start) / PAGE) * PAGE;
        let began = Instant::now();
        file.read_at(at, &mut page).unwrap();
        began.elapsed()
    };
    let times: Vec<Duration> = (0..count).map(read).collect();
    let cpu_us = (cpu() - cpu_began).as_secs_f64() * 1e6 / count as f64;
    println!("  {what:<18} {}  CPU {cpu_us:8.1} us", shown(times));
}

fn measure(path: &Path, work: &Path, frames: FrameSize, name: &str) {
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work).unwrap();
    let (vault, key) = create(work);
    let (began, cpu_began) = (Instant::now(), cpu());
    let recipe = store(&vault, path, frames);
    let (took, cpu_took) = (began.elapsed().as_secs_f64(), (cpu() - cpu_began).as_secs_f64());
    drop(vault);
    let stored: u64 = packs(&work.join("vault")).iter().map(|path| path.metadata().unwrap().len()).sum();
    println!("{name}: stored {:.1} MB, taken in in {took:.1} s, {cpu_took:.1} CPU s", stored as f64 / 1e6);
    let open = || {
        let store: Arc<dyn Store> = Arc::new(Local::open(&work.join("vault")).unwrap());
        let unlock = Unlock::key_file(&key, "bench", None).unwrap();
        let vault = Vault::open(store, context(work, 64), &unlock).unwrap();
        let reader = vault.reader().unwrap();
        (reader.file(&recipe).unwrap(), vault)
    };
    let (file, _vault) = open();
    let all = 0..file.len();
    let hot = all.end / 2..all.end / 2 + (4 << 20);
    for at in (hot.start..hot.end).step_by(PAGE as usize) {
        file.read_at(at, &mut [0; PAGE as usize]).unwrap();
    }
    reads(&file, 100_000, 1, hot.clone(), "warm");
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (file, hot) = (&file, hot.clone());
            scope.spawn(move || reads(file, 100_000, seed + 2, hot, "warm, 4 threads"));
        }
    });
    reads(&file, 2_000, 7, all.clone(), "cold, page cache");
    let (file, _vault) = open();
    evict(work);
    reads(&file, 500, 9, all.clone(), "cold, disk");
    let (file, vault) = open();
    let mb = file.len() as f64 / 1e6;
    let in_order = |what: &str, read: &mut dyn FnMut()| {
        let (began, cpu_began) = (Instant::now(), cpu());
        read();
        let (s, cpu_s) = (began.elapsed().as_secs_f64(), (cpu() - cpu_began).as_secs_f64());
        println!("  {what:<18} {:.0} MB/s, {:.2} CPU s a GB", mb / s, cpu_s / mb * 1e3);
    };
    in_order("in order", &mut || {
        let mut out = vec![0; 128 << 10];
        for at in (0..file.len()).step_by(out.len()) {
            file.read_at(at, &mut out).unwrap();
        }
    });
    let mut content = vault.reader().unwrap().content(&recipe);
    in_order("as a stream", &mut || while content.next_piece().unwrap().is_some() {});
}

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(file), Some(work)) = (args.next(), args.next()) else {
        eprintln!("usage: random FILE WORK");
        std::process::exit(2);
    };
    for kib in [64, 128, 256, 2048] {
        measure(&file, &work, FrameSize::new(kib << 10), &format!("frames of {kib} KiB"));
    }
}
