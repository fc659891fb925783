//! Several runs read as one, in the order of their ids.
//!
//! - Each pack is taken from one run only, so what several runs hold comes out once.
//! - Every block is verified; a run with too few entries, or of no pack, is damaged.
//! - Memory: one buffer of 64 KiB per run, and 4 bytes per pack.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    os::unix::fs::FileExt,
    sync::Arc,
};

use crate::{
    entry::{ENTRY_BYTES, Entry, PackInfo},
    packs::Packs,
    run::{BLOCK_BYTES, BLOCK_ENTRIES, Fault, OpenRun, PIECE_BYTES, verify_block},
};

/// Stands for packs whose entries are left out.
const LEFT_OUT: u32 = u32::MAX;

/// The known entries of several runs, ordered by id.
pub(crate) struct Union {
    readers: Vec<Reader>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
    /// The packs of the union; entries come out numbered by their place here.
    pub(crate) packs: Vec<PackInfo>,
    /// Entries that will come out.
    pub(crate) entries: u64,
}

struct Reader {
    run: Arc<OpenRun>,
    /// For each pack of the run its number in the union, or [`LEFT_OUT`].
    numbers: Vec<u32>,
    buffer: Vec<u8>,
    /// Next block to read, block in the buffer, entry in the block.
    next: u64,
    block: usize,
    entry: usize,
    /// Entries not yet passed, and not yet given.
    unread: u64,
    due: u64,
}

impl Union {
    /// The union of `runs`, of the packs that are known now.
    pub(crate) fn new(runs: Vec<Arc<OpenRun>>, known: &Packs) -> Self {
        let mut taken = vec![false; known.len()];
        let (mut packs, mut entries) = (Vec::new(), 0);
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            let mut due = 0;
            let number = |pack: &u32| match (known.get(*pack), taken.get_mut(*pack as usize)) {
                (Some(info), Some(taken)) if !*taken => {
                    *taken = true;
                    due += u64::from(info.chunk_count);
                    packs.push(*info);
                    (packs.len() - 1) as u32
                }
                _ => LEFT_OUT,
            };
            let numbers = run.packs.iter().map(number).collect();
            entries += due;
            let unread = run.entries;
            readers.push(Reader {
                run,
                numbers,
                buffer: Vec::new(),
                next: 0,
                block: 0,
                entry: 0,
                unread,
                due,
            });
        }
        Self {
            readers,
            heads: BinaryHeap::new(),
            packs,
            entries,
        }
    }

    /// Fills the heap; to be called once, before [`Union::next`].
    pub(crate) fn start(&mut self) -> Result<(), (Arc<OpenRun>, Fault)> {
        for (position, reader) in self.readers.iter_mut().enumerate() {
            if let Some(entry) = reader.next().map_err(|fault| (reader.run.clone(), fault))? {
                self.heads.push(Reverse((entry, position)));
            }
        }
        Ok(())
    }

    /// The next entry; a fault comes with the run it concerns.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, (Arc<OpenRun>, Fault)> {
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(None);
        };
        let Reverse((entry, position)) = *head;
        if let Some(reader) = self.readers.get_mut(position) {
            match reader.next().map_err(|fault| (reader.run.clone(), fault))? {
                Some(next) => *head = Reverse((next, position)),
                None => drop(PeekMut::pop(head)),
            }
        }
        Ok(Some(entry))
    }
}

impl Reader {
    /// The run's next entry of a pack that is not left out. An entry of no pack, or too few of them, is damage.
    fn next(&mut self) -> Result<Option<Entry>, Fault> {
        while self.unread > 0 {
            let entry = self.entry()?;
            self.unread -= 1;
            match self.numbers.get(entry.pack() as usize) {
                Some(&LEFT_OUT) => {}
                Some(number) => {
                    self.due = self.due.checked_sub(1).ok_or(Fault::Damaged)?;
                    return Ok(Some(entry.in_pack(*number)));
                }
                None => return Err(Fault::Damaged),
            }
        }
        if self.due == 0 { Ok(None) } else { Err(Fault::Damaged) }
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        if self.entry == BLOCK_ENTRIES {
            (self.block, self.entry) = (self.block + 1, 0);
        }
        let blocks = self.buffer.as_chunks::<BLOCK_BYTES>().0.len();
        if self.block >= blocks {
            self.fill()?;
        }
        let block = self
            .buffer
            .as_chunks::<BLOCK_BYTES>()
            .0
            .get(self.block)
            .ok_or(Fault::Damaged)?;
        let entry = block
            .as_chunks::<ENTRY_BYTES>()
            .0
            .get(self.entry)
            .ok_or(Fault::Damaged)?;
        self.entry += 1;
        Ok(Entry(*entry))
    }

    fn fill(&mut self) -> Result<(), Fault> {
        let left = self.run.fence.len() as u64 - self.next;
        let blocks = left.min((PIECE_BYTES / BLOCK_BYTES) as u64);
        self.buffer.resize(blocks as usize * BLOCK_BYTES, 0);
        self.run
            .file
            .read_exact_at(&mut self.buffer, self.next * BLOCK_BYTES as u64)?;
        for (block, bytes) in (self.next..).zip(self.buffer.as_chunks::<BLOCK_BYTES>().0) {
            verify_block(block, bytes)?;
        }
        self.next += blocks;
        (self.block, self.entry) = (0, 0);
        Ok(())
    }
}
