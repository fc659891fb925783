//! Exit codes, and which failure ends with which: the only place that knows them.
//!
//! - Every failure says what failed on which object or place, and, where there is one, the next command to run.
//! - Codes are part of the interface (docs/cli.md); a code never changes its meaning.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use drystone_vault::Problems;

/// How a run ended; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// Nothing, or not everything, was done; the message says why.
    Error = 1,
    /// The command line, environment or configuration file is wrong.
    Usage = 2,
    /// Done but for the files listed, which could not be read, changed meanwhile, or could not be written.
    Incomplete = 3,
    /// Damage was found and mended.
    Repaired = 4,
    /// Damage was found, and is still there.
    Damaged = 5,
    /// There is no vault at the place.
    NoVault = 10,
    /// No key was given, or the given one does not open the vault or may not do this.
    WrongKey = 12,
    /// Stopped by SIGINT or SIGTERM; what was stored is reused by the next run.
    Interrupted = 130,
}

impl Exit {
    /// The word in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Error => "error",
            Self::Usage => "usage",
            Self::Incomplete => "incomplete",
            Self::Repaired => "repaired",
            Self::Damaged => "damaged",
            Self::NoVault => "no_vault",
            Self::WrongKey => "wrong_key",
            Self::Interrupted => "interrupted",
        }
    }

    /// How a look at the vault ends that met these problems.
    pub(crate) fn of_damage(problems: &Problems) -> Self {
        if problems.is_empty() { Self::Done } else { Self::Damaged }
    }

    /// Returns how a run ends that did everything but what these lists name.
    pub(crate) fn of_incomplete(lists: &[&Problems]) -> Self {
        if lists.iter().all(|list| list.is_empty()) {
            Self::Done
        } else {
            Self::Incomplete
        }
    }

    /// Ends the process at once, whatever its threads are doing.
    pub(crate) fn now(self) -> ! {
        std::process::exit(self as i32)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table of `drystone help` and the manual page.
pub(crate) const CODES: &str = "\
Exit codes:
    0  done
    1  error
    2  wrong command line or configuration
    3  incomplete: done but for the files listed
    4  damage was found and mended
    5  damage was found
   10  no vault at this place
   12  no key, wrong key, or a key that may not do this
  130  interrupted (SIGINT, SIGTERM)";

/// Result of everything a verb does.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a verb could not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code the process ends with.
    pub(crate) exit: Exit,
    /// What failed, on which object or place; empty if there is nobody to tell (a closed pipe).
    pub(crate) message: String,
    /// What to do next.
    pub(crate) next: Option<String>,
}

impl Failure {
    /// A failure with its code.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            next: None,
        }
    }

    /// A failure of the operating system while `doing` something with `path`.
    pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(
            Exit::Error,
            format!("{}: {doing}: {error}", crate::shown::shown_path(path)),
        )
    }

    /// Wrong use of the command line, environment or configuration.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same, with the next thing to do.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Standard output failed; a reader that went away (`| head`) is told nothing.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Error, ""),
            _ => Self::new(Exit::Error, format!("standard output: {error}")),
        }
    }
}

impl From<drystone_vault::Error> for Failure {
    fn from(error: drystone_vault::Error) -> Self {
        use drystone_vault::Error as E;
        let (exit, next) = match &error {
            E::Store(_) | E::Format(_) => return from_below(error),
            E::NoVault { .. } => (Exit::NoVault, "check the path, or make a vault there: drystone init"),
            E::Emptied { .. } => (Exit::NoVault, EMPTIED),
            E::OtherVault { .. } | E::OtherVaultKey { .. } => (Exit::Error, REPLACED),
            E::KeyOfOtherVault { .. } => (Exit::WrongKey, "check the path, or give a key of this vault"),
            E::DifferentVaults { .. } => (
                Exit::Error,
                "run the same command without the places of the other vault",
            ),
            E::OlderKeys { .. } | E::OlderConfiguration { .. } => (Exit::Error, OLDER),
            E::Memory { .. } => (Exit::Error, "look at this file; docs/recovery.md says what is in it"),
            E::OwnerStays { .. } => (Exit::Error, OWNER_STAYS),
            E::KeyRemoved { .. } | E::NewerKeys { .. } => (Exit::WrongKey, "give another key"),
            E::WrongKey { .. } => (Exit::WrongKey, WRONG_KEY),
            E::BadKey { .. } => (Exit::WrongKey, "check the file given with --key-file or --recipient"),
            E::VaultExists { .. } => (Exit::Error, "drystone snapshots"),
            E::NoSlot { .. } => (Exit::Error, "drystone key list"),
            E::LastOwner { .. } => (Exit::Error, "add another owner key first: drystone key add"),
            E::NoPlaceOf { .. } => (Exit::Error, "drystone place list"),
            E::NotSpread { .. } => (Exit::Error, "name another place of the vault as well"),
            E::TooFewPlaces { .. } => (
                Exit::Error,
                "make enough of them available, then run the same command again; nothing was changed",
            ),
            E::OnePlace { .. } => (Exit::Error, "name that place alone with --vault"),
            E::Feature { .. } | E::UnknownRoots { .. } => (Exit::Error, NEWER),
            E::UncertainConfig { .. } | E::NoConfig { .. } => {
                (Exit::Error, "drystone vault show, then drystone vault resolve [HASH]")
            }
            E::ConfigMoved { .. } => (Exit::Error, CONFIG_MOVED),
            E::PlaceTaken { .. } => (Exit::Error, "name an empty or new place"),
            E::Absent { .. } | E::NoLedger { .. } => (Exit::Error, "drystone doctor"),
            E::Unmarked { .. } => (Exit::Damaged, "drystone check; then drystone forget SNAPSHOT"),
            E::UnknownLedger { .. } => (Exit::Damaged, "drystone doctor"),
            E::MissingRoots { .. } => (Exit::Damaged, "bring it back, or give it up: drystone forget ID"),
            E::LatestUnknown { .. } => (
                Exit::Damaged,
                "drystone check; if it is lost or none of yours: drystone forget ID",
            ),
            E::NoSnapshot { .. } | E::NoSigner { .. } => (Exit::Error, "drystone snapshots"),
            E::AmbiguousSnapshot { .. } => (Exit::Error, "give more digits, as `drystone snapshots` shows them"),
            E::LatestOfSeveral { .. } => (Exit::Error, OF_SEVERAL),
            E::LatestDoubtful { .. } => (Exit::Error, "name one by its id if you want it"),
            E::Damaged {
                source: drystone_format::Error::Version { .. },
                ..
            } => (Exit::Error, NEWER),
            E::Damaged { object, .. } if object.starts_with("keys/") => (
                Exit::Damaged,
                "open the vault with another key or its recovery code, then: drystone key remove ID, drystone key add",
            ),
            E::Damaged { .. } | E::WrongChunk { .. } | E::MissingChunk { .. } => (Exit::Damaged, "drystone check"),
            E::Index(_) => (Exit::Error, "drystone repair index"),
            E::GivenUp { .. } | E::PlacesMoved { .. } => (Exit::Error, "run the same command again"),
            E::Exhausted { .. } => (Exit::Error, LIMITS),
            E::Interrupted => (Exit::Interrupted, "run the same command again"),
            _ => (
                Exit::Error,
                "run the same command again; if it fails the same way: drystone check",
            ),
        };
        Self::new(exit, &error).next(next)
    }
}

const CONFIG_MOVED: &str = "name all places, also new ones, with --vault A,B, and look at `drystone place list`";
const OF_SEVERAL: &str = "write latest@KEY with one of them; see `drystone snapshots`";
const EMPTIED: &str =
    "mount the disk and run the same command again; if the vault is gone for good: drystone init --accept-new-vault";
const WRONG_KEY: &str = "give another key with --key-file, or the passphrase or recovery code with --passphrase-file";
const OWNER_STAYS: &str = "copy what you need into a new vault: drystone init, then drystone copy --to; if its holder is \
                           still trusted and the key only to be tidied away: --holder-still-trusted";
const REPLACED: &str =
    "check the path and what is mounted there; if the vault was replaced on purpose: --accept-new-vault";
const OLDER: &str = "name another place of the vault as well; if none has anything newer: --accept-older";
const URLS: &str = "docs/places.md has the URL of every kind of place; `drystone help` those that are most used";
const LIMITS: &str = "raise the limit, or take a key file, which takes less memory than a passphrase";
const NEWER: &str = "install a newer drystone; nothing is wrong with this vault";

/// Failures of the place and of bytes, however they were wrapped.
fn from_below(error: drystone_vault::Error) -> Failure {
    use drystone_format::Error as F;
    match error {
        drystone_vault::Error::Store(error) => Failure::from(error),
        drystone_vault::Error::Format(error) => {
            let (exit, next) = match &error {
                F::Version { .. } => (Exit::Error, NEWER),
                F::WriterKey { .. } | F::Right { .. } | F::Epoch { .. } => {
                    (Exit::WrongKey, "give an owner key; see `drystone key list`")
                }
                _ => (Exit::Damaged, "drystone check"),
            };
            Failure::new(exit, &error).next(next)
        }
        other => Failure::new(Exit::Error, &other),
    }
}

impl From<drystone_store::Error> for Failure {
    fn from(error: drystone_store::Error) -> Self {
        use drystone_store::Error as E;
        let text = error.to_string();
        let (exit, next) = match &error {
            E::NoPlace { advice, .. } => {
                let next = advice.split_once("; ").map(|(_, next)| next);
                (Exit::NoVault, next.unwrap_or("check the path, or: drystone init"))
            }
            E::NotDirectory { .. } | E::Occupied { .. } => (Exit::NoVault, "name another place with --vault"),
            E::Scheme { .. } | E::Url { .. } => (Exit::Usage, URLS),
            E::NotBuilt { .. } => (Exit::Usage, text.rsplit_once("; ").map_or(URLS, |(_, next)| next)),
            E::NotFound { .. } | E::Short { .. } | E::TooLarge { .. } | E::Unsound { .. } | E::Lost { .. } => {
                (Exit::Damaged, "drystone check")
            }
            E::TooFew { .. } => (Exit::Error, "drystone doctor"),
            E::Stopped { .. } => (Exit::Interrupted, "run the same command again"),
            E::Foreign { .. } => (Exit::Error, "look at it, remove it, and run the same command again"),
            E::Endless { .. } => (Exit::Error, "look at what lies at the place, or who answers for it"),
            E::Full { .. } => (Exit::Error, "free some space, then run the same command again"),
            E::Unavailable { .. } | E::Silent { .. } => (Exit::Error, "run the same command again later"),
            E::Denied { advice, .. } => (Exit::Error, *advice),
            E::ReadOnly { .. } => (Exit::Error, "check owner, mode and mount of the place"),
            _ => (Exit::Error, "run the same command again"),
        };
        Self::new(exit, what_happened(&error, &text)).next(next)
    }
}

/// The message of an error of a place without the advice behind its last semicolon, where `next` says the same.
fn what_happened<'a>(error: &drystone_store::Error, text: &'a str) -> &'a str {
    use drystone_store::Error as E;
    let is_said_twice = matches!(
        error,
        E::NoPlace { .. }
            | E::Short { .. }
            | E::TooLarge { .. }
            | E::Full { .. }
            | E::Denied { .. }
            | E::Unavailable { .. }
            | E::Silent { .. }
            | E::Endless { .. }
            | E::Foreign { .. }
            | E::Unsound { .. }
            | E::NotBuilt { .. }
    );
    match text.rsplit_once("; ") {
        Some((what, _)) if is_said_twice => what,
        _ => text,
    }
}

impl From<drystone_backup::Error> for Failure {
    fn from(error: drystone_backup::Error) -> Self {
        use drystone_backup::Error as E;
        let (exit, next) = match error {
            E::Vault(error) => return Self::from(error),
            // A closed pipe is told nobody.
            E::Output { ref source } => return Self::output(source),
            E::Pattern { .. } => (
                Exit::Usage,
                "correct the pattern; patterns are written as in .gitignore",
            ),
            E::Source { .. } => (Exit::Error, "check the path"),
            E::MoreThanStated { .. } => (Exit::Error, "drystone snapshots, then drystone forget ID"),
            E::Stream { .. } => (
                Exit::Error,
                "mend what gives the data, and run the same command again; with --stdin-from-command its exit code counts",
            ),
            E::SameVault { .. } => (Exit::Usage, "name another vault with --to"),
            E::Target { .. } => (
                Exit::Error,
                "name another directory with --target (restore) or --into (drill)",
            ),
            E::NoRoom { .. } => (
                Exit::Error,
                "drystone drill with a smaller --share, or another directory for --into",
            ),
            E::NotFound { .. } | E::WrongKind { .. } => (Exit::Error, "drystone ls -l SNAPSHOT[:PATH]"),
            _ => (Exit::Error, "run the same command again"),
        };
        Self::new(exit, &error).next(next)
    }
}

impl From<drystone_extents::Error> for Failure {
    fn from(error: drystone_extents::Error) -> Self {
        Self::new(Exit::Error, &error)
    }
}

impl From<drystone_reflink::Error> for Failure {
    fn from(error: drystone_reflink::Error) -> Self {
        use drystone_reflink::Error as E;
        let (exit, next) = match error {
            E::Kernel(error) => return Self::from(error),
            E::Target { .. } => (
                Exit::Error,
                "name a path, a device, a UUID, or vol:PATH for one subvolume",
            ),
            E::Interrupted => (Exit::Interrupted, "run the same command again"),
            E::State { .. } => (
                Exit::Error,
                "nothing in it is needed: the next run looks at everything once",
            ),
            _ => (Exit::Error, "run the same command again"),
        };
        Self::new(exit, &error).next(next)
    }
}
