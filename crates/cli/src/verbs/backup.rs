//! `backup`: takes directories, files or standard input into the vault, which is made on first use.
//!
//! - The vault's own directory and the cache are never part of a backup.
//! - Settings of the profile come first, flags are added to them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use drystone_backup::{
    BackupOptions, BackupReport, Counting, Filters, FiltersBuilder, Look, Marker, Mode, Names, OneFileSystem, Parent,
    backup, backup_stream, parse_list,
};
use drystone_format::codec::Compression;
use drystone_vault::{Cancel, Progress, Vault};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;

use crate::args::word;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{counted, duration, problem_list, shown, shown_path, size};
use crate::progress::Shown;
use crate::verbs::init;

const EXAMPLES: &str = "\
If no place is named, the first backup makes the vault in ~/.local/share/drystone/vault, with a generated key \
and a recovery code that is shown once. Anywhere else, `drystone init` makes it. The vault itself and the cache \
are never backed up.
Patterns are written as in .gitignore: *.o and cache/ match names at any depth, /home/*/tmp begins at the root.

Examples:
  drystone backup ~/Documents ~/Pictures
  drystone backup / --one-file-system --exclude-caches -x '/var/tmp/*' -x '*.o'
  pg_dump shop | drystone backup --stdin --name shop.sql
  drystone --vault /mnt/disk/vault backup ~ --tag before-upgrade";

/// How often a wait for standard input looks whether it should stop, seconds.
const WAIT_SECONDS: f64 = 0.2;

/// Back up directories and files.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Backup {
    /// Directories and files, by default those of the profile
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Back up what comes from standard input as one file
    #[arg(long, requires = "name", conflicts_with_all = ["paths", "files_from"])]
    stdin: bool,
    /// Name of that file
    #[arg(long, value_name = "NAME", requires = "stdin")]
    name: Option<PathBuf>,
    /// Back up the paths listed in FILE (`-`: standard input), one per line or each ended by NUL
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// A tag to find the snapshot by; several with several flags
    #[arg(long, value_name = "TAG", value_parser = word)]
    tag: Vec<String>,
    /// Name of the host instead of this one's
    #[arg(long, value_name = "NAME", value_parser = word)]
    host: Option<String>,
    /// zstd:LEVEL (default zstd:3), zlib:LEVEL, bzip2:LEVEL, lz4, lzo or none
    #[arg(long, value_name = "CODEC")]
    compression: Option<Compression>,
    /// Read every file, also those that seem unchanged since the last backup
    #[arg(long)]
    rescan: bool,
    /// Look at every file, also on Btrfs, which as root is asked what changed and read through a snapshot
    #[arg(long)]
    walk: bool,
    /// Store nothing, only say what would be backed up
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// What is left out.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Leave out what matches
    #[arg(long, short = 'x', value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what matches the patterns in FILE
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Back up what matches even if an exclude leaves it out
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out what is in directories marked as caches (CACHEDIR.TAG)
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in directories that hold a file of this name (and begins with HEADER)
    #[arg(long, value_name = "NAME[:HEADER]")]
    exclude_if_present: Vec<String>,
    /// Stay on the file systems of the given paths
    #[arg(long)]
    one_file_system: bool,
}

impl Backup {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        let start = Instant::now();
        let sources = if self.stdin { Vec::new() } else { self.sources(app)? };
        let filters = self.filters(app, &sources)?;
        let (vault, created) = if self.dry_run {
            (open::open(app)?, None)
        } else {
            open::open_or_create(app)?
        };
        if let Some(created) = &created {
            init::report(app, created)?;
        }
        let (progress, shown) = Shown::begin(app, "backup", "file");
        let options = self.options(app, sources, filters, progress);
        let counted = (&options.filters, options.one_file_system);
        let counting = (shown.is_seen() && !self.stdin)
            .then(|| Counting::start(&options.sources, counted, &options.progress, &options.cancel));
        let report = self.store(&vault, &options);
        drop((counting, shown));
        self.report(app, &report?, start)
    }

    fn store(&self, vault: &Vault, options: &BackupOptions) -> Result<BackupReport> {
        match &self.name {
            Some(name) if self.stdin => {
                let mut input = Input {
                    stdin: io::stdin().lock(),
                    cancel: options.cancel.clone(),
                };
                let stored = backup_stream(vault, name.as_os_str().as_encoded_bytes(), &mut input, options);
                if stored.is_err() {
                    // The input was told to end; that is no failure of its own.
                    options.cancel.check()?;
                }
                Ok(stored?)
            }
            _ => Ok(backup(vault, options)?),
        }
    }

    fn options(&self, app: &App, sources: Vec<PathBuf>, filters: Filters, progress: Arc<Progress>) -> BackupOptions {
        let profile = &app.settings.profile;
        let one = self.filter.one_file_system || profile.one_file_system;
        BackupOptions {
            sources,
            filters,
            one_file_system: if one { OneFileSystem::Stay } else { OneFileSystem::Cross },
            compression: self.compression.or(profile.compression).unwrap_or(Compression::DEFAULT),
            host: self
                .host
                .clone()
                .or_else(|| profile.host.clone())
                .unwrap_or_else(open::this_host),
            user: app.settings.user.clone(),
            program: concat!("drystone ", env!("CARGO_PKG_VERSION")).to_owned(),
            tags: profile.tag.iter().chain(&self.tag).cloned().collect(),
            names: Arc::new(Names::of_system()),
            parent: if self.rescan { Parent::Rescan } else { Parent::Cached },
            look: if self.walk { Look::Files } else { Look::Changes },
            mode: if self.dry_run { Mode::DryRun } else { Mode::Store },
            threads: app.settings.threads,
            progress,
            cancel: app.cancel.clone(),
        }
    }

    /// What to back up, absolute; an error if nothing of it is there.
    fn sources(&self, app: &App) -> Result<Vec<PathBuf>> {
        let mut sources = self.paths.clone();
        for file in &self.files_from {
            let content = if file == Path::new("-") {
                read_stdin()
            } else {
                fs::read(file)
            };
            let content = content.map_err(|error| Failure::io("cannot read the list of files", file, &error))?;
            sources.extend(parse_list(&content));
        }
        if self.paths.is_empty() && self.files_from.is_empty() {
            sources.clone_from(&app.settings.profile.paths);
        }
        if sources.is_empty() {
            return Err(Failure::usage("nothing to back up was named")
                .next("drystone backup PATH, or set `paths` in the profile"));
        }
        let there = |path: &PathBuf| !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
        if !sources.iter().any(there) {
            let first = sources.first().map(|path| shown_path(path)).unwrap_or_default();
            return Err(Failure::new(Exit::Error, format!("{first}: no such file or directory")).next("check the path"));
        }
        sources.iter().map(|path| absolute(path)).collect()
    }

    fn filters(&self, app: &App, sources: &[PathBuf]) -> Result<Filters> {
        let (profile, flags) = (&app.settings.profile, &self.filter);
        let mut builder = FiltersBuilder::default();
        for file in profile.exclude_file.iter().chain(&flags.exclude_file) {
            let content = fs::read_to_string(file).map_err(|error| Failure {
                exit: Exit::Usage,
                ..Failure::io("cannot read the patterns", file, &error)
            })?;
            builder.exclude_lines(&shown_path(file), &content)?;
        }
        for pattern in profile.exclude.iter().chain(&flags.exclude) {
            builder.exclude(pattern)?;
        }
        for pattern in profile.include.iter().chain(&flags.include) {
            builder.include(pattern)?;
        }
        if profile.exclude_caches || flags.exclude_caches {
            builder.exclude_if_present(Marker::cache());
        }
        for marker in profile.exclude_if_present.iter().chain(&flags.exclude_if_present) {
            builder.exclude_if_present(Marker::parse(marker)?);
        }
        // Last, so that no pattern takes it back.
        for own in own_dirs(app) {
            let is_inside = sources.iter().any(|source| own.starts_with(source) && own != *source);
            if let (true, Some(path)) = (is_inside, own.to_str()) {
                builder.exclude(&literal(path))?;
            }
        }
        Ok(builder.build()?)
    }

    fn report(&self, app: &App, report: &BackupReport, start: Instant) -> Result<Exit> {
        let exit = if report.problems.is_empty() {
            Exit::Done
        } else {
            Exit::Incomplete
        };
        for distrust in &report.distrust {
            let path = shown(&distrust.path);
            app.out
                .warning(format_args!("{path}: every file was looked at: {}", distrust.why));
        }
        app.out.problems(&report.problems);
        let totals = &report.totals;
        let fields = json!({
            "snapshot": report.snapshot.map(|id| id.to_string()),
            "dry_run": self.dry_run,
            "files": totals.files,
            "dirs": totals.dirs,
            "bytes": totals.bytes,
            "new_files": report.counts.new,
            "changed_files": report.counts.changed,
            "unchanged_files": report.counts.unchanged,
            "spared_dirs": report.spared.dirs,
            "spared_files": report.spared.files,
            "unread_bytes": report.spared.unread_bytes,
            "new_bytes": totals.new_bytes,
            "stored_bytes": totals.stored_bytes,
            "problems": problem_list(&report.problems),
            "problem_count": report.problems.count(),
            "seconds": start.elapsed().as_secs_f64(),
        });
        let mut text = match report.snapshot {
            Some(id) => format!("snapshot {} saved: ", id.short()),
            None => "would be saved: ".to_owned(),
        };
        text += &format!("{}, {}; ", counted(totals.files, "file"), size(totals.bytes));
        if report.snapshot.is_some() {
            text += &format!("{} new, {} stored; ", size(totals.new_bytes), size(totals.stored_bytes));
        } else {
            let changed = report.counts.new + report.counts.changed;
            text += &format!("{} new or changed; ", counted(changed, "file"));
        }
        text += &spared(report);
        if !report.problems.is_empty() {
            text += &format!("{} (listed above); ", counted(report.problems.count(), "problem"));
        }
        text += &duration(start.elapsed());
        let tell = if self.dry_run { App::answer } else { App::end };
        tell(app, "backup", exit, fields, text)
    }
}

/// What the file system spared the run, for people.
fn spared(report: &BackupReport) -> String {
    let mut text = String::new();
    if report.spared.files > 0 {
        text += &format!(
            "{} not looked at, Btrfs says nothing changed; ",
            counted(report.spared.files, "file")
        );
    }
    if report.spared.unread_bytes > 0 {
        text += &format!("{} of changed files not read; ", size(report.spared.unread_bytes));
    }
    text
}

/// The path from the root. A final link is kept as what it is; `..` is resolved, since links make it ambiguous.
fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| Failure::io("cannot find out where this is", path, &error);
    let has_parent = path.components().any(|part| part == std::path::Component::ParentDir);
    match (has_parent, path.parent(), path.file_name()) {
        (false, _, _) => std::path::absolute(path).map_err(failed),
        (true, Some(parent), Some(name)) => Ok(fs::canonicalize(parent).map_err(failed)?.join(name)),
        (true, _, _) => fs::canonicalize(path).map_err(failed),
    }
}

/// Directories of drystone itself, with links resolved and without.
fn own_dirs(app: &App) -> Vec<PathBuf> {
    let vault = app
        .settings
        .vault
        .strip_prefix("file://")
        .unwrap_or(&app.settings.vault);
    let given = [Path::new(vault), &app.settings.cache_dir]
        .into_iter()
        .filter_map(|dir| std::path::absolute(dir).ok());
    let mut dirs: Vec<PathBuf> = given
        .flat_map(|dir| [fs::canonicalize(&dir).ok(), Some(dir)])
        .flatten()
        .collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

/// A pattern that matches this very path.
fn literal(path: &str) -> String {
    let special = |letter: &char| "\\*?[]{}! #".contains(*letter);
    path.chars()
        .flat_map(|letter| special(&letter).then_some('\\').into_iter().chain([letter]))
        .collect()
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::stdin().lock().read_to_end(&mut content)?;
    Ok(content)
}

/// Standard input that stops waiting when the run is to stop.
struct Input {
    stdin: io::StdinLock<'static>,
    cancel: Cancel,
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wait = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: (WAIT_SECONDS * 1e9) as i64,
        };
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            // Not through std's buffer of 8 KiB: what is in the pipe goes straight to where it is chunked.
            match poll(&mut [PollFd::new(&self.stdin, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    return rustix::io::retry_on_intr(|| rustix::io::read(&self.stdin, &mut *bytes))
                        .map_err(Into::into);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_directories_are_matched_literally() {
        assert_eq!(literal("/a b/[x]*"), "/a\\ b/\\[x\\]\\*");
    }

    #[test]
    fn paths_become_absolute() {
        let here = fs::canonicalize(".").unwrap();
        assert_eq!(
            absolute(Path::new("src/./verbs")).unwrap(),
            std::path::absolute("src/verbs").unwrap()
        );
        assert_eq!(absolute(Path::new("..")).unwrap(), here.parent().unwrap());
        assert_eq!(absolute(Path::new("src/../src")).unwrap(), here.join("src"));
        assert_eq!(absolute(Path::new("/")).unwrap(), Path::new("/"));
    }
}
