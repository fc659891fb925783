//! `vault`: the vault's configuration: what is in force, features switched on, conflicts between owners resolved.

use clap::{Args, Subcommand};
use drystone_format::config::{Config, Features, Trust};
use drystone_vault::{InForce, Signed, differences};
use serde_json::{Value, json};

use crate::context::App;
use crate::exit::{Exit, Result};
use crate::open;
use crate::output::{counted, local_time, utc_time};
use crate::shown::shown;

const EXAMPLES: &str = "\
The configuration says where the vault lies, how packs are spread, and which features a program must know to use \
the vault. Owners change it; every change replaces the configuration before it. Two owners who change it at \
once, or on both sides of a network that is cut, leave two: everything can be read and backed up, but changes \
and gc refuse until an owner chooses.

Examples:
  drystone vault show              the one in force, and others beside it
  drystone vault resolve 1a2b3c4d  this one is right; the others count no more
  drystone vault resolve --ledger 7-5e6f7a8b…
                                   go on without a ledger that is lost
                                   (`drystone doctor` names it)
  drystone vault upgrade           say which features could be switched on
  drystone vault upgrade --yes     switch them on: older programs can then no
                                   longer do what the features are for";

/// Show and change what every program must know of the vault.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Vault {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the configuration in force, and others that an owner must choose from
    Show,
    /// Publish a configuration that replaces all others, also those that cannot be read
    Resolve(Resolve),
    /// Switch on the features that this program knows and the vault does not use yet
    Upgrade(Upgrade),
}

#[derive(Debug, Args)]
struct Resolve {
    /// The beginning of the hash of the one that is right; needed only if there are several
    hash: Option<String>,
    /// Give up a ledger that no place gives back, by NUMBER-HASH: what it alone stated is lost, and gc works again
    #[arg(long, value_name = "NAME", conflicts_with = "hash")]
    ledger: Option<String>,
}

#[derive(Debug, Args)]
struct Upgrade {
    /// Do it: older programs will refuse what the features are needed for, for good
    #[arg(long)]
    yes: bool,
}

impl Vault {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match &self.what {
            What::Show => show(app),
            What::Resolve(resolve) => resolve.run(app),
            What::Upgrade(upgrade) => upgrade.run(app),
        }
    }
}

fn show(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    let Some(InForce { signed, rivals }) = vault.in_force() else {
        let fields = json!({ "vault": vault.place(), "hash": null });
        let text = format!("{}: no configuration can be read", shown(vault.place().as_bytes()));
        return app.answer("config", Exit::Damaged, fields, text);
    };
    let exit = if rivals.is_empty() {
        Exit::Done
    } else {
        Exit::Incomplete
    };
    let mut fields = fields(&signed);
    let mut text = page(&signed);
    let mut others = Vec::new();
    for rival in &rivals {
        let differ = differences(&signed.config, &rival.config);
        text += &format!(
            "\n\nBeside it  {}, of {}; it differs in {}",
            rival.label(),
            local_time(rival.config.made),
            shown(differ.join("; ").as_bytes())
        );
        let mut other = self::fields(rival);
        put(&mut other, "differences", json!(differ));
        others.push(other);
    }
    put(&mut fields, "vault", json!(vault.place()));
    put(&mut fields, "beside", json!(others));
    app.answer("config", exit, fields, text)
}

fn put(fields: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = fields {
        map.insert(key.to_owned(), value);
    }
}

fn page(signed: &Signed) -> String {
    let Signed { hash, config } = signed;
    let (needed, total) = config.spread;
    let places: Vec<String> = config
        .places
        .iter()
        .map(|entry| format!("\n           {}", shown(entry.url.as_bytes())))
        .collect();
    let places = if places.is_empty() {
        "whole at one place".to_owned()
    } else {
        let count = counted(places.len() as u64, "place");
        format!("{count}, any {needed} of {total} shards are enough{}", places.concat())
    };
    let trust = match config.trust {
        Trust::Verified => "packs of writers count once an owner has scrubbed them",
        Trust::Everyone => "packs of all writers count",
    };
    format!(
        "number     {} ({hash})\nmade       {}\nplaces     {places}\nfeatures   {}\nroots      {}\nchunks     {} to {} bytes\n\
         trust      {trust}",
        config.number,
        local_time(config.made),
        feature_words(&config.features),
        config.root_kinds.join(", "),
        config.data_sizes.min_bytes(),
        config.data_sizes.max_bytes(),
    )
}

fn feature_words(features: &Features) -> String {
    let classes = ["to read", "to write", "to collect"];
    let words: Vec<String> = classes
        .iter()
        .zip(features.classes())
        .filter(|(_, words)| !words.is_empty())
        .map(|(class, words)| format!("{} ({class})", words.join(", ")))
        .collect();
    if words.is_empty() {
        "none needed".to_owned()
    } else {
        words.join("; ")
    }
}

fn fields(signed: &Signed) -> Value {
    let Signed { hash, config } = signed;
    let Config {
        number,
        made,
        features,
        spread,
        places,
        root_kinds,
        ..
    } = config;
    let urls: Vec<&str> = places.iter().map(|entry| entry.url.as_str()).collect();
    json!({
        "number": number,
        "hash": hash.to_string(),
        "made": utc_time(*made),
        "spread": format!("{}/{}", spread.0, spread.1),
        "places": urls,
        "features": feature_fields(features),
        "root_kinds": root_kinds,
        "trust": if config.trust == Trust::Everyone { "everyone" } else { "verified" },
    })
}

fn feature_fields(features: &Features) -> Value {
    json!({ "read": features.read, "write": features.write, "collect": features.collect })
}

impl Resolve {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        if let Some(name) = &self.ledger {
            let given_up = vault.give_up_ledger(name)?;
            let fields = json!({ "vault": vault.place(), "given_up": given_up });
            let text = format!(
                "{given_up} is given up: what it alone stated is lost; `drystone snapshots` shows what there is"
            );
            return app.end("ledger_given_up", Exit::Done, fields, text);
        }
        let hash = vault.resolve_config(self.hash.as_deref())?;
        let fields = json!({ "vault": vault.place(), "hash": hash.to_string() });
        let text = format!(
            "configuration {hash} replaces all others; if places changed with it, packs move with `drystone repair`"
        );
        app.end("config_resolved", Exit::Done, fields, text)
    }
}

impl Upgrade {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let add = vault.upgrades();
        let fields = |switched: bool| json!({ "vault": vault.place(), "features": feature_fields(&add), "switched_on": switched });
        if add.is_empty() {
            let text = "nothing to switch on: the vault uses every feature that this program knows";
            return app.answer("upgrade", Exit::Done, fields(false), text.to_owned());
        }
        let words = feature_words(&add);
        if !self.yes {
            let text = format!(
                "would switch on: {words}\nPrograms that do not know them could no longer do what is named in brackets, for \
                 good. Nothing was changed; to do it: drystone vault upgrade --yes"
            );
            return app.answer("upgrade", Exit::Done, fields(false), text);
        }
        let (done, text) = (fields(true), format!("switched on: {words}"));
        vault.upgrade(&add)?;
        app.end("upgrade", Exit::Done, done, text)
    }
}
