//! Memory stays within its budget however many chunks there are (I7).

use std::fs;

use drystone_index::{Index, Options};

use crate::{
    child,
    make::{chunk, pack},
};

const CHUNKS_PER_PACK: u64 = 500;

/// Peak memory of this process, bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn fill_and_look_up(packs: u64, memory_bytes: usize, limit_bytes: u64) {
    let Some((dir, _)) = child::started_with() else { return };
    let options = Options { memory_bytes };
    let index = Index::open(&dir, options).unwrap();
    for number in 0..packs {
        index
            .insert(pack(number, number * CHUNKS_PER_PACK..(number + 1) * CHUNKS_PER_PACK))
            .unwrap();
    }
    index.flush().unwrap();
    index.merge().unwrap();
    drop(index);
    let index = Index::open(&dir, options).unwrap();
    let chunks = packs * CHUNKS_PER_PACK;
    for number in (0..chunks).step_by(97) {
        assert!(index.contains(&chunk(number)).unwrap());
        assert!(!index.contains(&chunk(chunks + number)).unwrap());
    }
    assert_eq!((index.stats().packs, index.stats().chunks), (packs, chunks));
    let mut count = 0;
    index
        .scan(&mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(count, chunks);
    let peak = peak_bytes();
    assert!(
        peak <= limit_bytes,
        "peak memory is {peak} bytes, the limit {limit_bytes}"
    );
    println!("peak memory: {} MiB for {chunks} chunks", peak >> 20);
}

fn run(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = child::start(name, dir.path(), 0).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text.lines().find(|line| line.contains("peak memory"));
    println!("{}", line.unwrap());
}

#[test]
#[ignore = "started by a_million_chunks_in_32_mib"]
fn million_child() {
    fill_and_look_up(2_000, 8 << 20, 32 << 20);
}

#[test]
fn a_million_chunks_in_32_mib() {
    run("memory::million_child");
}

#[test]
#[ignore = "started by ten_million_chunks_in_256_mib"]
fn ten_million_child() {
    fill_and_look_up(20_000, 128 << 20, 256 << 20);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes unoptimised; run with --release")]
fn ten_million_chunks_in_256_mib() {
    run("memory::ten_million_child");
}
