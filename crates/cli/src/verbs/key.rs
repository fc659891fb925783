//! `key`: adds, lists and removes what opens the vault.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use drystone_format::SlotId;
use drystone_format::keys::Role;
use drystone_vault::{NewEpoch, NewLock, NewSlot, RecoveryCode, SlotInfo, Vault};
use serde_json::{Value, json};

use crate::config::Passphrase;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::keyfile;
use crate::open;
use crate::output::{local_time, problem_list, put_bytes, utc_time, with_exit};
use crate::shown::{shown, shown_path};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  drystone key list
  drystone key add --new-passphrase-file new.txt
  drystone key add --role writer --generate web.key
                                  a key that can back up, but read nothing
  drystone key add --role reader --recipient \"$(cat key.pub)\"
                                  one that can restore, but change nothing
  drystone key add --recipient \"$(cat id_ed25519.pub)\"
                                  an ssh key opens the vault
  drystone key recovery           a new recovery code
  drystone key remove 1a2b3c4d";

/// The names of the columns of a list.
const HEAD: &str = "key        role    opened by   added                label  public key";
/// Letters of a public key that are shown in a list.
const RECIPIENT_SHOWN: usize = 40;

/// Add, list and remove what opens the vault.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a key
    Add(Add),
    /// List keys
    List,
    /// Remove a key
    Remove(Remove),
    /// Add a new recovery code and print it
    Recovery,
}

#[derive(Debug, Args)]
#[command(override_usage = "drystone key add [OPTIONS] <ONE OF THE KEYS BELOW>")]
struct Add {
    #[command(flatten)]
    lock: Lock,
    /// What the key may do: owner, everything; writer, back up, but read nothing; member, back up and read, but neither
    /// forget, collect nor manage; reader, read and restore
    #[arg(long, value_name = "ROLE", value_parser = role, default_value = "owner", hide_default_value = true)]
    role: Role,
    /// The same as --role writer
    #[arg(long, conflicts_with = "role")]
    writer: bool,
    /// A name for it
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
}

/// What the new key is: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Lock {
    /// Public key: age1…, ssh-ed25519 …, ssh-rsa …
    #[arg(long, value_name = "KEY")]
    recipient: Option<String>,
    /// Generate a key and write it to this new file
    #[arg(long, value_name = "FILE")]
    generate: Option<PathBuf>,
    /// File that holds the new passphrase
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Ask for the new passphrase
    #[arg(long)]
    new_passphrase: bool,
}

#[derive(Debug, Args)]
struct Remove {
    /// The beginning of the key, as `drystone key list` shows it, or of its id
    id: String,
    /// Do not start a new key epoch: whoever kept a copy of the removed key's secrets can read later backups too
    #[arg(long)]
    keep_epoch: bool,
    /// Tidy an owner's key away although that protects nothing: its holder can still read and change everything
    #[arg(long)]
    holder_still_trusted: bool,
}

impl Key {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match &self.what {
            What::Add(add) => add.run(app),
            What::List => list(app),
            What::Remove(remove) => remove.run(app),
            What::Recovery => recovery(app),
        }
    }
}

impl Add {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        vault.may_govern("add keys")?;
        let lock = self.lock.make()?;
        let role = if self.writer { Role::Writer } else { self.role };
        let id = vault.add_key(&NewSlot {
            lock,
            label: self.label.clone(),
            role,
        })?;
        let name = name_of(&vault, &id);
        let mut fields = json!({ "id": id.to_string(), "signer": name, "role": role.word() });
        let mut text = format!("key {name} added ({})", role.word());
        if let Some(file) = &self.lock.generate {
            keyfile::name_vault(file, &vault.pin())?;
            put_bytes(
                &mut fields,
                "key_file",
                std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()),
            );
            text += &format!("; it is in {}", shown_path(file));
        }
        app.end("key_added", Exit::Done, fields, text)
    }
}

impl Lock {
    fn make(&self) -> Result<NewLock> {
        if let Some(recipient) = &self.recipient {
            return Ok(NewLock::Recipient(recipient.trim().to_owned()));
        }
        if let Some(file) = &self.generate {
            return Ok(NewLock::Recipient(keyfile::write_new_key(file)?));
        }
        if let Some(file) = &self.new_passphrase_file {
            let text = keyfile::read_passphrase(&Passphrase::File(file.clone()))?;
            return Ok(NewLock::Passphrase(text.as_str().into()));
        }
        let ask = |question: &str| {
            let answer = terminal::ask(question)
                .map_err(|error| Failure::io("cannot ask for the passphrase", Path::new("/dev/tty"), &error))?;
            answer.ok_or_else(|| Failure::usage("there is no terminal to ask on").next("use --new-passphrase-file"))
        };
        let (first, second) = (ask("New passphrase")?, ask("The same again")?);
        if *first != *second || first.is_empty() {
            return Err(Failure::usage(
                "the two passphrases differ, or are empty; nothing was changed",
            ));
        }
        Ok(NewLock::Passphrase(first.as_str().into()))
    }
}

impl Remove {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let id = vault.find_key(&self.id)?;
        let name = name_of(&vault, &id);
        let (keys, _) = vault.keys()?;
        let is_owner = keys.iter().any(|key| key.id == id && key.role == Role::Owner);
        if !keys.iter().any(|key| key.id == id) {
            app.out.warning(format_args!(
                "keys/{id} cannot be read, so it is not known whose key it was: what that key signs goes on counting"
            ));
        }
        let (new_epoch, what) = if is_owner && self.holder_still_trusted {
            vault.tidy_owner_key(&id)?;
            (
                false,
                "; whoever kept a copy of it can still read and change everything",
            )
        } else if self.keep_epoch {
            vault.remove_key(&id, NewEpoch::Keep)?;
            (
                false,
                "; copies of its secrets still open what is backed up from now on",
            )
        } else {
            vault.remove_key(&id, NewEpoch::Start)?;
            (true, "; what is backed up from now on is closed to copies of it")
        };
        let fields = json!({ "id": id.to_string(), "signer": name, "new_epoch": new_epoch });
        app.end("key_removed", Exit::Done, fields, format!("key {name} removed{what}"))
    }
}

/// The role that a word means.
fn role(text: &str) -> Result<Role, String> {
    let words = Role::ALL.map(Role::word);
    let found = Role::ALL.into_iter().find(|role| role.word() == text);
    found.ok_or_else(|| format!("`{text}` is no role; there are {}", words.join(", ")))
}

fn recovery(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    vault.may_govern("add keys")?;
    let code = RecoveryCode::generate(&*app.context.entropy);
    let (lock, label) = (NewLock::Recovery(code.clone()), "recovery code".to_owned());
    let id: SlotId = vault.add_key(&NewSlot {
        lock,
        label,
        role: Role::Owner,
    })?;
    let fields = json!({
        "id": id.to_string(),
        "signer": name_of(&vault, &id),
        "recovery_code": code.to_string(),
    });
    let exit = app.answer("key_recovery", Exit::Done, fields, code.to_string())?;
    app.out
        .note("Write it down and keep it somewhere else; it is shown only now.");
    app.out
        .note("Older recovery codes stay valid: see `drystone key list` and `drystone key remove`.");
    Ok(exit)
}

fn list(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    let (keys, problems) = vault.keys()?;
    let exit = app.ending(Exit::of_damage(&problems));
    let mut lines = app.out.lines();
    if app.out.is_json() {
        for key in &keys {
            lines.object("key", fields(&vault, key))?;
        }
        let summary = json!({ "keys": keys.len(), "problems": problem_list(&problems) });
        lines.object("summary", with_exit(summary, exit))?;
    } else {
        app.out.head(&mut lines, HEAD)?;
        for key in &keys {
            lines.line(row(&vault, key))?;
        }
    }
    lines.finish()?;
    app.out.note("* opened the vault for this command");
    app.out.problems(&problems);
    Ok(exit)
}

/// The name of a key for people: the first digits of what it signs with, by which `snapshots` names it too. It stays when a
/// new key epoch stores the slot under another id. Of a slot that cannot be read, the beginning of its id: what was done
/// before the name was asked for, such as a new recovery code, is shown in any case.
fn name_of(vault: &Vault, id: &SlotId) -> String {
    let (keys, _) = vault.keys().unwrap_or_default();
    let key = keys.iter().find(|key| key.id == *id);
    key.map_or_else(|| id.short(), |key| vault.signer_name(&key.writer))
}

fn row(vault: &Vault, key: &SlotInfo) -> String {
    let recipient: String = key.recipient.chars().take(RECIPIENT_SHOWN).collect();
    let text = format!(
        "{} {} {:<6}  {:<10}  {}  {}  {}",
        vault.signer_name(&key.writer),
        if key.current { "*" } else { " " },
        key.role.word(),
        key.lock.word(),
        local_time(key.created),
        shown(key.label.as_bytes()),
        shown(recipient.as_bytes()),
    );
    text.trim_end().to_owned()
}

fn fields(vault: &Vault, key: &SlotInfo) -> Value {
    json!({
        "id": key.id.to_string(),
        "signer": vault.signer_name(&key.writer),
        "role": key.role.word(),
        "lock": key.lock.word(),
        "label": key.label,
        "created": utc_time(key.created),
        "recipient": (!key.recipient.is_empty()).then_some(&key.recipient),
        "current": key.current,
    })
}
