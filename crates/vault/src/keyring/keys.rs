//! What unlocks key slots: passphrases, recovery codes, key files, ssh keys, all through the age format.
//!
//! - scrypt runs with a fixed work factor of 128 MiB, and a slot that asks for more is refused (memory is bounded).
//! - A recovery code carries 120 random bits and a checksum, so that a slip of the pen is noticed.

use std::fmt;
use std::io::{Read, Write};

use age::secrecy::{ExposeSecret, SecretString};
use drystone_format::keys::{OpenKey, VerifyKey};
use drystone_format::slot::Lock;
use zeroize::Zeroizing;

use crate::context::Entropy;
use crate::error::{Error, Result};
use crate::places::pin::VaultPin;

/// Memory that scrypt takes, bytes: 128 r N, and r is 8.
const SCRYPT_BYTES: usize = 1024 << SCRYPT_LOG_N;
/// Memory that must be left beside it, bytes.
const SCRYPT_SPARE_BYTES: usize = 8 << 20;
/// log2 of scrypt's N: 128 MiB and about 0.4 s, once per unlocking (OWASP's first choice, N = 2^17, r = 8, p = 1).
const SCRYPT_LOG_N: u8 = 17;

/// What the lock of a slot holds. Who knows only the slot's public key cannot make one, so it tells the vault's own words
/// from those of somebody who can write to the place.
#[derive(Clone)]
pub(crate) struct Unlocked {
    /// Opens the slot's secrets.
    pub(crate) slot_key: OpenKey,
    /// What the secrets must say the vault's verifying key is.
    pub(crate) vault_verify: VerifyKey,
}

/// What a user gives to open a vault.
pub enum Unlock {
    /// A passphrase or recovery code.
    Passphrase(SecretString),
    /// Keys from a key file or an ssh key.
    Identities {
        /// The keys.
        keys: Vec<Box<dyn age::Identity + Send + Sync>>,
        /// The vaults that the file says they open, and the file; nothing else is opened with them.
        named: Vec<VaultPin>,
        /// The file, for messages.
        origin: String,
    },
}

/// Begins the line of a key file that names a vault; age takes it for a comment.
const VAULT_LINE: &str = "# drystone vault: ";

/// The line of a key file that says which vault the key opens.
pub fn vault_line(pin: &VaultPin) -> String {
    format!("{VAULT_LINE}{}\n", pin.line())
}

/// The vaults that a key file names; an error for a line that cannot be read.
pub fn named_vaults(content: &str, origin: &str) -> Result<Vec<VaultPin>> {
    let lines = content.lines().enumerate();
    let named = lines.filter_map(|(at, line)| Some((at, line.trim().strip_prefix(VAULT_LINE.trim_end())?)));
    named
        .map(|(at, text)| {
            VaultPin::parse(text).ok_or_else(|| Error::BadKey {
                origin: origin.to_owned(),
                why: format!("line {}: this line does not name a vault by id and key", at + 1),
            })
        })
        .collect()
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unlock(secret)")
    }
}

impl Unlock {
    /// A passphrase, or a recovery code however it was typed.
    pub fn passphrase(text: &str) -> Self {
        let text = RecoveryCode::parse(text).map_or_else(|_| text.to_owned(), |code| code.to_string());
        Self::Passphrase(SecretString::from(text))
    }

    /// The keys in an age identity file or an ssh private key; `origin` names it in errors, `passphrase` opens it
    /// if it is itself encrypted.
    pub fn key_file(content: &str, origin: &str, passphrase: Option<&str>) -> Result<Self> {
        let bad = |why: String| Error::BadKey {
            origin: origin.to_owned(),
            why,
        };
        if content.contains("PRIVATE KEY-----") {
            let identity = age::ssh::Identity::from_buffer(content.as_bytes(), Some(origin.to_owned()))
                .map_err(|error| bad(format!("not a usable ssh key: {error}")))?;
            return Ok(Self::Identities {
                keys: vec![ssh_identity(identity, passphrase, &bad)?],
                named: Vec::new(),
                origin: origin.to_owned(),
            });
        }
        let mut identities: Vec<Box<dyn age::Identity + Send + Sync>> = Vec::new();
        for (number, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity: age::x25519::Identity = line
                .parse()
                .map_err(|why: &str| bad(format!("line {}: no age or ssh key: {why}", number + 1)))?;
            identities.push(Box::new(identity));
        }
        if identities.is_empty() {
            return Err(bad("holds no key".to_owned()));
        }
        Ok(Self::Identities {
            keys: identities,
            named: named_vaults(content, origin)?,
            origin: origin.to_owned(),
        })
    }

    /// The vaults that the key file names, if it names any, and the file.
    pub(crate) fn named(&self) -> (&[VaultPin], &str) {
        match self {
            Self::Passphrase(_) => (&[], ""),
            Self::Identities { named, origin, .. } => (named, origin),
        }
    }

    /// Which locks this could open, likeliest first; trying scrypt in vain costs half a second.
    pub(crate) fn locks(&self) -> &'static [Lock] {
        match self {
            Self::Passphrase(text) if RecoveryCode::parse(text.expose_secret()).is_ok() => {
                &[Lock::Recovery, Lock::Passphrase]
            }
            Self::Passphrase(_) => &[Lock::Passphrase],
            Self::Identities { .. } => &[Lock::X25519, Lock::Ssh],
        }
    }

    /// An error if this process may not have the memory that it takes: what runs scrypt would end the process.
    pub(crate) fn check_memory(&self) -> Result<()> {
        match self {
            Self::Passphrase(_) => check_scrypt_memory(),
            Self::Identities { .. } => Ok(()),
        }
    }

    /// What is inside `locked`, or `None` if this does not open it.
    pub(crate) fn open(&self, locked: &[u8]) -> Option<Unlocked> {
        let decryptor = age::Decryptor::new_buffered(locked).ok()?;
        let mut reader = match self {
            Self::Passphrase(text) => {
                let mut identity = age::scrypt::Identity::new(text.clone());
                identity.set_max_work_factor(SCRYPT_LOG_N);
                decryptor
                    .decrypt(std::iter::once(&identity as &dyn age::Identity))
                    .ok()?
            }
            Self::Identities { keys, .. } => decryptor
                .decrypt(keys.iter().map(|identity| &**identity as &dyn age::Identity))
                .ok()?,
        };
        let (mut slot_key, mut vault_verify) = (Zeroizing::new([0; 32]), [0; 32]);
        reader.read_exact(&mut *slot_key).ok()?;
        reader.read_exact(&mut vault_verify).ok()?;
        Some(Unlocked {
            slot_key: OpenKey::from_bytes(*slot_key),
            vault_verify: VerifyKey(vault_verify),
        })
    }
}

/// Whether scrypt may have its memory now.
fn check_scrypt_memory() -> Result<()> {
    let bytes = SCRYPT_BYTES + SCRYPT_SPARE_BYTES;
    let reserved = Vec::<u8>::new().try_reserve_exact(bytes);
    reserved.map_err(|_| Error::Exhausted {
        what: "checking a passphrase takes 128 MiB of memory",
        source: std::io::ErrorKind::OutOfMemory.into(),
    })
}

fn ssh_identity(
    identity: age::ssh::Identity,
    passphrase: Option<&str>,
    bad: &dyn Fn(String) -> Error,
) -> Result<Box<dyn age::Identity + Send + Sync>> {
    match identity {
        age::ssh::Identity::Unencrypted(_) => Ok(Box::new(identity)),
        age::ssh::Identity::Encrypted(key) => {
            let passphrase = passphrase.ok_or_else(|| {
                bad("this ssh key has a passphrase; give it with --passphrase-file or DRYSTONE_PASSPHRASE".to_owned())
            })?;
            let key = key
                .decrypt(SecretString::from(passphrase.to_owned()))
                .map_err(|error| bad(format!("the passphrase does not open this ssh key: {error}")))?;
            Ok(Box::new(age::ssh::Identity::from(key)))
        }
        age::ssh::Identity::Unsupported(key) => Err(bad(format!("ssh keys of this kind are not supported: {key:?}"))),
    }
}

/// What a new slot is locked with.
#[derive(Debug, Clone)]
pub enum NewLock {
    /// A passphrase that a person chose.
    Passphrase(SecretString),
    /// A generated recovery code.
    Recovery(RecoveryCode),
    /// A public key: `age1…`, `ssh-ed25519 …` or `ssh-rsa …`.
    Recipient(String),
}

impl NewLock {
    pub(crate) fn lock(&self) -> Lock {
        match self {
            Self::Passphrase(_) => Lock::Passphrase,
            Self::Recovery(_) => Lock::Recovery,
            Self::Recipient(text) if text.starts_with("ssh-") => Lock::Ssh,
            Self::Recipient(_) => Lock::X25519,
        }
    }

    /// The public key as it is shown; empty for passphrases.
    pub(crate) fn recipient(&self) -> String {
        match self {
            Self::Recipient(text) => text.clone(),
            _ => String::new(),
        }
    }

    /// An age file that holds `slot_key` and the vault's verifying key.
    pub(crate) fn wrap(&self, slot_key: &OpenKey, vault_verify: &VerifyKey) -> Result<Vec<u8>> {
        let recipient = self.age_recipient()?;
        let failed = |why: String| Error::BadKey {
            origin: "new key".to_owned(),
            why,
        };
        let encryptor =
            age::Encryptor::with_recipients(std::iter::once(&*recipient)).map_err(|error| failed(error.to_string()))?;
        let mut locked = Vec::new();
        let mut writer = encryptor
            .wrap_output(&mut locked)
            .map_err(|error| failed(error.to_string()))?;
        writer
            .write_all(&Zeroizing::new([*slot_key.expose(), vault_verify.0].concat()))
            .map_err(|error| failed(error.to_string()))?;
        writer.finish().map_err(|error| failed(error.to_string()))?;
        Ok(locked)
    }

    fn age_recipient(&self) -> Result<Box<dyn age::Recipient>> {
        let scrypt = |text: SecretString| {
            let mut recipient = age::scrypt::Recipient::new(text);
            recipient.set_work_factor(SCRYPT_LOG_N);
            check_scrypt_memory()?;
            Ok(Box::new(recipient) as Box<dyn age::Recipient>)
        };
        let text = match self {
            Self::Passphrase(text) => return scrypt(text.clone()),
            Self::Recovery(code) => return scrypt(SecretString::from(code.to_string())),
            Self::Recipient(text) => text,
        };
        let bad = |why: String| Error::BadKey {
            origin: format!("recipient `{text}`"),
            why,
        };
        if text.starts_with("ssh-") {
            let recipient: age::ssh::Recipient = text.parse().map_err(|error| bad(format!("{error:?}")))?;
            return Ok(Box::new(recipient));
        }
        let recipient: age::x25519::Recipient = text.parse().map_err(|why: &str| bad(why.to_owned()))?;
        Ok(Box::new(recipient))
    }
}

/// A freshly generated key for a key file.
pub struct KeyFile {
    /// What the file holds: one secret key in age's form, with a comment above it. Anybody who has it has the vault.
    pub content: Zeroizing<String>,
    /// The public half, to lock a slot with.
    pub recipient: String,
}

/// Generates a key pair for a key file.
pub fn generate_key_file() -> KeyFile {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = identity.to_string();
    let content = format!(
        "# drystone key file: keep it secret, keep a copy\n# public key: {recipient}\n{}\n",
        secret.expose_secret()
    );
    KeyFile {
        content: Zeroizing::new(content),
        recipient,
    }
}

/// Letters of a recovery code: Crockford's base 32, without I, L, O and U.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Random bytes of a recovery code.
const RECOVERY_BYTES: usize = 15;
/// Letters that carry them, and letters of the checksum.
const RECOVERY_LETTERS: usize = 24;
const CHECK_LETTERS: usize = 4;

/// A generated code that opens a vault when everything else is lost; written down by a person.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode([u8; RECOVERY_BYTES]);

impl RecoveryCode {
    /// A fresh code of 120 random bits.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; RECOVERY_BYTES];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Reads a code as a person may type it: any case, spaces and dashes anywhere, O for 0, I and L for 1.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::BadKey {
            origin: "recovery code".to_owned(),
            why: why.to_owned(),
        };
        let mut letters = Vec::with_capacity(RECOVERY_LETTERS + CHECK_LETTERS);
        for letter in text.bytes().map(|letter| letter.to_ascii_uppercase()) {
            let letter = match letter {
                b'-' | b' ' | b'\n' | b'\r' => continue,
                b'O' => b'0',
                b'I' | b'L' => b'1',
                letter => letter,
            };
            let value = LETTERS
                .iter()
                .position(|known| *known == letter)
                .ok_or_else(|| bad("has letters no code has"))?;
            letters.push(value as u8);
        }
        if letters.len() != RECOVERY_LETTERS + CHECK_LETTERS {
            return Err(bad("has 28 letters and digits"));
        }
        let (data, check) = letters.split_at(RECOVERY_LETTERS);
        let mut bytes = [0; RECOVERY_BYTES];
        for (eight, five) in data.chunks_exact(8).zip(bytes.chunks_exact_mut(5)) {
            let value = eight.iter().fold(0u64, |value, letter| value << 5 | u64::from(*letter));
            five.iter_mut()
                .zip(value.to_be_bytes().iter().skip(3))
                .for_each(|(to, from)| *to = *from);
        }
        let code = Self(bytes);
        if code.check() == check {
            Ok(code)
        } else {
            Err(bad("is mistyped: its last four letters do not fit the rest"))
        }
    }

    fn check(&self) -> [u8; CHECK_LETTERS] {
        let hash = drystone_format::id::pack_id(&[b"drystone recovery code".as_slice(), &self.0].concat());
        let [a, b, c, d, ..] = hash.0;
        [a & 31, b & 31, c & 31, d & 31]
    }
}

impl fmt::Display for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0.chunks_exact(5).flat_map(|five| {
            let value = five.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            (0..8).rev().map(move |at| (value >> (5 * at) & 31) as u8)
        });
        for (at, letter) in data.chain(self.check()).enumerate() {
            if at > 0 && at % 4 == 0 {
                f.write_str("-")?;
            }
            let letter = LETTERS.get(usize::from(letter)).copied().unwrap_or(b'?');
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = at as u8 * 17 + 3);
        }
    }

    #[test]
    fn a_recovery_code_survives_a_persons_typing() {
        let code = RecoveryCode::generate(&Counting);
        let text = code.to_string();
        assert_eq!(text.len(), 34);
        assert!(RecoveryCode::parse(&text).unwrap() == code);
        assert!(
            RecoveryCode::parse(
                &text
                    .to_lowercase()
                    .replace('-', " ")
                    .replace('0', "o")
                    .replace('1', "l")
            )
            .unwrap()
                == code
        );
        for at in 0..text.len() {
            let mut slip = text.clone().into_bytes();
            slip[at] = if slip[at] == b'7' { b'8' } else { b'7' };
            assert!(
                RecoveryCode::parse(std::str::from_utf8(&slip).unwrap()).is_err(),
                "slip at {at}"
            );
        }
    }

    #[test]
    fn a_guess_at_a_passphrase_costs_128_mib() {
        for lock in [
            NewLock::Passphrase(SecretString::from("horse".to_owned())),
            NewLock::Recovery(RecoveryCode::generate(&Counting)),
        ] {
            let locked = lock.wrap(&OpenKey::from_bytes([7; 32]), &VerifyKey([9; 32])).unwrap();
            let header = String::from_utf8_lossy(&locked);
            // The last word is log2 of N; a guess takes N times 128 r bytes, and r is 8 (age's specification, "scrypt").
            let stanza = header.lines().find(|line| line.starts_with("-> scrypt ")).unwrap();
            assert_eq!(stanza.rsplit(' ').next(), Some("17"), "{stanza}");
        }
    }

    #[test]
    fn key_files_and_passphrases_open_what_was_locked_for_them() {
        let (key_file, slot_key) = (generate_key_file(), OpenKey::from_bytes([7; 32]));
        let locked = NewLock::Recipient(key_file.recipient.clone())
            .wrap(&slot_key, &VerifyKey([9; 32]))
            .unwrap();
        let unlock = Unlock::key_file(&key_file.content, "test", None).unwrap();
        let unlocked = unlock.open(&locked).unwrap();
        assert_eq!(unlocked.slot_key.expose(), slot_key.expose());
        assert_eq!(unlocked.vault_verify, VerifyKey([9; 32]));
        let other = Unlock::key_file(&generate_key_file().content, "test", None).unwrap();
        assert!(other.open(&locked).is_none());
        assert!(Unlock::passphrase("x").open(&locked).is_none());
        for bad in [
            "",
            "# nothing",
            "AGE-SECRET-KEY-1XXXX",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA",
        ] {
            assert!(Unlock::key_file(bad, "test", None).is_err(), "{bad}");
        }
    }
}
