//! `dedup files`: lets named files share a source.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use drystone_reflink::{Error, Fate, join_extents, share_file};
use serde_json::json;

use super::shown::Followed;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{put_bytes, size};
use crate::shown::shown_path;

/// Let files share a source, each if it is equal to it.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// The file to share
    source: PathBuf,
    /// The files that shall share it
    #[arg(required = true, value_name = "DEST")]
    to: Vec<PathBuf>,
    /// Join the extents of the source first (Btrfs; what it shares with snapshots it shares no longer)
    #[arg(long)]
    defrag: bool,
}

impl Files {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let followed = Followed::start(app)?;
        if self.defrag {
            join_extents(&self.source)?;
        }
        let mut exit = Exit::Done;
        for to in &self.to {
            let fate = share_file(&self.source, to, &followed.progress, &followed.cancel);
            let fate = fate.map_err(|error| match error {
                Error::Interrupted => error.into(),
                error => Failure::new(Exit::Error, error),
            })?;
            let (word, text) = match &fate {
                Fate::Shared(0) => ("shared", "was shared already".to_owned()),
                Fate::Shared(bytes) => ("shared", format!("shares {} that were its own", size(*bytes))),
                Fate::Equal => ("equal", "is equal, and has nothing more to share".to_owned()),
                Fate::OtherSize(bytes) => ("differs", format!("differs: it has {bytes} bytes")),
                Fate::Differs(at) => ("differs", format!("differs, at or after byte {at}")),
                Fate::Failed(why) => ("failed", why.clone()),
            };
            if !matches!(fate, Fate::Shared(_) | Fate::Equal) {
                exit = Exit::Incomplete;
            }
            let bytes = if let Fate::Shared(bytes) = fate {
                Some(bytes)
            } else {
                None
            };
            let mut fields = json!({ "outcome": word, "text": text, "shared_bytes": bytes });
            put_bytes(&mut fields, "path", to.as_os_str().as_bytes());
            app.out
                .result("dedup_file", fields, format!("{}: {text}", shown_path(to)))?;
        }
        Ok(exit)
    }
}
