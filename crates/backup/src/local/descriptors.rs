//! How many directories stay open: as many as are useful, or as the limit of open files allows.
//!
//! - A process may have 1024 files open as a rule, and a few dozen where somebody is strict.

use rustix::process::{Resource, getrlimit};

/// Descriptors for everything else: the index, the file cache, files that are read or written, places, the runtime.
const OTHERS: u64 = 64;

/// Descriptors that are left for directories.
fn left() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX)
}

/// How many directories a backup keeps open at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// On the way to where the walk is.
    pub(crate) stack: usize,
    /// For files that wait to be read.
    pub(crate) jobs: usize,
    /// Looked at ahead of the walk.
    pub(crate) ahead: usize,
    /// Depth to which they are looked at ahead.
    pub(crate) depth: usize,
    /// Threads that look ahead, each with a connection to the file cache.
    pub(crate) scanners: usize,
}

impl Allowed {
    pub(crate) fn now() -> Self {
        Self::of(left())
    }

    fn of(left: usize) -> Self {
        Self {
            stack: (left / 5).clamp(8, 128),
            jobs: (left * 2 / 5).clamp(8, 256),
            ahead: (left / 5).clamp(4, 128),
            depth: (left / 10).clamp(4, 64),
            scanners: (left / 16).clamp(1, 16),
        }
    }
}

/// How many directories of its target a restore keeps open, at most `wanted`.
pub(crate) fn for_restore(wanted: usize) -> usize {
    left().clamp(8, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_leaves_fewer_directories_open() {
        for limit in [0, 128, 256, 1024, usize::MAX >> 2] {
            let Allowed {
                stack,
                jobs,
                ahead,
                depth,
                scanners,
            } = Allowed::of(limit.saturating_sub(OTHERS as usize));
            let all = stack + jobs + ahead + depth + 2 * scanners;
            assert!(
                all <= limit.max(40) && all <= 128 + 256 + 128 + 64 + 32,
                "{limit}: {all}"
            );
        }
        let many = Allowed::of(usize::MAX >> 2);
        assert_eq!(
            (many.stack, many.jobs, many.ahead, many.depth, many.scanners),
            (128, 256, 128, 64, 16)
        );
    }
}
