//! What commands print: text for people, JSON for programs; numbers, times and paths as both want them.
//!
//! - Standard output carries results only; everything else (progress, warnings, failures) goes to standard error.
//! - Every JSON object carries `schema` and `type`; docs/json.md describes them.
//! - Nothing that came from outside reaches a terminal as it is: every line for people goes through [`safe`], whoever wrote it
//!   (a server, `ssh`, another user's file, a label). JSON is exact.
//! - Bytes that are not UTF-8 are escaped for people, and kept lossless in JSON.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drystone_format::tree::Time;
use drystone_vault::Problems;
use serde_json::{Map, Value, json};

use crate::exit::{Exit, Failure, Result};
use crate::shown::{LineEnds, safe, shown};

/// Version of every JSON object printed.
pub(crate) const SCHEMA: u64 = 1;

/// Problems shown to a person before the rest is only counted; JSON has all that were kept.
const PROBLEMS_SHOWN: usize = 20;

/// From the first moment of the year 0 to the last of 9999 that is there in every time zone, seconds since 1970: RFC 3339
/// has years of four digits.
const CALENDAR_SECONDS: std::ops::Range<i64> = -62_167_132_800..253_402_214_400;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object, or one per line.
    Json,
}

/// Standard output and the form asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// For people or programs.
    pub(crate) form: Form,
    /// Say nothing but results and failures.
    pub(crate) quiet: bool,
}

impl Output {
    /// Whether results are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.form == Form::Json
    }

    /// Standard output, buffered; [`Lines::finish`] flushes it.
    pub(crate) fn lines(self) -> Lines {
        Lines {
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        }
    }

    /// Prints the result of a command: the lines for people, or the object of this type for programs.
    pub(crate) fn result(self, kind: &str, fields: Value, text: impl fmt::Display) -> Result<()> {
        let mut lines = self.lines();
        if self.is_json() {
            lines.object(kind, fields)?;
        } else {
            lines.line(text)?;
        }
        lines.finish()
    }

    /// Prints the names of columns, for a person at a terminal alone: what reads the lines counts them.
    pub(crate) fn head(self, lines: &mut Lines, names: &str) -> Result<()> {
        if self.is_json() || self.quiet || !io::stdout().is_terminal() {
            return Ok(());
        }
        lines.line(names)
    }

    /// Prints what a command has done before it goes on; with `--quiet` only programs hear of it.
    pub(crate) fn step(self, kind: &str, fields: Value, text: impl fmt::Display) -> Result<()> {
        if self.quiet && !self.is_json() {
            return Ok(());
        }
        self.result(kind, fields, text)
    }

    /// Prints a line for a person to standard error, unless they want none.
    pub(crate) fn note(self, text: impl fmt::Display) {
        if !self.quiet && !self.is_json() {
            self.say(text);
        }
    }

    /// Prints a line, or several, to standard error, always.
    pub(crate) fn say(self, text: impl fmt::Display) {
        print_error(&safe(&text.to_string(), LineEnds::Kept));
    }

    /// Prints one line to standard error, always; a line end in it is shown, so that nobody can forge a line of ours.
    fn say_line(self, text: impl fmt::Display) {
        print_error(&safe(&text.to_string(), LineEnds::Shown));
    }

    /// Prints a JSON object on one line of standard error.
    pub(crate) fn say_object(self, kind: &str, fields: Value) {
        print_error(&object(kind, fields).to_string());
    }

    /// Reports something odd that the command gets along with.
    pub(crate) fn warning(self, text: impl fmt::Display) {
        if self.is_json() {
            self.say_object("warning", json!({ "message": text.to_string() }));
        } else {
            self.say_line(format_args!("warning: {text}"));
        }
    }

    /// Lists the problems of a run on standard error, for people; in JSON they are part of the result.
    pub(crate) fn problems(self, problems: &Problems) {
        if self.is_json() || problems.is_empty() {
            return;
        }
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            self.say_line(problem);
        }
        let more = problems.count().saturating_sub(PROBLEMS_SHOWN as u64);
        if more > 0 {
            self.say(format_args!("… and {} more (all with --json)", count(more)));
        }
    }

    /// Reports why the command failed, on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        if self.is_json() {
            let fields = json!({
                "code": failure.exit as u8, "name": failure.exit.word(),
                "message": failure.message, "next": failure.next,
            });
            self.say_object("error", fields);
            return;
        }
        self.say_line(format_args!("drystone: {}", failure.message));
        if let Some(next) = &failure.next {
            self.say_line(format_args!("next: {next}"));
        }
    }
}

/// Buffered standard output.
pub(crate) struct Lines {
    out: BufWriter<StdoutLock<'static>>,
}

impl Lines {
    /// Prints a line, or several, for people.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        self.print(&safe(&text.to_string(), LineEnds::Kept))
    }

    /// Prints a JSON object of this type on one line.
    pub(crate) fn object(&mut self, kind: &str, fields: Value) -> Result<()> {
        self.print(&object(kind, fields).to_string())
    }

    fn print(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").map_err(|error| Failure::output(&error))
    }

    /// Prints what is buffered.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Wipes the line that the cursor of a terminal is in, and goes to its start.
const WIPE: &str = "\r\x1b[K";
/// Whether the line of the terminal that the cursor is in shows progress.
static IS_DRAWN: AtomicBool = AtomicBool::new(false);

/// Draws a line of progress in the place of the one before; whatever is printed next wipes it.
pub(crate) fn draw_line(text: &str) -> io::Result<()> {
    let mut to = io::stderr().lock();
    IS_DRAWN.store(true, Ordering::Relaxed);
    write!(to, "{WIPE}{text}")?;
    to.flush()
}

/// Wipes the line of progress, if there is one.
pub(crate) fn wipe_line() {
    let mut to = io::stderr().lock();
    if IS_DRAWN.swap(false, Ordering::Relaxed) {
        // Nobody is left to see it if standard error is gone.
        let _ = write!(to, "{WIPE}");
    }
}

fn print_error(text: &str) {
    let mut to = io::stderr().lock();
    let wipe = if IS_DRAWN.swap(false, Ordering::Relaxed) {
        WIPE
    } else {
        ""
    };
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(to, "{wipe}{text}");
}

/// `fields` with `schema` and `type` in front.
pub(crate) fn object(kind: &str, fields: Value) -> Value {
    let mut object = Map::new();
    object.insert("schema".to_owned(), SCHEMA.into());
    object.insert("type".to_owned(), kind.into());
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

/// Adds a path (or name) under `key`: as text if it is UTF-8, else in base 16 under `<key>_bytes`.
pub(crate) fn put_bytes(fields: &mut Value, key: &str, bytes: &[u8]) {
    let Value::Object(fields) = fields else { return };
    match std::str::from_utf8(bytes) {
        Ok(text) => fields.insert(key.to_owned(), text.into()),
        Err(_) => fields.insert(format!("{key}_bytes"), base16(bytes).into()),
    };
}

/// One object with the path alone, for lists of paths.
pub(crate) fn path_object(bytes: &[u8]) -> Value {
    let mut fields = json!({});
    put_bytes(&mut fields, "path", bytes);
    fields
}

/// The problems of a run, for JSON.
pub(crate) fn problem_list(problems: &Problems) -> Value {
    let list = problems.iter().map(|problem| {
        let mut fields = json!({});
        put_bytes(&mut fields, "path", &problem.path);
        if let Value::Object(fields) = &mut fields {
            fields.insert("what".to_owned(), problem.what.clone().into());
        }
        fields
    });
    list.collect()
}

fn base16(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A count with separators: `101,584`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its word: `1 file`, `2 files`.
pub(crate) fn counted(value: u64, word: &str) -> String {
    let ending = match (value, word.ends_with('y') && !word.ends_with("ay")) {
        (1, _) => return format!("1 {word}"),
        (_, true) => return format!("{} {}ies", count(value), word.trim_end_matches('y')),
        (_, false) => "s",
    };
    format!("{} {word}{ending}", count(value))
}

/// A size in decimal units: `3.98 GB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    // 999.5 would be shown as 1000.
    while value >= 999.5 && unit < UNITS.len() - 1 {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A duration: `8.1 s`, `2 min 5 s`, `3 h 12 min`.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", value.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The first names of many, and how many more there are.
pub(crate) fn some_of<T: AsRef<[u8]>>(names: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut names = names.into_iter();
    let first: Vec<String> = names.by_ref().take(most).map(|name| shown(name.as_ref())).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A time that no calendar of four digits has, as seconds since 1970: `@253402300800.5`, which `date -d` reads too.
fn beyond_calendar(time: Time) -> Option<String> {
    if CALENDAR_SECONDS.contains(&time.seconds) {
        return None;
    }
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let (whole, part) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    let sign = if nanos < 0 { "-" } else { "" };
    let part = match part {
        0 => String::new(),
        part => format!(".{}", format!("{part:09}").trim_end_matches('0')),
    };
    Some(format!("@{sign}{whole}{part}"))
}

fn timestamp(time: Time) -> jiff::Timestamp {
    let end = if time.seconds < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).unwrap_or(0)).unwrap_or(end)
}

/// A time for people, in their time zone: `2026-11-21 12:52:21`.
pub(crate) fn local_time(time: Time) -> String {
    if let Some(seconds) = beyond_calendar(time) {
        return format!("{seconds:<19}");
    }
    timestamp(time)
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// How many seconds local time is ahead of UTC at a time.
pub(crate) fn local_offset(seconds: i64) -> i64 {
    let at = timestamp(Time { seconds, nanos: 0 });
    i64::from(jiff::tz::TimeZone::system().to_offset(at).seconds())
}

/// A time for programs: RFC 3339, UTC.
pub(crate) fn utc_time(time: Time) -> String {
    beyond_calendar(time).unwrap_or_else(|| timestamp(time).to_string())
}

/// The exit and its word, as every summary object carries them.
pub(crate) fn with_exit(mut fields: Value, exit: Exit) -> Value {
    if let Value::Object(fields) = &mut fields {
        fields.insert("exit".to_owned(), exit.word().into());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (101_584, "101,584"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(value), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_995, "10.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (3_980_000_000, "3.98 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(1200, "entry"), "1,200 entries");
        assert_eq!(counted(0, "file"), "0 files");
        for (seconds, text) in [(8.1, "8.1 s"), (125.0, "2 min 5 s"), (11_520.0, "3 h 12 min")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn hostile_names_survive_in_json() {
        assert_eq!(path_object(b"\xc3\xa9"), json!({ "path": "é" }));
        assert_eq!(path_object(b"a\xff"), json!({ "path_bytes": "61ff" }));
    }

    #[test]
    fn times_outside_the_calendar_are_exact_too() {
        assert_eq!(
            utc_time(Time { seconds: 0, nanos: 5 }),
            "1970-01-01T00:00:00.000000005Z"
        );
        assert_eq!(
            utc_time(Time {
                seconds: -1,
                nanos: 500_000_000
            }),
            "1969-12-31T23:59:59.5Z"
        );
        let at = |seconds, nanos| Time { seconds, nanos };
        assert_eq!(utc_time(at(i64::MAX, 0)), "@9223372036854775807");
        assert_eq!(utc_time(at(253_402_300_800, 500_000_000)), "@253402300800.5");
        assert_eq!(utc_time(at(-70_000_000_001, 750_000_000)), "@-70000000000.25");
        assert_eq!(local_time(at(253_402_300_800, 0)), "@253402300800      ");
        assert!(local_time(at(i64::MIN, 999_999_999)).starts_with("@-9223372036854775807."));
        assert!(utc_time(at(253_402_214_399, 0)).starts_with("9999-12-30T"));
        assert!(utc_time(at(-62_167_132_800, 0)).starts_with("0000-01-02T"));
    }
}
