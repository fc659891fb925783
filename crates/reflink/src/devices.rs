//! Block devices with a file system that can share data, found by what their superblocks say: no help of udev is needed.
//!
//! - Nothing is written; a device that cannot be read is passed over.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The devices that the kernel knows.
const PARTITIONS: &str = "/proc/partitions";
/// Where Btrfs has its superblock, and how much of it is looked at.
const BTRFS_AT: u64 = 64 << 10;
const HEAD_BYTES: usize = 1024;

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) uuid: [u8; 16],
    pub(crate) label: Vec<u8>,
}

/// The devices that hold Btrfs or XFS, and what these are called.
pub(crate) fn devices() -> Vec<(PathBuf, Named)> {
    let text = fs::read_to_string(PARTITIONS).unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3));
    let paths = names.map(|name| Path::new("/dev").join(name));
    paths.filter_map(|path| Some((path.clone(), look(&path)?))).collect()
}

fn look(path: &Path) -> Option<Named> {
    let device = File::open(path).ok()?;
    let read = |at| {
        let mut head = vec![0; HEAD_BYTES];
        device.read_exact_at(&mut head, at).ok().map(|()| head)
    };
    read(0)
        .and_then(|head| of_xfs(&head))
        .or_else(|| of_btrfs(&read(BTRFS_AT)?))
}

fn named(head: &[u8], uuid_at: usize, label: std::ops::Range<usize>) -> Option<Named> {
    let uuid = *head.get(uuid_at..)?.first_chunk()?;
    let label = head.get(label)?.iter().copied().take_while(|byte| *byte != 0).collect();
    Some(Named { uuid, label })
}

/// `struct xfs_dsb`.
fn of_xfs(head: &[u8]) -> Option<Named> {
    head.starts_with(b"XFSB").then(|| named(head, 32, 108..120)).flatten()
}

/// `struct btrfs_super_block`.
fn of_btrfs(head: &[u8]) -> Option<Named> {
    let is_one = head.get(64..72) == Some(b"_BHRfS_M");
    is_one.then(|| named(head, 32, 299..555)).flatten()
}

/// An identity as one writes it in a file's name.
pub(crate) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An identity as people write it.
pub(crate) fn uuid(id: &[u8; 16]) -> String {
    let text = hex(id);
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    parts.map(|(from, to)| text.get(from..to).unwrap_or_default()).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_read() {
        let mut xfs = vec![0; HEAD_BYTES];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[32..48].fill(7);
        xfs[108..113].copy_from_slice(b"data\0");
        let expected = Named {
            uuid: [7; 16],
            label: b"data".to_vec(),
        };
        assert_eq!((of_xfs(&xfs), of_btrfs(&xfs)), (Some(expected.clone()), None));
        let mut btrfs = vec![0; HEAD_BYTES];
        btrfs[64..72].copy_from_slice(b"_BHRfS_M");
        btrfs[32..48].fill(7);
        btrfs[299..303].copy_from_slice(b"data");
        assert_eq!((of_btrfs(&btrfs), of_xfs(&btrfs)), (Some(expected), None));
        assert_eq!(of_btrfs(&btrfs[..400]), None);
    }
}
