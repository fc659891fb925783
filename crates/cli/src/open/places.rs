//! From what a user names to places, opened or made with the credentials that the environment has.

use std::path::PathBuf;
use std::sync::Arc;

use drystone_store::{OpenOptions, Store};
use drystone_vault::{Connect, Reach, Vault};
use tokio::runtime::Handle;

use crate::address::named;
use crate::config::{Settings, credential, secret_variables};
use crate::context::App;
use crate::exit::{Failure, Result};

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
