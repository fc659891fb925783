//! Places on real servers: the conformance suite, refusals, servers that go away, and what a cut upload leaves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use drystone_format::SlotId;
use drystone_store::conformance::suite;
use drystone_store::retry::Policy;
use drystone_store::testing::servers::{S3, Sftp, Swift, WebDav};
use drystone_store::{Error, Name, OpenOptions, Prefix, Put, Range, Result, Store, create, open};

use crate::pack;

/// No call is repeated: what goes wrong shows.
const ONCE: Policy = Policy {
    attempts: 1,
    first_delay: Duration::ZERO,
    max_delay: Duration::ZERO,
    seed: 0,
};

/// The server, or nothing after saying so aloud; a failure where nothing may be left out.
fn need<T>(started: std::result::Result<T, String>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(missing) => {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci, "{missing}");
            eprintln!("LEFT OUT: a test with a real server: {missing}");
            None
        }
    }
}

/// The one Swift of these tests, since it takes seconds to start.
fn swift() -> Option<&'static Swift> {
    static SWIFT: OnceLock<Option<Swift>> = OnceLock::new();
    SWIFT.get_or_init(|| need(Swift::start())).as_ref()
}

type Lookup<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

fn options(credentials: Lookup<'_>) -> OpenOptions<'_> {
    static SEED: AtomicU32 = AtomicU32::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed).into();
    OpenOptions {
        credentials,
        retry: Policy { seed, ..ONCE },
    }
}

/// Waits for a future on a thread of the runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// With retries: moto and wsgidav answer 500 to some of the requests that race for one name.
async fn conforms(url: impl Fn(&str) -> String, credentials: Lookup<'_>) {
    let count = AtomicU32::new(0);
    suite(|| {
        let place = format!("a b/vault-{}", count.fetch_add(1, Ordering::Relaxed));
        let mut options = options(credentials);
        options.retry.attempts = 8;
        options.retry.first_delay = Duration::from_millis(10);
        options.retry.max_delay = Duration::from_millis(100);
        wait(create(&url(&place.replace(' ', "%20")), &options)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_conforms() {
    let Some(server) = need(S3::start()) else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn swift_conforms() {
    let Some(server) = swift() else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn webdav_conforms() {
    let Some(server) = need(WebDav::start()) else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
    for vault in std::fs::read_dir(server.files().join("a b")).unwrap() {
        let left = std::fs::read_dir(vault.unwrap().path().join("tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files are left");
    }
}
