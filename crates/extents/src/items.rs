//! Items of Btrfs trees, as TREE_SEARCH_V2 gives them: pure functions from bytes.
//!
//! - An item that is too short for what it should be is no item (`None`); nothing here panics on any bytes.
//! - Numbers on disk are little-endian; layouts are those of linux/btrfs_tree.h.

/// Trees, by number.
pub mod tree {
    /// Which subvolumes there are.
    pub const ROOTS: u64 = 1;
    /// Which bytes of the disk are taken, and how often they are referenced.
    pub const EXTENTS: u64 = 2;
    /// The subvolume that every file system has.
    pub const TOP: u64 = 5;
    /// A checksum of each block of data.
    pub const CHECKSUMS: u64 = 7;
    /// First and last number that a subvolume can have, besides [`TOP`].
    pub const SUBVOLUMES: (u64, u64) = (256, u64::MAX - 255);
}

/// Kinds of items, by number.
pub mod kind {
    /// [`super::Inode`].
    pub const INODE: u32 = 1;
    /// Names of an inode in one directory, whose number is the third part of the key.
    pub const INODE_REF: u32 = 12;
    /// More of them; the item begins with the number of the directory.
    pub const INODE_EXTENDED_REF: u32 = 13;
    /// [`super::FileExtent`].
    pub const FILE_EXTENT: u32 = 108;
    /// Checksums.
    pub const CHECKSUM: u32 = 128;
    /// [`super::Root`].
    pub const ROOT: u32 = 132;
    /// [`super::RootRef`], keyed by the child.
    pub const ROOT_BACKREF: u32 = 144;
    /// [`super::DiskExtent`].
    pub const EXTENT: u32 = 168;
}

/// The key of all checksums of data.
pub const CHECKSUM_OBJECT: u64 = -10i64 as u64;
/// Bytes of `struct btrfs_ioctl_search_header`.
const HEADER_BYTES: usize = 32;

/// Key of an item, and the generation of the metadata block that it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// First part.
    pub object: u64,
    /// Second part: one of [`kind`].
    pub kind: u32,
    /// Third part.
    pub offset: u64,
    /// Generation of the metadata block.
    pub generation: u64,
}

/// The number of 8 bytes at `at`.
pub fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The items of a search's reply; ends early where the reply is cut.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Items<'a> {
    /// Items of a reply, of which the kernel said how many there are.
    pub fn new(reply: &'a [u8], count: u32) -> Self {
        Self {
            rest: reply,
            left: count,
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (Key, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (header, rest) = self.rest.split_at_checked(HEADER_BYTES)?;
        let native = |at| crate::ioctl::u64_at(header, at);
        let key = Key {
            generation: native(0),
            object: native(8),
            offset: native(16),
            kind: crate::ioctl::u32_at(header, 24),
        };
        let (item, rest) = rest.split_at_checked(crate::ioctl::u32_at(header, 28) as usize)?;
        self.rest = rest;
        Some((key, item))
    }
}

/// An extent of the extent tree: bytes of the disk that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskExtent {
    /// Position in the file system's logical address space, bytes.
    pub start: u64,
    /// Length on disk, bytes.
    pub len: u64,
    /// References to it from files' extents, those of shared metadata blocks counted once.
    pub refs: u64,
    /// Who has these references, about: a file that uses it in many pieces, or a shared metadata block, is one.
    pub users: u64,
    /// Generation that it was written in.
    pub generation: u64,
}

impl DiskExtent {
    /// An extent of data; metadata is none.
    pub fn decode(key: &Key, item: &[u8]) -> Option<Self> {
        const DATA: u64 = 1;
        let (refs, generation, flags) = (le64(item, 0)?, le64(item, 8)?, le64(item, 16)?);
        (key.kind == kind::EXTENT && flags & DATA != 0).then(|| Self {
            start: key.object,
            len: key.offset,
            refs,
            users: users(item.get(24..).unwrap_or_default(), refs),
            generation,
        })
    }
}

/// Counts the back references that an extent's item has in itself; each of the others counts as one more.
fn users(mut inline: &[u8], refs: u64) -> u64 {
    const OWNER: u8 = 172;
    const OF_FILE: u8 = 178;
    const OF_SHARED_BLOCK: u8 = 184;
    let (mut users, mut counted) = (0, 0);
    while let Some((kind, rest)) = inline.split_first() {
        // Bytes of the reference, and where in it the count is.
        let (len, count_at) = match *kind {
            OWNER => (8, None),
            OF_FILE => (28, Some(24)),
            OF_SHARED_BLOCK => (12, Some(8)),
            _ => break,
        };
        if let Some(count) = count_at.and_then(|at| le32(rest, at)) {
            users += 1;
            counted += u64::from(count);
        }
        inline = rest.get(len..).unwrap_or_default();
    }
    (users + refs.saturating_sub(counted)).min(refs)
}

/// What a file's extent item says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileExtent {
    /// Position in the file, bytes.
    pub file_offset: u64,
    /// Generation of the data, kept when the extent is cloned.
    pub generation: u64,
    /// How the data is stored.
    pub form: Form,
    /// Where the extent begins on disk; 0 is a hole.
    pub disk_start: u64,
    /// Its length on disk.
    pub disk_len: u64,
    /// Where in the (uncompressed) extent this part of the file begins.
    pub offset: u64,
    /// How much of the file it is.
    pub len: u64,
    /// Length of the whole extent, uncompressed.
    pub ram_len: u64,
}

/// How a file's extent is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// Compressed or otherwise encoded: only as a whole comparable on disk.
    Encoded,
    /// In the metadata.
    Inline,
    /// Reserved, reads as zeros.
    Reserved,
}

impl FileExtent {
    /// A file's extent.
    pub fn decode(key: &Key, item: &[u8]) -> Option<Self> {
        let (generation, ram_len) = (le64(item, 0)?, le64(item, 8)?);
        let encoding = (*item.get(16)?, *item.get(17)?, le16(item, 18)?);
        let form = match *item.get(20)? {
            _ if key.kind != kind::FILE_EXTENT => return None,
            0 => Form::Inline,
            1 if encoding == (0, 0, 0) => Form::Plain,
            1 => Form::Encoded,
            2 => Form::Reserved,
            _ => return None,
        };
        let [disk_start, disk_len, offset, len] = match form {
            Form::Inline => [0, 0, 0, ram_len],
            _ => [le64(item, 21)?, le64(item, 29)?, le64(item, 37)?, le64(item, 45)?],
        };
        key.offset.checked_add(len)?;
        offset.checked_add(len)?;
        Some(Self {
            file_offset: key.offset,
            generation,
            form,
            disk_start,
            disk_len,
            offset,
            len,
            ram_len,
        })
    }
}

/// What is of interest of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Generation of its last change of any kind.
    pub changed: u64,
    /// Bytes.
    pub size: u64,
    /// Names that it has.
    pub links: u32,
    /// The user that it belongs to.
    pub owner: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Flags of the file system: 1 is NODATASUM, 2 is NODATACOW.
    pub flags: u64,
}

impl Inode {
    /// An inode.
    pub fn decode(key: &Key, item: &[u8]) -> Option<Self> {
        let inode = Self {
            changed: le64(item, 8)?,
            size: le64(item, 16)?,
            links: le32(item, 40)?,
            owner: le32(item, 44)?,
            mode: le32(item, 52)?,
            flags: le64(item, 64)?,
        };
        (key.kind == kind::INODE).then_some(inode)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether its data has no checksums (NODATASUM): it shares with its like alone.
    pub fn is_unsummed(&self) -> bool {
        const NODATASUM: u64 = 1;
        self.flags & NODATASUM != 0
    }

    /// Whether its data may change without moving to another place (NODATACOW).
    pub fn is_written_in_place(&self) -> bool {
        const NODATACOW: u64 = 1 << 1;
        self.flags & NODATACOW != 0
    }
}

/// The directory that an inode has a name in, from an item that says so.
pub fn parent(key: &Key, item: &[u8]) -> Option<u64> {
    match key.kind {
        kind::INODE_REF => Some(key.offset),
        kind::INODE_EXTENDED_REF => le64(item, 0),
        _ => None,
    }
}

/// A name that an inode has, and the directory that it is in, from an item that says so.
pub fn name(key: &Key, item: &[u8]) -> Option<(u64, Vec<u8>)> {
    let at = match key.kind {
        kind::INODE_REF => 8,
        kind::INODE_EXTENDED_REF => 16,
        _ => return None,
    };
    let name = item.get(at + 2..)?.get(..usize::from(le16(item, at)?))?;
    Some((parent(key, item)?, name.to_vec()))
}

/// A subvolume or snapshot, as the root tree has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Its number.
    pub id: u64,
    /// Generation of its last change.
    pub generation: u64,
    /// Cannot be written.
    pub read_only: bool,
    /// Still linked in the file system; else it is being deleted.
    pub linked: bool,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Identity of what it is a snapshot of; zeros if it is none.
    pub parent_uuid: [u8; 16],
    /// Generation that it was made in.
    pub made: u64,
}

impl Root {
    /// A subvolume.
    pub fn decode(key: &Key, item: &[u8]) -> Option<Self> {
        let uuid = |at: usize| item.get(at..)?.first_chunk::<16>().copied();
        let is_subvolume = key.object == tree::TOP || (tree::SUBVOLUMES.0..=tree::SUBVOLUMES.1).contains(&key.object);
        (key.kind == kind::ROOT && is_subvolume).then_some(())?;
        Some(Self {
            id: key.object,
            generation: le64(item, 160)?,
            read_only: le64(item, 208)? & 1 != 0,
            linked: le32(item, 216)? != 0,
            // Roots of before Linux 3.7 have no more.
            uuid: uuid(247).unwrap_or_default(),
            parent_uuid: uuid(263).unwrap_or_default(),
            made: le64(item, 303).unwrap_or(0),
        })
    }
}

/// Where a subvolume is linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRef {
    /// The subvolume.
    pub child: u64,
    /// The subvolume that it is in.
    pub parent: u64,
    /// The directory that it is in.
    pub dir: u64,
    /// Its name there.
    pub name: Vec<u8>,
}

impl RootRef {
    /// A link.
    pub fn decode(key: &Key, item: &[u8]) -> Option<Self> {
        let name = item.get(18..)?.get(..usize::from(le16(item, 16)?))?.to_vec();
        let found = Self {
            child: key.object,
            parent: key.offset,
            dir: le64(item, 0)?,
            name,
        };
        (key.kind == kind::ROOT_BACKREF).then_some(found)
    }
}

/// References to an extent: (inode, file offset, subvolume) of each, from the reply of LOGICAL_INO_V2; and how many did not fit.
pub fn references(container: &[u8]) -> (Vec<Reference>, u64) {
    let head = crate::ioctl::CONTAINER_HEAD_BYTES;
    let missed = u64::from(crate::ioctl::u32_at(container, 12)) / 3;
    let count = crate::ioctl::u32_at(container, 8) as usize / 3;
    let triples = container.get(head..).unwrap_or_default().chunks_exact(24).take(count);
    let native = crate::ioctl::u64_at;
    let found = triples.map(|triple| Reference {
        inode: native(triple, 0),
        file_offset: native(triple, 8),
        subvolume: native(triple, 16),
    });
    (found.collect(), missed)
}

/// One place where a file uses an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The subvolume.
    pub subvolume: u64,
    /// The inode.
    pub inode: u64,
    /// Position of the file's extent, bytes.
    pub file_offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(object: u64, kind: u32, offset: u64) -> Key {
        Key {
            object,
            kind,
            offset,
            generation: 9,
        }
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_reply_is_taken_apart() {
        let mut reply = Vec::new();
        for (offset, item) in [(5u64, b"abc".as_slice()), (6, b"")] {
            [9u64, 256, offset]
                .iter()
                .for_each(|word| reply.extend(word.to_ne_bytes()));
            reply.extend(kind::INODE.to_ne_bytes());
            reply.extend((item.len() as u32).to_ne_bytes());
            reply.extend(item);
        }
        let expected = [
            (key(256, kind::INODE, 5), b"abc".as_slice()),
            (key(256, kind::INODE, 6), b""),
        ];
        assert_eq!(Items::new(&reply, 2).collect::<Vec<_>>(), expected);
        assert_eq!(Items::new(&reply, 1).count(), 1);
        assert_eq!(Items::new(&reply, 9).count(), 2);
        assert_eq!(Items::new(&reply[..34], 2).count(), 0);
    }

    #[test]
    fn extents_of_files_are_told_apart_by_form() {
        let item = |form: u8, compression: u8| {
            let mut item = words(&[7, 8192]);
            item.extend([compression, 0, 0, 0, form]);
            item.extend(words(&[1 << 20, 4096, 4096, 8192]));
            item
        };
        let decode = |item: &[u8]| FileExtent::decode(&key(257, kind::FILE_EXTENT, 16384), item);
        let plain = FileExtent {
            file_offset: 16384,
            generation: 7,
            form: Form::Plain,
            disk_start: 1 << 20,
            disk_len: 4096,
            offset: 4096,
            len: 8192,
            ram_len: 8192,
        };
        assert_eq!(decode(&item(1, 0)), Some(plain));
        assert_eq!(decode(&item(1, 3)).unwrap().form, Form::Encoded);
        assert_eq!(decode(&item(2, 0)).unwrap().form, Form::Reserved);
        let inline = decode(&item(0, 1)).unwrap();
        assert_eq!((inline.form, inline.disk_start, inline.len), (Form::Inline, 0, 8192));
        assert_eq!(decode(&item(3, 0)), None);
        assert_eq!(decode(&item(1, 0)[..52]), None);
        assert_eq!(FileExtent::decode(&key(257, kind::INODE, 0), &item(1, 0)), None);
        let mut endless = item(1, 0);
        endless.truncate(45);
        endless.extend(words(&[u64::MAX]));
        assert_eq!(decode(&endless), None);
    }

    #[test]
    fn data_is_told_from_metadata() {
        let decode = |flags| DiskExtent::decode(&key(4096, kind::EXTENT, 8192), &words(&[2, 7, flags]));
        let data = DiskExtent {
            start: 4096,
            len: 8192,
            refs: 2,
            users: 2,
            generation: 7,
        };
        assert_eq!((decode(1), decode(2)), (Some(data), None));
    }

    #[test]
    fn a_file_that_uses_an_extent_in_pieces_is_one_user() {
        let mut item = words(&[1009, 7, 1]);
        item.push(172);
        item.extend(words(&[5]));
        for count in [1001u32, 2] {
            item.push(178);
            item.extend(words(&[5, 257, 0]));
            item.extend(count.to_le_bytes());
        }
        item.push(184);
        item.extend(words(&[1 << 20]));
        item.extend(4u32.to_le_bytes());
        let decode = |item: &[u8]| DiskExtent::decode(&key(4096, kind::EXTENT, 8192), item).unwrap();
        // Three in the item, and two that have items of their own.
        assert_eq!((decode(&item).refs, decode(&item).users), (1009, 5));
        assert_eq!(decode(&item[..24]).users, 1009);
    }

    #[test]
    fn names_are_read() {
        let mut one = words(&[2]);
        one.extend([4, 0]);
        one.extend(b"name and another");
        let expected = Some((256, b"name".to_vec()));
        assert_eq!(name(&key(257, kind::INODE_REF, 256), &one), expected);
        let extended = [words(&[256]), one.clone()].concat();
        assert_eq!(name(&key(257, kind::INODE_EXTENDED_REF, 99), &extended), expected);
        assert_eq!(name(&key(257, kind::INODE_REF, 256), &one[..12]), None);
        assert_eq!(name(&key(257, kind::INODE, 0), &one), None);
    }

    #[test]
    fn roots_and_links_are_read() {
        let mut item = vec![0; 439];
        item[160] = 11;
        item[208] = 1;
        item[216] = 1;
        item[247] = 0xaa;
        item[303] = 10;
        let root = Root::decode(&key(258, kind::ROOT, 0), &item).unwrap();
        assert_eq!(
            (
                root.id,
                root.generation,
                root.read_only,
                root.linked,
                root.uuid[0],
                root.made
            ),
            (258, 11, true, true, 0xaa, 10)
        );
        assert_eq!(Root::decode(&key(7, kind::ROOT, 0), &item), None);
        let old = Root::decode(&key(5, kind::ROOT, 0), &item[..239]).unwrap();
        assert_eq!(old.uuid, [0; 16]);
        let mut link = words(&[256, 3]);
        link.extend([4, 0]);
        link.extend(b"snap and what is beyond");
        let link = RootRef::decode(&key(258, kind::ROOT_BACKREF, 5), &link).unwrap();
        assert_eq!(
            (link.child, link.parent, link.dir, link.name),
            (258, 5, 256, b"snap".to_vec())
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_fatal(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            (object, kind, offset) in (any::<u64>(), 0u32..256, any::<u64>()),
            count in any::<u32>(),
        ) {
            for kind in [kind, kind::INODE, kind::FILE_EXTENT, kind::ROOT, kind::ROOT_BACKREF, kind::EXTENT] {
                let key = key(object, kind, offset);
                let _ = (Inode::decode(&key, &bytes), FileExtent::decode(&key, &bytes), Root::decode(&key, &bytes));
                let _ = (RootRef::decode(&key, &bytes), DiskExtent::decode(&key, &bytes));
                let _ = name(&key, &bytes);
            }
            let items: Vec<_> = Items::new(&bytes, count).collect();
            prop_assert!(items.len() * HEADER_BYTES <= bytes.len());
            let (found, _) = references(&bytes);
            prop_assert!(found.len() * 24 <= bytes.len());
        }
    }
}
