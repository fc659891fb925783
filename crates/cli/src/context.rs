//! The world outside as the engine wants it: clock, randomness, runtime; and the wish to stop that signals carry.
//!
//! - The first SIGINT or SIGTERM asks everything to stop in good order, the second ends the process at once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use drystone_format::tree::Time;
use drystone_vault::{Cancel, Clock, Context, Entropy};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::exit::{Exit, Failure, Result};
use crate::output::Output;

/// Threads that wait for places; they use no processor to speak of.
const RUNTIME_THREADS: usize = 2;

/// What a verb runs with.
pub(crate) struct App {
    /// Flags, environment and configuration, resolved.
    pub(crate) settings: Settings,
    /// Where results go.
    pub(crate) out: Output,
    /// Set by a signal.
    pub(crate) cancel: Cancel,
    /// What the engine takes.
    pub(crate) context: Context,
    // Outlives everything that holds its handle.
    _runtime: tokio::runtime::Runtime,
}

impl App {
    /// Starts the runtime and listens to signals.
    pub(crate) fn start(settings: Settings, out: Output) -> Result<Self> {
        let failed = |what: &str, error: std::io::Error| Failure::new(Exit::Error, format!("{what}: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("drystone-wait")
            .enable_all()
            .build()
            .map_err(|error| failed("cannot start threads", error))?;
        let cancel = Cancel::default();
        listen(&cancel, out).map_err(|error| failed("cannot listen to signals", error))?;
        let context = Context {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            runtime: runtime.handle().clone(),
            threads: settings.threads,
            memory_bytes: settings.memory_bytes,
            cache_dir: settings.cache_dir.clone(),
        };
        Ok(Self {
            settings,
            out,
            cancel,
            context,
            _runtime: runtime,
        })
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        self.context.clock.now()
    }
}

fn listen(cancel: &Cancel, out: Output) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let cancel = cancel.clone();
    std::thread::Builder::new()
        .name("drystone-signal".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if cancel.is_cancelled() {
                    Exit::Interrupted.now();
                }
                cancel.cancel();
                out.note("stopping; what is stored so far will be reused (once more to stop at once)");
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
