//! Trees: a directory as a stream of entries sorted by name bytes. Layout: docs/format.md, "Tree".
//!
//! - Names ascend strictly, hold no `/` and no NUL, and are neither empty nor `.` nor `..`: a hostile tree cannot climb.
//! - Equal directories give equal streams, so they share their chunks.
//! - Keys that this program does not know are kept on rewrite.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::{Error, Result, within};
use crate::limits::{
    ACL_NAMES_MAX, ENTRY_MAX_BYTES, LINK_TARGET_MAX_BYTES, NAME_MAX_BYTES, XATTR_NAME_MAX_BYTES, XATTR_VALUE_MAX_BYTES,
    XATTRS_MAX,
};
use crate::recipe::Recipe;

const OBJECT: &str = "tree entry";
/// Bytes of the length before each entry.
const LENGTH_BYTES: usize = 4;

/// A point in time as file systems have it: whole seconds since 1970 and nanoseconds within the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC, negative before.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward.
    pub nanos: u32,
}

impl Time {
    pub(crate) fn encode(self, out: &mut Writer) {
        out.array(2).int(self.seconds).uint(self.nanos.into());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.array_of("time", 2)?;
        let (seconds, nanos) = (reader.int()?, reader.u32()?);
        within(OBJECT, "nanoseconds", nanos.into(), 999_999_999)?;
        Ok(Self { seconds, nanos })
    }
}

/// What an entry is, with what only this kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file and its content.
    File(Recipe),
    /// A directory and the recipe of its tree stream.
    Dir(Recipe),
    /// A symbolic link and its target, as stored by the file system.
    Symlink(Vec<u8>),
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket; recorded, restored as nothing but its name.
    Socket,
}

impl Kind {
    fn code(&self) -> u64 {
        match self {
            Self::File(_) => 0,
            Self::Dir(_) => 1,
            Self::Symlink(_) => 2,
            Self::BlockDevice { .. } => 3,
            Self::CharDevice { .. } => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
        }
    }
}

/// What a reader of a backup must know about how an entry was taken; a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(pub u64);

impl Marks {
    /// The file changed while it was read, also on the retry: what is stored may mix two states of it.
    pub const CHANGED_WHILE_READ: u64 = 1;
    /// Part of the file or directory could not be read; what is stored is what could.
    pub const INCOMPLETE: u64 = 2;
    /// A directory that was made up to lead to what is stored, such as standard input: its attributes are nobody's.
    pub const MADE_UP: u64 = 4;

    /// Whether this mark is set.
    pub fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }
}

/// A user or group that an ACL names by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclId {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, as the file system has it: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// Type and content.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
    /// Owner by name; empty if it has none.
    pub user: String,
    /// Group by name; empty if it has none.
    pub group: String,
    /// Last change of the content.
    pub mtime: Time,
    /// Extended attributes, POSIX ACLs among them, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries of one snapshot with the same device and inode are one file with several names.
    pub hard_link: Option<(u64, u64)>,
    /// What went wrong while it was taken.
    pub marks: Marks,
    /// Names of the users and groups that its ACLs name by number, ascending; those that have none are left out.
    pub acl_names: Vec<(AclId, String)>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

/// Whether `name` may stand in a tree: it names something in this very directory.
pub fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX_BYTES
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl Entry {
    /// The recipe of a file or directory.
    pub fn recipe(&self) -> Option<&Recipe> {
        match &self.kind {
            Kind::File(recipe) | Kind::Dir(recipe) => Some(recipe),
            _ => None,
        }
    }

    /// Returns what a reader must be told about what is stored, as a clause that follows the path; `None` if nothing.
    pub fn flaw(&self) -> Option<&'static str> {
        let is_dir = matches!(self.kind, Kind::Dir(_));
        match (
            self.marks.has(Marks::INCOMPLETE),
            self.marks.has(Marks::CHANGED_WHILE_READ),
        ) {
            (true, _) if is_dir => Some("incomplete in this snapshot: not all of it could be read when it was stored"),
            (true, _) => {
                Some("incomplete in this snapshot: what could not be read when it was stored is zeros, or missing")
            }
            (_, true) => Some("it changed while it was backed up: what is stored may mix two states of it"),
            _ => None,
        }
    }

    /// The deterministic encoding, without the length that precedes it in a stream.
    pub fn encode(&self) -> Vec<u8> {
        let optional = [
            !self.user.is_empty(),
            !self.group.is_empty(),
            !matches!(self.kind, Kind::Fifo | Kind::Socket),
            !self.xattrs.is_empty(),
            self.hard_link.is_some(),
            self.marks.0 != 0,
            !self.acl_names.is_empty(),
        ];
        let keys = 6 + optional.iter().filter(|present| **present).count() + self.unknown.len();
        let mut out = Writer::new();
        out.map(keys)
            .uint(0)
            .bytes(&self.name)
            .uint(1)
            .uint(self.kind.code())
            .uint(2)
            .uint(self.mode.into());
        out.uint(3).uint(self.uid.into()).uint(4).uint(self.gid.into());
        if !self.user.is_empty() {
            out.uint(5).text(&self.user);
        }
        if !self.group.is_empty() {
            out.uint(6).text(&self.group);
        }
        out.uint(7);
        self.mtime.encode(&mut out);
        match &self.kind {
            Kind::File(recipe) | Kind::Dir(recipe) => recipe.encode(out.uint(8)),
            Kind::Symlink(target) => {
                out.uint(9).bytes(target);
            }
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                out.uint(10).array(2).uint((*major).into()).uint((*minor).into());
            }
            Kind::Fifo | Kind::Socket => {}
        }
        if !self.xattrs.is_empty() {
            out.uint(11).array(self.xattrs.len());
            for (name, value) in &self.xattrs {
                out.array(2).bytes(name).bytes(value);
            }
        }
        if let Some((device, inode)) = self.hard_link {
            out.uint(12).array(2).uint(device).uint(inode);
        }
        if self.marks.0 != 0 {
            out.uint(13).uint(self.marks.0);
        }
        if !self.acl_names.is_empty() {
            out.uint(14).array(self.acl_names.len());
            for (id, name) in &self.acl_names {
                let (kind, number) = match id {
                    AclId::User(number) => (0, *number),
                    AclId::Group(number) => (1, *number),
                };
                out.array(3).uint(kind).uint(number.into()).text(name);
            }
        }
        out.unknown(&self.unknown);
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut raw = Raw::default();
        let mut reader = Reader::new(OBJECT, bytes);
        let unknown = reader.map(|reader, key| raw.field(reader, key))?;
        reader.end()?;
        raw.entry(unknown)
    }
}

/// The keys of an entry as they come, before they are known to fit together.
#[derive(Default)]
struct Raw {
    name: Option<Vec<u8>>,
    kind: Option<u8>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: String,
    group: String,
    mtime: Option<Time>,
    recipe: Option<Recipe>,
    target: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    hard_link: Option<(u64, u64)>,
    marks: Marks,
    acl_names: Vec<(AclId, String)>,
}

impl Raw {
    fn field(&mut self, reader: &mut Reader<'_>, key: u64) -> Result<bool> {
        match key {
            0 => self.name = Some(reader.bytes("name", NAME_MAX_BYTES)?.to_vec()),
            1 => self.kind = Some(reader.u8()?),
            2 => self.mode = Some(reader.u32()?),
            3 => self.uid = Some(reader.u32()?),
            4 => self.gid = Some(reader.u32()?),
            5 => self.user = reader.text("owner name")?,
            6 => self.group = reader.text("group name")?,
            7 => self.mtime = Some(Time::decode(reader)?),
            8 => self.recipe = Some(Recipe::decode(reader)?),
            9 => self.target = Some(reader.bytes("link target", LINK_TARGET_MAX_BYTES)?.to_vec()),
            10 => {
                reader.array_of("device", 2)?;
                self.device = Some((reader.u32()?, reader.u32()?));
            }
            11 => {
                for _ in 0..reader.array("extended attributes", XATTRS_MAX as u64)? {
                    reader.array_of("extended attribute", 2)?;
                    let name = reader.bytes("extended attribute name", XATTR_NAME_MAX_BYTES)?.to_vec();
                    let value = reader
                        .bytes("extended attribute value", XATTR_VALUE_MAX_BYTES)?
                        .to_vec();
                    self.xattrs.push((name, value));
                }
            }
            12 => {
                reader.array_of("hard link", 2)?;
                self.hard_link = Some((reader.uint()?, reader.uint()?));
            }
            13 => self.marks = Marks(reader.uint()?),
            14 => {
                for _ in 0..reader.array("names in ACLs", ACL_NAMES_MAX)? {
                    reader.array_of("name in an ACL", 3)?;
                    let (kind, number) = (reader.u8()?, reader.u32()?);
                    let id = match kind {
                        0 => AclId::User(number),
                        1 => AclId::Group(number),
                        _ => return Err(Error::malformed(OBJECT, 0, format!("unknown kind {kind} in an ACL"))),
                    };
                    self.acl_names.push((id, reader.text("name in an ACL")?));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn entry(self, unknown: Vec<Unknown>) -> Result<Entry> {
        let name = required(OBJECT, "name", self.name)?;
        if !is_name(&name) {
            let shown = String::from_utf8_lossy(&name).into_owned();
            return Err(Error::malformed(
                OBJECT,
                0,
                format!("`{}` is no name of a file", shown.escape_debug()),
            ));
        }
        let kind = match required(OBJECT, "type", self.kind)? {
            0 => Kind::File(required(OBJECT, "content", self.recipe)?),
            1 => Kind::Dir(required(OBJECT, "content", self.recipe)?),
            2 => Kind::Symlink(required(OBJECT, "link target", self.target)?),
            code @ (3 | 4) => {
                let (major, minor) = required(OBJECT, "device number", self.device)?;
                if code == 3 {
                    Kind::BlockDevice { major, minor }
                } else {
                    Kind::CharDevice { major, minor }
                }
            }
            5 => Kind::Fifo,
            6 => Kind::Socket,
            code => {
                return Err(Error::malformed(
                    OBJECT,
                    0,
                    format!("unknown type {code}: written by a newer drystone"),
                ));
            }
        };
        Ok(Entry {
            name,
            kind,
            mode: required(OBJECT, "mode", self.mode)? & 0o7777,
            uid: required(OBJECT, "uid", self.uid)?,
            gid: required(OBJECT, "gid", self.gid)?,
            user: self.user,
            group: self.group,
            mtime: required(OBJECT, "mtime", self.mtime)?,
            xattrs: self.xattrs,
            hard_link: self.hard_link,
            marks: self.marks,
            acl_names: self.acl_names,
            unknown,
        })
    }
}

/// Appends an encoded entry to a tree stream.
pub fn append_encoded(stream: &mut Vec<u8>, entry: &[u8]) {
    stream.extend_from_slice(&(entry.len() as u32).to_be_bytes());
    stream.extend_from_slice(entry);
}

/// Takes a tree stream piece by piece and gives its entries; holds one entry's bytes beyond the piece.
#[derive(Default)]
pub struct TreeDecoder {
    buffer: Vec<u8>,
    at: usize,
    previous: Vec<u8>,
}

impl TreeDecoder {
    /// The next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next entry, or `None` if more bytes are needed (or the stream is over).
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        within(OBJECT, "bytes", length as u64, ENTRY_MAX_BYTES as u64)?;
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        let entry = Entry::decode(bytes)?;
        if entry.name <= self.previous {
            return Err(Error::malformed(OBJECT, self.at, "names out of order"));
        }
        self.at += LENGTH_BYTES + length;
        self.previous.clone_from(&entry.name);
        Ok(Some(entry))
    }

    /// `Ok` if the stream ended between entries.
    pub fn finish(self) -> Result<()> {
        if self.at == self.buffer.len() {
            return Ok(());
        }
        Err(Error::malformed(OBJECT, self.at, "the stream ends within an entry"))
    }
}
