//! What both measuring programs share: the list of files as work items, reading them, and a clock for CPU time.
//!
//! - Items are in the order of a sorted walk, so neighbours in the tree are neighbours in the list.
//! - A file larger than [`PIECE_BYTES`] is several items, so that no thread is left alone with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Largest item, bytes.
pub const PIECE_BYTES: u64 = 32 << 20;

/// A file, or a piece of a large one.
pub struct Item {
    /// Where it lies.
    pub path: PathBuf,
    /// First byte of the piece.
    pub offset: u64,
    /// Bytes in the piece.
    pub length: u64,
}

/// All regular files below `root` as pieces of at most `piece` bytes, sorted by path.
pub fn items(root: &Path, piece: u64) -> io::Result<Vec<Item>> {
    let mut found = Vec::new();
    walk(root, piece, &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, piece: u64, found: &mut Vec<Item>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), piece, found)?;
        } else if kind.is_file() {
            let total = entry.metadata()?.len();
            let mut offset = 0;
            while offset < total {
                let length = piece.min(total - offset);
                found.push(Item {
                    path: entry.path(),
                    offset,
                    length,
                });
                offset += length;
            }
        }
    }
    Ok(())
}

/// Appends the item's bytes to `buffer`.
pub fn read(item: &Item, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = buffer.len();
    buffer.resize(start + item.length as usize, 0);
    File::open(&item.path)?.read_exact_at(&mut buffer[start..], item.offset)
}

/// CPU seconds of this thread so far, user and system.
pub fn cpu_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Cuts `data` into consecutive chunks with `next`, which returns the length of the first chunk of a rest.
pub fn cut<'a>(mut data: &'a [u8], next: impl Fn(&[u8]) -> usize, mut chunk: impl FnMut(&'a [u8])) {
    while !data.is_empty() {
        let (head, rest) = data.split_at(next(data));
        chunk(head);
        data = rest;
    }
}

/// The first chunk's length by MinCDC with chunks between `min` and `max` bytes.
pub fn mincdc_next(cdc: &impl mincdc::Cdc, min: usize, max: usize, data: &[u8]) -> usize {
    if data.len() <= min {
        return data.len();
    }
    let start = min - cdc.window_size();
    start + cdc.best_splitpoint(&data[start..data.len().min(max)])
}
