//! What was asked for, as a tree of names: overlapping paths are one thing, and each name is met once.
//!
//! - A link that is a source is itself what is stored; with a `/` at the end of its path it is the directory that it leads to.
//! - A source below another one counts by itself where the other would have left it out (filters, file systems).

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use drystone_format::limits::SNAPSHOT_LIST_MAX;
use drystone_format::tree::is_name;

use crate::error::{Error, Result};
use crate::local::dir::Follow;

/// Longest path of a source, bytes: Linux PATH_MAX. What is below may be longer.
const SOURCE_MAX_BYTES: usize = 4096;

/// Bytes of paths that a snapshot names at most.
const SHOWN_BYTES: usize = 1 << 20;

/// A name that a source is, or leads to.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// The source that ends here, by number.
    pub(crate) source: Option<usize>,
    /// Whether that source is what a link leads to, if it is a link.
    pub(crate) follow: Follow,
    /// What is named below.
    pub(crate) children: BTreeMap<Vec<u8>, Arc<Named>>,
}

/// All sources of a run.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) root: Arc<Named>,
    /// Normal absolute paths, by number; the root is empty.
    pub(crate) paths: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Building {
    source: Option<usize>,
    follow: Follow,
    children: BTreeMap<Vec<u8>, Building>,
}

impl Building {
    fn done(self) -> Arc<Named> {
        Arc::new(Named {
            source: self.source,
            follow: self.follow,
            children: self
                .children
                .into_iter()
                .map(|(name, child)| (name, child.done()))
                .collect(),
        })
    }
}

impl Sources {
    /// `.` and repeated `/` are dropped; [`Error::Source`] for relative paths and for `..`, which links make ambiguous.
    pub(crate) fn new(paths: &[PathBuf]) -> Result<Self> {
        let (mut root, mut normal) = (Building::default(), Vec::new());
        for path in paths {
            let path = path.as_os_str().as_bytes();
            let wrong = |why: &str| Error::Source {
                path: path.to_vec(),
                why: why.to_owned(),
            };
            if path.first() != Some(&b'/') {
                return Err(wrong("must be an absolute path"));
            }
            if path.len() > SOURCE_MAX_BYTES {
                return Err(wrong("is longer than any path the kernel takes"));
            }
            let (mut place, mut clean) = (&mut root, Vec::new());
            for name in path
                .split(|byte| *byte == b'/')
                .filter(|name| !matches!(*name, b"" | b"."))
            {
                if !is_name(name) {
                    return Err(wrong("holds `..` or a name that no file can have"));
                }
                clean.push(b'/');
                clean.extend_from_slice(name);
                place = place.children.entry(name.to_vec()).or_default();
            }
            if path.ends_with(b"/") || path.ends_with(b"/.") {
                place.follow = Follow::Yes;
            }
            if place.source.is_none() {
                place.source = Some(normal.len());
                normal.push(clean);
            }
        }
        if normal.is_empty() {
            return Err(Error::Source {
                path: Vec::new(),
                why: "nothing to back up was named".to_owned(),
            });
        }
        Ok(Self {
            root: root.done(),
            paths: normal,
        })
    }

    /// What a snapshot says was asked for; of a long list the beginning, since a root is small.
    pub(crate) fn shown(&self) -> Vec<Vec<u8>> {
        let shown = |path: &Vec<u8>| if path.is_empty() { b"/".to_vec() } else { path.clone() };
        let mut bytes = 0;
        let mut fits = |path: &Vec<u8>| {
            bytes += path.len();
            bytes <= SHOWN_BYTES
        };
        let paths = self.paths.iter().take(SNAPSHOT_LIST_MAX as usize).map(shown);
        paths.take_while(|path| fits(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(paths: &[&str]) -> Result<Sources> {
        Sources::new(&paths.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn paths_unite() {
        let sources = sources(&["/home//u/", "/home/u", "/home/./v", "/"]).unwrap();
        assert_eq!(sources.paths, [&b"/home/u"[..], b"/home/v", b""]);
        assert_eq!(sources.root.source, Some(2));
        let home = &sources.root.children[b"home".as_slice()];
        assert_eq!((home.source, home.children.len()), (None, 2));
        assert_eq!(sources.shown()[2], b"/");
    }

    #[test]
    fn a_final_slash_follows_a_link() {
        let sources = sources(&["/a/b/", "/c/d", "/c/d/.", "/e"]).unwrap();
        assert_eq!(sources.paths, [&b"/a/b"[..], b"/c/d", b"/e"]);
        let child = |named: &Named, name: &str| named.children[name.as_bytes()].clone();
        let follow = |dir, name| child(&child(&sources.root, dir), name).follow;
        assert_eq!((follow("a", "b"), follow("c", "d")), (Follow::Yes, Follow::Yes));
        assert_eq!(child(&sources.root, "e").follow, Follow::No);
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for paths in [&["a"][..], &["/a/../b"], &[], &[""]] {
            assert!(matches!(sources(paths), Err(Error::Source { .. })), "{paths:?}");
        }
    }
}
