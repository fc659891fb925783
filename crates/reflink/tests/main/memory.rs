//! Memory is bounded by what a run may take, whatever the size of the file system: shown on one of 512 GiB that is only told.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Instant;

use drystone_reflink::{Extent, FileId, NO_PRINT, Options, Print, Result, Space, Use, Uses, Which};

use crate::disk::{options, run_noted};

const BLOCK: u64 = 4096;
/// Blocks of each extent: the most that compressed data has.
const BLOCKS: u32 = 32;

/// A file system of equal extents, of which every tenth is there twice.
struct Told {
    extents: u64,
}

impl Told {
    /// Which content an extent has.
    fn content(&self, extent: u64) -> u64 {
        let half = self.extents / 2;
        if extent >= half && extent.is_multiple_of(5) {
            extent - half
        } else {
            extent
        }
    }
}

impl Space for Told {
    fn id(&self) -> [u8; 16] {
        [7; 16]
    }

    fn generation(&self) -> Result<u64> {
        Ok(9)
    }

    fn block_bytes(&self) -> u64 {
        BLOCK
    }

    fn used_bytes(&self) -> Result<u64> {
        Ok(self.extents * u64::from(BLOCKS) * BLOCK)
    }

    fn frees_whole_extents(&self) -> bool {
        true
    }

    fn zero_print(&self) -> Option<Print> {
        None
    }

    fn scan(&self, _: Which, visit: &mut dyn FnMut(Extent, &[Print]) -> Result<()>) -> Result<()> {
        let mut prints = [NO_PRINT; BLOCKS as usize];
        for index in 0..self.extents {
            let first = self.content(index) * u64::from(BLOCKS);
            for (block, print) in prints.iter_mut().enumerate() {
                *print = ((first + block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 31) as Print;
            }
            let extent = Extent {
                start: index * u64::from(BLOCKS) * BLOCK,
                blocks: BLOCKS,
                refs: 1,
                generation: 5,
                pieces: 1,
            };
            visit(extent, &prints)?;
        }
        Ok(())
    }

    fn prepare(&self, _: &mut [Extent], _: u64) -> Result<()> {
        Ok(())
    }

    fn uses(&self, extents: &[Extent], visit: &mut dyn FnMut(usize, Uses) -> Result<()>) -> Result<()> {
        for (at, extent) in extents.iter().enumerate() {
            let file = FileId {
                subvolume: 5,
                inode: extent.start / BLOCK,
            };
            let one = Use {
                file,
                file_offset: 0,
                block: 0,
                blocks: BLOCKS,
                tail_bytes: 0,
                owner: 0,
                is_private: false,
            };
            let uses = Uses {
                list: vec![one],
                complete: true,
                ..Uses::default()
            };
            visit(at, uses)?;
        }
        Ok(())
    }

    fn open(&self, _: FileId) -> Result<OwnedFd> {
        unreachable!("an estimate opens nothing")
    }

    fn path(&self, _: FileId) -> Option<Vec<u8>> {
        None
    }

    fn scratch(&self) -> Result<OwnedFd> {
        unreachable!("an estimate writes nothing")
    }

    fn join(&self, _: FileId) -> Result<bool> {
        Ok(false)
    }

    fn commit(&self) -> Result<()> {
        Ok(())
    }

    fn freed(&self, _: &[Extent]) -> Result<u64> {
        Ok(0)
    }
}

/// The most memory that this process has had, bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Estimates; returns how much memory that took, and what share of what is there twice it found.
fn look(extents: u64, memory_bytes: u64) -> (u64, f64) {
    // What was had before does not count.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, start) = (peak(), Instant::now());
    let space = Told { extents };
    let estimate = Options {
        estimate: true,
        ..options(memory_bytes)
    };
    let report = run_noted(&space, &estimate, None).unwrap();
    let twice = (extents / 2..extents)
        .filter(|extent| space.content(*extent) != *extent)
        .count() as u64;
    let share = report.outcome.extents as f64 / twice as f64;
    let (took, seconds) = (peak() - before, start.elapsed().as_secs());
    let gib = (extents * u64::from(BLOCKS) * BLOCK) >> 30;
    let (mib, allowed, passes) = (took >> 20, memory_bytes >> 20, report.passes);
    eprintln!(
        "{gib} GiB: {mib} of {allowed} MiB, {:.1} % found, {passes} passes, {seconds} s",
        share * 100.0
    );
    (took, share)
}

#[test]
#[ignore = "takes minutes unless it is optimised, and the process for itself"]
fn memory_does_not_grow_with_the_file_system() {
    for (extents, memory_bytes) in [(1 << 18, 256 << 20), (1 << 22, 256 << 20)] {
        let (took, share) = look(extents, memory_bytes);
        assert!(took < memory_bytes && share > 0.95, "{took} of {memory_bytes}, {share}");
    }
}
