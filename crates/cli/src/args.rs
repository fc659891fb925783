//! What every command takes, and how arguments are written that several commands take. Each command's own are in its file.
//!
//! - No defaults here: what is not given is `None`, and `config.rs` decides.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use drystone_format::tree::Time;

use crate::exit::Failure;
use crate::shown::shown;

/// Most threads that can be asked for; more than any machine has use for.
const THREADS_MAX: u16 = 256;

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// A place of the vault (directory or URL) or several with commas, or a profile [env: DRYSTONE_VAULT]
    #[arg(long, global = true, value_name = "URL|PROFILE")]
    pub(crate) vault: Option<String>,
    /// File that holds the passphrase or recovery code [env: DRYSTONE_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Key file, or ssh private key [env: DRYSTONE_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Cache directory (rebuilt if deleted) [env: DRYSTONE_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// A place now holds another vault than this machine has seen there, or none any more: go on with what is there
    #[arg(long, global = true)]
    pub(crate) accept_new_vault: bool,
    /// The vault has older key epochs or an older list of places than this machine has seen: go on with what is there
    #[arg(long, global = true)]
    pub(crate) accept_older: bool,
    /// Configuration file instead of $XDG_CONFIG_HOME/drystone/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Threads for work that needs a processor, by default one per processor
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<u16>,
    /// Print results as JSON (docs/json.md)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing but results and problems
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// How to show progress on standard error: by default a line on a terminal, else one per interval
    #[arg(long, global = true, value_name = "HOW")]
    pub(crate) progress: Option<ProgressForm>,
    /// Seconds between progress lines where there is no terminal
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) progress_interval: Option<Duration>,
}

/// How progress is shown. The variants carry no help: with it, clap spreads every help text over twice the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    // A line that is redrawn on a terminal, plain lines elsewhere, nothing with --json or --quiet.
    Auto,
    // One plain line per interval.
    Plain,
    // One JSON object per interval.
    Json,
    // Nothing.
    None,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.01..=86_400.0).contains(&value) {
        return Err("must be from 0.01 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(value))
}

/// `SNAPSHOT[:PATH]`: which snapshot, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    /// `latest`, an id or the beginning of one.
    pub(crate) snapshot: String,
    /// The path inside, empty for the whole tree.
    pub(crate) path: Vec<u8>,
}

impl Spot {
    /// Reads `SNAPSHOT[:PATH]`; paths may hold any bytes, also colons.
    pub(crate) fn parse(text: &OsString) -> Result<Self, Failure> {
        use std::os::unix::ffi::OsStrExt;
        let mut halves = text.as_bytes().splitn(2, |byte| *byte == b':');
        let (snapshot, path) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        match std::str::from_utf8(snapshot) {
            Ok(snapshot) if !snapshot.is_empty() => Ok(Self {
                snapshot: snapshot.to_owned(),
                path: path.to_vec(),
            }),
            _ => Err(
                Failure::usage(format!("`{}` names no snapshot", shown(text.as_bytes())))
                    .next("SNAPSHOT[:PATH], where SNAPSHOT is `latest` or an id of `drystone snapshots`"),
            ),
        }
    }
}

/// A share as people write it, `10%`, of at least `least` percent.
pub(crate) fn share(text: &str, least: f64) -> Result<f64, String> {
    let wrong = || format!("write a share as a percentage from {least}% to 100%");
    let percent: f64 = text.strip_suffix('%').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    if (least..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err(wrong())
    }
}

/// A size as people write it: `4096`, `100k`, `1.5M`, `2GiB`; k, M, G, T are decimal, with `i` binary.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let at = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim().trim_end_matches(['b', 'B']);
    let (power, base) = match unit.strip_suffix('i') {
        Some(power) => (power, 1024_f64),
        None => (unit, 1000.0),
    };
    let wrong = || format!("`{text}` is no size; write for example 4096, 100k, 1.5M or 2GiB");
    let power = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|known| power.eq_ignore_ascii_case(known));
    let (Some(power), Ok(number)) = (power, number.parse::<f64>()) else {
        return Err(wrong());
    };
    let value = number * base.powi(i32::try_from(power).unwrap_or(0));
    if power == 0 && base > 1000.0 || !value.is_finite() || value >= 1.8e19 {
        Err(wrong())
    } else {
        Ok(value as u64)
    }
}

/// Seconds of the units in which ages are written. A month is taken for its longest, and so is a year: what an age of so
/// many of them is to keep is never dropped for a day.
const AGE_UNITS: [(&str, u64); 7] = [
    ("s", 1),
    ("min", 60),
    ("h", 3600),
    ("d", 86_400),
    ("w", 7 * 86_400),
    ("mo", 31 * 86_400),
    ("y", 366 * 86_400),
];

/// How long to wait, as people write it: `30s`, `15m`, `12h`, `30d`, `8w`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let known = [
        ("s", 1),
        ("m", 60),
        ("min", 60),
        ("h", 3600),
        ("d", 86_400),
        ("w", 604_800),
    ];
    let seconds = in_units(text, &known);
    let wrong = || format!("`{text}` is no length of time; write for example 30s, 15m, 12h, 30d or 8w");
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// How long ago something was, as people write it: `15min`, `12h`, `30d`, `8w`, `7mo`, `1y`.
///
/// What can be read in two ways is refused: other programs take `7m` for seven months, and what goes then is gone.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    refuse_two_ways(text)?;
    let wrong = || format!("`{text}` is no length of time; write for example 12h, 30d, 8w, 7mo or 1y");
    in_units(text, &AGE_UNITS).map(Duration::from_secs).ok_or_else(wrong)
}

fn refuse_two_ways(text: &str) -> Result<(), String> {
    let number = text.strip_suffix(['m', 'M']);
    match number.filter(|number| number.parse::<u32>().is_ok()) {
        Some(number) => Err(format!(
            "`{text}` may mean minutes or months: write {number}min or {number}mo"
        )),
        None => Ok(()),
    }
}

/// A number with one of these units right behind it, in seconds.
fn in_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(at)?;
    let (_, seconds) = units.iter().find(|(known, _)| *known == unit)?;
    Some(u64::from(number.parse::<u32>().ok()?) * seconds)
}

/// A whole number from `least` on.
fn whole<T: std::str::FromStr + PartialOrd + std::fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    let wrong = || format!("write a whole number from {least} to {most}");
    let number: T = text.parse().map_err(|_| wrong())?;
    if number < least || number > most {
        return Err(wrong());
    }
    Ok(number)
}

/// How many of something: `7`.
pub(crate) fn many(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a whole number, such as 7".to_owned())
}

/// How many threads.
fn threads(text: &str) -> Result<u16, String> {
    whole(text, 1, THREADS_MAX)
}

/// How much more than another place one takes.
pub(crate) fn weight(text: &str) -> Result<u32, String> {
    whole(text, 1, u32::MAX)
}

/// A word that names something; an empty one comes from a variable that was not set.
pub(crate) fn word(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty; leave the option out if nothing is meant".to_owned());
    }
    Ok(text.to_owned())
}

/// A point in time as people write it: a date, a date and time (in their time zone), or how long before `now`.
pub(crate) fn time(text: &str, now: Time) -> Result<Time, String> {
    let of = |stamp: jiff::Timestamp| {
        let nanos = u32::try_from(stamp.as_nanosecond().rem_euclid(1_000_000_000)).unwrap_or(0);
        Time {
            seconds: i64::try_from(stamp.as_nanosecond().div_euclid(1_000_000_000)).unwrap_or(0),
            nanos,
        }
    };
    refuse_two_ways(text)?;
    if let Ok(age) = age(text) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        return Ok(Time {
            seconds: now.seconds.saturating_sub(seconds),
            nanos: now.nanos,
        });
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(of(stamp));
    }
    let date: jiff::civil::DateTime = text.parse().map_err(|_| {
        format!("`{text}` is no time; write for example 2026-11-21, 2026-11-21T18:00, 12h, 30d, 4w or 7mo")
    })?;
    match date.to_zoned(jiff::tz::TimeZone::system()) {
        Ok(zoned) => Ok(of(zoned.timestamp())),
        Err(error) => Err(format!("`{text}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("100k", 100_000),
            ("1.5M", 1_500_000),
            ("2GiB", 2 << 30),
            ("1 MB", 1_000_000),
        ] {
            assert_eq!(size(text), Ok(value), "{text}");
        }
        for text in ["", "k", "-1", "1x", "1.2.3", "5i", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_dates_or_ages() {
        let now = Time {
            seconds: 1_000_000,
            nanos: 7,
        };
        assert_eq!(
            time("1h", now),
            Ok(Time {
                seconds: 996_400,
                nanos: 7
            })
        );
        assert_eq!(
            time("1w", now),
            Ok(Time {
                seconds: 395_200,
                nanos: 7
            })
        );
        assert_eq!(
            time("1970-01-01T00:00:01.5Z", now),
            Ok(Time {
                seconds: 1,
                nanos: 500_000_000
            })
        );
        let day = time("2000-02-29", now).unwrap().seconds - 951_782_400;
        assert!(day.abs() <= 14 * 3600, "{day}");
        assert_eq!(time("1mo", now).unwrap().seconds, 1_000_000 - 31 * 86_400);
        for text in ["", "d", "-1d", "1m", "2000-02-30", "é", "30dd"] {
            assert!(time(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_that_can_be_read_in_two_ways_are_refused() {
        for (text, days) in [("30d", 30), ("8w", 56), ("7mo", 217), ("1y", 366)] {
            assert_eq!(age(text), Ok(Duration::from_secs(days * 86_400)), "{text}");
        }
        assert_eq!(age("90min"), Ok(Duration::from_secs(5400)));
        for text in ["7m", "7M"] {
            let why = age(text).unwrap_err();
            assert!(why.contains("7min") && why.contains("7mo"), "{why}");
        }
        for text in [
            "",
            "7",
            "m",
            "dd",
            "30dd",
            "1y5m7d",
            "-1d",
            "1.5d",
            " 1d",
            "é",
            "4294967296d",
        ] {
            assert!(age(text).is_err(), "{text}");
        }
        assert_eq!(span("15m"), span("15min"));
        assert!(span("7mo").is_err() && span("30dd").is_err());
    }

    #[test]
    fn spots_keep_every_byte_of_the_path() {
        use std::os::unix::ffi::OsStringExt;
        let spot = |text: &[u8]| Spot::parse(&OsString::from_vec(text.to_vec()));
        assert_eq!(
            spot(b"latest").unwrap(),
            Spot {
                snapshot: "latest".to_owned(),
                path: vec![]
            }
        );
        assert_eq!(
            spot(b"1a2b:/a:b\xff").unwrap(),
            Spot {
                snapshot: "1a2b".to_owned(),
                path: b"/a:b\xff".to_vec()
            }
        );
        assert!(spot(b":/x").is_err() && spot(b"\xff").is_err());
    }
}
