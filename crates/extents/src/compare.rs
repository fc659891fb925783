//! Which parts of a file changed, told from where it lies now and where it lay before: no data is read.
//!
//! - What lies at the same place of the same extent is equal: an extent is never written again. This holds for data that was cloned
//!   in, which a generation alone would take for old.
//! - Whether it is the same extent, the extent tree says ([`crate::Btrfs::made_by`]): one that takes the place of another was made
//!   later. The generation in the file's own item does not: a clone keeps it, and so does a balance, which may move the
//!   clone to where the file's data lay before.
//! - Not for files that are written in place ([`crate::items::Inode::is_written_in_place`]), unless the earlier state is a snapshot that
//!   still stands, which makes them be copied on their first write.
//! - A range that is not told is equal; one that is told may be. Pure.

use std::collections::BTreeSet;

use crate::items::{FileExtent, Form};

/// Where a file lies, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file.
    pub len: u64,
    /// Its extents in order, as [`crate::Btrfs::file_extents`] has them.
    pub extents: Vec<FileExtent>,
}

/// What a byte of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A zero: in a hole, or reserved.
    Zero,
    /// In an extent on disk: where it begins, its generation, whether it is encoded, and the byte in it.
    Extent(u64, u64, bool, u64),
    /// Nowhere that would prove anything.
    Unknown,
}

impl Layout {
    /// The place of the byte at `at`, looking from the extent numbered `from` on, which is left at the one that has it.
    fn place(&self, at: u64, from: &mut usize) -> Place {
        if at >= self.len {
            return Place::Unknown;
        }
        while self.extents.get(*from).is_some_and(|extent| end(extent) <= at) {
            *from += 1;
        }
        match self.extents.get(*from).filter(|extent| extent.file_offset <= at) {
            None => Place::Zero,
            Some(extent) => match extent.form {
                Form::Inline => Place::Unknown,
                Form::Reserved => Place::Zero,
                Form::Plain | Form::Encoded if extent.disk_start == 0 => Place::Zero,
                form => {
                    let within = extent.offset.saturating_add(at - extent.file_offset);
                    Place::Extent(extent.disk_start, extent.generation, form == Form::Encoded, within)
                }
            },
        }
    }

    fn cuts(&self) -> impl Iterator<Item = u64> + '_ {
        let of_extents = self.extents.iter().flat_map(|extent| [extent.file_offset, end(extent)]);
        of_extents.chain([self.len])
    }
}

fn end(extent: &FileExtent) -> u64 {
    extent.file_offset.saturating_add(extent.len)
}

/// The places on disk at which extents of both begin, in order.
pub fn shared_starts(before: &Layout, after: &Layout) -> Vec<u64> {
    let starts = |layout: &Layout| -> BTreeSet<u64> { layout.extents.iter().map(|extent| extent.disk_start).collect() };
    starts(before).intersection(&starts(after)).copied().collect()
}

/// The ranges of `after` (offset and length, in order, neighbouring ones joined) that may differ from `before`.
///
/// `is_same` says of the place where an extent of both begins whether the extent was there at the time of `before`.
pub fn changed_ranges(before: &Layout, after: &Layout, is_same: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
    let mut cuts: Vec<u64> = before
        .cuts()
        .chain(after.cuts())
        .chain([0])
        .filter(|at| *at <= after.len)
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let (mut in_before, mut in_after) = (0, 0);
    let mut changed: Vec<(u64, u64)> = Vec::new();
    for pair in cuts.windows(2) {
        let [from, to] = *pair else { continue };
        let (was, is) = (before.place(from, &mut in_before), after.place(from, &mut in_after));
        let is_known = match is {
            Place::Zero => true,
            Place::Extent(start, ..) => is_same(start),
            Place::Unknown => false,
        };
        if was == is && is_known {
            continue;
        }
        match changed.last_mut() {
            Some((start, len)) if *start + *len == from => *len += to - from,
            _ => changed.push((from, to - from)),
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> impl Strategy<Value = Layout> {
        let extent = (0u64..4, 1u64..9, 0u64..3, 1u64..3, 0u64..6, 0u8..10);
        (prop::collection::vec(extent, 0..8), 0u64..40).prop_map(|(parts, len)| {
            let mut at = 0;
            let extents = parts.into_iter().map(|(gap, len, disk, generation, offset, form)| {
                let form = match form {
                    0 => Form::Inline,
                    1 => Form::Reserved,
                    2 => Form::Encoded,
                    _ => Form::Plain,
                };
                let file_offset = at + gap;
                at = file_offset + len;
                FileExtent {
                    file_offset,
                    generation,
                    form,
                    disk_start: disk * 4096,
                    disk_len: 4096,
                    offset,
                    len,
                    ram_len: 20,
                }
            });
            Layout {
                extents: extents.collect(),
                len,
            }
        })
    }

    proptest! {
        #[test]
        fn every_byte_is_judged_by_its_place(before in layout(), after in layout(), other in 0u64..4) {
            let is_same = |start: u64| start != other * 4096;
            let changed = changed_ranges(&before, &after, is_same);
            for at in 0..after.len {
                let told = changed.iter().any(|(from, len)| (*from..from + len).contains(&at));
                let (was, is) = (before.place(at, &mut 0), after.place(at, &mut 0));
                let is_other = matches!(is, Place::Extent(start, ..) if !is_same(start));
                prop_assert_eq!(told, was != is || is == Place::Unknown || is_other, "byte {}", at);
                if let (true, Place::Extent(start, ..)) = (was == is, is) {
                    prop_assert!(shared_starts(&before, &after).contains(&start));
                }
            }
            prop_assert!(changed.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
            prop_assert!(changed.iter().all(|(from, len)| *len > 0 && from + len <= after.len));
        }

        #[test]
        fn what_lies_still_is_unchanged(mut one in layout()) {
            one.extents.retain(|extent| extent.form != Form::Inline);
            prop_assert_eq!(changed_ranges(&one, &one, |_| true), []);
        }
    }
}
