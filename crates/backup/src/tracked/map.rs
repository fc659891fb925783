//! What a large file was made of, and where it lay: when it changes, only what lies elsewhere is read again.
//!
//! - Records of one size: the head, a record for each extent, then, for each stretch without holes, where it ends and its chunks.
//! - True of the very state that a snapshot had, for extents are never written again, and such as take their place are made in a
//!   generation later than the snapshot's, which the head has. That does not hold for files that are written in place, which have no map.
//! - It is a cache: what cannot be decoded is not there.

use drystone_extents::Layout;
use drystone_extents::items::{FileExtent, Form};
use drystone_format::ChunkId;
use drystone_format::recipe::Part;
use drystone_index::StateReader;

use crate::cache::Key;

/// Smallest file that has a map, bytes.
pub(crate) const FILE_MIN_BYTES: u64 = 8 << 20;
/// Extents and chunks of a file that has one at most: 100 GiB with common chunks, and 90 MB of memory while it is read.
pub(crate) const EXTENTS_MAX: usize = 128 << 10;
const PARTS_MAX: usize = 800_000;
const RECORD_BYTES: usize = 1 + 32 + 8;
/// Records in a page of the state.
const PAGE_RECORDS: usize = 1536;

const HEAD: u8 = 6;
const EXTENT: u8 = 2;
const STRETCH: u8 = 3;
const CHUNK: u8 = 4;
const ZEROS: u8 = 5;

/// One record: what it is, 32 bytes, a number.
type Record = [u8; RECORD_BYTES];

fn record(kind: u8, words: [u64; 4], number: u64) -> Record {
    let mut record = [0; RECORD_BYTES];
    let bytes = words.into_iter().chain([number]).flat_map(u64::to_le_bytes);
    record
        .iter_mut()
        .zip([kind].into_iter().chain(bytes))
        .for_each(|(to, from)| *to = from);
    record
}

fn parse(record: &Record) -> Option<(u8, [u8; 32], u64)> {
    let (kind, rest) = record.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((*kind, *id, u64::from_le_bytes(*rest.first_chunk()?)))
}

fn words(id: &[u8; 32]) -> [u64; 4] {
    let (words, _) = id.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

/// Pages for the state; `None` if the file is too large to have a map.
pub(crate) fn encode(layout: &Layout, generation: u64, parts: &[Part]) -> Option<Vec<Vec<u8>>> {
    if layout.extents.len() > EXTENTS_MAX || parts.len() > PARTS_MAX {
        return None;
    }
    let head = record(HEAD, [layout.len, layout.extents.len() as u64, generation, 0], 0);
    let extents = layout.extents.iter().map(of_extent);
    let (mut records, mut at) = (vec![head], 0);
    records.extend(extents);
    let is_hole = |part: &Part| matches!(part, Part::Hole(_));
    for stretch in parts.chunk_by(|one, two| is_hole(one) == is_hole(two)) {
        let bytes: u64 = stretch.iter().map(Part::bytes).sum();
        if !stretch.first().is_some_and(is_hole) {
            records.push(record(STRETCH, [at, 0, 0, 0], at + bytes));
            records.extend(stretch.iter().filter_map(of_part));
        }
        at += bytes;
    }
    Some(
        records
            .chunks(PAGE_RECORDS)
            .map(<[Record]>::as_flattened)
            .map(<[u8]>::to_vec)
            .collect(),
    )
}

fn of_part(part: &Part) -> Option<Record> {
    match part {
        Part::Chunk { id, bytes } => Some(record(CHUNK, words(&id.0), *bytes)),
        Part::Zeros(bytes) => Some(record(ZEROS, [0; 4], *bytes)),
        Part::Hole(_) => None,
    }
}

/// Only what tells places apart is kept: [`drystone_extents::changed_ranges`] asks for nothing else.
fn of_extent(extent: &FileExtent) -> Record {
    let form = match extent.form {
        Form::Plain => 0,
        Form::Encoded => 1,
        Form::Inline => 2,
        Form::Reserved => 3,
    };
    // Lengths of extents are less than 2^48.
    let words = [extent.file_offset, extent.generation, extent.disk_start, extent.offset];
    record(EXTENT, words, extent.len << 2 | form)
}

fn to_extent(id: &[u8; 32], number: u64) -> FileExtent {
    let [file_offset, generation, disk_start, offset] = words(id);
    let form = match number & 3 {
        0 => Form::Plain,
        1 => Form::Encoded,
        2 => Form::Inline,
        _ => Form::Reserved,
    };
    FileExtent {
        file_offset,
        generation,
        form,
        disk_start,
        disk_len: 0,
        offset,
        len: number >> 2,
        ram_len: 0,
    }
}

/// Where the pages of a map come from.
pub(crate) trait Pages {
    /// A page, if it is there.
    fn page(&mut self, number: u32) -> Option<Vec<u8>>;
}

/// The pages of one file in the state.
pub(crate) struct Kept<'a> {
    pub(crate) reader: &'a StateReader,
    pub(crate) maps: Key,
    pub(crate) file: Key,
    /// Epoch of the first page.
    pub(crate) epoch: Option<u64>,
}

impl Pages for Kept<'_> {
    fn page(&mut self, number: u32) -> Option<Vec<u8>> {
        // What cannot be read is not there.
        let (epoch, page) = self.reader.get_page(&self.maps, &self.file, number).ok()??;
        (*self.epoch.get_or_insert(epoch) == epoch).then_some(page)
    }
}

/// A chunk that a file had, or zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Had {
    /// Where it began, bytes.
    pub(crate) start: u64,
    pub(crate) part: Part,
    /// Where the stretch without holes ended that it was in.
    pub(crate) stretch_end: u64,
}

/// A map that is read from its beginning to its end.
pub(crate) struct Map<P> {
    pages: P,
    number: u32,
    page: Vec<u8>,
    /// Where in the page the next record is.
    place: usize,
    /// Where the file lay.
    pub(crate) layout: Layout,
    /// Of the snapshot in which it lay there.
    pub(crate) generation: u64,
    at: u64,
    stretch_end: u64,
    next: Option<Had>,
}

impl<P: Pages> Map<P> {
    /// The map, up to its chunks.
    pub(crate) fn open(pages: P) -> Option<Self> {
        let mut map = Self {
            pages,
            number: 0,
            page: Vec::new(),
            place: 0,
            layout: Layout::default(),
            generation: 0,
            at: 0,
            stretch_end: 0,
            next: None,
        };
        let (HEAD, head, _) = map.record()? else { return None };
        let [len, count, generation, _] = words(&head);
        (map.layout.len, map.generation) = (len, generation);
        for _ in 0..count.min(EXTENTS_MAX as u64) {
            let (EXTENT, id, number) = map.record()? else {
                return None;
            };
            map.layout.extents.push(to_extent(&id, number));
        }
        Some(map)
    }

    fn record(&mut self) -> Option<(u8, [u8; 32], u64)> {
        loop {
            if let Some(record) = self.page.get(self.place..).and_then(|rest| rest.first_chunk()) {
                self.place += RECORD_BYTES;
                return parse(record);
            }
            self.page = self.pages.page(self.number).filter(|page| page.len() >= RECORD_BYTES)?;
            self.number += 1;
            self.place = 0;
        }
    }

    /// The chunk that began at `start`, if one did. Never asked for an earlier one than before.
    pub(crate) fn at(&mut self, start: u64) -> Option<Had> {
        while self.next.is_none_or(|had| had.start < start) {
            self.next = Some(self.advance()?);
        }
        self.next.filter(|had| had.start == start)
    }

    fn advance(&mut self) -> Option<Had> {
        loop {
            let (kind, id, number) = self.record()?;
            let part = match kind {
                STRETCH => {
                    (self.at, self.stretch_end) = (*words(&id).first()?, number);
                    continue;
                }
                CHUNK => Part::Chunk {
                    id: ChunkId(id),
                    bytes: number,
                },
                ZEROS => Part::Zeros(number),
                _ => return None,
            };
            let start = self.at;
            self.at = start.checked_add(part.bytes())?;
            let had = Had {
                start,
                part,
                stretch_end: self.stretch_end,
            };
            return (self.at <= self.stretch_end && part.bytes() > 0).then_some(had);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct InMemory(Vec<Vec<u8>>);

    impl Pages for InMemory {
        fn page(&mut self, number: u32) -> Option<Vec<u8>> {
            self.0.get(number as usize).cloned()
        }
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            (any::<[u8; 32]>(), 1u64..1 << 18).prop_map(|(id, bytes)| Part::Chunk { id: ChunkId(id), bytes }),
            (1u64..1 << 18).prop_map(Part::Zeros),
            (1u64..1 << 18).prop_map(Part::Hole),
        ]
    }

    fn extent() -> impl Strategy<Value = FileExtent> {
        (any::<[u64; 4]>(), 0u64..1 << 40, 0u8..4).prop_map(|(words, len, form)| {
            let [file_offset, generation, disk_start, offset] = words;
            let form = [Form::Plain, Form::Encoded, Form::Inline, Form::Reserved][usize::from(form)];
            FileExtent {
                file_offset,
                generation,
                form,
                disk_start,
                disk_len: 0,
                offset,
                len,
                ram_len: 0,
            }
        })
    }

    proptest! {
        #[test]
        fn maps_come_back(
            parts in proptest::collection::vec(part(), 0..4000),
            extents in proptest::collection::vec(extent(), 0..50),
            (len, generation) in any::<(u64, u64)>(),
        ) {
            let layout = Layout { len, extents };
            let pages = encode(&layout, generation, &parts).unwrap();
            let mut map = Map::open(InMemory(pages)).unwrap();
            prop_assert_eq!((&map.layout, map.generation), (&layout, generation));
            let (mut at, mut before) = (0, 0);
            for (number, part) in parts.iter().enumerate() {
                let had = map.at(at);
                if matches!(part, Part::Hole(_)) {
                    prop_assert_eq!(had, None);
                } else {
                    let rest = parts[number..].iter().take_while(|part| !matches!(part, Part::Hole(_)));
                    let stretch_end = at + rest.map(Part::bytes).sum::<u64>();
                    prop_assert_eq!(had, Some(Had { start: at, part: *part, stretch_end }));
                    if part.bytes() > 1 {
                        prop_assert_eq!(map.at(at + 1), None);
                    }
                }
                before = at;
                at += part.bytes();
            }
            prop_assert!(before <= at);
            prop_assert_eq!(map.at(at), None);
        }

        #[test]
        fn damage_is_absence(pages in proptest::collection::vec(proptest::collection::vec(0u8..7, 0..500), 0..3), start in any::<u64>()) {
            if let Some(mut map) = Map::open(InMemory(pages)) {
                map.at(start / 2);
                map.at(start);
            }
        }
    }
}
