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
}

impl Patterns {
    /// Matches nothing.
    pub const NONE: Self = Self { matcher: None };

    /// Compiles patterns; [`Error::Pattern`] names the one that is malformed.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        let mut any = false;
        let wrong = |pattern: &str, error: ignore::Error| Error::Pattern {
            pattern: pattern.to_owned(),
            why: error.to_string(),
        };
        for pattern in patterns {
            let pattern = pattern.as_ref();
            builder.add_line(None, pattern).map_err(|error| wrong(pattern, error))?;
            any = true;
        }
        let matcher = builder.build().map_err(|error| wrong("(all together)", error))?;
        Ok(Self {
            matcher: any.then_some(matcher),
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
