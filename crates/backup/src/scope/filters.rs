//! What is left out of a backup, and lists of what is taken.
//!
//! Patterns are those of a `.gitignore`, with absolute paths in the place of the file's own directory:
//!
//! - `*.o`, `cache/`: no `/` but at the end: matches the last name of any path; `/` at the end matches directories only.
//! - `/home/*/tmp`: begins with `/`: matches absolute paths from the root.
//! - `build/out`: a `/` in the middle: matches at any depth, as `**/build/out` does.
//! - `*`, `?` and `[a-z]` do not match `/`; `**` does. `\` takes the meaning from the next letter.
//! - The last pattern that matches decides; `!pattern`, or an include, takes back what an earlier one left out.
//! - What is left out is not entered: nothing below an excluded directory can be taken back. Exclude `dir/*` for that.
//! - What was named as a source is taken whatever the patterns say.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{read, retry_on_intr};

use crate::error::{Error, Result};

/// Name and beginning of the tag that caches carry (<https://bford.info/cachedir/>).
const CACHE_TAG: (&[u8], &[u8]) = (b"CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
/// Tells editors how a text is encoded.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Longest beginning that a marker may ask for, bytes.
const HEADER_MAX_BYTES: usize = 4096;

/// A file whose presence keeps what is beside and below it out of the backup. The directory and the file are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Name of the file.
    pub name: Vec<u8>,
    /// What it must begin with; empty if anything will do.
    pub header: Vec<u8>,
}

impl Marker {
    /// The marker of directories that are caches.
    pub fn cache() -> Self {
        Self {
            name: CACHE_TAG.0.to_vec(),
            header: CACHE_TAG.1.to_vec(),
        }
    }

    /// From `NAME` or `NAME:HEADER`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, header) = text.split_once(':').unwrap_or((text, ""));
        if !drystone_format::tree::is_name(name.as_bytes()) || header.len() > HEADER_MAX_BYTES {
            return Err(Error::Pattern {
                pattern: text.to_owned(),
                why: "must be the name of a file, without `/`".to_owned(),
            });
        }
        Ok(Self {
            name: name.as_bytes().to_vec(),
            header: header.as_bytes().to_vec(),
        })
    }

    /// Whether the file `self.name`, which is in `dir`, makes it a marked one.
    pub(crate) fn holds(&self, dir: &OwnedFd) -> bool {
        if self.header.is_empty() {
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(dir, self.name.as_slice(), flags, Mode::empty()) else {
            return false;
        };
        let mut head = vec![0; self.header.len()];
        let mut filled = 0;
        while let Some(room @ [_, ..]) = head.get_mut(filled..) {
            match retry_on_intr(|| read(&file, &mut *room)) {
                Ok(0) | Err(_) => return false,
                Ok(count) => filled += count,
            }
        }
        head == self.header
    }
}

/// Gathers patterns in their order.
#[derive(Debug)]
pub struct FiltersBuilder {
    builder: GitignoreBuilder,
    any: bool,
    lines: blake3::Hasher,
    markers: Vec<Marker>,
    doubts: Vec<String>,
}

impl Default for FiltersBuilder {
    fn default() -> Self {
        Self {
            builder: GitignoreBuilder::new("/"),
            any: false,
            lines: blake3::Hasher::new(),
            markers: Vec::new(),
            doubts: Vec::new(),
        }
    }
}

impl FiltersBuilder {
    /// Leaves out what matches; with `!` before it, takes it back.
    pub fn exclude(&mut self, pattern: &str) -> Result<&mut Self> {
        self.doubt_word(pattern);
        self.line(pattern, pattern)?;
        Ok(self)
    }

    /// Takes back what matches.
    pub fn include(&mut self, pattern: &str) -> Result<&mut Self> {
        self.line(&format!("!{pattern}"), pattern)?;
        Ok(self)
    }

    /// The lines of a file of patterns; empty ones and those that begin with `#` say nothing. `origin` is its name.
    ///
    /// A byte order mark, which some editors put at the beginning, is no part of a line.
    pub fn exclude_lines(&mut self, origin: &str, content: &str) -> Result<&mut Self> {
        for (number, line) in (1..).zip(content.lines()) {
            let line = line.trim_start_matches(BYTE_ORDER_MARK);
            self.line(line, &format!("{line}` ({origin}, line {number}) `"))?;
        }
        Ok(self)
    }

    /// Leaves out what is in directories that hold this file.
    pub fn exclude_if_present(&mut self, marker: Marker) -> &mut Self {
        self.markers.push(marker);
        self
    }

    /// Notes a pattern that stands alone and says nothing.
    fn doubt_word(&mut self, pattern: &str) {
        let why = match pattern.chars().next() {
            Some('#') => "it is a comment, as it begins with `#`; for a name that does, write `\\#`",
            _ if pattern.trim().is_empty() => "it is empty",
            _ => return,
        };
        self.doubts.push(format!("pattern `{pattern}` matches nothing: {why}"));
    }

    fn line(&mut self, line: &str, shown: &str) -> Result<()> {
        if let Some(why) = cannot_match(line) {
            // One from a file ends with the place that it stands at.
            let quoted = shown.strip_suffix(" `").map_or(format!("{shown}`"), str::to_owned);
            self.doubts.push(format!("pattern `{quoted} matches nothing: {why}"));
        }
        let failed = |error: ignore::Error| Error::Pattern {
            pattern: shown.to_owned(),
            why: error.to_string(),
        };
        let (not, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern));
        let is_inner = !pattern.starts_with('/') && pattern.trim_end().trim_end_matches('/').contains('/');
        let line = if is_inner && !line.starts_with('#') {
            format!("{not}**/{pattern}")
        } else {
            line.to_owned()
        };
        self.builder.add_line(None, &line).map_err(failed)?;
        self.lines
            .update(&(line.len() as u64).to_le_bytes())
            .update(line.as_bytes());
        self.any = true;
        Ok(())
    }

    /// The filters.
    pub fn build(&self) -> Result<Filters> {
        let failed = |error: ignore::Error| Error::Pattern {
            pattern: "(all together)".to_owned(),
            why: error.to_string(),
        };
        let patterns = if self.any {
            Some(self.builder.build().map_err(failed)?)
        } else {
            None
        };
        let mut digest = self.lines.clone();
        for part in self.markers.iter().flat_map(|marker| [&marker.name, &marker.header]) {
            digest.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Ok(Filters {
            doubts: self.doubts.clone(),
            patterns,
            digest: digest.finalize().into(),
            markers: self.markers.clone(),
        })
    }
}

/// Why a line can match no path: paths are absolute, and hold neither `.` nor `..` nor an empty name.
fn cannot_match(line: &str) -> Option<&'static str> {
    if line.starts_with('#') || line.trim().is_empty() {
        return None;
    }
    let pattern = line.strip_prefix('!').unwrap_or(line).trim_end();
    let names = pattern.strip_prefix('/').unwrap_or(pattern);
    let mut names = names.strip_suffix('/').unwrap_or(names).split('/');
    if pattern.is_empty() {
        return Some("it is empty");
    }
    if pattern.starts_with("~/") {
        return Some("`~` stands for no home directory here; write the path from `/` on");
    }
    match names.find(|name| matches!(*name, "" | "." | "..")) {
        Some("") if pattern != "/" => Some("no path has two slashes in a row"),
        Some("." | "..") => Some("paths are absolute, without `.` and `..`; begin with `/` or with a name"),
        _ => None,
    }
}

/// What is left out; by default nothing.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    patterns: Option<Gitignore>,
    /// Of patterns and markers; zeros if there was nothing to build from.
    digest: [u8; 32],
    markers: Vec<Marker>,
    doubts: Vec<String>,
}

impl Filters {
    /// What is said of patterns that can match nothing.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// What tells these filters from others.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether there are patterns to be asked.
    pub(crate) fn has_patterns(&self) -> bool {
        self.patterns.is_some()
    }

    /// Whether this absolute path is left out.
    pub(crate) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.patterns.as_ref().is_some_and(|patterns| {
            matches!(
                patterns.matched(Path::new(OsStr::from_bytes(path)), is_dir),
                Match::Ignore(_)
            )
        })
    }

    pub(crate) fn markers(&self) -> &[Marker] {
        &self.markers
    }
}

/// The paths of a `--files-from` file: one on each line, or, if there is a NUL in it, each ended by NUL.
///
/// Of lines the empty ones are left out; nothing is trimmed, since names may begin and end with anything.
pub fn parse_list(content: &[u8]) -> Vec<PathBuf> {
    let end = if content.contains(&0) { 0 } else { b'\n' };
    content
        .split(|byte| *byte == end)
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(lines: &[&str]) -> Filters {
        let mut builder = FiltersBuilder::default();
        for line in lines {
            builder.exclude(line).unwrap();
        }
        builder.build().unwrap()
    }

    #[test]
    fn patterns_decide_as_documented() {
        for (lines, path, is_dir, expected) in [
            (&["*.o"][..], "/a/b.o", false, true),
            (&["*.o"], "/a/b.oo", false, false),
            (&["*.o", "!keep.o"], "/a/keep.o", false, false),
            (&["!keep.o", "*.o"], "/a/keep.o", false, true),
            (&["cache/"], "/x/cache", true, true),
            (&["cache/"], "/x/cache", false, false),
            (&["/tmp"], "/tmp", true, true),
            (&["/tmp"], "/home/tmp", true, false),
            (&["/home/*/tmp"], "/home/u/tmp", true, true),
            (&["/home/*/tmp"], "/home/u/v/tmp", true, false),
            (&["/home/**/tmp"], "/home/u/v/tmp", true, true),
            (&["build/out"], "/home/u/build/out", true, true),
            (&["build/out/"], "/home/u/build/out", false, false),
            (&["!build/out", "build/*"], "/build/out", false, true),
            (&["build/*", "!build/out"], "/deep/build/out", false, false),
            (&["[a-c]?"], "/b1", false, true),
            (&["# *.o", "", "  "], "/x.o", false, false),
            (&["\\#x"], "/#x", false, true),
            (&["\\!x"], "/!x", false, true),
            (&["a\\*"], "/ab", false, false),
            (&["*.\u{e4}"], "/x.\u{e4}", false, true),
            (&["x "], "/x", false, true),
            (&["x\\ "], "/x ", false, true),
            (&["*"], "/anything", false, true),
        ] {
            assert_eq!(
                filters(lines).excludes(path.as_bytes(), is_dir),
                expected,
                "{lines:?} on {path}"
            );
        }
        assert!(filters(&["*.o"]).excludes(b"/\xff\xfe.o", false));
        assert!(!Filters::default().excludes(b"/x", false));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_pattern() {
        let mut builder = FiltersBuilder::default();
        builder
            .exclude_lines("rules", "\u{feff}secret/\r\nx/\n\u{feff}# joined\n\u{feff}/y\n")
            .unwrap();
        let filters = builder.build().unwrap();
        for path in ["/a/secret", "/x", "/y"] {
            assert!(filters.excludes(path.as_bytes(), true), "{path}");
        }
        assert_eq!(filters.doubts(), [""; 0]);
    }

    #[test]
    fn what_can_match_nothing_is_said() {
        for pattern in [
            "./cache",
            "../x",
            "~/x",
            "a/../b",
            "/home/./x",
            "a//b",
            "#h",
            "",
            "  ",
            "!./x",
            ".",
            "x/..",
        ] {
            let doubts = filters(&[pattern]).doubts().to_vec();
            assert!(
                doubts.len() == 1 && doubts[0].contains(pattern),
                "{pattern}: {doubts:?}"
            );
            assert!(!filters(&[pattern]).excludes(b"/home/x", true), "{pattern}");
        }
        for pattern in [
            "cache",
            "/",
            "*",
            "/home/*/tmp/",
            "a~/b",
            "...",
            ".*",
            "..x/y",
            "!x",
            "\\#h",
            "**/x",
            "~",
        ] {
            assert_eq!(filters(&[pattern]).doubts(), [""; 0], "{pattern}");
        }
        let mut builder = FiltersBuilder::default();
        builder.exclude_lines("rules", "# comment\n\n./x\n").unwrap();
        let doubts = builder.build().unwrap().doubts().to_vec();
        assert!(doubts.len() == 1 && doubts[0].contains("(rules, line 3)"), "{doubts:?}");
    }

    #[test]
    fn a_malformed_pattern_is_named_with_its_line() {
        let error = FiltersBuilder::default()
            .exclude_lines("rules", "*.o\n\na{b\n")
            .unwrap_err();
        assert!(error.to_string().contains("a{b` (rules, line 3)"), "{error}");
    }

    #[test]
    fn markers_and_lists_are_parsed() {
        let marker = Marker::parse(".nobackup:yes").unwrap();
        assert_eq!(
            (marker.name.as_slice(), marker.header.as_slice()),
            (&b".nobackup"[..], &b"yes"[..])
        );
        assert!(Marker::parse("a/b").is_err());
        assert!(Marker::parse("").is_err());
        assert_eq!(
            parse_list(b"/a\n\n/b c \n"),
            [PathBuf::from("/a"), PathBuf::from("/b c ")]
        );
        assert_eq!(
            parse_list(b"/a\nb\0/c\0"),
            [PathBuf::from("/a\nb"), PathBuf::from("/c")]
        );
    }
}
