//! Shows how far long work is: a redrawn line on a terminal, plain or JSON lines at an interval elsewhere.
//!
//! - Standard error only; the line on a terminal is wiped before anything else is printed there (`output.rs`).
//! - The time left is computed over the whole run, since work goes in bursts; nothing is promised in the first seconds.
//! - A line that does not fit the terminal leaves out what matters least; percent and time left stay.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drystone_vault::Progress;
use serde_json::json;

use crate::args::ProgressForm;
use crate::context::App;
use crate::output::{count, counted, draw_line, duration, object, put_bytes, size, wipe_line};
use crate::shown::shown;
use crate::terminal;

/// Time between two drawings on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Time constant of the average that the rate is, seconds.
const AVERAGE_SECONDS: f64 = 10.0;
/// Time before which nothing is said of the time left: what begins, opens and reads what later work does not.
const PROMISE_AFTER: Duration = Duration::from_secs(2);
/// Columns left free, for the `^C` that a terminal shows.
const FREE_COLUMNS: usize = 3;
/// Columns that what is worked on needs to be worth showing.
const CURRENT_COLUMNS: usize = 12;
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

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

/// How much a line says; each leaves out more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    All,
    /// Without the number of files in all.
    NoTotals,
    /// Without the rate.
    NoRate,
    /// Without the bytes in all.
    Least,
}

/// The end of a text that has room in so many columns.
fn end_of(text: &str, columns: usize) -> String {
    let many = text.chars().count();
    if many <= columns {
        return text.to_owned();
    }
    std::iter::once('…')
        .chain(text.chars().skip(many + 1 - columns))
        .collect()
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
                wipe_line();
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

impl Shown {
    /// Returns true if anybody sees the progress.
    pub(crate) fn is_seen(&self) -> bool {
        self.thread.is_some()
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

    /// How much of the work is done, 0 to 1, if the end is known: by bytes, or by things where no bytes are counted.
    fn share(&self) -> Option<f64> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let share = |done: u64, total: u64| (total > 0).then(|| (done as f64 / total as f64).min(1.0));
        let by_bytes = share(self.last_bytes, load(&self.progress.total_bytes));
        by_bytes.or_else(|| share(load(&self.progress.files), load(&self.progress.total_files)))
    }

    /// Time to the end at the pace of the whole run, if the end is known.
    fn remaining(&self) -> Option<Duration> {
        let (share, elapsed) = (self.share()?, self.last.duration_since(self.start));
        let is_told = elapsed >= PROMISE_AFTER && share > 0.0;
        is_told.then(|| {
            Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 - share) / share).unwrap_or(Duration::MAX)
        })
    }

    fn show(&self, way: Way) -> io::Result<()> {
        match way {
            Way::Line => {
                let columns = terminal::columns().unwrap_or(COLUMNS).saturating_sub(FREE_COLUMNS);
                draw_line(&self.fitting_line(columns))
            }
            Way::Plain => writeln!(io::stderr().lock(), "{}", self.line(Detail::All)),
            Way::Json => writeln!(io::stderr().lock(), "{}", self.json()),
        }
    }

    /// The line with as much detail as has room, and what is worked on if there is room left.
    fn fitting_line(&self, columns: usize) -> String {
        let details = [Detail::All, Detail::NoTotals, Detail::NoRate, Detail::Least];
        let mut lines = details.map(|detail| self.line(detail)).into_iter();
        let fits = |line: &String| line.chars().count() <= columns;
        let shortest = self.line(Detail::Least).chars().take(columns).collect();
        let line: String = lines.find(fits).unwrap_or(shortest);
        let current = shown(&self.progress.current());
        let room = columns.saturating_sub(line.chars().count() + 2);
        if current.is_empty() || room < CURRENT_COLUMNS {
            return line;
        }
        format!("{line}  {}", end_of(&current, room))
    }

    fn line(&self, detail: Detail) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (files, total_files) = (load(&self.progress.files), load(&self.progress.total_files));
        let (bytes, total_bytes) = (load(&self.progress.bytes), load(&self.progress.total_bytes));
        let mut parts = vec![duration(self.last.duration_since(self.start))];
        parts.extend(self.share().map(|share| format!("{:.1} %", 100.0 * share)));
        parts.extend(self.remaining().map(|left| format!("{} left", duration(left))));
        let problems = load(&self.progress.problems);
        if problems > 0 {
            parts.push(counted(problems, "problem"));
        }
        parts.push(match total_files {
            total if total > 0 && detail < Detail::NoTotals => {
                format!("{} of {}", count(files), counted(total, self.counts.things))
            }
            _ => counted(files, self.counts.things),
        });
        if bytes > 0 || total_bytes > 0 {
            parts.push(match total_bytes {
                total if total > 0 && detail < Detail::Least => format!("{} of {}", size(bytes), size(total)),
                _ => size(bytes),
            });
            let rate = self.rate.filter(|_| detail < Detail::NoRate);
            parts.extend(rate.map(|rate| format!("{}/s", size(rate as u64))));
        }
        parts.join(", ")
    }

    fn json(&self) -> serde_json::Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
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
            pace.line(Detail::All),
            "2.0 s, 20.0 %, 8.0 s left, 3 files, 2.00 MB of 10.0 MB, 1.00 MB/s"
        );
        pace.update(start + Duration::from_secs(4));
        assert_eq!(pace.remaining(), Some(Duration::from_secs(16)), "it got slower");
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
        assert_eq!(pace.line(Detail::All), "0.0 s, 0 packs");
    }

    fn pace(things: &'static str, (files, total_files): (u64, u64), (bytes, total_bytes): (u64, u64)) -> Pace {
        let progress = Arc::new(Progress::default());
        for (counter, value) in [
            (&progress.files, files),
            (&progress.total_files, total_files),
            (&progress.bytes, bytes),
            (&progress.total_bytes, total_bytes),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        let mut pace = Pace::new(progress, Counts { verb: "x", things });
        pace.update(pace.start + Duration::from_secs(30));
        pace
    }

    #[test]
    fn time_left_is_that_of_the_whole_run_and_not_of_its_first_moment() {
        let progress = Arc::new(Progress::default());
        let counts = Counts {
            verb: "scrub",
            things: "pack",
        };
        let mut pace = Pace::new(progress.clone(), counts);
        progress.total_bytes.store(100, Ordering::Relaxed);
        // A slow begin, then one unit in a second: of 100, 4 are done after 5 seconds.
        for (at, bytes) in [(0.2, 0), (1.0, 0), (5.0, 4), (15.0, 50), (20.0, 80)] {
            progress.bytes.store(bytes, Ordering::Relaxed);
            pace.update(pace.start + Duration::from_secs_f64(at));
            let left = pace.remaining().map(|left| left.as_secs_f64().round());
            let expected = [(5.0, 120.0), (15.0, 15.0), (20.0, 5.0)];
            assert_eq!(
                left,
                expected.iter().find(|(then, _)| *then == at).map(|(_, left)| *left),
                "{at}"
            );
        }
    }

    #[test]
    fn where_no_bytes_are_counted_things_tell_the_end() {
        let pace = pace("pack", (52, 104), (0, 0));
        assert_eq!(pace.line(Detail::All), "30.0 s, 50.0 %, 30.0 s left, 52 of 104 packs");
    }

    #[test]
    fn percent_and_time_left_are_never_cut() {
        let pace = pace("file", (53_163, 124_037), (5_130_000_000, 5_990_000_000));
        pace.progress
            .set_current(b"/usr/lib/x86_64-linux-gnu/a/long/way/down/to/libx.so");
        for columns in [200, 100, 77, 60, 40] {
            let line = pace.fitting_line(columns);
            assert!(line.chars().count() <= columns, "{columns}: {line}");
            assert!(line.starts_with("30.0 s, 85.6 %, 5.0 s left"), "{columns}: {line}");
        }
        assert!(pace.fitting_line(200).ends_with("down/to/libx.so"));
        assert!(
            pace.fitting_line(77).contains("53,163 files, 5.13 GB of 5.99 GB"),
            "{}",
            pace.fitting_line(77)
        );
        assert_eq!(end_of("/a/bcd", 4), "…bcd");
    }
}
