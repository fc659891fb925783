//! Listing a place that is a tree of directories, one directory at a time, as one ordered listing.
//!
//! - A directory is asked for only when objects in it can be on the page; nothing else is held in memory.
//! - Every failure to list a directory fails the whole; a directory that is missing is empty.

use async_trait::async_trait;

use crate::{Listed, Name, Prefix, Result};

/// What lists one directory of a place.
#[async_trait]
pub(crate) trait Directories: Sync {
    /// The entries of the directory, in any order; `""` is the place itself. One that is missing is empty.
    async fn entries(&self, directory: &str) -> Result<Vec<Entry>>;
}

/// One entry of a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name in the directory.
    pub(crate) name: String,
    /// The size of a file in bytes; `None` for whatever else it is.
    pub(crate) size: Option<u64>,
}

/// The next objects of a place, as [`crate::Store::list`] promises them.
pub(crate) async fn walk(
    place: &dyn Directories,
    prefix: &Prefix,
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<Listed>> {
    let mut page = Page::new(after, limit);
    // Paths still to look at, the next one last; directories end with `/`.
    let mut stack = vec![(below(&prefix.directory(), ""), None)];
    while let Some((path, size)) = stack.pop() {
        if page.is_full() {
            break;
        }
        if !path.is_empty() && page.is_past(&path) {
            continue;
        }
        if let Some(size) = size {
            if let Ok(name) = Name::parse(&path) {
                page.found.push(Listed { name, size });
            }
            continue;
        }
        let directory = path.trim_end_matches('/');
        let start = stack.len();
        for entry in place.entries(directory).await? {
            let path = below(directory, &entry.name);
            match entry.size {
                None if Name::is_directory(&path) => stack.push((path + "/", None)),
                None => {}
                size => stack.push((path, size)),
            }
        }
        if let Some(fresh) = stack.get_mut(start..) {
            fresh.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        }
    }
    Ok(page.found)
}

fn below(directory: &str, entry: &str) -> String {
    match directory {
        "" => entry.to_string(),
        _ => format!("{directory}/{entry}"),
    }
}

/// What a listing has found so far.
#[derive(Debug)]
pub(crate) struct Page {
    after: Option<String>,
    limit: usize,
    /// The objects of the page.
    pub(crate) found: Vec<Listed>,
}

impl Page {
    /// An empty page of at most `limit` objects greater than `after`.
    pub(crate) fn new(after: Option<&Name>, limit: usize) -> Self {
        Self {
            after: after.map(Name::to_string),
            limit,
            found: Vec::new(),
        }
    }

    /// Whether nothing more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// Whether an object, or all below a directory (with a final `/`), come no later than `after`.
    pub(crate) fn is_past(&self, path: &str) -> bool {
        match &self.after {
            Some(after) if path.ends_with('/') => path < after.as_str() && !after.starts_with(path),
            Some(after) => path <= after.as_str(),
            None => false,
        }
    }
}
