//! `dedup find-new`, `generation` and `size-lookup`: questions to the file system alone.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use drystone_extents::Error::Gone;
use drystone_extents::{Btrfs, Flow, Kind};
use drystone_reflink::{Target, files_of_size, find_targets};
use serde_json::json;

use super::scope::{is_root, tell_failed};
use crate::args;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Lines, path_object, put_bytes};
use crate::shown::shown;

/// List what changed in a subvolume since a generation.
#[derive(Debug, Args)]
pub(crate) struct FindNew {
    /// A path in the subvolume
    volume: String,
    /// The first generation that counts
    #[arg(default_value = "0")]
    generation: u64,
    /// Print paths alone, each with a zero byte after it
    #[arg(long = "null", short = '0')]
    zero: bool,
}

/// Print the generation of a subvolume.
#[derive(Debug, Args)]
pub(crate) struct Generation {
    /// A path in the subvolume
    volume: String,
    /// Write out pending data first
    #[arg(long)]
    flush: bool,
}

/// List files of exactly this size.
#[derive(Debug, Args)]
pub(crate) struct SizeLookup {
    /// The size
    #[arg(value_parser = args::size)]
    size: u64,
    /// Where to look, as for `dedup`; by default everywhere
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Print each path with a zero byte after it
    #[arg(long = "null", short = '0')]
    zero: bool,
}

/// The one target that a name is, on Btrfs.
fn volume(name: &str) -> Result<(Target, Btrfs, u64)> {
    let target = find_targets(&[name.to_owned()], is_root())?
        .all()?
        .pop()
        .filter(|target| target.kind == Kind::Btrfs);
    let target = target.ok_or_else(|| {
        Failure::new(
            Exit::Error,
            format!("{name}: only Btrfs has subvolumes and generations"),
        )
    })?;
    let (fs, subvolume) = (target.btrfs()?, target.subvolume()?);
    Ok((target, fs, subvolume))
}

fn print(app: &App, lines: &mut Lines, path: &[u8], zero: bool) -> Result<()> {
    match zero {
        true => lines
            .write_all(path)
            .and_then(|()| lines.write_all(b"\0"))
            .map_err(|error| Failure::output(&error)),
        false if app.out.is_json() => lines.object("dedup_path", path_object(path)),
        false => lines.line(shown(path)),
    }
}

impl FindNew {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let (_, fs, subvolume) = volume(&self.volume)?;
        let mut lines = app.out.lines();
        let mut failed = None;
        fs.changes(subvolume, self.generation, |change| {
            if app.cancel.is_cancelled() {
                return Flow::Break(());
            }
            let path = match fs.directory_path(subvolume, change.inode) {
                Ok(path) => path,
                // What was removed meanwhile has no path, and is not new any more.
                Err(Gone { .. }) => return Flow::Continue(()),
                Err(error) => {
                    failed = Some(error.into());
                    return Flow::Break(());
                }
            };
            let path = match path.strip_suffix(b"/").unwrap_or(&path) {
                // The top directory of the subvolume.
                b"" => b".",
                path => path,
            };
            let written: u64 = change.written.iter().map(|(_, len)| len).sum();
            let done = if self.zero {
                print(app, &mut lines, path, true)
            } else if app.out.is_json() {
                let mut fields = json!({
                    "inode": change.inode, "generation": change.about.changed, "size": change.about.size, "written_bytes": written,
                    "written": change.written,
                });
                put_bytes(&mut fields, "path", path);
                lines.object("dedup_new", fields)
            } else {
                let generation = change.about.changed;
                lines.line(format_args!("{generation:>10} {written:>14} {}", shown(path)))
            };
            match done {
                Ok(()) => Flow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    Flow::Break(())
                }
            }
        })?;
        lines.finish()?;
        match failed {
            Some(failure) => Err(failure),
            None if app.cancel.is_cancelled() => Ok(Exit::Interrupted),
            None => Ok(Exit::Done),
        }
    }
}

impl Generation {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let (target, fs, subvolume) = volume(&self.volume)?;
        if self.flush {
            fs.commit()?;
        }
        let about = target.about_subvolume()?;
        let fields = json!({ "subvolume": subvolume, "generation": about.generation, "read_only": about.read_only });
        app.out.result("dedup_generation", fields, about.generation)?;
        Ok(Exit::Done)
    }
}

impl SizeLookup {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let mut lines = app.out.lines();
        let found = find_targets(&self.targets, is_root())?;
        for target in &found.targets {
            for path in files_of_size(target, self.size)? {
                let path = target.reachable(&path);
                print(app, &mut lines, path.as_os_str().as_bytes(), self.zero)?;
            }
        }
        lines.finish()?;
        Ok(tell_failed(app, found.failed))
    }
}
