//! From what a user names to places: one or several URLs, opened or made.
//!
//! - Commas separate places, unless a directory has that very name.
//! - Local paths are made absolute, for the configuration is read from anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_store::{OpenOptions, Store};
use drystone_vault::{Connect, Reach, Vault};
use tokio::runtime::Handle;

use crate::config::{Settings, credential, secret_variables};
use crate::context::App;
use crate::exit::{Failure, Result};

/// Who named the place of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nobody: it is the built-in one, the only one at which a vault is made without being asked for.
    Nowhere,
    /// A flag.
    ByFlag,
    /// The environment.
    ByVariable,
    /// A profile.
    ByProfile,
}

impl Named {
    /// Where it stands, as somebody looks for it who wants to change it.
    pub(crate) fn origin(self) -> &'static str {
        match self {
            Self::Nowhere => "the built-in place",
            Self::ByFlag => "--vault",
            Self::ByVariable => "DRYSTONE_VAULT",
            Self::ByProfile => "the profile in the configuration file",
        }
    }
}

/// The places that `text` names.
pub(crate) fn named(text: &str) -> Vec<String> {
    if Path::new(text).exists() {
        return vec![absolute(text)];
    }
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut places: Vec<String> = parts.map(absolute).collect();
    if places.is_empty() {
        places.push(text.to_owned());
    }
    places
}

/// The same places, with relative paths taken from `base`.
pub(crate) fn anchored(text: &str, base: &Path) -> String {
    let anchor = |place: &str| match base.join(place).to_str() {
        Some(path) if !place.contains("://") => path.to_owned(),
        _ => place.to_owned(),
    };
    if base.join(text).exists() {
        return anchor(text);
    }
    let parts: Vec<String> = text.split(',').map(|part| anchor(part.trim())).collect();
    parts.join(",")
}

/// A path as it is from anywhere, without `/` at its end; URLs and what is no path are left alone.
pub(crate) fn absolute(place: &str) -> String {
    if place.is_empty() || place.contains("://") {
        return place.to_owned();
    }
    let path = std::path::absolute(place)
        .ok()
        .map(|path| path.components().collect::<PathBuf>());
    let text = path.and_then(|path| path.into_os_string().into_string().ok());
    text.unwrap_or_else(|| place.to_owned())
}

/// `K/N`, as in 2/3.
pub(crate) fn spread(text: &str) -> Result<(u8, u8), String> {
    let wrong = || format!("`{text}` is no spread; write K/N, for example 2/3: any 2 of 3 are enough");
    let (needed, total) = text.split_once('/').ok_or_else(wrong)?;
    let (needed, total): (u8, u8) = (
        needed.parse().map_err(|_| wrong())?,
        total.parse().map_err(|_| wrong())?,
    );
    if needed == 0 || needed > total {
        return Err(wrong());
    }
    Ok((needed, total))
}

/// Opens places by URL, with the credentials that the environment has.
struct Connector {
    runtime: Handle,
    options: OpenOptions<'static>,
}

impl Connector {
    fn new(app: &App) -> Self {
        let mut seed = [0; 8];
        app.context.entropy.fill(&mut seed);
        Self {
            runtime: app.context.runtime.clone(),
            options: OpenOptions {
                stop: app.stop.clone(),
                hidden: secret_variables().into(),
                ..OpenOptions::new(&credential, u64::from_le_bytes(seed))
            },
        }
    }
}

impl Connect for Connector {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        self.runtime.block_on(drystone_store::open(url, &self.options))
    }
}

/// The places of the vault that these settings name.
pub(crate) fn reach(app: &App, settings: &Settings) -> drystone_store::Result<Reach> {
    Reach::open(&named(&settings.vault), Arc::new(Connector::new(app)))
}

/// Makes a place, or opens one that is empty.
pub(crate) fn create(app: &App, url: &str) -> Result<Arc<dyn Store>> {
    let Connector { runtime, options } = Connector::new(app);
    Ok(runtime.block_on(drystone_store::create(url, &options))?)
}

/// Directories that are about to be made; those in which nothing came to lie go again, so that a refusal leaves nothing.
pub(crate) struct Fresh(Vec<PathBuf>);

impl Fresh {
    /// Those of these places that are directories which are not there yet.
    pub(crate) fn of(urls: &[String]) -> Self {
        let paths = urls.iter().map(PathBuf::from);
        Self(paths.filter(|path| path.is_absolute() && !path.exists()).collect())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for path in &self.0 {
            // Fails where the vault lies.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// The place at which the vault is looked at first; none if no place holds one.
pub(crate) fn first<'a>(reach: &'a Reach, app: &App) -> Result<Option<&'a Arc<dyn Store>>> {
    let mut failed = None;
    for store in reach.stores() {
        match Vault::exists(store, &app.context) {
            Ok(true) => return Ok(Some(store)),
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), |error| Err(Failure::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_places_are_separated_by_commas() {
        let here = std::path::absolute("a").unwrap();
        assert_eq!(named("a, s3://b/c,"), [here.to_str().unwrap(), "s3://b/c"]);
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("x,y");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(named(odd.to_str().unwrap()), [odd.to_str().unwrap()]);
        assert_eq!(named(","), [","]);
        assert_eq!(absolute("a/"), here.to_str().unwrap());
    }

    #[test]
    fn spreads_are_read() {
        assert_eq!(spread("2/3"), Ok((2, 3)));
        assert_eq!(spread("1/1"), Ok((1, 1)));
        for text in ["", "2", "0/3", "3/2", "2/256", "2/3/4", "-1/2", "a/b"] {
            assert!(spread(text).is_err(), "{text}");
        }
    }
}
