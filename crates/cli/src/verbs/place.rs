//! `place`: where the vault lies, and changes of that.

use clap::{Args, Subcommand};
use drystone_format::PlaceId;
use drystone_format::places::{PlaceEntry, PlaceMarks};
use drystone_vault::{NewPlace, PlaceChange, PlaceUse, Vault};
use serde_json::{Value, json};

use crate::address::{absolute, spread};
use crate::args::{size, weight};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{counted, object, size as shown_size};
use crate::shown::shown;
use crate::verbs::repair::{self, Work};

const EXAMPLES: &str = "\
Packs move to where they belong as soon as the places have changed. If that is interrupted, `drystone repair` \
continues it. Everything can be read and written meanwhile.

Examples:
  drystone place list
  drystone place add /mnt/b                      one place becomes a mirror
  drystone place add /mnt/b /mnt/c --spread 2/3  any 2 of 3 places are enough
  drystone place add s3://bucket/vault --up-limit 5MB --append-only
  drystone place replace /mnt/b /mnt/new
  drystone place remove 1a2b3c4d                 empties it, then drops it";

/// Add, list, remove and replace the places where the vault lies.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Place {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the places
    List,
    /// Add places
    Add(Add),
    /// Empty a place and drop it; one that is gone is dropped at once
    Remove(Remove),
    /// Put a new place where another was, which may be gone
    Replace(Replace),
    /// Change how a place is used, or how packs are spread
    Set(Set),
}

#[derive(Debug, Args)]
struct Add {
    /// Directories or URLs, empty or new
    #[arg(required = true, value_name = "PLACE")]
    places: Vec<String>,
    #[command(flatten)]
    used: Used,
    #[command(flatten)]
    layout: Layout,
}

#[derive(Debug, Args)]
struct Remove {
    /// Its URL, or the beginning of its id
    place: String,
    #[command(flatten)]
    layout: Layout,
}

#[derive(Debug, Args)]
struct Replace {
    /// URL of the old one, or the beginning of its id
    old: String,
    /// Directory or URL of the new one
    new: String,
    #[command(flatten)]
    used: Used,
    #[command(flatten)]
    layout: Layout,
}

#[derive(Debug, Args)]
struct Set {
    /// Its URL, or the beginning of its id
    place: Option<String>,
    #[command(flatten)]
    used: Used,
    #[command(flatten)]
    layout: Layout,
}

/// How a place is used.
#[derive(Debug, Args)]
struct Used {
    /// Share of the data it takes beside the others, where there are more places than shards [default: 1]
    #[arg(long, value_name = "N", value_parser = weight)]
    weight: Option<u32>,
    /// Nothing is ever deleted from it: its owner's own rules do that; `=false` takes the mark away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    append_only: Option<bool>,
    /// Reading from it is slow or costs: it is read last; `=false` takes the mark away
    #[arg(long = "archive", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cold: Option<bool>,
    /// Most bytes per second to it; 0 for no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    up_limit: Option<u64>,
    /// Most bytes per second from it; 0 for no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    down_limit: Option<u64>,
}

/// How packs are spread, and when they move.
#[derive(Debug, Args)]
struct Layout {
    /// Another K/N: any K of N shards are enough
    #[arg(long, value_name = "K/N", value_parser = spread)]
    spread: Option<(u8, u8)>,
    /// Fewer places than shards: losing one place may then lose more than one shard of a pack
    #[arg(long)]
    allow_doubling: bool,
    /// Do not move packs now: `drystone repair` does it
    #[arg(long)]
    later: bool,
}

impl Place {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match &self.what {
            What::List => list(app),
            What::Add(add) => add.run(app),
            What::Remove(remove) => remove.run(app),
            What::Replace(replace) => replace.run(app),
            What::Set(set) => set.run(app),
        }
    }
}

impl Used {
    /// As `before`, but for what was given.
    fn over(&self, before: PlaceUse) -> PlaceUse {
        let mark = |marks: u64, given: Option<bool>, mark: u64| match given {
            Some(true) => marks | mark,
            Some(false) => marks & !mark,
            None => marks,
        };
        let marks = mark(before.marks.0, self.append_only, PlaceMarks::APPEND_ONLY);
        let limit = |given: Option<u64>, before| given.map_or(before, |bytes| Some(bytes).filter(|bytes| *bytes > 0));
        PlaceUse {
            weight: self.weight.unwrap_or(before.weight),
            marks: PlaceMarks(mark(marks, self.cold, PlaceMarks::COLD)),
            up_bytes: limit(self.up_limit, before.up_bytes),
            down_bytes: limit(self.down_limit, before.down_bytes),
        }
    }

    fn place(&self, app: &App, text: &str) -> Result<NewPlace> {
        let url = absolute(text);
        let store = open::places::create(app, &url)?;
        Ok(NewPlace {
            store,
            url,
            used: self.over(PlaceUse::default()),
        })
    }
}

impl Add {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let add = self
            .places
            .iter()
            .map(|place| self.used.place(app, place))
            .collect::<Result<_>>()?;
        self.layout.change(app, vault, add, Vec::new())
    }
}

impl Remove {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let id = find(&vault, &self.place)?;
        self.layout.change(app, vault, Vec::new(), vec![id])
    }
}

impl Replace {
    fn run(&self, app: &App) -> Result<Exit> {
        let vault = open::open(app)?;
        let old = find(&vault, &self.old)?;
        let new = self.used.place(app, &self.new)?;
        self.layout.change(app, vault, vec![new], vec![old])
    }
}

impl Set {
    fn run(&self, app: &App) -> Result<Exit> {
        let mut vault = open::open(app)?;
        if let Some(place) = &self.place {
            let id = find(&vault, place)?;
            let used = self.used.over(vault.place_use(id).unwrap_or_default());
            vault = vault.use_place(id, used)?;
        } else if self.layout.spread.is_none() {
            return Err(Failure::usage("say which place, or give --spread").next("drystone place set --help"));
        }
        self.layout.change(app, vault, Vec::new(), Vec::new())
    }
}

/// The place that a person means by its URL, its path from here, or the beginning of its id.
fn find(vault: &Vault, text: &str) -> Result<PlaceId> {
    let by_path = vault.find_place(&absolute(text));
    Ok(by_path.or_else(|_| vault.find_place(text))?)
}

impl Layout {
    /// Changes the places, then moves the packs.
    fn change(&self, app: &App, vault: Vault, add: Vec<NewPlace>, remove: Vec<PlaceId>) -> Result<Exit> {
        self.refuse_doubling(&vault, add.len(), remove.len())?;
        let vault = vault.change_places(PlaceChange {
            add,
            remove,
            spread: self.spread,
        })?;
        app.watch(&vault);
        let (fields, text) = shown_places(&vault);
        if self.later {
            let exit = app.end("places", Exit::Done, fields, text)?;
            app.out.note("no pack was moved yet; to move them: drystone repair");
            return Ok(exit);
        }
        app.out.step("places", fields, text)?;
        repair::places(app, vault, Work::Move)
    }

    fn refuse_doubling(&self, vault: &Vault, added: usize, removed: usize) -> Result<()> {
        let now = vault.places().len();
        let places = now.max(1) + added - removed;
        let total = match self.spread {
            Some((_, total)) => total,
            None if now == 0 => return Ok(()),
            None => vault.config().spread.1,
        };
        if self.allow_doubling || places >= usize::from(total) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} for {total} shards of each pack: some would hold two, and losing one of those may lose data",
            counted(places as u64, "place")
        ))
        .next(format!("give --spread K/{places}, or --allow-doubling")))
    }
}

fn list(app: &App) -> Result<Exit> {
    let vault = open::open(app)?;
    let (fields, text) = shown_places(&vault);
    app.answer("places", Exit::Done, fields, text)
}

/// The places of a vault, for programs and for people.
fn shown_places(vault: &Vault) -> (Value, String) {
    let (config, hash) = (vault.config(), vault.in_force().map(|now| now.signed.hash.to_string()));
    if config.places.is_empty() {
        let places = json!([{ "url": vault.place(), "there": true }]);
        let fields = json!({ "spread": "1/1", "config": config.number, "config_hash": hash, "places": places });
        let text = format!("1 place, whole: {}", shown(vault.place().as_bytes()));
        return (fields, text);
    }
    let (needed, total) = config.spread;
    let absent = vault.absent_places();
    let mut text = format!(
        "{}, any {needed} of {total} shards are enough (configuration {})",
        counted(config.places.len() as u64, "place"),
        config.number
    );
    let mut places = Vec::new();
    for (entry, absent) in config.places.iter().zip(absent) {
        text += &line(entry, absent);
        places.push(fields(entry, absent));
    }
    let fields = json!({
        "spread": format!("{needed}/{total}"),
        "config": config.number,
        "config_hash": hash,
        "places": places,
    });
    (fields, text)
}

fn line(entry: &PlaceEntry, absent: Option<&str>) -> String {
    let mut words = Vec::new();
    let marks = [
        (PlaceMarks::APPEND_ONLY, "append-only"),
        (PlaceMarks::COLD, "archive"),
        (PlaceMarks::LEAVING, "leaving"),
    ];
    words.extend(
        marks
            .iter()
            .filter(|(mark, _)| entry.marks.has(*mark))
            .map(|(_, word)| (*word).to_owned()),
    );
    if entry.weight != 1 {
        words.push(format!("weight {}", entry.weight));
    }
    let limits = [("up", entry.up_bytes), ("down", entry.down_bytes)];
    words.extend(
        limits
            .iter()
            .filter_map(|(way, limit)| limit.map(|bytes| format!("{way} {}/s", shown_size(bytes)))),
    );
    if let Some(reason) = absent {
        words.push(format!("NOT THERE: {}", shown(reason.as_bytes())));
    }
    format!(
        "\n  {}  {}  {}",
        entry.id.short(),
        shown(entry.url.as_bytes()),
        words.join(", ")
    )
    .trim_end()
    .to_owned()
}

fn fields(entry: &PlaceEntry, absent: Option<&str>) -> Value {
    let fields = json!({
        "id": entry.id.to_string(),
        "url": entry.url,
        "weight": entry.weight,
        "append_only": entry.marks.has(PlaceMarks::APPEND_ONLY),
        "archive": entry.marks.has(PlaceMarks::COLD),
        "leaving": entry.marks.has(PlaceMarks::LEAVING),
        "up_bytes_per_s": entry.up_bytes,
        "down_bytes_per_s": entry.down_bytes,
        "there": absent.is_none(),
        "reason": absent,
    });
    object("place", fields)
}
