//! The world outside as the engine wants it: clock, randomness, runtime; and the wish to stop that signals carry.
//!
//! - The first SIGINT or SIGTERM asks everything to stop in good order, the second ends the process at once. Calls to places
//!   over a network end within a second of the first, whatever these do or do not answer.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use drystone_format::VaultId;
use drystone_format::tree::Time;
use drystone_store::Stop;
use drystone_vault::{Cancel, Clock, Context, Entropy, PlaceWatch, Troubles, Vault};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cache_dir::CacheDirs;
use crate::config::Settings;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Output, counted, local_offset, with_exit};
use crate::runtime::Runtime;
use crate::shown::shown;

/// What a verb runs with.
pub(crate) struct App {
    /// Flags, environment and configuration, resolved.
    pub(crate) settings: Settings,
    /// Where results go.
    pub(crate) out: Output,
    /// Set by a signal.
    pub(crate) cancel: Cancel,
    /// Set by the same signal; ends calls to places.
    pub(crate) stop: Stop,
    /// What the engine takes.
    pub(crate) context: Context,
    /// Where caches lie.
    pub(crate) caches: CacheDirs,
    /// The places of the vaults that were opened, to be asked at the end what went wrong with them.
    watched: Mutex<Vec<PlaceWatch>>,
    // Outlives everything that holds its handle.
    _runtime: Runtime,
}

impl App {
    /// Starts the runtime and listens to signals.
    pub(crate) fn start(settings: Settings, out: Output) -> Result<Self> {
        let (runtime, handle) = Runtime::start()?;
        let (cancel, stop) = (Cancel::default(), Stop::default());
        listen(&cancel, &stop, out)
            .map_err(|error| Failure::new(Exit::Error, format!("cannot listen to signals: {error}")))?;
        let context = Context {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            runtime: handle,
            threads: settings.threads,
            memory_bytes: settings.memory_bytes,
            cache_dir: settings.cache_dir.clone(),
            known_dir: settings.known_dir.clone(),
            chunk_map: None,
            accept: settings.accept,
        };
        Ok(Self {
            settings,
            out,
            cancel,
            stop,
            context,
            caches: CacheDirs::default(),
            watched: Mutex::default(),
            _runtime: runtime,
        })
    }

    /// The engine's context for a vault that is opened or made with these settings.
    pub(crate) fn context_for(&self, settings: &Settings, vaults: &dyn Fn() -> Vec<VaultId>) -> Result<Context> {
        let told = (&*self.context.entropy, self.out);
        Ok(Context {
            cache_dir: self.caches.choose(&settings.cache_dir, vaults, told)?,
            ..self.context.clone()
        })
    }

    /// Reports at the end what went wrong with the places of this vault.
    pub(crate) fn watch(&self, vault: &Vault) {
        if let Ok(mut watched) = self.watched.lock() {
            watched.push(vault.watch_places());
        }
    }

    /// What went wrong so far with the places of each vault that was opened.
    fn troubles(&self) -> Vec<Troubles> {
        let watched = self.watched.lock();
        let troubles = |watched: &Vec<PlaceWatch>| watched.iter().map(PlaceWatch::troubles).collect();
        watched.map_or_else(|_| Vec::new(), |watched| troubles(&watched))
    }

    /// How the run ends that would end with `exit`: done, but with something owed, is not done.
    pub(crate) fn ending(&self, exit: Exit) -> Exit {
        let is_owed = |troubles: &Troubles| troubles.owed() > 0 || troubles.thin.count > 0;
        if exit == Exit::Done && self.troubles().iter().any(is_owed) {
            Exit::Incomplete
        } else {
            exit
        }
    }

    /// Says what went wrong with places, and returns how the run ends.
    pub(crate) fn finish(&self, exit: Exit) -> Exit {
        for troubles in self.troubles() {
            trouble_lines(&troubles).iter().for_each(|line| self.out.warning(line));
        }
        self.ending(exit)
    }

    /// Prints what came of a command, as its last object or line, and returns how it ends. With `--quiet` a person hears
    /// only of what is not in order.
    pub(crate) fn end(&self, kind: &str, exit: Exit, fields: Value, text: String) -> Result<Exit> {
        let exit = self.ending(exit);
        if !(self.out.quiet && exit == Exit::Done && !self.out.is_json()) {
            self.out.result(kind, with_exit(fields, exit), text)?;
        }
        Ok(exit)
    }

    /// Prints the answer to a question, as its last object or line, and returns how the command ends.
    pub(crate) fn answer(&self, kind: &str, exit: Exit, fields: Value, text: String) -> Result<Exit> {
        let exit = self.ending(exit);
        self.out.result(kind, with_exit(fields, exit), text)?;
        Ok(exit)
    }

    /// Why a command failed: because it was asked to, if it was, whatever that looked like from below.
    pub(crate) fn reason(&self, failure: Failure) -> Failure {
        if self.cancel.is_cancelled() && matches!(failure.exit, Exit::Error | Exit::Damaged) {
            return Failure::from(drystone_vault::Error::Interrupted);
        }
        failure
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        self.context.clock.now()
    }
}

/// What a person is told of places that did not do their part; why a place is absent was said at the beginning.
fn trouble_lines(troubles: &Troubles) -> Vec<String> {
    let mut lines = Vec::new();
    for place in &troubles.places {
        let name = shown(place.place.as_bytes());
        if let Some(failure) = &place.first_failure {
            let more = counted(place.failures, "request");
            let failure = failure.strip_prefix(&format!("{}: ", place.place)).unwrap_or(failure);
            lines.push(format!("{name}: {more} failed, the first with: {failure}"));
        }
        let objects = [
            (&place.missing, "missing", "drystone repair"),
            (&place.unsound, "altered", "drystone scrub --repair"),
            (&place.forged, "forged with a key of this vault", "drystone repair"),
            (&place.owed, "owed", "drystone repair"),
            (&place.undeleted, "still to be removed", "drystone gc"),
        ];
        for (objects, what, next) in objects {
            if objects.count > 0 {
                let first = objects.named.first().map_or("", String::as_str);
                let many = counted(objects.count, "object");
                let when = if place.absent.is_some() { " when it is back" } else { "" };
                lines.push(format!("{name}: {many} {what} ({first}); run `{next}`{when}"));
            }
        }
    }
    if troubles.thin.count > 0 {
        let away = troubles.places.iter().filter(|place| place.absent.is_some());
        let away: Vec<String> = away.map(|place| shown(place.place.as_bytes())).collect();
        let because = match away.as_slice() {
            [] => "too many places are away".to_owned(),
            [one] => format!("{one} is away"),
            several => format!("{} are away", several.join(", ")),
        };
        let have = if troubles.thin.count == 1 { "has" } else { "have" };
        let many = counted(troubles.thin.count, "object");
        let when = if away.len() == 1 { "it is" } else { "they are" };
        lines.push(format!(
            "{many} {have} no redundancy now, because {because}; run `drystone repair` when {when} back"
        ));
    }
    lines
}

fn listen(cancel: &Cancel, stop: &Stop, out: Output) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (cancel, stop) = (cancel.clone(), stop.clone());
    std::thread::Builder::new()
        .name("drystone-signal".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if cancel.is_cancelled() {
                    Exit::Interrupted.now();
                }
                cancel.cancel();
                stop.ask();
                out.note("stopping in good order, what is done so far is kept; Ctrl-C again stops at once");
            }
        })?;
    Ok(())
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        // A clock before 1970 is shown as 1970: nothing depends on it but what people read.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }

    fn ahead_of_utc(&self, seconds: i64) -> i64 {
        local_offset(seconds)
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Keys from anything less would be worse than no keys.
            Output {
                form: crate::output::Form::Text,
                quiet: false,
            }
            .say(format_args!("drystone: the system gives no randomness: {error}"));
            Exit::Error.now();
        }
    }
}
