//! Where in the file cache the files of each source are.

use crate::cache::{Key, key};

/// Most sources that have a key of their own.
const SLOTS_MAX: usize = 64;

/// Keys of the cache: one for each source, and one for files that are sources themselves.
///
/// A long list of sources shares one, so that it costs no more than one source.
pub(crate) struct Slots {
    pub(crate) keys: Vec<Key>,
}

impl Slots {
    /// For these sources of this host.
    pub(crate) fn new(host: &str, paths: &[Vec<u8>]) -> Self {
        if paths.len() > SLOTS_MAX {
            return Self {
                keys: vec![key(&[host.as_bytes()])],
            };
        }
        let host = host.as_bytes();
        let mut keys: Vec<Key> = paths.iter().map(|path| key(&[host, path])).collect();
        let all: Vec<&[u8]> = std::iter::once(host)
            .chain(paths.iter().map(Vec::as_slice))
            .chain([&b"files"[..]])
            .collect();
        keys.push(key(&all));
        Self { keys }
    }

    /// Number of the key of a source.
    pub(crate) fn of(&self, source: usize) -> usize {
        source.min(self.keys.len() - 1)
    }

    /// Number of the key of files that are sources.
    pub(crate) fn files(&self) -> usize {
        self.keys.len() - 1
    }
}
