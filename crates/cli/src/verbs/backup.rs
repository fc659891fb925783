//! `backup`: takes directories, files or standard input into the vault, which is made on first use.
//!
//! - Settings of the profile come first, flags are added to them.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgGroup, Args};
use drystone_backup::{
    BackupOptions, BackupReport, Counting, Filters, FiltersBuilder, Look, Marker, Mode, Names, OneFileSystem, OwnDirs,
    Parent, backup, backup_stream,
};
use drystone_format::codec::Compression;
use drystone_vault::Vault;
use serde_json::json;

use crate::args::word;
use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::open;
use crate::output::{counted, duration, path_object, problem_list, size, some_of};
use crate::own::own_dirs;
use crate::progress::Shown;
use crate::shown::{shown, shown_path};
use crate::verbs::init;
use input::{Producer, StandardInput};

mod input;
mod sources;

const EXAMPLES: &str = "\
If no place is named, the first backup makes the vault in ~/.local/share/drystone/vault, with a generated key \
and a recovery code that is shown once. Anywhere else, `drystone init` makes it. The vault itself and the cache \
are never backed up.
Patterns are written as in .gitignore: *.o and cache/ match names at any depth, /home/*/tmp begins at the root.

Examples:
  drystone backup ~/Documents ~/Pictures
  drystone backup / --one-file-system --exclude-caches -x '/var/tmp/*' -x '*.o'
  drystone backup --stdin-from-command --name shop.sql -- pg_dump shop
  drystone --vault /mnt/disk/vault backup ~ --tag before-upgrade";

/// File systems of the kernel that are named as left out.
const LEFT_OUT_SHOWN: usize = 4;

/// Back up directories and files.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("stream").args(["stdin", "stdin_from_command"]))]
pub(crate) struct Backup {
    /// Directories and files, by default those of the profile; a link is stored as a link, `LINK/` is what it leads to
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Back up what comes from standard input as one file
    #[arg(long, requires = "name", conflicts_with_all = ["paths", "files_from"])]
    stdin: bool,
    /// Back up what a command prints as one file, if it ends with 0; the command stands after `--`
    #[arg(long, requires = "name", conflicts_with_all = ["stdin", "files_from"])]
    stdin_from_command: bool,
    /// Name of that file
    #[arg(long, value_name = "NAME", requires = "stream")]
    name: Option<PathBuf>,
    /// Back up the paths listed in FILE (`-`: standard input), one per line or each ended by NUL
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Tags to find the snapshot by, separated by commas or with several flags
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = word)]
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
        let sources = if self.stdin || self.stdin_from_command {
            Vec::new()
        } else {
            sources::sources(&self.paths, &self.files_from, app)?
        };
        for warning in sources::lone_links(&sources) {
            app.out.warning(warning);
        }
        let filters = self.filters(app)?;
        for doubt in filters.doubts() {
            app.out.warning(doubt);
        }
        let (vault, created) = if self.dry_run {
            (open::open(app)?, None)
        } else {
            open::open_or_create(app)?
        };
        if let Some(created) = &created {
            init::report(app, created)?;
        }
        let (progress, shown) = Shown::begin(app, "backup", "file");
        let options = BackupOptions {
            sources,
            filters,
            own: own_dirs(app, &vault),
            progress,
            ..self.options(app)
        };
        let counting = (shown.is_seen() && !options.sources.is_empty()).then(|| Counting::start(&options));
        let report = self.store(&vault, &options);
        drop((counting, shown));
        self.report(app, &report?, start)
    }

    fn store(&self, vault: &Vault, options: &BackupOptions) -> Result<BackupReport> {
        match &self.name {
            Some(name) => {
                let cancel = options.cancel.clone();
                let mut input: Box<dyn Read> = if self.stdin {
                    Box::new(StandardInput::new(cancel))
                } else {
                    Box::new(Producer::start(&self.paths, cancel)?)
                };
                let stored = backup_stream(vault, name.as_os_str().as_encoded_bytes(), &mut input, options);
                if stored.is_err() {
                    // The input was told to end; that is no failure of its own.
                    options.cancel.check()?;
                }
                Ok(stored?)
            }
            None => Ok(backup(vault, options)?),
        }
    }

    /// What flags and profile say, without what is backed up.
    fn options(&self, app: &App) -> BackupOptions {
        let profile = &app.settings.profile;
        // Separated by commas, as on the command line.
        let profile_tags = profile.tag.iter().flat_map(|tags| tags.split(','));
        let profile_tags = profile_tags.filter(|tag| !tag.is_empty()).map(str::to_owned);
        let one = self.filter.one_file_system || profile.one_file_system;
        BackupOptions {
            sources: Vec::new(),
            filters: Filters::default(),
            own: OwnDirs::default(),
            one_file_system: if one { OneFileSystem::Stay } else { OneFileSystem::Cross },
            compression: self.compression.or(profile.compression).unwrap_or(Compression::DEFAULT),
            host: self
                .host
                .clone()
                .or_else(|| profile.host.clone())
                .unwrap_or_else(open::this_host),
            user: app.settings.user.clone(),
            program: concat!("drystone ", env!("CARGO_PKG_VERSION")).to_owned(),
            tags: profile_tags.chain(self.tag.iter().cloned()).collect(),
            names: Arc::new(Names::of_system()),
            parent: if self.rescan { Parent::Rescan } else { Parent::Cached },
            // Snapshots that are read are known by the cache.
            look: if self.walk || app.caches.any_temporary() {
                Look::Files
            } else {
                Look::Changes
            },
            mode: if self.dry_run { Mode::DryRun } else { Mode::Store },
            threads: app.settings.threads,
            progress: Arc::default(),
            cancel: app.cancel.clone(),
        }
    }

    fn filters(&self, app: &App) -> Result<Filters> {
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
        if let Some(note) = left_out(&report.left_out) {
            app.out.note(note);
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
            "left_out": report.left_out.iter().map(|path| path_object(path)).collect::<Vec<_>>(),
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

/// Says which file systems of the kernel were left out.
fn left_out(paths: &[Vec<u8>]) -> Option<String> {
    let names = some_of(paths, LEFT_OUT_SHOWN);
    (!paths.is_empty()).then(|| format!("left out, since the kernel makes them up: {names}"))
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
