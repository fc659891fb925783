//! Reaching a vault: from the places that were named to all places that it lies at.
//!
//! - Any one place leads to the others: the configuration in force (config.rs) among those that any of them holds counts.
//! - A place counts only if the object `place` there says which it is: an empty mount point or another disk is absent.
//! - Until a configuration says what is spread how, spare copies are looked at only where something is missing or damaged.
//! - A place that cannot be reached is no error here; what the spread can do without, the vault can.

use std::sync::Arc;
use std::thread::Builder;

use drystone_format::PlaceId;
use drystone_format::config::Config;
use drystone_format::header::Header;
use drystone_format::keys::Secrets;
use drystone_format::places::{PlaceEntry, PlaceMark};
use drystone_store::{Name, Prefix, Range, Spares, Store};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::places::config::{Found, InForce};
use crate::places::features::{Class, check};
use crate::places::pin::VaultPin;
use crate::places::place::Place;
use crate::places::site::Site;

/// Opens places by the URLs that the configuration gives.
pub trait Connect: Send + Sync {
    /// Opens a place that exists; whether it is the right one is looked at afterwards.
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>>;
}

/// Where to look for a vault: one or several of its places, and how to get to the others.
pub struct Reach {
    pub(crate) named: Vec<Arc<dyn Store>>,
    /// Places that were named and cannot be opened, and why.
    pub(crate) absent: Vec<(String, drystone_store::Error)>,
    pub(crate) connect: Option<Arc<dyn Connect>>,
}

impl From<Arc<dyn Store>> for Reach {
    fn from(store: Arc<dyn Store>) -> Self {
        Self {
            named: vec![store],
            absent: Vec::new(),
            connect: None,
        }
    }
}

impl<S: Store + 'static> From<Arc<S>> for Reach {
    fn from(store: Arc<S>) -> Self {
        Self::from(store as Arc<dyn Store>)
    }
}

impl Reach {
    /// The places that were named and could be opened.
    pub fn stores(&self) -> &[Arc<dyn Store>] {
        &self.named
    }

    /// Opens what is named by `urls`; the places that they lead to are opened with `connect` too.
    ///
    /// The first place's error if none of them can be opened.
    pub fn open(urls: &[String], connect: Arc<dyn Connect>) -> drystone_store::Result<Self> {
        let (mut named, mut absent) = (Vec::new(), Vec::new());
        let opened = in_parallel(urls, |url| connect.connect(url));
        for (url, opened) in urls.iter().zip(opened) {
            match opened {
                Ok(store) => named.push(store),
                Err(error) => absent.push((url.clone(), error)),
            }
        }
        if named.is_empty() && !absent.is_empty() {
            return Err(absent.swap_remove(0).1);
        }
        Ok(Self {
            named,
            absent,
            connect: Some(connect),
        })
    }
}

/// The spare copies at a store: one after the other, as if they were places, as far as there are any.
pub(crate) fn spares(store: &Arc<dyn Store>, runtime: &tokio::runtime::Handle) -> Result<Vec<Arc<dyn Store>>> {
    let mut found: Vec<Arc<dyn Store>> = Vec::new();
    for number in 1..=u8::MAX {
        let spares: Arc<dyn Store> = Arc::new(Spares::new(store.clone(), number));
        if !Place::new(spares.clone(), runtime.clone()).has_any(&Prefix::All)? {
            break;
        }
        found.push(spares);
    }
    Ok(found)
}

/// A vault that was reached: what places say about its configuration, and its places.
pub(crate) struct Reached {
    pub(crate) found: Found,
    /// `None` if no configuration can be read at the one place where the vault lies.
    pub(crate) in_force: Option<InForce>,
    /// None if the vault lies whole at one place.
    pub(crate) sites: Vec<Site>,
    /// The places as one.
    pub(crate) place: Option<Place>,
    /// What of the named places was of no use.
    pub(crate) notes: Vec<String>,
}

impl Reached {
    /// A vault that lies whole at one place, or whose places are known.
    pub(crate) fn of(found: Found, sites: Vec<Site>) -> Self {
        Self {
            in_force: found.in_force(),
            found,
            sites,
            place: None,
            notes: Vec::new(),
        }
    }
}

/// Goes from the places that were named to the configuration in force, and to all places that it names.
pub(crate) fn reach_all(reach: &Reach, context: &Context, secrets: &Arc<Secrets>) -> Result<Reached> {
    let mut found = found_named(reach, context, secrets)?;
    // A place that was away may lead to others that know better; each turn finds another configuration or is the last.
    loop {
        let Some(now) = found.in_force() else {
            refuse_parts(reach, context, secrets)?;
            return Ok(Reached::of(found, Vec::new()));
        };
        let (config, named) = (&now.signed.config, names(reach));
        check(config, Class::Read, &named)?;
        if config.places.is_empty() {
            if reach.named.len() + reach.absent.len() > 1 {
                return Err(Error::OnePlace { places: named });
            }
            return Ok(Reached::of(found, Vec::new()));
        }
        let (sites, notes) = sites(config, reach, &context.runtime, secrets);
        let place = Place::spread(config, &sites, context, secrets)?;
        found.read(&place, secrets).map_err(|error| too_few(error, &sites))?;
        if !found.is_certain() {
            // A spread tells apart only sound and unsound; what lies there says whether it is damaged or made up.
            for store in sites.iter().filter_map(|site| site.store.as_ref().ok()) {
                let _ = found.read(&Place::new(store.clone(), context.runtime.clone()), secrets);
            }
        }
        if found.in_force().is_some_and(|then| then.signed.hash == now.signed.hash) {
            return Ok(Reached {
                place: Some(place),
                notes,
                ..Reached::of(found, sites)
            });
        }
    }
}

/// The configurations that any of the named places holds, or its spare copies if something is missing or altered. A place
/// that fails is passed over as long as another answers.
fn found_named(reach: &Reach, context: &Context, secrets: &Secrets) -> Result<Found> {
    let (mut found, mut failed, mut answered) = (Found::default(), None, false);
    let mut look = |store: &Arc<dyn Store>, found: &mut Found| {
        match found.read(&Place::new(store.clone(), context.runtime.clone()), secrets) {
            Ok(()) => answered = true,
            Err(error @ Error::Damaged { .. }) => return Err(error),
            Err(error) => failed = failed.take().or(Some(error)),
        }
        Ok(())
    };
    for store in &reach.named {
        look(store, &mut found)?;
    }
    if !found.is_certain() {
        for store in &reach.named {
            for spares in spares(store, &context.runtime).unwrap_or_default() {
                look(&spares, &mut found)?;
            }
        }
    }
    match failed {
        Some(error) if !answered || found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// An error if what was named cannot be a vault that lies whole at one place, though no configuration was found.
fn refuse_parts(reach: &Reach, context: &Context, secrets: &Secrets) -> Result<()> {
    let is_part = |store: &Arc<dyn Store>| {
        let place = Place::new(store.clone(), context.runtime.clone());
        mark_at(store, &context.runtime, secrets).is_ok() || place.has_any(&Prefix::Shards).unwrap_or(true)
    };
    if reach.named.len() + reach.absent.len() == 1 && !reach.named.iter().any(is_part) {
        return Ok(());
    }
    Err(Error::NotSpread { places: names(reach) })
}

/// What was named, for messages.
fn names(reach: &Reach) -> String {
    let named = reach.named.iter().map(|store| store.place());
    let names: Vec<&str> = named.chain(reach.absent.iter().map(|(url, _)| url.as_str())).collect();
    names.join(", ")
}

/// Which place of the vault a store is; a spare mark tells, if the original is missing or damaged.
pub(crate) fn mark_of(store: &Arc<dyn Store>, runtime: &tokio::runtime::Handle, secrets: &Secrets) -> Result<PlaceId> {
    match mark_at(store, runtime, secrets) {
        Err(error) if error.is_damage() => {
            let spares = spares(store, runtime).unwrap_or_default();
            let mut marks = spares.iter().filter_map(|spare| mark_at(spare, runtime, secrets).ok());
            marks.next().ok_or(error)
        }
        outcome => outcome,
    }
}

/// Which place of the vault the mark at a store, or among its spare copies, says that it is.
pub(crate) fn mark_at(store: &Arc<dyn Store>, runtime: &tokio::runtime::Handle, secrets: &Secrets) -> Result<PlaceId> {
    let place = Place::new(store.clone(), runtime.clone());
    let name = Name::place();
    let object = place.get(&name, Range::All)?;
    let mark = PlaceMark::decode(&object, &secrets.vault_verify).map_err(place.damaged(&name))?;
    Ok(mark.place)
}

/// The places of `config`: those among `named`, and the others by their URLs.
pub(crate) fn sites(
    config: &Config,
    reach: &Reach,
    runtime: &tokio::runtime::Handle,
    secrets: &Secrets,
) -> (Vec<Site>, Vec<String>) {
    let marks = in_parallel(&reach.named, |store| mark_of(store, runtime, secrets));
    let is_listed = |url: &str| config.places.iter().any(|entry| entry.url == url);
    let mistaken = reach.absent.iter().filter(|(url, _)| !is_listed(url));
    let text = |(url, _): &(String, _)| format!("{url}: is not there, and is no place of this vault");
    let mut notes: Vec<String> = mistaken.map(text).collect();
    for (store, mark) in reach.named.iter().zip(&marks) {
        let what = match mark {
            Ok(id) if config.places.iter().any(|entry| entry.id == *id) => continue,
            Ok(_) => "is no longer a place of this vault".to_owned(),
            Err(error) if is_rotten(error) && is_listed(store.place()) => "its mark is damaged".to_owned(),
            Err(error) => format!("is not used: {}", why_not(error)),
        };
        notes.push(format!("{}: {what}; see `drystone place list`", store.place()));
    }
    // A place may show the mark of another. What lies where the configuration expects the place comes first, then what
    // has moved to where it expects none; a store where it expects another place comes last.
    let found = |entry: &PlaceEntry, elsewhere: bool| {
        let shown = reach.named.iter().zip(&marks);
        let shown = shown.filter(|(_, mark)| mark.as_ref().is_ok_and(|id| *id == entry.id));
        let is_at = |store: &Arc<dyn Store>| store.place() == entry.url;
        let may_be = |store: &Arc<dyn Store>| elsewhere || is_at(store) || !is_listed(store.place());
        let mut stores: Vec<_> = shown.map(|(store, _)| store).filter(|store| may_be(store)).collect();
        stores.sort_by_key(|store| !is_at(store));
        stores.first().map(|store| Arc::clone(store))
    };
    let sites = in_parallel(&config.places, |entry| {
        let tried = reach.absent.iter().find(|(url, _)| *url == entry.url);
        let store = match (found(entry, false), tried, &reach.connect) {
            (Some(store), ..) => Ok(store),
            (None, Some((_, error)), _) => Err(why_absent(error)),
            (None, None, Some(connect)) => by_url(entry, connect.as_ref(), runtime, secrets),
            (None, None, None) => Err("it was not named".to_owned()),
        };
        Site::new(entry.clone(), store.or_else(|why| found(entry, true).ok_or(why)))
    });
    (sites, notes)
}

fn by_url(
    entry: &PlaceEntry,
    connect: &dyn Connect,
    runtime: &tokio::runtime::Handle,
    secrets: &Secrets,
) -> Result<Arc<dyn Store>, String> {
    let store = connect.connect(&entry.url).map_err(|error| why_absent(&error))?;
    match mark_of(&store, runtime, secrets) {
        Ok(id) if id == entry.id => Ok(store),
        Ok(_) => Err("another place of this vault is there".to_owned()),
        // Where the configuration expects it and with this vault's header: only the mark has rotted, and repair writes it anew.
        Err(error) if is_rotten(&error) && has_header(&store, runtime, secrets) => Ok(store),
        Err(error) => Err(why_not(&error)),
    }
}

/// Whether a mark is there, and is not what was written.
pub(crate) fn is_rotten(error: &Error) -> bool {
    error.is_damage() && !matches!(error, Error::Store(error) if error.is_not_found())
}

fn has_header(store: &Arc<dyn Store>, runtime: &tokio::runtime::Handle, secrets: &Secrets) -> bool {
    let place = Place::new(store.clone(), runtime.clone());
    let header = place.get(&Name::header(), Range::All).ok();
    let header = header.and_then(|object| Header::decode(&object).ok());
    header.is_some_and(|header| VaultPin::of_header(&header) == VaultPin::of(secrets))
}

/// Why a place cannot be opened; who reads it knows which place is meant.
fn why_absent(error: &drystone_store::Error) -> String {
    use drystone_store::Error as E;
    match error {
        E::NoPlace { place, .. } if !place.contains("://") => "there is no such directory (is it mounted?)".to_owned(),
        E::NoPlace { advice, .. } => (*advice).to_owned(),
        E::Unavailable { reason, .. } | E::Silent { reason, .. } => reason.clone(),
        E::Denied { advice, .. } => format!("permission denied; {advice}"),
        error => error.to_string(),
    }
}

/// Why a store cannot be a place of the vault.
fn why_not(error: &Error) -> String {
    match error {
        Error::Store(error) if error.is_not_found() => {
            "nothing there says that it is a place of this vault (is it mounted?)".to_owned()
        }
        Error::Damaged { .. } | Error::Format(_) => "it belongs to another vault, or its mark is damaged".to_owned(),
        Error::Store(error) => why_absent(error),
        other => other.to_string(),
    }
}

/// The same error, or one that names the places that are missing, if that is why there are too few.
pub(crate) fn too_few(error: Error, sites: &[Site]) -> Error {
    let Error::Store(drystone_store::Error::TooFew { needed, .. }) = error else {
        return error;
    };
    let absent = |site: &Site| {
        let reason = site.store.as_ref().err()?;
        Some(format!("{} ({reason})", site.entry.url))
    };
    let missing: Vec<String> = sites.iter().filter_map(absent).collect();
    if missing.is_empty() {
        return error;
    }
    Error::TooFewPlaces {
        there: sites.len() - missing.len(),
        total: sites.len(),
        needed,
        missing: missing.join(", "),
    }
}

/// `work` on each item, all at once: a place that does not answer delays only itself.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let start = |item| Builder::new().spawn_scoped(scope, move || work(item));
        let threads: Vec<_> = items.iter().map(|item| (item, start(item))).collect();
        let join = |(item, thread): (_, std::io::Result<std::thread::ScopedJoinHandle<'_, R>>)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // There may be no more threads than there are.
            Err(_) => work(item),
        };
        threads.into_iter().map(join).collect()
    })
}
