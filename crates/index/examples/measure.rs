//! Measures the index: `measure [packs] [chunks per pack] [memory in MiB]`; prints wall and CPU time per operation.

#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::{env, error::Error, fs, hint::black_box, time::Instant};

use drystone_index::{Index, Options};

#[path = "../tests/main/make.rs"]
mod make;

use make::{chunk, pack};

/// Wall and CPU seconds so far.
struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn report(&self, what: &str, operations: u64) {
        let (wall, cpu) = (self.0.elapsed().as_secs_f64(), cpu_seconds() - self.1);
        let each = 1e6 / operations.max(1) as f64;
        println!(
            "{what:32} {:8.3} us wall {:8.3} us CPU each, {wall:7.3} s in all",
            wall * each,
            cpu * each
        );
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |place: usize, default: u64| numbers.get(place).copied().unwrap_or(default);
    let (packs, per_pack, mebibytes) = (number(0, 20_000), number(1, 500), number(2, 128));
    let options = Options {
        memory_bytes: (mebibytes as usize) << 20,
    };
    let chunks = packs * per_pack;
    let dir = tempfile::tempdir()?;

    let clock = Clock::start();
    for number in 0..packs {
        black_box(pack(number, number * per_pack..(number + 1) * per_pack));
    }
    clock.report("(making the packs)", chunks);
    let index = Index::open(dir.path(), options)?;
    let clock = Clock::start();
    for number in 0..packs {
        index.insert(pack(number, number * per_pack..(number + 1) * per_pack))?;
    }
    index.flush()?;
    clock.report("insert (making included)", chunks);
    println!("{:?} {}", index.stats(), memory());
    look_up(&index, chunks)?;
    let clock = Clock::start();
    index.merge()?;
    clock.report("merge", chunks);
    println!("{:?} {}", index.stats(), memory());
    look_up(&index, chunks)?;
    drop(index);

    let clock = Clock::start();
    let index = Index::open(dir.path(), options)?;
    clock.report("open", 1);
    let clock = Clock::start();
    index.retain(&|_| true)?;
    clock.report("retain", packs);
    let clock = Clock::start();
    let mut count = 0u64;
    index.scan(&mut |_, _| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    clock.report("scan", count);
    let clock = Clock::start();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| hits(&index, chunks, 1_000_000)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_or(0, |found| found.unwrap_or(0)))
            .sum::<u64>()
    });
    clock.report("hit, two threads", 2_000_000);
    println!("{:?} {}", index.stats(), memory());
    Ok(())
}

fn look_up(index: &Index, chunks: u64) -> Result<(), Box<dyn Error>> {
    let count = 1_000_000;
    let clock = Clock::start();
    for number in 0..count {
        black_box(chunk(number));
    }
    clock.report("(making ids)", count);
    let clock = Clock::start();
    let found = hits(index, chunks, count)?;
    clock.report("hit", count);
    let clock = Clock::start();
    let mut wrong = 0u64;
    for number in 0..count {
        wrong += u64::from(index.contains(&chunk(chunks + number))?);
    }
    clock.report("miss", count);
    if found != count || wrong != 0 {
        return Err(format!("{found} of {count} found, {wrong} found that are not there").into());
    }
    Ok(())
}

fn hits(index: &Index, chunks: u64, count: u64) -> drystone_index::Result<u64> {
    let mut found = 0;
    for number in 0..count {
        // A large odd step visits the chunks in no order.
        found += u64::from(
            index
                .get(&chunk(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % chunks))?
                .is_some(),
        );
    }
    Ok(found)
}
