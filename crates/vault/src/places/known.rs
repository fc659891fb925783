//! What this machine remembers of places and vaults: files outside of the cache, since a lost cache costs only time.
//!
//! - One file says which vault lies at which place; each vault has one of its own, and one for each opaque section.
//! - Every change is read, made and written under a lock, in a temporary file that is synced and renamed: two processes at
//!   once lose nothing, and neither does a power cut.
//! - A file that cannot be read is an error, never an empty memory: whoever damages it must not make this machine trust anew.
//! - Plain text, one fact a line, so that a person can read and mend it; lines of a newer program are kept. Sections are bytes and end in their hash.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drystone_format::id::object_hash;
use drystone_format::keys::VerifyKey;
use drystone_format::{RootId, VaultId};

use crate::error::{Error, Result};
use crate::places::pin::{VaultPin, hex, unhex};

/// Which vault lies where.
const PLACES: &str = "places";
/// Locked while a file is changed.
const LOCK: &str = "lock";
/// Larger files are not this program's.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// A numbered object and its hash: which of several of one number it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Seen {
    /// An object whose name has a hash of 16 bytes.
    pub(crate) fn of((number, hash): &(u64, RootId)) -> Self {
        let mut wide = [0; 32];
        for (to, from) in wide.iter_mut().zip(hash.0) {
            *to = from;
        }
        Self {
            number: *number,
            hash: wide,
        }
    }

    /// What [`of`](Self::of) was made from.
    pub(crate) fn name(&self) -> Option<(u64, RootId)> {
        Some((self.number, RootId(*self.hash.first_chunk()?)))
    }
}

/// What is known of one vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVault {
    /// Its public key.
    pub key: VerifyKey,
    /// The highest key epoch: id and [`Epoch::hash`](drystone_format::keys::Epoch::hash).
    pub epoch: Option<Seen>,
    /// The newest configuration.
    pub configuration: Option<Seen>,
    /// The newest ledgers: all that no other named as predecessor.
    pub ledgers: Vec<Seen>,
    /// Lines that this program does not know.
    unknown: Vec<String>,
}

impl KnownVault {
    /// A vault that was just made or seen for the first time.
    pub fn new(key: VerifyKey) -> Self {
        Self {
            key,
            epoch: None,
            configuration: None,
            ledgers: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Takes note of the newest key epoch of now; an older one only if that is `accepted`.
    pub fn see_epoch(&mut self, seen: Seen, accepted: bool) {
        see(&mut self.epoch, seen, accepted);
    }

    /// Takes note of the newest configuration of now; an older one only if that is `accepted`.
    pub fn see_configuration(&mut self, seen: Seen, accepted: bool) {
        see(&mut self.configuration, seen, accepted);
    }
}

fn see(known: &mut Option<Seen>, seen: Seen, accepted: bool) {
    if accepted || known.is_none_or(|known| seen.number > known.number) {
        *known = Some(seen);
    }
}

/// The memory of this machine, in one directory.
#[derive(Debug, Clone)]
pub struct Known {
    dir: PathBuf,
}

impl Known {
    /// The memory in `dir`, which is made with the first fact that it gets.
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The vault that this machine has seen at `place`, if it has seen one there.
    pub fn at(&self, place: &str) -> Result<Option<VaultPin>> {
        Ok(self.places()?.get(place).copied())
    }

    /// What is known of the vault with this id.
    pub fn vault(&self, id: &VaultId) -> Result<Option<KnownVault>> {
        let name = id.to_string();
        let Some(text) = self.read(&name)? else { return Ok(None) };
        parse_vault(&text).map(Some).map_err(|line| self.damaged(&name, &line))
    }

    /// Remembers that the vault `pin` lies at these places; what was known of them is replaced.
    pub fn remember_places<'a>(&self, pin: &VaultPin, places: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let places: Vec<&str> = places.into_iter().collect();
        let known = self.places()?;
        if places.iter().all(|place| known.get(*place) == Some(pin)) {
            return Ok(());
        }
        self.change(PLACES, |known| {
            known.extend(places.iter().map(|place| ((*place).to_owned(), *pin)));
        })
    }

    /// Forgets which vault lies at `place`: it was taken away from it.
    pub fn forget_place(&self, place: &str) -> Result<()> {
        if self.at(place)?.is_none() {
            return Ok(());
        }
        self.change(PLACES, |known| {
            known.remove(place);
        })
    }

    /// Changes what is known of a vault; nothing is written if nothing changes.
    pub fn update(&self, id: &VaultId, new: KnownVault, change: impl FnOnce(&mut KnownVault)) -> Result<()> {
        let _lock = self.lock()?;
        let before = self.vault(id)?;
        let mut after = before.clone().unwrap_or(new);
        change(&mut after);
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        self.write(&id.to_string(), vault_text(&after).as_bytes())
    }

    /// The bytes that somebody keeps under `section` for a vault: a word of small letters.
    pub fn section(&self, id: &VaultId, section: &str) -> Result<Option<Vec<u8>>> {
        self.read_section(&format!("{id}.{section}"))
    }

    /// Changes the bytes under `section`, in one step with reading them; durable on return.
    pub fn update_section(
        &self,
        id: &VaultId,
        section: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<()> {
        let _lock = self.lock()?;
        let name = format!("{id}.{section}");
        let before = self.read_section(&name)?;
        let mut after = change(before.clone());
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        after.extend_from_slice(&object_hash(&after).0);
        self.write(&name, &after)
    }

    /// Bytes that end in their hash: cut short they would be a smaller memory, and not an error.
    fn read_section(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut bytes) = self.read_bytes(name)? else {
            return Ok(None);
        };
        let sound = bytes
            .split_last_chunk()
            .is_some_and(|(section, hash)| object_hash(section).0 == *hash);
        if !sound {
            return Err(self.error(name, "it was cut short or altered".to_owned()));
        }
        bytes.truncate(bytes.len() - RootId::LEN);
        Ok(Some(bytes))
    }

    fn places(&self) -> Result<BTreeMap<String, VaultPin>> {
        let text = self.read(PLACES)?.unwrap_or_default();
        let parsed = text.lines().map(|line| parse_place(line).ok_or(line));
        parsed
            .collect::<Result<_, _>>()
            .map_err(|line| self.damaged(PLACES, line))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut BTreeMap<String, VaultPin>)) -> Result<()> {
        let _lock = self.lock()?;
        let mut places = self.places()?;
        change(&mut places);
        let lines = places
            .iter()
            .map(|(place, pin)| format!("{} {}\n", pin.line(), escaped(place)));
        self.write(name, lines.collect::<String>().as_bytes())
    }

    /// Keeps every other process from changing anything until the file is dropped.
    fn lock(&self) -> Result<File> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| self.failed("", &error))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.dir.join(LOCK));
        let file = file.map_err(|error| self.failed(LOCK, &error))?;
        file.lock().map_err(|error| self.failed(LOCK, &error))?;
        Ok(file)
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.read_bytes(name)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_| self.error(name, "it is not text".to_owned()))?;
        Ok(Some(text))
    }

    fn read_bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read =
            File::open(self.dir.join(name)).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > FILE_MAX_BYTES => Err(self.error(name, "it is too large".to_owned())),
            Ok(_) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Replaces a file; durable on return. The caller holds the lock.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let new = self.dir.join(format!("{name}.new"));
        let put = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, self.dir.join(name))?;
            File::open(&self.dir)?.sync_all()
        };
        put().map_err(|error| self.failed(name, &error))
    }

    fn failed(&self, name: &str, error: &io::Error) -> Error {
        self.error(name, error.to_string())
    }

    fn damaged(&self, name: &str, line: &str) -> Error {
        self.error(
            name,
            format!("this line is not what this program writes: `{}`", escaped(line)),
        )
    }

    fn error(&self, name: &str, why: String) -> Error {
        Error::Memory {
            path: self.dir.join(name),
            why,
        }
    }
}

fn parse_place(line: &str) -> Option<(String, VaultPin)> {
    let mut words = line.splitn(3, ' ');
    let (vault, key, place) = (words.next()?, words.next()?, words.next()?);
    Some((unescaped(place)?, VaultPin::parse(&format!("{vault} {key}"))?))
}

/// The line that cannot be read, if one cannot.
fn parse_vault(text: &str) -> Result<KnownVault, String> {
    let mut key = None;
    let mut known = KnownVault::new(VerifyKey([0; 32]));
    for line in text.lines() {
        let bad = || line.to_owned();
        let (word, rest) = line.split_once(' ').ok_or_else(bad)?;
        let seen = || parse_seen(rest).ok_or_else(bad);
        match word {
            "key" => key = Some(VerifyKey(unhex(rest).ok_or_else(bad)?)),
            "epoch" => known.epoch = Some(seen()?),
            "configuration" => known.configuration = Some(seen()?),
            "ledger" => known.ledgers.push(seen()?),
            _ => known.unknown.push(line.to_owned()),
        }
    }
    known.key = key.ok_or_else(|| "(no line `key`)".to_owned())?;
    Ok(known)
}

fn vault_text(known: &KnownVault) -> String {
    let mut text = format!("key {}\n", hex(&known.key.0));
    let single = [("epoch", known.epoch), ("configuration", known.configuration)];
    let single = single.into_iter().filter_map(|(word, seen)| Some((word, seen?)));
    let ledgers = known.ledgers.iter().map(|seen| ("ledger", *seen));
    for (word, seen) in single.chain(ledgers) {
        text += &format!("{word} {} {}\n", seen.number, hex(&seen.hash));
    }
    known.unknown.iter().for_each(|line| text += &format!("{line}\n"));
    text
}

fn parse_seen(text: &str) -> Option<Seen> {
    let (number, hash) = text.split_once(' ')?;
    Some(Seen {
        number: number.parse().ok()?,
        hash: unhex(hash)?,
    })
}

/// Places are paths, which may hold anything but NUL; a line holds one.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter {
            '\\' => vec!['\\', '\\'],
            '\n' => vec!['\\', 'n'],
            '\r' => vec!['\\', 'r'],
            letter => vec![letter],
        })
        .collect()
}

fn unescaped(text: &str) -> Option<String> {
    let (mut out, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        out.push(match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(number: u8) -> VaultPin {
        VaultPin {
            vault: VaultId([number; 16]),
            key: VerifyKey([number; 32]),
        }
    }

    fn memory() -> (tempfile::TempDir, Known) {
        let dir = tempfile::tempdir().unwrap();
        let known = Known::in_dir(&dir.path().join("known"));
        (dir, known)
    }

    #[test]
    fn facts_come_back_whatever_the_place_is_called() {
        let (_dir, known) = memory();
        assert_eq!(known.at("/a").unwrap(), None);
        let odd = "/a b\\n\n\r é";
        known.remember_places(&pin(1), ["/a", odd, "s3://b/c"]).unwrap();
        known.remember_places(&pin(2), ["/a"]).unwrap();
        assert_eq!(known.at("/a").unwrap(), Some(pin(2)));
        assert_eq!(known.at(odd).unwrap(), Some(pin(1)));
        known.forget_place(odd).unwrap();
        assert_eq!(known.at(odd).unwrap(), None);
        assert_eq!(known.at("s3://b/c").unwrap(), Some(pin(1)));
    }

    #[test]
    fn a_vault_is_remembered_with_lines_of_a_newer_program() {
        let (dir, known) = memory();
        let id = pin(1).vault;
        assert_eq!(known.vault(&id).unwrap(), None);
        let seen = |number| Seen {
            number,
            hash: [number as u8; 32],
        };
        let change = |vault: &mut KnownVault| {
            vault.epoch = Some(seen(u64::MAX));
            vault.configuration = Some(seen(7));
            vault.ledgers = vec![seen(1), seen(2)];
        };
        known.update(&id, KnownVault::new(pin(1).key), change).unwrap();
        let file = dir.path().join("known").join(id.to_string());
        let text = std::fs::read_to_string(&file).unwrap() + "moon full\n";
        std::fs::write(&file, &text).unwrap();
        let read = known.vault(&id).unwrap().unwrap();
        assert_eq!((read.epoch, read.configuration), (Some(seen(u64::MAX)), Some(seen(7))));
        assert_eq!(read.ledgers, [seen(1), seen(2)]);
        known.update(&id, read, |vault| vault.ledgers.clear()).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().ends_with("moon full\n"));
    }

    #[test]
    fn a_damaged_memory_is_an_error_and_not_an_empty_one() {
        let (dir, known) = memory();
        known.remember_places(&pin(1), ["/a"]).unwrap();
        known
            .update(&pin(1).vault, KnownVault::new(pin(1).key), |_| {})
            .unwrap();
        let file = |name: &str| dir.path().join("known").join(name);
        for text in ["x", "zz zz /a\n", "\u{0}\n", &format!("{} /a\\\n", pin(1).line())] {
            std::fs::write(file(PLACES), text).unwrap();
            let error = known.at("/a").unwrap_err().to_string();
            assert!(error.contains("known/places"), "{error}");
        }
        for text in ["", "key 00\n", "epoch 1 00\n", "key"] {
            std::fs::write(file(&pin(1).vault.to_string()), text).unwrap();
            known.vault(&pin(1).vault).unwrap_err();
        }
    }

    #[test]
    fn a_damaged_section_is_an_error_and_not_a_smaller_memory() {
        let (dir, known) = memory();
        let id = pin(4).vault;
        known.update_section(&id, "roots", |_| b"one two".to_vec()).unwrap();
        let file = dir.path().join("known").join(format!("{id}.roots"));
        let sound = std::fs::read(&file).unwrap();
        let cut = (0..sound.len()).map(|length| sound[..length].to_vec());
        let flipped = (0..sound.len()).map(|byte| {
            let mut bytes = sound.clone();
            bytes[byte] ^= 1;
            bytes
        });
        for damaged in cut.chain(flipped) {
            std::fs::write(&file, &damaged).unwrap();
            let error = known.section(&id, "roots").unwrap_err().to_string();
            assert!(error.contains(".roots") && error.contains("cut short"), "{error}");
            known.update_section(&id, "roots", |_| vec![]).unwrap_err();
            assert_eq!(std::fs::read(&file).unwrap(), damaged);
        }
        std::fs::write(&file, &sound).unwrap();
        assert_eq!(known.section(&id, "roots").unwrap().unwrap(), b"one two");
    }

    #[test]
    fn sections_and_files_are_for_their_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, known) = memory();
        let id = pin(3).vault;
        assert_eq!(known.section(&id, "roots").unwrap(), None);
        known
            .update_section(&id, "roots", |before| before.map_or(b"\xff\0".to_vec(), |_| vec![]))
            .unwrap();
        assert_eq!(known.section(&id, "roots").unwrap().unwrap(), b"\xff\0");
        known.remember_places(&pin(3), ["/a"]).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("known")), 0o700);
        for entry in std::fs::read_dir(dir.path().join("known")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let (_dir, known) = memory();
        let id = pin(9).vault;
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let known = &known;
                scope.spawn(move || {
                    for number in 0..10_u8 {
                        let place = format!("/{thread}/{number}");
                        known.remember_places(&pin(thread), [place.as_str()]).unwrap();
                        known
                            .update_section(&id, "count", |before| {
                                let mut bytes = before.unwrap_or_default();
                                bytes.push(thread);
                                bytes
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(known.places().unwrap().len(), 40);
        assert_eq!(known.section(&id, "count").unwrap().unwrap().len(), 40);
    }
}
