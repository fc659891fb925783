//! Which vault, and which key: opening the one that is meant, and creating it on first use.
//!
//! - The place is looked at before any key is asked for, so that a wrong path is not taken for a wrong key.
//! - A vault is made without being asked for only at the built-in place, and only where none was seen before.
//! - A generated key is durable, and says which vault it is for, before anything of that vault is stored.
//! - A kept key is tried on the vault that it names and on no other.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_format::chunker::Sizes;
use drystone_format::config::Trust;
use drystone_format::keys::Role;
use drystone_store::Store;
use drystone_vault::{
    Context, CreateOptions, Known, NewLock, NewPlace, NewSlot, PlaceUse, Reach, RecoveryCode, Unlock, Vault, VaultPin,
    vault_line,
};

use crate::address::{absolute, named};
use crate::config::{KeySource, Named, Settings};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::keyfile::{
    Given, KEY_FILE_ENDING, append_line, kept_file, kept_key, name_given, name_vault, public_key, read_passphrase,
    read_secret, sync_dir, write_new_key,
};
use crate::output::counted;
use crate::shown::{shown, shown_path};
use crate::terminal;

mod chosen;
pub(crate) mod places;

pub(crate) use chosen::{Chosen, choose, resolve};

/// How often a person may type a passphrase.
const TYPED_TRIES: u32 = 3;

/// Opens the vault that flags, environment and configuration name.
pub(crate) fn open(app: &App) -> Result<Vault> {
    open_with(app, &app.settings)
}

/// Opens the vault that these settings name.
pub(crate) fn open_with(app: &App, settings: &Settings) -> Result<Vault> {
    let reach = places::reach(app, settings).map_err(|error| missing_or(settings, error.into()))?;
    let Some(store) = places::first(&reach, app)?.cloned() else {
        let place = settings.vault.clone();
        return Err(missing_or(settings, drystone_vault::Error::NoVault { place }.into()));
    };
    open_in(app, settings, reach, &store)
}

/// Says that a vault was seen here before, if that is why there being none is worth more than `failure`.
fn missing_or(settings: &Settings, failure: Failure) -> Failure {
    if failure.exit == Exit::NoVault {
        refuse_emptied(settings).err().unwrap_or(failure)
    } else {
        failure
    }
}

/// An error if a vault was seen before where there is none, unless that is accepted.
fn refuse_emptied(settings: &Settings) -> Result<()> {
    if settings.accept.new_vault {
        return Ok(());
    }
    let known = Known::in_dir(&settings.known_dir);
    for place in named(&settings.vault) {
        if let Some(known) = known.at(&place)? {
            return Err(drystone_vault::Error::Emptied { place, known }.into());
        }
    }
    Ok(())
}

/// Why no vault is made at a place that was named: it is more likely elsewhere than not yet made.
fn not_made(settings: &Settings) -> Failure {
    let place = shown(settings.vault.as_bytes());
    Failure::new(Exit::NoVault, format!("{place}: no vault here; is the disk mounted?"))
        .next("check the path, or make a vault there: drystone init")
}

fn open_in(app: &App, settings: &Settings, reach: Reach, store: &Arc<dyn Store>) -> Result<Vault> {
    let given = unlock(app, settings, &reach, store)?;
    let vaults = || Vault::ids_at(store, &app.context).unwrap_or_default();
    let context = app.context_for(settings, &vaults)?;
    let (vault, given) = open_asking(app, settings, (reach, &context), given)?;
    if let Some(file) = &given.kept {
        name_vault(file, &vault.pin())?;
    }
    for warning in vault.warnings() {
        app.out.warning(warning);
    }
    for note in vault.notes() {
        app.out
            .warning(format_args!("{note}; {} names it", settings.named.origin()));
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

/// Opens the vault with what was given; what a person typed may be mistyped, and is asked for again.
fn open_asking(
    app: &App,
    settings: &Settings,
    (reach, context): (Reach, &Context),
    given: Given,
) -> Result<(Vault, Given)> {
    let (mut reach, mut given) = (Some(reach), given);
    for tries_left in (0..TYPED_TRIES).rev() {
        let again = match reach.take() {
            Some(reach) => reach,
            None => places::reach(app, settings)?,
        };
        match Vault::open(again, context.clone(), &given.with) {
            Ok(vault) => return Ok((vault, given)),
            Err(drystone_vault::Error::WrongKey { place, .. }) if given.is_typed && tries_left > 0 => {
                app.out.warning("wrong passphrase or recovery code; try again");
                given = ask(app, &place)?;
            }
            Err(error) => return Err(wrong_key(error, &given)),
        }
    }
    // The last try returns above.
    Err(Failure::new(Exit::WrongKey, "wrong passphrase or recovery code"))
}

/// Says which key it was that does not open the vault.
fn wrong_key(error: drystone_vault::Error, given: &Given) -> Failure {
    let message = match &error {
        drystone_vault::Error::WrongKey { place, slots, damaged } => {
            let slots = counted(*slots as u64, "key slot");
            format!("{place}: {} opens none of the vault's {slots}{damaged}", given.what)
        }
        _ => return error.into(),
    };
    Failure {
        message,
        ..Failure::from(error)
    }
}

/// Opens the vault; makes it if nobody named a place and none was ever seen at the built-in one.
pub(crate) fn open_or_create(app: &App) -> Result<(Vault, Option<Created>)> {
    let settings = &app.settings;
    let reach = match places::reach(app, settings) {
        Err(drystone_store::Error::NoPlace { .. }) => None,
        reach => Some(reach?),
    };
    if let Some(reach) = reach
        && let Some(store) = places::first(&reach, app)?.cloned()
    {
        return Ok((open_in(app, settings, reach, &store)?, None));
    }
    refuse_emptied(settings)?;
    let missing = not_made(settings);
    if settings.named != Named::Nowhere {
        return Err(missing);
    }
    if let Some(KeySource::File(file, _)) = &settings.key
        && file.exists()
    {
        // Whoever has a key has a vault: it is more likely elsewhere (a disk that is not mounted) than not yet made.
        return Err(missing.next(format!(
            "mount or name the place that {} opens, or: drystone init",
            shown_path(file)
        )));
    }
    let recovery = if terminal::is_there() {
        Recovery::Shown
    } else {
        Recovery::Later
    };
    let options = NewVault {
        recovery,
        ..NewVault::default()
    };
    let (vault, created) = create(app, &options)?;
    Ok((vault, Some(created)))
}

/// Whether a new vault gets a recovery code at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Recovery {
    /// Yes: somebody sees it.
    #[default]
    Shown,
    /// No: it would be printed into a log. `drystone key recovery` makes one later.
    Later,
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
    /// Whether it gets a recovery code at once.
    pub(crate) recovery: Recovery,
}

/// What came of making a vault, to be shown once.
pub(crate) struct Created {
    /// Where it is.
    pub(crate) place: String,
    /// Its id.
    pub(crate) id: String,
    /// Opens it when all keys are lost.
    pub(crate) recovery: Option<RecoveryCode>,
    /// The key file that was generated, if one was.
    pub(crate) key_file: Option<PathBuf>,
}

/// Makes a vault at the place that is meant.
pub(crate) fn create(app: &App, options: &NewVault) -> Result<(Vault, Created)> {
    let urls = match options.places.as_slice() {
        [] => named(&app.settings.vault),
        places => places.iter().map(|place| absolute(place)).collect(),
    };
    let _unless_used = places::Fresh::of(&urls);
    let stores = urls
        .iter()
        .map(|url| places::create(app, url))
        .collect::<Result<Vec<_>>>()?;
    for store in &stores {
        if Vault::exists(store, &app.context)? {
            let place = store.place().to_owned();
            return Err(drystone_vault::Error::VaultExists { place }.into());
        }
    }
    let recovery = (options.recovery == Recovery::Shown).then(|| RecoveryCode::generate(&*app.context.entropy));
    let (mut locks, generated) = first_locks(app, options)?;
    locks.extend(options.recipients.iter().cloned().map(NewLock::Recipient));
    let mut slots: Vec<NewSlot> = locks
        .into_iter()
        .map(|lock| NewSlot {
            lock,
            label: options.label.clone().unwrap_or_default(),
            role: Role::Owner,
        })
        .collect();
    slots.extend(recovery.iter().map(|code| NewSlot {
        lock: NewLock::Recovery(code.clone()),
        label: "recovery code".to_owned(),
        role: Role::Owner,
    }));
    let create = create_options(options, slots);
    let ready = |pin: &VaultPin| match &generated {
        Some(Generated::Asked(file)) => append_line(file, &vault_line(pin)),
        Some(Generated::Kept(file)) => {
            append_line(file, &vault_line(pin))?;
            let named = kept_file(app, &pin.vault);
            fs::rename(file, &named).and_then(|()| sync_dir(&named))
        }
        None => name_given(app, pin),
    };
    let vault = lay_out(app, (urls, stores), options.spread, &create, &ready)?;
    let id = vault.id().to_string();
    let key_file = match generated {
        Some(Generated::Asked(file)) => Some(file),
        Some(Generated::Kept(_)) => Some(kept_file(app, &vault.id())),
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

/// What the engine takes for a new vault with these slots.
fn create_options(options: &NewVault, slots: Vec<NewSlot>) -> CreateOptions {
    let trust = if options.trust_everyone {
        Trust::Everyone
    } else {
        Trust::Verified
    };
    CreateOptions {
        data_sizes: options.data_sizes.unwrap_or(Sizes::DATA),
        meta_sizes: Sizes::META,
        trust,
        slots,
    }
}

/// Makes the vault at its place or places. Of several, any one may be lost unless something else is asked for.
fn lay_out(
    app: &App,
    (urls, stores): (Vec<String>, Vec<Arc<dyn Store>>),
    spread: Option<(u8, u8)>,
    options: &CreateOptions,
    ready: &dyn Fn(&VaultPin) -> io::Result<()>,
) -> Result<Vault> {
    let context = app.context_for(&app.settings, &Vec::new)?;
    if let (1, None, Some(store)) = (urls.len(), spread, stores.first()) {
        return Ok(Vault::create_known(store.clone(), context, options, ready)?);
    }
    let total = u8::try_from(urls.len()).map_err(|_| Failure::usage("at most 255 places make a vault"))?;
    let (needed, total) = spread.unwrap_or((total - 1, total));
    let used = PlaceUse::default();
    let places = urls.into_iter().zip(stores);
    let places = places.map(|(url, store)| NewPlace { store, url, used }).collect();
    Ok(Vault::create_spread_known(
        places,
        (needed, total),
        context,
        options,
        ready,
    )?)
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

/// What opens the vault at `store`: what was given, the key file kept for this vault, or what a person types.
fn unlock(app: &App, settings: &Settings, reach: &Reach, store: &Arc<dyn Store>) -> Result<Given> {
    match &settings.key {
        Some(KeySource::Passphrase(source)) => {
            return Ok(Given::passphrase(Unlock::passphrase(&read_passphrase(source)?)));
        }
        Some(KeySource::File(file, passphrase)) => {
            let passphrase = passphrase.as_ref().map(read_passphrase).transpose()?;
            let content = read_secret(file, "key file")?;
            let passphrase = passphrase.as_ref().map(|text| text.as_str());
            return Ok(Given::file(
                Unlock::key_file(&content, &shown_path(file), passphrase)?,
                file,
            ));
        }
        None => {}
    }
    if let Some(kept) = kept_key(app, settings, reach)? {
        return Ok(kept);
    }
    ask(app, store.place())
}

/// Asks for the passphrase of the vault at a place.
fn ask(app: &App, place: &str) -> Result<Given> {
    match terminal::ask(&format!("Passphrase or recovery code of {}", shown(place.as_bytes()))) {
        Ok(Some(text)) => Ok(Given {
            is_typed: true,
            ..Given::passphrase(Unlock::passphrase(&text))
        }),
        Ok(None) => Err(no_key(app, place)),
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
