//! Key files and passphrases: generating keys, naming the vaults that they are for, reading what was given or is kept.
//!
//! - A key file says which vaults it is for, in lines that age takes for comments; it is tried on no other.
//! - What is written here is synced before anything relies on it, and readable for its owner alone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drystone_format::VaultId;
use drystone_vault::{Known, Reach, Unlock, Vault, VaultPin, generate_key_file, named_vaults, vault_line};
use zeroize::Zeroizing;

use crate::config::{KeySource, Passphrase, Settings, own_variables};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::shown::shown_path;

/// Longest passphrase or key file read, bytes; more is not one.
const SECRET_MAX_BYTES: u64 = 64 << 10;
/// Ending of kept key files.
pub(crate) const KEY_FILE_ENDING: &str = "key";
/// Begins the line of a key file that names its public key, in age's files as in ours.
const PUBLIC_KEY: &str = "# public key: ";

/// What opens a vault.
pub(crate) struct Given {
    pub(crate) with: Unlock,
    /// What it is, for a message.
    pub(crate) what: String,
    /// The kept key file that it came from.
    pub(crate) kept: Option<PathBuf>,
    /// Returns true if a person typed it just now.
    pub(crate) is_typed: bool,
}

impl Given {
    /// A passphrase or recovery code.
    pub(crate) fn passphrase(with: Unlock) -> Self {
        Self {
            with,
            what: "wrong passphrase or recovery code: it".to_owned(),
            kept: None,
            is_typed: false,
        }
    }

    /// A key from a file.
    pub(crate) fn file(with: Unlock, file: &Path) -> Self {
        Self {
            with,
            what: format!("wrong key: the one in {}", shown_path(file)),
            kept: None,
            is_typed: false,
        }
    }
}

/// Generates a key, writes it to `file`, durably and readable for nobody else, and returns its public key.
pub(crate) fn write_new_key(file: &Path) -> Result<String> {
    let key = generate_key_file();
    let failed = |error: io::Error| {
        let failure = Failure::io("cannot write the key file", file, &error);
        if error.kind() == io::ErrorKind::AlreadyExists {
            failure.next("name another file")
        } else {
            failure
        }
    };
    let mut to = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(failed)?;
    to.write_all(key.content.as_bytes())
        .and_then(|()| to.sync_all())
        .map_err(failed)?;
    sync_dir(file).map_err(failed)?;
    Ok(key.recipient)
}

/// The key file that is kept for a vault.
pub(crate) fn kept_file(app: &App, vault: &VaultId) -> PathBuf {
    app.settings.keys_dir.join(format!("{vault}.{KEY_FILE_ENDING}"))
}

/// Adds a line to a key file, durably.
pub(crate) fn append_line(file: &Path, line: &str) -> io::Result<()> {
    let mut to = fs::OpenOptions::new().append(true).open(file)?;
    to.write_all(line.as_bytes())?;
    to.sync_all()
}

/// Lets a key file say that it opens the vault `pin` too, if it does not yet.
pub(crate) fn name_vault(file: &Path, pin: &VaultPin) -> Result<()> {
    let named = named_vaults(&read_secret(file, "key file")?, &shown_path(file))?;
    if named.contains(pin) {
        return Ok(());
    }
    append_line(file, &vault_line(pin)).map_err(|error| Failure::io("cannot write the key file", file, &error))
}

/// A key file that names vaults, and makes another one, names that one too; files of other programs are left alone.
pub(crate) fn name_given(app: &App, pin: &VaultPin) -> io::Result<()> {
    let Some(KeySource::File(file, _)) = &app.settings.key else {
        return Ok(());
    };
    let names_some =
        fs::read_to_string(file).is_ok_and(|text| named_vaults(&text, "").is_ok_and(|named| !named.is_empty()));
    if names_some {
        append_line(file, &vault_line(pin))?;
    }
    Ok(())
}

pub(crate) fn sync_dir(file: &Path) -> io::Result<()> {
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The public key that belongs to a key file, as its comment or the `.pub` file beside an ssh key says.
pub(crate) fn public_key(file: &Path) -> Result<String> {
    let content = read_secret(file, "key file")?;
    if let Some(line) = content.lines().find_map(|line| line.strip_prefix(PUBLIC_KEY)) {
        return Ok(line.trim().to_owned());
    }
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    match fs::read_to_string(&beside) {
        Ok(line) => Ok(line.trim().to_owned()),
        Err(_) => Err(
            Failure::usage(format!("{}: its public key is not known", shown_path(file)))
                .next("drystone init --recipient PUBLIC-KEY"),
        ),
    }
}

/// The key kept for the vault at the named places, or for the one that this machine has seen there.
pub(crate) fn kept_key(app: &App, settings: &Settings, reach: &Reach) -> Result<Option<Given>> {
    let (mut vaults, mut failed) = (Vec::new(), None);
    for store in reach.stores() {
        match Vault::ids_at(store, &app.context) {
            Ok(found) => vaults.extend(found),
            Err(error) => failed = failed.or(Some(error)),
        }
        // The key of the vault that was here opens no other, but then it is said what lies here instead.
        let known = Known::in_dir(&settings.known_dir).at(store.place())?;
        vaults.extend(known.map(|pin| pin.vault));
    }
    if let (Some(error), true) = (failed, vaults.is_empty() || reach.stores().len() == 1) {
        return Err(error.into());
    }
    for vault in vaults {
        let file = kept_file(app, &vault);
        let file = if file.exists() {
            Some(file)
        } else {
            kept_naming(app, &vault)
        };
        if let Some(file) = file {
            let with = Unlock::key_file(&read_secret(&file, "key file")?, &shown_path(&file), None)?;
            return Ok(Some(Given {
                kept: Some(file.clone()),
                ..Given::file(with, &file)
            }));
        }
    }
    Ok(None)
}

/// A kept key whose file says that it is for this vault, whatever the file is called.
fn kept_naming(app: &App, vault: &VaultId) -> Option<PathBuf> {
    let files = fs::read_dir(&app.settings.keys_dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut keys = files.filter(|file| file.extension().is_some_and(|ending| ending == KEY_FILE_ENDING));
    keys.find(|file| {
        let content = read_secret(file, "key file").unwrap_or_default();
        named_vaults(&content, "").is_ok_and(|named| named.iter().any(|pin| pin.vault == *vault))
    })
}

/// A small file that holds a secret; `-` is not special: secrets do not come through standard input.
pub(crate) fn read_secret(file: &Path, what: &str) -> Result<Zeroizing<String>> {
    use std::io::Read;
    let failed = |error: io::Error| Failure {
        exit: Exit::Usage,
        ..Failure::io(&format!("cannot read the {what}"), file, &error)
    };
    let mut text = Zeroizing::new(String::new());
    let from = File::open(file).map_err(failed)?;
    from.take(SECRET_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > SECRET_MAX_BYTES {
        return Err(Failure::usage(format!(
            "{}: too large to be a {what}",
            shown_path(file)
        )));
    }
    Ok(text)
}

/// The passphrase, without the line end that files and commands put after it.
pub(crate) fn read_passphrase(source: &Passphrase) -> Result<Zeroizing<String>> {
    let (text, origin) = match source {
        Passphrase::Text(text) => return Ok(text.clone()),
        Passphrase::File(file) => (read_secret(file, "passphrase file")?, shown_path(file)),
        Passphrase::Command(command) => (run_command(command)?, format!("`{command}`")),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Failure::usage(format!("{origin}: the passphrase is empty")));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn run_command(command: &str) -> Result<Zeroizing<String>> {
    let failed = |why: String| Failure::usage(format!("the passphrase command `{command}` {why}"));
    let mut shell = Command::new("sh");
    for name in own_variables() {
        shell.env_remove(name);
    }
    let output = shell
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let bytes = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(format!("failed: {}", output.status)));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("printed something that is not UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}
