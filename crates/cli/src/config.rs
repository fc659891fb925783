//! Where settings come from: flags, then environment, then a profile of the configuration file, then defaults.
//!
//! - The only place that reads the environment and knows defaults and the names in the configuration file.
//! - A key in the file that is not known is an error that names file and line.
//! - A vault given as URL uses only the profile that has this very URL, so no key of another vault is tried on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use drystone_format::codec::Compression;
use drystone_vault::{Accept, Known};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::args::{Global, ProgressForm};
use crate::exit::{Failure, Result};
use crate::shown::shown_path;

/// Name of the program in its own directories.
const OWN: &str = "drystone";
/// The profile used if none is named.
const DEFAULT_PROFILE: &str = "default";
/// Memory for caches and the index, bytes; packs and frames in flight come on top, and all stay below 256 MiB.
const MEMORY_BYTES: usize = 64 << 20;
/// Time between progress lines where there is no terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// A credential of a place, by its usual name.
pub(crate) fn credential(name: &str) -> Option<String> {
    process_environment(name)?.into_string().ok()
}

/// Begins the names of variables that hold credentials of places, as docs/places.md and the usual tools of these name them.
const CREDENTIALS: [&str; 11] = [
    "AWS_",
    "AZBLOB_",
    "AZURE_",
    "B2_",
    "DRYSTONE_",
    "GCS_",
    "GOOGLE_",
    "OS_",
    "RCLONE_",
    "ST_",
    "SWIFT_",
];
/// Are parts of the names of other variables that hold secrets.
const SECRET_PARTS: [&str; 6] = ["PASSPHRASE", "PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "API_KEY"];

/// Variables that hold secrets: no program that reaches a place gets them.
pub(crate) fn secret_variables() -> Vec<OsString> {
    let is_secret = |name: &OsString| {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let is_credential = CREDENTIALS.iter().any(|start| upper.starts_with(start));
        is_credential || SECRET_PARTS.iter().any(|part| upper.contains(part))
    };
    let all = std::env::vars_os().map(|(name, _)| name);
    all.filter(is_secret).collect()
}

/// Variables of drystone's own: a command that gives a passphrase has no use for them, but may need those of others.
pub(crate) fn own_variables() -> Vec<OsString> {
    let all = std::env::vars_os().map(|(name, _)| name);
    all.filter(|name| name.to_string_lossy().starts_with("DRYSTONE_"))
        .collect()
}

/// The command line, with the name of the program first.
pub(crate) fn command_line() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The process's environment, or a test's.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's environment.
pub(crate) fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Everything a command needs to know that is not about this very run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Place of the vault: URL or path.
    pub(crate) vault: String,
    /// What opens it, if anything was given.
    pub(crate) key: Option<KeySource>,
    /// Who named that place.
    pub(crate) named: Named,
    /// Where generated keys are kept.
    pub(crate) keys_dir: PathBuf,
    /// Where it is remembered which vault lies where.
    pub(crate) known_dir: PathBuf,
    /// What is accepted though it is remembered otherwise.
    pub(crate) accept: Accept,
    /// Where rebuildable state is kept.
    pub(crate) cache_dir: PathBuf,
    /// Threads for work that needs a processor.
    pub(crate) threads: usize,
    /// Memory for caches and the index, bytes.
    pub(crate) memory_bytes: usize,
    /// How progress is shown.
    pub(crate) progress: ProgressForm,
    /// Time between progress lines.
    pub(crate) progress_interval: Duration,
    /// Name of the user, for snapshots.
    pub(crate) user: String,
    /// What the profile says of backups.
    pub(crate) profile: Profile,
    /// What all this was made from.
    flags: Global,
}

/// What names and opens a second vault, as flags give it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    /// As `--vault`.
    pub(crate) vault: Option<String>,
    /// As `--key-file`.
    pub(crate) key_file: Option<PathBuf>,
    /// As `--passphrase-file`.
    pub(crate) passphrase_file: Option<PathBuf>,
}

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

/// Something that may open the vault.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// A key file or ssh key, and the passphrase that the ssh key itself may have.
    File(PathBuf, Option<Passphrase>),
    /// A passphrase or recovery code.
    Passphrase(Passphrase),
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passphrase {
    /// The environment.
    Text(Zeroizing<String>),
    /// A file.
    File(PathBuf),
    /// A shell command.
    Command(String),
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

/// One `[profile.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Profile {
    vault: Option<String>,
    passphrase_file: Option<PathBuf>,
    passphrase_command: Option<String>,
    key_file: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    #[serde(deserialize_with = "at_least_one")]
    threads: Option<usize>,
    /// MiB for caches and the index.
    #[serde(deserialize_with = "at_least_one")]
    memory: Option<usize>,
    /// What `backup` backs up if it is given no path.
    pub(crate) paths: Vec<PathBuf>,
    /// As `backup --exclude`.
    pub(crate) exclude: Vec<String>,
    /// As `backup --exclude-file`.
    pub(crate) exclude_file: Vec<PathBuf>,
    /// As `backup --include`.
    pub(crate) include: Vec<String>,
    /// As `backup --exclude-caches`.
    pub(crate) exclude_caches: bool,
    /// As `backup --exclude-if-present`.
    pub(crate) exclude_if_present: Vec<String>,
    /// As `backup --one-file-system`.
    pub(crate) one_file_system: bool,
    /// As `backup --tag`.
    pub(crate) tag: Vec<String>,
    /// As `backup --host`.
    pub(crate) host: Option<String>,
    /// As `backup --compression`.
    #[serde(deserialize_with = "from_text")]
    pub(crate) compression: Option<Compression>,
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(from: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    match usize::deserialize(from)? {
        0 => Err(serde::de::Error::custom("must be at least 1")),
        value => Ok(Some(value)),
    }
}

impl Settings {
    /// Settings from flags, environment, configuration file and defaults, in this order.
    pub(crate) fn load(flags: &Global, env: Environment<'_>) -> Result<Self> {
        let dirs = Dirs { env };
        let text = |name: &str| read_text(env, name);
        let mut profiles = read_profiles(flags, &dirs)?;
        let (named, by) = match flags.vault.clone() {
            Some(vault) => (Some(vault), Named::ByFlag),
            None => (text("DRYSTONE_VAULT")?, Named::ByVariable),
        };
        let (url, profile) = match named {
            Some(name) => match profiles.remove(&name) {
                Some(profile) => (None, profile),
                None => {
                    refuse_words(
                        &name,
                        &profiles,
                        &dirs.under("XDG_CONFIG_HOME", ".config")?.join("known"),
                    )?;
                    (Some(name.clone()), take_by_url(&mut profiles, &name))
                }
            },
            None => (None, profiles.remove(DEFAULT_PROFILE).unwrap_or_default()),
        };
        let (vault, named) = match (url, profile.vault.clone()) {
            (Some(url), _) => (url, by),
            (None, Some(url)) => (url, Named::ByProfile),
            (None, None) => (dirs.default_vault()?, Named::Nowhere),
        };
        let cache_dir = flags
            .cache_dir
            .clone()
            .or_else(|| path(env, "DRYSTONE_CACHE_DIR"))
            .or(profile.cache_dir.clone());
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            vault,
            key: key_source(flags, env, &profile)?,
            named,
            keys_dir: dirs.under("XDG_CONFIG_HOME", ".config")?.join("keys"),
            known_dir: dirs.under("XDG_CONFIG_HOME", ".config")?.join("known"),
            accept: Accept {
                new_vault: flags.accept_new_vault,
                older: flags.accept_older,
            },
            cache_dir: match cache_dir {
                Some(dir) => dir,
                None => dirs.under("XDG_CACHE_HOME", ".cache")?,
            },
            threads: flags
                .threads
                .map(usize::from)
                .or(profile.threads)
                .unwrap_or_else(processors),
            memory_bytes: profile.memory.map_or(MEMORY_BYTES, |mib| mib.saturating_mul(1 << 20)),
            progress: flags.progress.unwrap_or(ProgressForm::Auto),
            progress_interval: flags.progress_interval.unwrap_or(PROGRESS_INTERVAL),
            user: text("USER")?
                .or(text("LOGNAME")?)
                .unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string()),
            profile,
            flags: flags.clone(),
        })
    }

    /// Settings for a second vault. Nothing that opens the first is tried on it: its keys come from flags, the
    /// environment's `DRYSTONE_TO_…`, its own profile, or are kept.
    pub(crate) fn of_target(&self, target: Target, env: Environment<'_>) -> Result<Self> {
        let env = |name: &str| match name.strip_prefix("DRYSTONE_") {
            Some("CACHE_DIR") | None => env(name),
            Some(rest) => env(&format!("DRYSTONE_TO_{rest}")),
        };
        if target.vault.is_none() && env("DRYSTONE_VAULT").is_none_or(|vault| vault.is_empty()) {
            return Err(Failure::usage("no vault to copy to was named").next("name one with --to"));
        }
        let flags = Global {
            vault: target.vault,
            key_file: target.key_file,
            passphrase_file: target.passphrase_file,
            ..self.flags.clone()
        };
        Self::load(&flags, &env)
    }
}

/// A single word that is neither a profile nor a directory, nor was a place before, is more likely mistyped than a new
/// directory.
fn refuse_words(text: &str, profiles: &BTreeMap<String, Profile>, known_dir: &Path) -> Result<()> {
    let known = Known::in_dir(known_dir);
    let was_place = |part: &str| !matches!(known.at(&crate::address::absolute(part)), Ok(None));
    let is_path = |part: &str| part.contains(['/', ':']) || Path::new(part).exists() || was_place(part);
    let is_word = |part: &&str| !part.is_empty() && !is_path(part);
    if Path::new(text).exists() {
        return Ok(());
    }
    let Some(word) = text.split(',').map(str::trim).find(is_word) else {
        return Ok(());
    };
    let shown = crate::shown::shown(word.as_bytes());
    let known: Vec<String> = profiles.keys().map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() {
        "there are none".to_owned()
    } else {
        known.join(", ")
    };
    Err(Failure::usage(format!(
        "`{shown}` is neither a profile ({known}) nor a directory that exists"
    ))
    .next(format!(
        "check the name; a new directory is named with a slash: ./{shown}"
    )))
}

/// A variable that must be text; an empty one counts as unset.
fn read_text(env: Environment<'_>, name: &str) -> Result<Option<String>> {
    match env(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(Failure::usage(format!("environment variable {name} is not UTF-8"))),
        None => Ok(None),
    }
}

/// A variable that is a path; an empty one counts as unset.
fn path(env: Environment<'_>, name: &str) -> Option<PathBuf> {
    env(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The directories of the XDG base directory specification.
struct Dirs<'a> {
    env: Environment<'a>,
}

impl Dirs<'_> {
    /// drystone's directory under the one that `variable` names, or under `fallback` in the home directory.
    fn under(&self, variable: &str, fallback: &str) -> Result<PathBuf> {
        // Relative paths in these variables are to be ignored, says the specification.
        if let Some(base) = path(self.env, variable).filter(|base| base.is_absolute()) {
            return Ok(base.join(OWN));
        }
        let home = path(self.env, "HOME")
            .filter(|home| home.is_absolute())
            .or_else(std::env::home_dir);
        match home.filter(|home| home.is_absolute()) {
            Some(home) => Ok(home.join(fallback).join(OWN)),
            None => Err(Failure::usage("there is no home directory").next(format!("set HOME or {variable}"))),
        }
    }

    fn default_vault(&self) -> Result<String> {
        let place = self.under("XDG_DATA_HOME", ".local/share")?.join("vault");
        place.into_os_string().into_string().map_err(|place| {
            Failure::usage(format!("{}: this path is not UTF-8", shown_path(Path::new(&place))))
                .next("name the vault with --vault")
        })
    }
}

fn read_profiles(flags: &Global, dirs: &Dirs<'_>) -> Result<BTreeMap<String, Profile>> {
    let file = match &flags.config {
        Some(file) => file.clone(),
        None => dirs.under("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text, &file),
        Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => Ok(BTreeMap::new()),
        Err(error) => Err(Failure::usage(format!(
            "{}: cannot read the configuration: {error}",
            shown_path(&file)
        ))),
    }
}

/// Reads a configuration file; relative paths in it are taken from its own directory.
fn parse(text: &str, file: &Path) -> Result<BTreeMap<String, Profile>> {
    let parsed: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let key = text.lines().nth(line - 1).map_or("", str::trim);
        let what = error.message().replace('\n', ", ");
        Failure::usage(format!("{}: line {line}: `{key}`: {what}", shown_path(file)))
            .next("correct this line, or name another file with --config")
    })?;
    let base = file.parent().unwrap_or(Path::new(""));
    let mut profiles = parsed.profile;
    for profile in profiles.values_mut() {
        profile.drop_empty();
        profile.anchor(base);
    }
    Ok(profiles)
}

impl Profile {
    /// An empty setting counts as not made, as an empty variable does.
    fn drop_empty(&mut self) {
        let is_said = |text: &String| !text.trim().is_empty();
        for text in [&mut self.vault, &mut self.passphrase_command, &mut self.host] {
            *text = text.take().filter(is_said);
        }
        for path in [&mut self.passphrase_file, &mut self.key_file, &mut self.cache_dir] {
            *path = path.take().filter(|path| !path.as_os_str().is_empty());
        }
        self.tag.retain(is_said);
    }

    fn anchor(&mut self, base: &Path) {
        let single = [&mut self.passphrase_file, &mut self.key_file, &mut self.cache_dir];
        let paths = single
            .into_iter()
            .flatten()
            .chain(&mut self.exclude_file)
            .chain(&mut self.paths);
        for path in paths {
            *path = base.join(&*path);
        }
        if let Some(vault) = &mut self.vault {
            *vault = crate::address::anchored(vault, base);
        }
    }
}

fn take_by_url(profiles: &mut BTreeMap<String, Profile>, url: &str) -> Profile {
    let name = profiles
        .iter()
        .find(|(_, profile)| profile.vault.as_deref() == Some(url))
        .map(|(name, _)| name.clone());
    name.and_then(|name| profiles.remove(&name)).unwrap_or_default()
}

/// What the first level that gives anything gives; a key file comes before a passphrase, which then opens the file itself.
fn key_source(flags: &Global, env: Environment<'_>, profile: &Profile) -> Result<Option<KeySource>> {
    let text = |name: &str| read_text(env, name);
    let from_env = match text("DRYSTONE_PASSPHRASE")? {
        Some(passphrase) => Some(Passphrase::Text(Zeroizing::new(passphrase))),
        None => match path(env, "DRYSTONE_PASSPHRASE_FILE") {
            Some(file) => Some(Passphrase::File(file)),
            None => text("DRYSTONE_PASSPHRASE_COMMAND")?.map(Passphrase::Command),
        },
    };
    let of_profile = profile.passphrase_file.clone().map(Passphrase::File);
    let levels = [
        (
            flags.key_file.clone(),
            flags.passphrase_file.clone().map(Passphrase::File),
        ),
        (path(env, "DRYSTONE_KEY_FILE"), from_env),
        (
            profile.key_file.clone(),
            of_profile.or_else(|| profile.passphrase_command.clone().map(Passphrase::Command)),
        ),
    ];
    let mut given = levels.iter().skip_while(|level| matches!(level, (None, None)));
    Ok(match given.next() {
        Some((Some(file), None)) => Some(KeySource::File(
            file.clone(),
            given.find_map(|(_, passphrase)| passphrase.clone()),
        )),
        Some((Some(file), passphrase)) => Some(KeySource::File(file.clone(), passphrase.clone())),
        Some((None, Some(passphrase))) => Some(KeySource::Passphrase(passphrase.clone())),
        Some((None, None)) | None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &Global, env: &[(&str, &str)]) -> Result<Settings> {
        let get = |name: &str| {
            env.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        };
        Settings::load(flags, &get)
    }

    fn with_config(text: &str) -> (tempfile::TempDir, Global) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        (
            dir,
            Global {
                config: Some(file),
                ..Global::default()
            },
        )
    }

    const HOME: (&str, &str) = ("HOME", "/home/x");

    #[test]
    fn without_anything_given_the_xdg_places_are_used() {
        let settings = load(&Global::default(), &[HOME]).unwrap();
        assert_eq!(settings.vault, "/home/x/.local/share/drystone/vault");
        assert_eq!(settings.keys_dir, Path::new("/home/x/.config/drystone/keys"));
        assert_eq!(settings.cache_dir, Path::new("/home/x/.cache/drystone"));
        assert!(settings.key.is_none());
        let env = [
            HOME,
            ("XDG_DATA_HOME", "/data"),
            ("XDG_CACHE_HOME", "relative/is/ignored"),
        ];
        let settings = load(&Global::default(), &env).unwrap();
        assert_eq!(settings.vault, "/data/drystone/vault");
        assert_eq!(settings.cache_dir, Path::new("/home/x/.cache/drystone"));
    }

    #[test]
    fn flags_come_before_environment_before_profile() {
        let (dir, mut flags) = with_config(
            "[profile.default]\nvault = 'v'\nkey-file = 'k'\ncache-dir = '/c'\nthreads = 3\ncompression = 'zstd:7'\n",
        );
        let settings = load(&flags, &[HOME]).unwrap();
        assert_eq!(Path::new(&settings.vault), dir.path().join("v"));
        assert_eq!(settings.cache_dir, Path::new("/c"));
        assert_eq!(settings.threads, 3);
        assert_eq!(settings.profile.compression.unwrap().to_string(), "zstd:7");
        assert!(matches!(&settings.key, Some(KeySource::File(file, None)) if *file == dir.path().join("k")));
        let env = [HOME, ("DRYSTONE_PASSPHRASE", "secret"), ("DRYSTONE_CACHE_DIR", "/e")];
        let settings = load(&flags, &env).unwrap();
        assert_eq!(settings.cache_dir, Path::new("/e"));
        assert!(matches!(
            &settings.key,
            Some(KeySource::Passphrase(Passphrase::Text(_)))
        ));
        flags.key_file = Some("/flag".into());
        flags.cache_dir = Some("/f".into());
        flags.threads = Some(9);
        let settings = load(&flags, &env).unwrap();
        assert_eq!((settings.cache_dir.as_path(), settings.threads), (Path::new("/f"), 9));
        let key = settings.key.unwrap();
        assert!(matches!(&key, KeySource::File(file, Some(Passphrase::Text(_))) if file == Path::new("/flag")));
    }

    #[test]
    fn an_empty_setting_counts_as_not_made() {
        let (_dir, flags) = with_config(
            "[profile.default]\nvault = ''\nkey-file = ''\npassphrase-command = ''\ncache-dir = ''\nhost = ' '\ntag = ['', 'a']\n",
        );
        let settings = load(&flags, &[HOME]).unwrap();
        assert_eq!(settings.vault, "/home/x/.local/share/drystone/vault");
        assert!(settings.key.is_none() && settings.profile.host.is_none());
        assert_eq!(settings.cache_dir, Path::new("/home/x/.cache/drystone"));
        assert_eq!(settings.profile.tag, ["a"]);
    }

    #[test]
    fn a_profile_is_chosen_by_name_or_by_its_very_url_and_by_nothing_else() {
        let (_dir, mut flags) = with_config(
            "[profile.default]\nvault = '/d'\nkey-file = '/kd'\n[profile.nas]\nvault = 'file:///n'\npassphrase-command = 'x'\n",
        );
        flags.vault = Some("nas".to_owned());
        let settings = load(&flags, &[HOME]).unwrap();
        assert_eq!(settings.vault, "file:///n");
        assert!(matches!(
            &settings.key,
            Some(KeySource::Passphrase(Passphrase::Command(_)))
        ));
        flags.vault = Some("file:///n".to_owned());
        assert!(load(&flags, &[HOME]).unwrap().key.is_some());
        flags.vault = Some("/other".to_owned());
        let settings = load(&flags, &[HOME]).unwrap();
        assert!(settings.vault == "/other" && settings.key.is_none());
        flags.vault = None;
        assert_eq!(
            load(&flags, &[HOME, ("DRYSTONE_VAULT", "nas")]).unwrap().vault,
            "file:///n"
        );
    }

    #[test]
    fn no_key_of_the_first_vault_is_tried_on_the_second() {
        let (_dir, flags) = with_config(
            "[profile.default]\nvault = '/d'\nkey-file = '/kd'\n[profile.far]\nvault = '/far'\nkey-file = '/kf'\n",
        );
        let get = |name: &str| match name {
            "HOME" => Some("/home/x".into()),
            "DRYSTONE_PASSPHRASE" => Some("secret".into()),
            "DRYSTONE_TO_PASSPHRASE_FILE" => Some("/other".into()),
            _ => None,
        };
        let first = Settings::load(&flags, &get).unwrap();
        let target = |vault: &str| Target {
            vault: Some(vault.to_owned()),
            ..Target::default()
        };
        let second = first.of_target(target("/new"), &get).unwrap();
        assert_eq!(second.vault, "/new");
        assert!(
            matches!(second.key, Some(KeySource::Passphrase(Passphrase::File(file))) if file == Path::new("/other"))
        );
        let home = |name: &str| if name.starts_with("DRYSTONE_") { None } else { get(name) };
        let second = first.of_target(target("far"), &home).unwrap();
        assert!(matches!(second.key, Some(KeySource::File(file, None)) if file == Path::new("/kf")));
        assert!(first.of_target(target("/new"), &home).unwrap().key.is_none());
        assert!(first.of_target(Target::default(), &home).is_err());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_with_its_line() {
        for (text, line, word) in [
            ("[profile.default]\nvault = '/v'\nvalut = '/w'\n", "line 3", "valut"),
            ("# x\n\n[porfile.default]\n", "line 3", "porfile"),
            ("[profile.default]\nthreads = 'many'\n", "line 2", "threads"),
            ("[profile.default]\nthreads = 0\n", "line 2", "at least 1"),
            ("[profile.default]\ncompression = 'zip'\n", "line 2", "zip"),
            ("[profile.default]\nvault = '/v\n", "line 2", "vault"),
            ("[profile.default]\nvault = '/v'\nvault = '/w'\n", "line 3", "vault"),
        ] {
            let (_dir, flags) = with_config(text);
            let failure = load(&flags, &[HOME]).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
            let message = failure.message;
            assert!(
                message.contains("config.toml") && message.contains(line) && message.contains(word),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
        let (_dir, flags) = with_config("[profile.x]\nno-such-key = 1\n");
        let message = load(&flags, &[HOME]).unwrap_err().message;
        let (_, known) = message.split_once("expected one of ").unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            assert!(
                crate::manual::CONFIGURATION.contains(&format!("{key} = ")),
                "{key} is not explained"
            );
        }
        let flags = Global {
            config: Some("/does/not/exist".into()),
            ..Global::default()
        };
        assert!(load(&flags, &[HOME]).unwrap_err().message.contains("/does/not/exist"));
    }
}
