//! Shows how far long work is: a redrawn line on a terminal, plain or JSON lines at an interval elsewhere.
//!
//! - Standard error only; the line on a terminal is wiped before anything else is printed.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drystone_vault::Progress;
use serde_json::json;

use crate::args::ProgressForm;
use crate::context::App;
use crate::output::{count, counted, duration, object, put_bytes, shown, size};
use crate::terminal;

/// Time between two drawings on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Time constant of the average that rate and remaining time are computed from, seconds.
const AVERAGE_SECONDS: f64 = 10.0;
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;
/// Wipes the line and goes to its start.
const WIPE: &str = "\r\x1b[K";

/// The units that a command counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// The command, for JSON.
    pub(crate) verb: &'static str,
    /// What [`Progress::files`] counts.
    pub(crate) things: &'static str,
}

/// Shows progress until it is dropped.
pub(crate) struct Shown {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
enum Way {
    Line,
    Plain,
    Json,
}

impl Shown {
    /// What a command counts its work in, shown from now on.
    pub(crate) fn begin(app: &App, verb: &'static str, things: &'static str) -> (Arc<Progress>, Self) {
        let progress = Arc::new(Progress::default());
        let shown = Self::start(app, &progress, Counts { verb, things });
        (progress, shown)
    }

    /// Begins to show `progress`, as flags and terminal want it.
    pub(crate) fn start(app: &App, progress: &Arc<Progress>, counts: Counts) -> Self {
        let silent = app.out.quiet || app.out.is_json();
        let way = match app.settings.progress {
            ProgressForm::None => None,
            ProgressForm::Auto if silent => None,
            ProgressForm::Auto if terminal::is_there() => Some(Way::Line),
            ProgressForm::Auto | ProgressForm::Plain => Some(Way::Plain),
            ProgressForm::Json => Some(Way::Json),
        };
        let Some(way) = way else {
            return Self {
                stop: None,
                thread: None,
            };
        };
        let (stop, stopped) = channel();
        let interval = if matches!(way, Way::Line) {
            REDRAW
        } else {
            app.settings.progress_interval
        };
        let mut pace = Pace::new(progress.clone(), counts);
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                pace.update(Instant::now());
                // Standard error may be gone; the work is not.
                let _ = pace.show(way);
            }
            if matches!(way, Way::Line) {
                let _ = write!(io::stderr().lock(), "{WIPE}");
            }
        };
        let thread = std::thread::Builder::new()
            .name("drystone-progress".to_owned())
            .spawn(run)
            .ok();
        Self {
            stop: Some(stop),
            thread,
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked; if it did, the work is still what counts.
            let _ = thread.join();
        }
    }
}

/// Counters over time.
struct Pace {
    progress: Arc<Progress>,
    counts: Counts,
    start: Instant,
    last: Instant,
    last_bytes: u64,
    /// Bytes per second, averaged.
    rate: Option<f64>,
}

impl Pace {
    fn new(progress: Arc<Progress>, counts: Counts) -> Self {
        let now = Instant::now();
        Self {
            progress,
            counts,
            start: now,
            last: now,
            last_bytes: 0,
            rate: None,
        }
    }

    fn update(&mut self, now: Instant) {
        let seconds = now.duration_since(self.last).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let bytes = self.progress.bytes.load(Ordering::Relaxed);
        let current = bytes.saturating_sub(self.last_bytes) as f64 / seconds;
        let weight = 1.0 - (-seconds / AVERAGE_SECONDS).exp();
        self.rate = Some(self.rate.map_or(current, |rate| rate + (current - rate) * weight));
        (self.last, self.last_bytes) = (now, bytes);
    }

    /// Time to the end at the current rate, if the end is known.
    fn remaining(&self) -> Option<Duration> {
        let total = self.progress.total_bytes.load(Ordering::Relaxed);
        let left = total.checked_sub(self.last_bytes)?;
        let rate = self.rate.filter(|rate| *rate >= 1.0)?;
        (total > 0).then(|| Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX))
    }

    fn show(&self, way: Way) -> io::Result<()> {
        let mut to = io::stderr().lock();
        match way {
            Way::Line => {
                let columns = terminal::columns().unwrap_or(COLUMNS).saturating_sub(1);
                let mut line = self.line();
                let current = self.progress.current();
                if !current.is_empty() {
                    line = format!("{line}  {}", shown(&current));
                }
                write!(to, "{WIPE}{}", line.chars().take(columns).collect::<String>())?;
                to.flush()
            }
            Way::Plain => writeln!(to, "{}", self.line()),
            Way::Json => writeln!(to, "{}", self.json()),
        }
    }

    fn line(&self) -> String {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (files, total_files) = (load(&self.progress.files), load(&self.progress.total_files));
        let (bytes, total_bytes) = (load(&self.progress.bytes), load(&self.progress.total_bytes));
        let mut parts = vec![duration(self.last.duration_since(self.start))];
        if total_bytes > 0 {
            parts.push(format!("{:.1} %", 100.0 * bytes as f64 / total_bytes as f64));
        }
        parts.push(match total_files {
            0 => counted(files, self.counts.things),
            total => format!("{} of {}", count(files), counted(total, self.counts.things)),
        });
        parts.push(match total_bytes {
            0 => size(bytes),
            total => format!("{} of {}", size(bytes), size(total)),
        });
        if let Some(rate) = self.rate {
            parts.push(format!("{}/s", size(rate as u64)));
        }
        if let Some(remaining) = self.remaining() {
            parts.push(format!("{} left", duration(remaining)));
        }
        let problems = load(&self.progress.problems);
        if problems > 0 {
            parts.push(counted(problems, "problem"));
        }
        parts.join(", ")
    }

    fn json(&self) -> serde_json::Value {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let known = |total: u64| (total > 0).then_some(total);
        let mut fields = json!({
            "verb": self.counts.verb,
            "seconds": self.last.duration_since(self.start).as_secs_f64(),
            "files": load(&self.progress.files),
            "total_files": known(load(&self.progress.total_files)),
            "bytes": load(&self.progress.bytes),
            "total_bytes": known(load(&self.progress.total_bytes)),
            "stored_bytes": load(&self.progress.stored_bytes),
            "bytes_per_second": self.rate.map(|rate| rate as u64),
            "remaining_seconds": self.remaining().map(|left| left.as_secs_f64()),
            "problems": load(&self.progress.problems),
        });
        put_bytes(&mut fields, "current", &self.progress.current());
        object("progress", fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_remaining_time_follow_the_counters() {
        let progress = Arc::new(Progress::default());
        let mut pace = Pace::new(
            progress.clone(),
            Counts {
                verb: "backup",
                things: "file",
            },
        );
        let start = pace.start;
        progress.total_bytes.store(10_000_000, Ordering::Relaxed);
        progress.files.store(3, Ordering::Relaxed);
        progress.bytes.store(2_000_000, Ordering::Relaxed);
        pace.update(start + Duration::from_secs(2));
        assert_eq!(
            pace.line(),
            "2.0 s, 20.0 %, 3 files, 2.00 MB of 10.0 MB, 1.00 MB/s, 8.0 s left"
        );
        pace.update(start + Duration::from_secs(4));
        assert!(pace.remaining().unwrap() > Duration::from_secs(8), "it got slower");
        assert_eq!(pace.json()["schema"], 1);
        assert_eq!(pace.json()["total_bytes"], 10_000_000);
    }

    #[test]
    fn nothing_is_promised_where_the_end_is_unknown() {
        let pace = Pace::new(
            Arc::new(Progress::default()),
            Counts {
                verb: "scrub",
                things: "pack",
            },
        );
        assert_eq!(pace.remaining(), None);
        assert_eq!(pace.line(), "0.0 s, 0 packs, 0 B");
    }
}
