//! What the programs here have in common: a vault's surroundings, clocks, and figures of many measurements.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drystone_format::tree::Time;
use drystone_vault::{Accept, Clock, Context, Entropy};

struct Now;

impl Clock for Now {
    fn now(&self) -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Time {
            seconds: now.as_secs() as i64,
            nanos: now.subsec_nanos(),
        }
    }
}

struct System;

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
}

fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let start = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    RUNTIME.get_or_init(start).handle().clone()
}

/// What a vault is opened with, with its cache in `work`.
pub fn context(work: &Path, memory_mib: usize) -> Context {
    Context {
        clock: Arc::new(Now),
        entropy: Arc::new(System),
        runtime: runtime(),
        threads: std::thread::available_parallelism().map_or(2, |count| count.get()),
        memory_bytes: memory_mib << 20,
        cache_dir: work.join("cache"),
        known_dir: work.join("known"),
        chunk_map: None,
        accept: Accept::default(),
    }
}

/// Processor time of this process so far.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Largest resident set of this process so far, MiB.
pub fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Mean, median and 99th percentile in microseconds.
pub fn shown(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |share: f64| us(times[((times.len() - 1) as f64 * share) as usize]);
    let mean = times.iter().copied().map(us).sum::<f64>() / times.len() as f64;
    format!("mean {mean:8.1}  median {:8.1}  p99 {:8.1} us", at(0.5), at(0.99))
}

/// Numbers that look random, the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}
