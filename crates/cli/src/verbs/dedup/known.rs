//! `dedup show`, `reset` and `forget-fs`: what runs left for later ones.

use clap::Args;
use drystone_format::tree::Time;
use drystone_reflink::{KnownFs, State, is_there};
use serde_json::json;

use super::scope::{Place, Scope, tell_failed};
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{counted, local_time, size, utc_time};
use crate::shown::shown;

/// Show the file systems that runs know, also those that are not there now.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    place: Place,
}

/// Forget how far runs got: the next one looks at everything.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    scope: Scope,
}

/// Forget file systems.
#[derive(Debug, Args)]
pub(crate) struct ForgetFs {
    /// As `dedup show` has them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// An identity as tools write it.
fn uuid(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts = parts.map(|(from, to)| hex.get(from..to).unwrap_or_default());
    parts.join("-")
}

impl Show {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let known = match State::look(&self.place.path(app))? {
            Some(state) => state.known()?,
            None => Vec::new(),
        };
        let mut lines = app.out.lines();
        if known.is_empty() {
            app.out.note("no run is known");
        }
        for fs in known {
            if app.out.is_json() {
                lines.object("dedup_fs", fields(&fs))?;
            } else {
                lines.line(text(&fs))?;
            }
        }
        lines.finish()?;
        Ok(Exit::Done)
    }
}

fn started(seconds: u64) -> Time {
    Time {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

fn fields(fs: &KnownFs) -> serde_json::Value {
    let last = fs.last.as_ref().map(|last| {
        json!({
            "started": utc_time(started(last.started_s)), "seconds": last.elapsed_ms as f64 / 1000.0,
            "scanned_bytes": last.scanned_bytes, "freed_bytes": last.freed_bytes,
            "predicted_bytes": last.predicted_bytes, "complete": last.complete, "scope": last.scope,
        })
    });
    let done: Vec<_> = fs
        .done
        .iter()
        .map(|(scope, generation)| json!({ "scope": scope, "generation": generation }))
        .collect();
    json!({ "uuid": uuid(&fs.id), "kind": fs.kind, "name": fs.name, "present": is_there(&fs.id), "done": done, "last": last })
}

fn text(fs: &KnownFs) -> String {
    let gone = if is_there(&fs.id) { "" } else { "  (not there now)" };
    let mut text = format!("{}  {}  {}{gone}", uuid(&fs.id), fs.kind, shown(fs.name.as_bytes()));
    for (scope, generation) in &fs.done {
        // What is walked has no generations but those of the walks.
        text += &match fs.kind.as_str() {
            "btrfs" => format!("\n  up to generation {generation}: {}", shown(scope.as_bytes())),
            _ => format!("\n  done: {}", shown(scope.as_bytes())),
        };
    }
    if let Some(last) = &fs.last {
        text += &format!(
            "\n  last run {}: looked at {}, freed {}{}",
            local_time(started(last.started_s)),
            size(last.scanned_bytes),
            size(last.freed_bytes),
            if last.complete { "" } else { ", not complete" },
        );
    }
    text
}

impl Reset {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        if self.scope.targets.is_empty() && !self.scope.all_mounted {
            return Err(Failure::usage("nothing is forgotten unless it is named").next("drystone dedup show"));
        }
        let state = self.scope.place.open(app)?;
        let mut count = 0;
        let found = self.scope.find()?;
        for target in &found.targets {
            count += u64::from(state.reset(target.id)?);
        }
        let fields = json!({ "file_systems": count });
        app.out.result(
            "dedup_reset",
            fields,
            format!("reset {}", counted(count, "file system")),
        )?;
        Ok(tell_failed(app, found.failed))
    }
}

impl ForgetFs {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let state = self.place.open(app)?;
        let known = state.known()?;
        for wanted in &self.uuids {
            let found = known.iter().find(|fs| uuid(&fs.id).eq_ignore_ascii_case(wanted));
            let found = found.ok_or_else(|| {
                let why = format!("{}: no such file system is known", shown(wanted.as_bytes()));
                Failure::new(Exit::Error, why).next("drystone dedup show")
            })?;
            state.forget(found.id)?;
        }
        let count = self.uuids.len() as u64;
        let fields = json!({ "file_systems": count });
        app.out.result(
            "dedup_forget",
            fields,
            format!("forgot {}", counted(count, "file system")),
        )?;
        Ok(Exit::Done)
    }
}
