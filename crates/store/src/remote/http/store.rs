//! A place on another machine, reached through OpenDAL: S3, Swift, WebDAV and their like.
//!
//! - No condition of a server is relied on: a put looks first, and of several puts at once more than one may be told `Created`.
//! - A service that shows an object while it is being written gets it under a temporary name first.
//! - A listing that the service gives out of order, or breaks off, is an error.
//! - Nothing is read beyond what was asked for or the format allows; a listing that does not end is given up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use opendal::options::{ListOptions, ReaderOptions};
use opendal::{BytesRange, EntryMode, ErrorKind, Operator};

use crate::remote::http::answer::{excess, listing};
use crate::remote::http::failure::{is_stalled, reason, refusal};
use crate::remote::http::service::Service;
use crate::remote::limits::{ENTRIES_MAX, too_many_entries};
use crate::remote::store::RemoteStore;
use crate::walk::{Directories, Entry, walk};
use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Store, Traits};

/// What an error names when the place as a whole is meant.
const WHOLE: &str = "the place";
/// Where objects are written before they get their names, where that is needed.
const TMP: &str = "tmp/";
/// Requests in flight at once.
const REQUESTS: usize = 64;
/// Most entries asked for in one request of a listing.
const LIST_REQUEST: usize = 1000;

/// A place on another machine.
#[derive(Debug)]
pub(crate) struct Remote {
    operator: Operator,
    service: Service,
    /// The URL, without secrets.
    place: String,
    /// What all paths begin with: empty, or ending with `/`.
    base: String,
    /// Tells the temporary names of this process from those of others.
    writer: u64,
    writes: AtomicU64,
}

/// What `put` finds under the name.
enum Occupant {
    Nothing,
    Same,
    /// A pack or shard of another size.
    Damaged,
}

impl Remote {
    /// The objects below `base` (empty, or ending with `/`); nothing is sent. `writer` is a number that no other process has.
    pub(crate) fn new(operator: Operator, service: Service, place: String, base: String, writer: u64) -> Self {
        Self {
            operator,
            service,
            place,
            base,
            writer,
            writes: AtomicU64::new(0),
        }
    }

    async fn first_entry(&self) -> opendal::Result<()> {
        let options = ListOptions {
            limit: Some(1),
            ..ListOptions::default()
        };
        self.operator
            .lister_options(&self.directory(""), options)
            .await?
            .try_next()
            .await?;
        Ok(())
    }

    fn path(&self, name: &Name) -> String {
        format!("{}{name}", self.base)
    }

    /// The path of a directory of objects, as OpenDAL writes it.
    fn directory(&self, directory: &str) -> String {
        match (self.base.as_str(), directory) {
            ("", "") => "/".to_string(),
            (base, "") => base.to_string(),
            (base, directory) => format!("{base}{directory}/"),
        }
    }

    fn no_place(&self) -> Error {
        Error::NoPlace {
            place: self.place.clone(),
            advice: self.service.missing,
        }
    }

    /// Sorts an error by what the caller does about it.
    fn error(&self, name: &str, during: &'static str, error: &opendal::Error) -> Error {
        let (name, place) = (name.to_string(), self.place.clone());
        if let Some(excess) = excess(error) {
            let what = excess.to_string();
            return Error::Endless { name, place, what };
        }
        if is_stalled(error) {
            let reason = format!("{during}: {}", reason(error));
            return Error::Silent { name, place, reason };
        }
        let refused = refusal(error);
        let status = refused.map_or(0, |refused| refused.status.as_u16());
        // Few servers have a status for it; S3, Swift and WebDAV servers say it in words.
        let is_full = refused.is_some_and(|refused| {
            let reason = refused.reason.to_ascii_lowercase();
            status == 507 || reason.contains("quota") || reason.contains("no space left")
        });
        let unavailable = |name, place| Error::Unavailable {
            name,
            place,
            reason: format!("{during}: {}", reason(error)),
        };
        match (status, error.kind()) {
            _ if is_full => Error::Full { name, place },
            (401 | 403, _) | (0, ErrorKind::PermissionDenied) => Error::Denied {
                name,
                place,
                during,
                advice: self.service.denied,
            },
            (0, ErrorKind::NotFound) => Error::NotFound { name, place },
            // What OpenDAL calls a bucket that does not exist.
            (0, ErrorKind::ConfigInvalid) => self.no_place(),
            (202 | 408 | 409 | 423 | 425 | 429 | 500 | 502.., _) => unavailable(name, place),
            (0, ErrorKind::RateLimited) => unavailable(name, place),
            (0, _) if error.is_temporary() => unavailable(name, place),
            _ => Error::Io {
                name,
                place,
                during,
                source: io::Error::other(reason(error)),
            },
        }
    }

    /// An error of a put: nothing is looked for there, so what is missing is the place.
    fn put_error(&self, name: &Name, error: &opendal::Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound => self.no_place(),
            _ => self.error(name.as_str(), "storing", error),
        }
    }

    async fn size(&self, name: &Name) -> Result<u64> {
        let found = self.operator.stat(&self.path(name)).await;
        let found = found.map_err(|error| self.error(name.as_str(), "reading the size of", &error))?;
        Ok(found.content_length())
    }

    async fn find(&self, name: &Name, size: u64) -> Result<Occupant> {
        match self.size(name).await {
            Ok(found) if found == size || !name.is_replaced_by_size() => Ok(Occupant::Same),
            Ok(_) => Ok(Occupant::Damaged),
            Err(Error::NotFound { .. }) => Ok(Occupant::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Uploads under a temporary name, then gives the object its own.
    async fn put_by_rename(&self, name: &Name, bytes: Bytes, found: &Occupant) -> Result<Put> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}{TMP}{:016x}-{number}", self.base, self.writer);
        let outcome = self.upload_and_rename(name, &temporary, bytes, found).await;
        if !matches!(outcome, Ok(Put::Created)) {
            // What is left of it is in no listing, so an error here takes nothing away.
            let _ = self.operator.delete(&temporary).await;
        }
        outcome
    }

    async fn upload_and_rename(&self, name: &Name, temporary: &str, bytes: Bytes, found: &Occupant) -> Result<Put> {
        let size = bytes.len() as u64;
        if let Err(error) = self.operator.write(temporary, bytes.clone()).await {
            // A missing parent is a conflict (RFC 4918 section 9.7.1), or not found.
            let missing = refusal(&error).is_some_and(|refused| refused.status == http::StatusCode::CONFLICT);
            if !missing && error.kind() != ErrorKind::NotFound {
                return Err(self.put_error(name, &error));
            }
            // Making directories would make the place too, which may only be not mounted.
            self.check().await?;
            let again = async {
                self.operator.create_dir(&format!("{}{TMP}", self.base)).await?;
                self.operator.write(temporary, bytes).await
            };
            again.await.map_err(|error| self.put_error(name, &error))?;
        }
        let path = self.path(name);
        if matches!(found, Occupant::Damaged) {
            let deleted = self.operator.delete(&path).await;
            deleted.map_err(|error| self.error(name.as_str(), "replacing", &error))?;
        }
        match self.operator.rename(temporary, &path).await {
            Ok(()) => Ok(Put::Created),
            Err(error) if error.kind() == ErrorKind::ConditionNotMatch => match self.find(name, size).await? {
                Occupant::Same => Ok(Put::Existed),
                _ => Err(self.error(name.as_str(), "naming", &error.set_temporary())),
            },
            Err(error) => Err(self.put_error(name, &error)),
        }
    }

    /// The bytes of a range as far as the object has them; `None` if there are more than `limit`, or no byte of the range is there.
    async fn read(&self, name: &Name, range: BytesRange, limit: u64) -> Result<Option<Bytes>> {
        let read = async {
            let reader = self
                .operator
                .reader_options(&self.path(name), ReaderOptions::default())
                .await?;
            let mut pieces = reader.into_stream(range).await?;
            let mut bytes = BytesMut::new();
            while let Some(piece) = pieces.try_next().await? {
                if (bytes.len() + piece.len()) as u64 > limit {
                    return Ok(None);
                }
                for part in piece {
                    bytes.extend_from_slice(&part);
                }
            }
            Ok(Some(bytes.freeze()))
        };
        match read.await {
            Ok(bytes) => Ok(bytes),
            Err(error) if is_beyond_end(&error) => Ok(None),
            Err(error) => Err(self.error(name.as_str(), "reading", &error)),
        }
    }

    /// Reads after asking for the size: for ranges that may not lie in the object, or are empty.
    async fn read_by_size(&self, name: &Name, range: Range) -> Result<Bytes> {
        let (offset, len) = range.resolve(name, &self.place, self.size(name).await?)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let end = offset + len as u64;
        match self.read(name, (offset..end).into(), len as u64).await? {
            Some(bytes) if bytes.len() == len => Ok(bytes),
            _ => Err(Error::Unavailable {
                name: name.to_string(),
                place: self.place.clone(),
                reason: "reading: the answer has another length than the object".to_string(),
            }),
        }
    }

    async fn get_once(&self, name: &Name, range: Range) -> Result<Bytes> {
        let most = name.max_bytes();
        let found = match range {
            Range::All => self.read(name, (..).into(), most).await?,
            Range::Last(len) if (1..=most).contains(&len) && self.operator.info().capability().read_with_suffix => {
                self.read(name, BytesRange::suffix(len), len).await?
            }
            Range::From { offset, len } if (1..=most).contains(&len) && offset.checked_add(len).is_some() => {
                match self.read(name, (offset..offset + len).into(), len).await {
                    Ok(found) => found.filter(|bytes| bytes.len() as u64 == len),
                    // An object that ends before may be told in any words; its size decides.
                    Err(Error::Io { .. } | Error::Unavailable { .. }) => None,
                    Err(error) => return Err(error),
                }
            }
            _ => None,
        };
        match found {
            Some(bytes) => Ok(bytes),
            None => self.read_by_size(name, range).await,
        }
    }

    /// Calls `each` with the entries of a directory until it says `false`. A directory that is missing is empty.
    async fn each_entry(&self, directory: &str, mut each: impl FnMut(Entry) -> bool + Send) -> Result<()> {
        let path = self.directory(directory);
        let list = async {
            let mut entries = self.operator.lister(&path).await?;
            let mut count = 0;
            while let Some(entry) = entries.try_next().await? {
                count += 1;
                if count > ENTRIES_MAX {
                    return Err(too_many_entries().into());
                }
                let name = entry
                    .path()
                    .strip_prefix(path.trim_start_matches('/'))
                    .unwrap_or_default();
                let entry = Entry {
                    name: name.trim_end_matches('/').to_string(),
                    size: (entry.metadata().mode() == EntryMode::FILE).then(|| entry.metadata().content_length()),
                };
                // The directory lists itself too.
                if !name.is_empty() && !each(entry) {
                    break;
                }
            }
            Ok::<_, opendal::Error>(())
        };
        match listing(list).await {
            Err(error) if self.service.directories && error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(|error| self.error(WHOLE, "listing", &error)),
        }
    }

    /// A listing by the service itself, from a name on.
    async fn list_flat(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> opendal::Result<Vec<Listed>> {
        let options = ListOptions {
            recursive: true,
            limit: Some(limit.clamp(1, LIST_REQUEST)),
            start_after: after.map(|after| self.path(after)),
            ..ListOptions::default()
        };
        let mut entries = self
            .operator
            .lister_options(&self.directory(&prefix.directory()), options)
            .await?;
        let (mut found, mut count): (Vec<Listed>, usize) = (Vec::new(), 0);
        while found.len() < limit
            && let Some(entry) = entries.try_next().await?
        {
            count += 1;
            if count > ENTRIES_MAX {
                return Err(too_many_entries().into());
            }
            let Some(Ok(name)) = entry.path().strip_prefix(&self.base).map(Name::parse) else {
                continue;
            };
            if !prefix.covers(&name) || after.is_some_and(|after| name <= *after) {
                continue;
            }
            if found.last().is_some_and(|last| last.name >= name) {
                let disorder = opendal::Error::new(ErrorKind::Unexpected, "the listing is out of order");
                return Err(disorder);
            }
            found.push(Listed {
                name,
                size: entry.metadata().content_length(),
            });
        }
        Ok(found)
    }
}

/// Whether a range lies outside the object.
fn is_beyond_end(error: &opendal::Error) -> bool {
    error.kind() == ErrorKind::RangeNotSatisfied
        || refusal(error).is_some_and(|refused| refused.status == http::StatusCode::RANGE_NOT_SATISFIABLE)
}

#[async_trait]
impl Directories for Remote {
    async fn entries(&self, directory: &str) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        let until_end = |entry| {
            found.push(entry);
            true
        };
        self.each_entry(directory, until_end).await?;
        Ok(found)
    }
}

#[async_trait]
impl RemoteStore for Remote {
    async fn check(&self) -> Result<()> {
        let outcome = match self.service.directories {
            // OpenDAL answers for the root itself without asking; a listing asks.
            true if !self.base.is_empty() => self.operator.stat(&self.base).await.map(|found| found.is_dir()),
            _ => listing(self.first_entry()).await.map(|()| true),
        };
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotDirectory {
                place: self.place.clone(),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.no_place()),
            Err(error) => Err(self.error(WHOLE, "looking at", &error)),
        }
    }

    async fn make(&self) -> Result<()> {
        if self.service.directories && !self.base.is_empty() {
            let made = self.operator.create_dir(&self.base).await;
            made.map_err(|error| self.error(WHOLE, "making", &error))?;
        }
        self.check().await?;
        let mut foreign = None;
        let until_foreign = |entry: Entry| {
            let is_ours = Name::is_top_level(&entry.name) || format!("{}/", entry.name) == TMP;
            foreign = Some(entry.name).filter(|_| !is_ours);
            is_ours
        };
        self.each_entry("", until_foreign).await?;
        match foreign {
            None => Ok(()),
            Some(found) => Err(Error::Occupied {
                place: self.place.clone(),
                found,
            }),
        }
    }

    fn requests(&self) -> usize {
        REQUESTS
    }
}

#[async_trait]
impl Store for Remote {
    fn place(&self) -> &str {
        &self.place
    }

    fn traits(&self) -> Traits {
        Traits {
            durable_on_return: self.service.durable,
            ordered_list: true,
            stale_list: self.service.stale_list,
            max_object_bytes: self.service.max_object_bytes,
            exclusive_create: false,
            slow: true,
            finite: self.service.directories,
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let size = name.check_size(&self.place, bytes.len() as u64)?;
        let found = self.find(name, size).await?;
        if matches!(found, Occupant::Same) {
            return Ok(Put::Existed);
        }
        if !self.service.whole_puts {
            return self.put_by_rename(name, bytes, &found).await;
        }
        match self.operator.write(&self.path(name), bytes).await {
            Ok(_) => Ok(Put::Created),
            Err(error) => Err(self.put_error(name, &error)),
        }
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        match self.get_once(name, range).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.missing(error).await),
        }
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        match self.size(name).await {
            Ok(size) => Ok(size),
            Err(error) => Err(self.missing(error).await),
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let capability = self.operator.info().capability();
        if capability.list_with_recursive && capability.list_with_start_after {
            return listing(self.list_flat(prefix, after, limit))
                .await
                .map_err(|error| match error.kind() {
                    ErrorKind::NotFound => self.no_place(),
                    _ => self.error(&prefix.to_string(), "listing", &error),
                });
        }
        let found = walk(self, prefix, after, limit).await?;
        if found.is_empty() {
            // A directory that is gone must not look like an empty one.
            self.check().await?;
        }
        Ok(found)
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        match self.operator.delete(&self.path(name)).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.check().await,
            Err(error) => Err(self.error(name.as_str(), "deleting", &error)),
        }
    }
}
