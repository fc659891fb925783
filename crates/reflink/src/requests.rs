//! From blocks of extents to ranges of files: what to ask the kernel for one extent that goes.
//!
//! - Pure: uses and runs in, requests out. A request never reaches beyond the uses that it was made from.
//! - A range that ends with its file is only ever asked for together with one that ends with its own, at the same byte of a block.

use crate::cover::{Run, Source};
use crate::plan::{Job, Plan, leftover, live};
use crate::space::{FileId, Use, Uses};

/// What a range is to share with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum From {
    /// Zeros.
    Hole,
    /// The leftover that was written anew.
    Scratch,
    /// A file.
    File(FileId),
}

/// One range to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) from: From,
    /// Position in the source, bytes.
    pub(crate) from_offset: u64,
    pub(crate) len: u64,
    pub(crate) to: FileId,
    pub(crate) to_offset: u64,
    /// The candidate that has the source, if it is a file.
    pub(crate) source: Option<u32>,
}

/// A piece of leftover, to be copied from a file to the end of the scratch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) from: FileId,
    pub(crate) from_offset: u64,
    pub(crate) len: u64,
}

/// Everything that one job asks for.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The job.
    pub(crate) job: Job,
    pub(crate) copies: Vec<Copy>,
    pub(crate) requests: Vec<Request>,
    /// Some range found no source: the extent will not go.
    pub(crate) is_incomplete: bool,
    block_bytes: u64,
    same_subvolume_only: bool,
}

/// Takes one job apart.
pub(crate) fn work(plan: &Plan, job: &Job, runs: &[Run], block_bytes: u64) -> Work {
    let mut work = Work {
        job: *job,
        block_bytes,
        same_subvolume_only: plan.policy.same_subvolume_only,
        ..Work::default()
    };
    let none = Uses::default();
    let uses_of = |index: u32| plan.uses.get(index as usize).unwrap_or(&none);
    let own = uses_of(job.index);
    for run in runs {
        for one in &own.list {
            let sources = match run.source {
                Source::Extent { index, .. } => Some(uses_of(index)),
                Source::Hole => None,
            };
            let Some((from, to)) = intersection(one, (run.block, run.end())) else {
                continue;
            };
            work.share(one, (from, to), run, sources);
        }
    }
    // Where space is given back block by block, what nobody else has stays where it is.
    if job.leftover_blocks > 0 {
        work.rewrite(own, runs);
    }
    work.requests.sort_unstable();
    work
}

/// Which of the blocks a use has.
fn intersection(one: &Use, (from, to): (u32, u32)) -> Option<(u32, u32)> {
    let (from, to) = (from.max(one.block), to.min(one.block.saturating_add(one.blocks)));
    (from < to).then_some((from, to))
}

/// Bytes of the blocks `from..to` of a use that are in its file.
fn bytes(one: &Use, (from, to): (u32, u32), block_bytes: u64) -> u64 {
    let all = u64::from(to - from) * block_bytes;
    match one.tail_bytes {
        0 => all,
        _ if to < one.block + one.blocks => all,
        tail => all - (block_bytes - u64::from(tail)),
    }
}

fn offset(one: &Use, block: u32, block_bytes: u64) -> u64 {
    one.file_offset + u64::from(block - one.block) * block_bytes
}

impl Work {
    /// Asks for the blocks `from..to` of a use, from as many places as it takes.
    fn share(&mut self, one: &Use, (mut from, to): (u32, u32), run: &Run, sources: Option<&Uses>) {
        while from < to {
            let place = match (run.source, sources) {
                (Source::Extent { block, .. }, Some(sources)) => {
                    let tail = if to == one.block + one.blocks {
                        one.tail_bytes
                    } else {
                        0
                    };
                    let wanted = block + (from - run.block)..block + (to - run.block);
                    // One source for all uses is read and compared once; each snapshot's own copy of it would be read anew.
                    let near = self.same_subvolume_only.then_some(one.file.subvolume);
                    locate(sources, wanted, tail, near).map(|(source, at, blocks)| {
                        (From::File(source.file), offset(source, at, self.block_bytes), blocks)
                    })
                }
                _ => Some((From::Hole, 0, to - from)),
            };
            let Some((source, from_offset, blocks)) = place else {
                self.is_incomplete = true;
                return;
            };
            self.requests.push(Request {
                from: source,
                from_offset,
                len: bytes(one, (from, from + blocks), self.block_bytes),
                to: one.file,
                to_offset: offset(one, from, self.block_bytes),
                source: match run.source {
                    Source::Extent { index, .. } => Some(index),
                    Source::Hole => None,
                },
            });
            from += blocks;
        }
    }

    /// Asks for what no run has: to be copied once, and shared by all uses. What ends with a file comes last.
    fn rewrite(&mut self, own: &Uses, runs: &[Run]) {
        let mut pieces = leftover(&live(own), runs);
        let tail = own
            .list
            .iter()
            .find(|one| one.tail_bytes > 0)
            .map(|one| one.block + one.blocks);
        pieces.sort_by_key(|(_, to)| tail == Some(*to));
        let mut scratch_offset = 0;
        for (mut from, to) in pieces {
            while from < to {
                let Some((one, _, blocks)) = locate_any(own, from, to) else {
                    self.is_incomplete = true;
                    return;
                };
                let len = bytes(one, (from, from + blocks), self.block_bytes);
                self.copies.push(Copy {
                    from: one.file,
                    from_offset: offset(one, from, self.block_bytes),
                    len,
                });
                for other in &own.list {
                    let Some((start, end)) = intersection(other, (from, from + blocks)) else {
                        continue;
                    };
                    self.requests.push(Request {
                        from: From::Scratch,
                        from_offset: scratch_offset + u64::from(start - from) * self.block_bytes,
                        len: bytes(other, (start, end), self.block_bytes),
                        to: other.file,
                        to_offset: offset(other, start, self.block_bytes),
                        source: None,
                    });
                }
                scratch_offset += len;
                from += blocks;
            }
        }
    }
}

/// The use that has most of the wanted blocks from the first on, of the subvolume `near` if there is one; with how many.
fn locate(sources: &Uses, wanted: std::ops::Range<u32>, tail: u32, near: Option<u64>) -> Option<(&Use, u32, u32)> {
    let fits = |one: &Use| {
        let (from, mut to) = intersection(one, (wanted.start, wanted.end)).filter(|(from, _)| *from == wanted.start)?;
        let ends = to == one.block + one.blocks && one.tail_bytes > 0;
        if to == wanted.end && tail > 0 {
            // The end of a file goes with the same end only.
            to -= u32::from(!ends || one.tail_bytes != tail);
        } else {
            to -= u32::from(ends);
        }
        (to > from).then_some(to - from)
    };
    let found = sources.list.iter().filter_map(|one| Some((one, fits(one)?)));
    let best = found.max_by_key(|(one, blocks)| (*blocks, Some(one.file.subvolume) == near));
    best.map(|(one, blocks)| (one, wanted.start, blocks))
}

fn locate_any(own: &Uses, from: u32, to: u32) -> Option<(&Use, u32, u32)> {
    let covering = own.list.iter().filter_map(|one| {
        let (start, end) = intersection(one, (from, to)).filter(|(start, _)| *start == from)?;
        Some((one, start, end - start))
    });
    covering.max_by_key(|(_, _, blocks)| *blocks)
}
