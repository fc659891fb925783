//! `init`: makes a vault, its keys and its recovery code.
//!
//! - Asks nothing: a passphrase comes from flags, environment or profile; without one a key file is generated.

use clap::Args;
use drystone_format::chunker::Sizes;
use serde_json::json;

use crate::address::{absolute, spread};
use crate::args::size;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open::{self, Created, NewVault, Recovery};
use crate::output::put_bytes;
use crate::shown::{shown, shown_path};

const EXAMPLES: &str = "\
Without a passphrase (--passphrase-file or environment) a key file is generated. A recovery code is printed once \
in any case.

Examples:
  drystone init --vault /mnt/disk/vault
  drystone init --vault /mnt/disk/vault --passphrase-file ~/.vault-passphrase
  drystone init --place /mnt/a --place /mnt/b --place sftp://host/c --spread 2/3
  drystone init --vault /mnt/v --recipient \"$(cat ~/.ssh/id_ed25519.pub)\"";

/// Create a vault.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// Where it lies: a directory or URL; several with several flags. Without any, the place of --vault
    #[arg(long, value_name = "PLACE")]
    place: Vec<String>,
    /// Any K of N shards are enough to read everything. Of several places, by default any one may be lost
    #[arg(long, value_name = "K/N", value_parser = spread)]
    spread: Option<(u8, u8)>,
    /// Average chunk size, for example 64KiB; smaller finds more duplicates and costs more memory and time
    #[arg(long, value_name = "SIZE", value_parser = size)]
    chunk_size: Option<u64>,
    /// Public key that opens the vault: age1…, ssh-ed25519 …, ssh-rsa …
    #[arg(long, value_name = "KEY")]
    recipient: Vec<String>,
    /// Name of the first key; only keys of the vault can read it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// All who write into this vault trust each other: deduplicate against packs no owner has scrubbed
    #[arg(long)]
    trust_writers: bool,
}

impl Init {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let options = NewVault {
            data_sizes: self.chunk_size.map(data_sizes).transpose()?,
            recipients: self.recipient.clone(),
            label: self.label.clone(),
            trust_everyone: self.trust_writers,
            places: self.place.clone(),
            spread: self.spread,
            recovery: Recovery::Shown,
        };
        let (_, created) = open::create(app, &options)?;
        report(app, &created)?;
        if let ([_, ..], false) = (self.place.as_slice(), app.out.is_json()) {
            app.out.say(naming(&self.place));
        }
        Ok(Exit::Done)
    }
}

/// How a vault is named from now on that lies at places which no other command would look at.
fn naming(places: &[String]) -> String {
    let places: Vec<String> = places.iter().map(|place| absolute(place)).collect();
    let vault = shown(places.join(",").as_bytes()).to_string();
    format!(
        "Name it with --vault or DRYSTONE_VAULT (any of its places that is there will\n\
         do), or in the configuration file ~/.config/drystone/config.toml, where every\n\
         command finds it:\n\n    \
         [profile.default]\n    vault = {}\n",
        toml::Value::String(vault)
    )
}

/// Shows what a person must know of a new vault now or never; `backup` calls it on first use.
pub(crate) fn report(app: &App, created: &Created) -> Result<()> {
    if app.out.is_json() {
        let mut fields = json!({
            "vault": created.place,
            "vault_id": created.id,
            "recovery_code": created.recovery.as_ref().map(ToString::to_string),
        });
        if let Some(file) = &created.key_file {
            put_bytes(
                &mut fields,
                "key_file",
                std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()),
            );
        }
        return app.out.result("created", fields, "");
    }
    app.out.say(format_args!("A new vault was made at {}", created.place));
    if let Some(file) = &created.key_file {
        app.out.say(format_args!("Its key is in {}", shown_path(file)));
    }
    let Some(recovery) = &created.recovery else {
        app.out.say(
            "It has no recovery code yet, since there is no terminal to show one on. Fetch\n\
             one, and keep a copy of the key elsewhere: without both, nobody can open the\n\
             vault when this machine is lost.\n\n    drystone key recovery\n",
        );
        return Ok(());
    };
    app.out.say(format_args!(
        "\n    Recovery code:  {}\n\n\
         Write it down and keep it somewhere else. It opens the vault when the key is\n\
         lost, and it is shown only now. Without it and without a key, nobody can open\n\
         the vault.\n",
        recovery
    ));
    Ok(())
}

/// Chunk sizes of this average, in the proportions of the usual ones.
fn data_sizes(average_bytes: u64) -> Result<Sizes> {
    let usual = Sizes::DATA;
    let usual_average = u64::from(usual.min_bytes() + usual.max_bytes()) / 2;
    let scale = |bytes: u32| u32::try_from(u64::from(bytes).saturating_mul(average_bytes) / usual_average);
    match (scale(usual.min_bytes()), scale(usual.max_bytes())) {
        (Ok(min), Ok(max)) => Sizes::new(min, max).map_err(Failure::usage),
        _ => Err(Failure::usage("this chunk size is too large")),
    }
}
