//! Patterns that choose among stored paths, written like the lines of a `.gitignore`.
//!
//! - Without a `/` (but at the end) a pattern matches the last name of a path, else the whole path from the start.
//! - `*` and `?` stop at `/`, `**` does not; a `/` at the end matches directories only; `!` takes back what matched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};

/// A list of patterns, the last that matches decides.
#[derive(Debug, Clone)]
pub struct Patterns {
    matcher: Option<Gitignore>,
    single: Vec<(String, Gitignore)>,
}

/// Returns why no path can ever match a pattern; `None` if one can.
fn never_matches(pattern: &str) -> Option<&'static str> {
    let parts = || pattern.trim_start_matches('!').split('/');
    if pattern.trim().is_empty() {
        Some("is empty")
    } else if pattern.starts_with('#') {
        Some("is a comment; write `\\#` for a name that begins with `#`")
    } else if parts().any(|part| part == "." || part == "..") {
        Some("has `.` or `..` as a name, which no path has; write the path without it")
    } else {
        None
    }
}

impl Patterns {
    /// Matches nothing.
    pub const NONE: Self = Self {
        matcher: None,
        single: Vec::new(),
    };

    /// Compiles patterns; [`Error::Pattern`] names the one that is malformed.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        let mut single = Vec::new();
        let wrong = |pattern: &str, error: ignore::Error| Error::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        };
        for pattern in patterns {
            let pattern = pattern.as_ref();
            if let Some(why) = never_matches(pattern) {
                return Err(Error::Pattern {
                    pattern: pattern.to_owned(),
                    why: why.to_owned(),
                });
            }
            let mut alone = GitignoreBuilder::new("/");
            let added = alone.add_line(None, pattern).and_then(|alone| alone.build());
            single.push((pattern.to_owned(), added.map_err(|error| wrong(pattern, error))?));
            builder.add_line(None, pattern).map_err(|error| wrong(pattern, error))?;
        }
        let matcher = builder.build().map_err(|error| wrong("(all together)", error))?;
        Ok(Self {
            matcher: (!single.is_empty()).then_some(matcher),
            single,
        })
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.matcher.is_none()
    }

    /// Whether this path (relative, not the directories above it) matches.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        self.matcher
            .as_ref()
            .is_some_and(|matcher| matcher.matched(Path::new(OsStr::from_bytes(path)), is_dir).is_ignore())
    }
}

/// The patterns of a list that have matched nothing so far.
#[derive(Debug)]
pub(crate) struct Unmatched(Vec<(String, Gitignore)>);

impl Unmatched {
    /// All of a list but those that take back what others match.
    pub(crate) fn of(patterns: &Patterns) -> Self {
        let all = patterns.single.iter().filter(|(pattern, _)| !pattern.starts_with('!'));
        Self(all.cloned().collect())
    }

    /// Looks which of them match a path.
    pub(crate) fn look(&mut self, path: &[u8], is_dir: bool) {
        let path = Path::new(OsStr::from_bytes(path));
        self.0.retain(|(_, matcher)| !matcher.matched(path, is_dir).is_ignore());
    }

    /// The patterns themselves.
    pub(crate) fn names(self) -> Vec<String> {
        self.0.into_iter().map(|(pattern, _)| pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_gitignore_hold() {
        let patterns = Patterns::new(["*.o", "/top", "a/**/z", "dir/", "!keep.o"]).unwrap();
        for (path, is_dir, expected) in [
            ("x.o", false, true),
            ("deep/x.o", false, true),
            ("keep.o", false, false),
            ("top", false, true),
            ("deep/top", false, false),
            ("a/b/c/z", false, true),
            ("dir", true, true),
            ("dir", false, false),
        ] {
            assert_eq!(patterns.matches(path.as_bytes(), is_dir), expected, "{path}");
        }
        assert!(
            Patterns::new(["\u{fffd}*"])
                .unwrap()
                .matches("\u{fffd}x".as_bytes(), false)
        );
        assert!(Patterns::new(["a{b"]).is_err());
        assert!(!Patterns::NONE.matches(b"x", false));
    }
}
