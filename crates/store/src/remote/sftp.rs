//! A directory on another machine over SFTP, spoken with OpenSSH's `ssh` and its keys, agent and configuration.
//!
//! - An object is written under a temporary name, synced where the server can (`fsync@openssh.com`), and then linked or
//!   renamed to its own: it appears whole or not at all, and what is there already stays.
//! - What is under a foreign name, or is no regular file, is left alone.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use openssh_sftp_client::Sftp as Client;
use openssh_sftp_client::file::File;
use tokio::io::AsyncSeek;

use crate::remote::limits::{ENTRIES_MAX, too_many_entries};
use crate::remote::ssh::{Outcome, Ssh, WHOLE, limited, limited_data};
use crate::remote::store::RemoteStore;
use crate::remote::url::PlaceUrl;
use crate::walk::{Directories, Entry, walk};
use crate::{Error, Listed, Name, Prefix, Put, Range, Result, Store, Traits};

const TMP: &str = "tmp";
/// Bytes of one read or write request; servers take at least this much, OpenSSH at most 255 KiB.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces of one object in flight: 2 MiB, so that a line of 100 ms still carries 20 MB/s for each object.
const PIECES: usize = 64;
/// Objects in flight at once.
const REQUESTS: usize = 16;
const MISSING: &str = "no such directory on the server; check the URL, or create a vault there with `drystone init`";

/// A directory on another machine.
#[derive(Debug)]
pub(crate) struct Sftp {
    ssh: Ssh,
    /// The directory, without a final `/`; relative ones begin at the user's home.
    base: String,
    /// Tells the temporary names of this process from those of others.
    writer: u64,
    writes: AtomicU64,
}

impl Sftp {
    /// The directory that an `sftp://` URL names; nothing is sent. `writer` is a number that no other process has.
    pub(crate) fn new(url: &str, writer: u64, hidden: Arc<[OsString]>) -> Result<Self> {
        let url = PlaceUrl::parse(url, &["key", "known_hosts"])?;
        url.need_host("an SFTP URL has the form sftp://user@host:port/path")?;
        let base = match url.path.strip_prefix("~/") {
            Some(below_home) => below_home.to_string(),
            None => format!("/{}", url.path),
        };
        Ok(Self {
            base: base.trim_end_matches('/').to_string(),
            ssh: Ssh::new(url, hidden),
            writer,
            writes: AtomicU64::new(0),
        })
    }

    fn no_place(&self) -> Error {
        Error::NoPlace {
            place: self.ssh.url.text.clone(),
            advice: MISSING,
        }
    }

    fn path(&self, name: &str) -> String {
        match name {
            "" if self.base.is_empty() => "/".to_string(),
            "" => self.base.clone(),
            name => format!("{}/{name}", self.base),
        }
    }

    /// The size of a regular file.
    async fn size(&self, name: &Name) -> Result<u64> {
        let path = self.path(name.as_str());
        let found = self
            .ssh
            .run(name.as_str(), "reading the size of", async |client| {
                limited(client.fs().metadata(&path)).await
            })
            .await?;
        Ok(found.len().unwrap_or_default())
    }

    /// Whether an object is there that `put` keeps.
    async fn keeps(&self, name: &Name, size: u64) -> Result<Option<bool>> {
        match self.size(name).await {
            Ok(found) => Ok(Some(found == size || !name.is_replaced_by_size())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A put failed: the reason may be a full disk, which the protocol has no word for, or that the place is gone.
    async fn put_error(&self, name: &Name, error: Error) -> Error {
        match error {
            Error::NotFound { .. } => self.no_place(),
            Error::Io { .. } => {
                let path = self.path("");
                let left = self
                    .ssh
                    .run(WHOLE, "looking at", async |client| {
                        limited(client.fs().statvfs(&path)).await
                    })
                    .await;
                // A small remainder cannot take a pack either; blocks of 1 are kept by some file systems.
                match left {
                    Ok(left) if left.bavail.saturating_mul(left.frsize) < name.max_bytes() => Error::Full {
                        name: name.to_string(),
                        place: self.ssh.url.text.clone(),
                    },
                    _ => error,
                }
            }
            error => error,
        }
    }

    /// Makes the directories of `path` below the place; those that exist are fine.
    async fn make_directories(&self, path: &str) -> Result<()> {
        let parts = path
            .char_indices()
            .filter(|(at, letter)| *letter == '/' && *at > 0)
            .map(|(at, _)| at);
        for end in parts.chain([path.len()]) {
            let directory = path.get(..end).unwrap_or_default();
            let made = self.ssh.run(WHOLE, "making directories in", async |client| {
                limited(client.fs().create_dir(directory)).await
            });
            match made.await {
                // The server does not say that it exists; what follows shows.
                Ok(()) | Err(Error::Io { .. } | Error::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file of this name with these bytes, synced if the server can.
    async fn write(&self, name: &Name, path: &str, bytes: &Bytes) -> Result<File> {
        self.ssh
            .run(name.as_str(), "storing", async |client| {
                let mut options = client.options();
                let mut file = limited(options.write(true).create(true).truncate(true).open(path)).await?;
                let pieces = stream::iter(pieces(0, bytes.len() as u64)).map(|(offset, len)| {
                    let (mut file, start) = (file.clone(), offset as usize);
                    let piece = bytes.slice(start..start + len);
                    async move {
                        seek(&mut file, offset)?;
                        limited_data(file.write_all(&piece)).await
                    }
                });
                pieces.buffer_unordered(PIECES).try_collect::<()>().await?;
                sync(client, &mut file).await?;
                Ok(file)
            })
            .await
    }

    async fn upload_and_name(&self, name: &Name, temporary: &str, bytes: &Bytes, replace: bool) -> Result<Put> {
        let mut file = match self.write(name, temporary, bytes).await {
            Err(Error::NotFound { .. }) => {
                // Making directories would make the place too, which may only be not mounted.
                self.check().await?;
                self.make_directories(&self.path(TMP)).await?;
                self.write(name, temporary, bytes).await?
            }
            outcome => outcome?,
        };
        let outcome = match self.give_name(name, temporary, replace).await {
            Err(Error::NotFound { .. }) => {
                self.check().await?;
                let path = self.path(name.as_str());
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                self.make_directories(parent).await?;
                self.give_name(name, temporary, replace).await?
            }
            outcome => outcome?,
        };
        // Linux file systems write a new name with the next sync of its file.
        self.ssh
            .run(name.as_str(), "syncing", async |client| {
                sync(client, &mut file).await?;
                limited(file.close()).await
            })
            .await?;
        Ok(outcome)
    }

    /// Links the temporary file to its name, or renames it where that cannot be, or is to replace what is there.
    async fn give_name(&self, name: &Name, temporary: &str, replace: bool) -> Result<Put> {
        let path = self.path(name.as_str());
        if !replace {
            let linked = self.ssh.run(name.as_str(), "naming", async |client| {
                limited(client.fs().hard_link(temporary, &path)).await
            });
            match linked.await {
                Ok(()) => return Ok(Put::Created),
                Err(Error::Io { .. }) => match self.size(name).await {
                    Ok(_) => return Ok(Put::Existed),
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        self.ssh
            .run(name.as_str(), "naming", async |client| {
                limited(client.fs().rename(temporary, &path)).await
            })
            .await?;
        Ok(Put::Created)
    }
}

/// Offsets and lengths of the pieces of a range.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let end = offset + len;
    (offset..end)
        .step_by(PIECE_BYTES)
        .map(move |at| (at, (end - at).min(PIECE_BYTES as u64) as usize))
}

/// Makes `offset` the place of the next read or write; nothing is sent.
fn seek(file: &mut File, offset: u64) -> Outcome<()> {
    Ok(Pin::new(file).start_seek(io::SeekFrom::Start(offset))?)
}

async fn sync(client: &Client, file: &mut File) -> Outcome<()> {
    match client.support_fsync() {
        true => limited_data(file.sync_all()).await,
        false => Ok(()),
    }
}

/// Reads exactly `len` bytes from `offset`, or up to the end of the file; in one go or in crumbs, it takes no longer.
async fn read_piece(file: File, offset: u64, len: usize) -> Outcome<BytesMut> {
    limited_data(read_crumbs(file, offset, len)).await
}

async fn read_crumbs(mut file: File, offset: u64, len: usize) -> Outcome<BytesMut> {
    let mut bytes = BytesMut::new();
    while bytes.len() < len {
        // A server may answer with less than was asked for; the client would go on where the whole would have ended.
        seek(&mut file, offset + bytes.len() as u64)?;
        let left = u32::try_from(len - bytes.len()).unwrap_or(u32::MAX);
        match file.read(left, BytesMut::new()).await? {
            Some(read) if !read.is_empty() => bytes.extend_from_slice(&read),
            _ => break,
        }
    }
    Ok(bytes)
}

#[async_trait]
impl RemoteStore for Sftp {
    async fn check(&self) -> Result<()> {
        let path = self.path("");
        let found = self.ssh.run(WHOLE, "looking at", async |client| {
            limited(client.fs().metadata(&path)).await
        });
        match found.await {
            Ok(found) if found.file_type().is_none_or(|kind| kind.is_dir()) => Ok(()),
            Ok(_) => Err(Error::NotDirectory {
                place: self.ssh.url.text.clone(),
            }),
            Err(Error::NotFound { .. }) => Err(self.no_place()),
            Err(error) => Err(error),
        }
    }

    async fn make(&self) -> Result<()> {
        self.make_directories(&self.path("")).await?;
        self.check().await?;
        for entry in self.entries("").await? {
            if !Name::is_top_level(&entry.name) && entry.name != TMP && entry.name != "lost+found" {
                return Err(Error::Occupied {
                    place: self.ssh.url.text.clone(),
                    found: entry.name,
                });
            }
        }
        Ok(())
    }

    fn requests(&self) -> usize {
        REQUESTS
    }
}

#[async_trait]
impl Directories for Sftp {
    async fn entries(&self, directory: &str) -> Result<Vec<Entry>> {
        let path = self.path(directory);
        let listed = self.ssh.run(WHOLE, "listing", async |client| {
            let mut entries = Box::pin(limited(client.fs().open_dir(&path)).await?.read_dir());
            let (mut found, mut count) = (Vec::new(), 0);
            while let Some(entry) = limited(async { entries.next().await.transpose() }).await? {
                // Foreign ones count too.
                count += 1;
                if count > ENTRIES_MAX {
                    return Ok(Err(Error::Endless {
                        name: directory.to_string(),
                        place: self.place().to_string(),
                        what: too_many_entries().to_string(),
                    }));
                }
                let metadata = entry.metadata();
                let is_file = metadata.file_type().is_none_or(|kind| kind.is_file());
                // A name that is not UTF-8 is foreign.
                let Some(name) = entry.filename().to_str().filter(|name| !matches!(*name, "." | "..")) else {
                    continue;
                };
                found.push(Entry {
                    name: name.to_string(),
                    size: metadata.len().filter(|_| is_file),
                });
            }
            Ok(Ok(found))
        });
        match listed.await {
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            outcome => outcome?,
        }
    }
}

#[async_trait]
impl Store for Sftp {
    fn place(&self) -> &str {
        &self.ssh.url.text
    }

    fn traits(&self) -> Traits {
        Traits {
            // Files are synced where the server can; that their names are, no answer of it says.
            durable_on_return: false,
            ordered_list: true,
            stale_list: None,
            max_object_bytes: None,
            exclusive_create: false,
            slow: true,
            finite: true,
        }
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let size = name.check_size(self.place(), bytes.len() as u64)?;
        let replace = match self.keeps(name, size).await? {
            Some(true) => return Ok(Put::Existed),
            found => found.is_some(),
        };
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(&format!("{TMP}/{:016x}-{number}", self.writer));
        let outcome = self.upload_and_name(name, &temporary, &bytes, replace).await;
        // After a link, and after a failure, the temporary name is left; it is in no listing, so an error takes nothing away.
        let _ = self
            .ssh
            .run(name.as_str(), "cleaning up after", async |client| {
                limited(client.fs().remove_file(Path::new(&temporary))).await
            })
            .await;
        match outcome {
            Ok(put) => Ok(put),
            Err(error) => Err(self.put_error(name, error).await),
        }
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let path = self.path(name.as_str());
        let read = self.ssh.run(name.as_str(), "reading", async |client| {
            let mut file = limited(client.open(&path)).await?;
            let size = limited(file.metadata()).await?.len().unwrap_or_default();
            let (offset, len) = match range.resolve(name, self.place(), size) {
                Ok(resolved) => resolved,
                Err(error) => return Ok(Err(error)),
            };
            let read = stream::iter(pieces(offset, len as u64))
                .map(|(offset, len)| read_piece(file.clone(), offset, len))
                .buffered(PIECES)
                .try_fold(BytesMut::with_capacity(len), |mut all, piece| async move {
                    all.extend_from_slice(&piece);
                    Ok(all)
                });
            let bytes = read.await?;
            let end = offset + len as u64;
            Ok(match bytes.len() == len {
                true => Ok(bytes.freeze()),
                false => Err(Error::Short {
                    name: name.to_string(),
                    place: self.place().to_string(),
                    size: offset + bytes.len() as u64,
                    wanted: end,
                }),
            })
        });
        match read.await {
            Ok(outcome) => outcome,
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
        let found = walk(self, prefix, after, limit).await?;
        if found.is_empty() {
            // A directory that is gone must not look like an empty one.
            self.check().await?;
        }
        Ok(found)
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let path = self.path(name.as_str());
        let deleted = self.ssh.run(name.as_str(), "deleting", async |client| {
            limited(client.fs().remove_file(&path)).await
        });
        match deleted.await {
            Err(Error::NotFound { .. }) => self.check().await,
            outcome => outcome,
        }
    }
}
