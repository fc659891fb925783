//! Extents of the extent tree with the fingerprints of their blocks from the checksum tree, batch by batch.

use drystone_extents::Flow;
use drystone_extents::items::DiskExtent;

use super::BtrfsSpace;
use crate::error::Result;
use crate::space::{Extent, NO_PRINT, Print, Space};

/// Extents, and blocks, of which the fingerprints are asked for at once.
const BATCH_EXTENTS: usize = 8192;
const BATCH_BLOCKS: u64 = 1 << 20;
/// New extents farther apart are asked for separately, bytes.
const GAP_MAX_BYTES: u64 = 32 << 20;

impl BtrfsSpace {
    /// The fingerprints of extents that follow each other on disk.
    pub(super) fn prints(&self, batch: &[Extent], prints: &mut Vec<Print>) -> Result<()> {
        let block = self.block_bytes();
        let width = usize::from(self.fs.info().checksum_bytes).max(1);
        prints.clear();
        prints.resize(batch.iter().map(|extent| extent.blocks as usize).sum(), NO_PRINT);
        let end = |extent: &Extent| extent.start + u64::from(extent.blocks) * block;
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(());
        };
        // The extents that the next checksums may be of, and where the fingerprints of the first of them begin.
        let (mut rest, mut at) = (batch, 0);
        self.fs.checksums(first.start, end(last), |start, sums| {
            while let Some((extent, after)) = rest.split_first().filter(|(extent, _)| end(extent) <= start) {
                at += extent.blocks as usize;
                rest = after;
            }
            let item_end = start + (sums.len() / width) as u64 * block;
            let mut to = at;
            for extent in rest.iter().take_while(|extent| extent.start < item_end) {
                let skip_sums = extent.start.saturating_sub(start) / block;
                let skip_blocks = start.saturating_sub(extent.start) / block;
                let own = prints.get_mut(to + skip_blocks as usize..to + extent.blocks as usize);
                let sums = sums
                    .get(skip_sums as usize * width..)
                    .unwrap_or_default()
                    .chunks_exact(width);
                for (print, sum) in own.unwrap_or_default().iter_mut().zip(sums) {
                    *print = sum.first_chunk().map_or(NO_PRINT, |sum| Print::from_le_bytes(*sum));
                }
                to += extent.blocks as usize;
            }
            Flow::Continue(())
        })?;
        Ok(())
    }

    /// A batch of extents from `from` on, of this generation or later.
    pub(super) fn batch(&self, from: u64, min_generation: u64, batch: &mut Vec<Extent>) -> Result<()> {
        batch.clear();
        let block = self.block_bytes();
        let (mut blocks, mut end) = (0, None);
        self.fs.extents(from, min_generation, |found: DiskExtent| {
            let far = end.is_some_and(|end| found.start.saturating_sub(end) > GAP_MAX_BYTES);
            blocks += found.len / block;
            if batch.len() >= BATCH_EXTENTS || !batch.is_empty() && (far || blocks > BATCH_BLOCKS) {
                return Flow::Break(());
            }
            end = Some(found.start.saturating_add(found.len));
            batch.push(Extent {
                start: found.start,
                blocks: (found.len / block) as u32,
                refs: u32::try_from(found.users).unwrap_or(u32::MAX),
                pieces: u32::try_from(found.refs).unwrap_or(u32::MAX),
                generation: found.generation,
            });
            Flow::Continue(())
        })?;
        Ok(())
    }
}
