//! Measures the state database: `measure_state [directories] [bytes per directory]`, as a first and an unchanged run use it.

#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::{env, error::Error, fs, thread, time::Instant};

use drystone_index::State;

const SOURCE: [u8; 16] = [1; 16];

fn key(number: u64) -> [u8; 16] {
    // Keys are hashes of paths: in no order.
    (u128::from(number) + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        .to_be_bytes()
}

fn timed<T, E: Error + 'static>(what: &str, run: impl FnOnce() -> Result<T, E>) -> Result<T, Box<dyn Error>> {
    let start = Instant::now();
    let value = run()?;
    println!("{what:40} {:9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(value)
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (dirs, bytes) = (
        numbers.first().copied().unwrap_or(10_000),
        numbers.get(1).copied().unwrap_or(1_000),
    );
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("state");
    let state = timed("begin", || State::open(&path))?;
    timed("first run: write all directories", || {
        let mut writer = state.writer(SOURCE)?;
        for number in 0..dirs {
            writer.replace_dir(&key(number), 1, vec![vec![number as u8; bytes as usize]])?;
        }
        writer.finish()
    })?;
    timed("close", || {
        drop(state);
        Ok::<_, drystone_index::Error>(())
    })?;
    for threads in [1, 2] {
        let state = timed("unchanged run: open", || State::open(&path))?;
        let seen = state.seen(&SOURCE)?;
        timed(&format!("unchanged run: read all, {threads} threads"), || {
            thread::scope(|scope| {
                let parts: Vec<_> = (0..threads)
                    .map(|part| {
                        let (state, seen) = (&state, &seen);
                        scope.spawn(move || {
                            let reader = state.reader()?;
                            for number in (part..dirs).step_by(threads as usize) {
                                seen.mark(&key(number));
                                reader.get_page(&SOURCE, &key(number), 0)?;
                            }
                            Ok::<_, drystone_index::Error>(())
                        })
                    })
                    .collect();
                parts.into_iter().try_for_each(|part| part.join().unwrap_or(Ok(())))
            })
        })?;
        timed("unchanged run: sweep and a fact", || {
            state.writer(SOURCE)?.sweep(&seen)?;
            state.set("last run", b"now")
        })?;
        timed("unchanged run: close", || {
            drop(state);
            Ok::<_, drystone_index::Error>(())
        })?;
    }
    let state = State::open(&path)?;
    timed("one directory changed", || {
        let mut writer = state.writer(SOURCE)?;
        writer.replace_dir(&key(0), 2, vec![vec![0; bytes as usize]])?;
        writer.finish()
    })?;
    let half = state.seen(&SOURCE)?;
    (0..dirs / 2).for_each(|number| half.mark(&key(number)));
    timed("half of the directories gone: sweep", || {
        state.writer(SOURCE)?.sweep(&half).map(drop)
    })?;
    for file in fs::read_dir(dir.path())? {
        let file = file?;
        println!("{:?} {} KiB", file.file_name(), file.metadata()?.len() >> 10);
    }
    Ok(())
}
