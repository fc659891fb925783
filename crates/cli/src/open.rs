//! Which vault, and which key: opening the one that is meant, and creating it on first use.
//!
//! - The place is looked at before any key is asked for, so that a wrong path is not taken for a wrong key.
//! - A generated key is durable before the vault that it opens is made.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use drystone_backup::Selection;
use drystone_format::RootId;
use drystone_format::chunker::Sizes;
use drystone_format::config::Trust;
use drystone_format::header::Header;
use drystone_format::keys::Role;
use drystone_store::{Name, Range, Store};
use drystone_vault::{
    Context, CreateOptions, NewLock, NewPlace, NewSlot, PlaceUse, Reach, Reader, RecoveryCode, Unlock, Vault,
    generate_key_file,
};
use zeroize::Zeroizing;

use crate::args::Spot;
use crate::config::{KeySource, Passphrase, Settings};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{shown, shown_path};
use crate::reach;
use crate::terminal;

/// Longest passphrase or key file read, bytes; more is not one.
const SECRET_MAX_BYTES: u64 = 64 << 10;
const KEY_FILE_ENDING: &str = "key";
/// Begins the line of a key file that names its public key, in age's files as in ours.
const PUBLIC_KEY: &str = "# public key: ";

/// Opens the vault that flags, environment and configuration name.
pub(crate) fn open(app: &App) -> Result<Vault> {
    open_with(app, &app.settings)
}

/// Opens the vault that these settings name.
pub(crate) fn open_with(app: &App, settings: &Settings) -> Result<Vault> {
    let reach = reach::reach(app, settings)?;
    let Some(store) = reach::first(&reach, app)?.cloned() else {
        let place = settings.vault.clone();
        return Err(drystone_vault::Error::NoVault { place }.into());
    };
    open_in(app, settings, reach, &store)
}

fn open_in(app: &App, settings: &Settings, reach: Reach, store: &Arc<dyn Store>) -> Result<Vault> {
    let unlock = unlock(app, settings, store)?;
    let context = Context {
        cache_dir: settings.cache_dir.clone(),
        ..app.context.clone()
    };
    let vault = Vault::open(reach, context, &unlock)?;
    for warning in vault.warnings().iter().chain(vault.notes()) {
        app.out.warning(warning);
    }
    for (entry, absent) in vault.places().iter().zip(vault.absent_places()) {
        if let Some(reason) = absent {
            app.out
                .warning(format_args!("{}: this place is not there: {reason}", entry.url));
        }
    }
    app.watch(&vault);
    Ok(vault)
}

/// Opens the vault, or makes it if the place is empty or does not exist.
pub(crate) fn open_or_create(app: &App) -> Result<(Vault, Option<Created>)> {
    let reach = match reach::reach(app, &app.settings) {
        Err(drystone_store::Error::NoPlace { .. }) => None,
        reach => Some(reach?),
    };
    if let Some(reach) = reach
        && let Some(store) = reach::first(&reach, app)?.cloned()
    {
        return Ok((open_in(app, &app.settings, reach, &store)?, None));
    }
    if let Some(KeySource::File(file, _)) = &app.settings.key
        && file.exists()
    {
        // Whoever has a key has a vault: it is more likely elsewhere (a disk that is not mounted) than not yet made.
        let place = app.settings.vault.clone();
        return Err(Failure::from(drystone_vault::Error::NoVault { place }).next(format!(
            "mount or name the place that {} opens, or: drystone init",
            shown_path(file)
        )));
    }
    let (vault, created) = create(app, &NewVault::default())?;
    Ok((vault, Some(created)))
}

/// What a new vault is to be like beyond its place and key.
#[derive(Debug, Default)]
pub(crate) struct NewVault {
    /// Chunk sizes of file data, if not the usual ones.
    pub(crate) data_sizes: Option<Sizes>,
    /// Public keys that open it as owner.
    pub(crate) recipients: Vec<String>,
    /// Name of the first key.
    pub(crate) label: Option<String>,
    /// Whether every writer's packs are deduplicated against.
    pub(crate) trust_everyone: bool,
    /// Where it is to lie; the place that is meant anyway, if none is given.
    pub(crate) places: Vec<String>,
    /// How many of how many shards are enough.
    pub(crate) spread: Option<(u8, u8)>,
}

/// What came of making a vault, to be shown once.
pub(crate) struct Created {
    /// Where it is.
    pub(crate) place: String,
    /// Its id.
    pub(crate) id: String,
    /// Opens it when all keys are lost.
    pub(crate) recovery: RecoveryCode,
    /// The key file that was generated, if one was.
    pub(crate) key_file: Option<PathBuf>,
}

/// Makes a vault at the place that is meant.
pub(crate) fn create(app: &App, options: &NewVault) -> Result<(Vault, Created)> {
    let urls = match options.places.as_slice() {
        [] => reach::named(&app.settings.vault),
        places => places.iter().map(|place| reach::absolute(place)).collect(),
    };
    let _unless_used = reach::Fresh::of(&urls);
    let stores = urls
        .iter()
        .map(|url| reach::create(app, url))
        .collect::<Result<Vec<_>>>()?;
    for store in &stores {
        if Vault::exists(store, &app.context)? {
            let place = store.place().to_owned();
            return Err(drystone_vault::Error::VaultExists { place }.into());
        }
    }
    let recovery = RecoveryCode::generate(&*app.context.entropy);
    let (mut locks, generated) = first_locks(app, options)?;
    locks.extend(options.recipients.iter().cloned().map(NewLock::Recipient));
    let mut slots: Vec<NewSlot> = locks
        .into_iter()
        .map(|lock| NewSlot {
            lock,
            label: options.label.clone().unwrap_or_else(this_host),
            role: Role::Owner,
        })
        .collect();
    let label = "recovery code".to_owned();
    slots.push(NewSlot {
        lock: NewLock::Recovery(recovery.clone()),
        label,
        role: Role::Owner,
    });
    let trust = if options.trust_everyone {
        Trust::Everyone
    } else {
        Trust::Verified
    };
    let create = CreateOptions {
        data_sizes: options.data_sizes.unwrap_or(Sizes::DATA),
        meta_sizes: Sizes::META,
        trust,
        slots,
    };
    let vault = lay_out(app, (urls, stores), options.spread, &create)?;
    let id = vault.id().to_string();
    let key_file = match generated {
        Some(Generated::Asked(file)) => Some(file),
        Some(Generated::Kept(file)) => Some(rename_key(&file, &id)?),
        None => None,
    };
    let place = vault.place().to_owned();
    Ok((
        vault,
        Created {
            place,
            id,
            recovery,
            key_file,
        },
    ))
}

/// Makes the vault at its place or places. Of several, any one may be lost unless something else is asked for.
fn lay_out(
    app: &App,
    (urls, stores): (Vec<String>, Vec<Arc<dyn Store>>),
    spread: Option<(u8, u8)>,
    options: &CreateOptions,
) -> Result<Vault> {
    let context = app.context.clone();
    if let (1, None, Some(store)) = (urls.len(), spread, stores.first()) {
        return Ok(Vault::create(store.clone(), context, options)?);
    }
    let total = u8::try_from(urls.len()).map_err(|_| Failure::usage("at most 255 places make a vault"))?;
    let (needed, total) = spread.unwrap_or((total - 1, total));
    let used = PlaceUse::default();
    let places = urls.into_iter().zip(stores);
    let places = places.map(|(url, store)| NewPlace { store, url, used }).collect();
    Ok(Vault::create_spread(places, (needed, total), context, options)?)
}

/// The name of this machine.
pub(crate) fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A key file that was made for a new vault.
enum Generated {
    /// Where the user wants it.
    Asked(PathBuf),
    /// In the directory of keys, not named after its vault yet.
    Kept(PathBuf),
}

fn first_locks(app: &App, options: &NewVault) -> Result<(Vec<NewLock>, Option<Generated>)> {
    match &app.settings.key {
        Some(KeySource::Passphrase(source)) => {
            let text = read_passphrase(source)?;
            Ok((vec![NewLock::Passphrase(text.as_str().into())], None))
        }
        Some(KeySource::File(file, _)) if file.exists() => {
            let recipient = public_key(file)?;
            Ok((vec![NewLock::Recipient(recipient)], None))
        }
        Some(KeySource::File(file, _)) => {
            let recipient = write_new_key(file)?;
            Ok((
                vec![NewLock::Recipient(recipient)],
                Some(Generated::Asked(file.clone())),
            ))
        }
        None if !options.recipients.is_empty() => Ok((Vec::new(), None)),
        None => {
            let dir = &app.settings.keys_dir;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|error| Failure::io("cannot make the directory for keys", dir, &error))?;
            let now = app.now();
            let name = format!(
                "new-{}-{}-{}.{KEY_FILE_ENDING}",
                now.seconds,
                now.nanos,
                std::process::id()
            );
            let file = dir.join(name);
            let recipient = write_new_key(&file)?;
            Ok((vec![NewLock::Recipient(recipient)], Some(Generated::Kept(file))))
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

fn rename_key(file: &Path, id: &str) -> Result<PathBuf> {
    let named = file.with_file_name(format!("{id}.{KEY_FILE_ENDING}"));
    fs::rename(file, &named)
        .and_then(|()| sync_dir(&named))
        .map_err(|error| Failure::io("cannot rename the key file", file, &error))?;
    Ok(named)
}

fn sync_dir(file: &Path) -> io::Result<()> {
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The public key that belongs to a key file, as its comment or the `.pub` file beside an ssh key says.
fn public_key(file: &Path) -> Result<String> {
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

/// What opens the vault at `store`: what was given, the key file kept for this vault, or what a person types.
fn unlock(app: &App, settings: &Settings, store: &Arc<dyn Store>) -> Result<Unlock> {
    match &settings.key {
        Some(KeySource::Passphrase(source)) => return Ok(Unlock::passphrase(&read_passphrase(source)?)),
        Some(KeySource::File(file, passphrase)) => {
            let passphrase = passphrase.as_ref().map(read_passphrase).transpose()?;
            let content = read_secret(file, "key file")?;
            let passphrase = passphrase.as_ref().map(|text| text.as_str());
            return Ok(Unlock::key_file(&content, &shown_path(file), passphrase)?);
        }
        None => {}
    }
    if let Some(unlock) = kept_key(app, store)? {
        return Ok(unlock);
    }
    match terminal::ask(&format!(
        "Passphrase or recovery code of {}",
        shown(store.place().as_bytes())
    )) {
        Ok(Some(text)) => Ok(Unlock::passphrase(&text)),
        Ok(None) => Err(no_key(app, store.place())),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::new(Exit::Interrupted, "interrupted")),
        Err(error) => Err(Failure::io(
            "cannot ask for the passphrase",
            Path::new("/dev/tty"),
            &error,
        )),
    }
}

fn no_key(app: &App, place: &str) -> Failure {
    let keys = shown_path(&app.settings.keys_dir);
    Failure::new(
        Exit::WrongKey,
        format!("{place}: no key for this vault was given, and none is in {keys}"),
    )
    .next(
        "give --key-file or --passphrase-file, or set DRYSTONE_KEY_FILE, DRYSTONE_PASSPHRASE, \
         DRYSTONE_PASSPHRASE_FILE or DRYSTONE_PASSPHRASE_COMMAND (a recovery code is a passphrase)",
    )
}

/// The key kept for this vault; if it is not there by name (a header lost, a run that died), all that are kept.
fn kept_key(app: &App, store: &Arc<dyn Store>) -> Result<Option<Unlock>> {
    if let Some(id) = vault_id(app, store)? {
        let file = app.settings.keys_dir.join(format!("{id}.{KEY_FILE_ENDING}"));
        if file.exists() {
            return Ok(Some(Unlock::key_file(
                &read_secret(&file, "key file")?,
                &shown_path(&file),
                None,
            )?));
        }
    }
    let Ok(entries) = fs::read_dir(&app.settings.keys_dir) else {
        return Ok(None);
    };
    let mut all = Zeroizing::new(String::new());
    for entry in entries.flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|ending| ending == KEY_FILE_ENDING)
            && let Ok(content) = read_secret(&file, "key file")
            && Unlock::key_file(&content, "", None).is_ok()
        {
            all.push_str(&content);
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    Ok(Unlock::key_file(&all, &shown_path(&app.settings.keys_dir), None).ok())
}

/// The id in the vault's header, if that can be read; an error if the vault is newer than this program.
fn vault_id(app: &App, store: &Arc<dyn Store>) -> Result<Option<String>> {
    let name = Name::header();
    let Ok(object) = app.context.runtime.block_on(store.get(&name, Range::All)) else {
        return Ok(None);
    };
    match Header::decode(&object) {
        Ok(header) => Ok(Some(header.vault.to_string())),
        Err(source @ drystone_format::Error::Version { .. }) => {
            let (object, place) = (name.to_string(), store.place().to_owned());
            Err(drystone_vault::Error::Damaged { object, place, source }.into())
        }
        Err(_) => Ok(None),
    }
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
    let output = Command::new("sh")
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

/// What `SNAPSHOT[:PATH]` means, ready to be read.
pub(crate) struct Chosen {
    /// Reads the vault.
    pub(crate) reader: Reader,
    /// The snapshot.
    pub(crate) id: RootId,
    /// What of it.
    pub(crate) selection: Selection,
}

/// Finds a snapshot and a path in it.
pub(crate) fn choose(vault: &Vault, spot: &OsString) -> Result<Chosen> {
    let spot = Spot::parse(spot)?;
    let (id, snapshot) = vault.resolve(&spot.snapshot)?;
    let reader = vault.reader()?;
    let selection = Selection::find(&reader, &snapshot, &spot.path)?;
    Ok(Chosen { reader, id, selection })
}
