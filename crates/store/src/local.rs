//! A store in a directory of a local file system: one file per object.
//!
//! - Everything goes through the directory that was opened: one that is unmounted or replaced later is not mixed up with it.
//! - No symbolic link below it is followed, on the way or at the end (`local/beneath.rs`); what is not a regular file is no object,
//!   and what stands where an object or a directory of objects should be is named, with what to do about it.
//! - Files are made with mode 0600, directories with 0700.
//! - Blocking calls run on tokio's threads for such, so the methods need a tokio runtime.

mod atomic;
mod beneath;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::error::NO_DIRECTORY;
use crate::remote::limits::{ENTRIES_MAX, too_many_entries};
use crate::walk::Page;
use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Space, Store, Traits};

use self::atomic::{Directory, Existing, Failure};

/// What an error names when the place as a whole is meant.
const WHOLE: &str = "its directory";
/// Names that a fresh file system has at its top.
const NOT_FOREIGN: [&str; 2] = [atomic::TMP, "lost+found"];

/// A store in a local directory.
#[derive(Debug, Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: Directory,
    place: String,
}

impl Local {
    /// Opens an existing directory; whether a vault is in it is for the caller to find out. Blocks for a moment.
    ///
    /// Removes temporary files that dead writers left. [`Error::NoPlace`] or [`Error::NotDirectory`] if it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let place = std::path::absolute(path)
            .unwrap_or_else(|_| path.to_path_buf())
            .display()
            .to_string();
        match Directory::open(path) {
            Ok(directory) => Ok(Self {
                inner: Arc::new(Inner { directory, place }),
            }),
            Err(source) => Err(whole_error(place, "opening", source)),
        }
    }

    /// Makes the directory and those above it where missing, durably, and opens it. Blocks for a moment.
    ///
    /// A directory that is there already must be empty or hold only what a vault holds, else [`Error::Occupied`].
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |source| whole_error(path.display().to_string(), "making", source);
        atomic::create_directories(path).map_err(failed)?;
        let local = Self::open(path)?;
        for entry in local.inner.entries("")? {
            if !Name::is_top_level(&entry) && !NOT_FOREIGN.contains(&entry.as_str()) {
                return Err(Error::Occupied {
                    place: local.inner.place.clone(),
                    found: entry,
                });
            }
        }
        Ok(local)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(&self.inner.place, move || work(&inner)).await?
    }
}

fn whole_error(place: String, during: &'static str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound => Error::NoPlace {
            place,
            advice: NO_DIRECTORY,
        },
        io::ErrorKind::NotADirectory => Error::NotDirectory { place },
        _ => Error::from_io(&place, WHOLE, during, source),
    }
}

impl Inner {
    fn error(&self, name: &Name, during: &'static str, source: impl Into<io::Error>) -> Error {
        let source = source.into();
        // What the file of an object is written through comes into question too.
        let paths = [
            (name.as_str(), FileType::RegularFile),
            (atomic::TMP, FileType::Directory),
        ];
        let mut foreign = paths
            .iter()
            .filter_map(|(path, kind)| self.foreign(path, *kind, &source));
        foreign
            .next()
            .unwrap_or_else(|| Error::from_io(&self.place, name.as_str(), during, source))
    }

    /// What stands in the way, if that is what the system means.
    fn foreign(&self, path: &str, wanted: FileType, source: &io::Error) -> Option<Error> {
        let code = source.raw_os_error()?;
        let told = [
            Errno::LOOP,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::XDEV,
            Errno::NXIO,
            Errno::NODEV,
        ];
        if !told.iter().any(|errno| errno.raw_os_error() == code) {
            return None;
        }
        let (name, found) = beneath::foreign(self.directory.root(), path, wanted)?;
        let place = self.place.clone();
        Some(Error::Foreign { name, place, found })
    }

    /// An object is missing, unless it is the whole directory that is.
    fn missing(&self, name: &Name) -> Error {
        if self.is_gone() {
            return Error::NoPlace {
                place: self.place.clone(),
                advice: NO_DIRECTORY,
            };
        }
        Error::NotFound {
            name: name.to_string(),
            place: self.place.clone(),
        }
    }

    /// What an ordinary user may still store.
    fn space(&self) -> Result<Option<Space>> {
        let found = rustix::fs::fstatvfs(self.directory.root());
        let found =
            found.map_err(|errno| Error::from_io(&self.place, WHOLE, "asking for the space of", errno.into()))?;
        Ok(Some(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        }))
    }

    /// Whether the directory was removed since it was opened.
    fn is_gone(&self) -> bool {
        rustix::fs::fstat(self.directory.root()).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn put(&self, name: &Name, bytes: &[u8]) -> Result<Put> {
        name.check_size(&self.place, bytes.len() as u64)?;
        let existing = match name.is_replaced_by_size() {
            true => Existing::ReplaceIfSizeDiffers,
            false => Existing::Keep,
        };
        self.directory
            .put(name.as_str(), bytes, existing)
            .map_err(|failure| self.change_error(name, failure))
    }

    /// An error of a put or delete: nothing of the object is looked for there, so what is missing is the directory.
    fn change_error(&self, name: &Name, Failure { during, source }: Failure) -> Error {
        match source.kind() {
            io::ErrorKind::NotFound => Error::NoPlace {
                place: self.place.clone(),
                advice: NO_DIRECTORY,
            },
            _ => self.error(name, during, source),
        }
    }

    fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        // Without NONBLOCK, opening a pipe that took the object's name would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = match beneath::open(self.directory.root(), name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(self.missing(name)),
            outcome => File::from(outcome.map_err(|errno| self.error(name, "opening", errno))?),
        };
        let metadata = file
            .metadata()
            .map_err(|source| self.error(name, "reading the size of", source))?;
        if !metadata.is_file() {
            return Err(self.error(name, "opening", Errno::LOOP));
        }
        let (offset, len) = range.resolve(name, &self.place, metadata.len())?;
        self.read(name, &file.into(), offset, len)
    }

    fn read(&self, name: &Name, file: &OwnedFd, offset: u64, len: usize) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let no_memory = |_| self.error(name, "reading", io::Error::from(io::ErrorKind::OutOfMemory));
        bytes.try_reserve_exact(len).map_err(no_memory)?;
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => {
                    let (name, place) = (name.to_string(), self.place.clone());
                    return Err(Error::Short {
                        name,
                        place,
                        size: at,
                        wanted: offset + len as u64,
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error(name, "reading", errno)),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    fn stat(&self, name: &Name) -> Result<u64> {
        let found = self.directory.size_of(name.as_str());
        found
            .map_err(|source| self.error(name, "reading the size of", source))?
            .ok_or_else(|| self.missing(name))
    }

    fn delete(&self, name: &Name) -> Result<()> {
        let deleted = self
            .directory
            .delete(name.as_str())
            .map_err(|failure| self.change_error(name, failure))?;
        if !deleted && self.is_gone() {
            return Err(Error::NoPlace {
                place: self.place.clone(),
                advice: NO_DIRECTORY,
            });
        }
        Ok(())
    }

    fn list(&self, prefix: &Prefix, page: &mut Page) -> Result<()> {
        if self.is_gone() {
            return Err(Error::NoPlace {
                place: self.place.clone(),
                advice: NO_DIRECTORY,
            });
        }
        self.walk(&prefix.directory(), page)
    }

    /// Adds the objects below one directory in the order of their names, until the page is full.
    fn walk(&self, directory: &str, page: &mut Page) -> Result<()> {
        for path in self.candidates(directory)? {
            if page.is_full() {
                break;
            }
            if page.is_past(&path) {
                continue;
            }
            if let Some(directory) = path.strip_suffix('/') {
                self.walk(directory, page)?;
            } else if let Ok(name) = Name::parse(&path)
                && let Some(size) = self.listed_size(&name)?
            {
                page.found.push(Listed { name, size });
            }
        }
        Ok(())
    }

    /// Paths below one directory that may be objects, or, with a final `/`, hold some; in the order of names.
    fn candidates(&self, directory: &str) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for entry in self.entries(directory)? {
            let mut path = if directory.is_empty() {
                entry
            } else {
                format!("{directory}/{entry}")
            };
            if Name::is_directory(&path) {
                path.push('/');
            }
            paths.push(path);
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// Names in one directory, none if it does not exist; those that are not UTF-8 are foreign and left out.
    fn entries(&self, directory: &str) -> Result<Vec<String>> {
        let failed = |errno: Errno| {
            let source = io::Error::from(errno);
            let foreign = self.foreign(directory, FileType::Directory, &source);
            foreign.unwrap_or_else(|| Error::from_io(&self.place, directory, "listing", source))
        };
        let opened = match beneath::directory(self.directory.root(), directory) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            outcome => outcome.map_err(failed)?,
        };
        let mut names = Vec::new();
        for (count, entry) in Dir::new(opened).map_err(failed)?.enumerate() {
            if count > ENTRIES_MAX {
                return Err(Error::Endless {
                    name: directory.to_string(),
                    place: self.place.clone(),
                    what: too_many_entries().to_string(),
                });
            }
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_string());
            }
        }
        Ok(names)
    }

    /// Size of a listed object; `None` if it was deleted meanwhile or is not a regular file.
    fn listed_size(&self, name: &Name) -> Result<Option<u64>> {
        match self.directory.size_of(name.as_str()) {
            Err(source) if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
            outcome => outcome.map_err(|source| self.error(name, "listing", source)),
        }
    }
}

#[async_trait]
impl Store for Local {
    fn place(&self) -> &str {
        &self.inner.place
    }

    fn traits(&self) -> Traits {
        Traits {
            durable_on_return: true,
            ordered_list: true,
            stale_list: None,
            max_object_bytes: None,
            exclusive_create: true,
            slow: false,
            finite: true,
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let name = name.clone();
        self.blocking(move |inner| inner.put(&name, &bytes)).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let name = name.clone();
        self.blocking(move |inner| inner.get(&name, range)).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        let name = name.clone();
        self.blocking(move |inner| inner.stat(&name)).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let mut page = Page::new(after, limit);
        let prefix = *prefix;
        self.blocking(move |inner| inner.list(&prefix, &mut page).map(|()| page.found))
            .await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let name = name.clone();
        self.blocking(move |inner| inner.delete(&name)).await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.blocking(move |inner| inner.space()).await
    }
}
